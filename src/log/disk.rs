//! The interface to a disk. [`super::real_disk`] implements it for this machine; tests have faulty ones.

use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How an append treats the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caching {
    /// Leave the pages: readers find them, neighbours lose them.
    Keep,
    /// `RWF_DONTCACHE`: write through and drop the pages. Worth it for large appends only.
    Drop,
    /// `O_DIRECT`: whole blocks go past the page cache. Worth it for large appends only.
    Bypass,
}

/// Directories and names. All paths are absolute or relative to the working directory, never to a descriptor.
pub trait Disk: Send + Sync + 'static {
    /// Makes the directory and its parents, and syncs each parent that gained an entry. No error where it exists.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;
    /// A new empty file for appending; `AlreadyExists` where there is one.
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// An existing file for reading and appending.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// The names in a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// Renames; `AlreadyExists` where `to` is there (`RENAME_NOREPLACE`).
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames over what is there.
    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file or symlink.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a symlink with this (relative) target; `AlreadyExists` where the name is taken.
    fn symlink(&self, target: &str, link: &Path) -> io::Result<()>;
    /// Gives a file a second name (link(2)); `AlreadyExists` where that is taken, `Unsupported` where the file system has no such links.
    fn link(&self, _file: &Path, _name: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// How many names a file has, and its number in the file system.
    fn names_of(&self, _file: &Path) -> io::Result<(u64, u64)> {
        Ok((1, 0))
    }
    /// Where a symlink points; `None`: it is none. `NotFound` where nothing has that name.
    fn link_target(&self, path: &Path) -> io::Result<Option<PathBuf>>;
    /// Makes the directory's entries durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes of a file, without opening it for writing.
    fn size_of(&self, path: &Path) -> io::Result<u64> {
        self.open(path)?.len()
    }
    /// Bytes free for us in the file system that holds `dir`.
    fn free_bytes(&self, dir: &Path) -> io::Result<u64>;
    /// The same disk for work that can wait: it leaves what is set aside for rotation alone. `None`: nothing is.
    fn that_can_wait(&self) -> Option<Arc<dyn Disk>> {
        None
    }
    /// Bytes of the file system that holds `dir`, used or free.
    fn size_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// True if `RWF_DONTCACHE` works in `dir`, tried with a real write; false unless the disk knows better.
    fn can_drop_cache(&self, _dir: &Path) -> bool {
        false
    }
    /// True if `O_DIRECT` works in `dir`, tried with a real write; false unless the disk knows better.
    fn can_bypass_cache(&self, _dir: &Path) -> bool {
        false
    }
    /// Opens a file of fixed size whose blocks are overwritten past the page cache. With `make`, this many bytes are written first. It is
    /// synced, and so is its directory entry.
    fn fixed(&self, _path: &Path, _make: Option<u64>) -> io::Result<Arc<dyn FixedFile>> {
        Err(io::ErrorKind::Unsupported.into())
    }
    /// Identity of the mount under `dir`, never reused during a boot; 0: unknown.
    fn mount_id(&self, dir: &Path) -> u64;
    /// Which device a directory is on (`st_dev`, stat(2)); `None`: nobody knows.
    fn device(&self, _dir: &Path) -> Option<u64> {
        None
    }
}

/// A file of fixed size whose blocks are overwritten past the page cache: durable when a write is over.
pub trait FixedFile: Send + Sync {
    /// Writes whole blocks at a multiple of a block, and returns when they are durable.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// For writing through a ring; `None`: only [`FixedFile::write_at`] works.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Appends at the end; may take fewer bytes than offered.
    fn append(&self, slices: &[IoSlice<'_>], caching: Caching) -> io::Result<usize>;
    /// Reads at an offset; 0 at the end of the file.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// `fdatasync`. After an error it must never be called again on this file (the kernel has marked the pages clean).
    fn sync_data(&self) -> io::Result<()>;
    /// `fsync`.
    fn sync_all(&self) -> io::Result<()>;
    /// Reserves room for `[offset, offset + len)` without changing the size (`FALLOC_FL_KEEP_SIZE`).
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()>;
    /// Cuts to `len` and gives reserved room past it back.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Writes bytes over those at an offset, within the file. For recovery only, while nobody appends: writing the same bytes
    /// again makes their pages dirty, so that a sync means something though an earlier one may have failed.
    fn rewrite(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Size in bytes.
    fn len(&self) -> io::Result<u64>;
    /// True where the size is 0.
    ///
    /// # Errors
    /// As [`DiskFile::len`].
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// True if `path` names this very file; false once somebody has moved, replaced or deleted it.
    fn is_at(&self, path: &Path) -> io::Result<bool>;
    /// Drops clean pages of the file from the page cache; advice only.
    fn forget_cache(&self);
}

/// Fills `into` from `offset` as far as the file reaches and returns how much that was.
///
/// # Errors
/// The first error of `read_at` other than `Interrupted`.
pub fn read_full(file: &dyn DiskFile, into: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < into.len() {
        match file.read_at(&mut into[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Appends all of `bytes`, in as many calls as that takes.
///
/// # Errors
/// The first error other than `Interrupted`; part of `bytes` may then be in the file.
pub fn append_all(file: &dyn DiskFile, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.append(&[IoSlice::new(bytes)], Caching::Keep) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Nothing that is read whole is longer.
const SMALL: u64 = 1 << 20;

/// Reads a whole small file.
///
/// # Errors
/// What opening or reading answers; `InvalidData` where it is not small.
pub fn read_file(disk: &dyn Disk, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open(path)?;
    let len = file.len()?;
    if len > SMALL {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{len} bytes, where a few were expected")));
    }
    let mut bytes = vec![0; len as usize];
    let n = read_full(&*file, &mut bytes, 0)?;
    bytes.truncate(n);
    Ok(bytes)
}

/// The name beside `path` that a replacement has until it is whole; another for each file.
#[must_use]
pub fn temp_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".tmp");
    name.into()
}

/// Replaces a small file so that after a power cut either the old or the new content is there, never a mixture:
/// write beside it, fsync, rename over it, fsync the directory.
///
/// # Errors
/// Any error on the way; the old content is then still there.
pub fn replace_file(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_file_by(disk, path, |file| append_all(file, bytes))
}

/// As [`replace_file`], with content that `fill` appends.
///
/// # Errors
/// As [`replace_file`].
pub fn replace_file_by(
    disk: &dyn Disk,
    path: &Path,
    fill: impl FnOnce(&dyn DiskFile) -> io::Result<()>,
) -> io::Result<()> {
    let temp = temp_name(path);
    let file = match disk.create_new(&temp) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&temp)?; // left by a process that died in between
            disk.create_new(&temp)
        }
        other => other,
    }?;
    fill(&*file)?;
    file.sync_all()?;
    disk.rename_over(&temp, path)?;
    disk.sync_dir(path.parent().unwrap_or(Path::new(".")))
}
