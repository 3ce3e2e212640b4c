//! `storage.commit_log`.

use super::checked::Check;
use super::raw;
use crate::log::commit::AUTO_BYTES;
use crate::log::commit::record::BLOCK;

/// `storage.commit_log`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitLogSize {
    /// None: durable answers come by syncs of the segments.
    Off,
    /// One for each reactor, where the engine and the file system can have it and it pays.
    Auto,
    /// One for each reactor, of so many bytes, where the engine and the file system can have it.
    Bytes(u64),
}

impl Check<'_> {
    /// The commit logs of the reactors.
    pub fn commit_log(&self, raw: Option<raw::CommitLog>) -> CommitLogSize {
        const KEY: &str = "storage.commit_log";
        let in_words = |text: &str| self.places.in_force(KEY, Some(format!("\"{text}\"")));
        match raw {
            None | Some(raw::CommitLog::Word(raw::CommitLogWord::Auto)) => {
                in_words("auto");
                CommitLogSize::Auto
            }
            Some(raw::CommitLog::Word(raw::CommitLogWord::Off)) => {
                in_words("off");
                CommitLogSize::Off
            }
            Some(raw::CommitLog::Bytes(size)) => {
                let bytes = self.places.size(KEY, Some(size), AUTO_BYTES, 1 << 20, 1 << 30);
                CommitLogSize::Bytes(bytes.next_multiple_of(BLOCK as u64))
            }
        }
    }
}
