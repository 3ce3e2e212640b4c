//! Whether ages can be trusted. A wall clock that has just jumped, or that was not set yet at the start, deletes nothing.

use crate::host::clock::Clock;
use crate::log::retention::Limits;

/// The wall clock has jumped if it differs from the monotonic clock by more than this since the last look.
const JUMP_NS: u64 = 3_600_000_000_000;
/// For this long after a jump nothing is deleted for its age, because somebody may correct the clock.
pub(super) const DISTRUST_NS: u64 = 3_600_000_000_000;
/// The same after the start, because the clock may not be set yet.
const DISTRUST_AT_START_NS: u64 = 60_000_000_000;

/// See the module documentation.
pub struct Trust {
    /// Wall and monotonic time of the last look.
    last: (u64, u64),
    /// Since when ages are not trusted, and for how long, in monotonic nanoseconds.
    doubt: (u64, u64),
}

impl Trust {
    /// At the start.
    pub fn new(clock: &dyn Clock) -> Trust {
        let now = clock.mono_ns();
        Trust { last: (clock.wall_ns(), now), doubt: (now, DISTRUST_AT_START_NS) }
    }

    /// Looks at both clocks.
    pub fn look(&mut self, clock: &dyn Clock) {
        let (wall, mono) = (clock.wall_ns(), clock.mono_ns());
        let expected = self.last.0.saturating_add(mono.saturating_sub(self.last.1));
        if wall.abs_diff(expected) > JUMP_NS {
            self.doubt = (mono, DISTRUST_NS);
            tracing::warn!(
                seconds = wall.abs_diff(expected) / 1_000_000_000,
                "the wall clock has jumped; for an hour nothing is deleted for its age"
            );
        }
        self.last = (wall, mono);
    }

    /// Nothing is deleted for its age before this monotonic time. A short `max_age` waits no longer than itself.
    pub fn age_counts_from(&self, limits: &Limits) -> u64 {
        let (began, lasts) = self.doubt;
        began.saturating_add(lasts.min(limits.max_age_ns.unwrap_or(0)))
    }
}
