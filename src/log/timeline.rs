//! When lines came: a segment cut into the writes that its trail records. A write is what one batch brought, so the time of a line
//! is that of its write, some milliseconds after it was received.

use super::content::{Content, Files, open_kind, open_text, read_full};
use super::names::{Kind, SegmentId};
use super::trail::{Trail, What};
use std::io;
use std::path::Path;

/// Bytes of one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub from: u64,
    /// Byte behind the last.
    pub to: u64,
    /// Nanoseconds since 1970; `None`: after everything that the trail knows (it is written a little later), or the trail is not
    /// there.
    pub wall_ns: Option<u64>,
}

/// A segment, and when its lines came.
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

/// Lines from this time to that one, both included where they are said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// Nanoseconds since 1970.
    pub since_ns: Option<u64>,
    /// As well.
    pub until_ns: Option<u64>,
    /// The time now: what came after everything that is known is taken to be of now.
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

/// Opens a segment with its times; `None` once retention took it.
///
/// # Errors
/// A file cannot be read.
pub fn open(files: &dyn Files, dir: &Path, id: SegmentId) -> io::Result<Option<Timed>> {
    // The trail first: what it names was in the text by then.
    let trail = match open_kind(files, dir, id, Kind::Trail)? {
        Some(file) => read_trail(&*file)?,
        None => Trail::default(),
    };
    let Some((content, kind)) = open_text(files, dir, id)? else { return Ok(None) };
    let len = content.size()?;
    Ok(Some(Timed { id, content, kind, spans: spans(&trail, len) }))
}

fn read_trail(file: &dyn Content) -> io::Result<Trail> {
    let mut bytes = vec![0; file.size()? as usize];
    let n = read_full(file, &mut bytes, 0)?;
    Ok(Trail::parse(&bytes[..n]))
}

/// The writes of a text of that length.
fn spans(trail: &Trail, len: u64) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    let mut at = 0;
    for record in trail.records.iter().filter(|r| r.what == What::Write && r.len > 0) {
        let to = record.offset.saturating_add(record.len);
        if record.offset != at || to > len {
            break;
        }
        match spans.last_mut() {
            Some(last) if last.wall_ns == Some(record.wall_ns) => last.to = to,
            _ => spans.push(Span { from: at, to, wall_ns: Some(record.wall_ns) }),
        }
        at = to;
    }
    if at < len {
        spans.push(Span { from: at, to: len, wall_ns: None });
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::trail::Record;

    fn write(offset: u64, len: u64, wall_ns: u64) -> Record {
        Record { what: What::Write, offset, len, lines: 1, crc: 0, wall_ns, mono_ns: 0 }
    }

    #[test]
    fn every_byte_is_in_one_span() {
        let sync = Record { what: What::Sync, ..write(10, 0, 9) };
        let trail = Trail { header: None, records: vec![write(0, 10, 5), sync, write(10, 5, 5), write(15, 5, 7)] };
        let span = |from, to, wall_ns| Span { from, to, wall_ns };
        assert_eq!(spans(&trail, 20), [span(0, 15, Some(5)), span(15, 20, Some(7))]);
        assert_eq!(spans(&trail, 23)[2], span(20, 23, None));
        assert_eq!(spans(&trail, 12), [span(0, 10, Some(5)), span(10, 12, None)]);
        assert_eq!(spans(&Trail::default(), 3), [span(0, 3, None)]);
    }

    #[test]
    fn what_nobody_knows_the_time_of_is_of_now() {
        let period = Period { since_ns: Some(5), until_ns: Some(7), now_ns: 8 };
        assert!(period.holds(Some(5)) && period.holds(Some(7)));
        assert!(!period.holds(Some(4)) && !period.holds(Some(8)) && !period.holds(None));
        assert!(Period { until_ns: None, ..period }.holds(None));
    }
}
