//! How far targets are behind, what their shippers say, and what was deleted before they had it.

use super::{Keeper, KeptStream, TargetHold, TargetState};
use crate::log::catalogue::{Finished, Staying};
use crate::log::content::OfDisk;
use crate::log::disk::{Disk, read_file};
use crate::log::names::{Kind, SegmentId};
use crate::log::ship::lag::{Behind, ShardLag, There};
use crate::log::ship::note::{self, Positions};
use crate::log::ship::status::{self, Status};
use crate::log::ship::{Position, Source};
use crate::log::trail::Records;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::PoisonError;

/// Time between two looks.
const LOOK_NS: u64 = 5_000_000_000;

/// What is known of one target.
#[derive(Default)]
struct Target {
    lags: BTreeMap<Source, ShardLag>,
    /// Streams of which it holds something that would be deleted.
    holding: BTreeSet<String>,
    /// Deleted before it had them: lines and bytes.
    lost: (u64, u64),
}

/// See the module documentation.
#[derive(Default)]
pub struct Targets {
    known: BTreeMap<String, Target>,
    /// When to look again, in monotonic nanoseconds.
    look_at: u64,
}

impl Keeper {
    /// Looks at all targets, if it is time. Returns when to look again; `None`: there are none.
    pub(super) fn look_at_targets(&mut self, streams: &[KeptStream]) -> Option<u64> {
        let names: BTreeSet<&str> =
            streams.iter().flat_map(|stream| &stream.targets).map(|target| target.name.as_str()).collect();
        self.targets.known.retain(|name, _| names.contains(name.as_str()));
        let now = self.clock.mono_ns();
        if !names.is_empty() && now < self.targets.look_at {
            return Some(self.targets.look_at);
        }
        self.targets.look_at = now.saturating_add(LOOK_NS);
        let states = names.iter().map(|name| ((*name).to_string(), self.state(name, streams))).collect();
        *self.counts.targets.lock().unwrap_or_else(PoisonError::into_inner) = states;
        (!names.is_empty()).then_some(self.targets.look_at)
    }

    fn state(&mut self, name: &str, streams: &[KeptStream]) -> TargetState {
        let noted = note::read(&*self.disk, &self.data_dir, name).ok().flatten();
        let mut behind = Behind::default();
        let target = self.targets.known.entry(name.to_string()).or_default();
        for stream in streams {
            let Some(hold) = stream.targets.iter().find(|target| target.name == name) else { continue };
            let Some(known) = self.known.get(&stream.name) else { continue };
            if noted.is_none() && hold.begins_now {
                continue;
            }
            for shard in known.catalogue.shards() {
                let source = (stream.name.clone(), shard);
                let at = position(noted.as_ref(), &source);
                let there: Vec<There> = known
                    .catalogue
                    .all_from(shard, at.sequence)
                    .into_iter()
                    .map(|(sequence, is_active, bytes)| There { sequence, is_active, bytes })
                    .collect();
                let open = |sequence| self.disk.open(&known.catalogue.trail(SegmentId { shard, sequence })).ok();
                // What cannot be read now can be the next time.
                if let Ok(one) = target.lags.entry(source).or_default().look(at, &there, &open) {
                    behind.add(one);
                }
            }
        }
        let status = read_status(&*self.disk, &self.data_dir, name);
        let is_up = status.as_ref().is_some_and(|status| status.is_up(self.clock.wall_ns()));
        let age_ns = behind.oldest_ns.map_or(0, |oldest| self.clock.wall_ns().saturating_sub(oldest));
        TargetState { behind, age_ns, status, is_up, is_holding: !target.holding.is_empty(), lost: target.lost }
    }

    /// Notes which targets keep something of a stream from being deleted. `is_kept` says it for what stays for one of them.
    pub(super) fn note_holding(&mut self, stream: &KeptStream, is_kept: &dyn Fn(&Keeper, &TargetHold) -> bool) {
        for hold in stream.targets.iter().filter(|target| target.holds) {
            let is_so = is_kept(self, hold);
            let target = self.targets.known.entry(hold.name.clone()).or_default();
            if is_so {
                target.holding.insert(stream.name.clone());
            } else {
                target.holding.remove(&stream.name);
            }
        }
    }

    /// What of these segments, which are about to go, some targets have not got: the target, the segment, its lines and bytes.
    pub(super) fn about_to_be_lost(
        &self,
        stream: &KeptStream,
        batch: &[(Finished, &str)],
    ) -> Vec<(String, SegmentId, u64, u64)> {
        let mut losses = Vec::new();
        for hold in &stream.targets {
            let noted = note::read(&*self.disk, &self.data_dir, &hold.name).ok().flatten();
            if noted.is_none() && hold.begins_now {
                continue;
            }
            for (one, _) in batch {
                let at = position(noted.as_ref(), &(stream.name.clone(), one.id.shard));
                if one.id.sequence < at.sequence {
                    continue;
                }
                let from = if one.id.sequence == at.sequence { at.offset } else { 0 };
                let (lines, has_more) = self.lines_behind(stream, one.id, from);
                if has_more {
                    losses.push((hold.name.clone(), one.id, lines, one.bytes));
                }
            }
        }
        losses
    }

    /// Lines of a segment behind an offset, and whether there is anything: without a trail nobody knows.
    fn lines_behind(&self, stream: &KeptStream, id: SegmentId, from: u64) -> (u64, bool) {
        let trail = stream.shelf.dir.join(id.file_name(Kind::Trail));
        let Ok(file) = self.disk.open(&trail) else { return (0, true) };
        let file = OfDisk(&*file);
        let (mut records, mut lines, mut has_more) = (Records::of(&file), 0, false);
        while let Ok(Some(record)) = records.read() {
            if record.is_write() && record.end() > from {
                lines += u64::from(record.lines);
                has_more = true;
            }
        }
        (lines, has_more)
    }

    /// Counts and logs what is gone of that.
    pub(super) fn count_lost(&mut self, stream: &KeptStream, losses: &[(String, SegmentId, u64, u64)]) {
        let mut ranges: BTreeMap<(&str, u16), (SegmentId, SegmentId, u64, u64)> = BTreeMap::new();
        for (name, id, lines, bytes) in losses {
            let target = self.targets.known.entry(name.clone()).or_default();
            target.lost = (target.lost.0 + lines, target.lost.1 + bytes);
            let range = ranges.entry((name, id.shard)).or_insert((*id, *id, 0, 0));
            *range = (range.0.min(*id), range.1.max(*id), range.2 + lines, range.3 + bytes);
        }
        for ((target_name, _), (first, last, lines, bytes)) in ranges {
            let (first, last) = (first.file_name(Kind::Sealed), last.file_name(Kind::Sealed));
            let stream = &stream.name;
            tracing::error!(target_name, stream, first, last, lines, bytes, "deleted before they were shipped");
        }
    }
}

/// Where a target is in a shard; of what it has nothing, at its beginning.
fn position(noted: Option<&Positions>, source: &Source) -> Position {
    noted.and_then(|noted| noted.get(source)).copied().unwrap_or_default()
}

fn read_status(disk: &dyn Disk, data_dir: &Path, target: &str) -> Option<Status> {
    let bytes = read_file(disk, &status::path(data_dir, target)).ok()?;
    Status::parse(std::str::from_utf8(&bytes).ok()?)
}

impl Keeper {
    /// True if this target alone keeps something from being deleted.
    pub(super) fn keeps(
        &self,
        hold: &TargetHold,
        stream: &KeptStream,
        next: &dyn Fn(&Keeper, &Staying) -> Option<SegmentId>,
    ) -> bool {
        let free = next(self, &Staying::new());
        free.is_some() && next(self, &self.needed_by(hold, stream)) != free
    }
}
