//! Lets the steward sync what nobody waits for, and books what has come of it.

use super::steward::{Job, ToSync};
use super::syncers::Wanted;
use super::{FULL_AGAIN_NS, Writer};
use crate::log::LogError;
use crate::metrics::accounting::Term;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Writer {
    /// Lets the steward sync in the background what is due.
    pub(super) fn sync_in_background(&mut self, now: u64) {
        let (mut files, mut failed) = (Vec::new(), Vec::new());
        for stream in &mut self.streams {
            let Some(active) = &mut stream.active else { continue };
            let is_hurried = !stream.fresh.is_none() && stream.fresh.first_write <= self.hurry_to;
            let due = is_hurried || stream.options.sync.is_due(&stream.fresh, now);
            let has_failed = active.sync_failed.load(Ordering::SeqCst);
            if stream.syncing.is_some() || !due || has_failed || now < stream.sync_not_before {
                continue;
            }
            active.trail().cut();
            match Wanted::of(active) {
                Ok(wanted) => {
                    stream.syncing = Some((stream.fresh.take(), wanted.len));
                    let failed = Arc::clone(&active.sync_failed);
                    files.push(ToSync { stream: stream.index, id: active.id, failed, wanted });
                }
                Err(error) if error.is_full() => stream.sync_not_before = now + FULL_AGAIN_NS,
                Err(error) => failed.push((stream.index, error)),
            }
        }
        if !files.is_empty() {
            self.steward.submit(Job::Sync(files));
        }
        for (index, error) in failed {
            self.count_failed_sync(&error);
            self.fail_active(index, &error);
        }
    }

    /// The steward has synced the active segment of a stream.
    pub(super) fn background_sync_done(&mut self, index: usize) {
        let stamp = self.stamp();
        let stream = &mut self.streams[index];
        let (Some((synced, to)), Some(active)) = (stream.syncing.take(), stream.active.as_mut()) else { return };
        if let Err(error) = active.secure_trail(true) {
            let path = active.path.clone();
            if crate::log::is_full(&error) {
                stream.sync_not_before = stamp.mono_ns + FULL_AGAIN_NS;
                return stream.fresh.put_back(synced); // due again, when there may be room
            }
            stream.syncing = Some((synced, to));
            self.fail_active(index, &LogError::Io { what: "sync trail of", path, error });
            return;
        }
        self.shard.writer_stats.syncs.add(1);
        self.foreign_in_a_row = 0;
        active.note_synced(to, stamp);
        if let Err(error) = active.trail().flush() {
            tracing::debug!(file = %active.path.display(), %error, "the trail waits for room");
        }
        synced.tally.book(&self.ledger, &[Term::Durable], &[Term::Written]);
        self.release_held();
    }
}
