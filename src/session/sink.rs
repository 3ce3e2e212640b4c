//! Where a session puts the records that it finds: the free end of a chunk, cut into parts by stream and frame.

use super::AckLevel;
use crate::host::mutants::mutant;
use crate::metrics::accounting::{Reason, Tally};
use crate::metrics::stats::Unexpected;

/// A frame: what is acknowledged as a whole (a request, a message, a window). A session numbers its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Frame {
    /// Its number, in the order of the connection; see [`super::owed::Owed`].
    pub number: u32,
    /// The level that its records must reach before its answer is given; never more than that of the listener.
    pub level: AckLevel,
}

impl Default for Frame {
    /// For sessions whose answers count records rather than frames.
    fn default() -> Self {
        Frame { number: 0, level: AckLevel::Durable }
    }
}

/// Records of a window that belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Part {
    /// Their stream; `None`: the listener's.
    pub stream: Option<u16>,
    /// Their frame.
    pub frame: Frame,
    /// Bytes.
    pub bytes: usize,
    /// Records.
    pub lines: u32,
}

/// As many parts as a session likes: what it finds goes into no chunk.
pub const ANY_PARTS: usize = usize::MAX;

/// The free end of a chunk. Records are committed at its start, one behind the other. It is full when the next record does not fit, or would
/// begin a part more than the chunk can describe: a client decides how often streams change.
#[derive(Debug)]
pub struct Sink<'a> {
    space: &'a mut [u8],
    filled: usize,
    /// Parts that the chunk can describe.
    most_parts: usize,
    /// Parts before the last, which are never empty.
    before: Vec<Part>,
    last: Part,
    dropped: Option<(Reason, Tally)>,
    truncated: Tally,
    replaced: u64,
    unexpected: Option<Unexpected>,
}

impl<'a> Sink<'a> {
    /// A sink in this space, where nothing is committed yet, for so many parts.
    #[must_use]
    pub fn new(space: &'a mut [u8], most_parts: usize) -> Self {
        let (dropped, truncated) = (None, Tally::default());
        Sink {
            space,
            filled: 0,
            most_parts,
            before: Vec::new(),
            last: Part::default(),
            dropped,
            truncated,
            replaced: 0,
            unexpected: None,
        }
    }

    /// From here on records belong to this stream and frame. There may be no [`Sink::room`] for them.
    pub fn to(&mut self, stream: Option<u16>, frame: Frame) {
        let is_of = |part: &Part| (part.stream, part.frame) == (stream, frame);
        if is_of(&self.last) {
            return;
        }
        if self.last.lines > 0 {
            self.before.push(self.last);
        }
        // Nothing may have come between: then it goes on.
        self.last = match self.before.pop_if(|part| self.last.lines == 0 && is_of(part)) {
            Some(part) => part,
            None => Part { stream, frame, bytes: 0, lines: 0 },
        };
    }

    /// The whole space, with what is committed at its start: for what was received there.
    pub fn space(&mut self) -> &mut [u8] {
        self.space
    }

    /// Bytes that are committed.
    #[must_use]
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Bytes that still fit; 0 too where they would begin a part that the chunk cannot describe.
    #[must_use]
    pub fn room(&self) -> usize {
        let is_one_too_many =
            self.last.lines == 0 && self.before.len() >= self.most_parts && !mutant!("parts_without_end");
        if is_one_too_many { 0 } else { self.space.len() - self.filled }
    }

    /// What lies behind the committed records, as far as there is room.
    pub fn free(&mut self) -> &mut [u8] {
        let end = self.filled + self.room();
        &mut self.space[self.filled..end]
    }

    /// The first so many bytes of [`Sink::free`] are whole records now, each of which ends in a newline.
    ///
    /// # Panics
    /// If there are not so many: a bug of the session.
    pub fn commit(&mut self, bytes: usize, lines: u32) {
        assert!(bytes <= self.room(), "committed more than there is room for");
        self.filled += bytes;
        self.last.bytes += bytes;
        self.last.lines += lines;
    }

    /// Records that are committed.
    #[must_use]
    pub fn lines(&self) -> u64 {
        self.before.iter().chain([&self.last]).map(|part| u64::from(part.lines)).sum()
    }

    /// Counts a dropped record of so many bytes. One call of a session drops for one reason only.
    pub fn drop_record(&mut self, reason: Reason, bytes: u64) {
        self.dropped.get_or_insert((reason, Tally::default())).1.add(Tally { lines: 1, bytes });
    }

    /// Records that were dropped.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.map_or(0, |(_, tally)| tally.lines)
    }

    /// Counts a record of which so many bytes were cut off.
    pub fn cut(&mut self, bytes: u64) {
        self.truncated.add(Tally { lines: 1, bytes });
    }

    /// Counts a record in which something was replaced that is not UTF-8.
    pub fn replaced(&mut self) {
        self.replaced += 1;
    }

    /// Notes that the client sends something unexpected. It is logged and counted.
    pub fn notice(&mut self, what: Unexpected) {
        self.unexpected = Some(what);
    }

    /// What was found.
    #[must_use]
    pub fn found(self) -> Found {
        let Sink { before, last, dropped, truncated, replaced, unexpected, .. } = self;
        Found { before, last, dropped, truncated, replaced, unexpected }
    }
}

/// What a session found in one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    before: Vec<Part>,
    last: Part,
    /// Records that were found and dropped, and why.
    pub dropped: Option<(Reason, Tally)>,
    /// Records that were cut, and the bytes cut off.
    pub truncated: Tally,
    /// Records in which something was replaced that is not UTF-8.
    pub replaced: u64,
    /// The client speaks another protocol.
    pub unexpected: Option<Unexpected>,
}

impl Found {
    /// The parts, in the order of their bytes; none is empty.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.before.iter().chain(std::iter::once(&self.last)).filter(|part| part.lines > 0)
    }

    /// All records that are kept.
    #[must_use]
    pub fn kept(&self) -> Tally {
        let mut all = Tally::default();
        self.parts().for_each(|p| all.add(Tally { lines: u64::from(p.lines), bytes: p.bytes as u64 }));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_cut_where_stream_or_frame_changes_and_none_is_empty() {
        let mut space = [0; 100];
        let mut sink = Sink::new(&mut space, ANY_PARTS);
        let frame = |number| Frame { number, level: AckLevel::Written };
        sink.to(Some(1), frame(1));
        sink.to(Some(2), frame(1));
        sink.commit(10, 1);
        sink.to(Some(2), frame(1));
        sink.commit(5, 2);
        sink.to(Some(2), frame(2));
        sink.to(Some(3), frame(2));
        sink.commit(7, 1);
        sink.to(None, frame(3));
        assert_eq!((sink.lines(), sink.filled(), sink.room()), (4, 22, 78));
        let found = sink.found();
        let parts: Vec<_> = found.parts().map(|p| (p.stream, p.frame.number, p.bytes, p.lines)).collect();
        assert_eq!(parts, [(Some(2), 1, 15, 3), (Some(3), 2, 7, 1)]);
        assert_eq!(found.kept(), Tally { lines: 4, bytes: 22 });
    }

    /// Found from outside: a client whose records alternate between two streams ended the server.
    #[test]
    fn a_sink_is_full_when_a_part_more_would_begin() {
        let mut space = [0; 100];
        let mut sink = Sink::new(&mut space, 2);
        let mut put = |stream| {
            sink.to(Some(stream), Frame::default());
            let room = sink.room();
            assert_eq!(sink.free().len(), room);
            if room > 0 {
                sink.commit(10, 1);
            }
            room
        };
        assert_eq!([1, 1, 2, 1, 2, 2, 3].map(&mut put), [100, 90, 80, 0, 70, 60, 0]);
        assert_eq!(sink.found().parts().map(|part| part.lines).collect::<Vec<_>>(), [2, 3]);
    }
}
