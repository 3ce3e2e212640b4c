//! The framing of lines. Records end in a newline; otherwise they are the bytes as sent, NUL and invalid UTF-8 included.
//!
//! Where records are written as they are, whole lines stay where they were received. A receive lands right behind the space for
//! the partial line before it, which is copied there when its end arrives. No line is touched by itself: SIMD counts the
//! newlines and finds the last one. Records that are written in another form are received into the scratch buffer.

use super::write::{Escape, Form, MARKER_ROOM, Record, Writer};
use super::{End, Landing, Step, Window};
use crate::metrics::accounting::Reason;
use crate::settings::section::Section;
use crate::words;
use memchr::{memchr, memchr_iter, memrchr};
use std::io::Write;

words!(
    /// What happens to a line longer than `max_line_bytes`: its beginning is kept and marked ` [truncated N bytes]`; or it is dropped and
    /// counted; or it is dropped and counted, and the connection is closed.
    TooLong { Truncate = "truncate", Drop = "drop", Close = "close" }
);

words!(
    /// `listener.NAME.unterminated`
    UnterminatedWord { Keep = "keep", Drop = "drop" }
);

/// What `unterminated` says.
#[must_use]
pub fn keeps_unterminated(section: &Section<'_>, word: Option<UnterminatedWord>) -> bool {
    section.word("unterminated", word, UnterminatedWord::Keep) == UnterminatedWord::Keep
}

/// How lines are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineOptions {
    /// Longest line without its terminator, in bytes.
    pub max_line_bytes: usize,
    /// What happens to longer ones.
    pub too_long: TooLong,
    /// Remove one CR before each newline.
    pub strip_cr: bool,
    /// Remove one NUL from the end of each line.
    pub strip_nul: bool,
    /// Keep a line that ends with the connection instead of a newline.
    pub keep_unterminated: bool,
}

impl LineOptions {
    /// True where something may be taken off the end of lines.
    #[must_use]
    pub fn strips(&self) -> bool {
        self.strip_cr || self.strip_nul
    }
}

/// What ends a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ends {
    /// A terminator.
    #[default]
    Terminator,
    /// A number that was told before. One terminator that the sender has counted in is taken off.
    Count,
}

/// Bytes of the longest terminator that a sender counts in: CR LF.
const COUNTED_IN: usize = 2;

/// Of a record that is not kept whole, so many bytes at most beside those that are kept could still have made it one that is.
pub const LOOKED_BEHIND: usize = MARKER_ROOM + COUNTED_IN;

/// Bytes that a chunk must have at least where lines are received into it and up to `longest` are in the tail: something more can
/// land behind them.
#[must_use]
pub const fn least_chunk(longest: usize) -> usize {
    longest + 16 * 1024
}

/// What happens to one line.
enum Verdict {
    /// So many of its bytes are kept, and this is written behind them.
    Keep(usize, Marker),
    /// It is dropped: so many bytes, without its terminator.
    Drop(u64),
}

/// ` [truncated N bytes]`, or nothing.
struct Marker {
    text: [u8; MARKER_ROOM],
    len: usize,
    /// N.
    cut: u64,
}

impl Marker {
    fn new(cut: u64) -> Marker {
        let mut text = [0; MARKER_ROOM];
        let mut to = &mut text[..];
        if cut > 0 {
            let _ = write!(to, " [truncated {cut} bytes]"); // 40 bytes hold the words and any 64-bit number
        }
        let len = MARKER_ROOM - to.len();
        Marker { text, len, cut }
    }

    fn text(&self) -> &[u8] {
        &self.text[..self.len]
    }
}

/// The lines of one connection. What is begun and not ended is the connection's tail.
#[derive(Debug)]
pub struct Lines {
    options: LineOptions,
    /// Length so far of a line that is too long; its kept beginning is the tail. 0: the line is not too long so far.
    overlong: u64,
    /// The last byte seen of a line that is too long is one that is taken off where the line ends behind it.
    may_be_stripped: bool,
    /// What ends the present one.
    ends: Ends,
}

impl Lines {
    /// Between lines.
    #[must_use]
    pub fn new(options: LineOptions) -> Self {
        Lines { options, overlong: 0, may_be_stripped: false, ends: Ends::Terminator }
    }

    /// True where a line is begun, with so much in the tail.
    #[must_use]
    pub fn is_begun(&self, tail_len: usize) -> bool {
        tail_len > 0 || self.overlong > 0
    }

    /// Where to receive lines that are written so.
    #[must_use]
    pub fn landing(&self, form: &impl Writer, tail_len: usize) -> Landing {
        if form.is_plain() {
            let gap = if self.overlong > 0 { tail_len + MARKER_ROOM + 1 } else { tail_len };
            Landing::Chunk { gap, most: usize::MAX }
        } else {
            Landing::SCRATCH
        }
    }

    /// Room that ending the line which is begun needs at most.
    #[must_use]
    pub fn room_to_end(&self, form: &impl Writer, tail_len: usize) -> usize {
        if self.is_begun(tail_len) { form.room_for(tail_len) } else { 0 }
    }

    /// Forgets the line that has begun, without counting it, because its sender is told.
    pub fn abandon(&mut self, window: &mut Window<'_>) {
        window.tail.clear();
        self.overlong = 0;
    }

    fn max(&self) -> usize {
        self.options.max_line_bytes
    }

    /// Longest partial line that may still become a whole one.
    fn max_partial(&self) -> usize {
        self.max()
            + match self.ends {
                Ends::Terminator => usize::from(self.options.strips()),
                Ends::Count => COUNTED_IN,
            }
    }

    /// True for a last byte that is taken off in front of a terminator.
    fn takes_off(&self, last: Option<&u8>) -> bool {
        self.ends == Ends::Terminator
            && match last {
                Some(b'\r') => self.options.strip_cr,
                Some(0) => self.options.strip_nul,
                _ => false,
            }
    }

    /// How many bytes are taken off the end of a whole record.
    fn taken_off(&self, record: &[u8]) -> usize {
        match (self.ends, record) {
            (Ends::Terminator, _) => usize::from(self.takes_off(record.last())),
            // Without this limit it would matter how much of it has come at once.
            (Ends::Count, _) if record.len() > self.max_partial() => 0,
            (Ends::Count, [.., b'\r', b'\n']) => 2,
            (Ends::Count, [.., b'\n' | 0]) => 1,
            (Ends::Count, _) => 0,
        }
    }

    /// How many bytes at the beginning of a record of `total` bytes are its message: of one that is too long only those that are kept, else
    /// all but what is taken off its end. `found` are its bytes from the beginning on, all of them if it is not too long. It does not
    /// matter how it was cut up on its way.
    #[must_use]
    pub fn known(&self, total: usize, found: &[u8]) -> usize {
        let is_whole = self.overlong == 0 && found.len() == total;
        let len = if is_whole { total - self.taken_off(found) } else { total };
        if self.overlong > 0 || len > self.max() { self.max() - MARKER_ROOM } else { len }
    }

    /// What ends the record that is about to begin.
    pub fn begin(&mut self, ends: Ends) {
        self.ends = ends;
    }

    /// Decides what happens to a line that is all here.
    fn judge(&self, line: &[u8]) -> Verdict {
        self.judge_length(line.len() - self.taken_off(line), 0)
    }

    /// Decides what happens to a line of which `len` bytes are here and `cut` more are gone already.
    fn judge_length(&self, len: usize, cut: u64) -> Verdict {
        if cut == 0 && len <= self.max() {
            return Verdict::Keep(len, Marker::new(0));
        }
        if self.options.too_long != TooLong::Truncate {
            return Verdict::Drop(len as u64 + cut);
        }
        let kept = len.min(self.max() - MARKER_ROOM);
        Verdict::Keep(kept, Marker::new(cut + (len - kept) as u64))
    }

    /// Drops a line of so many bytes. Its newline counts as one more; what is taken off does not count, as in a line that is kept.
    fn drop_line(&self, bytes: u64, window: &mut Window<'_>) -> Step {
        window.sink.drop_record(Reason::TooLong, bytes + 1);
        if self.options.too_long == TooLong::Close { Step::Close } else { Step::Continue }
    }

    /// Takes in `len` bytes at `start` of the sink's space, where they were received. Only where records are written as they are,
    /// and in the place that [`Lines::landing`] said.
    pub fn take_in_place(&mut self, start: usize, len: usize, window: &mut Window<'_>) -> Step {
        let end = start + len;
        let space = window.sink.space();
        let Some(last) = memrchr(b'\n', &space[start..end]) else {
            return self.keep_partial_in_place(start, end, window);
        };
        let last = start + last;
        let mut raw = start;
        if self.overlong > 0 {
            let Some(first) = memchr(b'\n', &space[start..end]) else { return Step::Continue };
            self.lengthen(&space[start..start + first]);
            raw = start + first + 1;
            if self.end_begun(&Form::Raw(Escape::Nothing), 0, window) == Step::Close {
                return Step::Close;
            }
        } else if !window.tail.is_empty() {
            raw = start - window.tail.len();
            window.tail.copy_to(&mut window.sink.space()[raw..]);
            window.tail.clear();
        }
        let filled = window.sink.filled();
        // Behind a truncated line there is a gap: it is closed at once, so that the rest need not be moved line by line.
        let moved = raw - filled;
        if moved > 0 {
            window.sink.space().copy_within(raw..end, filled);
        }
        let (last, end) = (last + 1 - moved, end - moved);
        if filled < last && self.take_whole_in_place(filled, last, window) == Step::Close {
            return Step::Close;
        }
        self.keep_partial_in_place(last, end, window)
    }

    /// Turns the whole lines in `space[raw..end]`, which lie right behind what is committed, into records.
    fn take_whole_in_place(&mut self, mut raw: usize, end: usize, window: &mut Window<'_>) -> Step {
        let space = window.sink.space();
        if !self.options.strips() && none_longer(&space[raw..end], self.max()) {
            let lines = memchr_iter(b'\n', &space[raw..end]).count();
            window.sink.commit(end - raw, lines as u32);
            return Step::Continue;
        }
        while raw < end {
            let filled = window.sink.filled();
            let space = window.sink.space();
            let Some(newline) = memchr(b'\n', &space[raw..end]) else { break };
            match self.judge(&space[raw..raw + newline]) {
                Verdict::Keep(kept, marker) => {
                    // Never longer than the line was: the marker is not longer than what is cut.
                    space.copy_within(raw..raw + kept, filled);
                    space[filled + kept..filled + kept + marker.len].copy_from_slice(marker.text());
                    space[filled + kept + marker.len] = b'\n';
                    window.sink.commit(kept + marker.len + 1, 1);
                    self.count_cut(&marker, window);
                }
                Verdict::Drop(bytes) => {
                    if self.drop_line(bytes, window) == Step::Close {
                        return Step::Close;
                    }
                }
            }
            raw += newline + 1;
        }
        Step::Continue
    }

    fn keep_partial_in_place(&mut self, from: usize, to: usize, window: &mut Window<'_>) -> Step {
        let Window { sink, tail, .. } = window;
        let bytes = &sink.space()[from..to];
        let (step, dropped) = self.keep_partial(bytes, tail);
        dropped.into_iter().for_each(|bytes| sink.drop_record(Reason::TooLong, bytes));
        step
    }

    /// Takes in bytes that lie beside the sink.
    pub fn take_beside(&mut self, bytes: &[u8], form: &impl Writer, window: &mut Window<'_>) -> Step {
        let Some(last) = memrchr(b'\n', bytes) else { return self.gather(bytes, window) };
        let mut at = 0;
        if self.is_begun(window.tail.len()) {
            let Some(first) = memchr(b'\n', bytes) else { return Step::Continue };
            match self.complete(&bytes[..first], form, window) {
                Step::Continue => at = first + 1,
                other => return other,
            }
        }
        match self.take_whole_beside(&bytes[at..=last], form, window) {
            Step::Full(n) => return Step::Full(at + n),
            Step::Close => return Step::Close,
            Step::Continue => {}
        }
        self.gather(&bytes[last + 1..], window)
    }

    /// Takes in bytes of a record, which lie beside the sink and end no record.
    pub fn gather(&mut self, bytes: &[u8], window: &mut Window<'_>) -> Step {
        let (step, dropped) = self.keep_partial(bytes, &mut window.tail);
        dropped.into_iter().for_each(|bytes| window.sink.drop_record(Reason::TooLong, bytes));
        step
    }

    /// Ends the record that was gathered, if any, with a last piece of it, which lies beside the sink. Where there is no room for it,
    /// [`Step::Full`] of nothing.
    pub fn complete(&mut self, piece: &[u8], form: &impl Writer, window: &mut Window<'_>) -> Step {
        if !self.is_begun(window.tail.len()) {
            return self.take_record(piece, 0, form, window);
        }
        let is_overlong = self.overlong > 0;
        // Only as much of it as may be kept.
        let most = if is_overlong { 0 } else { self.max_partial() - window.tail.len() };
        let (piece, more) = piece.split_at(piece.len().min(most));
        if window.sink.room() < form.room_for(window.tail.len() + piece.len()) {
            return Step::Full(0);
        }
        let cut = if is_overlong {
            self.lengthen(more);
            self.gone(window.tail.len())
        } else {
            more.len() as u64 - u64::from(self.takes_off(more.last()))
        };
        self.join(piece, form, (cut, more.is_empty()), window)
    }

    /// A record in one piece, which lies beside the sink; `cut` more bytes of it are gone. Where there is no room for it, [`Step::Full`] of
    /// nothing.
    pub fn take_record(&mut self, bytes: &[u8], cut: u64, form: &impl Writer, window: &mut Window<'_>) -> Step {
        let verdict = if cut == 0 { self.judge(bytes) } else { self.judge_length(bytes.len(), cut) };
        match verdict {
            Verdict::Drop(bytes) => self.drop_line(bytes, window),
            Verdict::Keep(kept, marker) => {
                let (message, wall_ns) = (&bytes[..kept], window.around.wall_ns);
                let record = Record { message, marker: marker.text(), wall_ns, ..Record::default() };
                if !form.write(&record, &mut window.sink) {
                    return Step::Full(0);
                }
                self.count_cut(&marker, window);
                Step::Continue
            }
        }
    }

    /// Makes records of whole lines, as many as there is room for.
    fn take_whole_beside(&mut self, lines: &[u8], form: &impl Writer, window: &mut Window<'_>) -> Step {
        if form.is_plain() && !self.options.strips() && none_longer(lines, self.max()) {
            let room = window.sink.room();
            let n = match lines.len() <= room {
                true => lines.len(),
                false => memrchr(b'\n', &lines[..room]).map_or(0, |i| i + 1),
            };
            window.sink.free()[..n].copy_from_slice(&lines[..n]);
            window.sink.commit(n, memchr_iter(b'\n', &lines[..n]).count() as u32);
            return if n < lines.len() { Step::Full(n) } else { Step::Continue };
        }
        let mut at = 0;
        while at < lines.len() {
            let Some(newline) = memchr(b'\n', &lines[at..]) else { break };
            let line = &lines[at..at + newline];
            match self.take_record(line, 0, form, window) {
                Step::Continue => {}
                Step::Full(_) => return Step::Full(at),
                Step::Close => return Step::Close,
            }
            at += newline + 1;
        }
        Step::Continue
    }

    fn count_cut(&self, marker: &Marker, window: &mut Window<'_>) {
        if marker.cut > 0 {
            window.sink.cut(marker.cut);
        }
    }

    /// Bytes of a line that is too long which are gone already, beside those in the tail; it is over now.
    fn gone(&mut self, tail_len: usize) -> u64 {
        std::mem::take(&mut self.overlong) - tail_len as u64 - u64::from(self.may_be_stripped)
    }

    /// Ends the line of which the tail is all that is kept, or the beginning; `cut` more bytes of it are gone. The sink has room for it
    /// ([`Lines::room_to_end`]).
    pub fn end_begun(&mut self, form: &impl Writer, mut cut: u64, window: &mut Window<'_>) -> Step {
        if !self.is_begun(window.tail.len()) && cut == 0 {
            return Step::Continue;
        }
        if self.overlong > 0 {
            cut += self.gone(window.tail.len());
        }
        self.join(&[], form, (cut, true), window)
    }

    /// Makes a record of the tail and a piece behind it. `cut`: how many more bytes of the line are gone, and whether its end is there.
    fn join(&mut self, piece: &[u8], form: &impl Writer, (cut, has_end): (u64, bool), window: &mut Window<'_>) -> Step {
        let (before, wall_ns) = (window.tail.len(), window.around.wall_ns);
        let len = before + piece.len();
        let free = window.sink.free();
        // Written as it is it may lie where it will be; else its source lies at the end of what is free.
        let from = if form.is_plain() { 0 } else { free.len() - len };
        window.tail.copy_to(&mut free[from..]);
        free[from + before..from + len].copy_from_slice(piece);
        let taken_off = if has_end && cut == 0 { self.taken_off(&free[from..from + len]) } else { 0 };
        window.tail.clear();
        let (kept, marker) = match self.judge_length(len - taken_off, cut) {
            Verdict::Keep(kept, marker) => (kept, marker),
            Verdict::Drop(bytes) => return self.drop_line(bytes, window),
        };
        let written = if form.is_plain() {
            free[kept..kept + marker.len].copy_from_slice(marker.text());
            free[kept + marker.len] = b'\n';
            kept + marker.len + 1
        } else {
            let (to, source) = free.split_at_mut(from);
            let record = Record { message: &source[..kept], marker: marker.text(), wall_ns, ..Record::default() };
            form.render(&record, to).unwrap_or(0) // there is room: whoever calls has looked
        };
        window.sink.commit(written, 1);
        self.count_cut(&marker, window);
        Step::Continue
    }

    /// Takes in a datagram, of which `cut` more bytes did not fit: no line goes on beyond it. [`Step::Full`] as ever; the rest comes
    /// again as a datagram of its own.
    pub fn take_datagram(&mut self, bytes: &[u8], cut: usize, form: &impl Writer, window: &mut Window<'_>) -> Step {
        let whole = memrchr(b'\n', bytes).map_or(0, |last| last + 1);
        let step = self.take_whole_beside(&bytes[..whole], form, window);
        let last = &bytes[whole..];
        if step != Step::Continue || (last.is_empty() && cut == 0) {
            return step;
        }
        match self.take_record(last, cut as u64, form, window) {
            Step::Full(_) => Step::Full(whole),
            other => other,
        }
    }

    /// Counts more of a line that is too long already.
    fn lengthen(&mut self, bytes: &[u8]) {
        self.overlong += bytes.len() as u64;
        if let Some(last) = bytes.last() {
            self.may_be_stripped = self.takes_off(Some(last));
        }
    }

    /// Keeps `bytes`, which hold no newline, for later. Or bytes of a line that is dropped, as it is too long and ends the connection.
    fn keep_partial(&mut self, bytes: &[u8], tail: &mut super::memory::tail::Tail<'_>) -> (Step, Option<u64>) {
        if self.overlong > 0 {
            self.lengthen(bytes);
            return (Step::Continue, None);
        }
        let len = tail.len() + bytes.len();
        if len <= self.max_partial() {
            tail.append(bytes);
            return (Step::Continue, None);
        }
        self.overlong = len as u64;
        self.may_be_stripped = self.takes_off(bytes.last());
        let keep = match self.options.too_long {
            TooLong::Truncate => self.max() - MARKER_ROOM,
            TooLong::Drop => 0,
            TooLong::Close => {
                tail.clear();
                self.overlong = 0;
                return (Step::Close, Some(len as u64));
            }
        };
        let held = tail.len();
        if held < keep {
            tail.append(&bytes[..keep - held]);
        } else {
            tail.truncate(keep);
        }
        (Step::Continue, None)
    }

    /// Ends the input. After a clean end the line that is begun may be kept; then the sink has room for it.
    pub fn finish(&mut self, end: End, form: &impl Writer, window: &mut Window<'_>) {
        if !self.is_begun(window.tail.len()) {
            return;
        }
        let reason = match end {
            End::Clean if self.options.keep_unterminated => {
                let _ = self.end_begun(form, 0, window); // there is nothing left to close
                return;
            }
            End::Clean => Reason::Unterminated,
            End::Broken(reason) => reason,
        };
        let bytes = self.overlong.max(window.tail.len() as u64);
        window.sink.drop_record(reason, bytes);
        self.abandon(window);
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
