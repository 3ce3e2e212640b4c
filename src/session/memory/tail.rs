//! Partial lines between two receives: a fixed store of small blocks for each reactor.
//!
//! Two blocks belong to each connection, so a connection that is between lines can always go on. Beyond them a store has a
//! budget that [`super::room`] shares out. When it is spent, the largest and oldest holder ends after a while. Until then one
//! connection (it has the lane) may go on, block by block, into a reserve for one line of the greatest length. So a line that
//! is longer than the budget completes too, and that connection never leaves more behind than it held.

use super::room::{Holdings, Owner, Shares};
use memmap2::MmapMut;
use std::io;

/// Bytes in a block. Small, since most partial lines are short and each takes at least one.
pub const BLOCK: usize = 512;
/// Blocks that each connection may have whatever the others hold: most lines and heads of requests are shorter than two.
pub const OWN_BLOCKS: usize = 2;
const NONE: u32 = u32::MAX;

/// The partial line of one connection: a chain of blocks. Empty it owns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailHandle {
    first: u32,
    last: u32,
    len: u32,
    /// Blocks that its owner's share was last charged for.
    settled: u32,
    owner: Owner,
}

impl Default for TailHandle {
    fn default() -> Self {
        TailHandle::of(Owner::default())
    }
}

impl TailHandle {
    /// An empty one, whose blocks will be charged to this owner.
    #[must_use]
    pub fn of(owner: Owner) -> TailHandle {
        TailHandle { first: NONE, last: NONE, len: 0, settled: 0, owner }
    }

    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// True when there is no partial line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Blocks that it takes.
    #[must_use]
    pub fn blocks(&self) -> usize {
        self.len().div_ceil(BLOCK)
    }

    /// Blocks that it takes of the budget.
    #[must_use]
    pub fn charged(&self) -> usize {
        self.blocks().saturating_sub(OWN_BLOCKS)
    }

    /// Bytes that fit in the blocks that are its own or that it has.
    fn slack(&self) -> usize {
        self.blocks().max(OWN_BLOCKS) * BLOCK - self.len()
    }
}

/// The blocks of one reactor.
#[derive(Debug)]
pub struct TailStore {
    memory: MmapMut,
    next: Vec<u32>,
    free: u32,
    untouched: u32,
    /// Blocks in use.
    held: usize,
    /// Of them, those beyond each connection's own.
    used: usize,
    budget: usize,
    holdings: Holdings,
    /// Changes whenever something of the budget was given back.
    given_back: u64,
}

/// Memory of a store for `budget_bytes` of partial lines beside a reserve for one line of `line_bytes`; the blocks that are the
/// connections' own are part of the memory of a connection.
#[must_use]
pub const fn memory_of_store(budget_bytes: usize, line_bytes: usize) -> usize {
    blocks_of(budget_bytes, line_bytes) * (BLOCK + size_of::<u32>())
}

/// Memory of the blocks that are a connection's own.
pub const BYTES_PER_CONNECTION: usize = OWN_BLOCKS * (BLOCK + size_of::<u32>());

const fn blocks_of(budget_bytes: usize, line_bytes: usize) -> usize {
    // Three more than the line: its terminator, the block in which the lane's last receive begins, and the one in which it ends.
    budget_bytes.div_ceil(BLOCK) + line_bytes.div_ceil(BLOCK) + 3
}

impl TailStore {
    /// A store for so many connections; nothing of it is touched before it is used.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub fn new(budget_bytes: usize, line_bytes: usize, connections: usize) -> io::Result<TailStore> {
        let blocks = blocks_of(budget_bytes, line_bytes) + connections * OWN_BLOCKS;
        Ok(TailStore {
            memory: MmapMut::map_anon(blocks * BLOCK)?,
            next: Vec::with_capacity(blocks),
            free: NONE,
            untouched: 0,
            held: 0,
            used: 0,
            budget: budget_bytes.div_ceil(BLOCK),
            holdings: Holdings::default(),
            given_back: 0,
        })
    }

    /// How many bytes the owner of `tail` may receive now, so that there is room for what it leaves behind. 0: it must wait.
    #[must_use]
    pub fn allowance(&self, tail: &TailHandle, is_lane: bool) -> usize {
        let left = Shares::left_for_all(self.budget, self.used).unwrap_or_else(|| self.shares(tail).left());
        match tail.slack() + left * BLOCK {
            0 if is_lane => BLOCK,
            bytes => bytes,
        }
    }

    /// What the owner of `tail` holds, in blocks.
    #[must_use]
    pub fn shares(&self, tail: &TailHandle) -> Shares {
        self.holdings.shares(self.budget, self.used, tail.owner)
    }

    /// The least number of blocks for which a holder is ended: what a client that holds little may have.
    #[must_use]
    pub fn useful(&self) -> usize {
        self.budget / 16
    }

    /// Changes whenever something of the budget was given back: those who wait for room may look again.
    #[must_use]
    pub fn given_back(&self) -> u64 {
        self.given_back
    }

    /// Bytes in blocks that are in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.held * BLOCK
    }

    /// The view of one connection's tail.
    pub fn tail<'a>(&'a mut self, handle: &'a mut TailHandle) -> Tail<'a> {
        Tail { store: self, handle }
    }

    /// Charges the owner of a tail for what it has now.
    fn settle(&mut self, tail: &mut TailHandle) {
        let charged = tail.charged();
        if charged != tail.settled as usize {
            self.holdings.change(tail.owner, tail.settled as usize, charged);
            self.given_back += u64::from(charged < tail.settled as usize);
            tail.settled = charged as u32;
        }
    }

    fn take_block(&mut self) -> u32 {
        self.held += 1;
        if self.free != NONE {
            let block = self.free;
            self.free = self.next[block as usize];
            return block;
        }
        let block = self.untouched;
        assert!((block as usize + 1) * BLOCK <= self.memory.len(), "allowance keeps tails within the store");
        self.untouched += 1;
        self.next.push(NONE);
        block
    }

    fn block(&mut self, block: u32) -> &mut [u8] {
        &mut self.memory[block as usize * BLOCK..(block as usize + 1) * BLOCK]
    }
}

/// One connection's partial line, with the store it lives in.
pub struct Tail<'a> {
    store: &'a mut TailStore,
    handle: &'a mut TailHandle,
}

impl Tail<'_> {
    /// Bytes in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.handle.len()
    }

    /// True when there is no partial line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.handle.is_empty()
    }

    /// As [`TailStore::allowance`].
    #[must_use]
    pub fn allowance(&self, is_lane: bool) -> usize {
        self.store.allowance(self.handle, is_lane)
    }

    /// Adds bytes at the end.
    pub fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let used = self.handle.len() % BLOCK;
            if used == 0 {
                let block = self.store.take_block();
                self.store.used += usize::from(self.handle.blocks() >= OWN_BLOCKS);
                self.store.next[block as usize] = NONE;
                match self.handle.last {
                    NONE => self.handle.first = block,
                    last => self.store.next[last as usize] = block,
                }
                self.handle.last = block;
            }
            let n = bytes.len().min(BLOCK - used);
            self.store.block(self.handle.last)[used..used + n].copy_from_slice(&bytes[..n]);
            self.handle.len += n as u32;
            bytes = &bytes[n..];
        }
    }

    /// Copies it all to the start of `to`.
    pub fn copy_to(&mut self, to: &mut [u8]) {
        let len = self.len();
        self.copy_beginning(&mut to[..len]);
    }

    /// Copies its beginning to the start of `to`, as much as fits. Returns how many bytes.
    pub fn copy_beginning(&mut self, to: &mut [u8]) -> usize {
        let (mut block, mut done, len) = (self.handle.first, 0, self.len().min(to.len()));
        while done < len {
            let n = BLOCK.min(len - done);
            to[done..done + n].copy_from_slice(&self.store.block(block)[..n]);
            done += n;
            block = self.store.next[block as usize];
        }
        len
    }

    /// Cuts it to its first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        let keep = len.div_ceil(BLOCK);
        self.store.used -= self.handle.charged() - keep.saturating_sub(OWN_BLOCKS);
        let mut last = NONE;
        let mut rest = self.handle.first;
        for _ in 0..keep {
            last = rest;
            rest = self.store.next[rest as usize];
        }
        while rest != NONE {
            let next = self.store.next[rest as usize];
            self.store.next[rest as usize] = self.store.free;
            self.store.free = rest;
            self.store.held -= 1;
            rest = next;
        }
        match last {
            NONE => self.handle.first = NONE,
            last => self.store.next[last as usize] = NONE,
        }
        self.handle.last = last;
        self.handle.len = len as u32;
    }

    /// Gives all its blocks back.
    pub fn clear(&mut self) {
        self.truncate(0);
    }
}

impl Drop for Tail<'_> {
    fn drop(&mut self) {
        self.store.settle(self.handle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Op {
        Append(usize, Vec<u8>),
        Truncate(usize, usize),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0usize..4, proptest::collection::vec(any::<u8>(), 0..1500)).prop_map(|(i, b)| Op::Append(i, b)),
            (0usize..4, 0usize..3000).prop_map(|(i, n)| Op::Truncate(i, n)),
        ]
    }

    proptest! {
        #[test]
        fn tails_hold_what_was_put_in_and_leak_nothing(ops in proptest::collection::vec(op(), 1..60)) {
            let mut store = TailStore::new(200_000, 1000, 4).unwrap();
            let mut handles = [TailHandle::default(); 4];
            let mut model: [Vec<u8>; 4] = Default::default();
            for op in ops {
                match op {
                    Op::Append(i, bytes) => {
                        store.tail(&mut handles[i]).append(&bytes);
                        model[i].extend(bytes);
                    }
                    Op::Truncate(i, n) => {
                        store.tail(&mut handles[i]).truncate(n);
                        model[i].truncate(n);
                    }
                }
                for (handle, bytes) in handles.iter_mut().zip(&model) {
                    let mut out = vec![0; bytes.len()];
                    store.tail(handle).copy_to(&mut out);
                    prop_assert_eq!(&out, bytes);
                }
                let blocks: usize = model.iter().map(|m| m.len().div_ceil(BLOCK)).sum();
                prop_assert_eq!(store.held, blocks);
                let charged: usize = handles.iter().map(TailHandle::charged).sum();
                prop_assert_eq!((store.used, store.shares(&handles[0]).by_client), (charged, charged));
            }
        }
    }

    #[test]
    fn the_lane_goes_on_when_the_budget_is_spent_and_so_does_whoever_is_between_lines() {
        let mut store = TailStore::new(4 * BLOCK, 10 * BLOCK, 2).unwrap();
        let (mut a, mut b) = (TailHandle::default(), TailHandle::default());
        let own = OWN_BLOCKS * BLOCK;
        while store.allowance(&a, false) > 0 {
            let n = store.allowance(&a, false);
            store.tail(&mut a).append(&vec![1; n]);
        }
        assert_eq!(a.len(), own + 3 * BLOCK);
        assert_eq!(store.allowance(&b, false), own, "its own blocks");
        store.tail(&mut b).append(&[2; 100]);
        assert_eq!(store.allowance(&b, false), own - 100);
        while a.len() < 10 * BLOCK {
            let n = store.allowance(&a, true);
            store.tail(&mut a).append(&vec![3; n]);
        }
        let before = store.given_back();
        store.tail(&mut a).clear();
        assert_ne!(store.given_back(), before);
        assert_eq!(store.allowance(&b, false), own - 100 + 3 * BLOCK);
    }
}
