//! Compresses sealed segments, moves them to another directory, or both. It does one at a time, beside the work of the server.
//! A crash at any point leaves every line readable, and doing the step again finishes it.
//!
//! A segment that has moved is in the other directory with its trail. In the stream's own directory there are symlinks to them,
//! so every reader finds the segment where it was. The copy is synced before the symlink takes the name of the original, in one
//! rename.

use super::content::{OfDisk, read_full};
use super::disk::{Disk, DiskFile, append_all, read_full as read_from, replace_file_by, temp_name};
use super::names::{Kind, SegmentId};
use super::seekable::{self, Seekable};
use super::{Context, LogError};
use crate::host::mutants::mutant;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes copied at a time.
const COPY: usize = 1 << 20;

/// Where and how the sealed segments of one stream are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    /// The stream's directory.
    pub dir: PathBuf,
    /// The directory that sealed segments move to, absolute; `None`: they stay.
    pub home: Option<PathBuf>,
    /// zstd's level; `None`: as they are.
    pub compress: Option<i32>,
}

/// What was done with one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Put {
    /// It was compressed: bytes before and after.
    pub compressed: Option<(u64, u64)>,
    /// Bytes that moved.
    pub moved: u64,
}

impl Shelf {
    /// True if [`Shelf::put_away`] would do something with a segment. Where nothing is to be done with any, no file is looked at.
    #[must_use]
    pub fn wants(&self, disk: &dyn Disk, id: SegmentId) -> bool {
        let target = |kind| disk.link_target(&self.file(id, kind));
        (self.compress.is_some() && target(Kind::Sealed).is_ok())
            || (self.home.is_some()
                && [Kind::Sealed, Kind::Compressed].into_iter().any(|kind| matches!(target(kind), Ok(None))))
    }

    /// Compresses and moves a sealed segment, as configured. It calls `go_on` now and then, and stops when that returns false.
    ///
    /// # Errors
    /// The step that failed; `Interrupted` where `go_on` said no. All lines are where readers find them.
    pub fn put_away(&self, disk: &dyn Disk, id: SegmentId, go_on: &dyn Fn() -> bool) -> Result<Put, LogError> {
        let mut put = Put::default();
        if let Some(home) = &self.home {
            disk.create_dir_all(home).context("make directory", home)?;
            for kind in [Kind::Trail, Kind::Torn] {
                put.moved += self.move_home(disk, home, id, kind, go_on)?;
            }
        }
        let sealed = self.file(id, Kind::Sealed);
        if let (Some(level), true) = (self.compress, is_there(disk, &sealed).context("look at", &sealed)?) {
            put.compressed = Some(self.compress(disk, id, level, go_on)?);
        }
        if let Some(home) = &self.home {
            for kind in [Kind::Sealed, Kind::Compressed] {
                put.moved += self.move_home(disk, home, id, kind, go_on)?;
            }
        }
        Ok(put)
    }

    fn file(&self, id: SegmentId, kind: Kind) -> PathBuf {
        self.dir.join(id.file_name(kind))
    }

    fn compress(
        &self,
        disk: &dyn Disk,
        id: SegmentId,
        level: i32,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(u64, u64), LogError> {
        let source = self.file(id, Kind::Sealed);
        let link = self.file(id, Kind::Compressed);
        let target = self.home.as_ref().map_or(link.clone(), |home| home.join(id.file_name(Kind::Compressed)));
        let from = disk.open(&source).context("open", &source)?;
        if mutant!("original_goes_before_its_copy") {
            disk.remove(&source).context("remove", &source)?;
        }
        let mut sizes = (0, 0);
        let fill = |to: &dyn DiskFile| {
            let (len, crc) = seekable::compress(&*from, to, level, go_on)?;
            if !mutant!("copy_not_compared") {
                check(to, len, crc, go_on)?;
            }
            sizes = (len, to.len()?);
            Ok(())
        };
        let made = replace_file_by(disk, &target, fill);
        if made.is_err() {
            let _ = disk.remove(&temp_name(&target)); // room, where there is none; a start would remove it too
        }
        made.context("compress into", &target)?;
        from.forget_cache();
        if let Ok(to) = disk.open(&target) {
            to.forget_cache();
        }
        if target != link {
            self.point(disk, &link, &target)?;
        }
        // From here on the compressed one is the segment: it is durable under its name.
        let moved = disk.link_target(&source).context("look at", &source)?;
        for path in moved.iter().chain([&source]) {
            disk.remove(path).context("remove", path)?;
        }
        Ok(sizes)
    }

    /// Moves one file, if it is here. Returns its bytes.
    fn move_home(
        &self,
        disk: &dyn Disk,
        home: &Path,
        id: SegmentId,
        kind: Kind,
        go_on: &dyn Fn() -> bool,
    ) -> Result<u64, LogError> {
        let (from, to) = (self.file(id, kind), home.join(id.file_name(kind)));
        if !is_there(disk, &from).context("look at", &from)?
            || disk.link_target(&from).context("look at", &from)?.is_some()
        {
            return Ok(0);
        }
        let file = disk.open(&from).context("open", &from)?;
        if mutant!("link_before_the_copy") {
            self.point(disk, &from, &to)?;
        }
        let mut copied = 0;
        let fill = |copy: &dyn DiskFile| {
            copied = copy_all(&*file, copy, go_on)?;
            Ok(())
        };
        let made = replace_file_by(disk, &to, fill);
        if made.is_err() {
            let _ = disk.remove(&temp_name(&to));
        }
        made.context("copy to", &to)?;
        self.point(disk, &from, &to)?;
        Ok(copied)
    }

    /// Makes `link` a symlink to `target`, whatever it was, in one step.
    fn point(&self, disk: &dyn Disk, link: &Path, target: &Path) -> Result<(), LogError> {
        let name = target.to_str().ok_or(io::Error::from(io::ErrorKind::InvalidFilename));
        let name = name.context("link to", target)?;
        let temp = temp_name(link);
        match disk.symlink(name, &temp) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                disk.remove(&temp).context("remove", &temp)?;
                disk.symlink(name, &temp)
            }
            other => other,
        }
        .context("link", &temp)?;
        disk.rename_over(&temp, link).context("rename", &temp)?;
        disk.sync_dir(&self.dir).context("sync directory", &self.dir)
    }

    /// Makes the symlinks to what was moved and has none: the stream's directory may have been in memory. To be called before the
    /// directory is used.
    ///
    /// # Errors
    /// A directory cannot be listed or a symlink not made.
    pub fn find_again(&self, disk: &dyn Disk) -> Result<(), LogError> {
        let Some(home) = &self.home else { return Ok(()) };
        let names = match disk.list(home) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.context("list", home)?,
        };
        disk.create_dir_all(&self.dir).context("make directory", &self.dir)?;
        let here = disk.list(&self.dir).context("list", &self.dir)?;
        for name in names {
            let path = home.join(&name);
            if name.strip_suffix(".tmp").is_some_and(|n| SegmentId::parse(n).is_some()) {
                disk.remove(&path).context("remove", &path)?; // a copy that was not finished
                continue;
            }
            let Some((id, kind)) = SegmentId::parse(&name) else { continue };
            let has_text = |kind: Kind| here.contains(&id.file_name(kind));
            // Of a segment that is here as it was, the copy was not finished, or it is compressed and the original goes next.
            let is_text = matches!(kind, Kind::Sealed | Kind::Compressed);
            if here.contains(&name) || (is_text && (has_text(Kind::Sealed) || has_text(Kind::Active))) {
                continue;
            }
            self.point(disk, &self.dir.join(&name), &path)?;
        }
        Ok(())
    }
}

/// What [`remove_moved`] has removed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// There was a file, or a symlink.
    pub was_there: bool,
    /// The directory of what the symlink pointed at.
    pub other_dir: Option<PathBuf>,
}

/// Removes a file; if it is a symlink, what it points at too.
///
/// # Errors
/// One of them cannot be removed. That there is none is no error.
pub fn remove_moved(disk: &dyn Disk, path: &Path) -> io::Result<Removed> {
    let gone = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    let mut other_dir = None;
    match disk.link_target(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Removed::default()),
        Err(e) => return Err(e),
        // Out of reach since the configuration names another directory: it stays there, and is ours no more.
        Ok(Some(target)) => match gone(disk.remove(&target)) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {}
            result => {
                result?;
                other_dir = target.parent().map(Path::to_path_buf);
            }
        },
        Ok(None) => {}
    }
    gone(disk.remove(path))?;
    Ok(Removed { was_there: true, other_dir })
}

fn is_there(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    match disk.open(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn copy_all(from: &dyn DiskFile, to: &dyn DiskFile, go_on: &dyn Fn() -> bool) -> io::Result<u64> {
    let mut buffer = vec![0; COPY];
    let mut at = 0;
    loop {
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = read_from(from, &mut buffer, at)?;
        if n == 0 {
            from.forget_cache();
            return Ok(at);
        }
        append_all(to, &buffer[..n])?;
        at += n as u64;
    }
}

/// Reads a compressed file back and compares the text, before the original is removed.
fn check(file: &dyn DiskFile, len: u64, crc: u32, go_on: &dyn Fn() -> bool) -> io::Result<()> {
    let text = Seekable::open(OfDisk(file))?;
    let mut buffer = vec![0; COPY];
    let (mut at, mut found) = (0, 0);
    loop {
        if !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let n = read_full(&text, &mut buffer, at)?;
        if n == 0 {
            break;
        }
        found = crate::log::checksum::crc32c_append(found, &buffer[..n]);
        at += n as u64;
    }
    if (at, found) == (len, crc) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the compressed text is not the original: memory or disk is not sound",
    ))
}
