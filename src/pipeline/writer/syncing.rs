//! Syncs on the thread of the writer what clients wait for, and nothing else: who waits for a quiet stream does not pay for busy ones.

use super::syncers::{Synced, Wanted};
use super::{FULL_AGAIN_NS, Held, Writer};
use crate::host::mutants::mutant;
use crate::log::LogError;
use crate::log::segment::Stamp;
use crate::metrics::accounting::Term;
use std::sync::atomic::Ordering;

impl Writer {
    /// Syncs at once the streams that clients wait for, and acknowledges.
    pub(super) fn sync_for_waiters(&mut self) {
        if self.sync_again_at.is_some_and(|at| at > self.clock.mono_ns()) {
            return;
        }
        self.sync_again_at = None;
        let awaited = self.held.iter().filter(|held| held.chunk.is_awaited());
        let mut which: Vec<usize> = awaited.flat_map(|held| held.streams.iter().map(|s| usize::from(*s))).collect();
        which.sort_unstable();
        which.dedup();
        self.sync_streams(&which);
        self.release_held();
    }

    /// Syncs the active segment of one stream. Returns false if that failed, or if its trail waits for room.
    pub(super) fn sync_stream(&mut self, index: usize) -> bool {
        self.sync_streams(&[index])
    }

    /// Syncs the active segments of these streams together, where there is something new. Returns false if one failed (the failure was
    /// handled), or if a trail waits for room.
    fn sync_streams(&mut self, which: &[usize]) -> bool {
        for index in which {
            while self.streams[*index].syncing.is_some() {
                if !self.wait_for_steward() {
                    return false;
                }
            }
        }
        let stamp = self.stamp();
        let (mut indices, mut wanted, mut failed, mut all_good) = (Vec::new(), Vec::new(), Vec::new(), true);
        for index in which.iter().copied() {
            let stream = &mut self.streams[index];
            let Some(active) = stream.active.as_mut() else {
                all_good = false;
                continue;
            };
            if stream.fresh.is_none() {
                continue;
            }
            if active.sync_failed.load(Ordering::SeqCst) {
                all_good = false; // it is about to be dealt with, further up
                continue;
            }
            if mutant!("mark_before_sync") {
                active.note_synced(active.len(), stamp);
                let _ = active.trail().sync();
            }
            match Wanted::of(active) {
                Ok(file) => {
                    indices.push(index);
                    wanted.push(file);
                }
                Err(error) if error.is_full() => {
                    stream.sync_not_before = stamp.mono_ns + FULL_AGAIN_NS;
                    self.sync_again_at = Some(stamp.mono_ns + FULL_AGAIN_NS);
                    all_good = false;
                }
                Err(error) => failed.push((index, error)),
            }
        }
        let asked = indices.len();
        for (index, Synced { took_ns, result }) in indices.into_iter().zip(self.syncers.sync(wanted)) {
            self.shard.writer_stats.sync_latency.record(took_ns);
            match result {
                Err(error) if !mutant!("sync_error_ignored") => {
                    // Whatever happens until it is dealt with, it is not synced again.
                    self.streams[index].active.iter().for_each(|a| a.sync_failed.store(true, Ordering::SeqCst));
                    failed.push((index, error));
                }
                _ => match self.note_synced(index, stamp) {
                    Ok(is_noted) => all_good &= is_noted,
                    Err(error) => failed.push((index, error)),
                },
            }
        }
        if mutant!("another_streams_sync_releases_what_failed") && !failed.is_empty() && failed.len() < asked {
            self.held.drain(..).for_each(|held| self.shard.give_back(held.chunk));
            (self.held_bytes, self.held_awaited) = (0, 0);
        }
        // Those last: what comes of them may be that nothing is taken in any more.
        for (index, error) in failed {
            all_good = false;
            self.count_failed_sync(&error);
            match self.control.intake_stopped() {
                true => self.give_up_too(index, stamp),
                false => self.fail_active(index, &error),
            }
        }
        all_good
    }

    /// Handles a sync that failed together with the one that stopped intake. Nothing is written again any more.
    fn give_up_too(&mut self, index: usize, stamp: Stamp) {
        let stream = &mut self.streams[index];
        let mut lost = stream.fresh.take();
        if let Some((syncing, _)) = stream.syncing.take() {
            lost.put_back(syncing);
        }
        self.any_at_risk |= lost.tally.total().lines > 0;
        lost.tally.book(&self.ledger, &[Term::AtRisk], &[Term::Written]);
        stream.give_up_active(stamp, &mut *self.steward);
    }

    /// Notes that the active segment of a stream was synced. Returns false if clients must still wait, because its trail waits for room.
    fn note_synced(&mut self, index: usize, stamp: Stamp) -> Result<bool, LogError> {
        let stream = &mut self.streams[index];
        let Some(active) = stream.active.as_mut() else { return Ok(false) };
        match active.secure_trail(true) {
            Err(error) if crate::log::is_full(&error) => {
                self.sync_again_at = Some(stamp.mono_ns + FULL_AGAIN_NS);
                return Ok(false);
            }
            Err(error) => return Err(LogError::Io { what: "sync trail of", path: active.path.clone(), error }),
            Ok(()) => {}
        }
        self.shard.writer_stats.syncs.add(1);
        self.foreign_in_a_row = 0;
        active.note_synced(active.len(), stamp);
        stream.fresh.take().tally.book(&self.ledger, &[Term::Durable], &[Term::Written]);
        Ok(true)
    }

    /// Sends back the chunks of which every byte is synced, in whatever order: each frame of a client counts its own records.
    pub(super) fn release_held(&mut self) {
        if self.control.intake_stopped() {
            return; // here or in another shard: what was held for a segment that failed may be in no other
        }
        let streams = &self.streams;
        let is_synced = |held: &Held| {
            let first = |stream: &u16| streams[usize::from(*stream)].first_unsynced_write();
            let mut synced = held.streams.iter().map(|stream| first(stream).is_none_or(|write| write > held.write));
            if mutant!("released_with_its_first_stream") { synced.any(|is| is) } else { synced.all(|is| is) }
        };
        for held in std::mem::take(&mut self.held) {
            if !is_synced(&held) {
                self.held.push_back(held);
                continue;
            }
            self.held_bytes -= held.chunk.len() as u64;
            self.held_awaited -= usize::from(held.chunk.is_awaited());
            self.shard.give_back(held.chunk);
        }
    }
}
