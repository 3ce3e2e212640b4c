//! What was written to a segment and not yet synced: how much, whose, and since when. It decides when a sync is due.

use crate::metrics::accounting::{Ledger, Tally, Term};

/// Lines per listener: of those that have any, by number. Commonly that is one, however many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PerListener(Vec<(u16, Tally)>);

impl PerListener {
    /// Of one listener, to be changed.
    fn of(&mut self, listener: u16) -> &mut Tally {
        let place = match self.0.binary_search_by_key(&listener, |(listener, _)| *listener) {
            Ok(place) => place,
            Err(place) => {
                self.0.insert(place, (listener, Tally::default()));
                place
            }
        };
        &mut self.0[place].1
    }

    /// Adds to one listener.
    pub fn add(&mut self, listener: u16, tally: Tally) {
        self.of(listener).add(tally);
    }

    /// Adds all of another.
    pub fn add_all(&mut self, other: &PerListener) {
        other.0.iter().for_each(|(listener, tally)| self.of(*listener).add(*tally));
    }

    /// Takes all of another away.
    pub fn sub_all(&mut self, other: &PerListener) {
        other.0.iter().for_each(|(listener, tally)| self.of(*listener).sub(*tally));
    }

    /// The sum over listeners.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut sum = Tally::default();
        self.0.iter().for_each(|(_, tally)| sum.add(*tally));
        sum
    }

    /// Books, in one entry, every listener's tally as additions to `add` and subtractions from `sub`.
    pub fn book(&self, ledger: &Ledger, add: &[Term], sub: &[Term]) {
        let mut entry = ledger.entry();
        for (listener, tally) in self.0.iter().filter(|(_, tally)| !tally.is_zero()) {
            add.iter().for_each(|term| entry.add(*listener, *term, *tally));
            sub.iter().for_each(|term| entry.sub(*listener, *term, *tally));
        }
    }
}

/// What was written and is not synced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unsynced {
    /// Number of the first write among it.
    pub first_write: u64,
    /// Monotonic nanoseconds of that write.
    pub since_ns: u64,
    /// Bytes.
    pub bytes: u64,
    /// The lines, by listener.
    pub tally: PerListener,
}

impl Unsynced {
    /// True where there is nothing.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.bytes == 0
    }

    /// Adds a write.
    pub fn add(&mut self, write: u64, now_ns: u64, bytes: u64, tally: &PerListener) {
        if self.is_none() {
            (self.first_write, self.since_ns) = (write, now_ns);
        }
        self.bytes += bytes;
        self.tally.add_all(tally);
    }

    /// Takes everything out.
    #[must_use]
    pub fn take(&mut self) -> Unsynced {
        std::mem::take(self)
    }

    /// Puts back in front what was taken out for a sync that failed.
    pub fn put_back(&mut self, earlier: Unsynced) {
        let later = std::mem::replace(self, earlier);
        if self.is_none() {
            *self = later;
        } else {
            self.bytes += later.bytes;
            self.tally.add_all(&later.tally);
        }
    }
}

/// When to sync lines that no client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncPolicy {
    /// Longest time between a write and its sync, in nanoseconds.
    pub interval_ns: u64,
    /// Most bytes between syncs. Four times as much stops appends until the disk has caught up, so that neither the page
    /// cache of the neighbours nor what a crash can take grows without bound.
    pub bytes: u64,
}

impl SyncPolicy {
    /// True if `unsynced` is due now.
    #[must_use]
    pub fn is_due(&self, unsynced: &Unsynced, now_ns: u64) -> bool {
        !unsynced.is_none() && (unsynced.bytes >= self.bytes || now_ns >= self.due_at(unsynced))
    }

    /// When it will be due by time.
    #[must_use]
    pub fn due_at(&self, unsynced: &Unsynced) -> u64 {
        unsynced.since_ns + self.interval_ns
    }

    /// True if so much is unsynced that appends must wait.
    #[must_use]
    pub fn must_wait(&self, bytes: u64) -> bool {
        bytes >= self.bytes.saturating_mul(4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_keeps_its_place_in_time() {
        let mut tally = PerListener::default();
        tally.add(0, Tally { lines: 1, bytes: 5 });
        let mut unsynced = Unsynced::default();
        unsynced.add(3, 100, 5, &tally);
        let earlier = unsynced.take();
        assert!(unsynced.is_none());
        unsynced.add(4, 200, 5, &tally);
        unsynced.put_back(earlier);
        assert_eq!((unsynced.first_write, unsynced.since_ns, unsynced.bytes), (3, 100, 10));
        assert_eq!(unsynced.tally.total().lines, 2);
    }

    #[test]
    fn a_sync_is_due_by_time_or_bytes() {
        let policy = SyncPolicy { interval_ns: 50, bytes: 10 };
        let mut unsynced = Unsynced::default();
        assert!(!policy.is_due(&unsynced, u64::MAX));
        unsynced.add(1, 100, 9, &PerListener::default());
        assert!(!policy.is_due(&unsynced, 149));
        assert!(policy.is_due(&unsynced, 150));
        unsynced.add(2, 101, 1, &PerListener::default());
        assert!(policy.is_due(&unsynced, 102));
    }
}
