//! The machine's disk.

use super::disk::{Caching, Disk, DiskFile};
use crate::sys;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, RenameFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Descriptors kept open on `/dev/null` and closed when an `open` meets `EMFILE` or `ENFILE`, so that rotation goes on
/// when connections have used the table up: two for a new segment and its trail, two for the directory and the state.
const SPARE_DESCRIPTORS: usize = 4;

/// Files and directories of this machine. One instance serves all shards.
pub struct RealDisk {
    /// Cleared at the first `EOPNOTSUPP`: kernel (before 6.14) or file system lack `RWF_DONTCACHE`.
    dont_cache_works: Arc<AtomicBool>,
    spare: Mutex<Vec<File>>,
}

impl RealDisk {
    /// A disk with its spare descriptors.
    #[must_use]
    pub fn new() -> Self {
        let disk = RealDisk { dont_cache_works: Arc::new(AtomicBool::new(true)), spare: Mutex::new(Vec::new()) };
        disk.refill_spare();
        disk
    }

    fn refill_spare(&self) {
        let mut spare = self.spare.lock().unwrap_or_else(|e| e.into_inner());
        while spare.len() < SPARE_DESCRIPTORS {
            match File::open("/dev/null") {
                Ok(file) => spare.push(file),
                Err(_) => return,
            }
        }
    }

    /// Runs `open`; where the descriptor table is full, gives the spare ones up first.
    fn with_spare<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match open() {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.spare.lock().unwrap_or_else(|e| e.into_inner()).clear();
                tracing::warn!(error = %e, "descriptor table full: using the descriptors kept for rotation");
                let result = open();
                self.refill_spare();
                result
            }
            other => other,
        }
    }

    fn file(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(RealFile { file, dont_cache_works: Arc::clone(&self.dont_cache_works) })
    }

    fn probe_dont_cache(&self, dir: &Path) -> io::Result<bool> {
        let path = dir.join("probe.tmp");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        let works = sys::append_vectored(file.as_fd(), &[IoSlice::new(b"probe\n")], true).is_ok();
        fs::remove_file(&path)?;
        self.dont_cache_works.store(works, Ordering::Relaxed);
        Ok(works)
    }
}

impl Default for RealDisk {
    fn default() -> Self {
        RealDisk::new()
    }
}

impl Disk for RealDisk {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = match dir.parent() {
            Some(p) if !p.as_os_str().is_empty() => p,
            _ => Path::new("."),
        };
        self.create_dir_all(parent)?;
        match fs::create_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        self.sync_dir(parent)
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.with_spare(|| OpenOptions::new().read(true).append(true).create_new(true).open(path))?;
        Ok(self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.with_spare(|| OpenOptions::new().read(true).append(true).open(path))?;
        Ok(self.file(file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.with_spare(|| fs::read_dir(dir))? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let cwd = nix::fcntl::AT_FDCWD;
        match nix::fcntl::renameat2(cwd, from, cwd, to, RenameFlags::RENAME_NOREPLACE) {
            // A file system without the flag (renameat2(2)): names never come back, so a look before is enough.
            Err(nix::Error::EINVAL | nix::Error::ENOSYS) => {
                if fs::symlink_metadata(to).is_ok() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                fs::rename(from, to)
            }
            other => Ok(other?),
        }
    }

    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn symlink(&self, target: &str, link: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, link)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.with_spare(|| File::open(dir))?.sync_all()
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(dir)?;
        Ok(stat.blocks_available() as u64 * stat.fragment_size() as u64)
    }

    fn can_drop_cache(&self, dir: &Path) -> bool {
        self.probe_dont_cache(dir).unwrap_or(false)
    }

    fn mount_id(&self, dir: &Path) -> u64 {
        sys::mount_id(dir)
    }
}

struct RealFile {
    file: File,
    dont_cache_works: Arc<AtomicBool>,
}

impl DiskFile for RealFile {
    fn append(&self, slices: &[IoSlice<'_>], caching: Caching) -> io::Result<usize> {
        if caching == Caching::Drop && self.dont_cache_works.load(Ordering::Relaxed) {
            match sys::append_vectored(self.file.as_fd(), slices, true) {
                Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                    self.dont_cache_works.store(false, Ordering::Relaxed);
                    tracing::info!("RWF_DONTCACHE is not supported here: appending through the page cache");
                }
                other => return other,
            }
        }
        sys::append_vectored(self.file.as_fd(), slices, false)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(into, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let flags = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(nix::fcntl::fallocate(&self.file, flags, offset as i64, len as i64)?)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.nlink())
    }

    fn forget_cache(&self) {
        // Advice: a file system that does not take it changes nothing for us.
        let _ = nix::fcntl::posix_fadvise(&self.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new();
        fs::write(dir.path().join("a"), "a").unwrap();
        fs::write(dir.path().join("b"), "b").unwrap();
        let error = disk.rename_new(&dir.path().join("a"), &dir.path().join("b")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"b");
    }

    #[test]
    fn reserved_room_leaves_no_nuls() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new();
        let path = dir.path().join("f");
        let file = disk.create_new(&path).unwrap();
        file.reserve(0, 1 << 20).unwrap();
        file.append(&[IoSlice::new(b"line\n")], Caching::Drop).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"line\n");
        assert!(fs::metadata(&path).unwrap().blocks() >= 2048, "the room is really reserved");
        file.truncate(5).unwrap();
        assert!(fs::metadata(&path).unwrap().blocks() <= 16, "and really given back");
    }

    #[test]
    fn a_deleted_file_has_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new();
        let path = dir.path().join("f");
        let file = disk.create_new(&path).unwrap();
        assert_eq!(file.links().unwrap(), 1);
        disk.remove(&path).unwrap();
        assert_eq!(file.links().unwrap(), 0);
    }
}
