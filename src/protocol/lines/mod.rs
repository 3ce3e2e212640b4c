//! `protocol = "lines"`: records end in a newline; otherwise the bytes as sent, NUL and invalid UTF-8 included.
//!
//! Plain lines stay where they were received: a receive lands right behind the space of the partial line before it, which
//! is copied in when its end arrives. Nothing is touched per line; newlines are counted and the last one found by SIMD.

use crate::host::peer::Peer;
use crate::metrics::accounting::{Reason, Tally};
use crate::protocol::http;
use crate::session::json::{self, Envelope};
use crate::session::{End, Landing, Session, Step, Waiting, Window};
use memchr::{memchr, memchr_iter, memrchr};
use std::io::Write;
use std::sync::Arc;

/// Bytes kept free for ` [truncated N bytes]` in a truncated line, which is then never longer than `max_line_bytes`.
pub const MARKER_ROOM: usize = 40;

/// Bytes received at once at most where records grow: their rest, with the partial line before it, must leave room for the
/// longest record in a fresh chunk (`least_chunk_bytes`).
const GROWING_MOST: usize = 96 * 1024;
/// Beside the longest record and its source, a chunk has room for this where records grow.
const GROWING_ROOM: usize = 128 * 1024;

/// What becomes of a line longer than `max_line_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    /// Its beginning is kept, marked ` [truncated N bytes]`.
    Truncate,
    /// It is dropped and counted; the connection goes on.
    Drop,
    /// It is dropped and counted, and the connection closed.
    Close,
}

/// How the lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As sent.
    Raw,
    /// As JSON objects.
    Json,
}

/// The options of a listener, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinesOptions {
    /// The listener's name, for JSON.
    pub listener: String,
    /// Longest line without its terminator.
    pub max_line_bytes: usize,
    /// What becomes of longer ones.
    pub too_long: TooLong,
    /// Remove one CR before each newline.
    pub strip_cr: bool,
    /// Keep a line that ends with the connection instead of a newline.
    pub keep_unterminated: bool,
    /// Send the count of lines that reached the acknowledgement level.
    pub reply_count: bool,
    /// How they are written.
    pub format: Format,
}

/// Bytes that a chunk must have at least: where the tail is `longest`, something more can still land.
#[must_use]
pub fn least_chunk_bytes(longest: usize, format: Format) -> usize {
    match format {
        Format::Raw => longest + 16 * 1024,
        Format::Json => (json::GROWTH + 1) * longest + GROWING_ROOM,
    }
}

/// The state of one connection.
pub struct Lines {
    options: Arc<LinesOptions>,
    envelope: Option<Box<Envelope>>,
    /// Records are written as JSON; otherwise as they are, whether or not there is an envelope.
    is_json: bool,
    /// What finds no room in a window may be left for a fresh one ([`Window::rest`]).
    leaves_rest: bool,
    /// What records became of what was received lately, in sixteenths of it.
    growth: usize,
    /// Length so far of a line that is too long; its kept beginning is the tail. 0: the line is not too long so far.
    overlong: u64,
    /// The last byte seen of a line that is too long was a CR.
    ends_in_cr: bool,
    acked: u64,
    replied: u64,
    mark: u32,
}

impl Lines {
    /// A new connection.
    #[must_use]
    pub fn new(options: Arc<LinesOptions>, peer: &Peer) -> Self {
        let envelope =
            (options.format == Format::Json).then(|| Box::new(Envelope::new(&options.listener, &peer.to_string())));
        let is_json = envelope.is_some();
        Lines {
            options,
            envelope,
            is_json,
            leaves_rest: false,
            growth: 32,
            overlong: 0,
            ends_in_cr: false,
            acked: 0,
            replied: 0,
            mark: 0,
        }
    }

    /// What finds no room in a window is left for a fresh one: so room is not kept for the worst that input can become.
    #[must_use]
    pub fn leaving_rest(mut self) -> Self {
        self.leaves_rest = true;
        self
    }

    /// How the next records are written. JSON only where the options say so too: it needs more room.
    pub(crate) fn set_format(&mut self, format: Format) {
        self.is_json = format == Format::Json && self.envelope.is_some();
    }

    /// True where records may become larger than what was received.
    pub(crate) fn grows(&self) -> bool {
        self.envelope.is_some()
    }

    /// Ends the line that is begun, if one is: nothing follows it. Raw bytes up to `raw_end` are used up.
    pub(crate) fn end_body(&mut self, raw_end: usize, window: &mut Window<'_>) -> Step {
        if self.overlong == 0 && window.tail.is_empty() {
            return Step::Continue;
        }
        self.end_tail(raw_end, 0, window)
    }

    /// Forgets the line that is begun, without a trace: whoever sent it is told.
    pub(crate) fn abandon(&mut self, window: &mut Window<'_>) {
        window.tail.clear();
        self.overlong = 0;
    }

    fn max(&self) -> usize {
        self.options.max_line_bytes
    }

    /// Longest partial line that may still become a whole one.
    fn max_partial(&self) -> usize {
        self.max() + usize::from(self.options.strip_cr)
    }

    /// Turns the whole lines in `space[raw..end]` into records at `window.committed`.
    fn take_whole(&mut self, mut raw: usize, end: usize, window: &mut Window<'_>) -> Step {
        let plain = !self.is_json && !self.options.strip_cr && raw == window.committed;
        if plain && none_longer(&window.space[raw..end], self.max()) {
            window.lines += memchr_iter(b'\n', &window.space[raw..end]).count() as u32;
            window.committed = end;
            return Step::Continue;
        }
        let time = self.time(window);
        while raw < end {
            let Some(newline) = memchr(b'\n', &window.space[raw..end]) else { break };
            let next = raw + newline + 1;
            if self.leaves_rest && !self.fits(raw, newline, window) {
                window.rest = Some(Landing { start: raw, len: 0 });
                return Step::Continue;
            }
            if self.record(raw, newline, 0, &time, window) == Step::Close {
                return Step::Close;
            }
            raw = next;
        }
        Step::Continue
    }

    /// Makes a record of the `len` bytes at `raw`, behind which `cut` more bytes of the line are gone already. Never needs
    /// more room than lies between the record's place and the end of the raw bytes.
    fn record(&mut self, raw: usize, mut len: usize, mut cut: u64, time: &str, window: &mut Window<'_>) -> Step {
        if self.options.strip_cr && cut == 0 && len > 0 && window.space[raw + len - 1] == b'\r' {
            len -= 1;
        }
        let mut marker = [0; MARKER_ROOM];
        let mut marker_len = 0;
        if cut > 0 || len > self.max() {
            if self.options.too_long != TooLong::Truncate {
                window.drop_record(Reason::TooLong, len as u64 + cut + 1);
                return if self.options.too_long == TooLong::Close { Step::Close } else { Step::Continue };
            }
            let kept = len.min(self.max() - MARKER_ROOM);
            cut += (len - kept) as u64;
            len = kept;
            let mut to = &mut marker[..];
            let _ = write!(to, " [truncated {cut} bytes]"); // 40 bytes hold the words and any 64-bit number
            marker_len = MARKER_ROOM - to.len();
            window.truncated.add(Tally { lines: 1, bytes: cut });
        }
        let marker = &marker[..marker_len];
        let at = window.committed;
        window.lines += 1;
        window.committed += match &self.envelope {
            Some(envelope) if self.is_json => {
                let (to, from) = window.space[at..].split_at_mut(raw - at);
                envelope.write(time, &from[..len], marker, to)
            }
            _ => {
                window.space.copy_within(raw..raw + len, at);
                window.space[at + len..at + len + marker_len].copy_from_slice(marker);
                window.space[at + len + marker_len] = b'\n';
                len + marker_len + 1
            }
        };
        Step::Continue
    }

    /// True where the record of the `len` bytes at `raw` has room in front of them.
    fn fits(&self, raw: usize, len: usize, window: &Window<'_>) -> bool {
        let Some(envelope) = self.envelope.as_ref().filter(|_| self.is_json) else { return true };
        let room = (raw - window.committed).saturating_sub(MARKER_ROOM);
        let len = len.min(self.max_partial());
        envelope.overhead() + json::GROWTH * len <= room || envelope.record_len(&window.space[raw..raw + len]) <= room
    }

    fn take_in(&mut self, landing: Landing, len: usize, window: &mut Window<'_>) -> Step {
        let (start, end) = (landing.start, landing.start + len);
        let Some(last) = memrchr(b'\n', &window.space[start..end]) else {
            return self.keep_partial(start, end, window);
        };
        let last = start + last;
        let mut raw = start;
        if self.overlong > 0 {
            let Some(first) = memchr(b'\n', &window.space[start..end]) else { return Step::Continue };
            self.lengthen(&window.space[start..start + first]);
            raw = start + first + 1;
            if self.end_tail(start, 0, window) == Step::Close {
                return Step::Close;
            }
        } else if !window.tail.is_empty() {
            raw = start - window.tail.len();
            window.tail.copy_to(&mut window.space[raw..]);
            window.tail.clear();
        }
        if !self.is_json && raw > window.committed && raw <= last {
            // Only behind a truncated line: close the gap, so that the rest need not be moved line by line.
            window.space.copy_within(raw..end, window.committed);
            let moved = raw - window.committed;
            if self.take_whole(window.committed, last + 1 - moved, window) == Step::Close {
                return Step::Close;
            }
            return self.keep_partial(last + 1 - moved, end - moved, window);
        }
        let before = window.committed;
        if self.take_whole(raw, last + 1, window) == Step::Close {
            return Step::Close;
        }
        let stopped = window.rest.as_mut().map(|rest| {
            rest.len = end - rest.start;
            rest.start
        });
        let gone = stopped.unwrap_or(last + 1) - raw;
        if self.is_json && gone > 0 {
            let now = (window.committed - before) * 16 / gone + 1;
            // Up at once, down slowly: a rest costs a copy, room that is kept in vain only some room.
            self.growth = now.max(self.growth - self.growth / 8).clamp(17, 16 * (json::GROWTH + 1));
        }
        if stopped.is_some() {
            return Step::Continue;
        }
        self.keep_partial(last + 1, end, window)
    }

    /// Ends the line of which the tail is all, or the beginning. Raw bytes may use `space[committed..raw_end]`.
    fn end_tail(&mut self, raw_end: usize, mut cut: u64, window: &mut Window<'_>) -> Step {
        let len = window.tail.len();
        if self.overlong > 0 {
            cut += self.overlong - len as u64 - u64::from(self.options.strip_cr && self.ends_in_cr);
            self.overlong = 0;
        }
        // A record that grows needs its source at the end of what is free.
        let raw = if self.is_json { raw_end - len } else { window.committed };
        window.tail.copy_to(&mut window.space[raw..]);
        window.tail.clear();
        let time = self.time(window);
        self.record(raw, len, cut, &time, window)
    }

    fn time(&self, window: &Window<'_>) -> String {
        if self.is_json { json::time(window.wall_ns) } else { String::new() }
    }

    /// Counts more of a line that is too long already.
    fn lengthen(&mut self, bytes: &[u8]) {
        self.overlong += bytes.len() as u64;
        if let Some(last) = bytes.last() {
            self.ends_in_cr = *last == b'\r';
        }
    }

    /// Keeps `space[from..to]`, which holds no newline, for later.
    fn keep_partial(&mut self, from: usize, to: usize, window: &mut Window<'_>) -> Step {
        if self.overlong > 0 {
            self.lengthen(&window.space[from..to]);
            return Step::Continue;
        }
        let len = window.tail.len() + (to - from);
        if len <= self.max_partial() {
            window.tail.append(&window.space[from..to]);
            return Step::Continue;
        }
        self.overlong = len as u64;
        self.ends_in_cr = window.space[to - 1] == b'\r';
        let keep = match self.options.too_long {
            TooLong::Truncate => self.max() - MARKER_ROOM,
            TooLong::Drop => 0,
            TooLong::Close => {
                window.tail.clear();
                self.overlong = 0;
                window.drop_record(Reason::TooLong, len as u64);
                return Step::Close;
            }
        };
        let held = window.tail.len();
        if held < keep {
            window.tail.append(&window.space[from..from + (keep - held)]);
        } else {
            window.tail.truncate(keep);
        }
        Step::Continue
    }
}

/// True if no line in `bytes`, which end in a newline, is longer than `max`.
fn none_longer(mut bytes: &[u8], max: usize) -> bool {
    while bytes.len() > max + 1 {
        match memrchr(b'\n', &bytes[..=max]) {
            Some(newline) => bytes = &bytes[newline + 1..],
            None => return false,
        }
    }
    true
}

impl Session for Lines {
    fn landing(&self, room: usize, tail_len: usize, least: usize) -> Option<Landing> {
        if self.leaves_rest
            && self.overlong == 0
            && let Some(envelope) = &self.envelope
        {
            let beside = envelope.overhead() + MARKER_ROOM;
            // As much as will fit, if it grows a little more than what came before. What does not is left for a fresh window.
            let growth = self.growth + 2;
            let fits = (room.saturating_sub(beside) * 16 / growth).saturating_sub(tail_len).min(GROWING_MOST);
            if fits >= least.max(1) {
                // The source begins where its records will be when it ends.
                let gap = ((tail_len + fits) * (growth - 16)).div_ceil(16) + beside;
                return Some(Landing { start: (gap + tail_len).min(room - fits), len: fits });
            }
            // Or so that the longest record fits, as it does in a fresh chunk.
            let longest = (json::GROWTH + 1) * self.max_partial() + beside;
            let len = room.checked_sub(longest)?.min(GROWING_MOST);
            return (len >= least.max(1)).then(|| Landing { start: room - len, len });
        }
        if let Some(envelope) = &self.envelope {
            // Behind everything that the tail and the received bytes can become, each byte being a line at worst.
            let (w, growth) = (envelope.overhead() + MARKER_ROOM, json::GROWTH + 1);
            let len = room.checked_sub(growth * tail_len + w)? / (w + growth);
            return (len >= least).then(|| Landing { start: room - len, len });
        }
        let start = if self.overlong > 0 { tail_len + MARKER_ROOM + 1 } else { tail_len };
        let len = room.checked_sub(start)?;
        (len >= least).then_some(Landing { start, len })
    }

    fn input(&mut self, landing: Landing, len: usize, window: &mut Window<'_>) -> Step {
        let before = window.lines;
        let step = self.take_in(landing, len, window);
        self.mark = self.mark.wrapping_add(u32::from(window.lines > before || window.dropped.is_some()));
        step
    }

    fn end_of_datagram(&mut self, cut: usize, window: &mut Window<'_>) {
        if cut > 0 || self.overlong > 0 || !window.tail.is_empty() {
            let raw_end = window.space.len();
            self.end_tail(raw_end, cut as u64, window);
        }
    }

    fn finish_room(&self, tail_len: usize) -> usize {
        match &self.envelope {
            Some(envelope) => (json::GROWTH + 1) * tail_len + envelope.overhead() + MARKER_ROOM,
            None => tail_len + MARKER_ROOM + 1,
        }
    }

    fn waiting(&self, tail_len: usize) -> Waiting {
        if tail_len > 0 || self.overlong > 0 { Waiting::Line } else { Waiting::Nothing }
    }

    fn mark(&self) -> u32 {
        self.mark
    }

    fn finish(&mut self, end: End, window: &mut Window<'_>) {
        if self.overlong == 0 && window.tail.is_empty() {
            return;
        }
        let reason = match end {
            End::Clean if self.options.keep_unterminated => {
                let raw_end = window.space.len();
                self.end_tail(raw_end, 0, window);
                return;
            }
            End::Clean => Reason::Unterminated,
            End::Broken(reason) => reason,
        };
        let bytes = self.overlong.max(window.tail.len() as u64);
        window.drop_record(reason, bytes);
        window.tail.clear();
        self.overlong = 0;
    }

    fn acked(&mut self, lines: u64) {
        self.acked += lines;
    }

    fn has_output(&self) -> bool {
        self.options.reply_count && self.acked != self.replied
    }

    fn output(&mut self, reply: &mut http::Reply<'_>) {
        if self.has_output() {
            self.replied = self.acked;
            // Writing to a Vec cannot fail.
            let _ = writeln!(reply.out, "{}", self.acked);
        }
    }
}

#[cfg(test)]
mod tests;
