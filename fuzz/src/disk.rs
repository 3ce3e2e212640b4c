//! A directory in memory that never fails by itself, and can be taken away from whoever uses it at any call.

use logweir::host::clock::{BootId, Clock};
use logweir::log::disk::{Caching, Disk, DiskFile};
use logweir::log::verify::{Content, Files};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

pub type Names = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Default)]
struct State {
    inodes: Vec<Vec<u8>>,
    names: BTreeMap<PathBuf, usize>,
    /// Calls that are still answered; after that the process is dead.
    left: Option<u64>,
}

#[derive(Clone, Default)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
    pub mount: u64,
}

impl MemoryDisk {
    pub fn with(names: &Names, mount: u64) -> MemoryDisk {
        let disk = MemoryDisk { mount, ..MemoryDisk::default() };
        let mut state = disk.lock();
        for (path, content) in names {
            let inode = state.inodes.len();
            state.inodes.push(content.clone());
            state.names.insert(path.clone(), inode);
        }
        drop(state);
        disk
    }

    /// All files.
    pub fn names(&self) -> Names {
        let state = self.lock();
        state.names.iter().map(|(path, inode)| (path.clone(), state.inodes[*inode].clone())).collect()
    }

    /// Nothing that changes a file or a name happens from the n-th such call on.
    pub fn dies_after(&self, n: u64) {
        self.lock().left = Some(n);
    }

    pub fn lives(&self) {
        self.lock().left = None;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("one thread")
    }

    fn change(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        match &mut state.left {
            Some(0) => return Err(io::Error::other("the process has died")),
            Some(n) => *n -= 1,
            None => {}
        }
        Ok(state)
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn read_at(content: &[u8], into: &mut [u8], offset: u64) -> usize {
    let from = content.get(offset as usize..).unwrap_or_default();
    let n = from.len().min(into.len());
    into[..n].copy_from_slice(&from[..n]);
    n
}

impl Disk for MemoryDisk {
    fn create_dir_all(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.change()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Vec::new());
        state.names.insert(path.to_path_buf(), inode);
        Ok(Arc::new(MemoryFile { disk: self.clone(), inode }))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = *self.lock().names.get(path).ok_or_else(not_found)?;
        Ok(Arc::new(MemoryFile { disk: self.clone(), inode }))
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        Files::list(self, dir)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.lock().names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.rename_over(from, to)
    }
    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.change()?;
        let inode = state.names.remove(from).ok_or_else(not_found)?;
        state.names.insert(to.to_path_buf(), inode);
        Ok(())
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change()?.names.remove(path).map(drop).ok_or_else(not_found)
    }
    fn symlink(&self, _target: &str, _link: &Path) -> io::Result<()> {
        self.change().map(drop)
    }
    fn link_target(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        self.lock().names.get(path).map(|_| None).ok_or_else(not_found)
    }
    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        self.change().map(drop)
    }
    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(1 << 30)
    }
    fn mount_id(&self, _dir: &Path) -> u64 {
        self.mount
    }
}

struct MemoryFile {
    disk: MemoryDisk,
    inode: usize,
}

impl DiskFile for MemoryFile {
    fn append(&self, slices: &[IoSlice<'_>], _caching: Caching) -> io::Result<usize> {
        let mut state = self.disk.change()?;
        let content = &mut state.inodes[self.inode];
        slices.iter().for_each(|s| content.extend_from_slice(s));
        Ok(slices.iter().map(|s| s.len()).sum())
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(read_at(&self.disk.lock().inodes[self.inode], into, offset))
    }
    fn sync_data(&self) -> io::Result<()> {
        self.disk.change().map(drop)
    }
    fn sync_all(&self) -> io::Result<()> {
        self.disk.change().map(drop)
    }
    fn reserve(&self, _offset: u64, _len: u64) -> io::Result<()> {
        Ok(())
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.change()?;
        let content = &mut state.inodes[self.inode];
        assert!(len as usize <= content.len(), "a segment never grows by being cut");
        content.truncate(len as usize);
        Ok(())
    }
    fn rewrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.change()?;
        let content = &mut state.inodes[self.inode][offset as usize..offset as usize + bytes.len()];
        assert_eq!(content, bytes, "what is written again is what is there");
        Ok(())
    }
    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.lock().inodes[self.inode].len() as u64)
    }
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        Ok(self.disk.lock().names.get(path) == Some(&self.inode))
    }
    fn forget_cache(&self) {}
}

impl Files for MemoryDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.lock();
        let names = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(names.filter_map(|path| Some(path.file_name()?.to_str()?.to_string())).collect())
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn Content>> {
        let state = self.lock();
        let inode = *state.names.get(path).ok_or_else(not_found)?;
        Ok(Box::new(Snapshot(state.inodes[inode].clone())))
    }
}

struct Snapshot(Vec<u8>);

impl Content for Snapshot {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        Ok(read_at(&self.0, into, offset))
    }
}

/// It is always the same moment.
pub struct Stopped(pub BootId);

impl Clock for Stopped {
    fn mono_ns(&self) -> u64 {
        1
    }
    fn wall_ns(&self) -> u64 {
        2
    }
    fn boot_id(&self) -> BootId {
        self.0
    }
}
