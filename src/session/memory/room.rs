//! Decides who may hold how much memory between socket and chunk, and who ends when there is not enough for all.
//!
//! Two stores are shared this way: the blocks for partial lines ([`super::tail`], one store for each reactor) and the memory
//! for decoding bodies ([`Room`], one for all). What every connection has anyway (two blocks of its tail, its TLS buffers) is
//! not part of its share.

use crate::host::mutants::mutant;
use crate::host::peer::{Client, ListenerId};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How long an owner must have held room before it may be taken away, in nanoseconds. An owner that holds room only for a moment
/// does not keep others waiting.
pub const GRACE_NS: u64 = 2_000_000_000;

/// After its lease was called in, an owner gets only small leases for this long, so that those that waited come first.
const AFTERWARDS_NS: u64 = 5_000_000_000;

/// The owner to whom room is charged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Owner {
    /// The listener.
    pub listener: ListenerId,
    /// The client; `None`: processes of this machine.
    pub client: Option<Client>,
}

/// What is in use of a store, in all and by one owner.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// All there is.
    pub all: usize,
    /// Of it in use.
    pub used: usize,
    /// By the owner's listener.
    pub by_listener: usize,
    /// By the owner.
    pub by_client: usize,
}

impl Shares {
    /// How much more the owner may take.
    ///
    /// Every owner may take from the first three quarters. The last quarter is for clients that hold less than a sixteenth. The last
    /// half of that quarter is for listeners that hold less than an eighth. So neither one client nor all clients of one listener can
    /// take everything, and a client that is alone can have nearly everything.
    #[must_use]
    pub fn left(self) -> usize {
        let up_to = |limit: usize| limit.saturating_sub(self.used);
        if mutant!("no_shares") {
            return up_to(self.all);
        }
        let anybody = up_to(self.all / 4 * 3);
        let client = (self.all / 16).saturating_sub(self.by_client);
        let listener = (self.all / 8).saturating_sub(self.by_listener);
        anybody.max(up_to(self.all / 8 * 7).min(client)).max(up_to(self.all).min(client).min(listener))
    }

    /// How much every owner may take while this much is in use, whatever it holds already. If that is enough, there is no need to know
    /// how much it holds.
    #[must_use]
    pub fn left_for_all(all: usize, used: usize) -> Option<usize> {
        let anybody = (all / 4 * 3).saturating_sub(used);
        (anybody >= all / 16).then_some(anybody)
    }
}

/// The order in which holders end so that others get room; the greatest ends first. It belongs to the client that holds the most, at
/// the listener that holds the most. Of that client it is the largest holder, and of equal ones the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight {
    by_listener: usize,
    by_client: usize,
    bytes: usize,
    since_ns: Reverse<u64>,
}

impl Weight {
    /// The weight of a holder of this many bytes since that time. `None`: it may keep them for now.
    #[must_use]
    pub fn of(shares: Shares, bytes: usize, since_ns: u64, now_ns: u64) -> Option<Weight> {
        let is_ripe = bytes > 0 && now_ns.saturating_sub(since_ns) >= GRACE_NS;
        let Shares { by_listener, by_client, .. } = shares;
        is_ripe.then_some(Weight { by_listener, by_client, bytes, since_ns: Reverse(since_ns) })
    }
}

/// How much of a store each owner holds; owners that hold nothing leave nothing behind.
#[derive(Debug, Default)]
pub struct Holdings {
    listeners: HashMap<ListenerId, usize>,
    clients: HashMap<Owner, usize>,
}

impl Holdings {
    /// An owner holds `now` where it held `before`.
    pub fn change(&mut self, owner: Owner, before: usize, now: usize) {
        fn shift<K: std::hash::Hash + Eq>(map: &mut HashMap<K, usize>, key: K, before: usize, now: usize) {
            let held = map.entry(key).or_insert(0);
            *held = (*held + now).saturating_sub(before);
        }
        if before != now {
            shift(&mut self.listeners, owner.listener, before, now);
            shift(&mut self.clients, owner, before, now);
            if self.clients.get(&owner) == Some(&0) {
                self.clients.remove(&owner);
            }
        }
    }

    /// The shares of an owner.
    #[must_use]
    pub fn shares(&self, all: usize, used: usize, owner: Owner) -> Shares {
        let by_listener = self.listeners.get(&owner.listener).copied().unwrap_or(0);
        let by_client = self.clients.get(&owner).copied().unwrap_or(0);
        Shares { all, used, by_listener, by_client }
    }
}

/// Why a lease is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoRoom {
    /// Not so much at once, ever.
    Never,
    /// Not now.
    Now,
}

/// Memory that is leased for a while, shared by all reactors: for decoding bodies. Touched when a body begins, grows or ends.
#[derive(Debug)]
pub struct Room {
    all: usize,
    inner: Mutex<Inner>,
    /// A lease was refused for want of room.
    refused: AtomicBool,
    /// How many leases were called in so far.
    called_in: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    used: usize,
    holdings: Holdings,
    leases: HashMap<u64, Entry>,
    next: u64,
    /// Owners of whom something was called in lately, and when.
    called: HashMap<Owner, u64>,
}

#[derive(Debug)]
struct Entry {
    owner: Owner,
    bytes: usize,
    since_ns: u64,
    /// The owner may have no more than a client that holds little.
    is_small: bool,
    called_in: Arc<AtomicBool>,
}

/// Two rooms are equal only if they are the same one.
impl PartialEq for Room {
    fn eq(&self, other: &Room) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Room {}

impl Room {
    /// So many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Arc<Room> {
        Arc::new(Room {
            all: bytes,
            inner: Mutex::default(),
            refused: AtomicBool::new(false),
            called_in: AtomicU64::new(0),
        })
    }

    /// All of it, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.all
    }

    /// The most that one holder can have while nobody else has anything, in bytes.
    #[must_use]
    pub fn most_for_one(&self) -> usize {
        Shares { all: self.all, used: 0, by_listener: 0, by_client: 0 }.left()
    }

    /// Bytes that are leased.
    #[must_use]
    pub fn used(&self) -> usize {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// If a lease was refused since the last call, calls in the lease with the greatest weight, and returns its owner and bytes. Its
    /// session then says so ([`Lease::is_called_in`]); the reactors must be woken.
    pub fn relieve(&self, now_ns: u64) -> Option<(Owner, usize)> {
        if !self.refused.load(Ordering::Relaxed) || !self.refused.swap(false, Ordering::Relaxed) {
            return None;
        }
        let mut inner = self.lock();
        let weight = |e: &Entry| {
            let shares = inner.holdings.shares(self.all, inner.used, e.owner);
            let is_free = !e.called_in.load(Ordering::Relaxed);
            Weight::of(shares, e.bytes, e.since_ns, now_ns).filter(|_| is_free)
        };
        let (_, heaviest) = inner.leases.values().filter_map(|e| Some((weight(e)?, e))).max_by_key(|(w, _)| *w)?;
        heaviest.called_in.store(true, Ordering::Relaxed);
        let found = (heaviest.owner, heaviest.bytes);
        inner.called.retain(|_, at| now_ns.saturating_sub(*at) < AFTERWARDS_NS);
        inner.called.insert(found.0, now_ns);
        drop(inner);
        self.called_in.fetch_add(1, Ordering::Release);
        Some(found)
    }

    /// Changes whenever a lease was called in.
    #[must_use]
    pub fn called_in(&self) -> u64 {
        self.called_in.load(Ordering::Acquire)
    }
}

/// A part of the room; given back when dropped.
#[derive(Debug)]
pub struct Lease {
    room: Arc<Room>,
    id: u64,
    called_in: Arc<AtomicBool>,
}

impl Lease {
    /// An empty one.
    #[must_use]
    pub fn new(room: &Arc<Room>, owner: Owner, now_ns: u64) -> Lease {
        let called_in = Arc::new(AtomicBool::new(false));
        let mut inner = room.lock();
        let id = inner.next;
        inner.next += 1;
        let is_small = inner.called.get(&owner).is_some_and(|at| now_ns.saturating_sub(*at) < AFTERWARDS_NS);
        let entry = Entry { owner, bytes: 0, since_ns: now_ns, is_small, called_in: Arc::clone(&called_in) };
        inner.leases.insert(id, entry);
        drop(inner);
        Lease { room: Arc::clone(room), id, called_in }
    }

    /// Takes more.
    ///
    /// # Errors
    /// There is not so much for one body in all, or not for this owner now.
    pub fn grow(&mut self, bytes: usize) -> Result<(), NoRoom> {
        let mut inner = self.room.lock();
        let Inner { used, holdings, leases, .. } = &mut *inner;
        let Some(entry) = leases.get_mut(&self.id) else { return Err(NoRoom::Now) };
        let alone = Shares { all: self.room.all, used: 0, by_listener: 0, by_client: 0 };
        if entry.bytes.saturating_add(bytes) > alone.left() {
            return Err(NoRoom::Never);
        }
        let shares = holdings.shares(self.room.all, *used, entry.owner);
        let small = if entry.is_small { (self.room.all / 16).saturating_sub(shares.by_client) } else { usize::MAX };
        if bytes > shares.left().min(small) {
            self.room.refused.store(true, Ordering::Relaxed);
            return Err(NoRoom::Now);
        }
        *used += bytes;
        holdings.change(entry.owner, 0, bytes);
        entry.bytes += bytes;
        Ok(())
    }

    /// The most that it can be while nobody else has anything, in bytes.
    #[must_use]
    pub fn most(&self) -> usize {
        self.room.most_for_one()
    }

    /// Bytes that were taken.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.room.lock().leases.get(&self.id).map_or(0, |entry| entry.bytes)
    }

    /// True if others need this memory. Then its holder must end.
    #[must_use]
    pub fn is_called_in(&self) -> bool {
        self.called_in.load(Ordering::Relaxed)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut inner = self.room.lock();
        if let Some(entry) = inner.leases.remove(&self.id) {
            inner.used -= entry.bytes;
            inner.holdings.change(entry.owner, entry.bytes, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: usize = 1 << 20;

    fn owner(listener: ListenerId, address: u8) -> Owner {
        Owner { listener, client: Some(Client::of([192, 0, 2, address].into(), 64)) }
    }

    fn lease(room: &Arc<Room>, owner: Owner, bytes: usize, now_ns: u64) -> Result<Lease, NoRoom> {
        let mut lease = Lease::new(room, owner, now_ns);
        lease.grow(bytes).map(|()| lease)
    }

    #[test]
    fn one_client_leaves_something_for_others_and_one_listener_for_other_listeners() {
        let room = Room::new(16 * MIB);
        let greedy: Vec<Lease> = (0..200).map_while(|_| lease(&room, owner(0, 1), MIB / 8, 0).ok()).collect();
        assert_eq!(room.used(), 12 * MIB, "three quarters");
        let crowd: Vec<Lease> = (2..100).filter_map(|i| lease(&room, owner(0, i), MIB / 8, 0).ok()).collect();
        assert_eq!(room.used(), 14 * MIB, "seven eighths");
        let private: Vec<Lease> = (0..200).map_while(|_| lease(&room, owner(1, 1), MIB / 8, 0).ok()).collect();
        assert_eq!(room.used(), 15 * MIB, "a sixteenth");
        assert!(lease(&room, owner(2, 1), MIB, 0).is_ok(), "and each further listener has its part");
        drop((greedy, crowd, private));
        assert_eq!(room.used(), 0);
        let inner = room.lock();
        assert!(inner.holdings.clients.is_empty() && inner.leases.is_empty(), "who is gone leaves nothing behind");
    }

    #[test]
    fn the_largest_of_the_heaviest_ends_when_somebody_waits_and_not_before_its_time() {
        let room = Room::new(16 * MIB);
        let large = lease(&room, owner(0, 1), 8 * MIB, 0).unwrap();
        let small = lease(&room, owner(0, 1), 3 * MIB, 0).unwrap();
        let other = lease(&room, owner(1, 9), MIB / 2, 0).unwrap();
        assert_eq!(room.relieve(2 * GRACE_NS), None, "nobody waits");
        assert!(lease(&room, owner(1, 9), 8 * MIB, 0).is_err_and(|e| e == NoRoom::Now));
        assert_eq!(room.relieve(GRACE_NS - 1), None, "not yet");
        assert!(lease(&room, owner(1, 9), 8 * MIB, 0).is_err());
        assert_eq!(room.relieve(GRACE_NS), Some((owner(0, 1), 8 * MIB)));
        assert!(large.is_called_in() && !small.is_called_in() && !other.is_called_in());
        assert_eq!((room.called_in(), room.relieve(GRACE_NS)), (1, None));
        drop(large);
        assert!(
            lease(&room, owner(0, 1), 8 * MIB, GRACE_NS + 1).is_err(),
            "who was in the way is not the first to come back"
        );
        assert!(lease(&room, owner(2, 1), MIB / 2, GRACE_NS + 1).is_ok());
        assert!(lease(&room, owner(1, 9), 8 * MIB, 0).is_ok());
        assert!(lease(&room, owner(1, 9), 13 * MIB, 0).is_err_and(|e| e == NoRoom::Never));
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_there_is_and_who_holds_nothing_gets_something(
            all in 64usize..1 << 20, takes in proptest::collection::vec((0u16..3, 0u8..20, 0usize..1 << 17), 0..200),
        ) {
            let (mut holdings, mut used) = (Holdings::default(), 0);
            for (listener, client, wanted) in takes {
                let shares = holdings.shares(all, used, owner(listener, client));
                let got = wanted.min(shares.left());
                holdings.change(owner(listener, client), 0, got);
                used += got;
                prop_assert!(used <= all);
                if let Some(most) = Shares::left_for_all(all, used) {
                    prop_assert!(most <= holdings.shares(all, used, owner(listener, client)).left());
                }
            }
            let first = (0..3).all(|l| holdings.shares(all, used, owner(l, 0)).by_listener < all / 8);
            prop_assert!(first || used >= all / 8);
            // A listener that holds nothing gets some, unless others have taken the last eighth in small parts.
            let fresh = holdings.shares(all, used, owner(9, 0));
            prop_assert!(fresh.left() > 0 || used > all / 8 * 7);
        }
    }
}
