//! Housekeeping of sealed segments: deletes what retention says, and compresses and moves the rest as configured. It is one
//! thread of low priority, which sleeps until a segment is sealed or something is due.
//!
//! It owns the catalogue of each stream. A directory is read when its stream is new here, when the configuration is loaded again, and when
//! the last reading is too long ago for what is to be done; between that the keeper goes by what it is told ([`events`]) and by what it
//! does itself.

mod behind;
pub mod events;
mod kept;
mod room;
mod targets;
mod trust;

pub use kept::{Kept, KeptCounts, KeptStream, KeptStreams, TargetState, Told};
pub use targets::TargetHold;

use crate::host::clock::Clock;
use crate::log::LogError;
use crate::log::archive::Shelf;
use crate::log::catalogue::{Catalogue, Finished, Staying};
use crate::log::data_dir::STATE_DIR;
use crate::log::disk::Disk;
use crate::log::holds;
use crate::log::names::Kind;
use crate::log::names::SegmentId;
use crate::log::retention::Limits;
use crate::log::retired;
use crate::pipeline::commit::Clearance;
use crate::pipeline::control::Control;
use crate::pipeline::sleep::Sleep;
use events::SegmentEvents;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use trust::Trust;

/// Time between two looks at free space, where some stream has `min_free`: others use the disk too.
const LOOK_NS: u64 = 5_000_000_000;
/// Time between tries after a failure.
const AGAIN_NS: u64 = 30_000_000_000;
/// Time between two looks at whether the commit logs need a segment still.
const CLEAR_NS: u64 = 200_000_000;
/// Time between two looks at whether a reader still holds what should go.
const HELD_NS: u64 = 5_000_000_000;
/// A directory is read again after this time: somebody may have deleted files by hand, or brought some back.
const READ_AGAIN_NS: u64 = 3_600_000_000_000;
/// And before something goes for `max_bytes`, if it was not read for this time: what somebody else has deleted must not count.
const TRUSTED_NS: u64 = 600_000_000_000;

/// Segments that are noted, deleted and synced at once.
const BATCH: usize = 4096;
/// After this many deletions of one stream the others have their turn, and free space is checked again.
const TURN: usize = 4096;

/// One stream as the keeper knows it.
struct Known {
    catalogue: Catalogue,
    shelf: Shelf,
    /// When its directory was read, in monotonic nanoseconds; `None`: it is to be read again.
    read_at: Option<u64>,
    /// Nothing is left half deleted by an earlier run.
    is_finished: bool,
    /// It was logged that a reader or a target holds what would go.
    says_held: bool,
}

/// What [`Keeper::retire`] has done.
#[derive(Default)]
struct Retired {
    /// Bytes of which no room comes: of what cannot be deleted, and of what somebody else had deleted before.
    kept_bytes: u64,
    /// Why not all of it was done.
    failed: Option<LogError>,
}

/// See the module documentation.
pub struct Keeper {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    control: Arc<Control>,
    data_dir: PathBuf,
    streams: KeptStreams,
    counts: KeptCounts,
    events: Arc<SegmentEvents>,
    known: BTreeMap<String, Known>,
    trust: Trust,
    /// What was deleted for free space and does not show as free yet.
    awaited: BTreeMap<room::Place, room::Awaited>,
    /// The last failure that was logged, so that it is logged only once.
    complaint: String,
    /// Segments that cannot be deleted, and when to try again.
    stuck: BTreeMap<(String, SegmentId), u64>,
    /// When free space is to be looked at, in monotonic nanoseconds.
    look_at: u64,
    /// What no commit log needs any more.
    clearance: Clearance,
    /// Targets that what is kept is shipped to.
    targets: behind::Targets,
}

impl Keeper {
    /// A keeper for these streams.
    #[must_use]
    pub fn new(
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        control: Arc<Control>,
        data_dir: &Path,
        (streams, counts, events): (KeptStreams, KeptCounts, Arc<SegmentEvents>),
        clearance: Clearance,
    ) -> Keeper {
        let trust = Trust::new(&*clock);
        Keeper {
            disk,
            clock,
            control,
            data_dir: data_dir.to_path_buf(),
            streams,
            counts,
            events,
            known: BTreeMap::new(),
            trust,
            awaited: BTreeMap::new(),
            complaint: String::new(),
            stuck: BTreeMap::new(),
            look_at: 0,
            clearance,
            targets: behind::Targets::default(),
        }
    }

    /// Works until the end of the server begins.
    pub fn run(mut self, sleeper: &dyn Sleep) {
        while !self.control.draining() {
            let next = self.pass();
            let now = self.clock.mono_ns();
            sleeper.sleep(next.map(|at| Duration::from_nanos(at.saturating_sub(now))));
        }
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner).clone();
        if streams.iter().all(|s| s.shelf.home.is_none()) {
            return;
        }
        // What was just sealed moves too: the directory it is in may be in memory.
        while !self.control.tidying() {
            sleeper.sleep(None);
        }
        self.forget_others(&streams);
        self.listen();
        for stream in &streams {
            // One that is new here, or of which not all was told.
            if let Err(error) = self.survey(stream) {
                tracing::warn!(stream = stream.name, %error, "not every segment is moved; the next start goes on with it");
            }
            // What was found to want nothing wants nothing now: no segment is asked for twice.
            let moves = Shelf { compress: None, ..stream.shelf.clone() };
            if let Err(error) = self.put_away_to(stream, &moves, &[]) {
                tracing::warn!(stream = stream.name, %error, "not every segment was moved; the next start goes on with it");
            }
        }
    }

    /// Forgets streams that are gone, or kept in another way.
    fn forget_others(&mut self, streams: &[KeptStream]) {
        self.known.retain(|name, known| streams.iter().any(|s| s.name == *name && s.shelf == known.shelf));
    }

    /// True while there is time for another step.
    fn may_go_on(&self) -> bool {
        !self.control.draining() || (self.control.tidying() && !self.control.writers_abandoned())
    }

    /// Does what is due. Returns when something is due next, in monotonic nanoseconds; `None`: nothing is.
    pub fn pass(&mut self) -> Option<u64> {
        self.trust.look(&*self.clock);
        self.clearance.look(&*self.disk);
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner).clone();
        self.forget_others(&streams);
        self.listen();
        let mut due: Option<u64> = None;
        // A full disk first, and again between all other work: lines wait for it.
        self.look_at = 0;
        self.make_room_if_due(&streams);
        // Then what is to go, of all streams; what stays is put away last, which may take long.
        for work in [Keeper::delete as fn(&mut Keeper, &KeptStream, &[KeptStream]) -> _, Keeper::put_away] {
            for stream in &streams {
                if self.control.draining() {
                    return None;
                }
                match work(self, stream, &streams) {
                    Ok(at) => due = due.into_iter().chain(at).min(),
                    Err(error) => {
                        self.count(&stream.name, |kept| kept.failures += 1);
                        let again = self.clock.mono_ns().saturating_add(AGAIN_NS);
                        due = Some(due.map_or(again, |at| at.min(again)));
                        let text = error.to_string();
                        if text != self.complaint {
                            tracing::warn!(stream = stream.name, %error, "housekeeping failed; trying again");
                            self.complaint = text;
                        }
                    }
                }
            }
        }
        let targets = self.look_at_targets(&streams);
        let looks = streams.iter().any(|s| s.limits.min_free.is_some()).then_some(self.look_at);
        let now = self.clock.mono_ns();
        let again = self.stuck.values().copied().filter(|at| *at > now);
        let clear = self.clearance.is_pending().then(|| now.saturating_add(CLEAR_NS));
        due.into_iter().chain(targets).chain(looks).chain(again).chain(clear).min()
    }

    fn count(&self, stream: &str, change: impl FnOnce(&mut Kept)) {
        let mut counts = self.counts.streams.lock().unwrap_or_else(PoisonError::into_inner);
        change(counts.entry(stream.to_string()).or_default());
    }

    /// Takes in what was told since.
    fn listen(&mut self) {
        let heard = self.events.hear();
        if heard.all {
            self.known.values_mut().for_each(|known| known.read_at = None);
        }
        for (stream, id) in heard.segments {
            if let Some(known) = self.known.get_mut(&stream) {
                known.catalogue.look(&*self.disk, id);
            }
        }
    }

    /// Brings the catalogue of a stream up to date, and says what of it has to stay.
    fn survey(&mut self, stream: &KeptStream) -> Result<Staying, LogError> {
        let now = self.clock.mono_ns();
        let is_old = |read_at: Option<u64>| read_at.is_none_or(|at| now >= at.saturating_add(READ_AGAIN_NS));
        match self.known.get_mut(&stream.name) {
            Some(known) if is_old(known.read_at) => {
                known.catalogue.read_again(&*self.disk)?;
                known.read_at = Some(now);
                self.stuck.retain(|(name, id), _| *name != stream.name || known.catalogue.contains(*id));
            }
            Some(_) => {}
            None => {
                let catalogue = Catalogue::read(&*self.disk, &stream.shelf.dir)?;
                let (shelf, read_at) = (stream.shelf.clone(), Some(now));
                let known = Known { catalogue, shelf, read_at, is_finished: false, says_held: false };
                self.known.insert(stream.name.clone(), known);
            }
        }
        let (disk, counts) = (Arc::clone(&self.disk), Arc::clone(&self.counts));
        let Some(known) = self.known.get_mut(&stream.name) else { return Ok(Staying::new()) };
        known.catalogue.look_at_active(&*disk);
        for ((_, id), _) in self.stuck.iter().filter(|((name, _), again)| *name == stream.name && **again <= now) {
            known.catalogue.try_again(*id);
        }
        let mut staying = Staying::new();
        if stream.limits != Limits::default() {
            for last in known.catalogue.last_of_shards() {
                if let Some(first) = self.clearance.first_needed(&stream.name, last) {
                    staying.insert(last.shard, first);
                }
            }
        }
        let mut counts = counts.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = counts.entry(stream.name.clone()).or_default();
        (kept.bytes, kept.segments) = (known.catalogue.bytes(), known.catalogue.segments());
        Ok(staying)
    }

    /// What goes next at this time, and why.
    fn next(
        &self,
        stream: &KeptStream,
        (limits, wall_ns): (&Limits, u64),
        staying: &Staying,
    ) -> Option<(Finished, &'static str)> {
        limits.next(&self.known.get(&stream.name)?.catalogue, staying, wall_ns, None)
    }

    /// What of a stream has to stay, before something of it is deleted: for a commit log, or for a reader.
    fn what_stays(&mut self, stream: &KeptStream, due: (&Limits, u64)) -> Result<Staying, LogError> {
        let mut staying = self.survey(stream)?;
        self.finish(stream)?;
        let Some((_, why)) = self.next(stream, due, &staying) else { return Ok(staying) };
        let now = self.clock.mono_ns();
        if let Some(known) = self.known.get_mut(&stream.name)
            && why == "max_bytes"
            && known.read_at.is_none_or(|at| now >= at.saturating_add(TRUSTED_NS))
        {
            known.read_at = None;
            staying = self.survey(stream)?;
        }
        self.spare_held(stream, &mut staying);
        Ok(staying)
    }

    /// Deletes segments of one stream that are too old or too many.
    fn delete(&mut self, stream: &KeptStream, streams: &[KeptStream]) -> Result<Option<u64>, LogError> {
        let age_from = self.trust.age_counts_from(&stream.limits);
        let mut limits = stream.limits;
        limits.min_free = None; // over all streams, in another place
        if self.clock.mono_ns() < age_from {
            limits.max_age_ns = None;
        }
        loop {
            // Again for each turn, and for one moment: what was sealed meanwhile may be needed, and a reader may have begun.
            let due = (&limits, self.clock.wall_ns());
            let staying = self.what_stays(stream, due)?;
            let (mut touched, mut turn) = (BTreeSet::new(), 0);
            let more = loop {
                if turn >= TURN || self.control.draining() {
                    break self.next(stream, due, &staying).is_some();
                }
                let mut batch = Vec::new();
                while batch.len() < BATCH
                    && let Some((oldest, why)) = self.next(stream, due, &staying)
                {
                    self.take(stream, oldest.id);
                    batch.push((oldest, why));
                }
                if batch.is_empty() {
                    break false;
                }
                turn += batch.len();
                touched.extend(batch.iter().map(|(one, _)| one.id.shard));
                if let Some(error) = self.retire(stream, &batch).failed {
                    return Err(error);
                }
            };
            self.note_done(stream, &touched)?;
            if !more || self.control.draining() {
                let (wall, mono) = (self.clock.wall_ns(), self.clock.mono_ns());
                let in_mono = |at: u64| mono.saturating_add(at.saturating_sub(wall)).max(age_from);
                let Some(known) = self.known.get(&stream.name) else { return Ok(None) };
                let is_held = self.next(stream, due, &Staying::new()).is_some() && !self.clearance.is_pending();
                let held = is_held.then(|| mono.saturating_add(HELD_NS));
                let at = stream.limits.due_ns(&known.catalogue, &staying).map(in_mono);
                self.say_held(stream, is_held);
                self.note_holding(stream, &|keeper, hold| {
                    keeper.keeps(hold, stream, &|keeper, staying| Some(keeper.next(stream, due, staying)?.0.id))
                });
                return Ok(at.into_iter().chain(held).min());
            }
            self.listen();
            self.make_room_if_due(streams);
        }
    }

    /// Adds what readers hold, and what targets have not got, to what stays.
    fn spare_held(&self, stream: &KeptStream, staying: &mut Staying) {
        let held = holds::held(&self.data_dir.join(STATE_DIR), self.clock.wall_ns()).remove(&stream.name);
        for (shard, from) in held.into_iter().flatten().chain(self.needed_by_targets(stream)) {
            let first = staying.entry(shard).or_insert(from);
            *first = from.min(*first);
        }
    }

    /// Logs once that a reader or a target keeps segments from being deleted.
    fn say_held(&mut self, stream: &KeptStream, is_held: bool) {
        let Some(known) = self.known.get_mut(&stream.name) else { return };
        if is_held && !known.says_held {
            tracing::info!(
                stream = stream.name,
                "a reader, or a target that has not got them, holds segments that would be deleted now"
            );
        }
        known.says_held = is_held;
    }

    /// What is noted as being deleted is to be looked at again.
    fn is_unfinished(&mut self, stream: &KeptStream) {
        if let Some(known) = self.known.get_mut(&stream.name) {
            known.is_finished = false;
        }
    }

    fn take(&mut self, stream: &KeptStream, id: SegmentId) {
        if let Some(known) = self.known.get_mut(&stream.name) {
            known.catalogue.take(id);
        }
    }

    /// Compresses and moves the other segments, as configured.
    fn put_away(&mut self, stream: &KeptStream, streams: &[KeptStream]) -> Result<Option<u64>, LogError> {
        self.put_away_to(stream, &stream.shelf, streams)
    }

    fn put_away_to(
        &mut self,
        stream: &KeptStream,
        shelf: &Shelf,
        streams: &[KeptStream],
    ) -> Result<Option<u64>, LogError> {
        if shelf.home.is_none() && shelf.compress.is_none() {
            return Ok(None);
        }
        let fresh = self.known.get(&stream.name).map(|known| known.catalogue.fresh()).unwrap_or_default();
        let mut failed = None;
        for id in fresh {
            let disk = Arc::clone(&self.disk);
            if !shelf.wants(&*disk, id) {
                self.change(stream, |catalogue| catalogue.is_put_away(id));
                continue;
            }
            self.make_room_if_due(streams);
            let put = match shelf.put_away(&*disk, id, &|| self.may_go_on()) {
                Err(_) if !self.may_go_on() => return Ok(None),
                // One that cannot be read must not keep the others here.
                Err(error) => {
                    self.change(stream, |catalogue| catalogue.look(&*disk, id)); // half of it may be done
                    failed.get_or_insert(error);
                    continue;
                }
                Ok(put) => put,
            };
            self.change(stream, |catalogue| {
                catalogue.look(&*disk, id);
                catalogue.is_put_away(id);
            });
            self.count(&stream.name, |kept| {
                if let Some((text, packed)) = put.compressed {
                    kept.compressed += 1;
                    kept.text_bytes += text;
                    kept.packed_bytes += packed;
                }
                kept.moved_bytes += put.moved;
            });
        }
        failed.map_or(Ok(None), Err)
    }

    /// Changes the catalogue of a stream, and publishes what it says now.
    fn change(&mut self, stream: &KeptStream, change: impl FnOnce(&mut Catalogue)) {
        let Some(known) = self.known.get_mut(&stream.name) else { return };
        change(&mut known.catalogue);
        let (bytes, segments) = (known.catalogue.bytes(), known.catalogue.segments());
        self.count(&stream.name, |kept| (kept.bytes, kept.segments) = (bytes, segments));
    }

    /// Finishes, once, the deletions that a crash interrupted.
    fn finish(&mut self, stream: &KeptStream) -> Result<(), LogError> {
        if self.known.get(&stream.name).is_none_or(|known| known.is_finished) {
            return Ok(());
        }
        let taken = retired::finish(&*self.disk, &self.data_dir, &stream.name)?;
        if let Some(known) = self.known.get_mut(&stream.name) {
            known.is_finished = true;
        }
        taken.missing.iter().for_each(|id| self.take(stream, *id));
        for id in &taken.gone {
            self.take(stream, *id);
            self.say_deleted(stream, *id, 0, "unfinished");
        }
        self.put_aside(stream, taken.stuck);
        Ok(())
    }

    fn say_deleted(&self, stream: &KeptStream, id: SegmentId, bytes: u64, why: &'static str) {
        tracing::info!(stream = stream.name, segment = id.file_name(Kind::Sealed), bytes, why, "deleted");
        self.count(&stream.name, |kept| {
            *kept.deleted.entry(why).or_default() += 1;
            kept.deleted_bytes = kept.deleted_bytes.saturating_add(bytes);
        });
    }

    /// Puts segments aside that cannot be deleted. Logs each once, and counts each try.
    fn put_aside(&mut self, stream: &KeptStream, stuck: Vec<(SegmentId, LogError)>) {
        let again = self.clock.mono_ns().saturating_add(AGAIN_NS);
        for (id, error) in stuck {
            let disk = Arc::clone(&self.disk);
            self.change(stream, |catalogue| catalogue.cannot_go(&*disk, id));
            self.count(&stream.name, |kept| kept.failures += 1);
            if self.stuck.insert((stream.name.clone(), id), again).is_none() {
                tracing::warn!(stream = stream.name, %error, "a segment cannot be deleted; going on with the others");
            }
        }
    }

    /// Deletes segments of a stream that were taken out of its catalogue. Those that are still there are in it again.
    fn retire(&mut self, stream: &KeptStream, batch: &[(Finished, &'static str)]) -> Retired {
        let mut shards: BTreeMap<u16, Vec<SegmentId>> = BTreeMap::new();
        batch.iter().for_each(|(one, _)| shards.entry(one.id.shard).or_default().push(one.id));
        let losses = self.about_to_be_lost(stream, batch);
        let mut retired = Retired::default();
        let mut all_gone = BTreeSet::new();
        for ids in shards.values() {
            let disk = Arc::clone(&self.disk);
            let gone: BTreeSet<SegmentId> = match retired::retire_all(&*disk, &self.data_dir, &stream.name, ids) {
                Ok(taken) => {
                    for id in &taken.missing {
                        let segment = id.file_name(Kind::Sealed);
                        self.stuck.remove(&(stream.name.clone(), *id));
                        tracing::info!(stream = stream.name, segment, "somebody else has deleted it");
                    }
                    self.put_aside(stream, taken.stuck);
                    taken.gone.into_iter().collect()
                }
                Err(error) => {
                    self.change(stream, |catalogue| ids.iter().for_each(|id| catalogue.look(&*disk, *id)));
                    self.is_unfinished(stream); // the note may name what is half there
                    retired.failed.get_or_insert(error);
                    let catalogue = self.known.get(&stream.name).map(|known| &known.catalogue);
                    let is_gone = |id: &SegmentId| catalogue.is_some_and(|catalogue| !catalogue.contains(*id));
                    ids.iter().copied().filter(is_gone).collect()
                }
            };
            for (one, why) in batch.iter().filter(|(one, _)| one.id.shard == ids[0].shard) {
                if gone.contains(&one.id) {
                    self.stuck.remove(&(stream.name.clone(), one.id));
                    self.say_deleted(stream, one.id, one.bytes, why);
                } else {
                    retired.kept_bytes = retired.kept_bytes.saturating_add(one.bytes);
                }
            }
            all_gone.extend(gone);
        }
        let lost: Vec<_> = losses.into_iter().filter(|(_, id, ..)| all_gone.contains(id)).collect();
        self.count_lost(stream, &lost);
        self.change(stream, |_| ());
        retired
    }

    fn note_done(&mut self, stream: &KeptStream, shards: &BTreeSet<u16>) -> Result<(), LogError> {
        for shard in shards {
            retired::done(&*self.disk, &self.data_dir, &stream.name, *shard)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
