//! Lets a reactor receive less often where no client waits. Otherwise a sender that writes each line by itself would wake it
//! for each of them.
//!
//! It does so only while no listener acknowledges lines and while little comes, and for short times. A quiet server sleeps
//! until something comes; a busy one does not pause. The pause is a part of the time for which lines linger in the open chunk
//! anyway.

use super::state::Reactor;
use crate::intake::net::Engine;
use std::time::Duration;

impl<E: Engine> Reactor<E> {
    /// Pauses if that saves wake-ups and delays no client. `until`: when something is due.
    pub(super) fn dawdle(&mut self, until: Option<Duration>) {
        let received = self.stats().network_bytes.get();
        if let Some(pause) = self.dawdler.pause(self.now, received)
            && !self.phase.draining
        {
            self.engine.dawdle(until.map_or(pause, |until| pause.min(until)));
        }
    }
}
