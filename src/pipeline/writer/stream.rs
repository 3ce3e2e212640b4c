//! One stream of one shard as its writer sees it: the active segment, the segment that is being sealed, and the spare one.

use super::steward::{Job, Steward};
use super::unsynced::{SyncPolicy, Unsynced};
use crate::log::LogError;
use crate::log::names::SegmentId;
use crate::log::segment::{AppendOptions, SealedParts, Segment, Stamp};
use crate::log::stream_dir::StreamDir;
use std::sync::Arc;

/// How a stream is stored; checked.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Its name.
    pub name: String,
    /// How appends behave.
    pub append: AppendOptions,
    /// A segment is not made larger than this (unless one batch alone is).
    pub segment_bytes: u64,
    /// A segment is not written to for longer than this after its first line.
    pub segment_age_ns: u64,
    /// When to sync in the background.
    pub sync: SyncPolicy,
}

/// Bytes of a segment's trail at which the segment is finished: trails must not outgrow the log. One record of joined writes takes 48
/// bytes, ten a second at most unless lines are large; this is for streams of tiny lines over a long time, and for small segments.
#[must_use]
pub fn trail_most(segment_bytes: u64) -> u64 {
    (segment_bytes / 8).max(8 << 10)
}

/// Time between tries to prepare a segment after a failure.
const PREPARE_AGAIN_NS: u64 = 500_000_000;

/// See the module documentation.
pub struct StreamWriter {
    pub(super) index: usize,
    pub(super) dir: Arc<StreamDir>,
    pub(super) options: StreamOptions,
    /// `None` only between the failure of one segment and the arrival of the next.
    pub(super) active: Option<Segment>,
    /// When the first line went into the active segment.
    pub(super) first_line_ns: u64,
    /// Written since the last sync began.
    pub(super) fresh: Unsynced,
    /// Writes from this number on were in a segment that has failed, and what of them is held is not written again yet.
    pub(super) lost_from: Option<u64>,
    /// The steward is not asked for a sync before this time: the trail had no room.
    pub(super) sync_not_before: u64,
    /// Being synced by the steward, and the length it covers.
    pub(super) syncing: Option<(Unsynced, u64)>,
    /// In the segment being sealed, not synced yet. Never awaited: a rotation syncs first what somebody waits for.
    pub(super) sealing: Option<Unsynced>,
    /// Seal jobs under way.
    pub(super) seals_running: u32,
    spare: Option<Box<Segment>>,
    preparing: bool,
    prepare_again_at: Option<u64>,
    /// The last preparation failed in a way that passes: no room, or a directory deleted while it was at work.
    pub(super) failure_passes: bool,
    pub(super) rotate_asked: bool,
}

/// True if somebody else has moved, deleted or written to a segment that was not used yet.
fn is_taken(segment: &Segment) -> bool {
    let is_gone = segment.file.is_at(&segment.path).is_ok_and(|is_there| !is_there);
    is_gone || segment.touched().is_ok_and(|foreign| foreign.is_some())
}

/// Whether the active segment can be exchanged now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// Yes.
    Ready,
    /// When the steward is done with what it has.
    Soon,
    /// No segment can be made at the moment; going on with the present one is better than stopping.
    Impossible,
}

impl StreamWriter {
    /// With a first segment that has been begun ([`StreamDir::begin_first`]).
    pub fn begun(
        index: usize,
        dir: Arc<StreamDir>,
        options: StreamOptions,
        active: Segment,
        steward: &mut dyn Steward,
    ) -> Self {
        let mut stream = StreamWriter {
            index,
            dir,
            options,
            active: Some(active),
            first_line_ns: 0,
            fresh: Unsynced::default(),
            lost_from: None,
            sync_not_before: 0,
            syncing: None,
            sealing: None,
            seals_running: 0,
            spare: None,
            preparing: false,
            prepare_again_at: None,
            failure_passes: false,
            rotate_asked: false,
        };
        stream.prepare_next(steward);
        stream
    }

    /// Its name, and the segment that it writes to.
    #[must_use]
    pub fn first_segment(&self) -> Option<(String, SegmentId)> {
        Some((self.options.name.clone(), self.active.as_ref()?.id))
    }

    fn prepare_next(&mut self, steward: &mut dyn Steward) {
        if self.spare.is_none() && !self.preparing {
            self.preparing = true;
            self.prepare_again_at = None;
            steward.submit(Job::Prepare { stream: self.index, dir: Arc::clone(&self.dir) });
        }
    }

    /// Takes the steward's answer to a prepare job.
    pub fn prepared(&mut self, result: Result<Box<Segment>, LogError>, now: u64, steward: &mut dyn Steward) {
        self.preparing = false;
        self.failure_passes = result.as_ref().is_err_and(|e| e.is_full() || e.is_not_found());
        match result {
            Ok(segment) if is_taken(&segment) => self.prepare_next(steward),
            Ok(segment) => {
                self.spare = Some(segment);
                self.prepare_again_at = None;
            }
            Err(error) => {
                tracing::warn!(stream = self.options.name, %error, "the next segment cannot be made; trying again");
                self.prepare_again_at = Some(now + PREPARE_AGAIN_NS);
            }
        }
        if self.active.is_none() && self.spare.is_some() {
            self.use_spare();
            self.prepare_next(steward);
            if let Some(active) = &self.active
                && let Err(error) = self.dir.point_current(active.id)
            {
                tracing::warn!(stream = self.options.name, %error, "`current` still names the previous segment");
            }
        }
    }

    /// Tries again to prepare a segment when it is time.
    pub fn prepare_if_due(&mut self, now: u64, steward: &mut dyn Steward) {
        if self.prepare_again_at.is_some_and(|at| at <= now) {
            self.prepare_next(steward);
        }
    }

    /// When something is to be done without any line arriving.
    pub fn next_deadline(&self) -> Option<u64> {
        let sync = (!self.fresh.is_none() && self.syncing.is_none()).then(|| self.options.sync.due_at(&self.fresh));
        let sync = sync.map(|at| at.max(self.sync_not_before));
        let age = self.has_lines().then(|| self.first_line_ns.saturating_add(self.options.segment_age_ns));
        let age = age.filter(|_| self.rotation() == Rotation::Ready).map(|at| at.max(self.sync_not_before));
        let marks = self.active.as_ref().and_then(Segment::flush_at);
        [sync, age, marks, self.prepare_again_at].into_iter().flatten().min()
    }

    /// True if the active segment holds lines.
    pub fn has_lines(&self) -> bool {
        self.active.as_ref().is_some_and(|a| !a.is_empty())
    }

    /// True if the active segment must be exchanged before `more` bytes go in, or in any case.
    pub fn rotation_due(&self, more: u64, now: u64) -> bool {
        let Some(active) = self.active.as_ref().filter(|a| !a.is_empty()) else { return false };
        self.rotate_asked
            || active.len() >= self.options.segment_bytes
            || active.len().saturating_add(more) > self.options.segment_bytes
            || active.trail_len() >= trail_most(self.options.segment_bytes)
            || now >= self.first_line_ns.saturating_add(self.options.segment_age_ns)
    }

    /// Whether it can be exchanged now.
    pub fn rotation(&self) -> Rotation {
        if self.spare.is_none() && !self.preparing {
            Rotation::Impossible
        } else if self.spare.is_none() || self.seals_running > 0 {
            Rotation::Soon
        } else {
            Rotation::Ready
        }
    }

    /// Bytes not synced yet, wherever they are.
    pub fn unsynced_bytes(&self) -> u64 {
        let syncing = self.syncing.as_ref().map_or(0, |(u, _)| u.bytes);
        let sealing = self.sealing.as_ref().map_or(0, |u| u.bytes);
        self.fresh.bytes + syncing + sealing
    }

    /// Number of the first write that is not synced, in the active segment or in one that has failed.
    pub fn first_unsynced_write(&self) -> Option<u64> {
        let syncing = self.syncing.as_ref().map(|(syncing, _)| syncing.first_write);
        let fresh = (!self.fresh.is_none()).then_some(self.fresh.first_write);
        [self.lost_from, syncing, fresh].into_iter().flatten().min()
    }

    /// Exchanges the active segment for the spare one, and lets the steward seal the old one. No client may wait for lines in it.
    pub fn rotate(&mut self, steward: &mut dyn Steward) {
        let Some(segment) = self.active.take() else { return };
        self.rotate_asked = false;
        self.use_spare();
        self.prepare_next(steward); // before the seal job: the spare is wanted sooner
        self.sealing = Some(self.take_unsynced());
        self.seal(SealedParts { segment, suspect: false, foreign: None }, steward);
    }

    /// Everything of the active segment that is not synced. A sync under way does not count: sealing syncs again, behind it.
    fn take_unsynced(&mut self) -> Unsynced {
        if let Some((syncing, _)) = self.syncing.take() {
            self.fresh.put_back(syncing);
        }
        self.fresh.take()
    }

    /// Leaves a failed segment as it is, marked, for the next start's recovery, and asks for another.
    pub fn give_up_active(&mut self, stamp: Stamp, steward: &mut dyn Steward) {
        let Some(segment) = self.active.take() else { return };
        let mut parts = SealedParts { segment, suspect: true, foreign: None };
        parts.give_up(stamp);
        // Where somebody deleted the directory, the spare is gone as well.
        self.spare.take_if(|spare| is_taken(spare));
        self.use_spare();
        self.prepare_next(steward);
        self.seal(parts, steward);
    }

    /// For an orderly end: lets the steward seal the active segment, or removes it if it never held a line.
    pub fn close(&mut self, steward: &mut dyn Steward) {
        let empties = self.spare.take().map(|b| *b).into_iter();
        let active = self.active.take();
        let (full, empty) = match active {
            Some(segment) if !segment.is_empty() || is_taken(&segment) => (Some(segment), None),
            other => (None, other),
        };
        for segment in empties.chain(empty) {
            if let Err(error) = self.dir.discard(&segment) {
                tracing::warn!(stream = self.options.name, %error, "an unused segment could not be removed");
            }
        }
        self.dir.drop_current();
        if let Some(segment) = full {
            self.sealing = Some(self.take_unsynced());
            self.seal(SealedParts { segment, suspect: false, foreign: None }, steward);
        }
    }

    /// True while the steward works on something that an orderly end waits for.
    pub fn is_busy(&self) -> bool {
        self.seals_running > 0 || self.preparing || self.syncing.is_some()
    }

    fn seal(&mut self, parts: SealedParts, steward: &mut dyn Steward) {
        self.seals_running += 1;
        let next = self.active.as_ref().map(|a| a.id);
        let parts = Box::new(parts);
        steward.submit(Job::Seal { stream: self.index, dir: Arc::clone(&self.dir), parts, next });
    }

    fn use_spare(&mut self) {
        if let Some(mut segment) = self.spare.take() {
            self.dir.begin(&mut segment);
            self.active = Some(*segment);
        }
    }
}
