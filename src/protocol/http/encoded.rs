//! The body of one request that is encoded: what was received of it waits in leased memory while it is decoded into the
//! chunk, as far as the chunk and the tail have room.

use super::body::{Body, Part};
use super::decode::Decoder;
use super::head::Coding;
use super::options::HttpOptions;
use super::problem::{self, Problem};
use super::request::problem_of;
use super::{HEAD_LANDING, Http, State};
use crate::protocol::lines::MARKER_ROOM;
use crate::session::room::{Lease, Owner};
use crate::session::{Session, Window};

/// Output that is worth a step of its own, where the chunk is not fresh.
const STEP_LEAST: usize = 512;
/// Output of one turn: what leaves no line behind fills no chunk that would end it.
const WORK_MOST: usize = 1 << 20;

/// What waits of a body, and behind it.
pub struct Encoded {
    decoder: Option<Decoder>,
    /// Received, not decoded: from here on.
    input: Vec<u8>,
    at: usize,
    /// Every byte of the body is in `input`.
    is_last: bool,
    /// The decoder may have more to give without more input.
    more: bool,
    /// Received behind the body: the beginning of the next request.
    pub rest: Vec<u8>,
    /// For what waits here: all of it landed in one receive, and vectors double.
    kept: Lease,
}

impl Encoded {
    /// For one body.
    pub fn new(
        coding: Coding,
        options: &HttpOptions,
        owner: Owner,
        now_ns: u64,
    ) -> Result<Box<Encoded>, &'static Problem> {
        let mut kept = Lease::new(&options.decoding, owner, now_ns);
        kept.grow(2 * HEAD_LANDING)?;
        let mut encoded = Box::new(Encoded {
            decoder: None,
            input: Vec::new(),
            at: 0,
            is_last: false,
            more: false,
            rest: Vec::new(),
            kept,
        });
        encoded.begin(coding, options, owner, now_ns)?;
        Ok(encoded)
    }

    /// For the next body. Where there is no memory for it, everything stays as it was.
    pub fn begin(
        &mut self,
        coding: Coding,
        options: &HttpOptions,
        owner: Owner,
        now_ns: u64,
    ) -> Result<(), &'static Problem> {
        let lease = Lease::new(&options.decoding, owner, now_ns);
        self.decoder = Some(Decoder::new(coding, lease, options.max_decoded_bytes)?);
        (self.at, self.is_last, self.more) = (0, false, false);
        self.input.clear();
        Ok(())
    }

    /// Others need the memory that it holds.
    pub fn is_called_in(&self) -> bool {
        self.kept.is_called_in() || self.decoder.as_ref().is_some_and(Decoder::is_called_in)
    }

    /// True while its body is not over.
    pub fn is_active(&self) -> bool {
        self.decoder.is_some()
    }

    /// True where more must be received before anything can be decoded.
    pub fn is_empty(&self) -> bool {
        self.decoder.is_none() || (self.at == self.input.len() && !self.more && !self.is_last)
    }

    /// The body is not wanted any more.
    pub fn stop(&mut self) {
        self.decoder = None;
        self.input = Vec::new();
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
    /// Takes the body's bytes out of `space[at..end]`, keeps what lies behind them, and decodes.
    pub(super) fn gather(&mut self, mut at: usize, end: usize, window: &mut Window<'_>) {
        let State::Body(mut body) = self.state else { return };
        while at < end && body != Body::Over {
            match body.next(&window.space[at..end], self.options.max_header_bytes as u32) {
                Err(problem) => return self.fatal(problem, window),
                Ok(Part::Frame(n)) => at += n,
                Ok(Part::Content(n)) => {
                    if !self.count_body(n, window) {
                        return;
                    }
                    if let Some(encoded) = &mut self.encoded {
                        encoded.input.extend_from_slice(&window.space[at..at + n]);
                    }
                    at += n;
                }
            }
        }
        self.state = State::Body(body);
        if let Some(encoded) = &mut self.encoded {
            encoded.is_last = body == Body::Over;
            encoded.rest.splice(..0, window.space[at..end].iter().copied());
        }
        self.decode(window);
    }

    /// Decodes what waits into the free space, and takes its lines.
    pub(super) fn decode(&mut self, window: &mut Window<'_>) {
        if let (Some(refusal), State::Body(body)) = (window.refuse, self.state) {
            return self.refuse(problem_of(refusal), body, window);
        }
        loop {
            let tail_len = window.tail.len();
            let base = window.committed;
            let least = if base == 0 { 1 } else { STEP_LEAST };
            let Some(landing) = self.lines.landing(window.space.len() - base, tail_len, least) else { return };
            let start = if self.lines.grows() { landing.start } else { landing.start + MARKER_ROOM + 2 };
            let len = (landing.start + landing.len).saturating_sub(start).min(window.tail.allowance(window.is_lane));
            let Some(encoded) = &mut self.encoded else { return };
            let Some(decoder) = encoded.decoder.as_mut().filter(|_| len > 0) else { return };
            let at = base + start;
            let output = &mut window.space[at..at + len];
            let progress = match decoder.step(&encoded.input[encoded.at..], output, encoded.is_last) {
                Ok(progress) => progress,
                Err(problem) => return self.fatal(problem, window),
            };
            encoded.at += progress.taken;
            encoded.more = progress.made == len;
            let all_taken = encoded.at == encoded.input.len();
            if all_taken {
                encoded.input.clear();
                encoded.at = 0;
            }
            let (is_last, is_whole) = (encoded.is_last, decoder.is_whole());
            window.worked += progress.made;
            if progress.made > 0 {
                if !self.take_lines(at, progress.made, window) {
                    return;
                }
                if window.worked > WORK_MOST {
                    return; // others have their turn
                }
                continue;
            }
            if progress.taken > 0 && !all_taken {
                continue;
            }
            if !all_taken {
                return self.fatal(&problem::BAD_CODING, window); // it does not want what follows
            }
            if !is_last {
                return;
            }
            if !is_whole {
                return self.fatal(&problem::BAD_CODING, window);
            }
            if let Some(encoded) = &mut self.encoded {
                encoded.stop();
            }
            // Nothing raw lies in the space any more.
            let end = window.space.len();
            if self.complete(end, window) && self.encoded.as_ref().is_some_and(|e| e.rest.is_empty()) {
                self.encoded = None;
            }
            return;
        }
    }
}
