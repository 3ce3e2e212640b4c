//! Tells when lines were written. It cuts a segment into the writes that its trail records. A write is one batch, so the time
//! of a line is that of its write, some milliseconds after the line was received.

use super::content::{Content, Files, open_kind, open_text};
use super::names::{Kind, SegmentId};
use super::trail::{self, Record, Records};
use std::io;
use std::path::Path;

/// Bytes of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub from: u64,
    /// Byte behind the last.
    pub to: u64,
    /// Nanoseconds since 1970. For lines that are not in the trail yet (it is written a little later) it is the time of the last write
    /// to the text. `None`: there is no trail, or that time is unknown too.
    pub wall_ns: Option<u64>,
}

/// A segment, and when its lines were written.
pub struct Timed {
    /// Which.
    pub id: SegmentId,
    /// Its text.
    pub content: Box<dyn Content>,
    /// Under which name it was found.
    pub kind: Kind,
    /// Its writes in order, without gaps, as long as the text is now.
    pub spans: Vec<Span>,
}

/// The period of lines to print, with both ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// Nanoseconds since 1970.
    pub since_ns: Option<u64>,
    /// As well.
    pub until_ns: Option<u64>,
    /// The time now. Lines after everything that is known count as written now.
    pub now_ns: u64,
}

impl Period {
    /// True if a write of that time is meant.
    #[must_use]
    pub fn holds(&self, wall_ns: Option<u64>) -> bool {
        let at = wall_ns.unwrap_or(self.now_ns);
        self.since_ns.is_none_or(|since| at >= since) && self.until_ns.is_none_or(|until| at <= until)
    }
}

/// Opens a segment with its times. `None`: retention has deleted it.
///
/// # Errors
/// A file cannot be read.
pub fn open(files: &dyn Files, dir: &Path, id: SegmentId) -> io::Result<Option<Timed>> {
    // The trail first: what it names was in the text by then.
    let (mut spans, mut has_trail) = (Spans::default(), false);
    if let Some(file) = open_kind(files, dir, id, Kind::Trail)?
        && trail::header(&*file)?.is_some()
    {
        has_trail = true;
        let mut records = Records::of(&*file);
        while let Some(record) = records.read()?
            && spans.add(&record)
        {}
    }
    let Some((content, kind)) = open_text(files, dir, id)? else { return Ok(None) };
    let len = content.size()?;
    let modified_ns = content.modified_ns().filter(|_| has_trail);
    Ok(Some(Timed { id, content, kind, spans: spans.up_to(len, modified_ns) }))
}

/// Writes, as they are read.
#[derive(Default)]
struct Spans(Vec<Span>);

impl Spans {
    /// Takes the next record; false: it does not follow, so there is no use in going on.
    fn add(&mut self, record: &Record) -> bool {
        if !record.is_write() || record.len == 0 {
            return true;
        }
        let at = self.0.last().map_or(0, |last| last.to);
        if record.offset != at {
            return false;
        }
        match self.0.last_mut() {
            Some(last) if last.wall_ns == Some(record.wall_ns) => last.to = record.end(),
            _ => self.0.push(Span { from: at, to: record.end(), wall_ns: Some(record.wall_ns) }),
        }
        true
    }

    /// For a text of that length, which was written to last at that time.
    fn up_to(mut self, len: u64, modified_ns: Option<u64>) -> Vec<Span> {
        self.0.truncate(self.0.partition_point(|span| span.from < len));
        if let Some(last) = self.0.last_mut() {
            last.to = last.to.min(len);
        }
        let at = self.0.last().map_or(0, |last| last.to);
        if at < len {
            self.0.push(Span { from: at, to: len, wall_ns: modified_ns });
        }
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::trail::What;

    fn write(offset: u64, len: u64, wall_ns: u64) -> Record {
        Record { what: What::Write, offset, len, lines: 1, crc: 0, wall_ns, mono_ns: 0 }
    }

    #[test]
    fn every_byte_is_in_one_span() {
        let sync = Record { what: What::Sync, ..write(10, 0, 9) };
        let trail = [write(0, 10, 5), sync, write(10, 5, 5), write(15, 5, 7)];
        let spans = |records: &[Record], len| {
            let mut spans = Spans::default();
            assert!(records.iter().all(|r| spans.add(r)));
            spans.up_to(len, None)
        };
        let span = |from, to, wall_ns| Span { from, to, wall_ns };
        assert_eq!(spans(&trail, 20), [span(0, 15, Some(5)), span(15, 20, Some(7))]);
        assert_eq!(spans(&trail, 23)[2], span(20, 23, None));
        assert_eq!(spans(&trail, 12), [span(0, 12, Some(5))]);
        assert_eq!(spans(&[], 3), [span(0, 3, None)]);
    }

    #[test]
    fn what_nobody_knows_the_time_of_is_of_now() {
        let period = Period { since_ns: Some(5), until_ns: Some(7), now_ns: 8 };
        assert!(period.holds(Some(5)) && period.holds(Some(7)));
        assert!(!period.holds(Some(4)) && !period.holds(Some(8)) && !period.holds(None));
        assert!(Period { until_ns: None, ..period }.holds(None));
    }
}
