//! Accounts for every line: `received = durable + written + in flight + dropped + at risk`, at every scrape.
//!
//! Each thread has a [`Ledger`] that only it writes, and counts each term where it happens. A ledger is a sequence lock: a
//! reader sees all terms of one update, or none. A snapshot reads the ledgers downstream first. So a line that moves on
//! meanwhile shows up as in flight, never as missing twice.

use crate::host::sync::{AtomicU64, Ordering, fence, yield_now};
use crossbeam_utils::CachePadded;
use std::sync::Arc;

/// Why a received line was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Reason {
    /// `drop_newest`: no chunk was free.
    BufferFull,
    /// `drop_oldest`: evicted from the ring.
    Evicted,
    /// Longer than `max_line_bytes` with `too_long = "drop"` or `"close"`.
    TooLong,
    /// A clean end inside a line, with `unterminated = "drop"`.
    Unterminated,
    /// A reset or error inside a line.
    Reset,
    /// `line_timeout` inside a line.
    LineTimeout,
    /// Its connection held the most room for partial lines, and others needed it.
    NoRoom,
    /// The disk failed for the second time; what was in memory could not be written.
    DiskFailed,
    /// `shutdown_timeout` was over before the disk took it.
    Shutdown,
    /// The beginning of another protocol; its connection was closed.
    Unexpected,
}

/// All reasons, in the order of their discriminants.
pub const REASONS: [(Reason, &str); 10] = [
    (Reason::BufferFull, "buffer_full"),
    (Reason::Evicted, "evicted"),
    (Reason::TooLong, "too_long"),
    (Reason::Unterminated, "unterminated"),
    (Reason::Reset, "reset"),
    (Reason::LineTimeout, "line_timeout"),
    (Reason::NoRoom, "no_room"),
    (Reason::DiskFailed, "disk_failed"),
    (Reason::Shutdown, "shutdown"),
    (Reason::Unexpected, "unexpected"),
];

/// What a ledger counts, in lines and in bytes, per listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// A whole record was found by framing.
    Received,
    /// It went into a chunk.
    Entered,
    /// It left the chunks: written, evicted or given up. (A count that can go back: rewriting after a failed sync.)
    Left,
    /// Written, not synced yet. (A level.)
    Written,
    /// Synced.
    Durable,
    /// Written, and its sync failed when the line was no longer in memory.
    AtRisk,
    /// Dropped.
    Dropped(Reason),
}

const TERMS: usize = 6 + REASONS.len();

impl Term {
    fn index(self) -> usize {
        match self {
            Term::Received => 0,
            Term::Entered => 1,
            Term::Left => 2,
            Term::Written => 3,
            Term::Durable => 4,
            Term::AtRisk => 5,
            Term::Dropped(reason) => 6 + reason as usize,
        }
    }
}

/// Lines and their bytes, as they stand in the file (a dropped line: as received), terminators included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Records.
    pub lines: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Tally {
    /// Adds another.
    pub fn add(&mut self, other: Tally) {
        self.lines = self.lines.wrapping_add(other.lines);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }

    /// Takes another away.
    pub fn sub(&mut self, other: Tally) {
        self.lines = self.lines.wrapping_sub(other.lines);
        self.bytes = self.bytes.wrapping_sub(other.bytes);
    }

    /// True where there is nothing.
    #[must_use]
    pub fn is_zero(self) -> bool {
        self == Tally::default()
    }
}

/// The counts of one thread. Written by that thread only; read by anybody.
pub struct Ledger {
    version: CachePadded<AtomicU64>,
    cells: Box<[AtomicU64]>,
}

/// An update in progress; readers see it when it is dropped.
pub struct Entry<'a> {
    ledger: &'a Ledger,
    version: u64,
}

impl Ledger {
    /// A ledger for so many listeners.
    #[must_use]
    pub fn new(listeners: usize) -> Arc<Ledger> {
        let cells = (0..listeners * TERMS * 2).map(|_| AtomicU64::new(0)).collect();
        Arc::new(Ledger { version: CachePadded::new(AtomicU64::new(0)), cells })
    }

    /// Begins an update. Only the owning thread may call this.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        fence(Ordering::Release); // the odd version is visible before any cell changes
        Entry { ledger: self, version }
    }

    fn read_into(&self, cells: &mut [Tally]) {
        loop {
            let before = self.version.load(Ordering::Acquire);
            if before.is_multiple_of(2) {
                for (tally, pair) in cells.iter_mut().zip(self.cells.chunks_exact(2)) {
                    *tally = Tally { lines: pair[0].load(Ordering::Relaxed), bytes: pair[1].load(Ordering::Relaxed) };
                }
                fence(Ordering::Acquire); // the cells are read before the second look at the version
                if self.version.load(Ordering::Relaxed) == before {
                    return;
                }
            }
            yield_now(); // the writer may have been preempted inside its update
        }
    }
}

impl Entry<'_> {
    /// Adds to a term.
    pub fn add(&mut self, listener: u16, term: Term, tally: Tally) {
        self.change(listener, term, |cell, by| cell.wrapping_add(by), tally);
    }

    /// Takes from a term that is a level.
    pub fn sub(&mut self, listener: u16, term: Term, tally: Tally) {
        self.change(listener, term, |cell, by| cell.wrapping_sub(by), tally);
    }

    fn change(&mut self, listener: u16, term: Term, op: impl Fn(u64, u64) -> u64, by: Tally) {
        let at = (usize::from(listener) * TERMS + term.index()) * 2;
        let [lines, bytes] = [&self.ledger.cells[at], &self.ledger.cells[at + 1]];
        lines.store(op(lines.load(Ordering::Relaxed), by.lines), Ordering::Relaxed);
        bytes.store(op(bytes.load(Ordering::Relaxed), by.bytes), Ordering::Relaxed);
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.ledger.version.store(self.version + 2, Ordering::Release);
    }
}

/// All ledgers of a server.
pub struct Accounting {
    listeners: usize,
    /// Writers, and what reactors evict from rings: read first.
    pub downstream: Vec<Arc<Ledger>>,
    /// Reactors: read last.
    pub upstream: Vec<Arc<Ledger>>,
    /// Bytes that all chunks together can hold; more cannot be in flight.
    pub capacity_bytes: u64,
}

/// One listener's account at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    /// Whole records found.
    pub received: Tally,
    /// In chunks: being filled, in rings, at the writer.
    pub in_flight: Tally,
    /// Written, not synced yet.
    pub written: Tally,
    /// Synced.
    pub durable: Tally,
    /// At risk: perhaps lost by a failed sync.
    pub at_risk: Tally,
    /// Dropped, by reason.
    pub dropped: [Tally; REASONS.len()],
}

impl Account {
    /// Received less all other terms. It is 0 unless a count is wrong.
    #[must_use]
    pub fn residual(&self) -> Tally {
        let mut left = self.received;
        for term in [self.in_flight, self.written, self.durable, self.at_risk].iter().chain(&self.dropped) {
            left.sub(*term);
        }
        left
    }
}

impl Accounting {
    /// Listeners that there is room for.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.listeners
    }

    /// An accounting for so many listeners, without ledgers yet.
    #[must_use]
    pub fn new(listeners: usize) -> Accounting {
        Accounting { listeners, downstream: Vec::new(), upstream: Vec::new(), capacity_bytes: 0 }
    }

    /// A consistent snapshot, one account per listener.
    ///
    /// While lines stream through, a snapshot that was preempted between two ledgers can show more in flight than there
    /// is memory for; it is then taken again.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Account> {
        let mut accounts = self.read();
        for _ in 0..1000 {
            let in_flight: u64 = accounts.iter().map(|a| a.in_flight.bytes).sum();
            if in_flight <= self.capacity_bytes {
                break;
            }
            accounts = self.read();
        }
        accounts
    }

    fn read(&self) -> Vec<Account> {
        let mut sums = vec![Tally::default(); self.listeners * TERMS];
        let mut cells = sums.clone();
        for ledger in self.downstream.iter().chain(&self.upstream) {
            ledger.read_into(&mut cells);
            sums.iter_mut().zip(&cells).for_each(|(sum, cell)| sum.add(*cell));
        }
        let account = |terms: &[Tally]| {
            let mut in_flight = terms[Term::Entered.index()];
            in_flight.sub(terms[Term::Left.index()]);
            Account {
                received: terms[Term::Received.index()],
                in_flight,
                written: terms[Term::Written.index()],
                durable: terms[Term::Durable.index()],
                at_risk: terms[Term::AtRisk.index()],
                dropped: std::array::from_fn(|i| terms[6 + i]),
            }
        };
        sums.chunks_exact(TERMS).map(account).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn reasons_are_listed_in_their_order() {
        for (i, (reason, _)) in REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }

    #[test]
    fn snapshots_balance_while_threads_count() {
        let (reactor, writer) = (Ledger::new(2), Ledger::new(2));
        let accounting = Accounting {
            downstream: vec![Arc::clone(&writer)],
            upstream: vec![Arc::clone(&reactor)],
            capacity_bytes: u64::MAX,
            ..Accounting::new(2)
        };
        let stop = AtomicBool::new(false);
        let entered = AtomicU64::new(0);
        let one = Tally { lines: 1, bytes: 10 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let mut entry = reactor.entry();
                    entry.add(1, Term::Received, one);
                    entry.add(1, Term::Entered, one);
                    drop(entry);
                    entered.fetch_add(1, Ordering::Release);
                }
            });
            scope.spawn(|| {
                let mut left = 0;
                while !stop.load(Ordering::Relaxed) {
                    if left < entered.load(Ordering::Acquire) {
                        left += 1;
                        let mut entry = writer.entry();
                        entry.add(1, Term::Left, one);
                        entry.add(1, Term::Written, one);
                        drop(entry);
                        let mut entry = writer.entry();
                        entry.sub(1, Term::Written, one);
                        entry.add(1, Term::Durable, one);
                    }
                }
            });
            for _ in 0..20_000 {
                let account = accounting.snapshot()[1];
                assert!(account.residual().is_zero(), "{account:?}");
                assert!(account.in_flight.lines < 1 << 62, "{account:?}");
            }
            stop.store(true, Ordering::Relaxed);
        });
    }
}
