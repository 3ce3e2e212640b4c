//! The body of one request that is encoded, or that is not lines. What was received of it waits in leased memory and is decoded
//! piece by piece; the pieces are read as the chunk and the tail have room. Of a document all pieces are gathered first.

use super::answer::Kind;
use super::api::{Records, Stopped, Taking, Trouble, Walk};
use super::body::{Body, Part};
use super::decode::Decoder;
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

/// How records are found in what is decoded.
pub enum Reading {
    /// They are lines.
    Lines,
    /// They are JSON, of which lines are made.
    Json(Box<JsonRecords>),
    /// As an API has them.
    Walk(Box<dyn Walk>),
}

impl Reading {
    /// True where the body may go on for ever.
    pub fn is_endless(&self) -> bool {
        matches!(self, Reading::Walk(walk) if walk.is_endless())
    }
}

/// The parts of a body that wait, and what was received behind it.
pub struct Encoded {
    decoder: Option<Decoder>,
    reading: Reading,
    /// Received, not decoded. All of it landed in one receive; its lease is for [`Encoded::rest`] too.
    input: Document,
    /// Decoded, not yet read for lines.
    output: Document,
    /// Every byte of the body is in `input`.
    is_last: bool,
    /// All of it was decoded.
    is_decoded: bool,
    /// What was decoded is of no use without what follows.
    awaits_more: bool,
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
        coding: Coding,
        reading: Reading,
        options: &HttpOptions,
        owner: Owner,
        now_ns: u64,
    ) -> Result<Box<Encoded>, &'static Problem> {
        let lease = || Lease::new(&options.room, owner, now_ns);
        let mut encoded = Box::new(Encoded {
            decoder: None,
            reading: Reading::Lines,
            input: Document::with_room(lease(), 2 * HEAD_LANDING)?,
            output: Document::with_room(lease(), PIECE)?,
            is_last: false,
            is_decoded: false,
            awaits_more: false,
            more: false,
            rest: Vec::new(),
        });
        encoded.begin(coding, reading, options, owner, now_ns)?;
        Ok(encoded)
    }

    /// For the next body. Where there is no memory for it, everything stays as it was.
    pub fn begin(
        &mut self,
        coding: Coding,
        reading: Reading,
        options: &HttpOptions,
        owner: Owner,
        now_ns: u64,
    ) -> Result<(), &'static Problem> {
        let lease = Lease::new(&options.room, owner, now_ns);
        let most = if reading.is_endless() { u64::MAX } else { options.max_decoded_bytes };
        self.decoder = Some(Decoder::new(coding, lease, most)?);
        self.reading = reading;
        (self.is_last, self.is_decoded, self.more) = (false, false, false);
        self.awaits_more = false;
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
        let has_output = !self.output.is_empty() && !self.awaits_more;
        let has_input = !self.input.is_empty() && !self.decoder.as_ref().is_some_and(Decoder::is_guessing);
        let has_work = has_input || has_output || self.more || self.is_last;
        self.decoder.is_none() || !has_work
    }

    /// True where the body may go on for ever.
    pub fn is_endless(&self) -> bool {
        self.reading.is_endless()
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

    /// Decodes what waits, and takes its records. True: a fresh chunk is needed.
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
            let Some(encoded) = &mut self.encoded else { return false };
            let most = match &encoded.reading {
                // Whatever comes of it may have to wait in the tail.
                Reading::Lines | Reading::Json(_) => PIECE.min(window.tail.allowance(window.around.is_lane)),
                Reading::Walk(_) => PIECE,
            };
            if most == 0 || encoded.is_decoded {
                return false;
            }
            match encoded.decode_piece(most, self.options.apis.max_document_bytes) {
                Ok(made) => {
                    window.worked += made;
                    if made > 0 || encoded.more {
                        continue;
                    }
                }
                Err(problem) => {
                    let is_hopeless = encoded.held() + PIECE > self.options.room.most_for_one();
                    let is_room = *problem == problem::NO_ROOM;
                    self.fatal(if is_room && is_hopeless { &problem::DOCUMENT_TOO_LARGE } else { problem }, window);
                    return false;
                }
            }
            if !encoded.is_decoded {
                return false;
            }
            if matches!(encoded.reading, Reading::Walk(_)) {
                continue; // the end of it
            }
            encoded.stop();
            return !self.complete(window);
        }
    }

    /// Takes the records from what was decoded.
    fn take_decoded(&mut self, window: &mut Window<'_>) -> Step {
        // It lies beside the session while the session works on it.
        let Some(mut encoded) = self.encoded.take() else { return Step::Continue };
        if matches!(encoded.reading, Reading::Walk(_)) {
            return self.take_walked(encoded, window);
        }
        let step = self.take_lines(encoded.output.rest(), window);
        match step {
            Step::Full(n) => encoded.output.advance(n),
            Step::Continue => encoded.output.advance(encoded.output.rest().len()),
            Step::Close => return Step::Close, // the request has ended, and this with it
        }
        self.encoded = Some(encoded);
        step
    }

    /// Takes the records of an API from what was decoded, and ends the request behind the last.
    fn take_walked(&mut self, mut encoded: Box<Encoded>, window: &mut Window<'_>) -> Step {
        let Encoded { reading: Reading::Walk(walk), output, is_decoded, awaits_more, .. } = &mut *encoded else {
            return Step::Continue;
        };
        let Some(frame) = self.request.frame else { return Step::Continue };
        *awaits_more = true;
        if !*is_decoded && (walk.is_document() || output.is_empty()) {
            self.encoded = Some(encoded);
            return Step::Continue;
        }
        let before = (window.sink.lines(), window.sink.dropped());
        let options = &self.options;
        let allowed = self.request.token.and_then(|place| options.tokens.get(place)?.streams.as_deref());
        let taking = Taking {
            framing: &options.framing,
            longest_record: options.longest_record(),
            routes: &options.routes,
            rules: &options.rules,
            forms: &self.forms,
            allowed,
            frame,
        };
        let mut records = Records::new(taking, window);
        let walked = walk.walk(output.rest(), *is_decoded, &mut records);
        let (written, stopped) = (records.written(), records.stopped());
        window.worked += written;
        let dropped = self.request.dropped;
        self.note(before, window);
        if walk.tells_of_dropped() {
            self.request.dropped = dropped;
        }
        let problem = match (walked, stopped) {
            (_, Some(Stopped::Never(problem))) | (Err(problem), _) => problem,
            (Ok(taken), stopped) => {
                output.advance(taken);
                *awaits_more = stopped.is_none();
                match stopped {
                    Some(Stopped::Full) => {
                        self.encoded = Some(encoded);
                        return Step::Full(0);
                    }
                    Some(_) => {
                        window.worked = window.worked.max(WORK_MOST + 1);
                        self.encoded = Some(encoded);
                        return Step::Continue;
                    }
                    None if *is_decoded => {
                        let watcher = walk.watcher();
                        let kind = Kind::Done(Box::new(walk.done()));
                        encoded.stop();
                        self.encoded = Some(encoded);
                        self.watch(frame, watcher);
                        self.end(kind);
                        return Step::Close; // no more of this body
                    }
                    None => {
                        self.encoded = Some(encoded);
                        return Step::Continue;
                    }
                }
            }
        };
        self.encoded = Some(encoded);
        self.fatal(problem, window);
        Step::Close
    }
}

impl Encoded {
    /// Bytes that are leased for this body.
    fn held(&self) -> usize {
        self.input.leased() + self.output.leased() + self.decoder.as_ref().map_or(0, Decoder::leased)
    }

    /// Decodes up to `most` bytes more, and returns how many. It is `is_decoded` then if that was all. Documents are gathered up to
    /// `longest`.
    fn decode_piece(&mut self, most: usize, longest: usize) -> Result<usize, &'static Problem> {
        let Encoded { decoder: Some(decoder), reading, input, output, is_last, .. } = self else { return Ok(0) };
        if matches!(reading, Reading::Walk(_)) {
            if output.is_empty() {
                let (taken, block) = decoder.whole_block(input.rest(), *is_last)?;
                input.advance(taken);
                if let Some(block) = block {
                    output.adopt(block);
                }
            }
            if output.rest().len() > longest {
                return Err(&problem::DOCUMENT_TOO_LARGE);
            }
            if output.is_adopted() {
                self.is_decoded = true;
                return Ok(0);
            }
            output.make_sure(most).map_err(|no| Trouble::from(no).problem(&problem::BAD_CODING))?;
        }
        let (mut taken, mut made) = (0, 0);
        output.fill(most, |to| {
            let progress = decoder.step(input.rest(), to, *is_last)?;
            (taken, made) = (progress.taken, progress.made);
            match reading {
                Reading::Json(json) => json.filter(&mut to[..made]),
                _ => Ok(made),
            }
        })?;
        input.advance(taken);
        let all_taken = input.is_empty();
        self.more = made == most || (taken > 0 && !all_taken);
        if made > 0 || self.more {
            return Ok(made);
        }
        if decoder.is_guessing() && !*is_last {
            return Ok(0);
        }
        if !all_taken {
            return Err(&problem::BAD_CODING); // it does not want what follows
        }
        if *is_last {
            if !decoder.is_whole() {
                return Err(&problem::BAD_CODING);
            }
            if matches!(reading, Reading::Json(json) if !json.is_whole()) {
                return Err(&problem::BAD_JSON);
            }
            self.is_decoded = true;
        }
        Ok(0)
    }
}
