//! Indexer acknowledgement (Splunk's documentation, "About HTTP Event Collector Indexer Acknowledgment"): a request is answered at once
//! with a number, and the client asks later whether what it sent is durable. Numbers belong to channels, which clients name.

use super::{JSON, busy};
use crate::protocol::http::answer::{Done, Made};
use crate::protocol::http::api::{Records, Walk, Watcher};
use crate::protocol::http::problem::Problem;
use crate::session::memory::document::Document;
use crate::session::memory::room::{Lease, Owner, Room};
use crate::session::walk::json::{Cursor, NotJson, stands_for};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Channels at most.
const MOST_CHANNELS: usize = 1024;
/// Numbers at most that were given out and not asked for yet, over all channels.
const MOST_NUMBERS: usize = 32_768;
/// The longest name of a channel; clients use GUIDs, of 36 bytes.
const LONGEST_NAME: usize = 128;
/// What that takes: a name and its table for each channel; for each number an entry, in tables that are up to half empty, and its ticket at
/// the connection that waits for it.
const BYTES: usize = MOST_CHANNELS * (LONGEST_NAME + 200) + MOST_NUMBERS * (2 * 24 + 100);
/// A channel that is not used for so long is forgotten with its numbers, in nanoseconds.
const IDLE_NS: u64 = 300_000_000_000;

/// The channels of a listener.
#[derive(Debug, Default)]
pub struct Acks(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    channels: HashMap<Arc<[u8]>, Channel>,
    /// The number given out last; 0: none was.
    last: u64,
    numbers: usize,
    /// For all of it, from the first use on.
    lease: Option<Lease>,
}

#[derive(Debug, Default)]
struct Channel {
    /// Whether what has this number is durable.
    numbers: HashMap<u64, bool>,
    used_ns: u64,
}

/// Two are the same only if they are one.
impl PartialEq for Acks {
    fn eq(&self, other: &Acks) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Acks {}

impl Acks {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives out a number in a channel, which may be new. Numbers are never used twice, also not by a server that was started again in the
    /// same second, or whose clock was set back: a client may ask it for a number of the one before. So they count up from a random place.
    ///
    /// # Errors
    /// There are too many already, or there is no memory for them.
    pub fn give(self: &Arc<Self>, channel: &[u8], room: &Arc<Room>, now_ns: u64) -> Result<Ticket, &'static Problem> {
        let mut inner = self.lock();
        if inner.lease.is_none() {
            let mut lease = Lease::new(room, Owner::default(), now_ns);
            lease.grow(BYTES).map_err(|_| busy())?;
            inner.lease = Some(lease);
        }
        let is_full = inner.numbers >= MOST_NUMBERS;
        let is_new = !inner.channels.contains_key(channel);
        if is_full || (is_new && inner.channels.len() >= MOST_CHANNELS) {
            inner.forget_idle(now_ns);
        }
        if inner.numbers >= MOST_NUMBERS || (is_new && inner.channels.len() >= MOST_CHANNELS) {
            return Err(busy());
        }
        if inner.last == 0 {
            inner.last = beginning();
        }
        let number = inner.last + 1;
        (inner.last, inner.numbers) = (number, inner.numbers + 1);
        let name = inner.channels.get_key_value(channel).map_or_else(|| channel.into(), |(name, _)| Arc::clone(name));
        let entry = inner.channels.entry(Arc::clone(&name)).or_default();
        entry.used_ns = now_ns;
        entry.numbers.insert(number, false);
        Ok(Ticket { acks: Arc::clone(self), channel: name, number, is_durable: false })
    }

    /// Whether what has this number is durable. Once that was said, it is forgotten.
    fn take(&self, channel: &[u8], number: u64, now_ns: u64) -> bool {
        let mut inner = self.lock();
        let Some(entry) = inner.channels.get_mut(channel) else { return false };
        entry.used_ns = now_ns;
        let is_durable = entry.numbers.get(&number) == Some(&true);
        if is_durable {
            entry.numbers.remove(&number);
            inner.numbers -= 1;
        }
        is_durable
    }
}

/// Where numbers begin: at random between 2^52 and 1.5 times that, so that JavaScript's numbers hold them all (up to 2^53), and two servers
/// that give out a million each have the same one with a probability of less than one to a thousand million.
fn beginning() -> u64 {
    (1 << 52) | (RandomState::new().hash_one(0) >> 13)
}

impl Inner {
    fn forget_idle(&mut self, now_ns: u64) {
        let mut gone = 0;
        self.channels.retain(|_, channel| {
            let stays = now_ns.saturating_sub(channel.used_ns) < IDLE_NS;
            gone += if stays { 0 } else { channel.numbers.len() };
            stays
        });
        self.numbers -= gone;
    }
}

/// A number that was given out. Dropped before what it stands for is durable, it is forgotten: nobody is told anything of it.
#[derive(Debug)]
pub struct Ticket {
    acks: Arc<Acks>,
    channel: Arc<[u8]>,
    /// The number.
    pub number: u64,
    is_durable: bool,
}

impl Watcher for Ticket {
    fn reached(&mut self) {
        self.is_durable = true;
        if let Some(number) =
            self.acks.lock().channels.get_mut(&self.channel).and_then(|c| c.numbers.get_mut(&self.number))
        {
            *number = true;
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_durable {
            let mut inner = self.acks.lock();
            let known = inner.channels.get_mut(&self.channel).and_then(|c| c.numbers.remove(&self.number));
            inner.numbers -= usize::from(known.is_some());
        }
    }
}

/// A name that a channel may have.
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= LONGEST_NAME
}

/// The question for some numbers: `{"acks": [1, 2]}`.
pub struct Question {
    acks: Arc<Acks>,
    channel: Box<[u8]>,
    now_ns: u64,
    answer: Option<Document>,
}

impl Question {
    /// Of a channel.
    pub fn new(acks: Arc<Acks>, channel: &[u8], now_ns: u64, lease: Lease) -> Question {
        Question { acks, channel: channel.into(), now_ns, answer: Some(Document::new(lease)) }
    }

    /// Looks all numbers up. False: there is no memory for the answer. What was said to be durable is forgotten, so nothing is looked up
    /// before it is known that it can be said.
    fn ask(&mut self, bytes: &[u8]) -> Result<bool, NotJson> {
        let Some(answer) = &mut self.answer else { return Ok(true) };
        let mut len = 0;
        numbers(bytes, |_| len += LONGEST_ANSWER)?;
        if answer.make_sure(len).is_err() {
            return Ok(false);
        }
        let mut comma = "";
        numbers(bytes, |number| {
            let is_durable = self.acks.take(&self.channel, number, self.now_ns);
            let _ = answer.append(format!("{comma}\"{number}\":{is_durable}").as_bytes()); // there is room
            comma = ",";
        })?;
        Ok(true)
    }
}

/// `,"18446744073709551615":false`
const LONGEST_ANSWER: usize = 29;

/// Calls `f` with each number of a question.
fn numbers(bytes: &[u8], mut f: impl FnMut(u64)) -> Result<(), NotJson> {
    let (mut cursor, mut is_first_key) = (Cursor::new(bytes, 0), true);
    cursor.expect(b'{')?;
    while cursor.another(is_first_key, b'}')? {
        is_first_key = false;
        let key = cursor.key()?;
        if !stands_for(key, b"acks") {
            cursor.value()?;
            continue;
        }
        cursor.expect(b'[')?;
        let mut is_first = true;
        while cursor.another(is_first, b']')? {
            is_first = false;
            let number = cursor.value()?;
            f(std::str::from_utf8(number).ok().and_then(|n| n.parse().ok()).ok_or(NotJson)?);
        }
    }
    if cursor.is_over() && !is_first_key { Ok(()) } else { Err(NotJson) }
}

impl Walk for Question {
    fn is_document(&self) -> bool {
        true
    }

    fn walk(&mut self, bytes: &[u8], _: bool, _: &mut Records<'_, '_>) -> Result<usize, &'static Problem> {
        match self.ask(bytes) {
            Ok(true) => Ok(bytes.len()),
            Ok(false) => Err(busy()),
            Err(NotJson) => Err(&super::BAD_EVENT),
        }
    }

    fn done(&mut self) -> Done {
        let made = self.answer.take().map_or(Made::Nothing, Made::Leased);
        Done { status: 200, kind: JSON, body: ("{\"acks\":{", made, "}}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_a_server_that_was_started_again_are_others() {
        let room = Room::new(16 << 20);
        let first = || Arc::new(Acks::default()).give(b"a channel", &room, 1).map(|ticket| ticket.number);
        let mut numbers: Vec<u64> = (0..100).map(|_| first().unwrap()).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|two| two[0] + 1_000_000 < two[1]), "{numbers:?}");
    }

    #[test]
    fn numbers_are_never_used_twice_and_bounded_in_number_and_time() {
        let (acks, room) = (Arc::new(Acks::default()), Room::new(16 << 20));
        let mut tickets = Vec::new();
        for i in 0..MOST_NUMBERS {
            let channel = format!("channel {}", i % 10);
            let ticket = acks.give(channel.as_bytes(), &room, 1).unwrap();
            assert!(tickets.last().is_none_or(|last: &Ticket| last.number < ticket.number));
            assert!((1 << 52..1 << 53).contains(&ticket.number));
            tickets.push(ticket);
        }
        assert_eq!(acks.give(b"channel 1", &room, 2).unwrap_err(), busy());
        let (first, number) = (tickets.remove(0), tickets[0].number);
        assert!(!acks.take(b"channel 1", number, 2), "it is not durable");
        tickets[0].reached();
        assert!(!acks.take(b"channel 2", number, 2), "it is another channel's");
        assert!(acks.take(b"channel 1", number, 2));
        assert!(!acks.take(b"channel 1", number, 2), "that is said once");
        drop(first);
        assert_eq!(acks.lock().numbers, MOST_NUMBERS - 2);
        // What nobody asks for is forgotten in the end.
        tickets.iter_mut().for_each(Watcher::reached);
        drop(tickets);
        for i in 0..2 {
            let _ = acks.give(b"x", &room, 3).unwrap();
            assert_eq!(acks.lock().numbers, MOST_NUMBERS - 2, "{i}");
        }
        let kept = (acks.give(b"y", &room, 4).unwrap(), acks.give(b"y", &room, 4).unwrap());
        let _ = acks.give(b"z", &room, IDLE_NS + 10).unwrap();
        assert!(acks.lock().numbers <= 2);
        drop(kept);
        assert_eq!((acks.lock().numbers, room.used()), (0, BYTES));
        for i in 1..MOST_CHANNELS {
            let mut ticket = acks.give(format!("{i}").as_bytes(), &room, IDLE_NS + 20).unwrap();
            ticket.reached();
        }
        assert!(acks.give(b"one more", &room, IDLE_NS + 20).is_err());
        assert!(acks.give(b"one more", &room, 3 * IDLE_NS).is_ok());
    }
}
