//! Limits the number of connections, in all and of one client.

use crate::host::peer::{Client, Peer};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// `limits.max_connections`, over all reactors. Touched when a connection comes or goes.
#[derive(Debug)]
pub struct ConnectionLimit {
    open: AtomicUsize,
    /// What there is room for.
    fit: usize,
    most: AtomicUsize,
}

impl ConnectionLimit {
    /// So many at most.
    #[must_use]
    pub fn new(most: usize) -> Self {
        ConnectionLimit { open: AtomicUsize::new(0), fit: most, most: AtomicUsize::new(most) }
    }

    /// The greatest limit that there is room for.
    #[must_use]
    pub fn most(&self) -> usize {
        self.fit
    }

    /// Another limit, no greater than the first, for those who come from now on.
    pub fn set_most(&self, most: usize) {
        self.most.store(most.min(self.fit), Ordering::Relaxed);
    }

    pub(crate) fn enter(&self) -> bool {
        let entered = self.open.fetch_add(1, Ordering::Relaxed) < self.most.load(Ordering::Relaxed);
        if !entered {
            self.leave();
        }
        entered
    }

    pub(crate) fn leave(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// `max_connections_per_address` of one listener, over all reactors. Touched when a connection comes or goes; holds one
/// entry per address that is connected.
#[derive(Debug)]
pub struct AddressLimit {
    most: AtomicUsize,
    /// `limits.ipv6_prefix`
    ipv6_prefix: AtomicU8,
    open: Mutex<HashMap<Client, usize>>,
}

impl AddressLimit {
    /// So many at most; 0: no limit. So many bits of an IPv6 address are one client's.
    #[must_use]
    pub fn new(most: usize, ipv6_prefix: u8) -> Self {
        let (most, ipv6_prefix) = (AtomicUsize::new(most), AtomicU8::new(ipv6_prefix));
        AddressLimit { most, ipv6_prefix, open: Mutex::new(HashMap::new()) }
    }

    /// Other limits, for those who come from now on.
    pub fn set(&self, most: usize, ipv6_prefix: u8) {
        self.most.store(most, Ordering::Relaxed);
        self.ipv6_prefix.store(ipv6_prefix, Ordering::Relaxed);
    }

    /// Whom a connection counts for.
    pub(crate) fn client(&self, peer: &Peer) -> Option<Client> {
        peer.ip().map(|ip| Client::of(ip, self.ipv6_prefix.load(Ordering::Relaxed)))
    }

    pub(crate) fn enter(&self, ip: Client) -> bool {
        // Counted without a limit too: one may be set while they are connected.
        let most = self.most.load(Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(ip).or_insert(0);
        let enters = most == 0 || *count < most;
        *count += usize::from(enters);
        if *count == 0 {
            open.remove(&ip);
        }
        enters
    }

    pub(crate) fn leave(&self, ip: Client) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_those_inside() {
        let all = ConnectionLimit::new(1);
        assert!(all.enter());
        assert!(!all.enter());
        all.leave();
        assert!(all.enter());
        let per = AddressLimit::new(1, 64);
        let client = |last| Client::of([127, 0, 0, last].into(), 64);
        let (a, b) = (client(1), client(2));
        assert!(per.enter(a) && per.enter(b) && !per.enter(a));
        per.leave(a);
        assert!(per.enter(a));
        per.leave(a);
        per.leave(b);
        assert!(per.open.lock().unwrap().is_empty(), "addresses that are gone leave nothing behind");
    }
}
