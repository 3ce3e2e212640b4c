//! The counters of each thread. They are padded, so that no two threads write to the same cache line.

use super::cells::{Cell, Histogram};
use crossbeam_utils::CachePadded;

/// Why the server refused or closed a connection.
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
    /// It held the most room for unfinished input, and others needed it.
    NoRoom,
    /// It speaks another protocol, and would wait for an answer in vain.
    Unexpected,
    /// `answer_timeout`.
    AnswerTimeout,
}

/// All of them, in the order of their discriminants.
pub const REFUSED: [(Refused, &str); 11] = [
    (Refused::MaxConnections, "max_connections"),
    (Refused::PerAddress, "max_connections_per_address"),
    (Refused::Descriptors, "descriptors"),
    (Refused::DiskFailed, "disk_failed"),
    (Refused::Idle, "idle_timeout"),
    (Refused::LineTimeout, "line_timeout"),
    (Refused::TooLong, "too_long"),
    (Refused::Transport, "transport"),
    (Refused::NoRoom, "no_room"),
    (Refused::Unexpected, "unexpected"),
    (Refused::AnswerTimeout, "answer_timeout"),
];

/// What clients send by mistake: the beginning of another protocol than their listener's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Unexpected {
    /// A TLS handshake where there is no TLS.
    Tls,
    /// An HTTP request.
    Http,
    /// HTTP/2 without negotiation.
    Http2,
    /// Syslog with octet counting.
    OctetCounting,
    /// RELP.
    Relp,
    /// Fluent's Forward protocol.
    Forward,
    /// Lumberjack, which Beats speak.
    Beats,
    /// Python's pickles.
    Pickle,
    /// A PROXY header.
    Proxy,
    /// Compressed data.
    Compressed,
    /// SSH; mostly a port scan.
    Ssh,
    /// NUL between or behind lines.
    Nul,
    /// A form, an archive, or another body that is not lines.
    Media,
    /// Plain lines, or anything else that is no HTTP, where HTTP is spoken.
    NotHttp,
    /// A count in front of a syslog message that is not its length.
    Count,
    /// rsyslog's compressed messages.
    CompressedSyslog,
    /// Anything else where RELP is spoken, or RELP out of turn.
    NotRelp,
}

/// All kinds, in the order of their discriminants: a word for machines, and a text for people that says what it is and what helps.
pub const UNEXPECTED: [(Unexpected, &str, &str); 17] = [
    (Unexpected::Tls, "tls", "a TLS handshake, and this listener has no tls_cert"),
    (Unexpected::Http, "http", "an HTTP request; for HTTP a listener needs protocol = \"http\""),
    (Unexpected::Http2, "http2", "HTTP/2 without negotiation; this server speaks only HTTP/1.1"),
    (
        Unexpected::OctetCounting,
        "octet_counting",
        "syslog with octet counting (RFC 6587); give the listener protocol = \"syslog\"",
    ),
    (Unexpected::Relp, "relp", "RELP, which this listener does not answer; give the listener protocol = \"relp\""),
    (
        Unexpected::Forward,
        "forward",
        "Fluent's Forward protocol (MessagePack); set the sender to plain TCP or HTTP with lines",
    ),
    (Unexpected::Beats, "beats", "Lumberjack, the protocol of Beats; set the sender to plain TCP or HTTP with lines"),
    (
        Unexpected::Pickle,
        "pickle",
        "pickles of Python's SocketHandler; use a handler that sends text, such as SysLogHandler",
    ),
    (
        Unexpected::Proxy,
        "proxy_header",
        "a PROXY header; set proxy_protocol = \"required\", or turn it off at the proxy",
    ),
    (
        Unexpected::Compressed,
        "compressed",
        "compressed data; by HTTP, Content-Encoding must say so, and other listeners take only plain lines",
    ),
    (Unexpected::Ssh, "ssh", "an SSH client, or a port scan"),
    (
        Unexpected::Nul,
        "nul",
        "NUL bytes at the end of messages; nul = \"strip\" removes them, nul = \"split\" ends lines there",
    ),
    (
        Unexpected::Media,
        "media_type",
        "a body that is not lines, by its Content-Type (forms, archives, protobuf); with curl use --data-binary @FILE, not -F",
    ),
    (Unexpected::NotHttp, "not_http", "no HTTP request; plain lines belong to a listener with protocol = \"lines\""),
    (
        Unexpected::Count,
        "octet_count",
        "an octet count (RFC 6587) that is not the length of its message, so the connection ends; a proxy or a sender between counts wrong",
    ),
    (
        Unexpected::CompressedSyslog,
        "compressed_syslog",
        "rsyslog's compressed messages, which are refused; remove ZipLevel and compression.mode from omfwd, or use TLS without compression",
    ),
    (
        Unexpected::NotRelp,
        "not_relp",
        "no RELP, or RELP out of turn; plain syslog belongs to a listener with protocol = \"syslog\"",
    ),
];

/// The codes that answers are counted by: the status codes of HTTP.
pub const STATUSES: [u16; 20] =
    [100, 200, 201, 202, 204, 400, 401, 403, 404, 405, 408, 411, 413, 415, 417, 429, 431, 501, 503, 505];

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
    /// Busy senders of datagrams given to another reactor of the shard.
    pub steered: Cell,
    /// Connections that the server refused or closed, by reason.
    pub refused: [Cell; REFUSED.len()],
    /// Times that a client sent what its listener does not expect, by kind.
    pub unexpected: [Cell; UNEXPECTED.len()],
    /// Accept failures (descriptors used up).
    pub accept_failures: Cell,
    /// Bytes received from sockets, whatever became of them.
    pub network_bytes: Cell,
    /// Receives.
    pub receives: Cell,
    /// Datagrams that the kernel has dropped before they could be received.
    pub lost_datagrams: Cell,
    /// Lines cut to `max_line_bytes`.
    pub truncated_lines: Cell,
    /// Bytes cut off.
    pub truncated_bytes: Cell,
    /// Lines of JSON in which something was replaced that is not UTF-8.
    pub replaced_lines: Cell,
    /// Times that reading stopped for want of a chunk.
    pub backpressure_events: Cell,
    /// Nanoseconds without reading, summed over the classes.
    pub backpressure_ns: Cell,
    /// Bytes of partial lines (in whole blocks).
    pub tail_bytes: Cell,
    /// Times that a connection had to wait because the tail budget was spent.
    pub tail_waits: Cell,
    /// Times that a connection was polled because every provided buffer of the ring was in use (io_uring).
    pub polled_instead: Cell,
    /// Answers of listeners that answer with codes.
    pub answers: AnswerCells,
    /// From receipt to acknowledgement.
    pub ack_latency: Histogram,
    /// Of its commit log.
    pub commit: CommitCells,
}

/// The counts of one commit log.
#[derive(Debug, Default)]
pub struct CommitCells {
    /// 1 while small groups go to it.
    pub in_use: Cell,
    /// 1 once it was given up.
    pub given_up: Cell,
    /// Records that became durable.
    pub records: Cell,
    /// Bytes of their blocks.
    pub bytes: Cell,
    /// Blocks that cannot be written over yet.
    pub used: Cell,
    /// All its blocks.
    pub blocks: Cell,
    /// From the submission of a record to its completion.
    pub latency: Histogram,
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
        for (i, (kind, ..)) in UNEXPECTED.iter().enumerate() {
            assert_eq!(*kind as usize, i);
        }
    }
}
