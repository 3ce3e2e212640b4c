//! The data directory: its lock, the identity of the node, and the list of its streams.

use super::disk::{Disk, read_file, replace_file};
use super::names::is_stream_name;
use super::{Context, LogError};
use crate::host::clock::parse_uuid;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// The directory for logweir's own notes, inside the data directory.
pub const STATE_DIR: &str = ".logweir";

/// A lock that is held until it is dropped, or until the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
    _dir: Option<File>,
}

/// Locks the data directory for this process, and makes it if it is missing.
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

/// Checks whether a server could use a data directory. It makes and changes nothing.
///
/// # Errors
/// It is not a directory, cannot be written to, or another server uses it.
pub fn look(data_dir: &Path) -> Result<(), LogError> {
    let existing = |path: &Path| std::fs::metadata(path);
    if let Ok(meta) = existing(data_dir) {
        if !meta.is_dir() {
            return Err(LogError::NoDirectory { path: data_dir.to_path_buf() });
        }
        can_write(data_dir).context("write to directory", data_dir)?;
        let lock = data_dir.join(STATE_DIR).join("lock");
        for path in [lock.as_path(), data_dir] {
            // Shared: what is held so for this moment keeps no other look from passing.
            let held =
                File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)));
            if held {
                return Err(LogError::InUse { dir: data_dir.to_path_buf(), lock: path.to_path_buf() });
            }
        }
        return Ok(());
    }
    if std::fs::symlink_metadata(data_dir).is_ok() {
        return Err(LogError::NoDirectory { path: data_dir.to_path_buf() }); // a symlink to nothing
    }
    // It will be made, beneath the nearest directory that is there.
    let absolute = std::path::absolute(data_dir).context("find directory", data_dir)?;
    let parent = absolute.ancestors().skip(1).find_map(|dir| Some((dir, existing(dir).ok()?)));
    match parent {
        Some((path, meta)) if !meta.is_dir() => Err(LogError::NoDirectory { path: path.to_path_buf() }),
        Some((path, _)) => can_write(path).context("make directory in", path),
        None => Ok(()),
    }
}

/// Checks whether this process may make files in a directory.
///
/// # Errors
/// It may not, or there is no such directory.
pub fn can_write(dir: &Path) -> io::Result<()> {
    use nix::unistd::AccessFlags;
    // The ids of this process that count for files, not those of whoever started it (access(2)).
    Ok(nix::unistd::eaccess(dir, AccessFlags::W_OK | AccessFlags::X_OK)?)
}

/// The identity of the node. `None`: no server has started here yet.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn node_id(disk: &dyn Disk, data_dir: &Path) -> Result<Option<[u8; 16]>, LogError> {
    let path = node_file(data_dir);
    match read_file(disk, &path) {
        Ok(bytes) => match std::str::from_utf8(&bytes).ok().and_then(parse_uuid) {
            Some(id) => Ok(Some(id)),
            None => {
                let way_out = "delete it to become a new node";
                Err(LogError::State { path, expected: "the node's UUID", way_out })
            }
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(LogError::Io { what: "read", path, error }),
    }
}

/// The identity of the node, which is made at the first start. Only for the server, which holds the lock: of two that
/// make it at the same time, one would go on with an identity that nobody finds again.
///
/// # Errors
/// As [`node_id`], or the file cannot be made.
pub fn make_node_id(disk: &dyn Disk, data_dir: &Path, _lock: &Lock) -> Result<[u8; 16], LogError> {
    if let Some(id) = node_id(disk, data_dir)? {
        return Ok(id);
    }
    let source = Path::new("/proc/sys/kernel/random/uuid");
    let text = std::fs::read_to_string(source).context("read", source)?;
    let way_out = "is /proc mounted?";
    let id = parse_uuid(&text).ok_or_else(|| LogError::State { path: source.into(), expected: "a UUID", way_out })?;
    let path = node_file(data_dir);
    replace_file(disk, &path, text.as_bytes()).context("write", &path)?;
    Ok(id)
}

fn node_file(data_dir: &Path) -> PathBuf {
    data_dir.join(STATE_DIR).join("node")
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
    fn a_look_makes_nothing_and_finds_what_a_start_would() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        look(&data).unwrap();
        assert!(!dir.path().join("a").exists());
        std::fs::write(dir.path().join("a"), "").unwrap();
        assert!(matches!(look(&data), Err(LogError::NoDirectory { path }) if path.ends_with("a")));
        assert!(matches!(look(&dir.path().join("a")), Err(LogError::NoDirectory { .. })));
        let disk = RealDisk::new();
        let held = lock(&disk, dir.path()).unwrap();
        assert!(matches!(look(dir.path()), Err(LogError::InUse { .. })));
        drop(held);
        look(dir.path()).unwrap();
        lock(&disk, dir.path()).unwrap();
    }

    #[test]
    fn the_node_keeps_its_identity() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new();
        assert_eq!(node_id(&disk, dir.path()).unwrap(), None);
        let lock = lock(&disk, dir.path()).unwrap();
        assert_eq!(node_id(&disk, dir.path()).unwrap(), None, "a look makes none");
        let made = make_node_id(&disk, dir.path(), &lock).unwrap();
        assert_eq!(node_id(&disk, dir.path()).unwrap(), Some(made));
        assert_eq!(make_node_id(&disk, dir.path(), &lock).unwrap(), made);
        std::fs::write(node_file(dir.path()), "nonsense").unwrap();
        assert!(
            matches!(make_node_id(&disk, dir.path(), &lock), Err(LogError::State { .. })),
            "never another one in its place"
        );
    }
}
