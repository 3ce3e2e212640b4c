//! Rotations that somebody has asked for (SIGUSR1). What was answered goes along: lines may be answered by a commit log while their chunk is
//! in the ring still, so a rotation comes behind what is in the rings when it is asked for.

use crate::pipeline::control::Control;
use crate::pipeline::shard::Shard;

/// See the module documentation.
pub struct Rotations {
    /// How many were asked for when this was looked at last.
    seen: u64,
    /// The next one comes behind so many chunks, at most; `None`: none was asked for.
    behind: Option<usize>,
}

impl Rotations {
    /// Those from now on.
    #[must_use]
    pub fn new(control: &Control) -> Rotations {
        Rotations { seen: control.rotations_asked(), behind: None }
    }

    /// Looks whether one was asked for.
    pub fn look(&mut self, control: &Control, shard: &Shard) {
        if self.seen != control.rotations_asked() {
            self.seen = control.rotations_asked();
            // Chunks are taken from the rings in turn, and one may be in hand already.
            let longest = shard.channels.iter().map(|channel| channel.ring.len()).max().unwrap_or(0);
            self.behind = Some(longest * shard.channels.len() + 1);
        }
    }

    /// So many chunks were written, and the rings are empty or not. True: now is the time.
    pub fn is_due(&mut self, written: usize, is_empty: bool) -> bool {
        let Some(behind) = &mut self.behind else { return false };
        *behind = behind.saturating_sub(written);
        let is_due = is_empty || *behind == 0;
        if is_due {
            self.behind = None;
        }
        is_due
    }
}
