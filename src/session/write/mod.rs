//! How records look on disk, whatever protocol they came by: as they are, or as JSON objects. The protocol decides where they
//! begin and end.

pub mod entry;
pub mod json;

use super::sink::Sink;
pub use entry::{Entry, Message};
use json::Envelope;
pub use json::{Attr, Attrs, Value};
use memchr::memchr2_iter;

/// How records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As sent.
    Raw,
    /// As JSON objects.
    Json,
    /// As syslog files look: `TIMESTAMP HOST TAG: MSG`. Only for protocols whose messages say so much.
    Classic,
}

/// What happens to a newline inside a record that is written as sent, for protocols whose records may have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// There is none: the protocol ends its records with it.
    #[default]
    Nothing,
    /// It is written as `\n`. A reader cannot tell it from a backslash and an n.
    Newlines,
    /// Backslashes are doubled too, so that it can be taken back: `\\` is a backslash, `\n` a newline.
    Full,
}

/// Bytes kept free for ` [truncated N bytes]` in a record that is cut.
pub const MARKER_ROOM: usize = 40;

/// One record, as a protocol found it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    /// What stands in front of the message where it is written as text.
    pub lead: &'a [u8],
    /// The message, without a terminator.
    pub message: &'a [u8],
    /// A mark that the record was cut, written behind it as it is.
    pub marker: &'a [u8],
    /// What the sender said besides the message. It is kept only in JSON.
    pub attrs: &'a [Attr<'a>],
    /// When it was received, in nanoseconds since 1970.
    pub wall_ns: u64,
}

/// How the records of one connection are written.
#[derive(Debug)]
pub enum Form {
    /// As sent.
    Raw(Escape),
    /// As JSON objects.
    Json(Box<Envelope>),
}

/// Makes records of messages. [`Form`] writes a message as it is or with what its protocol says of it; a protocol whose messages say more
/// of themselves has a writer of its own, which takes them apart.
pub trait Writer {
    /// True where records are the bytes as they came: whole lines may stay where they were received.
    fn is_plain(&self) -> bool;

    /// True where a line, with its newline, is its own record.
    fn keeps_lines(&self) -> bool;

    /// Room that a record of so many bytes, without attributes, needs at most to be put together and written.
    fn room_for(&self, len: usize) -> usize;

    /// Writes a record at the start of `to` and returns its length; `None`: it does not fit.
    fn render(&self, record: &Record<'_>, to: &mut [u8]) -> Option<usize>;

    /// Writes a record at the end of what is committed. False: there is no room for it, and nothing was written.
    #[must_use]
    fn write(&self, record: &Record<'_>, sink: &mut Sink<'_>) -> bool {
        let len = self.render(record, sink.free());
        if let Some(len) = len {
            sink.commit(len, 1);
        }
        len.is_some()
    }
}

/// Bytes of a chunk that a record of `longest` bytes needs at most, with attributes of so many bytes (their names and values).
#[must_use]
pub const fn longest_record(longest: usize, attrs: usize, format: Format, escape: Escape) -> usize {
    match (format, escape) {
        (Format::Raw, Escape::Nothing) => longest + MARKER_ROOM + 1,
        // A record that is put together from two pieces has its source in the same space.
        (Format::Raw | Format::Classic, _) => 3 * longest + attrs + MARKER_ROOM + 1,
        (Format::Json, _) => (json::GROWTH + 1) * longest + 2 * json::GROWTH * attrs + json::MOST_AROUND,
    }
}

impl Form {
    /// Of a listener's connection with this peer.
    #[must_use]
    pub fn new(format: Format, escape: Escape, listener: &str, peer: &str) -> Form {
        match format {
            Format::Raw | Format::Classic => Form::Raw(escape),
            Format::Json => Form::Json(Box::new(Envelope::new(listener, peer))),
        }
    }

    /// As [`Writer::write`].
    #[must_use]
    pub fn write(&self, record: &Record<'_>, sink: &mut Sink<'_>) -> bool {
        Writer::write(self, record, sink)
    }

    /// Changes the peer of the records to come.
    pub fn set_peer(&mut self, peer: impl std::fmt::Display) {
        if let Form::Json(envelope) = self {
            envelope.set_peer(peer);
        }
    }
}

impl Writer for Form {
    fn is_plain(&self) -> bool {
        matches!(self, Form::Raw(Escape::Nothing))
    }

    fn keeps_lines(&self) -> bool {
        matches!(self, Form::Raw(Escape::Nothing | Escape::Newlines))
    }

    fn room_for(&self, len: usize) -> usize {
        match self {
            Form::Raw(Escape::Nothing) => len + MARKER_ROOM + 1,
            Form::Raw(_) => 3 * len + MARKER_ROOM + 1,
            Form::Json(envelope) => (json::GROWTH + 1) * len + envelope.around() + MARKER_ROOM,
        }
    }

    fn render(&self, record: &Record<'_>, to: &mut [u8]) -> Option<usize> {
        match self {
            Form::Raw(escape) => raw(*escape, record, to),
            Form::Json(envelope) => envelope.write(record, to),
        }
    }
}

fn raw(escape: Escape, record: &Record<'_>, to: &mut [u8]) -> Option<usize> {
    let Record { lead, message, marker, .. } = record;
    let is_special = |b: u8| match escape {
        Escape::Nothing => false,
        Escape::Newlines => b == b'\n',
        Escape::Full => b == b'\n' || b == b'\\',
    };
    let mut specials = memchr2_iter(b'\n', b'\\', if escape == Escape::Nothing { &[] } else { message });
    let doubled = specials.clone().filter(|i| is_special(message[*i])).count();
    let len = lead.len() + message.len() + doubled + marker.len() + 1;
    let to = to.get_mut(..len)?;
    let (mut from, mut at) = (0, 0);
    let mut put = |bytes: &[u8]| {
        to[at..at + bytes.len()].copy_from_slice(bytes);
        at += bytes.len();
    };
    put(lead);
    for i in specials.by_ref().filter(|i| is_special(message[*i])) {
        put(&message[from..i]);
        put(if message[i] == b'\n' { b"\\n" } else { b"\\\\" });
        from = i + 1;
    }
    put(&message[from..]);
    put(marker);
    put(b"\n");
    Some(len)
}

/// What a program makes of a line that was written with `escape = "full"`.
#[cfg(test)]
pub(crate) fn taken_back(line: &[u8]) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::new(), line.iter());
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'\\' if bytes.next() == Some(&b'n') => b'\n',
            other => *other,
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::sink::ANY_PARTS;
    use super::*;
    use proptest::prelude::*;

    fn written(form: &Form, record: &Record<'_>, room: usize) -> Option<Vec<u8>> {
        let mut space = vec![0xaa; room];
        let mut sink = Sink::new(&mut space, ANY_PARTS);
        let fits = form.write(record, &mut sink);
        let (filled, lines) = (sink.filled(), sink.lines());
        assert_eq!((fits, fits), (lines == 1, filled > 0));
        fits.then(|| space[..filled].to_vec())
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![4 => any::<u8>(), 2 => Just(b'\n'), 2 => Just(b'\\'), 1 => Just(b'n'), 4 => Just(b'x')];
        proptest::collection::vec(byte, 0..200)
    }

    proptest! {
        #[test]
        fn a_record_is_one_line_and_full_escapes_are_taken_back(message in message(), less in 0usize..50) {
            let record = Record { message: &message, ..Record::default() };
            let full = written(&Form::Raw(Escape::Full), &record, 1000).unwrap();
            let (line, end) = full.split_at(full.len() - 1);
            prop_assert_eq!(end, b"\n");
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(taken_back(line), &message[..]);
            let some = written(&Form::Raw(Escape::Newlines), &record, 1000).unwrap();
            let expected: Vec<u8> = message.iter().flat_map(|b| if *b == b'\n' { vec![b'\\', b'n'] } else { vec![*b] }).collect();
            prop_assert_eq!(&some[..some.len() - 1], &expected[..]);
            let json = Form::new(Format::Json, Escape::Nothing, "l", "p");
            for form in [Form::Raw(Escape::Newlines), Form::Raw(Escape::Full), json] {
                let whole = written(&form, &record, 10_000).unwrap();
                prop_assert!(whole.len() <= form.room_for(message.len()));
                let just = written(&form, &record, whole.len());
                prop_assert_eq!(just.as_ref(), Some(&whole), "just enough");
                prop_assert_eq!(written(&form, &record, (whole.len() - 1).saturating_sub(less)), None);
            }
        }
    }

    #[test]
    fn markers_stand_behind_the_message() {
        let record = Record { message: b"a\\b", marker: b" [truncated 7 bytes]", ..Record::default() };
        let line = written(&Form::Raw(Escape::Full), &record, 100).unwrap();
        assert_eq!(line, b"a\\\\b [truncated 7 bytes]\n");
    }
}
