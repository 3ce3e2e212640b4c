//! Measures the load of a reactor, and decides which connection should move to another one.
//!
//! Each reactor measures itself over short windows of time: how long it did not wait, and how many bytes it received.

pub use crate::intake::even::fitting;
use crate::pipeline::chunk::ConnId;
use crate::session::memory::tail::{BLOCK, OWN_BLOCKS};

/// The length of the windows in which a reactor measures itself.
pub const WINDOW_NS: u64 = 50_000_000;
/// A reactor is saturated if it did not wait for this much of a window, in per cent.
pub const SATURATED: u64 = 60;
/// Windows between two moves of a reactor: the first must show in what the others publish.
pub const SETTLE: u64 = 3;
/// A connection that has moved stays for so many windows.
pub const STAY: u64 = 20;
/// The longest partial line that moves: every reactor has room for this much.
pub const MOST_MOVED: usize = BLOCK * OWN_BLOCKS;

/// What to do with the chosen connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Serve it as usual.
    Serve,
    /// Leave it alone: it is gone, or this is called again.
    Wait,
}

/// A reactor's measure of itself.
#[derive(Debug, Default)]
pub struct Meter {
    pub since_ns: u64,
    pub waited_ns: u64,
    pub bytes: u64,
    /// Windows so far: connections date their bytes by it.
    pub window: u64,
    /// No move before this window.
    pub settled: u64,
    /// The connection that is about to move, and where to.
    pub moving: Option<(ConnId, usize)>,
}

/// What a connection received in a window.
#[derive(Debug, Default, Clone, Copy)]
pub struct Share {
    pub window: u64,
    pub bytes: u64,
    pub last: u64,
    pub stays_until: u64,
}

impl Share {
    /// Adds what was received in `window`.
    pub fn add(&mut self, window: u64, bytes: usize) {
        if self.window != window {
            self.last = if self.window + 1 == window { self.bytes } else { 0 };
            (self.window, self.bytes) = (window, 0);
        }
        self.bytes += bytes as u64;
    }

    /// Bytes in the window before `window`.
    pub fn of_last(&self, window: u64) -> u64 {
        match window.wrapping_sub(self.window) {
            0 => self.last,
            1 => self.bytes,
            _ => 0,
        }
    }
}

impl Meter {
    /// Time that was spent waiting.
    pub fn waited(&mut self, ns: u64) {
        self.waited_ns += ns;
    }

    /// Bytes that were received.
    pub fn received(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Whether this connection is about to move.
    pub fn is_moving(&self, id: ConnId) -> bool {
        self.moving.is_some_and(|(moving, _)| moving == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    /// Heavy connections on reactors, all on the first; each window the fullest gives one to the emptiest if it fits.
    fn settle(mut loads: Vec<Vec<u64>>) -> Vec<usize> {
        for _ in 0..100 {
            let sum = |l: &Vec<u64>| l.iter().sum::<u64>();
            let from = (0..loads.len()).max_by_key(|i| sum(&loads[*i])).unwrap();
            let to = (0..loads.len()).min_by_key(|i| sum(&loads[*i])).unwrap();
            let shares = loads[from].iter().enumerate().map(|(i, b)| (id(i as u32), *b));
            let Some(moved) = fitting(sum(&loads[from]), sum(&loads[to]), shares) else { break };
            let bytes = loads[from].remove(moved.index as usize);
            loads[to].push(bytes);
        }
        loads.iter().map(Vec::len).collect()
    }

    #[test]
    fn equal_connections_end_evenly_spread() {
        assert_eq!(settle(vec![vec![100; 8], vec![], vec![], vec![]]), [2, 2, 2, 2]);
        assert_eq!(settle(vec![vec![97, 110, 104, 90, 101, 99, 95, 108], vec![], vec![], vec![]]), [2, 2, 2, 2]);
        assert_eq!(settle(vec![vec![100; 3], vec![100]]), [2, 2]);
    }

    #[test]
    fn what_would_not_help_does_not_move() {
        assert_eq!(settle(vec![vec![100; 2], vec![100]]), [2, 1], "the two would only change places");
        assert_eq!(settle(vec![vec![1000], vec![]]), [1, 0], "one alone has nowhere better to be");
        assert_eq!(settle(vec![vec![130, 130], vec![70, 70]]), [2, 2], "within what a window measures wrong");
        assert_eq!(fitting(1000, 0, [(id(0), 5)].into_iter()), None, "a trickle is not worth it");
        assert_eq!(fitting(0, 0, [(id(0), 0)].into_iter()), None, "nor is nothing at all");
    }

    #[test]
    fn shares_are_of_the_window_before() {
        let mut share = Share::default();
        share.add(5, 100);
        share.add(5, 20);
        assert_eq!((share.of_last(5), share.of_last(6), share.of_last(7)), (0, 120, 0));
        share.add(6, 7);
        assert_eq!((share.of_last(6), share.of_last(7)), (120, 7));
        share.add(9, 1);
        assert_eq!(share.of_last(9), 0);
    }
}
