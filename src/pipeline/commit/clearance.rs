//! Which sealed segments no commit log needs any more. The others are not deleted: recovery knows by the trails of segments what of a log
//! is in them, and would bring the lines of a deleted one back.

use super::Progress;
use crate::log::disk::Disk;
use crate::log::names::SegmentId;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// The highest sequence, by stream and shard.
type Highest = BTreeMap<(String, u16), u64>;

/// See the module documentation.
pub struct Clearance {
    /// Each log, and its file.
    logs: Vec<(Arc<Progress>, PathBuf)>,
    /// What was sealed when each log was to come to this record, and these records.
    asked: Option<(Highest, Vec<u64>)>,
    /// What has been seen since.
    seen: Highest,
    clear: Highest,
}

impl Clearance {
    /// For these logs, of which nothing was used yet: what is sealed now is clear.
    #[must_use]
    pub fn new(logs: Vec<(Arc<Progress>, PathBuf)>) -> Clearance {
        Clearance { logs, asked: None, seen: Highest::new(), clear: Highest::new() }
    }

    /// Looks at how far the logs are. Removes the file of a log that was given up, once nothing of it is needed: it cannot say so itself.
    pub fn look(&mut self, disk: &dyn Disk) {
        let Some((sealed, records)) = self.asked.take() else { return self.ask() };
        let is_reached = |((progress, path), record): (&(Arc<Progress>, PathBuf), &u64)| {
            progress.marked() >= *record || (progress.is_over() && is_gone(disk, path))
        };
        if self.logs.iter().zip(&records).all(is_reached) {
            self.clear.extend(sealed);
            self.ask();
        } else {
            self.asked = Some((sealed, records));
        }
    }

    fn ask(&mut self) {
        if !self.seen.is_empty() {
            let records = self.logs.iter().map(|(progress, _)| progress.next()).collect();
            self.asked = Some((std::mem::take(&mut self.seen), records));
        }
    }

    /// The first sealed segment of a shard that is needed still, with all behind it up to the `last`. If there is one, it is asked for.
    pub fn first_needed(&mut self, stream: &str, last: SegmentId) -> Option<u64> {
        let is_idle = |(progress, _): &(Arc<Progress>, PathBuf)| progress.marked() >= progress.next();
        if self.logs.iter().all(is_idle) {
            return None;
        }
        let key = (stream.to_string(), last.shard);
        let clear = self.clear.get(&key).copied().unwrap_or(0);
        if last.sequence <= clear {
            return None;
        }
        let seen = self.seen.entry(key).or_default();
        *seen = last.sequence.max(*seen);
        Some(clear.saturating_add(1))
    }

    /// True if something waits to become clear.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.asked.is_some() || !self.seen.is_empty()
    }
}

fn is_gone(disk: &dyn Disk, path: &std::path::Path) -> bool {
    match disk.remove(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return false,
        _ => {}
    }
    path.parent().is_some_and(|dir| disk.sync_dir(dir).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::real_disk::RealDisk;

    #[test]
    fn a_segment_is_clear_once_every_log_has_come_past_what_it_was_when_it_was_sealed() {
        let (dir, disk) = (tempfile::tempdir().unwrap(), RealDisk::new());
        let logs: Vec<_> = (0..2).map(|i| (Arc::new(Progress::default()), dir.path().join(i.to_string()))).collect();
        let mut clearance = Clearance::new(logs.clone());
        let id = |sequence| SegmentId { shard: 0, sequence };
        let mut look = |sequence| {
            let before = clearance.first_needed("s", id(sequence)).is_none();
            clearance.look(&disk);
            clearance.look(&disk);
            (before, clearance.first_needed("s", id(sequence)).is_none())
        };
        assert_eq!(look(1), (true, true), "nothing was logged yet");
        logs[0].0.set_next(5);
        assert_eq!(look(2), (false, false));
        logs[0].0.set_marked(4);
        logs[0].0.set_next(9);
        assert_eq!(look(2), (false, false));
        logs[0].0.set_marked(5);
        assert_eq!(look(2), (false, true), "what was logged later is in later segments");
        assert_eq!(look(3), (false, false));
        std::fs::write(dir.path().join("0"), "records").unwrap();
        logs[0].0.end();
        assert_eq!(look(3), (false, true));
        assert!(!dir.path().join("0").exists(), "a log that cannot say that it is empty is removed");
    }

    #[test]
    fn without_logs_everything_is_clear() {
        let mut clearance = Clearance::new(Vec::new());
        assert!(clearance.first_needed("s", SegmentId { shard: 0, sequence: 7 }).is_none() && !clearance.is_pending());
    }
}
