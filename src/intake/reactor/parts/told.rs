//! What the server's log says about senders: connections that were closed, lines that were dropped, input that a listener does
//! not expect. Each kind of a listener gets at most one line in ten seconds, with the number of those left out. The metrics count all.

use crate::host::peer::{ListenerId, Peer};
use crate::host::rate::RateLimit;
use crate::metrics::accounting::{REASONS, Reason, Tally};
use crate::metrics::stats::{REFUSED, Refused, UNEXPECTED, Unexpected};
use std::collections::HashMap;
use std::fmt::Display;

/// See the module documentation.
#[derive(Default)]
pub struct Told {
    /// By listener and what is told of it: one listener's noise hides nothing of another's.
    limits: HashMap<(ListenerId, What), RateLimit>,
}

/// What is told of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    Closed(usize),
    Refused(usize),
    Dropped(usize),
    Cut,
    Unexpected(usize),
    Failed,
    Accept,
}

/// A listener, by number and name.
pub type Of<'a> = (ListenerId, &'a str);

impl Told {
    fn allow(&mut self, now: u64, listener: ListenerId, what: What) -> Option<u64> {
        self.limits.entry((listener, what)).or_default().allow(now)
    }

    /// The server closes a connection. Of two reasons more is known elsewhere: see `failed` and `ended_for_others`.
    pub fn closed(&mut self, now: u64, (id, listener): Of<'_>, peer: &Peer, why: Refused) {
        if matches!(why, Refused::Transport | Refused::NoRoom) {
            return;
        }
        if let Some(missed) = self.allow(now, id, What::Closed(why as usize)) {
            let reason = REFUSED[why as usize].1;
            match why {
                Refused::Idle => {
                    tracing::info!(listener, %peer, reason, missed, "connection closed: no input for idle_timeout")
                }
                _ => tracing::warn!(listener, %peer, reason, missed, "connection closed by the server"),
            }
        }
    }

    /// The server closes the connection that holds the most room, since others wait for it.
    pub fn ended_for_others(&mut self, now: u64, (id, listener): Of<'_>, peer: &Peer, bytes: usize) {
        if let Some(missed) = self.allow(now, id, What::Closed(Refused::NoRoom as usize)) {
            tracing::warn!(
                listener, %peer, bytes, missed,
                "connection closed: it held the most room for unfinished lines and requests, and others waited for it"
            );
        }
    }

    /// A connection is not taken in.
    pub fn refused(&mut self, now: u64, (id, listener): Of<'_>, peer: &Peer, why: Refused) {
        if let Some(missed) = self.allow(now, id, What::Refused(why as usize)) {
            tracing::warn!(listener, %peer, reason = REFUSED[why as usize].1, missed, "connection refused");
        }
    }

    /// A connection does not begin as its listener requires, or breaks the rules of TLS.
    pub fn failed(&mut self, now: u64, (id, listener): Of<'_>, peer: &Peer, error: &dyn Display) {
        if let Some(missed) = self.allow(now, id, What::Failed) {
            tracing::warn!(listener, %peer, %error, missed, "connection closed");
        }
    }

    /// The kernel gives no more connections.
    pub fn accept_failed(&mut self, now: u64, (id, listener): Of<'_>, error: &std::io::Error) {
        if let Some(missed) = self.allow(now, id, What::Accept) {
            tracing::warn!(listener, %error, missed, "cannot accept; trying again shortly");
        }
    }

    /// Lines were dropped.
    pub fn dropped(&mut self, now: u64, (id, listener): Of<'_>, peer: &Peer, reason: Reason, tally: Tally) {
        if tally.lines > 0
            && let Some(missed) = self.allow(now, id, What::Dropped(reason as usize))
        {
            let (reason, Tally { lines, bytes }) = (REASONS[reason as usize].1, tally);
            tracing::warn!(listener, %peer, reason, lines, bytes, missed, "lines dropped");
        }
    }

    /// Lines were cut to `max_line_bytes`.
    pub fn cut(&mut self, now: u64, (id, listener): Of<'_>, peer: &Peer, tally: Tally) {
        if let Some(missed) = self.allow(now, id, What::Cut) {
            let Tally { lines, bytes } = tally;
            tracing::warn!(listener, %peer, lines, bytes, missed, "lines cut to max_line_bytes");
        }
    }

    /// A client sends what its listener does not expect.
    pub fn unexpected(&mut self, now: u64, (id, listener): Of<'_>, peer: &Peer, what: Unexpected) {
        if let Some(missed) = self.allow(now, id, What::Unexpected(what as usize)) {
            let (_, kind, advice) = UNEXPECTED[what as usize];
            tracing::warn!(listener, %peer, kind, missed, "a client sends something other than this listener expects: {advice}");
        }
    }
}
