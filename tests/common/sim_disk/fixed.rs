//! A file of the simulated disk that is written past all caches.

use super::SimDisk;
use logweir::log::disk::FixedFile;
use std::io;

/// A file of fixed size. What is written is on the platter. No hook is called: nobody waits in a call for it.
pub struct SimFixed {
    pub disk: SimDisk,
    pub inode: usize,
}

impl FixedFile for SimFixed {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.lock();
        state.calls += 1;
        let failed = match &mut state.fail_at {
            Some((0, errno)) => Some(*errno),
            Some((n, _)) => {
                *n -= 1;
                None
            }
            None => None,
        };
        let mut rest = bytes;
        if failed.is_some() {
            (state.fail_at, state.failures) = (None, state.failures + 1);
            rest = &bytes[..state.chance.below(bytes.len() as u64 / 512) as usize * 512];
        }
        state.inodes[self.inode].write_through(offset as usize, rest);
        failed.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }
}
