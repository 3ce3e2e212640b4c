//! Follows one stream for `tail`: reads new lines piece by piece, and merges the shards by the time of writing.
//!
//! Looking for new lines takes the same time however much was written before. The memory in use does not grow with the lines
//! that wait to be printed.

use super::select::{Line, each_line};
use crate::log::cat::segments;
use crate::log::content::{Content, OnDisk, open_kind, open_text};
use crate::log::names::{Kind, SegmentId};
use crate::log::timeline::{self, Span, Timed};
use crate::log::trail::Records;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a shard that are read at once. A longer line is read whole.
const PIECE: u64 = 256 << 10;
/// A directory that changed within this time may change again without a new time of change.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// A directory that is listed again only after it has changed.
pub struct Listing<T> {
    found: Option<(SystemTime, T)>,
}

impl<T: Clone> Listing<T> {
    /// Not listed yet.
    pub fn new() -> Self {
        Listing { found: None }
    }

    /// Calls `list` on `dir`, or returns what it found before if nothing has changed.
    ///
    /// # Errors
    /// The error of `list`.
    pub fn get(&mut self, dir: &Path, list: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let changed = std::fs::metadata(dir).and_then(|m| m.modified());
        if let (Some((seen, found)), Ok(changed)) = (&self.found, &changed)
            && seen == changed
        {
            return Ok(found.clone());
        }
        let found = list()?;
        self.found = None;
        if let Ok(changed) = changed
            && changed.elapsed().is_ok_and(|ago| ago > SETTLED_AFTER)
        {
            self.found = Some((changed, found.clone()));
        }
        Ok(found)
    }
}

/// One stream, and how far it was read.
pub struct Follow {
    dir: PathBuf,
    listing: Listing<Vec<SegmentId>>,
    /// For each shard its segment, as far as it was read.
    shards: BTreeMap<u16, Reading>,
    /// The lines to begin with.
    begun: Option<Vec<Line>>,
}

/// A segment that may grow, as far as it was read.
struct Reading {
    id: SegmentId,
    text: Box<dyn Content>,
    trail: Option<Box<dyn Content>>,
    /// How far the trail was read; 0: from its first record.
    trail_at: u64,
    /// Writes that the trail names and that were not read to their end.
    spans: VecDeque<Span>,
    at: u64,
    /// Lines that were read and not printed, each with the latest time so far: a clock that was set back does not change the order.
    waiting: VecDeque<(u64, Line)>,
    latest_ns: u64,
    /// The next segment, opened before anything is in it.
    next: Option<Box<Reading>>,
}

impl Reading {
    /// Opens a segment. `None`: retention has deleted it.
    fn open(dir: &Path, id: SegmentId, at: u64) -> io::Result<Option<Reading>> {
        let trail = open_kind(&OnDisk, dir, id, Kind::Trail)?;
        let Some((text, _)) = open_text(&OnDisk, dir, id)? else { return Ok(None) };
        let (spans, waiting) = (VecDeque::new(), VecDeque::new());
        Ok(Some(Reading { id, text, trail, trail_at: 0, spans, at, waiting, latest_ns: 0, next: None }))
    }

    fn has_more(&self) -> io::Result<bool> {
        Ok(self.text.size()? > self.at)
    }

    /// Reads the records of the trail for the text up to `to`, as far as there are any.
    fn look_at_trail(&mut self, to: u64) -> io::Result<()> {
        let Some(trail) = &self.trail else { return Ok(()) };
        let mut records = Records::from(&**trail, self.trail_at);
        while self.spans.back().is_none_or(|span| span.to < to)
            && let Some(record) = records.read()?
        {
            if record.is_write() && record.end() > self.at {
                self.spans.push_back(Span { from: record.offset, to: record.end(), wall_ns: Some(record.wall_ns) });
            }
        }
        self.trail_at = records.position();
        Ok(())
    }

    /// Reads the next piece, unless lines of the last one still wait.
    fn fill(&mut self) -> io::Result<()> {
        let len = self.text.size()?;
        let mut piece = PIECE;
        while self.waiting.is_empty() && self.at < len {
            let to = len.min(self.at.saturating_add(piece));
            self.look_at_trail(to)?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64);
            while self.at < to {
                while self.spans.front().is_some_and(|span| span.to <= self.at) {
                    self.spans.pop_front();
                }
                // The trail lags behind the text; what it does not know yet came just now.
                let (end, wall_ns) = match self.spans.front() {
                    Some(span) if span.from <= self.at => (span.to.min(to), span.wall_ns),
                    Some(span) => (span.from.min(to), Some(now)),
                    None => (to, Some(now)),
                };
                let (waiting, span) = (&mut self.waiting, Span { from: self.at, to: end, wall_ns });
                self.latest_ns = self.latest_ns.max(wall_ns.unwrap_or(0));
                let latest_ns = self.latest_ns;
                let at = each_line(&*self.text, self.id, span, |line| {
                    waiting.push_back((latest_ns, line));
                    Ok(())
                })?;
                let is_stuck = at < end;
                self.at = at;
                if is_stuck {
                    break; // a line goes on behind the piece
                }
            }
            if to == len {
                break;
            }
            piece = piece.saturating_mul(2);
        }
        Ok(())
    }
}

impl Follow {
    /// The last lines of a stream, and where to go on. `None`: from its first line on, all are new.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn begin(dir: &Path, last: Option<usize>) -> io::Result<Follow> {
        let mut by_shard: BTreeMap<u16, Vec<SegmentId>> = BTreeMap::new();
        for id in segments(dir)? {
            by_shard.entry(id.shard).or_default().push(id);
        }
        let (mut shards, mut lines) = (BTreeMap::new(), Vec::new());
        for (shard, ids) in by_shard {
            let Some(last) = last else {
                let first = ids.first().map(|id| Reading::open(dir, *id, 0)).transpose()?.flatten();
                shards.extend(first.map(|reading| (shard, reading)));
                continue;
            };
            let mut of_shard: VecDeque<Line> = VecDeque::new();
            for id in ids.into_iter().rev() {
                // The newest may be a spare one, made ahead: it is empty until the one before is finished.
                let Some(segment) = timeline::open(&OnDisk, dir, id)?.filter(has_text) else { continue };
                let wanted = last - of_shard.len();
                let (found, at) = last_lines(&segment, wanted)?;
                found.into_iter().rev().for_each(|line| of_shard.push_front(line));
                if let std::collections::btree_map::Entry::Vacant(entry) = shards.entry(shard)
                    && let Some(reading) = Reading::open(dir, id, at)?
                {
                    entry.insert(reading);
                }
                if of_shard.len() >= last {
                    break;
                }
            }
            lines.extend(of_shard);
        }
        sort(&mut lines);
        let surplus = lines.len().saturating_sub(last.unwrap_or(0));
        lines.drain(..surplus);
        Ok(Follow { dir: dir.to_path_buf(), listing: Listing::new(), shards, begun: Some(lines) })
    }

    /// New lines, at most one piece of each shard. Empty: there are no more for now.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn next_lines(&mut self) -> io::Result<Vec<Line>> {
        if let Some(begun) = self.begun.take().filter(|begun| !begun.is_empty()) {
            return Ok(begun);
        }
        let dir = &self.dir;
        let ids = self.listing.get(dir, || segments(dir))?;
        for id in &ids {
            if let std::collections::btree_map::Entry::Vacant(entry) = self.shards.entry(id.shard)
                && let Some(reading) = Reading::open(dir, *id, 0)?
            {
                entry.insert(reading);
            }
        }
        for reading in self.shards.values_mut() {
            reading.fill()?;
            while reading.waiting.is_empty() && step_on(dir, &ids, reading)? {
                reading.fill()?;
            }
        }
        // Where more of a shard is to be read, nothing later than what was read of it is printed yet: its next lines may be earlier.
        let mut horizon = u64::MAX;
        for reading in self.shards.values() {
            if let Some((latest_ns, _)) = reading.waiting.back()
                && reading.has_more()?
            {
                horizon = horizon.min(*latest_ns);
            }
        }
        let mut lines = Vec::new();
        for reading in self.shards.values_mut() {
            let until = reading.waiting.iter().position(|(at, _)| *at > horizon);
            lines.extend(reading.waiting.drain(..until.unwrap_or(reading.waiting.len())));
        }
        lines.sort_by_key(|(at, _)| *at);
        Ok(lines.into_iter().map(|(_, line)| line).collect())
    }
}

/// Goes on to the next segment once something is in it. The one before is finished then, and was read to its end.
fn step_on(dir: &Path, ids: &[SegmentId], reading: &mut Reading) -> io::Result<bool> {
    // An empty one goes when the server ends; what it writes afterwards is in another.
    let is_gone = |next: &Reading| Ok::<_, io::Error>(!ids.contains(&next.id) && !next.has_more()?);
    if reading.next.as_deref().map(is_gone).transpose()? == Some(true) {
        reading.next = None;
    }
    if reading.next.is_none() {
        let mut behind = ids.iter().filter(|id| id.shard == reading.id.shard && **id > reading.id);
        reading.next = behind.find_map(|id| Reading::open(dir, *id, 0).transpose()).transpose()?.map(Box::new);
    }
    let is_begun = match &reading.next {
        Some(next) => next.has_more()?,
        None => false,
    };
    // Once more: what came into it before the next was begun.
    if is_begun && !reading.has_more()? {
        if let Some(next) = reading.next.take() {
            *reading = Reading { latest_ns: reading.latest_ns, ..*next };
        }
        return Ok(true);
    }
    if is_begun {
        reading.fill()?;
        if reading.waiting.is_empty() && reading.has_more()? {
            // Bytes without an end, in a segment that is finished: never a line.
            reading.at = reading.text.size()?;
            return step_on(dir, ids, reading);
        }
    }
    Ok(false)
}

fn has_text(segment: &Timed) -> bool {
    !segment.spans.is_empty()
}

/// Sorts by the time of writing. Lines with the same time keep the order of their shard.
fn sort(lines: &mut [Line]) {
    lines.sort_by_key(|line| line.wall_ns.unwrap_or(u64::MAX));
}

/// The last few lines of a segment, and where its whole lines end.
fn last_lines(segment: &Timed, most: usize) -> io::Result<(VecDeque<Line>, u64)> {
    let mut lines = VecDeque::new();
    let mut end = 0;
    // Spans from the end: few are read where few lines are wanted.
    for span in segment.spans.iter().rev() {
        if lines.len() >= most && end > 0 {
            break;
        }
        let wanted = most - lines.len().min(most);
        let mut here: VecDeque<Line> = VecDeque::new();
        let at = each_line(&*segment.content, segment.id, *span, |line| {
            here.push_back(line);
            if here.len() > wanted {
                here.pop_front();
            }
            Ok(())
        })?;
        end = end.max(at);
        here.into_iter().rev().for_each(|line| lines.push_front(line));
    }
    Ok((lines, end))
}
