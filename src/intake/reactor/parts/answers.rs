//! What a reactor has to tell its connections: which of them have something to send, which wait only for the write, and the
//! buffers for it.

use super::conns::Conn;
use crate::pipeline::chunk::{ConnId, Ticket};
use std::collections::VecDeque;

/// Answer buffers kept for reuse.
const SPARE_BUFFERS: usize = 64;

/// See the module documentation.
#[derive(Debug, Default)]
pub struct Answers {
    /// Connections with something to send or to end, once acknowledgements of this turn are in. Each is there once.
    dirty: Vec<ConnId>,
    spare: Vec<Vec<u8>>,
    /// Requests to be told of a write: the number of the chunk, the ticket, and how many records.
    writing: VecDeque<(u64, Ticket, u64)>,
}

impl Answers {
    /// A connection has something to send or to end.
    pub fn mark(&mut self, conn: &mut Conn, id: ConnId) {
        if !std::mem::replace(&mut conn.dirty, true) {
            self.dirty.push(id);
        }
    }

    /// Takes the connections that were marked.
    pub fn take_marked(&mut self) -> Vec<ConnId> {
        std::mem::take(&mut self.dirty)
    }

    /// True if no connection is marked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.dirty.is_empty()
    }

    /// An empty buffer.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub fn keep(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Notes a client that wants to know when this many records of a chunk are written. Chunks are numbered as they are pushed.
    pub fn await_writing(&mut self, number: u64, ticket: Ticket, records: u64) {
        match self.writing.back_mut() {
            Some((n, t, all)) if (*n, *t) == (number, ticket) => *all += records,
            _ => self.writing.push_back((number, ticket, records)),
        }
    }

    /// The next that is to be told, now that chunks up to this number are written.
    pub fn next_written(&mut self, written: u64) -> Option<(Ticket, u64)> {
        let (number, ticket, records) = self.writing.front().copied()?;
        if number > written {
            return None;
        }
        self.writing.pop_front();
        Some((ticket, records))
    }

    /// True if there is one.
    #[must_use]
    pub fn is_written(&self, written: u64) -> bool {
        self.writing.front().is_some_and(|(number, ..)| *number <= written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_told_in_order_once_and_not_early() {
        let ticket = |index, frame| Ticket { conn: ConnId { index, generation: 0 }, frame };
        let mut answers = Answers::default();
        answers.await_writing(3, ticket(1, 0), 2);
        answers.await_writing(3, ticket(1, 0), 5);
        answers.await_writing(3, ticket(1, 1), 1);
        answers.await_writing(4, ticket(1, 1), 1);
        assert!(!answers.is_written(2) && answers.next_written(2).is_none());
        assert!(answers.is_written(3));
        assert_eq!(answers.next_written(3), Some((ticket(1, 0), 7)));
        assert_eq!(answers.next_written(3), Some((ticket(1, 1), 1)));
        assert_eq!(answers.next_written(3), None);
        assert_eq!(answers.next_written(9), Some((ticket(1, 1), 1)));
    }

    #[test]
    fn buffers_come_back_empty_and_are_not_hoarded() {
        let mut answers = Answers::default();
        (0..100).for_each(|_| answers.keep(b"abc".to_vec()));
        assert_eq!(answers.spare.len(), SPARE_BUFFERS);
        assert!(answers.buffer().is_empty());
    }
}
