//! A disk in memory that forgets, at a cut, what was not synced: every sector of 512 bytes and every change of a name survives
//! or not by a seeded coin. What a file system must not do: undo half of a rename.

use crate::common::ledger::{Dice, pass};
use fuser::{FileAttr, FileType, INodeNo};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

pub const SECTOR: usize = 512;
pub const ROOT: u64 = 1;

pub type Errno = i32;

/// So many calls are never made.
pub const NEVER: i64 = i64::MAX;

#[derive(Debug, Default)]
pub struct File {
    pub data: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync.
    dirty: BTreeSet<usize>,
    /// Sizes the file had since then.
    sizes: Vec<usize>,
    /// The name it was made with.
    name: String,
    sync_failed: bool,
}

#[derive(Debug, Default)]
pub struct Dir {
    pub now: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    /// What is not durable yet.
    changes: Vec<Change>,
}

#[derive(Debug, Clone)]
enum Change {
    Set(String, u64),
    Remove(String),
    Rename(String, String, u64),
}

#[derive(Debug)]
pub enum Node {
    File(File),
    Dir(Dir),
    Link(String),
}

/// What is to go wrong.
#[derive(Debug)]
pub struct Knobs {
    pub write_delay_ms: AtomicU64,
    pub sync_delay_ms: AtomicU64,
    /// Only files whose name begins so are slow.
    pub slow: Mutex<String>,
    /// Bytes that all files together may have.
    pub capacity: AtomicU64,
    /// The write, or sync, after so many more fails with that, and some after it: [`Knobs::fail_for`] in all.
    pub fail_write: AtomicI64,
    pub fail_sync: AtomicI64,
    pub fail_for: AtomicI64,
    pub errno: AtomicI64,
    /// Says yes to every sync of a segment and does nothing.
    pub lies: AtomicBool,
    /// After the cut: nothing goes any more.
    pub is_cut: AtomicBool,
    pub writes: AtomicU64,
    pub syncs: AtomicU64,
    pub synced_after_failure: AtomicBool,
}

#[derive(Debug)]
pub struct MemoryDisk {
    nodes: Mutex<HashMap<u64, Node>>,
    next: AtomicU64,
    pub knobs: Knobs,
}

impl MemoryDisk {
    pub fn new() -> MemoryDisk {
        let knobs = Knobs {
            write_delay_ms: AtomicU64::new(0),
            sync_delay_ms: AtomicU64::new(0),
            slow: Mutex::default(),
            capacity: AtomicU64::new(u64::MAX),
            fail_write: AtomicI64::new(NEVER),
            fail_sync: AtomicI64::new(NEVER),
            fail_for: AtomicI64::new(1),
            errno: AtomicI64::new(libc::EIO.into()),
            lies: AtomicBool::new(false),
            is_cut: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            synced_after_failure: AtomicBool::new(false),
        };
        let nodes = Mutex::new(HashMap::from([(ROOT, Node::Dir(Dir::default()))]));
        MemoryDisk { nodes, next: AtomicU64::new(ROOT + 1), knobs }
    }

    /// Runs `with` on all nodes, unless the power is off.
    pub fn with<T>(&self, with: impl FnOnce(&mut HashMap<u64, Node>) -> Result<T, Errno>) -> Result<T, Errno> {
        if self.knobs.is_cut.load(Ordering::SeqCst) {
            return Err(libc::EIO);
        }
        with(&mut self.nodes.lock().unwrap())
    }

    pub fn used(&self) -> u64 {
        let nodes = self.nodes.lock().unwrap();
        nodes.values().map(|n| if let Node::File(f) = n { f.data.len() as u64 } else { 0 }).sum()
    }

    pub fn add(&self, parent: u64, name: &str, node: Node) -> Result<u64, Errno> {
        self.with(|nodes| {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let dir = dir(nodes, parent)?;
            if dir.now.contains_key(name) {
                return Err(libc::EEXIST);
            }
            dir.now.insert(name.into(), number);
            dir.changes.push(Change::Set(name.into(), number));
            nodes.insert(number, node);
            Ok(number)
        })
    }

    pub fn remove(&self, parent: u64, name: &str) -> Result<(), Errno> {
        self.with(|nodes| {
            let dir = dir(nodes, parent)?;
            dir.now.remove(name).ok_or(libc::ENOENT)?;
            dir.changes.push(Change::Remove(name.into()));
            Ok(())
        })
    }

    pub fn rename(&self, parent: u64, from: &str, to: &str, replace: bool) -> Result<(), Errno> {
        self.with(|nodes| {
            let dir = dir(nodes, parent)?;
            if !replace && dir.now.contains_key(to) {
                return Err(libc::EEXIST);
            }
            let number = dir.now.remove(from).ok_or(libc::ENOENT)?;
            dir.now.insert(to.into(), number);
            dir.changes.push(Change::Rename(from.into(), to.into(), number));
            Ok(())
        })
    }

    fn slow_down(&self, number: u64, delay: &AtomicU64) {
        let delay = delay.load(Ordering::SeqCst);
        if delay == 0 {
            return;
        }
        let slow = self.knobs.slow.lock().unwrap().clone();
        let is_slow = match self.nodes.lock().unwrap().get(&number) {
            Some(Node::File(file)) => file.name.starts_with(&slow),
            _ => slow.is_empty(),
        };
        if is_slow {
            pass(Duration::from_millis(delay));
        }
    }

    fn fails(&self, countdown: &AtomicI64) -> Result<(), Errno> {
        let left = countdown.fetch_sub(1, Ordering::SeqCst);
        if left <= 0 && left > -self.knobs.fail_for.load(Ordering::SeqCst) {
            return Err(self.knobs.errno.load(Ordering::SeqCst) as Errno);
        }
        Ok(())
    }

    pub fn write(&self, number: u64, offset: usize, bytes: &[u8]) -> Result<usize, Errno> {
        self.slow_down(number, &self.knobs.write_delay_ms);
        self.knobs.writes.fetch_add(1, Ordering::SeqCst);
        self.fails(&self.knobs.fail_write)?;
        let used = self.used();
        self.with(|nodes| {
            let file = file(nodes, number)?;
            let end = offset + bytes.len();
            let growth = end.saturating_sub(file.data.len()) as u64;
            let room = self.knobs.capacity.load(Ordering::SeqCst).saturating_sub(used);
            // As much of it as there is room for.
            let fits = bytes.len() - growth.saturating_sub(room).min(bytes.len() as u64) as usize;
            if fits == 0 && !bytes.is_empty() {
                return Err(libc::ENOSPC);
            }
            let end = offset + fits;
            if end > file.data.len() {
                file.data.resize(end, 0);
            }
            file.data[offset..end].copy_from_slice(&bytes[..fits]);
            file.dirty.extend(offset / SECTOR..end.div_ceil(SECTOR));
            file.sizes.push(file.data.len());
            Ok(fits)
        })
    }

    pub fn truncate(&self, number: u64, len: usize) -> Result<(), Errno> {
        self.with(|nodes| {
            let file = file(nodes, number)?;
            file.sizes.push(file.data.len());
            file.data.resize(len, 0);
            file.sizes.push(len);
            Ok(())
        })
    }

    pub fn sync(&self, number: u64) -> Result<(), Errno> {
        self.slow_down(number, &self.knobs.sync_delay_ms);
        self.knobs.syncs.fetch_add(1, Ordering::SeqCst);
        let result = self.fails(&self.knobs.fail_sync);
        self.with(|nodes| {
            match nodes.get_mut(&number).ok_or(libc::ENOENT)? {
                Node::File(file) => {
                    if file.sync_failed {
                        self.knobs.synced_after_failure.store(true, Ordering::SeqCst);
                    }
                    if result.is_err() {
                        // As in the kernel: what could not be written counts as clean from now on. A later sync says yes
                        // and does not bring it back.
                        file.sync_failed = true;
                        file.dirty.clear();
                    }
                    result?;
                    if !(self.knobs.lies.load(Ordering::SeqCst) && file.name.ends_with(".log.active")) {
                        file.sync();
                    }
                }
                Node::Dir(dir) => {
                    result?;
                    dir.durable = dir.now.clone();
                    dir.changes.clear();
                }
                Node::Link(_) => {}
            }
            Ok(())
        })
    }

    /// The power fails: from now on nothing is written and nothing read.
    pub fn cut(&self) {
        self.knobs.is_cut.store(true, Ordering::SeqCst);
    }

    /// And comes back: what was not synced is there in part.
    pub fn come_back(&self, dice: &mut Dice) {
        let mut nodes = self.nodes.lock().unwrap();
        for number in 1..self.next.load(Ordering::SeqCst) {
            match nodes.get_mut(&number) {
                Some(Node::File(file)) => file.forget(dice),
                Some(Node::Dir(dir)) => dir.forget(dice),
                _ => {}
            }
        }
        // What has no name any more is gone.
        let mut named: BTreeSet<u64> = BTreeSet::from([ROOT]);
        named.extend(
            nodes.values().flat_map(|n| if let Node::Dir(d) = n { d.now.values().copied().collect() } else { vec![] }),
        );
        nodes.retain(|number, _| named.contains(number));
        self.knobs.is_cut.store(false, Ordering::SeqCst);
    }

    pub fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        self.with(|nodes| {
            let names =
                nodes.values().filter(|n| matches!(n, Node::Dir(d) if d.now.values().any(|v| *v == number))).count();
            let (kind, size) = match nodes.get(&number).ok_or(libc::ENOENT)? {
                Node::File(file) => (FileType::RegularFile, file.data.len()),
                Node::Dir(_) => (FileType::Directory, 0),
                Node::Link(target) => (FileType::Symlink, target.len()),
            };
            let (time, perm) = (SystemTime::UNIX_EPOCH, if kind == FileType::Directory { 0o755 } else { 0o644 });
            Ok(FileAttr {
                ino: INodeNo(number),
                size: size as u64,
                blocks: size.div_ceil(SECTOR) as u64,
                atime: time,
                mtime: time,
                ctime: time,
                crtime: time,
                kind,
                perm,
                nlink: if kind == FileType::Directory { 2 } else { names as u32 },
                uid: 0,
                gid: 0,
                rdev: 0,
                blksize: 4096,
                flags: 0,
            })
        })
    }
}

pub fn dir(nodes: &mut HashMap<u64, Node>, number: u64) -> Result<&mut Dir, Errno> {
    match nodes.get_mut(&number) {
        Some(Node::Dir(dir)) => Ok(dir),
        Some(_) => Err(libc::ENOTDIR),
        None => Err(libc::ENOENT),
    }
}

pub fn file(nodes: &mut HashMap<u64, Node>, number: u64) -> Result<&mut File, Errno> {
    match nodes.get_mut(&number) {
        Some(Node::File(file)) => Ok(file),
        Some(_) => Err(libc::EISDIR),
        None => Err(libc::ENOENT),
    }
}

impl File {
    pub fn named(name: &str) -> File {
        File { name: name.into(), ..File::default() }
    }

    fn sync(&mut self) {
        self.durable.resize(self.data.len(), 0);
        for sector in std::mem::take(&mut self.dirty) {
            let (start, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(self.data.len()));
            if start < end {
                self.durable[start..end].copy_from_slice(&self.data[start..end]);
            }
        }
        self.sizes.clear();
    }

    fn forget(&mut self, dice: &mut Dice) {
        let survivors = [0, 1, 50, 90, 100][dice.below(5) as usize]; // percent
        let sizes = [&[self.durable.len()], &self.sizes[..]].concat();
        let size = sizes[dice.below(sizes.len() as u64) as usize];
        let mut left = std::mem::take(&mut self.durable);
        left.resize(size, 0);
        for sector in std::mem::take(&mut self.dirty) {
            let (start, mut end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(size).min(self.data.len()));
            if start >= end || dice.below(100) >= survivors {
                continue;
            }
            // Or as it was written out when the file ended in it.
            if let Some(earlier) = self.sizes.iter().find(|s| (start + 1..end).contains(*s))
                && dice.coin()
            {
                end = *earlier;
            }
            left[start..end].copy_from_slice(&self.data[start..end]);
        }
        self.data.clone_from(&left);
        self.durable = left;
        self.sizes.clear();
        self.sync_failed = false;
    }
}

impl Dir {
    fn forget(&mut self, dice: &mut Dice) {
        let survivors = [0, 50, 90, 100][dice.below(4) as usize];
        for change in std::mem::take(&mut self.changes) {
            if dice.below(100) >= survivors {
                continue;
            }
            match change {
                Change::Set(name, number) => drop(self.durable.insert(name, number)),
                Change::Remove(name) => drop(self.durable.remove(&name)),
                Change::Rename(from, to, number) => {
                    if self.durable.get(&from) == Some(&number) {
                        self.durable.remove(&from);
                    }
                    self.durable.insert(to, number);
                }
            }
        }
        self.now.clone_from(&self.durable);
    }
}

/// A file is durable up to its last sync, and no further.
#[test]
fn what_is_synced_stays_and_the_rest_may_go() {
    let (mut kept, mut lost) = (0, 0);
    for seed in 0..200 {
        let disk = MemoryDisk::new();
        let number = disk.add(ROOT, "f", Node::File(File::named("f"))).unwrap();
        disk.sync(ROOT).unwrap();
        disk.write(number, 0, &[b'a'; 700]).unwrap();
        disk.sync(number).unwrap();
        disk.write(number, 700, &[b'b'; 3000]).unwrap();
        disk.rename(ROOT, "f", "g", true).unwrap();
        disk.cut();
        assert_eq!(disk.write(number, 0, b"x"), Err(libc::EIO));
        disk.come_back(&mut Dice(seed));
        disk.with(|nodes| {
            let names: Vec<String> = dir(nodes, ROOT)?.now.keys().cloned().collect();
            assert!(names == ["f"] || names == ["g"], "{names:?}");
            let data = &file(nodes, number)?.data;
            assert!(data.len() >= 700 && data[..700].iter().all(|b| *b == b'a'));
            if data.len() == 3700 && !data.contains(&0) {
                kept += 1
            } else {
                lost += 1
            }
            Ok(())
        })
        .unwrap();
    }
    assert!(kept > 5 && lost > 5, "{kept} {lost}");
}
