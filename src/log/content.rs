//! Reads what is on disk and changes nothing, for `cat`, `tail` and `verify`. A server may run meanwhile.

use super::disk::DiskFile;
use super::names::{Kind, SegmentId};
use super::seekable::Seekable;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where the files are: a directory of this machine, or something else in tests.
pub trait Files {
    /// The names in a directory.
    ///
    /// # Errors
    /// It cannot be listed.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    /// A file for reading.
    ///
    /// # Errors
    /// It cannot be opened.
    fn open(&self, path: &Path) -> io::Result<Box<dyn Content>>;
}

/// An open file.
pub trait Content {
    /// Bytes in it.
    ///
    /// # Errors
    /// It cannot be looked at.
    fn size(&self) -> io::Result<u64>;
    /// Reads at an offset; 0 at the end.
    ///
    /// # Errors
    /// It cannot be read.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
    /// When it was written to last, in nanoseconds since 1970; `None`: nobody knows.
    fn modified_ns(&self) -> Option<u64> {
        None
    }
}

/// The files of this machine, opened for reading only.
#[derive(Debug, Clone, Copy)]
pub struct OnDisk;

impl Files for OnDisk {
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        crate::host::sys::names(dir)
    }
    fn open(&self, path: &Path) -> io::Result<Box<dyn Content>> {
        Ok(Box::new(File::open(path)?))
    }
}

impl Content for File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }
    fn modified_ns(&self) -> Option<u64> {
        let since = self.metadata().ok()?.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        u64::try_from(since.as_nanos()).ok()
    }
}

/// A file of a [`super::disk::Disk`].
pub struct OfDisk<'a>(pub &'a dyn DiskFile);

impl Content for OfDisk<'_> {
    fn size(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(into, offset)
    }
}

impl Content for Box<dyn Content> {
    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        (**self).read_at(into, offset)
    }
    fn modified_ns(&self) -> Option<u64> {
        (**self).modified_ns()
    }
}

/// The names that the text of a segment may have, in the order in which it gets them. A reader that looks in this order finds it, even
/// if it is renamed meanwhile.
pub const TEXTS: [Kind; 3] = [Kind::Active, Kind::Sealed, Kind::Compressed];

/// Opens a file of a segment; compressed ones as their text. `None`: it is not there.
///
/// # Errors
/// It cannot be opened, or is not what its name says.
pub fn open_kind(files: &dyn Files, dir: &Path, id: SegmentId, kind: Kind) -> io::Result<Option<Box<dyn Content>>> {
    match files.open(&dir.join(id.file_name(kind))) {
        Ok(file) if kind == Kind::Compressed => Ok(Some(Box::new(Seekable::open(file)?))),
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Opens a segment under the name that it has at the moment. `None`: retention has deleted it.
///
/// # Errors
/// Anything but "not found".
pub fn open_text(files: &dyn Files, dir: &Path, id: SegmentId) -> io::Result<Option<(Box<dyn Content>, Kind)>> {
    for kind in TEXTS.into_iter().chain(TEXTS) {
        if let Some(content) = open_kind(files, dir, id, kind)? {
            return Ok(Some((content, kind)));
        }
    }
    Ok(None)
}

/// Reads from an offset to the end.
pub struct ContentReader<'a> {
    content: &'a dyn Content,
    at: u64,
}

impl<'a> ContentReader<'a> {
    /// From there.
    pub fn new(content: &'a dyn Content, at: u64) -> Self {
        ContentReader { content, at }
    }

    /// Where the next read begins.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }
}

impl Read for ContentReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.content.read_at(into, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Fills `into` from `offset` as far as the content reaches and returns how much that was.
///
/// # Errors
/// The first error of `read_at` other than `Interrupted`.
pub fn read_full(file: &dyn Content, into: &mut [u8], offset: u64) -> io::Result<usize> {
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
