//! Decides how files are written, from what was asked for and what the kernel and the file system can do.

use crate::config::checked::StreamSettings;
use crate::config::raw::Io;
use crate::log::disk::{Caching, Disk};
use std::path::Path;

/// Which file modes work in a directory. This was tried with real writes.
#[derive(Debug, Clone, Copy)]
pub struct FileModes {
    dont_cache: bool,
    direct: bool,
}

impl FileModes {
    /// Tries them in a directory.
    pub fn probe(disk: &dyn Disk, dir: &Path) -> FileModes {
        FileModes { dont_cache: disk.can_drop_cache(dir), direct: disk.can_bypass_cache(dir) }
    }

    /// How a stream's large appends treat the page cache.
    pub fn of(self, io: Io) -> Caching {
        match io {
            Io::Append => Caching::Keep,
            Io::Direct if self.direct => Caching::Bypass,
            Io::Direct | Io::Auto | Io::DontCache if self.dont_cache => Caching::Drop,
            Io::Direct | Io::Auto | Io::DontCache => Caching::Keep,
        }
    }

    /// For people: each mode in use, and why.
    pub fn describe(self, streams: &[StreamSettings]) -> String {
        let mut parts: Vec<&str> = Vec::new();
        for stream in streams {
            let part = match (stream.io, self.of(stream.io)) {
                (Io::Append, _) => "append, through the page cache, as configured",
                (Io::Direct, Caching::Bypass) => "direct, whole blocks past the page cache, as configured",
                (Io::Direct, Caching::Drop) => "append with RWF_DONTCACHE (the file system lacks O_DIRECT)",
                (Io::Direct, Caching::Keep) => {
                    "append, through the page cache (the file system lacks O_DIRECT and RWF_DONTCACHE)"
                }
                (Io::DontCache, Caching::Drop) => "append with RWF_DONTCACHE, as configured",
                (_, Caching::Drop) => {
                    "append with RWF_DONTCACHE (it works here: large writes leave the page cache to others)"
                }
                _ => "append, through the page cache (kernel or file system lack RWF_DONTCACHE)",
            };
            if !parts.contains(&part) {
                parts.push(part);
            }
        }
        parts.join("; ")
    }
}
