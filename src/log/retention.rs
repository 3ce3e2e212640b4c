//! Decides which sealed segments are deleted: the oldest first, within a shard in their order, and never one that is being
//! written.
//!
//! The server notes a deletion durably before it begins ([`super::retired`]). So `verify` can tell what retention deleted from
//! what somebody else did, and a crash in the middle leaves nothing half deleted.

use super::catalogue::{Catalogue, Finished, Staying};
pub use super::retired::{finish, mark_path, retire};

/// When segments are deleted. Nothing is set by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Nanoseconds since the last line of a segment.
    pub max_age_ns: Option<u64>,
    /// Bytes of all files of the stream, also of those that are being written.
    pub max_bytes: Option<u64>,
    /// Bytes free in the file system.
    pub min_free: Option<u64>,
}

impl Limits {
    /// The segment that must be deleted next, and why. `None`: all may stay. `free` are the bytes free now.
    #[must_use]
    pub fn next(
        &self,
        catalogue: &Catalogue,
        staying: &Staying,
        now_ns: u64,
        free: Option<u64>,
    ) -> Option<(Finished, &'static str)> {
        let oldest = catalogue.oldest(staying)?;
        if let (Some(most), Some(closed)) = (self.max_age_ns, oldest.closed_ns)
            && closed.saturating_add(most) <= now_ns
        {
            return Some((oldest, "max_age"));
        }
        // No younger one goes because an older one has to stay: that would be the newest lines, for as long as somebody reads.
        let is_first = || catalogue.oldest(&Staying::new()) == Some(oldest);
        if self.max_bytes.is_some_and(|most| catalogue.bytes() > most) && is_first() {
            return Some((oldest, "max_bytes"));
        }
        let too_little = self.min_free.zip(free).is_some_and(|(least, free)| free < least);
        too_little.then_some((oldest, "min_free"))
    }

    /// When the oldest segment that may go becomes too old, in nanoseconds since 1970; `None`: never.
    #[must_use]
    pub fn due_ns(&self, catalogue: &Catalogue, staying: &Staying) -> Option<u64> {
        Some(catalogue.oldest(staying)?.closed_ns?.saturating_add(self.max_age_ns?))
    }
}
