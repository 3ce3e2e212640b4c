//! Deadlines: when a reactor looks at a connection although no input comes from it.

use crate::host::peer::ListenerId;
use crate::pipeline::chunk::ConnId;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Deadlines of connections, the earliest first. A deadline that was put off leaves its earlier entry in the queue, so the code that
/// takes an entry must check whether it still holds.
#[derive(Debug, Default)]
pub struct Deadlines(BinaryHeap<Reverse<(u64, ConnId)>>);

/// Entries beyond twice the connections before those of connections that are gone are thrown out.
const SLACK: usize = 1024;

impl Deadlines {
    /// Looks at a connection then, in monotonic nanoseconds.
    pub fn push(&mut self, at: u64, id: ConnId) {
        self.0.push(Reverse((at, id)));
    }

    /// When the first comes.
    #[must_use]
    pub fn first(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// The same, after entries of connections that are gone were removed, so that the reactor does not wake up for them.
    pub fn first_there(&mut self, mut is_there: impl FnMut(ConnId) -> bool) -> Option<u64> {
        while self.0.peek().is_some_and(|Reverse((_, id))| !is_there(*id)) {
            self.0.pop();
        }
        self.first()
    }

    /// The next that is due, and when it was.
    pub fn pop_due(&mut self, now: u64) -> Option<(u64, ConnId)> {
        if self.first()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }

    /// Forgets those of some connections.
    pub fn retain(&mut self, mut keeps: impl FnMut(ConnId) -> bool) {
        self.0.retain(|Reverse((_, id))| keeps(*id));
    }

    /// Removes the entries of connections that are gone when they are most of the queue, so that it does not grow without bound.
    pub fn compact(&mut self, connections: usize, is_there: impl FnMut(ConnId) -> bool) {
        if self.0.len() > 2 * connections + SLACK {
            self.retain(is_there);
        }
    }
}

/// All of a reactor's.
#[derive(Debug, Default)]
pub struct Timers {
    /// Connections that may have gone idle, and those whose last answers are not read.
    pub idle: Deadlines,
    /// Connections that owe the rest of what they began.
    pub line: Deadlines,
    /// Connections that wait for answers.
    pub answers: Deadlines,
    /// UDP sockets that are asked what the kernel has dropped.
    pub drops: Deadlines,
    /// Listeners that could not accept, and when they try again.
    accept_again: Vec<(u64, ListenerId)>,
}

impl Timers {
    /// A listener could not accept: it tries again then.
    pub fn accept_again(&mut self, at: u64, listener: ListenerId) {
        self.accept_again.push((at, listener));
    }

    /// A listener accepts no more.
    pub fn forget_listener(&mut self, listener: ListenerId) {
        self.accept_again.retain(|(_, failed)| *failed != listener);
    }

    /// A listener that tries again now; each once.
    pub fn next_accept(&mut self, now: u64) -> Option<ListenerId> {
        let place = self.accept_again.iter().position(|(at, _)| *at <= now)?;
        Some(self.accept_again.swap_remove(place).1)
    }

    /// When the first of all is due that is for a connection which is still there.
    pub fn first(&mut self, mut is_there: impl FnMut(ConnId) -> bool) -> Option<u64> {
        let accept = self.accept_again.iter().map(|(at, _)| *at).min();
        let (idle, line) = (self.idle.first_there(&mut is_there), self.line.first_there(&mut is_there));
        let (drops, answers) = (self.drops.first_there(&mut is_there), self.answers.first_there(&mut is_there));
        [idle, line, drops, answers, accept].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    #[test]
    fn the_first_comes_first_and_nothing_comes_early() {
        let mut timers = Timers::default();
        assert_eq!(timers.first(|_| true), None);
        timers.idle.push(30, id(1));
        timers.line.push(20, id(2));
        timers.accept_again(10, 7);
        timers.accept_again(10, 8);
        timers.forget_listener(7);
        assert_eq!(timers.first(|_| true), Some(10));
        assert_eq!((timers.next_accept(9), timers.next_accept(10), timers.next_accept(99)), (None, Some(8), None));
        assert_eq!(timers.first(|_| true), Some(20));
        timers.line.push(5, id(3));
        assert_eq!(timers.first(|conn| conn != id(3)), Some(20), "nobody is woken for who is gone");
        assert_eq!((timers.line.pop_due(19), timers.line.pop_due(20)), (None, Some((20, id(2)))));
        assert_eq!((timers.idle.pop_due(30), timers.idle.pop_due(30)), (Some((30, id(1))), None));
    }

    #[test]
    fn what_is_gone_is_thrown_out_before_it_is_the_most() {
        let mut deadlines = Deadlines::default();
        (0..10_000).for_each(|i| {
            deadlines.push(u64::from(i), id(i));
            deadlines.compact(10, |id| id.index % 1000 == 0);
            assert!(deadlines.0.len() <= 2 * 10 + SLACK + 1);
        });
        assert_eq!(deadlines.first(), Some(0));
    }
}
