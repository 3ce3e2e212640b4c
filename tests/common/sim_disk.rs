//! A disk in memory that knows what would be left if the power went now.
//!
//! Three layers, each apart. *Page cache*: what processes read; dirty pages of 4 KiB. *Device cache*: what was written back
//! and not flushed. *Platter*: what was flushed. Directory entries have two: as processes see them, and as they are after a
//! sync of the directory. A power cut leaves each 512-byte sector of a file as it is in one of the three layers, whatever
//! the order of the writes, and each changed name as it was or as it is. A failed sync marks pages clean whether or not they
//! were written, as Linux does: syncing again succeeds, and the data are not there.

mod fixed;
mod inode;

use fixed::SimFixed;
use inode::{Inode, PAGE};
use logweir::log::disk::{Caching, Disk, DiskFile, FixedFile};
use logweir::log::verify::{Content, Files};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// A small generator of its own: a seed is the whole story of a run.
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Default for Chance {
    fn default() -> Self {
        Chance::new(1)
    }
}

impl Chance {
    /// Seeds that lie side by side give runs that have nothing in common.
    pub fn new(seed: u64) -> Chance {
        // splitmix64, Steele et al. 2014
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Chance((z ^ (z >> 31)) | 1)
    }

    pub fn next(&mut self) -> u64 {
        // xorshift64*, Vigna 2016
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n.max(1)
    }

    pub fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }

    /// True once in so many.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// Which call; for hooks and for faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    MakeDir,
    Create,
    Open,
    List,
    Rename,
    Remove,
    Link,
    SyncDir,
    Append,
    Read,
    Sync,
    Reserve,
    Truncate,
    Look,
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
    /// There is no room.
    full: bool,
    /// Mounts made so far: a power cut makes a new one.
    mount: u64,
    /// Calls so far.
    calls: u64,
    /// Calls that failed by injection, of each errno.
    failures: u64,
    synced_after_failure: bool,
    chance: Chance,
}

impl State {
    /// The file of that name, through a symlink if it is one.
    fn resolve(&self, path: &Path) -> Option<usize> {
        match self.names.get(path)? {
            Entry::File(inode) => Some(*inode),
            Entry::Link(target) => match self.names.get(&path.parent()?.join(target))? {
                Entry::File(inode) => Some(*inode),
                Entry::Link(_) => None,
            },
        }
    }
}

/// Called before each call, outside any lock: where the simulation lets other threads go on.
pub type Hook = Arc<dyn Fn(Call) + Send + Sync>;

/// See the module. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    hook: Option<Hook>,
}

impl SimDisk {
    pub fn new() -> SimDisk {
        SimDisk::seeded(1, None)
    }

    pub fn seeded(seed: u64, hook: Option<Hook>) -> SimDisk {
        let disk = SimDisk { hook, ..SimDisk::default() };
        let mut state = disk.lock();
        (state.mount, state.chance) = (1, Chance::new(seed));
        drop(state);
        disk
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The n-th call from now fails.
    pub fn fail_at(&self, n: u64, errno: i32) {
        self.lock().fail_at = Some((n, errno));
    }

    /// No more failures, and room again. True if a failure was still to come.
    pub fn heal(&self) -> bool {
        let mut state = self.lock();
        state.full = false;
        state.fail_at.take().is_some()
    }

    /// There is no room from now on, or there is again.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
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

    /// Calls that failed by injection so far, "no room" among them.
    pub fn failures(&self) -> u64 {
        self.lock().failures
    }

    pub fn synced_after_failure(&self) -> bool {
        self.lock().synced_after_failure
    }

    /// The page cache writes some pages back by itself.
    pub fn write_back_some(&self) {
        let mut state = self.lock();
        let State { inodes, chance, .. } = &mut *state;
        for inode in inodes.iter_mut().filter(|i| !i.dirty.is_empty()) {
            let pages: Vec<usize> = inode.dirty.iter().copied().filter(|_| chance.coin()).collect();
            pages.into_iter().for_each(|page| inode.write_back(page));
        }
    }

    /// Every name is durable from here on, and every byte, and the page cache stays.
    pub fn sync_all_names(&self) {
        let mut state = self.lock();
        state.inodes.iter_mut().for_each(Inode::flush);
        state.durable_names = state.names.clone();
    }

    /// Unmounts in order and mounts again: everything is there, in a page cache that remembers nothing.
    pub fn remount(&self) {
        let mut state = self.lock();
        state.inodes.iter_mut().for_each(Inode::flush);
        state.inodes.iter_mut().for_each(|i| i.lost.clear());
        state.durable_names = state.names.clone();
        state.mount += 1;
    }

    /// Takes the power away.
    pub fn power_cut(&self, chance: &mut Chance) {
        let mut state = self.lock();
        state.inodes.iter_mut().for_each(|inode| inode.cut(chance));
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
        let mut seen = BTreeSet::new();
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
        state.full = false;
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

    fn call(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        if let Some(hook) = &self.hook {
            hook(call);
        }
        let mut state = self.lock();
        state.calls += 1;
        if state.full && matches!(call, Call::Append | Call::Reserve | Call::Create | Call::MakeDir | Call::Link) {
            state.failures += 1;
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        match &mut state.fail_at {
            Some((0, errno)) => {
                let error = io::Error::from_raw_os_error(*errno);
                state.fail_at = None;
                state.failures += 1;
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
        let mut state = self.call(Call::Create)?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.names.insert(path.to_path_buf(), Entry::File(inode));
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.call(Call::Open)?;
        match state.resolve(path) {
            Some(inode) => Ok(Arc::new(SimFile { disk: self.clone(), inode })),
            None => not_found(),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.call(Call::List)?;
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
        let mut state = self.call(Call::Rename)?;
        match state.names.remove(from) {
            Some(entry) => {
                state.names.insert(to.to_path_buf(), entry);
                Ok(())
            }
            None => not_found(),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call(Call::Remove)?;
        state.names.remove(path).map_or_else(not_found, |_| Ok(()))
    }

    fn symlink(&self, target: &str, link: &Path) -> io::Result<()> {
        let mut state = self.call(Call::Link)?;
        if state.names.contains_key(link) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.names.insert(link.to_path_buf(), Entry::Link(target.to_string()));
        Ok(())
    }

    fn link_target(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        match self.call(Call::Look)?.names.get(path) {
            Some(Entry::Link(target)) => Ok(Some(target.into())),
            Some(Entry::File(_)) => Ok(None),
            None => not_found(),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.call(Call::SyncDir)?;
        let State { names, durable_names, .. } = &mut *state;
        durable_names.retain(|path, _| path.parent() != Some(dir));
        durable_names
            .extend(names.iter().filter(|(p, _)| p.parent() == Some(dir)).map(|(p, e)| (p.clone(), e.clone())));
        Ok(())
    }

    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(1 << 30)
    }

    fn fixed(&self, path: &Path, make: Option<u64>) -> io::Result<Arc<dyn FixedFile>> {
        let mut state = self.call(Call::Create)?;
        let inode = match (state.resolve(path), make) {
            (Some(inode), _) => inode,
            (None, None) => return not_found(),
            (None, Some(_)) => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                state.names.insert(path.to_path_buf(), Entry::File(inode));
                state.durable_names.insert(path.to_path_buf(), Entry::File(inode));
                inode
            }
        };
        if let Some(bytes) = make {
            state.inodes[inode].write_through(0, &vec![0; bytes as usize]);
        }
        Ok(Arc::new(SimFixed { disk: self.clone(), inode }))
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
        let failed = match self.disk.call(Call::Sync) {
            Ok(mut state) => {
                let inode = &mut state.inodes[self.inode];
                let again = inode.lost.iter().any(|page| inode.differs(*page));
                inode.flush();
                state.synced_after_failure |= again;
                return Ok(());
            }
            Err(error) => error,
        };
        // The pages are clean from now on, written or not, and the failure is said once.
        let mut state = self.disk.lock();
        let State { inodes, chance, .. } = &mut *state;
        let inode = &mut inodes[self.inode];
        for page in std::mem::take(&mut inode.dirty) {
            inode.lost.insert(page);
            if chance.coin() {
                inode.write_back(page);
            }
        }
        Err(failed)
    }
}

impl DiskFile for SimFile {
    fn append(&self, slices: &[IoSlice<'_>], _caching: Caching) -> io::Result<usize> {
        let bytes: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
        let (mut state, n, result) = match self.disk.call(Call::Append) {
            Ok(mut state) => {
                // Now and then fewer than offered.
                let short = state.chance.once_in(7);
                let n = if short { 1 + state.chance.below(bytes.len() as u64) as usize } else { bytes.len() };
                (state, n.min(bytes.len()), Ok(()))
            }
            Err(error) => {
                let mut state = self.disk.lock();
                // write(2): interrupted means that nothing was written; other errors may come with a part of it.
                let nothing = matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN));
                let n = if !nothing && state.chance.coin() { bytes.len() / 2 } else { 0 };
                (state, n, Err(error))
            }
        };
        let inode = &mut state.inodes[self.inode];
        let from = inode.now.len();
        inode.now.extend_from_slice(&bytes[..n]);
        if n > 0 {
            inode.touch(from, from + n);
        }
        result.map(|()| n)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.call(Call::Read)?;
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
        self.disk.call(Call::Reserve).map(|_| ())
    }

    fn rewrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.call(Call::Append)?;
        let (inode, offset) = (&mut state.inodes[self.inode], offset as usize);
        inode.now[offset..offset + bytes.len()].copy_from_slice(bytes);
        inode.touch(offset, offset + bytes.len());
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.call(Call::Truncate)?;
        let inode = &mut state.inodes[self.inode];
        if (len as usize) < inode.now.len() {
            inode.now.truncate(len as usize);
            let last = inode.now.len().div_ceil(PAGE);
            inode.dirty.retain(|page| *page < last);
            inode.lost.retain(|page| *page < last);
            inode.touch(inode.now.len(), inode.now.len());
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.call(Call::Look)?.inodes[self.inode].now.len() as u64)
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        Ok(self.disk.call(Call::Look)?.names.get(path) == Some(&Entry::File(self.inode)))
    }

    fn forget_cache(&self) {}
}

/// For `logweir verify`: reads what is there, without faults.
impl Files for SimDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_string())).collect())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Content>> {
        let state = self.lock();
        match state.resolve(path) {
            Some(inode) => Ok(Box::new(Bytes(state.inodes[inode].now.clone()))),
            None => not_found(),
        }
    }
}

struct Bytes(Vec<u8>);

impl Content for Bytes {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = self.0.get(offset as usize..).unwrap_or_default();
        let n = from.len().min(into.len());
        into[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }
}
