//! Gives connections their turns for TLS handshakes. A handshake costs a private-key operation, so a flood of them could use up
//! a reactor. A turn is for a whole ClientHello. Handshakes beyond `limits.tls_handshakes_per_second` wait in a queue in which
//! clients take turns. So a client with many handshakes delays only its own.

use super::state::Reactor;
use crate::intake::net::Engine;
use crate::pipeline::chunk::ConnId;

impl<E: Engine> Reactor<E> {
    /// A whole ClientHello is there: answers it, or lets it wait in the queue. Meanwhile the connection is watched, so that a
    /// client that hangs up leaves the queue.
    pub(super) fn take_turn(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get(id) else { return };
        if self.handshakes.take_turn(id, conn.client, self.now) {
            conn.stage.take_turn();
        } else {
            conn.in_line = true;
        }
    }

    /// Lets the handshakes in the queue go on for which there is a turn now.
    pub(super) fn give_turns(&mut self) {
        while let Some(id) = self.handshakes.next(self.now) {
            let Some(conn) = self.conns.get(id) else { continue };
            conn.in_line = false;
            conn.stage.take_turn();
            self.pending(id);
        }
    }
}
