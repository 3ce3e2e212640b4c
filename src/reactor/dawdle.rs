//! Receiving less often where nobody waits: senders that write each line by itself would wake the reactor for each of them.
//!
//! Only while all listeners are without acknowledgements, and only while little comes, at short intervals: a quiet server sleeps until
//! something comes, a busy one has no time to lose. Lines linger in the open chunk anyway; this is a part of that time.

use super::{ListenerRun, Reactor};
use crate::net::Engine;
use std::time::Duration;

/// Longest pause. At most half of `buffer.linger`, so that no line waits longer than it says.
const MOST: Duration = Duration::from_millis(10);
/// More than this in one turn, and there is no pause: a Unix socket holds 208 KiB with what the kernel adds to each write (about
/// 270 lines of 250 bytes that are written one by one), and its sender should not meet the end of that.
const LITTLE_BYTES: u64 = 32 << 10;

/// What a reactor remembers for it.
#[derive(Debug, Default)]
pub struct Dawdler {
    /// Zero: somebody waits for answers here.
    pause: Duration,
    /// Bytes received up to the last turn.
    received: u64,
    /// When the last turn began.
    turned_ns: u64,
}

impl Dawdler {
    /// For these listeners.
    pub fn new(listeners: &[ListenerRun], linger: Duration) -> Dawdler {
        let somebody_waits = |l: &ListenerRun| {
            let o = &l.options;
            o.lines.reply_count || o.http.is_some() || o.tls.is_some() || o.proxy
        };
        let pause = if listeners.iter().any(somebody_waits) { Duration::ZERO } else { (linger / 2).min(MOST) };
        Dawdler { pause, ..Dawdler::default() }
    }
}

impl<E: Engine> Reactor<E> {
    /// Pauses if that saves wake-ups and costs nobody anything. `until`: when something is due.
    pub(super) fn dawdle(&mut self, until: Option<Duration>) {
        let all = self.stats().network_bytes.get();
        let new = all.wrapping_sub(std::mem::replace(&mut self.dawdler.received, all));
        let interval = self.now.saturating_sub(std::mem::replace(&mut self.dawdler.turned_ns, self.now));
        let pause = self.dawdler.pause.min(until.unwrap_or(Duration::MAX));
        if pause.is_zero() || new == 0 || new > LITTLE_BYTES || self.draining {
            return;
        }
        if u128::from(interval) < 2 * self.dawdler.pause.as_nanos() {
            self.engine.dawdle(pause);
        }
    }
}
