//! What targets of shipping still need: retention leaves it alone, up to a limit for each target, except for `min_free`.

use super::{Keeper, KeptStream};
use crate::log::LogError;
use crate::log::catalogue::Staying;
use crate::log::ship::note;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

/// A target, and how it holds what it has not got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetHold {
    /// Its name.
    pub name: String,
    /// What it has not got stays.
    pub holds: bool,
    /// A target that has nothing yet begins behind what there is: until its shipper has run for the first time it needs nothing.
    pub begins_now: bool,
    /// It holds no more bytes than this, in all streams together.
    pub at_most: Option<u64>,
}

impl Keeper {
    /// What the targets of a stream need of it. Of a target whose shipper never ran that is everything.
    pub(super) fn needed_by_targets(&self, stream: &KeptStream) -> Staying {
        let mut staying = Staying::new();
        for target in stream.targets.iter().filter(|target| target.holds) {
            for (shard, from) in self.needed_by(target, stream) {
                let first = staying.entry(shard).or_insert(from);
                *first = from.min(*first);
            }
        }
        staying
    }

    /// What one target needs, and may hold.
    pub(super) fn needed_by(&self, target: &TargetHold, stream: &KeptStream) -> Staying {
        match target.at_most {
            None => self.needed(target, stream),
            Some(most) => self.needed_within(target, stream, most),
        }
    }

    fn needed(&self, target: &TargetHold, stream: &KeptStream) -> Staying {
        let Some(known) = self.known.get(&stream.name) else { return Staying::new() };
        let shards: BTreeSet<u16> = known.catalogue.last_of_shards().into_iter().map(|id| id.shard).collect();
        let positions = match note::read(&*self.disk, &self.data_dir, &target.name) {
            Ok(None) if target.begins_now => return Staying::new(),
            Ok(noted) => noted.unwrap_or_default(),
            // Nobody knows what it has.
            Err(error) => {
                complain(&error);
                BTreeMap::new()
            }
        };
        let from = |shard: u16| positions.get(&(stream.name.clone(), shard)).map_or(0, |at| at.sequence);
        shards.into_iter().map(|shard| (shard, from(shard))).collect()
    }

    /// The same with what is oldest in all streams of the target let go, so that it holds so many bytes at most.
    fn needed_within(&self, target: &TargetHold, stream: &KeptStream, most: u64) -> Staying {
        let streams = self.streams.read().unwrap_or_else(PoisonError::into_inner).clone();
        let (mut held, mut own, mut bytes) = (Vec::new(), Staying::new(), 0_u64);
        for one in streams.iter().filter(|one| one.targets.iter().any(|t| t.name == target.name)) {
            let needed = self.needed(target, one);
            let Some(known) = self.known.get(&one.name) else { continue };
            for (shard, from) in &needed {
                for finished in known.catalogue.from(*shard, *from) {
                    bytes = bytes.saturating_add(finished.bytes);
                    let key = (finished.closed_ns.unwrap_or(u64::MAX), finished.id);
                    held.push((key, finished.bytes, one.name == stream.name));
                }
            }
            if one.name == stream.name {
                own = needed;
            }
        }
        held.sort_unstable();
        for ((_, id), size, is_own) in held {
            if bytes <= most {
                break;
            }
            bytes = bytes.saturating_sub(size);
            if is_own {
                let first = own.entry(id.shard).or_default();
                *first = id.sequence.saturating_add(1).max(*first);
            }
        }
        own
    }
}

fn complain(error: &LogError) {
    tracing::warn!(%error, "how far a target is cannot be read: everything is kept for it");
}
