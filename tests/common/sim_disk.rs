//! A disk in memory that can lose its power: what was not synced survives block by block, by chance, with holes of NULs;
//! names that were not synced survive by chance too. A process that dies leaves everything as the kernel has it.

use logweir::log::disk::{Caching, Disk, DiskFile};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// Blocks in which unsynced data survives or not.
const BLOCK: usize = 4096;

/// A small generator of its own: a seed is the whole story of a run.
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        // xorshift64*, Vigna 2016
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    pub fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    /// What processes see.
    now: Vec<u8>,
    /// What is on the platter.
    durable: Vec<u8>,
    sync_failed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    File(usize),
    Link(String),
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    /// Names as processes see them.
    names: BTreeMap<PathBuf, Entry>,
    /// Names as they are on the platter.
    durable_names: BTreeMap<PathBuf, Entry>,
    /// Fail the n-th call from now (0: the next), with this errno.
    fail_at: Option<(u64, i32)>,
    /// Mounts made so far: a power cut makes a new one.
    mount: u64,
    /// Calls so far.
    calls: u64,
    synced_after_failure: bool,
}

/// See the module. Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    pub fn new() -> SimDisk {
        let disk = SimDisk::default();
        disk.lock().mount = 1;
        disk
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The n-th call from now fails.
    pub fn fail_at(&self, n: u64, errno: i32) {
        self.lock().fail_at = Some((n, errno));
    }

    /// No more failures. True if one was still to come.
    pub fn heal(&self) -> bool {
        self.lock().fail_at.take().is_some()
    }

    /// Takes the failure that is still to come away, for [`SimDisk::put_failure`].
    pub fn take_failure(&self) -> Option<(u64, i32)> {
        self.lock().fail_at.take()
    }

    pub fn put_failure(&self, failure: Option<(u64, i32)>) {
        self.lock().fail_at = failure;
    }

    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    pub fn synced_after_failure(&self) -> bool {
        self.lock().synced_after_failure
    }

    /// Takes the power away.
    pub fn power_cut(&self, chance: &mut Chance) {
        let mut state = self.lock();
        for inode in &mut state.inodes {
            let (old, now) = (inode.durable.clone(), std::mem::take(&mut inode.now));
            // The size on the platter is somewhere between what was synced and what was written.
            let most = now.len().max(old.len());
            let size = if now.len() >= old.len() && chance.coin() {
                old.len() + chance.below((now.len() - old.len()) as u64 + 1) as usize
            } else {
                old.len()
            };
            let size = if chance.coin() { most.min(size.next_multiple_of(BLOCK)) } else { size };
            let mut after = vec![0; size];
            let keep = old.len().min(size);
            after[..keep].copy_from_slice(&old[..keep]);
            let mut at = keep;
            while at < size {
                let end = ((at / BLOCK + 1) * BLOCK).min(size);
                if chance.coin() && end <= now.len() {
                    after[at..end].copy_from_slice(&now[at..end]);
                }
                at = end;
            }
            inode.durable.clone_from(&after);
            inode.now = after;
            inode.sync_failed = false;
        }
        // Each changed name is as before or as after.
        let paths: Vec<PathBuf> = state.names.keys().chain(state.durable_names.keys()).cloned().collect();
        let mut names = BTreeMap::new();
        for path in paths {
            let (new, old) = (state.names.get(&path), state.durable_names.get(&path));
            let entry = if new == old || chance.coin() { new } else { old };
            if let Some(entry) = entry {
                names.insert(path, entry.clone());
            }
        }
        // A rename moves one file: it is under one of its names, never under both.
        let mut seen = std::collections::BTreeSet::new();
        let durable = state.durable_names.clone();
        names.retain(|_, entry| match entry {
            Entry::File(i) => seen.insert(*i),
            Entry::Link(_) => true,
        });
        // And a file that was renamed is not lost: a rename is one transaction.
        for (path, entry) in &durable {
            let kept = names.values().any(|e| e == entry);
            if !kept && state.names.values().any(|e| e == entry) && !names.contains_key(path) {
                names.insert(path.clone(), entry.clone());
            }
        }
        state.names = names.clone();
        state.durable_names = names;
        state.mount += 1;
        state.fail_at = None;
    }

    /// Content of all files with such an ending, in the order of their names.
    pub fn contents(&self, ending: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let state = self.lock();
        let content = |(path, entry): (&PathBuf, &Entry)| match entry {
            Entry::File(i) if path.to_str()?.ends_with(ending) => Some((path.clone(), state.inodes[*i].now.clone())),
            _ => None,
        };
        state.names.iter().filter_map(content).collect()
    }

    fn call(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.calls += 1;
        match &mut state.fail_at {
            Some((0, errno)) => {
                let error = io::Error::from_raw_os_error(*errno);
                state.fail_at = None;
                Err(error)
            }
            Some((n, _)) => {
                *n -= 1;
                Ok(state)
            }
            None => Ok(state),
        }
    }
}

fn not_found<T>() -> io::Result<T> {
    Err(io::Error::from_raw_os_error(libc::ENOENT))
}

impl Disk for SimDisk {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.call()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(path.to_path_buf(), Entry::File(inode));
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.call()?;
        match state.names.get(path) {
            Some(Entry::File(inode)) => Ok(Arc::new(SimFile { disk: self.clone(), inode: *inode })),
            _ => not_found(),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.call()?;
        let name = |path: &PathBuf| {
            let inside = path.strip_prefix(dir).ok()?;
            Some(inside.components().next()?.as_os_str().to_str()?.to_string())
        };
        let mut names: Vec<String> = state.names.keys().filter_map(name).collect();
        names.dedup();
        Ok(names)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.lock().names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.rename_over(from, to)
    }

    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.call()?;
        match state.names.remove(from) {
            Some(entry) => {
                state.names.insert(to.to_path_buf(), entry);
                Ok(())
            }
            None => not_found(),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call()?;
        state.names.remove(path).map_or_else(not_found, |_| Ok(()))
    }

    fn symlink(&self, target: &str, link: &Path) -> io::Result<()> {
        let mut state = self.call()?;
        if state.names.contains_key(link) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.names.insert(link.to_path_buf(), Entry::Link(target.to_string()));
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.call()?;
        let State { names, durable_names, .. } = &mut *state;
        durable_names.retain(|path, _| path.parent() != Some(dir));
        durable_names
            .extend(names.iter().filter(|(p, _)| p.parent() == Some(dir)).map(|(p, e)| (p.clone(), e.clone())));
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(1 << 30)
    }

    fn mount_id(&self, _dir: &Path) -> u64 {
        self.lock().mount
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl SimFile {
    fn sync(&self) -> io::Result<()> {
        // A failed sync loses what was not on the platter, and says so once.
        let failed = match self.disk.call() {
            Ok(mut state) => {
                let inode = &mut state.inodes[self.inode];
                let again = inode.sync_failed;
                if !again {
                    inode.durable = inode.now.clone();
                }
                state.synced_after_failure |= again;
                return Ok(());
            }
            Err(error) => error,
        };
        self.disk.lock().inodes[self.inode].sync_failed = true;
        Err(failed)
    }
}

impl DiskFile for SimFile {
    fn append(&self, slices: &[IoSlice<'_>], _caching: Caching) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
        match self.disk.call() {
            Ok(mut state) => {
                // Now and then fewer than offered.
                let n = if state.calls.is_multiple_of(7) { bytes.len().div_ceil(2) } else { bytes.len() };
                state.inodes[self.inode].now.extend_from_slice(&bytes[..n]);
                Ok(n)
            }
            Err(error) => {
                let mut state = self.disk.lock();
                // write(2): interrupted means that nothing was written; other errors may come with a part of it.
                let nothing = matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN));
                let n = if !nothing && state.calls.is_multiple_of(2) { bytes.len() / 2 } else { 0 };
                state.inodes[self.inode].now.extend_from_slice(&bytes[..n]);
                Err(error)
            }
        }
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.call()?;
        let now = &state.inodes[self.inode].now;
        let from = now.get(offset as usize..).unwrap_or_default();
        let n = from.len().min(into.len());
        into[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync()
    }

    fn reserve(&self, _offset: u64, _len: u64) -> io::Result<()> {
        self.disk.call().map(|_| ())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.call()?;
        let inode = &mut state.inodes[self.inode];
        inode.now.truncate(len as usize);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.call()?.inodes[self.inode].now.len() as u64)
    }

    fn links(&self) -> io::Result<u64> {
        let state = self.disk.call()?;
        Ok(state.names.values().filter(|e| **e == Entry::File(self.inode)).count() as u64)
    }

    fn forget_cache(&self) {}
}
