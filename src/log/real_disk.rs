//! The disk of this machine, as [`super::disk::Disk`].

use super::direct::{self, BLOCK, Direct, Way};
use super::disk::{Caching, Disk, DiskFile, FixedFile};
use crate::host::sys;
use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, PosixFadviseAdvice, fcntl};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Descriptors kept open on `/dev/null` and closed when an `open` meets `EMFILE` or `ENFILE`, so that rotation goes on
/// when connections have used the table up: two for a new segment and its trail, two for the directory and the state.
const SPARE_DESCRIPTORS: usize = 4;

/// Mode and group of files and directories that are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FileAccess {
    /// Mode of files; directories have `x` too wherever it has `r`. `None`: as the umask leaves it.
    pub mode: Option<u32>,
    /// Group of files and directories. `None`: the process's.
    pub group: Option<u32>,
}

impl FileAccess {
    /// Mode of directories.
    #[must_use]
    pub fn dir_mode(&self) -> Option<u32> {
        self.mode.map(|mode| mode | (mode & 0o444) >> 2)
    }

    /// Sets mode and group of a file or directory that was just made.
    fn give(&self, file: &File, mode: Option<u32>) -> io::Result<()> {
        if let Some(group) = self.group {
            std::os::unix::fs::fchown(file, None, Some(group)).map_err(|error| {
                let advice = format!(
                    "its group cannot be {group} (storage.file_group): {error}; this user is not in that group"
                );
                io::Error::new(error.kind(), advice)
            })?;
        }
        match mode {
            Some(mode) => file.set_permissions(fs::Permissions::from_mode(mode)),
            None => Ok(()),
        }
    }
}

/// Files and directories of this machine. One instance serves all shards.
pub struct RealDisk {
    /// Cleared at the first `EOPNOTSUPP`: kernel (before 6.14) or file system lack `RWF_DONTCACHE`.
    dont_cache_works: Arc<AtomicBool>,
    /// Cleared at the first `EINVAL`: the file system lacks `O_DIRECT`, or wants other alignments.
    direct_works: Arc<AtomicBool>,
    /// `None`: for work that can wait.
    spare: Option<Mutex<Vec<File>>>,
    access: FileAccess,
}

impl RealDisk {
    /// A disk with its spare descriptors.
    #[must_use]
    pub fn new() -> Self {
        RealDisk::for_others(FileAccess::default())
    }

    /// The same, with mode and group for files that are made on it.
    #[must_use]
    pub fn for_others(access: FileAccess) -> Self {
        let works = || Arc::new(AtomicBool::new(true));
        let disk = RealDisk { dont_cache_works: works(), direct_works: works(), spare: Some(Mutex::default()), access };
        disk.refill_spare();
        disk
    }

    fn refill_spare(&self) {
        let Some(spare) = &self.spare else { return };
        let mut spare = spare.lock().unwrap_or_else(|e| e.into_inner());
        while spare.len() < SPARE_DESCRIPTORS {
            match File::open("/dev/null") {
                Ok(file) => spare.push(file),
                Err(_) => return,
            }
        }
    }

    /// Runs `open`. If the descriptor table is full, it gives up the spare descriptors and tries again.
    fn with_spare<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match (open(), &self.spare) {
            (Err(e), Some(spare)) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                spare.lock().unwrap_or_else(|e| e.into_inner()).clear();
                tracing::warn!(error = %e, "descriptor table full: using the descriptors kept for rotation");
                let result = open();
                self.refill_spare();
                result
            }
            (other, _) => other,
        }
    }

    fn file(&self, file: File) -> Arc<dyn DiskFile> {
        Arc::new(RealFile {
            file,
            dont_cache_works: Arc::clone(&self.dont_cache_works),
            direct_works: Arc::clone(&self.direct_works),
            direct: Mutex::new(None),
        })
    }

    /// Tries something with a file in `dir` that is gone afterwards.
    fn try_in(&self, dir: &Path, attempt: impl FnOnce(&File) -> bool) -> io::Result<bool> {
        let path = dir.join("probe.tmp");
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        let works = attempt(&file);
        fs::remove_file(&path)?;
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
            Err(e) => return Err(e),
            Ok(()) if self.access == FileAccess::default() => {}
            Ok(()) => self.access.give(&File::open(dir)?, self.access.dir_mode())?,
        }
        self.sync_dir(parent)
    }

    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.with_spare(|| OpenOptions::new().read(true).append(true).create_new(true).open(path))?;
        if let Err(error) = self.access.give(&file, self.access.mode) {
            let _ = fs::remove_file(path); // nobody is to find it as it is
            return Err(error);
        }
        Ok(self.file(file))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.with_spare(|| OpenOptions::new().read(true).append(true).open(path))?;
        Ok(self.file(file))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.with_spare(|| sys::names(dir))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match sys::rename_new(from, to) {
            // A file system without the flag (renameat2(2)): names never come back, so a look before is enough.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) => {
                if fs::symlink_metadata(to).is_ok() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                fs::rename(from, to)
            }
            other => other,
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

    fn link(&self, file: &Path, name: &Path) -> io::Result<()> {
        fs::hard_link(file, name)
    }

    fn names_of(&self, file: &Path) -> io::Result<(u64, u64)> {
        let meta = fs::symlink_metadata(file)?;
        Ok((meta.nlink(), meta.ino()))
    }

    fn link_target(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        match fs::read_link(path) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(None), // readlink(2): not a symlink
            other => other.map(Some),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.with_spare(|| File::open(dir))?.sync_all()
    }

    fn size_of(&self, path: &Path) -> io::Result<u64> {
        Ok(fs::metadata(path)?.len())
    }

    fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        Ok(sys::space(dir)?.free)
    }

    fn that_can_wait(&self) -> Option<Arc<dyn Disk>> {
        let (dont_cache_works, direct_works) = (Arc::clone(&self.dont_cache_works), Arc::clone(&self.direct_works));
        Some(Arc::new(RealDisk { dont_cache_works, direct_works, spare: None, access: self.access }))
    }

    fn size_bytes(&self, dir: &Path) -> io::Result<u64> {
        Ok(sys::space(dir)?.total)
    }

    fn can_drop_cache(&self, dir: &Path) -> bool {
        let attempt = |file: &File| sys::append_vectored(file.as_fd(), &[IoSlice::new(b"probe\n")], true).is_ok();
        let works = self.try_in(dir, attempt).unwrap_or(false);
        self.dont_cache_works.store(works, Ordering::Relaxed);
        works
    }

    fn can_bypass_cache(&self, dir: &Path) -> bool {
        let block = [b'x'; BLOCK];
        let attempt = |file: &File| Direct::new(file).is_ok_and(|mut d| d.append(&[IoSlice::new(&block)]).is_ok());
        let works = self.try_in(dir, attempt).unwrap_or(false);
        self.direct_works.store(works, Ordering::Relaxed);
        works
    }

    fn fixed(&self, path: &Path, make: Option<u64>) -> io::Result<Arc<dyn FixedFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags((OFlag::O_DIRECT | OFlag::O_DSYNC | OFlag::O_NOFOLLOW).bits());
        if let Some(bytes) = make {
            // Its own descriptor: synced once behind all of it, not at each write.
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .custom_flags(OFlag::O_NOFOLLOW.bits())
                .open(path)?;
            self.access.give(&file, self.access.mode)?;
            let zeros = vec![0; 1 << 20];
            for at in (0..bytes).step_by(zeros.len()) {
                let n = (bytes - at).min(zeros.len() as u64) as usize;
                file.write_all_at(&zeros[..n], at)?;
            }
            file.set_len(bytes)?;
        }
        let file = self.with_spare(|| options.open(path))?;
        // Also where it was there: whoever made it may have died before this.
        file.sync_all()?;
        let _ = nix::fcntl::posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED); // advice
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))?;
        Ok(Arc::new(RealFixed(file)))
    }

    fn device(&self, dir: &Path) -> Option<u64> {
        std::fs::metadata(dir).ok().map(|about| std::os::unix::fs::MetadataExt::dev(&about))
    }
    fn mount_id(&self, dir: &Path) -> u64 {
        sys::mount_id(dir)
    }
}

/// Opened with `O_DIRECT` and `O_DSYNC`.
struct RealFixed(File);

impl FixedFile for RealFixed {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

struct RealFile {
    file: File,
    dont_cache_works: Arc<AtomicBool>,
    direct_works: Arc<AtomicBool>,
    /// Made at the first direct append, given up when the file is cut: at its sealing, or after an error. One thread writes to
    /// a file.
    direct: Mutex<Option<Direct>>,
}

impl RealFile {
    /// The next part of a batch; `None`: direct writes do not work here.
    fn append_past_cache(&self, slices: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        if !self.direct_works.load(Ordering::Relaxed) {
            return None;
        }
        let end = match self.file.metadata() {
            Ok(meta) => meta.len(),
            Err(e) => return Some(Err(e)),
        };
        if let Way::Cached(len) = direct::way(end, slices.iter().map(|s| s.len()).sum()) {
            return Some(sys::append_vectored(self.file.as_fd(), &direct::first(slices, len), false));
        }
        let mut direct = self.direct.lock().unwrap_or_else(|e| e.into_inner());
        let result = match &mut *direct {
            Some(direct) => direct.append(slices),
            none => match Direct::new(&self.file) {
                Ok(made) => none.insert(made).append(slices),
                Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Err(e),
                Err(_) => return None, // no descriptor or memory for now: through the page cache this once
            },
        };
        match result {
            // Somebody else has appended meanwhile, and the end is no boundary any more.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) && self.file.metadata().is_ok_and(|m| m.len() != end) => {
                None
            }
            Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP)) => {
                *direct = None;
                self.direct_works.store(false, Ordering::Relaxed);
                tracing::warn!(error = %e, "O_DIRECT does not work here: appending through the page cache");
                None
            }
            other => Some(other),
        }
    }
}

impl DiskFile for RealFile {
    fn append(&self, slices: &[IoSlice<'_>], caching: Caching) -> io::Result<usize> {
        if caching == Caching::Bypass
            && let Some(result) = self.append_past_cache(slices)
        {
            return result;
        }
        if caching != Caching::Keep && self.dont_cache_works.load(Ordering::Relaxed) {
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
        *self.direct.lock().unwrap_or_else(|e| e.into_inner()) = None;
        self.file.set_len(len)
    }

    fn rewrite(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // pwrite(2), BUGS: with O_APPEND it appends, whatever the offset.
        let flags = OFlag::from_bits_retain(fcntl(&self.file, FcntlArg::F_GETFL)?);
        fcntl(&self.file, FcntlArg::F_SETFL(flags - OFlag::O_APPEND))?;
        let result = self.file.write_all_at(bytes, offset);
        fcntl(&self.file, FcntlArg::F_SETFL(flags))?;
        result
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let own = self.file.metadata()?;
        match fs::symlink_metadata(path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(e),
        }
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
    fn direct_appends_of_any_length_leave_the_bytes_in_order() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap(); // /tmp may be in memory
        let disk = RealDisk::new();
        if !disk.can_bypass_cache(dir.path()) {
            eprintln!("no O_DIRECT here: the fallback is tried instead");
        }
        let path = dir.path().join("f");
        let file = disk.create_new(&path).unwrap();
        file.reserve(0, 8 << 20).unwrap();
        let mut expected: Vec<u8> = Vec::new();
        for (i, len) in [10, 4086, 300_000, 4096, 1_200_001, 1, 0, 8192, 65_535].into_iter().enumerate() {
            let bytes: Vec<u8> = (0..len).map(|at| (at * 7 + i) as u8).collect();
            let (a, b) = bytes.split_at(len / 3);
            let mut slices = [IoSlice::new(a), IoSlice::new(b)];
            let mut slices = &mut slices[..];
            IoSlice::advance_slices(&mut slices, 0);
            while !slices.is_empty() {
                let n = file.append(slices, Caching::Bypass).unwrap();
                assert!(n > 0);
                IoSlice::advance_slices(&mut slices, n);
            }
            expected.extend(bytes);
            assert_eq!(fs::metadata(&path).unwrap().len(), expected.len() as u64, "every byte is in the file");
            assert!(fs::read(&path).unwrap() == expected);
        }
        file.truncate(5000).unwrap();
        file.append(&[IoSlice::new(b"behind\n")], Caching::Bypass).unwrap();
        assert_eq!(&fs::read(&path).unwrap()[5000..], b"behind\n");
        file.sync_data().unwrap();
    }

    #[test]
    fn bytes_are_written_over_in_place_and_appends_go_to_the_end_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = RealDisk::new().create_new(&path).unwrap();
        file.append(&[IoSlice::new(b"one\ntwo\n")], Caching::Keep).unwrap();
        file.rewrite(b"TW", 4).unwrap();
        file.append(&[IoSlice::new(b"three\n")], Caching::Keep).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\nTWo\nthree\n");
    }

    #[test]
    fn a_deleted_file_is_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new();
        let path = dir.path().join("f");
        let file = disk.create_new(&path).unwrap();
        assert!(file.is_at(&path).unwrap());
        disk.remove(&path).unwrap();
        assert!(!file.is_at(&path).unwrap());
    }
}
