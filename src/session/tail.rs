//! Partial lines between two receives: a fixed store of small blocks per reactor, with a budget and a reserved lane.
//!
//! While the budget lasts every connection may leave a partial line behind. When it is spent, one connection (the lane)
//! may still go on, into blocks reserved for one line of the greatest length, a block at a time: so some line always
//! completes, and what it leaves behind is never more than it held before.

use memmap2::MmapMut;
use std::io;

/// Bytes in a block. Small, since most partial lines are short and each takes at least one.
pub const BLOCK: usize = 512;
const NONE: u32 = u32::MAX;

/// The partial line of one connection: a chain of blocks. 12 bytes; empty it owns nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailHandle {
    first: u32,
    last: u32,
    len: u32,
}

impl Default for TailHandle {
    fn default() -> Self {
        TailHandle { first: NONE, last: NONE, len: 0 }
    }
}

impl TailHandle {
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

    fn slack(&self) -> usize {
        (BLOCK - self.len() % BLOCK) % BLOCK
    }
}

/// The blocks of one reactor.
#[derive(Debug)]
pub struct TailStore {
    memory: MmapMut,
    next: Vec<u32>,
    free: u32,
    untouched: u32,
    used: usize,
    budget: usize,
}

/// Memory of a store for `budget_bytes` of partial lines beside a reserve for one line of `line_bytes`.
#[must_use]
pub const fn memory_of_store(budget_bytes: usize, line_bytes: usize) -> usize {
    blocks_of(budget_bytes, line_bytes) * (BLOCK + size_of::<u32>())
}

const fn blocks_of(budget_bytes: usize, line_bytes: usize) -> usize {
    // Four more than the line: its terminator, the block in which the lane's last receive begins, one that the lane may
    // leave where it found none, and what a connection that comes from another reactor brings.
    budget_bytes.div_ceil(BLOCK) + line_bytes.div_ceil(BLOCK) + 4
}

impl TailStore {
    /// A store; nothing of it is touched before it is used.
    ///
    /// # Errors
    /// The kernel refuses the mapping.
    pub fn new(budget_bytes: usize, line_bytes: usize) -> io::Result<TailStore> {
        let blocks = blocks_of(budget_bytes, line_bytes);
        Ok(TailStore {
            memory: MmapMut::map_anon(blocks * BLOCK)?,
            next: Vec::with_capacity(blocks),
            free: NONE,
            untouched: 0,
            used: 0,
            budget: budget_bytes.div_ceil(BLOCK),
        })
    }

    /// Bytes that the owner of `tail` may receive now without leaving more behind than there is room for. 0: it waits.
    #[must_use]
    pub fn allowance(&self, tail: &TailHandle, is_lane: bool) -> usize {
        match self.budget.saturating_sub(self.used) {
            0 if is_lane => BLOCK,
            0 => 0,
            free => tail.slack() + free * BLOCK,
        }
    }

    /// True while the budget is spent.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.used >= self.budget
    }

    /// True while more than the budget is in use.
    #[must_use]
    pub fn is_overdrawn(&self) -> bool {
        self.used > self.budget
    }

    /// Bytes in blocks that are in use.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.used * BLOCK
    }

    /// The view of one connection's tail.
    pub fn tail<'a>(&'a mut self, handle: &'a mut TailHandle) -> Tail<'a> {
        Tail { store: self, handle }
    }

    fn take_block(&mut self) -> u32 {
        self.used += 1;
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
        let (mut block, mut done, len) = (self.handle.first, 0, self.len());
        while done < len {
            let n = BLOCK.min(len - done);
            to[done..done + n].copy_from_slice(&self.store.block(block)[..n]);
            done += n;
            block = self.store.next[block as usize];
        }
    }

    /// Cuts it to its first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        if len >= self.len() {
            return;
        }
        let keep = len.div_ceil(BLOCK);
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
            self.store.used -= 1;
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
            let mut store = TailStore::new(200_000, 1000).unwrap();
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
                prop_assert_eq!(store.used, blocks);
            }
        }
    }

    #[test]
    fn the_lane_goes_on_when_the_budget_is_spent() {
        let mut store = TailStore::new(BLOCK, 10 * BLOCK).unwrap();
        let (mut a, b) = (TailHandle::default(), TailHandle::default());
        store.tail(&mut a).append(&[1; BLOCK]);
        assert!(store.is_spent());
        assert_eq!(store.allowance(&b, false), 0);
        for _ in 0..10 {
            let n = store.allowance(&a, true);
            store.tail(&mut a).append(&vec![2; n]);
        }
        assert_eq!(a.len(), 11 * BLOCK);
        store.tail(&mut a).clear();
        assert!(store.allowance(&b, false) >= BLOCK);
    }
}
