//! The real disk with faults: calls that fail, wait at a gate, or pretend that there is no room.

use logweir::log::disk::{Caching, Disk, DiskFile};
use logweir::log::real_disk::RealDisk;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Which call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Append,
    SyncData,
    Create,
    Rename,
    /// The rename that makes `current-SHARD` another segment's.
    Point,
    SyncDir,
    Reserve,
}

/// What the disk does at the moment; shared with the test.
#[derive(Default)]
pub struct Faults {
    /// Fail this call with this errno, so many times (`u64::MAX`: always).
    failing: Mutex<Vec<(Call, i32, u64)>>,
    /// Appends wait while it is shut.
    shut: Mutex<bool>,
    opened: Condvar,
    /// Syncs wait while it is shut.
    sync_shut: Mutex<bool>,
    /// Appends that wait at the gate now.
    pub waiting: AtomicU64,
    /// Appends let through, one at a time, while it is shut.
    tickets: AtomicU64,
    pub appends: AtomicU64,
    /// Calls that failed.
    pub failed: AtomicU64,
    pub syncs: AtomicU64,
    /// A file was synced again after its sync had failed: never allowed.
    pub synced_after_failure: AtomicBool,
}

impl Faults {
    pub fn fail(&self, call: Call, errno: i32, times: u64) {
        self.failing.lock().unwrap().push((call, errno, times));
    }

    pub fn heal(&self) {
        self.failing.lock().unwrap().clear();
    }

    pub fn shut_gate(&self) {
        *self.shut.lock().unwrap() = true;
    }

    /// Syncs of data wait from now on.
    pub fn shut_sync_gate(&self) {
        *self.sync_shut.lock().unwrap() = true;
    }

    fn pass_sync_gate(&self) {
        let mut shut = self.sync_shut.lock().unwrap();
        while *shut {
            shut = self.opened.wait(shut).unwrap();
        }
    }

    /// Lets everything through again.
    pub fn open_gate(&self) {
        *self.shut.lock().unwrap() = false;
        *self.sync_shut.lock().unwrap() = false;
        self.opened.notify_all();
    }

    /// Lets so many appends through a shut gate.
    pub fn let_through(&self, appends: u64) {
        self.tickets.fetch_add(appends, Ordering::SeqCst);
        self.opened.notify_all();
    }

    fn pass_gate(&self) {
        let mut shut = self.shut.lock().unwrap();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while *shut {
            if self.tickets.load(Ordering::SeqCst) > 0 {
                self.tickets.fetch_sub(1, Ordering::SeqCst);
                break;
            }
            shut = self.opened.wait(shut).unwrap();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn check(&self, call: Call) -> io::Result<()> {
        let mut failing = self.failing.lock().unwrap();
        if let Some(i) = failing.iter().position(|(c, _, times)| *c == call && *times > 0) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            failing[i].2 = failing[i].2.saturating_sub(u64::from(failing[i].2 != u64::MAX));
            return Err(io::Error::from_raw_os_error(failing[i].1));
        }
        Ok(())
    }
}

pub struct FaultyDisk {
    real: RealDisk,
    pub faults: Arc<Faults>,
}

impl FaultyDisk {
    pub fn new() -> FaultyDisk {
        FaultyDisk { real: RealDisk::new(), faults: Arc::default() }
    }

    /// Faults are for segments only: trails and state files go through.
    fn wrap(&self, path: &Path, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        if path.extension().is_some_and(|e| e == "active") {
            Arc::new(FaultyFile { file, faults: Arc::clone(&self.faults), sync_failed: AtomicBool::new(false) })
        } else {
            file
        }
    }
}

impl Disk for FaultyDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.real.create_dir_all(dir)
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if path.extension().is_some_and(|e| e == "active") {
            self.faults.check(Call::Create)?;
        }
        Ok(self.wrap(path, self.real.create_new(path)?))
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.real.open(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.real.list(dir)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.faults.check(Call::Rename)?;
        self.real.rename_new(from, to)
    }
    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        if to.file_name().is_some_and(|name| name.to_string_lossy().starts_with("current-")) {
            self.faults.check(Call::Point)?;
        }
        self.real.rename_over(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.real.remove(path)
    }
    fn symlink(&self, target: &str, link: &Path) -> io::Result<()> {
        self.real.symlink(target, link)
    }
    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        self.real.link(file, name)
    }
    fn names_of(&self, file: &Path) -> io::Result<(u64, u64)> {
        self.real.names_of(file)
    }
    fn link_target(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        self.real.link_target(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.faults.check(Call::SyncDir)?;
        self.real.sync_dir(dir)
    }
    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        self.real.free_bytes(dir)
    }
    fn mount_id(&self, dir: &Path) -> u64 {
        self.real.mount_id(dir)
    }
}

struct FaultyFile {
    file: Arc<dyn DiskFile>,
    faults: Arc<Faults>,
    sync_failed: AtomicBool,
}

impl DiskFile for FaultyFile {
    fn append(&self, slices: &[IoSlice<'_>], caching: Caching) -> io::Result<usize> {
        self.faults.pass_gate();
        if let Err(error) = self.faults.check(Call::Append) {
            // Half of the bytes get there first, as a disk that fills up in the middle has it.
            let half: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
            let _ = self.file.append(&[IoSlice::new(&half[..half.len() / 2])], caching);
            return Err(error);
        }
        self.faults.appends.fetch_add(1, Ordering::SeqCst);
        self.file.append(slices, caching)
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.faults.pass_sync_gate();
        if self.sync_failed.load(Ordering::SeqCst) {
            self.faults.synced_after_failure.store(true, Ordering::SeqCst);
        }
        if let Err(error) = self.faults.check(Call::SyncData) {
            self.sync_failed.store(true, Ordering::SeqCst);
            return Err(error);
        }
        self.faults.syncs.fetch_add(1, Ordering::SeqCst);
        self.file.sync_data()
    }
    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.faults.check(Call::Reserve)?;
        self.file.reserve(offset, len)
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn rewrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.rewrite(bytes, offset)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        self.file.is_at(path)
    }
    fn forget_cache(&self) {}
}
