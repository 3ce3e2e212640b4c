//! What each thread counts for itself. Padded, so that no two threads write to one cache line.

use super::cells::{Cell, Histogram};
use crossbeam_utils::CachePadded;

/// Why a connection was refused or closed by us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Refused {
    /// `limits.max_connections`.
    MaxConnections,
    /// `max_connections_per_address`.
    PerAddress,
    /// Descriptors used up, or the socket could not be watched.
    Descriptors,
    /// The disk has failed.
    DiskFailed,
    /// `idle_timeout`.
    Idle,
    /// `line_timeout`.
    LineTimeout,
    /// `too_long = "close"`.
    TooLong,
    /// A PROXY header or TLS handshake that failed.
    Transport,
    /// It held the most of the room for what is unfinished, and others needed it.
    NoRoom,
}

/// All of them, in the order of their discriminants.
pub const REFUSED: [(Refused, &str); 9] = [
    (Refused::MaxConnections, "max_connections"),
    (Refused::PerAddress, "max_connections_per_address"),
    (Refused::Descriptors, "descriptors"),
    (Refused::DiskFailed, "disk_failed"),
    (Refused::Idle, "idle_timeout"),
    (Refused::LineTimeout, "line_timeout"),
    (Refused::TooLong, "too_long"),
    (Refused::Transport, "transport"),
    (Refused::NoRoom, "no_room"),
];

/// The codes that answers are counted by: the status codes of HTTP.
pub const STATUSES: [u16; 18] =
    [100, 200, 204, 400, 401, 403, 404, 405, 408, 411, 413, 415, 417, 429, 431, 501, 503, 505];

/// How many answers of each code.
#[derive(Debug, Default)]
pub struct AnswerCells([Cell; STATUSES.len()]);

impl AnswerCells {
    /// Counts one answer.
    pub fn count(&self, status: u16) {
        if let Ok(place) = STATUSES.binary_search(&status) {
            self.0[place].add(1);
        }
    }

    /// The counts, with their codes.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        STATUSES.iter().zip(&self.0).map(|(status, cell)| (*status, cell.get()))
    }
}

/// One reactor's counts.
#[derive(Debug, Default)]
pub struct ReactorCells {
    /// Connections open now (datagram sockets and stdin included).
    pub open: Cell,
    /// Connections taken.
    pub accepted: Cell,
    /// Connections given to another reactor of the shard.
    pub moved: Cell,
    /// Connections refused or closed by us, by reason.
    pub refused: [Cell; REFUSED.len()],
    /// Accept failures (descriptors used up).
    pub accept_failures: Cell,
    /// Bytes received from sockets, whatever became of them.
    pub network_bytes: Cell,
    /// Receives.
    pub receives: Cell,
    /// Lines cut to `max_line_bytes`.
    pub truncated_lines: Cell,
    /// Bytes cut off.
    pub truncated_bytes: Cell,
    /// Times that reading stopped for want of a chunk.
    pub backpressure_events: Cell,
    /// Nanoseconds in that state, summed over the classes.
    pub backpressure_ns: Cell,
    /// Bytes of partial lines (in whole blocks).
    pub tail_bytes: Cell,
    /// Times that a connection had to wait because the tail budget was spent.
    pub tail_waits: Cell,
    /// Times that a connection was watched by a poll since every provided buffer of the ring was in use (io_uring).
    pub polled_instead: Cell,
    /// Answers of listeners that answer with codes.
    pub answers: AnswerCells,
    /// From receipt to acknowledgement.
    pub ack_latency: Histogram,
}

/// Padded.
pub type ReactorStats = CachePadded<ReactorCells>;

/// One writer's counts.
#[derive(Debug, Default)]
pub struct WriterCells {
    /// Appends.
    pub appends: Cell,
    /// Bytes appended.
    pub append_bytes: Cell,
    /// From the start to the end of an append.
    pub write_latency: Histogram,
    /// Syncs that succeeded.
    pub syncs: Cell,
    /// Syncs that failed.
    pub sync_failures: Cell,
    /// Appends that failed for another reason than want of room.
    pub write_failures: Cell,
    /// From the start to the end of a sync.
    pub sync_latency: Histogram,
    /// Segments begun because the one before was full, old, or SIGUSR1 asked for it.
    pub rotations: Cell,
    /// Segments that could not be sealed or prepared; tried again or left to the next start.
    pub rotation_failures: Cell,
    /// Times that somebody else had changed, moved or deleted a segment that was being written.
    pub foreign_changes: Cell,
    /// Times that the disk turned out to be full.
    pub full_events: Cell,
    /// 1 while the disk is full.
    pub full: Cell,
}

/// Padded.
pub type WriterStats = CachePadded<WriterCells>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_in_their_order() {
        for (i, (reason, _)) in REFUSED.iter().enumerate() {
            assert_eq!(*reason as usize, i);
        }
    }
}
