//! The stages between socket and session. They turn the bytes on the wire into the bytes of the protocol.

pub mod proxy;
pub mod tls;

use std::net::SocketAddr;

/// One stage of one connection: TLS or PROXY. Plain sockets use [`Identity`].
pub trait Stage: Send {
    /// Bytes that the stage holds of an unfinished unit (a TLS record, a PROXY header) and wants in front of what lands
    /// next.
    fn held(&self) -> usize {
        0
    }

    /// `space[held..held + landed]` came from the socket (`landed` is 0 when called because of [`Stage::pending`]; then
    /// nothing of [`Stage::held`] has to fit). Puts at most `most` bytes for the session at the start of `space` and
    /// returns how many; keeps the rest.
    ///
    /// # Errors
    /// The peer broke the stage's protocol; the connection is closed and what it had begun counts as reset. What was good
    /// before the error is returned first, and the error with the next call ([`Stage::pending`] is true until then).
    fn decode(&mut self, space: &mut [u8], landed: usize, most: usize) -> Result<usize, StageError>;

    /// True while decoded bytes (or an error) wait inside the stage.
    fn pending(&self) -> bool {
        false
    }

    /// Turns what the session wants to send into what goes on the wire, in place; also adds what the stage itself has to
    /// send (also when `bytes` is empty).
    ///
    /// # Errors
    /// The stage cannot send any more.
    fn encode(&mut self, bytes: &mut Vec<u8>) -> Result<(), StageError>;

    /// True while the stage itself has something to send (handshake, alerts).
    fn wants_to_send(&self) -> bool {
        false
    }

    /// Adds its end (TLS `close_notify`) to the last bytes that are sent. Later input is ignored.
    fn close(&mut self, _bytes: &mut Vec<u8>) {}

    /// False: the input ended where the stage knows that it was cut off (TLS without `close_notify`, an unfinished record
    /// or PROXY header). A connection on which nothing at all was received ends clean: such are the probes of balancers.
    fn is_clean_end(&self) -> bool {
        true
    }

    /// True before the stage has opened: PROXY header or TLS handshake unfinished.
    fn is_opening(&self) -> bool {
        false
    }

    /// True if the peer has ended its side (TLS `close_notify`) and the session has everything before it. The input is over then, although
    /// the socket is still open.
    fn has_ended(&self) -> bool {
        false
    }

    /// True where a whole request for a handshake waits whose answer costs a private-key operation: [`Stage::take_turn`] has it
    /// answered, by the next [`Stage::decode`].
    fn wants_turn(&self) -> bool {
        false
    }

    /// The handshake that waits may go on; [`Stage::pending`] is true until it has.
    fn take_turn(&mut self) {}

    /// What the PROXY header said of the client; once.
    fn take_source(&mut self) -> Option<Source> {
        None
    }
}

/// Where a connection comes from, as its PROXY header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// From this client, through the proxy.
    Client(SocketAddr),
    /// From the proxy itself, or from where has no address (LOCAL, UNKNOWN, `AF_UNSPEC`, `AF_UNIX`): the socket's own
    /// address stays.
    Local,
}

/// Why a stage gives a connection up.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum StageError {
    /// The connection does not begin with a PROXY header.
    #[error("the connection does not begin with a PROXY protocol header, which this listener requires")]
    NoProxyHeader,
    /// A PROXY header that breaks the specification.
    #[error("bad PROXY protocol header: {0}")]
    BadProxyHeader(&'static str),
    /// Plaintext or garbage where a TLS handshake must be.
    #[error("the client does not speak TLS, which this listener requires")]
    NotTls,
    /// The certificate of the client is from the right CA, but its subject is not allowed.
    #[error("neither the subject nor the fingerprint of the client's certificate is among those allowed")]
    SubjectRefused,
    /// A handshake message larger than a record.
    #[error("TLS: a handshake message of more than {0} bytes")]
    HandshakeTooLarge(usize),
    /// The session had more to say than is kept until the handshake is over.
    #[error("TLS: more than {0} bytes to send before the handshake was over")]
    SentTooEarly(usize),
    /// TLS cannot encrypt any more.
    #[error("TLS: cannot send: {0}")]
    CannotEncrypt(String),
    /// TLS failed.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// The caller gave less space than the stage had asked for.
    #[error("a stage got {given} bytes of space where it needs {needed}")]
    NoSpace {
        /// Bytes given.
        given: usize,
        /// Bytes needed.
        needed: usize,
    },
}

/// The bytes as they are; they stay where they were received.
#[derive(Debug, Clone, Copy, Default)]
pub struct Identity;

impl Stage for Identity {
    /// `most` is at least what landed: nothing is kept.
    fn decode(&mut self, _space: &mut [u8], landed: usize, most: usize) -> Result<usize, StageError> {
        debug_assert!(landed <= most);
        Ok(landed)
    }

    fn encode(&mut self, _bytes: &mut Vec<u8>) -> Result<(), StageError> {
        Ok(())
    }
}
