//! The body of one request that is encoded or JSON. What was received of it waits in leased memory and is decoded piece by
//! piece; the pieces are read as the chunk and the tail have room.

use super::body::{Body, Part};
use super::decode::Decoder;
use super::dialect::Records;
use super::head::Coding;
use super::json::JsonRecords;
use super::options::HttpOptions;
use super::problem::{self, Problem};
use super::request::problem_of;
use super::session::{HEAD_LANDING, Http, State};
use crate::session::memory::document::Document;
use crate::session::memory::room::Lease;
use crate::session::{Owner, Step, Window};

/// Bytes decoded at once at most.
pub const PIECE: usize = 32 << 10;
/// The most output of one turn. Output without a whole line fills no chunk, so a full chunk would not end the turn.
const WORK_MOST: usize = 1 << 20;

/// The parts of a body that wait, and what was received behind it.
pub struct Encoded {
    decoder: Option<Decoder>,
    /// What is decoded is JSON, of which records are made.
    json: Option<JsonRecords>,
    /// Received, not decoded. All of it landed in one receive; its lease is for [`Encoded::rest`] too.
    input: Document,
    /// Decoded, not yet read for lines.
    output: Document,
    /// Every byte of the body is in `input`.
    is_last: bool,
    /// The decoder may have more to give without more input.
    more: bool,
    /// Received behind the body: the beginning of the next request.
    pub rest: Vec<u8>,
}

/// Bytes that are leased for a body beside its decoder.
#[cfg(test)]
pub const LEASED: usize = 2 * HEAD_LANDING + PIECE;

impl Encoded {
    /// For one body.
    pub fn new(
        (coding, records): (Coding, Records),
        options: &HttpOptions,
        owner: Owner,
        now_ns: u64,
    ) -> Result<Box<Encoded>, &'static Problem> {
        let lease = || Lease::new(&options.room, owner, now_ns);
        let mut encoded = Box::new(Encoded {
            decoder: None,
            json: None,
            input: Document::with_room(lease(), 2 * HEAD_LANDING)?,
            output: Document::with_room(lease(), PIECE)?,
            is_last: false,
            more: false,
            rest: Vec::new(),
        });
        encoded.begin((coding, records), options, owner, now_ns)?;
        Ok(encoded)
    }

    /// For the next body. Where there is no memory for it, everything stays as it was.
    pub fn begin(
        &mut self,
        (coding, records): (Coding, Records),
        options: &HttpOptions,
        owner: Owner,
        now_ns: u64,
    ) -> Result<(), &'static Problem> {
        let lease = Lease::new(&options.room, owner, now_ns);
        self.decoder = Some(Decoder::new(coding, lease, options.max_decoded_bytes)?);
        self.json = (records == Records::Json).then(JsonRecords::default);
        (self.is_last, self.more) = (false, false);
        self.input.clear();
        self.output.clear();
        Ok(())
    }

    /// True if others need the memory that it holds.
    pub fn is_called_in(&self) -> bool {
        self.input.is_called_in()
            || self.output.is_called_in()
            || self.decoder.as_ref().is_some_and(Decoder::is_called_in)
    }

    /// True while its body is not over.
    pub fn is_active(&self) -> bool {
        self.decoder.is_some()
    }

    /// True where more must be received before anything can be decoded.
    pub fn is_empty(&self) -> bool {
        let has_work = !self.input.is_empty() || !self.output.is_empty() || self.more || self.is_last;
        self.decoder.is_none() || !has_work
    }

    /// Drops the body.
    pub fn stop(&mut self) {
        self.decoder = None;
        self.input.clear();
        self.output.clear();
    }

    /// Moves what fits of what lies behind the body to `to`, as if it had been received there.
    pub fn feed_rest(&mut self, to: &mut [u8]) -> usize {
        let n = self.rest.len().min(to.len());
        to[..n].copy_from_slice(&self.rest[..n]);
        self.rest.drain(..n);
        n
    }
}

impl Http {
    /// What was fed from behind a body goes back there.
    pub(super) fn keep_rest(&mut self, bytes: &[u8]) {
        if let Some(encoded) = &mut self.encoded {
            encoded.rest.splice(..0, bytes.iter().copied());
        }
    }

    /// Takes the body's bytes, keeps what lies behind them, and decodes. True: a fresh chunk is needed.
    pub(super) fn gather(&mut self, mut body: Body, bytes: &[u8], window: &mut Window<'_>) -> bool {
        let mut at = 0;
        while at < bytes.len() && body != Body::Over {
            match body.next(&bytes[at..], self.options.max_header_bytes as u32) {
                Err(problem) => {
                    self.fatal(problem, window);
                    return false;
                }
                Ok(Part::Frame(n)) => at += n,
                Ok(Part::Content(n)) => {
                    if !self.count_body(n, window) {
                        return false;
                    }
                    let input = self.encoded.as_mut().map(|encoded| &mut encoded.input);
                    if let Some(Err(no_room)) = input.map(|input| input.append(&bytes[at..at + n])) {
                        self.fatal(no_room.into(), window);
                        return false;
                    }
                    at += n;
                }
            }
        }
        self.state = State::Body(body);
        if let Some(encoded) = &mut self.encoded {
            encoded.is_last = body == Body::Over;
        }
        self.keep_rest(&bytes[at..]);
        self.decode(window)
    }

    /// Decodes what waits, and takes its lines. True: a fresh chunk is needed.
    pub(super) fn decode(&mut self, window: &mut Window<'_>) -> bool {
        if let (Some(refusal), State::Body(body)) = (window.around.refuse, self.state) {
            self.refuse(problem_of(refusal), body, window);
            return false;
        }
        loop {
            match self.take_decoded(window) {
                Step::Full(_) => return true,
                Step::Close => return false,
                Step::Continue => {}
            }
            if window.worked > WORK_MOST {
                return false; // others have their turn
            }
            // Whatever comes of it may have to wait in the tail.
            let most = PIECE.min(window.tail.allowance(window.around.is_lane));
            let Some(encoded) = &mut self.encoded else { return false };
            let Encoded { decoder: Some(decoder), json, input, output, is_last, .. } = &mut **encoded else {
                return false;
            };
            if most == 0 {
                return false;
            }
            let (mut taken, mut made) = (0, 0);
            let filled = output.fill(most, |to| {
                let progress = decoder.step(input.rest(), to, *is_last)?;
                (taken, made) = (progress.taken, progress.made);
                match json {
                    Some(json) => json.filter(&mut to[..made]),
                    None => Ok(made),
                }
            });
            match filled {
                Ok(_) => {}
                Err(problem) => {
                    self.fatal(problem, window);
                    return false;
                }
            }
            input.advance(taken);
            let all_taken = input.is_empty();
            let (is_last, is_whole) = (*is_last, decoder.is_whole());
            let is_cut = json.as_ref().is_some_and(|json| !json.is_whole());
            encoded.more = made == most;
            window.worked += made;
            if made > 0 || (taken > 0 && !all_taken) {
                continue;
            }
            if !all_taken {
                self.fatal(&problem::BAD_CODING, window); // it does not want what follows
                return false;
            }
            if !is_last {
                return false;
            }
            if !is_whole {
                self.fatal(&problem::BAD_CODING, window);
                return false;
            }
            if is_cut {
                self.fatal(&problem::BAD_JSON, window);
                return false;
            }
            if let Some(encoded) = &mut self.encoded {
                encoded.stop();
            }
            return !self.complete(window);
        }
    }

    /// Takes the lines from what was decoded.
    fn take_decoded(&mut self, window: &mut Window<'_>) -> Step {
        // It lies beside the session while the session works on it.
        let Some(mut encoded) = self.encoded.take() else { return Step::Continue };
        let step = self.take_lines(encoded.output.rest(), window);
        match step {
            Step::Full(n) => encoded.output.advance(n),
            Step::Continue => encoded.output.advance(encoded.output.rest().len()),
            Step::Close => return Step::Close, // the request has ended, and this with it
        }
        self.encoded = Some(encoded);
        step
    }
}
