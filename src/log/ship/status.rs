//! What a shipper says of itself: `.logweir/ship/NAME.status`. It replaces the file about once a second while it works, and every
//! [`BEAT`] otherwise. The server shows it. Nothing depends on it, so it is not synced.

use crate::log::data_dir::STATE_DIR;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// It is replaced at least this often.
pub const BEAT: Duration = Duration::from_secs(10);
/// A shipper that has said nothing for this long does not run: three beats.
pub const SILENT: Duration = Duration::from_secs(30);

/// What a shipper does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Doing {
    /// It connects, or tries again after an error.
    #[default]
    Connecting,
    /// It ships, or waits for more lines.
    Shipping,
    /// It has ended.
    Ended,
}

/// What it says: counts since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Status {
    /// What it does.
    pub doing: Doing,
    /// When it said so, in nanoseconds since 1970.
    pub at_ns: u64,
    /// Lines that the target has.
    pub lines: u64,
    /// Their bytes, with newlines.
    pub bytes: u64,
    /// Transactions (with `at_least_once`: rounds) that carried them.
    pub transactions: u64,
    /// Times that it began anew behind the last position.
    pub retries: u64,
    /// Errors of the target or its client.
    pub errors: u64,
}

/// Where the status of a target is.
#[must_use]
pub fn path(data_dir: &Path, target: &str) -> PathBuf {
    data_dir.join(STATE_DIR).join("ship").join(format!("{target}.status"))
}

impl Status {
    /// True if the shipper runs and has said so lately.
    #[must_use]
    pub fn is_up(&self, now_ns: u64) -> bool {
        self.doing != Doing::Ended && now_ns.saturating_sub(self.at_ns) < SILENT.as_nanos() as u64
    }

    fn fields(&self) -> [(&'static str, u64); 6] {
        [
            ("at_ns", self.at_ns),
            ("lines", self.lines),
            ("bytes", self.bytes),
            ("transactions", self.transactions),
            ("retries", self.retries),
            ("errors", self.errors),
        ]
    }

    /// One line for each field: `NAME VALUE`.
    #[must_use]
    pub fn text(&self) -> String {
        let doing = match self.doing {
            Doing::Connecting => "connecting",
            Doing::Shipping => "shipping",
            Doing::Ended => "ended",
        };
        let fields = self.fields().map(|(name, value)| format!("{name} {value}\n"));
        format!("doing {doing}\n{}", fields.concat())
    }

    /// Reads it back; `None`: it is no status.
    #[must_use]
    pub fn parse(text: &str) -> Option<Status> {
        let mut status = Status::default();
        let mut is_told = false;
        for line in text.lines() {
            let (name, value) = line.split_once(' ')?;
            let number = || value.parse().ok();
            match name {
                "doing" => {
                    is_told = true;
                    status.doing = match value {
                        "connecting" => Doing::Connecting,
                        "shipping" => Doing::Shipping,
                        "ended" => Doing::Ended,
                        _ => return None,
                    };
                }
                "at_ns" => status.at_ns = number()?,
                "lines" => status.lines = number()?,
                "bytes" => status.bytes = number()?,
                "transactions" => status.transactions = number()?,
                "retries" => status.retries = number()?,
                "errors" => status.errors = number()?,
                _ => {} // of a newer shipper
            }
        }
        is_told.then_some(status)
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, data_dir: &Path, target: &str) -> io::Result<()> {
        let path = path(data_dir, target);
        let temp = path.with_extension("status.tmp");
        std::fs::write(&temp, self.text())?;
        std::fs::rename(temp, path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_comes_back_as_written() {
        let status = Status {
            doing: Doing::Shipping,
            at_ns: 7,
            lines: u64::MAX,
            bytes: 3,
            transactions: 4,
            retries: 5,
            errors: 6,
        };
        assert_eq!(Status::parse(&status.text()), Some(status.clone()));
        assert_eq!(Status::parse(&(status.text() + "what a-newer-one-says\n")), Some(status));
        for bad in ["", "doing", "doing nothing\n", "at_ns 3\n", "doing shipping\nlines x\n"] {
            assert_eq!(Status::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn who_is_silent_or_has_ended_is_not_up() {
        let second = 1_000_000_000;
        let status = Status { at_ns: 100 * second, ..Status::default() };
        assert!(status.is_up(100 * second) && status.is_up(129 * second) && !status.is_up(131 * second));
        assert!(status.is_up(0), "a clock that was set back says nothing");
        assert!(!Status { doing: Doing::Ended, ..status }.is_up(100 * second));
    }
}
