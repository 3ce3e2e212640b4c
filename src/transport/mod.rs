//! Stages between socket and session: what turns the bytes on the wire into the bytes of the protocol.

use std::io;

/// One stage of one connection. TLS, PROXY and inflate are such; plain sockets use [`Identity`].
pub trait Stage: Send {
    /// `space[..landed]` came from the socket (nothing, when called because of [`Stage::pending`]). Puts the session's
    /// bytes at the start of `space` instead and returns how many there are. What does not fit stays in the stage.
    ///
    /// # Errors
    /// The peer broke the stage's protocol; the connection is closed and what it had begun counts as reset.
    fn decode(&mut self, space: &mut [u8], landed: usize) -> io::Result<usize>;

    /// True while decoded bytes wait inside the stage.
    fn pending(&self) -> bool;

    /// Turns what the session wants to send into what goes on the wire, in place.
    ///
    /// # Errors
    /// The stage cannot send any more.
    fn encode(&mut self, bytes: &mut Vec<u8>) -> io::Result<()>;
}

/// The bytes as they are; they stay where they were received.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity;

impl Stage for Identity {
    fn decode(&mut self, _space: &mut [u8], landed: usize) -> io::Result<usize> {
        Ok(landed)
    }

    fn pending(&self) -> bool {
        false
    }

    fn encode(&mut self, _bytes: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }
}
