//! Decides which reactor serves a connection, when it is accepted: the reactor with the fewest connections, in the shard with
//! the fewest. SO_REUSEPORT alone would leave that to a hash. Later a connection may move between the reactors of its shard
//! (`reactor::moves`).
//!
//! A lock guards the counts. It is taken when a connection comes, goes or moves, never for a line. A connection is handed over
//! while the lock is held, so that no connection goes to a reactor that has ended.

use super::net::Socket;
use super::transport::Stage;
use crate::host::peer::{Client, ListenerId, Peer};
use crate::pipeline::shard::{ReactorPort, Shard};
use crate::session::Session;
use crossbeam_queue::ArrayQueue;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Connections that may wait for a reactor to take them from an acceptor.
const INBOX: usize = 1024;

/// A connection handed over: by whoever accepted it, by the stdin source, or by a reactor that has too much to do.
pub struct Handed {
    /// Where it came in.
    pub listener: ListenerId,
    /// The socket.
    pub socket: Socket,
    /// The other end.
    pub peer: Peer,
    /// Its state, where another reactor has served it already.
    pub moved: Option<Box<Moved>>,
}

/// What a connection takes along to another reactor of its shard. Nothing is owed to it and nothing of it is on its way.
pub struct Moved {
    /// Between the socket and the session.
    pub stage: Box<dyn Stage>,
    /// The protocol.
    pub session: Box<dyn Session>,
    /// The line that is begun, at most as long as the blocks of the tail store that are each connection's own.
    pub tail: Vec<u8>,
    /// Monotonic nanoseconds of the last input.
    pub last_input_ns: u64,
    /// Of the first byte of the partial line; 0: there is none.
    pub line_since_ns: u64,
    /// When it becomes too old; 0: never.
    pub retires_ns: u64,
    /// Whom limits count it for.
    pub client: Option<Client>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    shard: usize,
    index: usize,
    open: usize,
    closed: bool,
}

/// The counts of all reactors of the server. Reactors are numbered through all shards.
pub struct Spread {
    shards: Vec<Arc<Shard>>,
    /// Of each reactor: connections that were accepted elsewhere.
    inboxes: Vec<ArrayQueue<Handed>>,
    seats: Mutex<Vec<Seat>>,
}

impl Spread {
    /// For the reactors of these shards.
    #[must_use]
    pub fn new(shards: Vec<Arc<Shard>>) -> Spread {
        let of = |(shard, s): (usize, &Arc<Shard>)| {
            (0..s.reactors.len()).map(move |index| Seat { shard, index, ..Seat::default() }).collect::<Vec<_>>()
        };
        let seats: Vec<Seat> = shards.iter().enumerate().flat_map(of).collect();
        let inboxes = seats.iter().map(|_| ArrayQueue::new(INBOX)).collect();
        Spread { shards, inboxes, seats: Mutex::new(seats) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seat>> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was handed to a reactor and not taken yet.
    #[must_use]
    pub fn inbox(&self, number: usize) -> &ArrayQueue<Handed> {
        &self.inboxes[number]
    }

    fn port(&self, seat: Seat) -> &ReactorPort {
        &self.shards[seat.shard].reactors[seat.index]
    }

    /// Finds a place for a new connection and hands it over. It comes back where `own` is the best place itself, or the
    /// best one takes no more for now: then it counts as `own`'s.
    ///
    /// # Errors
    /// The connection, where there is no `own` and nobody takes it for now.
    pub fn hand(&self, own: Option<usize>, handed: Handed) -> Result<Option<Handed>, Handed> {
        let mut seats = self.lock();
        let Some(best) = best(&seats, own).filter(|best| Some(*best) != own) else {
            return match own {
                Some(own) => {
                    seats[own].open += 1;
                    Ok(Some(handed))
                }
                None => Err(handed),
            };
        };
        let port = self.port(seats[best]);
        match (self.inboxes[best].push(handed), own) {
            (Ok(()), _) => {
                seats[best].open += 1;
                drop(seats);
                port.wake();
                Ok(None)
            }
            (Err(handed), Some(own)) => {
                seats[own].open += 1;
                Ok(Some(handed))
            }
            (Err(handed), None) => Err(handed),
        }
    }

    /// Hands a socket that is no client's to this reactor, as far as there are so many, or to the best one.
    pub fn place(&self, to: Option<usize>, handed: Handed) {
        let Some(to) = to.map(|to| to % self.inboxes.len()) else {
            let _ = self.hand(None, handed); // far fewer than an inbox holds
            return;
        };
        let mut seats = self.lock();
        let port = self.port(seats[to]);
        let refused = if seats[to].closed { Err(handed) } else { self.inboxes[to].push(handed) };
        if let Err(handed) = refused {
            drop(seats);
            let _ = self.hand(None, handed); // who reads it matters less than that somebody does
            return;
        }
        seats[to].open += 1;
        drop(seats);
        port.wake();
    }

    /// Hands a connection that is open already from one reactor to another.
    ///
    /// # Errors
    /// The connection, where the other takes none.
    pub fn shift(&self, from: usize, to: usize, handed: Handed) -> Result<(), Handed> {
        let mut seats = self.lock();
        if seats[to].closed {
            return Err(handed);
        }
        let port = self.port(seats[to]);
        self.inboxes[to].push(handed)?;
        seats[from].open -= 1;
        seats[to].open += 1;
        drop(seats);
        port.wake();
        Ok(())
    }

    /// Wakes every reactor.
    pub fn wake_all(&self) {
        self.shards.iter().flat_map(|s| &s.reactors).for_each(ReactorPort::wake);
    }

    /// Counts a connection that a reactor keeps without asking.
    pub fn keep(&self, own: usize) {
        self.lock()[own].open += 1;
    }

    /// A connection is gone.
    pub fn leave(&self, own: usize) {
        self.lock()[own].open -= 1;
    }

    /// This reactor has failed: nothing is handed to it any more.
    pub fn shut(&self, own: usize) {
        self.lock()[own].closed = true;
    }

    /// Nothing is handed to this reactor any more. False: something was, and must be taken first.
    #[must_use]
    pub fn close(&self, own: usize) -> bool {
        let mut seats = self.lock();
        let is_empty = self.inboxes[own].is_empty();
        seats[own].closed = is_empty;
        is_empty
    }
}

/// The reactor with the fewest connections in the shard with the fewest; `own` and its shard among equals.
fn best(seats: &[Seat], own: Option<usize>) -> Option<usize> {
    let mut loads = vec![0; seats.last().map_or(0, |s| s.shard + 1)];
    seats.iter().for_each(|s| loads[s.shard] += s.open);
    let open = || seats.iter().enumerate().filter(|(_, s)| !s.closed);
    let home = own.map(|own| seats[own].shard);
    let shard = open().map(|(_, s)| s.shard).min_by_key(|shard| (loads[*shard], Some(*shard) != home))?;
    let in_shard = open().filter(|(_, s)| s.shard == shard);
    in_shard.min_by_key(|(i, s)| (s.open, Some(*i) != own)).map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(shards: usize, per_shard: usize) -> Vec<Seat> {
        let of = |shard| (0..per_shard).map(move |index| Seat { shard, index, ..Seat::default() });
        (0..shards).flat_map(of).collect()
    }

    #[test]
    fn whoever_accepts_them_connections_spread_evenly() {
        for (shards, per_shard) in [(1, 4), (2, 1), (2, 2), (3, 5)] {
            for accepting in 0..shards * per_shard {
                let mut seats = seats(shards, per_shard);
                for n in 1..=60 {
                    let place = best(&seats, Some(accepting)).unwrap();
                    seats[place].open += 1;
                    let load = |shard| seats.iter().filter(|s| s.shard == shard).map(|s| s.open).sum::<usize>();
                    let loads: Vec<usize> = (0..shards).map(load).collect();
                    assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{n}: {loads:?}");
                    let most = seats.iter().map(|s| s.open).max().unwrap();
                    assert!(most - seats.iter().map(|s| s.open).min().unwrap() <= 1, "{n}: {seats:?}");
                }
            }
        }
    }

    #[test]
    fn among_equals_nobody_is_handed_anything() {
        let mut seats = seats(2, 2);
        assert_eq!(best(&seats, Some(3)), Some(3));
        seats[3].open = 1;
        assert_eq!(best(&seats, Some(3)), Some(0), "the other shard has fewer");
        seats[0].closed = true;
        assert_eq!(best(&seats, Some(3)), Some(1));
        seats.iter_mut().for_each(|s| s.closed = true);
        assert_eq!(best(&seats, Some(3)), None);
    }
}
