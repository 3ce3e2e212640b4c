//! Turns for TLS handshakes: each costs a private-key operation, so a flood of them could take a reactor from everybody
//! else. Those beyond `limits.tls_handshakes_per_second` wait in line, unread.

use crate::chunk::ConnId;
use std::collections::VecDeque;

/// Turns that may be saved up, as a part of those of a second: short bursts need not wait.
const BURST_PART: u64 = 4;

/// A line that takes longer than this is served from its end.
const HOPELESS_NS: u64 = 4_000_000_000;

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

    /// From now on so many a second; who waits goes on waiting.
    pub fn set_rate(&mut self, per_second: usize, now: u64) {
        let waiting = std::mem::take(&mut self.waiting);
        *self = Handshakes { waiting, ..Handshakes::new(per_second, now) };
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

    /// The next in line that is still there, if there is a turn for it now. It is taken.
    pub fn next(&mut self, now: u64, mut is_there: impl FnMut(ConnId) -> bool) -> Option<ConnId> {
        self.refill(now);
        while self.waiting.front().is_some_and(|id| !is_there(*id)) {
            self.waiting.pop_front();
        }
        while self.saved_ns >= self.each_ns {
            // In a line that takes longer than clients wait, the first would all be served too late: the last then, who may
            // be somebody who means it.
            let is_hopeless = self.waiting.len() as u64 * self.each_ns > HOPELESS_NS;
            let id = if is_hopeless { self.waiting.pop_back()? } else { self.waiting.pop_front()? };
            if is_there(id) {
                self.saved_ns -= self.each_ns;
                return Some(id);
            }
        }
        None
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
        let mut handshakes = Handshakes::new(1000, 0);
        let at_once = (0..4000).filter(|i| handshakes.take_turn(id(*i), 0)).count();
        assert_eq!(at_once, 250, "a quarter of a second saved up");
        let mut served = Vec::new();
        let mut now = 0;
        while now < 1_000_000_000 {
            now = handshakes.next_turn().unwrap();
            served.extend(std::iter::from_fn(|| handshakes.next(now, |_| true)));
        }
        assert_eq!(served.len(), 1000);
        assert!(served.is_sorted() && served[0] == id(250));
    }

    #[test]
    fn the_dead_take_no_turns_and_a_hopeless_line_is_served_from_its_end() {
        let id = |index| ConnId { index, generation: 0 };
        let mut handshakes = Handshakes::new(10, 0);
        let at_once = (0..100).filter(|i| handshakes.take_turn(id(*i), 0)).count();
        assert_eq!(at_once, 2);
        assert_eq!(handshakes.next(100_000_000, |_| true), Some(id(99)), "98 in line, ten a second");
        assert_eq!(handshakes.next(100_000_000, |_| true), None);
        assert_eq!(handshakes.next(200_000_000, |i| i.index > 80), Some(id(81)), "those before are gone");
    }
}
