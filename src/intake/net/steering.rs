//! Evens out busy senders of datagrams over the sockets of a group.
//!
//! The kernel gives each sender to the socket that a hash says, so a few busy ones may all be one reactor's. Each reactor counts who is busy
//! at its socket, over windows of time. One that was never through with its queue in a window, or for which the kernel has dropped something,
//! looks for a sender whose share fits the difference to the least loaded other socket of its shard, and has the kernel give that sender to
//! it. What the sender has sent before waits in the old queue, so for once its datagrams may be out of order.

use crate::host::mutants::mutant;
use crate::host::sys::{self, MOST_STEERED};
use crate::intake::even::fitting;
use socket2::Socket;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The length of a window.
const WINDOW_NS: u64 = 500_000_000;
/// What a reactor has said is old after this time: it has received nothing since, or next to nothing.
const OLD_NS: u64 = 3 * WINDOW_NS;
/// Between two changes: the first must show in what is counted.
const SETTLE_NS: u64 = 2_000_000_000;
/// A sender that was steered stays for so long.
const STAY_NS: u64 = 20_000_000_000;

/// What one reactor has counted in its last window.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    /// Of the reactor that serves it; `None`: nobody does yet.
    shard: Option<u16>,
    /// Datagrams in a window.
    datagrams: u64,
    at_ns: u64,
}

/// A sender that the kernel gives to a socket because we said so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Steered {
    sender: SocketAddr,
    socket: usize,
    since_ns: u64,
    /// When it was last among those who are busy at its socket.
    heard_ns: u64,
}

#[derive(Debug, Default)]
struct State {
    loads: Vec<Load>,
    steered: Vec<Steered>,
    /// No change before this time.
    settled_ns: u64,
    /// The kernel cannot: it was said once.
    is_refused: bool,
}

/// The sockets of one address, in the order in which they were bound: that is their index for the kernel.
#[derive(Debug)]
pub struct Group {
    /// One of them, to speak to the kernel. Only the listener's source has it: a reactor that is not through with its own must not keep the
    /// address from whoever binds it next.
    socket: Weak<Socket>,
    state: Mutex<State>,
}

impl Group {
    /// Of so many sockets, of which this is (a copy of) one.
    #[must_use]
    pub fn new(socket: &Arc<Socket>, sockets: usize) -> Arc<Group> {
        let socket = Arc::downgrade(socket);
        let state = State { loads: vec![Load::default(); sockets], ..State::default() };
        Arc::new(Group { socket, state: Mutex::new(state) })
    }

    /// Notes what a reactor has counted, and finds out whether it should give a sender away, if it has too much. Says which, and to which
    /// socket.
    fn settle(&self, socket: usize, mine: Load, busy: &Busy, has_too_much: bool) -> Option<(SocketAddr, usize)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = mine.at_ns;
        *state.loads.get_mut(socket)? = mine;
        let at_this = state.steered.iter_mut().filter(|one| one.socket == socket);
        let is_busy = |one: &Steered| busy.senders.iter().any(|heard| heard.sender == one.sender);
        at_this.filter(|one| is_busy(one)).for_each(|one| one.heard_ns = now);
        if !has_too_much || now < state.settled_ns || state.is_refused {
            return None;
        }
        let (to, sender) = choose(&state, socket, mine, busy)?;
        let mut steered = state.steered.clone();
        steered.retain(|one| one.sender != sender);
        if steered.len() >= MOST_STEERED {
            // Who is silent makes room. Anybody else would go back to where the hash says, unasked.
            let silent = |one: &&Steered| now.saturating_sub(one.heard_ns) >= STAY_NS;
            let forgotten = steered.iter().filter(silent).min_by_key(|one| one.heard_ns)?.sender;
            steered.retain(|one| one.sender != forgotten);
        }
        steered.push(Steered { sender, socket: to, since_ns: now, heard_ns: now });
        state.settled_ns = now + SETTLE_NS;
        let kernel = self.socket.upgrade()?;
        let told: Vec<(SocketAddr, u32)> = steered.iter().map(|one| (one.sender, one.socket as u32)).collect();
        if let Err(error) = sys::steer(kernel.as_fd(), &told) {
            state.is_refused = true;
            tracing::warn!(%error, "busy senders cannot be steered to other reactors; they stay where the kernel's hash puts them");
            return None;
        }
        state.steered = steered;
        Some((sender, to))
    }
}

/// Which sender fits which other socket of the shard.
fn choose(state: &State, socket: usize, mine: Load, busy: &Busy) -> Option<(usize, SocketAddr)> {
    let load = |load: &Load| if mine.at_ns.saturating_sub(load.at_ns) > OLD_NS { 0 } else { load.datagrams };
    let others = state.loads.iter().enumerate().filter(|(i, one)| *i != socket && one.shard == mine.shard);
    let (to, least) = others.map(|(i, one)| (i, load(one))).min_by_key(|(_, datagrams)| *datagrams)?;
    let stays = |sender: &SocketAddr| {
        let is_new = |one: &Steered| one.sender == *sender && mine.at_ns.saturating_sub(one.since_ns) < STAY_NS;
        state.steered.iter().any(is_new)
    };
    let shares = busy.shares().filter(|(sender, _)| !stays(sender));
    Some((to, fitting(mine.datagrams, least, shares)?))
}

/// A sender in the table.
#[derive(Debug, Clone, Copy)]
struct Heard {
    sender: SocketAddr,
    /// With what it has taken over.
    count: u64,
    /// Of the one whose place it took.
    before: u64,
}

/// Who sends most, as far as samples say: the one that is least is replaced by one that is not there, which takes its count over (Metwally,
/// Agrawal, El Abbadi: Efficient computation of frequent and top-k elements in data streams, 2005).
#[derive(Debug, Default)]
struct Busy {
    senders: Vec<Heard>,
}

impl Busy {
    fn add(&mut self, sender: SocketAddr, weight: u64) {
        if let Some(known) = self.senders.iter_mut().find(|one| one.sender == sender) {
            known.count += weight;
        } else if self.senders.len() < MOST_STEERED {
            self.senders.push(Heard { sender, count: weight, before: 0 });
        } else if let Some(least) = self.senders.iter_mut().min_by_key(|one| one.count) {
            *least = Heard { sender, count: least.count + weight, before: least.count };
        }
    }

    /// What each has sent for certain. Counts alone would make busy senders of any sixteen among many that send little.
    fn shares(&self) -> impl Iterator<Item = (SocketAddr, u64)> {
        let own = |one: &Heard| if mutant!("taken_over_counts_as_sent") { one.count } else { one.count - one.before };
        self.senders.iter().map(move |one| (one.sender, own(one)))
    }
}

/// A socket of a group, by its index.
#[derive(Debug, Clone)]
pub struct Member(pub Arc<Group>, pub usize);

/// A reactor's place in a group, with what it counts there.
#[derive(Debug)]
pub struct Place {
    group: Arc<Group>,
    socket: usize,
    shard: u16,
    busy: Busy,
    datagrams: u64,
    batches: usize,
    lost: u64,
    /// The queue was empty at some time in this window.
    was_empty: bool,
    since_ns: u64,
}

impl Place {
    /// That of a reactor of this shard, which serves the socket from now on.
    #[must_use]
    pub fn new(Member(group, socket): Member, shard: u16, now_ns: u64) -> Place {
        let mut state = group.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(load) = state.loads.get_mut(socket) {
            *load = Load { shard: Some(shard), datagrams: 0, at_ns: 0 };
        }
        drop(state);
        Place {
            group,
            socket,
            shard,
            busy: Busy { senders: Vec::with_capacity(MOST_STEERED) },
            datagrams: 0,
            batches: 0,
            lost: 0,
            was_empty: true,
            since_ns: now_ns,
        }
    }

    /// The kernel has dropped so many from its queue.
    pub fn lost(&mut self, datagrams: u64) {
        self.lost += datagrams;
    }

    /// Counts so many datagrams, received at once: one of them stands for all, and `sender` says who has sent it. `more`: the queue is not
    /// empty yet. Returns the sender that was given away, and to which socket, where a window has ended and that helps.
    pub fn received(
        &mut self,
        datagrams: usize,
        sender: impl Fn(usize) -> Option<SocketAddr>,
        more: bool,
        now_ns: u64,
    ) -> Option<(SocketAddr, usize)> {
        self.was_empty |= !more;
        self.batches = self.batches.wrapping_add(1);
        if let Some(sender) = sender(self.batches % datagrams.max(1)) {
            self.busy.add(sender, datagrams as u64);
        }
        self.datagrams += datagrams as u64;
        let elapsed = now_ns.saturating_sub(self.since_ns);
        if elapsed < WINDOW_NS {
            return None;
        }
        // A window much longer than it should be was quiet, or spent on something else.
        let has_too_much = (self.lost > 0 || !self.was_empty) && elapsed < 2 * WINDOW_NS;
        let in_a_window = |count: u64| (u128::from(count) * u128::from(WINDOW_NS) / u128::from(elapsed)) as u64;
        let datagrams = in_a_window(self.datagrams);
        let mine = Load { shard: Some(self.shard), datagrams, at_ns: now_ns };
        // Shares are of the same time as the sum.
        for one in &mut self.busy.senders {
            (one.count, one.before) = (in_a_window(one.count), in_a_window(one.before));
        }
        let moved = self.group.settle(self.socket, mine, &self.busy, has_too_much);
        self.busy.senders.clear();
        (self.datagrams, self.lost, self.was_empty, self.since_ns) = (0, 0, false, now_ns);
        moved
    }
}

#[cfg(test)]
#[path = "steering_tests.rs"]
mod tests;
