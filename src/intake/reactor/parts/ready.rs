//! Decides which connection is served next: listeners take turns by bytes, and the connections of a listener by receives. So
//! neither a listener with many connections nor a connection with much input starves another.

use crate::host::peer::ListenerId;
use crate::pipeline::chunk::ConnId;
use std::collections::VecDeque;

/// Bytes that a listener may receive before the next has its turn.
pub const QUANTUM_BYTES: i64 = 256 * 1024;

#[derive(Debug, Default)]
struct Queue {
    /// Who, and since when.
    waiting: VecDeque<(ConnId, u64)>,
    /// Bytes of its turn that are left; a receive may overdraw it, and the next turn makes up for it.
    credit: i64,
}

/// The queues of all listeners.
#[derive(Debug, Default)]
pub struct ReadyQueue {
    queues: Vec<Queue>,
    turn: usize,
}

impl ReadyQueue {
    /// Queues for so many listeners.
    #[must_use]
    pub fn new(listeners: usize) -> Self {
        ReadyQueue { queues: (0..listeners).map(|_| Queue::default()).collect(), turn: 0 }
    }

    /// Queues for so many more listeners.
    pub fn grow(&mut self, more: usize) {
        self.queues.extend((0..more).map(|_| Queue::default()));
    }

    /// Puts a connection at the end of its listener's queue, where it waits since then.
    pub fn push(&mut self, listener: ListenerId, id: ConnId, since: u64) {
        self.queues[usize::from(listener)].waiting.push_back((id, since));
    }

    /// Puts a connection that could not be served back in front.
    pub fn push_front(&mut self, listener: ListenerId, id: ConnId, since: u64) {
        self.queues[usize::from(listener)].waiting.push_front((id, since));
    }

    /// Puts it back in front, and lets its listener have its turn, or go on with it: it has waited for a chunk that is fresh.
    pub fn go_on(&mut self, listener: ListenerId, id: ConnId, since: u64) {
        self.push_front(listener, id, since);
        self.turn = usize::from(listener);
        let queue = &mut self.queues[self.turn];
        queue.credit = queue.credit.max(1); // once at least
    }

    /// Since when the first of a listener's queue waits.
    pub fn oldest(&self, listener: usize) -> Option<u64> {
        self.queues[listener].waiting.front().map(|(_, since)| *since)
    }

    /// True if `can_serve` holds for the listener and waiting time of some connection that is first in its queue.
    pub fn any(&self, can_serve: impl Fn(usize, u64) -> bool) -> bool {
        self.queues.iter().enumerate().any(|(i, q)| q.waiting.front().is_some_and(|(_, since)| can_serve(i, *since)))
    }

    /// The next connection to serve for whose listener and waiting time `can_serve` holds, and since when it waits.
    pub fn pop(&mut self, can_serve: impl Fn(usize, u64) -> bool) -> Option<(ConnId, u64)> {
        // Twice round is enough: after the first every listener has credit, unless it is far overdrawn.
        for _ in 0..self.queues.len() * 8 {
            let turn = self.turn;
            let queue = &mut self.queues[turn];
            let first = queue.waiting.front().map(|(_, since)| *since);
            if first.is_some_and(|since| can_serve(turn, since)) && queue.credit > 0 {
                return queue.waiting.pop_front();
            }
            queue.credit = if queue.waiting.is_empty() { 0 } else { (queue.credit + QUANTUM_BYTES).min(QUANTUM_BYTES) };
            self.turn = (turn + 1) % self.queues.len();
        }
        let can = |(i, q): (usize, &Queue)| q.waiting.front().is_some_and(|(_, since)| can_serve(i, *since));
        let other = self.queues.iter().enumerate().position(can)?;
        self.queues[other].waiting.pop_front()
    }

    /// Charges a listener for what was received.
    pub fn charge(&mut self, listener: ListenerId, bytes: usize) {
        // A receive costs as much as some bytes, however little it brings.
        self.queues[usize::from(listener)].credit -= bytes.max(256) as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_on_one_listener_does_not_starve_the_other() {
        let mut queue = ReadyQueue::new(2);
        let id = |index| ConnId { index, generation: 0 };
        (0..1000).for_each(|i| queue.push(0, id(i), 0));
        queue.push(1, id(5000), 0);
        let (mut crowd, mut lone) = (0, 0);
        for _ in 0..2000 {
            let next = queue.pop(|_, _| true).unwrap().0;
            let (listener, bytes) = if next.index == 5000 { (1, &mut lone) } else { (0, &mut crowd) };
            *bytes += 64 * 1024;
            queue.charge(listener, 64 * 1024);
            queue.push(listener, next, 0);
        }
        assert!(lone * 10 > crowd * 9, "{lone} {crowd}");
    }

    #[test]
    fn who_goes_on_comes_first_as_long_as_its_listener_has_credit() {
        let mut queue = ReadyQueue::new(2);
        let id = |index| ConnId { index, generation: 0 };
        (0..4).for_each(|i| queue.push(0, id(i), 0));
        assert_eq!(queue.pop(|_, _| true).map(|(id, _)| id.index), Some(0));
        queue.push(1, id(8), 0);
        queue.go_on(1, id(7), 0);
        assert_eq!(queue.pop(|_, _| true).map(|(id, _)| id.index), Some(7), "without credit too");
        queue.charge(1, 1000);
        let next: Vec<u32> = (0..2).filter_map(|_| queue.pop(|_, _| true)).map(|(id, _)| id.index).collect();
        assert_eq!(next, [1, 2], "but not for ever");
    }

    #[test]
    fn a_blocked_listener_is_passed_over() {
        let mut queue = ReadyQueue::new(2);
        queue.push(0, ConnId { index: 1, generation: 0 }, 7);
        assert!(queue.pop(|l, since| l != 0 || since < 7).is_none());
        assert!(queue.pop(|_, since| since == 7).is_some());
    }
}
