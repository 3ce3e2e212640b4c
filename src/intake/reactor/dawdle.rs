//! Receiving less often where nobody waits: senders that write each line by itself would wake the reactor for each of them.
//!
//! Only while all listeners are without acknowledgements, and only while little comes, at short intervals: a quiet server sleeps until
//! something comes, a busy one has no time to lose. Lines linger in the open chunk anyway; this is a part of that time.

use super::state::Reactor;
use crate::intake::net::Engine;
use std::time::Duration;

impl<E: Engine> Reactor<E> {
    /// Pauses if that saves wake-ups and costs nobody anything. `until`: when something is due.
    pub(super) fn dawdle(&mut self, until: Option<Duration>) {
        let received = self.stats().network_bytes.get();
        if let Some(pause) = self.dawdler.pause(self.now, received)
            && !self.phase.draining
        {
            self.engine.dawdle(until.map_or(pause, |until| pause.min(until)));
        }
    }
}
