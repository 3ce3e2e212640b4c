//! One connection of the io_uring engine, and the provided buffers that wait to be copied out.

use super::{BUFFER_BYTES, CHANGE_AFTER};
use crate::intake::net::contract::{ConnId, Socket};

/// What the kernel does for a connection's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Armed {
    /// Nothing: the engine must look for input with `recv(2)`.
    #[default]
    Nothing,
    /// Receives into provided buffers.
    Multishot,
    /// Tells of input as it comes.
    Poll,
    /// One of these, but it was told to end.
    Stopping,
}

/// What comes behind the bytes that are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The peer ended its side.
    Clean,
    /// The socket failed with this errno.
    Failed(i32),
}

/// One place for a connection.
#[derive(Debug, Default)]
pub struct Conn {
    pub generation: u32,
    /// Operations whose last completion is awaited; the descriptor stays open as long.
    pub under_way: u16,
    pub armed: Armed,
    /// Received the large way.
    pub fat: bool,
    /// Reads in a row that suit the other way of receiving.
    against: u8,
    /// The peer has ended its side or the socket has failed: `recv(2)` goes on until it says so.
    pub hung_up: bool,
    pub sending: bool,
    closing: bool,
    /// On its way to another engine: nothing is armed any more.
    pub leaving: bool,
    pub held: Queue,
    pub ended: Option<Ended>,
    pub socket: Option<Socket>,
}

impl Conn {
    pub fn id(&self, index: u32) -> ConnId {
        ConnId { index, generation: self.generation }
    }

    pub fn is_open(&self) -> bool {
        self.socket.is_some() && !self.closing
    }

    /// Nothing is known to wait.
    pub fn is_blank(&self) -> bool {
        self.held.count == 0 && self.ended.is_none()
    }

    /// Chooses the way of receiving by the size of a read.
    pub fn saw(&mut self, len: usize) {
        let speaks_for_fat = len >= BUFFER_BYTES;
        self.against = if speaks_for_fat == self.fat { 0 } else { self.against + 1 };
        if self.against == CHANGE_AFTER {
            (self.fat, self.against) = (speaks_for_fat, 0);
        }
    }

    pub fn close(&mut self) {
        self.closing = true;
    }

    /// Empties the place of a closed connection. False: it is not closed.
    pub fn release(&mut self) -> bool {
        if !self.closing {
            return false;
        }
        *self = Conn { generation: self.generation.wrapping_add(1), ..Conn::default() };
        true
    }
}

/// Buffers of one connection, in order.
#[derive(Debug, Default)]
pub struct Queue {
    first: u16,
    last: u16,
    pub count: u16,
    /// Bytes of the first that are gone already.
    pub at: u16,
}

/// The first buffer of a queue.
#[derive(Debug, Clone, Copy)]
pub struct Front {
    pub buffer: u16,
    pub at: u16,
    pub len: u16,
}

/// What is in each provided buffer, and which comes behind it: so queues need no memory of their own.
#[derive(Debug)]
pub struct Held {
    /// Length and successor.
    entries: Vec<(u16, u16)>,
}

impl Held {
    pub fn new(buffers: u16) -> Held {
        Held { entries: vec![(0, 0); usize::from(buffers)] }
    }

    pub fn push(&mut self, queue: &mut Queue, buffer: u16, len: u16) {
        self.entries[usize::from(buffer)].0 = len;
        if queue.count == 0 {
            (queue.first, queue.at) = (buffer, 0);
        } else {
            self.entries[usize::from(queue.last)].1 = buffer;
        }
        queue.last = buffer;
        queue.count += 1;
    }

    pub fn front(&self, queue: &Queue) -> Option<Front> {
        let len = self.entries.get(usize::from(queue.first))?.0;
        (queue.count > 0).then_some(Front { buffer: queue.first, at: queue.at, len })
    }

    pub fn pop(&mut self, queue: &mut Queue) {
        queue.first = self.entries[usize::from(queue.first)].1;
        queue.count -= 1;
        queue.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_share_the_buffers_and_keep_their_order() {
        let mut held = Held::new(8);
        let (mut a, mut b) = (Queue::default(), Queue::default());
        held.push(&mut a, 3, 30);
        held.push(&mut b, 1, 10);
        held.push(&mut a, 0, 5);
        let take = |held: &mut Held, queue: &mut Queue| {
            let front = held.front(queue).map(|f| (f.buffer, f.len));
            if front.is_some() {
                held.pop(queue);
            }
            front
        };
        assert_eq!(take(&mut held, &mut a), Some((3, 30)));
        assert_eq!(take(&mut held, &mut b), Some((1, 10)));
        held.push(&mut a, 3, 7);
        assert_eq!(take(&mut held, &mut a), Some((0, 5)));
        assert_eq!(take(&mut held, &mut a), Some((3, 7)));
        assert_eq!((take(&mut held, &mut a), take(&mut held, &mut b)), (None, None));
    }

    #[test]
    fn a_connection_changes_its_way_after_some_reads_only() {
        let mut conn = Conn::default();
        for len in [4096, 4096, 100, 4096, 4096, 4096] {
            conn.saw(len);
            assert!(!conn.fat);
        }
        conn.saw(4096);
        assert!(conn.fat);
        (0..4).for_each(|_| conn.saw(10));
        assert!(!conn.fat);
    }
}
