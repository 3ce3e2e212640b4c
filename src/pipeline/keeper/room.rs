//! Makes room: while less is free than `min_free`, the oldest segment of all streams on that file system goes.

use super::{BATCH, Keeper, KeptStream, LOOK_NS};
use crate::log::catalogue::{Finished, Staying};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// btrfs commits every 30 seconds, and what was deleted is not free before; snapshots and readers keep it for longer.
pub(super) const AWAIT_ROOM_NS: u64 = 120_000_000_000;

/// Room that deletions should bring.
#[derive(Debug, Clone, Copy)]
pub(super) struct Awaited {
    /// Bytes free before.
    before: u64,
    /// Bytes deleted.
    deleted: u64,
    /// Until when the keeper waits for it, in monotonic nanoseconds.
    until_ns: u64,
}

/// Where segments end up: the room there is one for all streams on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Device(u64),
    /// Of an unknown device.
    Dir(PathBuf),
}

/// Bytes free in each place.
type Free = BTreeMap<Place, u64>;

/// A stream with `min_free`, while room is made.
struct Candidate<'a> {
    stream: &'a KeptStream,
    staying: Staying,
    place: Place,
}

impl Keeper {
    /// Looks at free space if it is time to.
    pub(super) fn make_room_if_due(&mut self, streams: &[KeptStream]) {
        if self.clock.mono_ns() >= self.look_at && streams.iter().any(|s| s.limits.min_free.is_some()) {
            self.make_room(streams);
            self.look_at = self.clock.mono_ns().saturating_add(LOOK_NS);
        }
    }

    /// Bytes free in each place, with what deletions have promised.
    fn free(&mut self, candidates: &[Candidate]) -> Free {
        let now = self.clock.mono_ns();
        // Asked once: what is deleted does not show everywhere at once, and must not be deleted for twice.
        let mut free: Free = BTreeMap::new();
        for one in candidates {
            let Ok(bytes) = self.disk.free_bytes(dir(one.stream)) else { continue };
            let shown = |a: &Awaited| bytes >= a.before.saturating_add(a.deleted / 2) || now >= a.until_ns;
            let promised = match self.awaited.get(&one.place) {
                Some(awaited) if !shown(awaited) => awaited.before.saturating_add(awaited.deleted),
                _ => {
                    self.awaited.remove(&one.place);
                    0
                }
            };
            free.insert(one.place.clone(), bytes.max(promised));
        }
        free
    }

    /// The oldest segment of a stream, if it must go for room.
    fn must_go(&self, one: &Candidate, free: &Free) -> Option<Finished> {
        let free = free.get(&one.place).copied()?;
        let least = one.stream.limits.min_free?;
        (free < least).then(|| self.known.get(&one.stream.name)?.catalogue.oldest(&one.staying))?
    }

    fn make_room(&mut self, streams: &[KeptStream]) {
        let mut candidates = Vec::new();
        for stream in streams.iter().filter(|s| s.limits.min_free.is_some()) {
            // The note of what a crash has left half deleted first: the next one replaces it.
            let surveyed = self.survey(stream).and_then(|staying| self.finish(stream).map(|()| staying));
            if let Ok(staying) = surveyed {
                let place =
                    self.disk.device(dir(stream)).map_or_else(|| Place::Dir(dir(stream).clone()), Place::Device);
                candidates.push(Candidate { stream, staying, place });
            }
        }
        let mut free = self.free(&candidates);
        let mut touched: BTreeMap<usize, BTreeSet<u16>> = BTreeMap::new();
        let (mut says_held, mut is_over) = (false, false);
        while !is_over && !self.control.draining() {
            let batches = self.choose(&candidates, &mut free);
            if batches.is_empty() {
                break;
            }
            for (at, batch) in batches {
                let stream = candidates[at].stream;
                touched.entry(at).or_default().extend(batch.iter().map(|(one, _)| one.id.shard));
                if !says_held && self.is_any_held(stream, &batch) {
                    says_held = true;
                    tracing::warn!(
                        stream = stream.name,
                        "too little is free: what a reader or a target holds is deleted too"
                    );
                }
                let retired = self.retire(stream, &batch);
                if let Some(free) = free.get_mut(&candidates[at].place) {
                    *free = free.saturating_sub(retired.kept_bytes);
                }
                if let Some(awaited) = self.awaited.get_mut(&candidates[at].place) {
                    awaited.deleted = awaited.deleted.saturating_sub(retired.kept_bytes);
                }
                if let Some(error) = retired.failed {
                    self.count(&stream.name, |kept| kept.failures += 1);
                    tracing::warn!(stream = stream.name, %error, "segments cannot be deleted; trying again");
                    is_over = true; // behind what was chosen of the other streams
                }
            }
        }
        for (at, shards) in touched {
            let stream = candidates[at].stream;
            if let Err(error) = self.note_done(stream, &shards) {
                self.is_unfinished(stream);
                tracing::debug!(stream = stream.name, %error, "the note of a deletion cannot be cleared yet");
            }
        }
    }

    /// Takes the oldest segments out of the catalogues, until enough will be free or the batch is full. By stream, so that those of each
    /// go at once.
    fn choose(&mut self, candidates: &[Candidate], free: &mut Free) -> BTreeMap<usize, Vec<(Finished, &'static str)>> {
        let key = |at: usize, oldest: &Finished| (oldest.closed_ns.unwrap_or(u64::MAX), oldest.id, at);
        // The oldest of each stream, by age. Room only grows here: a stream of which nothing must go is done with.
        let mut by_age = BTreeSet::new();
        for (at, one) in candidates.iter().enumerate() {
            by_age.extend(self.must_go(one, free).map(|oldest| key(at, &oldest)));
        }
        let mut batches: BTreeMap<usize, Vec<(Finished, &'static str)>> = BTreeMap::new();
        let mut chosen = 0;
        while chosen < BATCH
            && let Some((.., at)) = by_age.pop_first()
        {
            let Some(oldest) = self.must_go(&candidates[at], free) else { continue };
            let stream = candidates[at].stream;
            self.take(stream, oldest.id);
            self.promise(&candidates[at].place, oldest.bytes, free);
            batches.entry(at).or_default().push((oldest, "min_free"));
            chosen += 1;
            by_age.extend(self.must_go(&candidates[at], free).map(|oldest| key(at, &oldest)));
        }
        batches
    }

    /// So many bytes will be free in a place.
    fn promise(&mut self, place: &Place, bytes: u64, free: &mut Free) {
        let before = free.get(place).copied().unwrap_or(0);
        free.insert(place.clone(), before.saturating_add(bytes));
        let until_ns = self.clock.mono_ns().saturating_add(AWAIT_ROOM_NS);
        let awaited = self.awaited.entry(place.clone()).or_insert(Awaited { before, deleted: 0, until_ns });
        (awaited.deleted, awaited.until_ns) = (awaited.deleted.saturating_add(bytes), until_ns);
    }

    fn is_any_held(&self, stream: &KeptStream, batch: &[(Finished, &'static str)]) -> bool {
        let mut held = Staying::new();
        self.spare_held(stream, &mut held);
        batch.iter().any(|(one, _)| held.get(&one.id.shard).is_some_and(|from| one.id.sequence >= *from))
    }
}

/// The directory in which the sealed segments of a stream end up.
fn dir(stream: &KeptStream) -> &PathBuf {
    stream.shelf.home.as_ref().unwrap_or(&stream.shelf.dir)
}
