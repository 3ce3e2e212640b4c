//! Turns for TLS handshakes: each costs a private-key operation, so a flood of them could take a reactor from everybody
//! else. Those beyond `limits.tls_handshakes_per_second` wait in line, unread.

use crate::chunk::ConnId;
use std::collections::VecDeque;

/// Turns that may be saved up, as a part of those of a second: short bursts need not wait.
const BURST_PART: u64 = 4;

/// A bucket of turns, and who waits for one.
#[derive(Debug)]
pub struct Handshakes {
    /// Nanoseconds for one turn.
    each_ns: u64,
    /// Saved up, in nanoseconds.
    saved_ns: u64,
    most_ns: u64,
    at_ns: u64,
    waiting: VecDeque<ConnId>,
}

impl Handshakes {
    /// So many a second.
    #[must_use]
    pub fn new(per_second: usize, now: u64) -> Handshakes {
        let each_ns = 1_000_000_000 / per_second.max(1) as u64;
        let most_ns = (1_000_000_000 / BURST_PART).max(each_ns);
        Handshakes { each_ns, saved_ns: most_ns, most_ns, at_ns: now, waiting: VecDeque::new() }
    }

    fn refill(&mut self, now: u64) {
        self.saved_ns = (self.saved_ns + now.saturating_sub(self.at_ns)).min(self.most_ns);
        self.at_ns = now;
    }

    /// Takes a turn, or waits in line.
    pub fn take_turn(&mut self, id: ConnId, now: u64) -> bool {
        self.refill(now);
        if self.waiting.is_empty() && self.saved_ns >= self.each_ns {
            self.saved_ns -= self.each_ns;
            return true;
        }
        self.waiting.push_back(id);
        false
    }

    /// The first in line, if there is a turn for it now. It is taken.
    pub fn next(&mut self, now: u64) -> Option<ConnId> {
        self.refill(now);
        if self.saved_ns < self.each_ns {
            return None;
        }
        let id = self.waiting.pop_front()?;
        self.saved_ns -= self.each_ns;
        Some(id)
    }

    /// When the first in line has its turn.
    #[must_use]
    pub fn next_turn(&self) -> Option<u64> {
        (!self.waiting.is_empty()).then(|| self.at_ns + self.each_ns.saturating_sub(self.saved_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_its_share_in_order_and_no_more() {
        let id = |index| ConnId { index, generation: 0 };
        let mut handshakes = Handshakes::new(100, 0);
        let at_once = (0..1000).filter(|i| handshakes.take_turn(id(*i), 0)).count();
        assert_eq!(at_once, 25, "a quarter of a second saved up");
        let mut served = Vec::new();
        let mut now = 0;
        while now < 1_000_000_000 {
            now = handshakes.next_turn().unwrap();
            served.extend(std::iter::from_fn(|| handshakes.next(now)));
        }
        assert_eq!(served.len(), 100);
        assert!(served.is_sorted() && served[0] == id(25));
    }
}
