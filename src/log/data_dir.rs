//! The data directory as a whole: its lock, the node's identity, which streams are there.

use super::disk::{Disk, read_file, replace_file};
use super::names::is_stream_name;
use super::{Context, LogError};
use crate::host::clock::parse_uuid;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Where logweir keeps what is its own, inside the data directory.
pub const STATE_DIR: &str = ".logweir";

/// A held lock; given back when dropped, also by a kill.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    _dir: Option<File>,
}

/// Takes the data directory for this process, making it where it is missing.
///
/// # Errors
/// [`LogError::InUse`] where another server runs on it.
pub fn lock(disk: &dyn Disk, data_dir: &Path) -> Result<Lock, LogError> {
    let state = data_dir.join(STATE_DIR);
    disk.create_dir_all(&state).context("make directory", &state)?;
    let path = state.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).context("open", &path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(LogError::InUse { dir: data_dir.to_path_buf(), lock: path }),
        Err(TryLockError::Error(error)) => return Err(LogError::Io { what: "lock", path, error }),
    }
    // The directory as well: somebody may delete the file while a server runs. NFS locks no directories.
    let dir = File::open(data_dir).ok();
    match dir.as_ref().map(File::try_lock) {
        Some(Err(TryLockError::WouldBlock)) => {
            Err(LogError::InUse { dir: data_dir.to_path_buf(), lock: data_dir.into() })
        }
        _ => Ok(Lock { _file: file, _dir: dir }),
    }
}

/// The node's identity, made at the first start and durable since.
///
/// # Errors
/// The file cannot be read or made, or holds something else.
pub fn node_id(disk: &dyn Disk, data_dir: &Path) -> Result<[u8; 16], LogError> {
    let path = data_dir.join(STATE_DIR).join("node");
    match read_file(disk, &path) {
        Ok(bytes) => std::str::from_utf8(&bytes).ok().and_then(parse_uuid).ok_or(LogError::State {
            path,
            expected: "the node's UUID",
            way_out: "delete it to become a new node",
        }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let source = Path::new("/proc/sys/kernel/random/uuid");
            let text = std::fs::read_to_string(source).context("read", source)?;
            let way_out = "is /proc mounted?";
            let id = parse_uuid(&text).ok_or_else(|| LogError::State {
                path: source.into(),
                expected: "a UUID",
                way_out,
            })?;
            replace_file(disk, &path, text.as_bytes()).context("write", &path)?;
            Ok(id)
        }
        Err(error) => Err(LogError::Io { what: "read", path, error }),
    }
}

/// The directories of streams, sorted by name; configured or not.
///
/// # Errors
/// The data directory cannot be listed.
pub fn stream_dirs(disk: &dyn Disk, data_dir: &Path) -> Result<Vec<PathBuf>, LogError> {
    let mut names = disk.list(data_dir).context("list", data_dir)?;
    names.retain(|name| is_stream_name(name));
    names.sort();
    Ok(names.into_iter().map(|name| data_dir.join(name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::real_disk::RealDisk;

    #[test]
    fn a_second_server_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new();
        let first = lock(&disk, dir.path()).unwrap();
        assert!(matches!(lock(&disk, dir.path()), Err(LogError::InUse { .. })));
        std::fs::remove_dir_all(dir.path().join(STATE_DIR)).unwrap();
        assert!(matches!(lock(&disk, dir.path()), Err(LogError::InUse { .. })), "though its file is gone");
        drop(first);
        lock(&disk, dir.path()).unwrap();
    }

    #[test]
    fn the_node_keeps_its_identity() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new();
        let _lock = lock(&disk, dir.path()).unwrap();
        assert_eq!(node_id(&disk, dir.path()).unwrap(), node_id(&disk, dir.path()).unwrap());
    }
}
