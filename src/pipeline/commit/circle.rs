//! Which blocks of a commit log are in use: records lie one behind the other, in a circle, and none wraps.

use std::collections::VecDeque;

/// See the module documentation.
#[derive(Debug)]
pub struct Circle {
    blocks: u32,
    /// Where the next record goes, if there is room.
    head: u32,
    /// Starts of those in use, oldest first.
    used: VecDeque<u32>,
}

impl Circle {
    /// Of so many blocks, all of them free.
    #[must_use]
    pub fn new(blocks: u32) -> Circle {
        Circle { blocks, head: 0, used: VecDeque::new() }
    }

    /// The longest record: a quarter, so that a record never lies on the one before it, which says what is free.
    #[must_use]
    pub fn most(&self) -> u32 {
        (self.blocks / 4).max(1)
    }

    /// Takes `count` blocks side by side, and returns the first. `None`: there are not so many, or fewer than `reserve` would be left.
    pub fn take(&mut self, count: u32, reserve: u32) -> Option<u32> {
        if count > self.most() {
            return None;
        }
        let start = match self.used.front().copied() {
            // On from the last one, though it is free.
            None if count <= self.blocks - self.head => self.head,
            None => 0,
            // In use from the tail to the head, and the end of the file is free; or from the tail over the end.
            Some(tail) if self.head > tail && count <= self.blocks - self.head => self.head,
            Some(tail) if self.head > tail && count <= tail => 0,
            Some(tail) if self.head < tail && count <= tail - self.head => self.head,
            Some(_) => return None,
        };
        let before = self.head;
        self.head = (start + count) % self.blocks;
        self.used.push_back(start);
        if self.blocks - self.in_use() < reserve {
            self.used.pop_back();
            self.head = before;
            return None;
        }
        Some(start)
    }

    /// Frees the oldest.
    pub fn free(&mut self) {
        self.used.pop_front();
    }

    /// Blocks that cannot be taken now.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        match self.used.front() {
            None => 0,
            Some(tail) if *tail < self.head => self.head - tail,
            Some(tail) => self.blocks - tail + self.head,
        }
    }

    /// All blocks.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_block_is_given_twice(blocks in 1u32..20, ops in proptest::collection::vec(0u32..6, 1..200)) {
            let mut circle = Circle::new(blocks);
            let mut held: VecDeque<(u32, u32)> = VecDeque::new();
            for op in ops {
                if op == 0 {
                    held.pop_front();
                    circle.free();
                } else if let Some(start) = circle.take(op, 0) {
                    prop_assert!(start + op <= blocks, "none wraps");
                    for (other, len) in &held {
                        prop_assert!(start + op <= *other || other + len <= start, "{start}+{op} and {other}+{len}");
                    }
                    held.push_back((start, op));
                } else {
                    prop_assert!(!held.is_empty() || op > circle.most(), "an empty circle has room");
                }
                prop_assert!(circle.in_use() <= blocks);
            }
        }
    }
}
