//! The queue of TLS handshakes. A handshake costs a private-key operation, so a flood of them could use up a reactor. A turn is
//! for a whole ClientHello. Handshakes beyond `limits.tls_handshakes_per_second` wait in a queue in which clients take turns.
//! So a client with many handshakes delays only its own.

use crate::host::peer::Client;
use crate::pipeline::chunk::ConnId;
use std::collections::{HashMap, VecDeque};

/// How many turns may be saved up, as a part of those of a second, so that short bursts need not wait.
pub const BURST_PART: u64 = 4;

/// A queue that takes longer than this is served from its end.
pub const HOPELESS_NS: u64 = 4_000_000_000;

/// A bucket of turns, and who waits for one.
#[derive(Debug)]
pub struct Handshakes {
    /// Nanoseconds for one turn.
    pub each_ns: u64,
    /// Saved up, in nanoseconds.
    pub saved_ns: u64,
    pub most_ns: u64,
    pub at_ns: u64,
    /// Clients with waiting handshakes, in the order of their turns.
    pub clients: VecDeque<Option<Client>>,
    /// The waiting connections of each client.
    pub lines: HashMap<Option<Client>, VecDeque<ConnId>>,
}

impl Handshakes {
    /// A queue with this many turns a second.
    #[must_use]
    pub fn new(per_second: usize, now: u64) -> Handshakes {
        let each_ns = 1_000_000_000 / per_second.max(1) as u64;
        let most_ns = (1_000_000_000 / BURST_PART).max(each_ns);
        let (clients, lines) = (VecDeque::new(), HashMap::new());
        Handshakes { each_ns, saved_ns: most_ns, most_ns, at_ns: now, clients, lines }
    }

    /// Changes the number of turns a second. Connections that wait stay in the queue.
    pub fn set_rate(&mut self, per_second: usize, now: u64) {
        let (clients, lines) = (std::mem::take(&mut self.clients), std::mem::take(&mut self.lines));
        *self = Handshakes { clients, lines, ..Handshakes::new(per_second, now) };
    }

    pub fn refill(&mut self, now: u64) {
        self.saved_ns = (self.saved_ns + now.saturating_sub(self.at_ns)).min(self.most_ns);
        self.at_ns = now;
    }

    /// Takes a turn, or puts the connection into the queue.
    pub fn take_turn(&mut self, id: ConnId, client: Option<Client>, now: u64) -> bool {
        self.refill(now);
        if self.clients.is_empty() && self.saved_ns >= self.each_ns {
            self.saved_ns -= self.each_ns;
            return true;
        }
        let line = self.lines.entry(client).or_default();
        if line.is_empty() {
            self.clients.push_back(client);
        }
        line.push_back(id);
        false
    }

    /// Removes a connection from the queue.
    pub fn leave(&mut self, id: ConnId, client: Option<Client>) {
        let Some(line) = self.lines.get_mut(&client) else { return };
        line.retain(|other| *other != id);
        if line.is_empty() {
            self.lines.remove(&client);
            self.clients.retain(|other| *other != client);
        }
    }

    /// Removes the next connection from the queue, if there is a turn for it now.
    pub fn next(&mut self, now: u64) -> Option<ConnId> {
        self.refill(now);
        if self.saved_ns < self.each_ns {
            return None;
        }
        let client = self.clients.pop_front()?;
        let line = self.lines.get_mut(&client)?;
        // If the queue takes longer than clients wait, the first ones would be served too late. So serve the last one, which may
        // still be there.
        let takes = (line.len() as u64).saturating_mul(self.clients.len() as u64 + 1).saturating_mul(self.each_ns);
        let id = if takes > HOPELESS_NS { line.pop_back() } else { line.pop_front() };
        if line.is_empty() {
            self.lines.remove(&client);
        } else {
            self.clients.push_back(client);
        }
        self.saved_ns -= self.each_ns;
        id
    }

    /// When the first in the queue has its turn.
    #[must_use]
    pub fn next_turn(&self) -> Option<u64> {
        (!self.clients.is_empty()).then(|| self.at_ns + self.each_ns.saturating_sub(self.saved_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    fn client(last: u8) -> Option<Client> {
        Some(Client::of([192, 0, 2, last].into(), 64))
    }

    #[test]
    fn a_flood_gets_its_share_in_order_and_no_more() {
        let mut handshakes = Handshakes::new(1000, 0);
        let at_once = (0..4000).filter(|i| handshakes.take_turn(id(*i), None, 0)).count();
        assert_eq!(at_once, 250, "a quarter of a second saved up");
        let mut served = Vec::new();
        let mut now = 0;
        while now < 1_000_000_000 {
            now = handshakes.next_turn().unwrap();
            served.extend(std::iter::from_fn(|| handshakes.next(now)));
        }
        assert_eq!(served.len(), 1000);
        assert!(served.is_sorted() && served[0] == id(250));
    }

    #[test]
    fn who_hangs_up_leaves_and_a_hopeless_line_is_served_from_its_end() {
        let mut handshakes = Handshakes::new(10, 0);
        let at_once = (0..100).filter(|i| handshakes.take_turn(id(*i), None, 0)).count();
        assert_eq!(at_once, 2);
        assert_eq!(handshakes.next(100_000_000), Some(id(99)), "98 in line, ten a second");
        assert_eq!(handshakes.next(100_000_000), None);
        (2..=80).for_each(|i| handshakes.leave(id(i), None));
        assert_eq!(handshakes.next(200_000_000), Some(id(81)), "those before are gone");
        (82..99).for_each(|i| handshakes.leave(id(i), None));
        assert!(handshakes.next_turn().is_none() && handshakes.lines.is_empty());
    }

    #[test]
    fn clients_take_turns_however_many_connections_they_have() {
        let mut handshakes = Handshakes::new(1000, 0);
        (0..250).for_each(|i| assert!(handshakes.take_turn(id(i), client(1), 0)));
        (1000..2000).for_each(|i| assert!(!handshakes.take_turn(id(i), client(1), 0)));
        assert!(!handshakes.take_turn(id(1), client(2), 0) && !handshakes.take_turn(id(2), client(3), 0));
        let first: Vec<ConnId> = std::iter::from_fn(|| handshakes.next(4_000_000)).collect();
        assert_eq!(first, [id(1000), id(1), id(2), id(1001)]);
    }
}
