//! What the writer does when the disk fails.
//!
//! A failed sync is never tried again on the same file: the kernel has marked the pages clean, and a second call would report
//! success although the data is gone. The segment stays suspect. What is still held goes to a new segment and is synced there.
//! A second failure stops intake.

use super::batch::{Share, share_of, slices_of};
use super::unsynced::{PerListener, Unsynced};
use super::{Rotation, Step, Turn, Writer};
use crate::host::mutants::mutant;
use crate::log::LogError;
use crate::log::foreign::Foreign;
use crate::log::segment::AppendError;
use crate::metrics::accounting::{Reason, Tally, Term};
use crate::pipeline::chunk::Level;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// After this many changes by others in a row, without a good sync in between, the writer treats them as a failure of the disk.
const FOREIGN_MOST: u32 = 8;

impl Writer {
    /// The active segment of a stream has failed, by an append or a sync.
    pub(super) fn fail_active(&mut self, index: usize, error: &LogError) {
        self.count_failure(error);
        let stamp = self.stamp();
        let stream = &mut self.streams[index];
        let mut lost = stream.fresh.take();
        if let Some((syncing, _)) = stream.syncing.take() {
            lost.put_back(syncing);
        }
        let written_to = stream.active.as_ref().map_or(0, |a| a.len());
        let synced_to = written_to - lost.bytes;
        let held = self.held_lines_of(index, &lost);
        let rewrite = held.counted.clone();
        let again = self.batch_lines_again(index, &lost);
        let mut at_risk = lost.tally.clone();
        at_risk.sub_all(&rewrite);
        at_risk.sub_all(&again);
        self.any_at_risk |= at_risk.total().lines > 0;
        let counted: &[Term] = if mutant!("at_risk_not_counted") { &[] } else { &[Term::AtRisk] };
        at_risk.book(&self.ledger, counted, &[Term::Written]);
        rewrite.book(&self.ledger, &[], &[Term::Written, Term::Left]);
        again.book(&self.ledger, &[], &[Term::Written, Term::Left]);
        tracing::error!(
            stream = self.streams[index].options.name,
            %error,
            from = synced_to,
            to = written_to,
            lines_at_risk = at_risk.total().lines,
            lines_written_again = held.all.lines,
            "segment failed: its unsynced bytes may be lost; going on in a new segment"
        );
        self.streams[index].give_up_active(stamp, &mut *self.steward);
        if self.failures >= 2 {
            self.stop_intake(&error.to_string(), &rewrite);
        } else if held.all.lines > 0 && !mutant!("held_lines_forgotten_by_a_failure") {
            // Until that is done no client that waits for these lines is answered, whatever else is synced meanwhile.
            if !mutant!("another_streams_sync_releases_what_failed") {
                self.streams[index].lost_from = Some(lost.first_write);
            }
            self.write_again(index, &lost, held);
        }
    }

    /// A segment failed while it was being sealed. Nobody waited for it and nothing of it is held.
    pub(super) fn fail_sealed(&mut self, index: usize, lost: &Unsynced, error: &LogError) {
        self.count_failure(error);
        lost.tally.book(&self.ledger, &[Term::AtRisk], &[Term::Written]);
        self.any_at_risk |= lost.tally.total().lines > 0;
        tracing::error!(
            stream = self.streams[index].options.name,
            %error,
            bytes = lost.bytes,
            lines_at_risk = lost.tally.total().lines,
            "the last sync of a finished segment failed: its unsynced end may be lost"
        );
        if self.failures >= 2 {
            self.stop_intake(&error.to_string(), &PerListener::default());
        }
    }

    /// Counts a failure. The second failure of the disk stops intake. Changes by others do not count, unless there are too many in a
    /// row.
    fn count_failure(&mut self, error: &LogError) {
        // Lines that were durable before are gone with what was cut; what was moved or deleted was moved or deleted on purpose.
        let is_cut = |what: Foreign| matches!(what, Foreign::Shorter { .. } | Foreign::Overwritten);
        self.any_at_risk |= matches!(error, LogError::Foreign { what, .. } if is_cut(*what));
        if error.is_foreign() {
            self.foreign_in_a_row += 1;
        }
        if !error.is_foreign() || self.foreign_in_a_row >= FOREIGN_MOST {
            self.failures += 1;
        }
    }

    pub(super) fn count_failed_sync(&self, error: &LogError) {
        let stats = &self.shard.writer_stats;
        stats.sync_failures.add(1);
        stats.foreign_changes.add(u64::from(error.is_foreign()));
    }

    /// Somebody else has changed the active segment. Nothing more is written to it. Where all our lines are in it, it is sealed as it
    /// is; else it has failed.
    pub(super) fn leave_to_others(&mut self, index: usize, what: Foreign, path: PathBuf, now: u64) -> Step {
        if !what.left_ours_alone() {
            self.shard.writer_stats.foreign_changes.add(1);
            self.fail_active(index, &LogError::Foreign { path, what });
            return if self.control.intake_stopped() { Step::Done } else { Step::Blocked(0) };
        }
        let before = self.streams[index].active.as_ref().map(|a| a.id);
        match self.streams[index].rotation() {
            Rotation::Ready => self.rotate(index),
            Rotation::Soon => return Step::Blocked(u64::MAX),
            Rotation::Impossible => {}
        }
        let is_another = self.streams[index].active.as_ref().map(|a| a.id) != before;
        if is_another { Step::Done } else { Step::Blocked(now + super::FULL_AGAIN_NS) }
    }

    /// The disk has room again.
    pub(super) fn disk_has_room(&self) {
        let stats = &self.shard.writer_stats;
        if stats.full.get() == 1 {
            stats.full.set(0);
            self.control.disk_full(false);
            tracing::info!("there is room again: taking lines");
        }
    }

    /// The disk is full: logs it once, and makes the server not ready.
    pub(super) fn disk_is_full(&self, file: &Path, error: &io::Error) {
        let stats = &self.shard.writer_stats;
        if stats.full.get() == 0 {
            stats.full.set(1);
            stats.full_events.add(1);
            self.control.disk_full(true);
            let file = file.display();
            tracing::error!(%file, %error, "disk full: lines wait or are dropped as when_full says, until there is room");
        }
    }

    /// The lines of the lost writes of a stream that are still held.
    fn held_lines_of(&self, index: usize, lost: &Unsynced) -> Share {
        if lost.is_none() {
            return Share::default();
        }
        let held = self.held.iter().filter(|h| h.write >= lost.first_write).map(|h| &*h.chunk);
        share_of(held, index)
    }

    /// The lines of the lost writes that belong to the present batch, which must then be appended again.
    fn batch_lines_again(&mut self, index: usize, lost: &Unsynced) -> PerListener {
        if let Some(batch) = &mut self.batch
            && !lost.is_none()
            && batch.undo(index, lost.first_write)
        {
            return batch.share(index).counted;
        }
        PerListener::default()
    }

    /// Appends the held lines of the failed segment to the new one and syncs them there.
    fn write_again(&mut self, index: usize, lost: &Unsynced, share: Share) {
        let lines = share.counted.clone();
        while self.streams[index].active.is_none() {
            let waited = self.wait_for_steward();
            if self.control.intake_stopped() {
                // Another stream has failed too, or another shard's. What is held is told so in the next turn.
                return lines.book(&self.ledger, &[Term::AtRisk, Term::Left], &[]);
            }
            let now = self.clock.mono_ns();
            let stream = &mut self.streams[index];
            stream.prepare_if_due(now, &mut *self.steward);
            let hopeless = stream.rotation() == super::Rotation::Impossible && !stream.failure_passes;
            if !waited || (stream.active.is_none() && hopeless) {
                self.failures += 1;
                return self.stop_intake("no new segment can be made after a failed one", &lines);
            }
        }
        self.writes += 1;
        let stamp = self.stamp();
        let total = share.all;
        let result = loop {
            let stream = &mut self.streams[index];
            let held = self.held.iter().filter(|h| h.write >= lost.first_write).map(|h| &*h.chunk);
            let slices = slices_of(held, index);
            let Some(active) = stream.active.as_mut() else { return };
            let dir = &stream.dir;
            match active.append(&slices, total.lines, stream.options.append, stamp, &share.named, || dir.free_bytes()) {
                Err(AppendError::Full(error)) if !self.control.writers_abandoned() => {
                    let path = active.path.clone();
                    self.disk_is_full(&path, &error);
                    // Waiting for room is no hanging.
                    self.shard.writer_answered.set(self.control.pings());
                    self.steward.pause(&*self.sleeper, Duration::from_nanos(super::FULL_AGAIN_NS));
                }
                other => break other,
            }
        };
        if let Err(AppendError::Foreign(what)) = &result
            && self.foreign_in_a_row < FOREIGN_MOST
        {
            let path = self.streams[index].active.as_ref().map(|a| a.path.clone()).unwrap_or_default();
            let error = LogError::Foreign { path, what: *what };
            tracing::error!(%error, "writing the same lines to another segment");
            self.count_failed_sync(&error);
            self.count_failure(&error);
            self.streams[index].give_up_active(stamp, &mut *self.steward);
            return self.write_again(index, lost, share);
        }
        if let Err(error) = result {
            self.failures += 1;
            return self.stop_intake(&format!("writing again after a failed sync: {error}"), &lines);
        }
        self.disk_has_room();
        let stream = &mut self.streams[index];
        stream.first_line_ns = stamp.mono_ns;
        stream.fresh.add(self.writes, stamp.mono_ns, total.bytes, &lines);
        stream.lost_from = None;
        lines.book(&self.ledger, &[Term::Left, Term::Written], &[]);
        // The new write holds the last of all of them now.
        let writes = self.writes;
        self.held.iter_mut().filter(|h| h.write >= lost.first_write).for_each(|h| h.write = writes);
        self.writes += 1; // what a batch in hand appends behind it is another write
        if self.sync_stream(index) {
            self.release_held();
        }
    }

    /// Stops intake for good. `unwritten` are the held lines that are in no file that can be trusted.
    fn stop_intake(&mut self, because: &str, unwritten: &PerListener) {
        unwritten.book(&self.ledger, &[Term::AtRisk, Term::Left], &[]);
        tracing::error!(because, "the disk failed again: refusing lines until logweir is restarted");
        self.control.stop_intake(because);
        self.drop_everything(Reason::DiskFailed);
        self.shard.reactors.iter().for_each(crate::pipeline::shard::ReactorPort::wake);
    }

    /// A turn after intake has stopped: whatever still arrives is dropped and counted.
    pub(super) fn turn_without_disk(&mut self) -> Turn {
        self.take_changes(self.clock.mono_ns());
        self.answer_ping();
        self.drop_everything(Reason::DiskFailed);
        if self.control.finishing() && self.rings_are_empty() {
            return Turn::Ended(false);
        }
        Turn::Sleep(None)
    }

    /// Counts what is in the batch and the rings as dropped, and tells those who wait that it failed.
    pub(super) fn drop_everything(&mut self, reason: Reason) {
        for held in std::mem::take(&mut self.held) {
            let mut chunk = held.chunk; // counted as written or at risk already
            chunk.failed = true;
            self.shard.give_back(chunk);
        }
        (self.held_bytes, self.held_awaited) = (0, 0);
        loop {
            let Some(batch) = self.batch.take().or_else(|| super::Batch::gather(&self.shard, &mut self.gatherer))
            else {
                return;
            };
            let mut entry = self.ledger.entry();
            for (class, mut chunk) in batch.chunks {
                for run in chunk.unlogged_runs().iter().filter(|r| batch.pending.contains(&usize::from(r.stream))) {
                    let tally = Tally { lines: u64::from(run.lines), bytes: u64::from(run.len) };
                    entry.add(run.listener, Term::Left, tally);
                    entry.add(run.listener, Term::Dropped(reason), tally);
                }
                if chunk.level == Level::None {
                    self.shard.release(class, chunk);
                } else {
                    chunk.failed = true;
                    self.shard.give_back(chunk);
                }
            }
        }
    }
}
