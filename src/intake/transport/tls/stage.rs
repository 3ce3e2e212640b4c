//! One TLS connection. It decrypts records into plaintext, in the buffer in which they were received.

use super::hello::{self, First};
use crate::host::mutants::mutant;
use crate::intake::transport::{Stage, StageError};
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, ReadTraffic, UnbufferedStatus, WriteTraffic,
};
use rustls::{CertificateError, Error, InvalidMessage, ServerConfig};
use std::sync::Arc;

/// Bytes of a record's header (RFC 8446 section 5.1).
pub(super) const HEADER: usize = 5;
/// Longest record that rustls takes (RFC 5246 section 6.2.3: 2^14 + 2048).
pub(super) const RECORD_MAX: usize = HEADER + 16_384 + 2048;
/// Bytes of the session that wait for the end of the handshake, at most.
const WAITING_MAX: usize = 64 * 1024;

/// The server's side of a TLS connection.
///
/// Between two receives it holds an unfinished record, and plaintext only if there was more than the session could take. A
/// handshake message may be spread over records as long as they fit in [`RECORD_MAX`] bytes.
pub struct TlsStage {
    tls: UnbufferedServerConnection,
    /// Ciphertext of the unfinished record, or the records of an unfinished handshake message.
    partial: Vec<u8>,
    /// Plaintext that is not yet with the session.
    plain: Plain,
    /// For the wire.
    outgoing: Vec<u8>,
    /// From the session, before the handshake was over.
    waiting: Vec<u8>,
    failed: Option<StageError>,
    failure_told: bool,
    peer_closed: bool,
    said_goodbye: bool,
    /// Anything at all was received.
    received: bool,
    first: Opening,
}

/// How far the first message of a connection has come. Nothing of it is looked at closely before its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// It is not whole yet.
    Awaited,
    /// It is whole, in `partial`, and waits for its turn.
    Waits,
    /// It has its turn and is still in `partial`.
    Due,
    /// It was looked at.
    Over,
}

impl TlsStage {
    /// For a new connection.
    ///
    /// # Errors
    /// `config` is of no use.
    pub fn new(config: Arc<ServerConfig>) -> Result<TlsStage, StageError> {
        let tls = UnbufferedServerConnection::new(config).map_err(StageError::Tls)?;
        Ok(TlsStage {
            tls,
            partial: Vec::new(),
            plain: Plain::default(),
            outgoing: Vec::new(),
            waiting: Vec::new(),
            failed: None,
            failure_told: false,
            peer_closed: false,
            said_goodbye: false,
            received: false,
            first: Opening::Awaited,
        })
    }

    /// Decrypts the records in `input` (a part of the space from its start) and returns the plaintext at its start.
    fn process(&mut self, input: &mut [u8], most: usize) -> usize {
        let (mut read, mut out) = (0, 0);
        loop {
            // No handshake message becomes larger than a record may be, however it lands.
            let in_sight = if self.tls.is_handshaking() { RECORD_MAX } else { usize::MAX };
            let (done, records) = input.split_at_mut(read);
            let in_sight = records.len().min(in_sight);
            let is_all = in_sight == records.len();
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut records[..in_sight]);
            let mut over = false;
            let mut beside = 0;
            let settled = state.and_then(|state| settle(state, &mut self.outgoing));
            let waits = matches!(settled, Ok(Settled::Write(_) | Settled::Wait));
            match settled {
                Ok(Settled::Read(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        beside += record.discard;
                        let room = done.len().min(most);
                        out = self.plain.pass(record.payload, &mut done[..room], out);
                    }
                }
                Ok(Settled::Again) => {}
                Ok(Settled::PeerClosed) => self.peer_closed = true,
                Ok(Settled::Write(_) | Settled::Wait) => over = is_all || self.peer_closed,
                Err(error) => {
                    self.fail(error);
                    over = true;
                }
            }
            if waits && !over && discard == 0 && self.tls.is_handshaking() {
                self.failed = Some(StageError::HandshakeTooLarge(RECORD_MAX));
                over = true;
            }
            read = (read + discard + beside).min(input.len());
            let room = read.min(most);
            out = self.plain.pour(&mut input[..room], out);
            if over {
                break;
            }
        }
        let rest = &input[read..];
        if self.peer_closed || self.failed.is_some() || rest.is_empty() {
            return out; // whatever comes behind the end is ignored (RFC 8446 section 6.1)
        }
        if rest.len() > RECORD_MAX {
            self.failed = Some(StageError::HandshakeTooLarge(RECORD_MAX));
        } else {
            self.partial = rest.to_vec();
        }
        out
    }

    /// Keeps more of what a connection begins with; it is looked at in its turn, or at once where it is no ClientHello.
    fn gather_first(&mut self, landed: &[u8]) {
        let (landed, over) = landed.split_at(landed.len().min(RECORD_MAX - self.partial.len()));
        // Twice as much each time, but never more than a record needs.
        if self.partial.capacity() - self.partial.len() < landed.len() {
            let more = landed.len().max(self.partial.len()).min(RECORD_MAX - self.partial.len());
            self.partial.reserve_exact(more);
        }
        self.partial.extend_from_slice(landed);
        if self.first == Opening::Awaited {
            self.first = match hello::look(&self.partial) {
                First::Unfinished if mutant!("turn_for_the_first_byte") => Opening::Waits,
                First::Unfinished => Opening::Awaited,
                First::Hello => Opening::Waits,
                First::Other => Opening::Due,
            };
        }
        if !over.is_empty() && self.first != Opening::Due {
            self.failed = Some(StageError::HandshakeTooLarge(RECORD_MAX));
            self.partial = Vec::new();
        }
    }

    /// Keeps the reason, and the alert for the peer.
    fn fail(&mut self, error: Error) {
        let is_first = self.tls.is_handshaking() && self.tls.protocol_version().is_none();
        self.failed = Some(match error {
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) if is_first => StageError::NotTls,
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure) => StageError::SubjectRefused,
            other => StageError::Tls(other),
        });
        // With something to send, rustls hands that out and looks at no input.
        while self.tls.wants_write() {
            let before = self.outgoing.len();
            let UnbufferedStatus { state, .. } = self.tls.process_tls_records(&mut []);
            if state.and_then(|state| settle(state, &mut self.outgoing)).is_err() || self.outgoing.len() == before {
                break;
            }
        }
    }

    /// Adds `plain` and, if wanted, `close_notify` to `wire`.
    fn send(&mut self, plain: &[u8], goodbye: bool, wire: &mut Vec<u8>) -> Result<(), StageError> {
        loop {
            // All of `partial` was seen before; rustls still wants to find it where it was.
            let UnbufferedStatus { discard, state } = self.tls.process_tls_records(&mut self.partial);
            let settled = state.and_then(|state| settle(state, &mut self.outgoing));
            let sent = match settled {
                Ok(Settled::Write(mut traffic)) => {
                    wire.append(&mut self.outgoing);
                    let mut sent = Ok(());
                    if !plain.is_empty() {
                        let guess = plain.len() + (plain.len() / 16_384 + 1) * 64;
                        sent = grow(wire, guess, |space| traffic.encrypt(plain, space));
                    }
                    if goodbye && sent.is_ok() {
                        sent = grow(wire, 64, |space| traffic.queue_close_notify(space));
                    }
                    Some(sent)
                }
                Ok(Settled::Read(mut traffic)) => {
                    while let Some(Ok(record)) = traffic.next_record() {
                        self.plain.keep(record.payload);
                    }
                    None
                }
                Ok(Settled::Again) => None,
                Ok(Settled::PeerClosed) => {
                    self.peer_closed = true;
                    None
                }
                Ok(Settled::Wait) => Some(Ok(())), // both sides have said goodbye
                Err(error) => {
                    self.fail(error);
                    Some(self.failed.clone().map_or(Ok(()), Err))
                }
            };
            if discard > 0 {
                self.partial.drain(..discard.min(self.partial.len()));
            }
            if let Some(sent) = sent {
                wire.append(&mut self.outgoing);
                self.outgoing = Vec::new();
                return sent;
            }
        }
    }
}

impl Stage for TlsStage {
    fn held(&self) -> usize {
        self.partial.len()
    }

    fn decode(&mut self, space: &mut [u8], landed: usize, most: usize) -> Result<usize, StageError> {
        let most = most.min(space.len());
        let mut out = 0;
        if landed > 0 {
            self.received = true;
        }
        if landed > 0 && self.failed.is_none() && !self.peer_closed && !self.said_goodbye {
            let held = self.partial.len();
            let given = space.len();
            let Some(input) = space.get_mut(..held + landed) else {
                return Err(StageError::NoSpace { given, needed: held + landed });
            };
            if self.first != Opening::Over {
                self.gather_first(&input[held..]);
            } else if is_unfinished(&self.partial, &input[held..]) {
                // Twice as much each time, but never more than a record needs.
                if self.partial.capacity() - held < landed {
                    self.partial.reserve_exact(landed.max(held).min(RECORD_MAX - held));
                }
                self.partial.extend_from_slice(&input[held..]);
            } else {
                input[..held].copy_from_slice(&self.partial);
                self.partial = Vec::new();
                out = self.process(input, most);
            }
        }
        if self.first == Opening::Due && self.failed.is_none() {
            self.first = Opening::Over;
            let mut records = std::mem::take(&mut self.partial);
            self.process(&mut records, 0); // plaintext, if there is any already, is kept
        }
        out = self.plain.pour(&mut space[..most], out);
        self.plain.shrink();
        match &self.failed {
            Some(error) if out == 0 && self.plain.is_empty() => {
                self.failure_told = true;
                Err(error.clone())
            }
            _ => Ok(out),
        }
    }

    fn pending(&self) -> bool {
        let first_is_due = self.first == Opening::Due && self.failed.is_none();
        !self.plain.is_empty() || first_is_due || (self.failed.is_some() && !self.failure_told)
    }

    fn wants_turn(&self) -> bool {
        self.first == Opening::Waits && self.failed.is_none()
    }

    fn take_turn(&mut self) {
        if self.first == Opening::Waits {
            self.first = Opening::Due;
        }
    }

    fn has_ended(&self) -> bool {
        self.peer_closed && self.plain.is_empty() && self.failed.is_none()
    }

    fn encode(&mut self, bytes: &mut Vec<u8>) -> Result<(), StageError> {
        if self.failed.is_some() || self.said_goodbye {
            bytes.clear();
            bytes.append(&mut self.outgoing);
            return Ok(());
        }
        if self.tls.is_handshaking() {
            if self.waiting.len() + bytes.len() > WAITING_MAX {
                return Err(StageError::SentTooEarly(WAITING_MAX));
            }
            self.waiting.append(bytes);
            *bytes = std::mem::take(&mut self.outgoing);
            return Ok(());
        }
        let mut plain = std::mem::take(&mut self.waiting);
        let mut wire = Vec::new();
        if plain.is_empty() {
            std::mem::swap(&mut plain, bytes);
        } else {
            plain.append(bytes);
        }
        let sent = self.send(&plain, false, &mut wire);
        *bytes = wire;
        sent
    }

    fn wants_to_send(&self) -> bool {
        !self.outgoing.is_empty() || (!self.waiting.is_empty() && !self.tls.is_handshaking() && self.failed.is_none())
    }

    fn close(&mut self, bytes: &mut Vec<u8>) {
        if self.failed.is_some() || self.said_goodbye || self.tls.is_handshaking() {
            bytes.append(&mut self.outgoing);
        } else {
            let plain = std::mem::take(&mut self.waiting);
            // What cannot be sent any more is a goodbye that the peer does not get; the connection ends either way.
            let _ = self.send(&plain, true, bytes);
        }
        self.said_goodbye = true;
    }

    fn is_clean_end(&self) -> bool {
        !self.received || (self.peer_closed && self.failed.is_none())
    }

    fn is_opening(&self) -> bool {
        self.tls.is_handshaking()
    }
}

/// What is to be done after rustls has looked at its input.
enum Settled<'c, 'i> {
    Read(ReadTraffic<'c, 'i, ServerConnectionData>),
    Write(WriteTraffic<'c, ServerConnectionData>),
    Again,
    PeerClosed,
    Wait,
}

/// Moves what rustls wants to send to `outgoing`.
fn settle<'c, 'i>(
    state: ConnectionState<'c, 'i, ServerConnectionData>,
    outgoing: &mut Vec<u8>,
) -> Result<Settled<'c, 'i>, Error> {
    match state {
        ConnectionState::ReadTraffic(traffic) => Ok(Settled::Read(traffic)),
        ConnectionState::WriteTraffic(traffic) => Ok(Settled::Write(traffic)),
        ConnectionState::PeerClosed => Ok(Settled::PeerClosed),
        ConnectionState::Closed | ConnectionState::BlockedHandshake => Ok(Settled::Wait),
        ConnectionState::TransmitTlsData(transmitted) => {
            transmitted.done(); // `outgoing` keeps it until it is sent
            Ok(Settled::Again)
        }
        ConnectionState::EncodeTlsData(mut data) => {
            let start = outgoing.len();
            if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = data.encode(&mut []) {
                outgoing.resize(start + required_size, 0);
                let written = data.encode(&mut outgoing[start..]).map_err(|e| Error::General(e.to_string()))?;
                outgoing.truncate(start + written);
            }
            Ok(Settled::Again)
        }
        other => Err(Error::General(format!("unexpected state {other:?}"))), // early data is off
    }
}

/// Appends what `write` writes, with as much room as it wants.
fn grow(
    wire: &mut Vec<u8>,
    guess: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncryptError>,
) -> Result<(), StageError> {
    let start = wire.len();
    let mut room = guess;
    loop {
        wire.resize(start + room, 0);
        match write(&mut wire[start..]) {
            Ok(written) => {
                wire.truncate(start + written);
                return Ok(());
            }
            Err(EncryptError::InsufficientSize(e)) if e.required_size > room => room = e.required_size,
            Err(error) => {
                wire.truncate(start);
                return Err(StageError::CannotEncrypt(error.to_string()));
            }
        }
    }
}

/// True if the first record of `partial` followed by `landed` is well begun and not complete: then nothing needs to be
/// moved. What is badly begun is for rustls to refuse.
fn is_unfinished(partial: &[u8], landed: &[u8]) -> bool {
    let byte = |at: usize| partial.get(at).or_else(|| landed.get(at.wrapping_sub(partial.len()))).copied();
    let is_good = byte(0).is_none_or(|kind| matches!(kind, 20..=23)) && byte(1).is_none_or(|major| major == 3);
    let (Some(high), Some(low)) = (byte(3), byte(4)) else { return is_good };
    let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
    is_good && len < RECORD_MAX && partial.len() + landed.len() < len
}

/// Plaintext on its way to the session: kept while there is no room for it, freed when empty.
#[derive(Default)]
struct Plain {
    bytes: Vec<u8>,
    start: usize,
}

impl Plain {
    fn is_empty(&self) -> bool {
        self.start == self.bytes.len()
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Writes `bytes` to `space[out..]`, behind what is kept, as far as there is room. Returns the new `out`.
    fn pass(&mut self, bytes: &[u8], space: &mut [u8], out: usize) -> usize {
        let out = self.pour(space, out);
        let room = if self.is_empty() { space.len().saturating_sub(out) } else { 0 };
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        if !now.is_empty() {
            space[out..out + now.len()].copy_from_slice(now);
        }
        self.keep(later);
        out + now.len()
    }

    /// Writes what is kept to `space[out..]` as far as there is room. Returns the new `out`.
    fn pour(&mut self, space: &mut [u8], out: usize) -> usize {
        let kept = &self.bytes[self.start..];
        let n = kept.len().min(space.len().saturating_sub(out));
        if n == 0 {
            return out;
        }
        space[out..out + n].copy_from_slice(&kept[..n]);
        self.start += n;
        if self.is_empty() {
            self.start = 0;
            self.bytes.clear();
        }
        out + n
    }

    /// Gives the memory back when nothing is kept.
    fn shrink(&mut self) {
        if self.is_empty() {
            *self = Plain::default();
        }
    }
}
