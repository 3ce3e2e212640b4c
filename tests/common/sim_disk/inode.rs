//! One file of the simulated disk, in its three layers.

use super::Chance;
use std::collections::BTreeSet;

/// What the page cache writes back at once.
pub const PAGE: usize = 4096;
/// What a device writes whole or not at all.
const SECTOR: usize = 512;

#[derive(Debug, Clone, Default)]
pub struct Inode {
    /// What processes see.
    pub now: Vec<u8>,
    /// Pages of `now` that were not written back.
    pub dirty: BTreeSet<usize>,
    /// What the device was given.
    device: Vec<u8>,
    /// What is on the platter.
    platter: Vec<u8>,
    /// Pages whose write-back has failed and that are clean since: a sync says nothing about them.
    pub lost: BTreeSet<usize>,
}

impl Inode {
    pub fn touch(&mut self, from: usize, to: usize) {
        for page in from / PAGE..to.div_ceil(PAGE).max(from / PAGE + 1) {
            self.dirty.insert(page);
            self.lost.remove(&page);
        }
    }

    /// Gives a page to the device.
    pub fn write_back(&mut self, page: usize) {
        self.dirty.remove(&page);
        let (start, end) = (page * PAGE, ((page + 1) * PAGE).min(self.now.len()));
        if start < end {
            if self.device.len() < end {
                self.device.resize(end, 0);
            }
            self.device[start..end].copy_from_slice(&self.now[start..end]);
        }
    }

    /// Writes past all caches, as `O_DIRECT` with `O_DSYNC` does.
    pub fn write_through(&mut self, from: usize, bytes: &[u8]) {
        let end = from + bytes.len();
        for layer in [&mut self.now, &mut self.device, &mut self.platter] {
            if layer.len() < end {
                layer.resize(end, 0);
            }
            layer[from..end].copy_from_slice(bytes);
        }
    }

    /// True if what processes see of a page is not what the platter has.
    pub fn differs(&self, page: usize) -> bool {
        let part = |of: &[u8]| of.get(page * PAGE..).map(|rest| rest[..rest.len().min(PAGE)].to_vec());
        part(&self.now) != part(&self.platter)
    }

    /// `fsync`, and the size with it.
    pub fn flush(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.write_back(page);
        }
        self.device.resize(self.now.len(), 0);
        self.platter.clone_from(&self.device);
    }

    pub fn cut(&mut self, chance: &mut Chance) {
        let (synced, most) = (self.platter.len(), self.now.len().max(self.platter.len()));
        // The size on the platter is somewhere between what was synced and what was written.
        let mut size = match chance.below(3) {
            0 => synced,
            1 => most,
            _ => {
                synced.min(self.now.len()) + chance.below(most.abs_diff(synced.min(self.now.len())) as u64 + 1) as usize
            }
        };
        if chance.coin() {
            size = size.next_multiple_of(PAGE).min(most.max(size));
        }
        if self.now.len() < synced && chance.coin() {
            size = self.now.len();
        }
        let mut after = vec![0; size];
        // Whole pages now and then, else each sector by itself: devices differ.
        let unit = if chance.coin() { SECTOR } else { PAGE };
        for start in (0..size).step_by(unit) {
            let end = (start + unit).min(size);
            let layer = match chance.below(3) {
                0 => &self.platter,
                1 => &self.device,
                _ if self.dirty.contains(&(start / PAGE)) => &self.now,
                _ => &self.device,
            };
            let there = layer.len().min(end);
            if start < there {
                after[start..there].copy_from_slice(&layer[start..there]);
            }
        }
        self.platter.clone_from(&after);
        self.device.clone_from(&after);
        *self = Inode {
            now: after,
            device: std::mem::take(&mut self.device),
            platter: std::mem::take(&mut self.platter),
            ..Inode::default()
        };
    }
}
