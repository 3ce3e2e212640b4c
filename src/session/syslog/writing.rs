//! How syslog messages look on disk: as sent, as JSON, or as in the files that rsyslog and syslog-ng write.

use super::message::{self, Message};
use super::route::{self, LOOKED_AT};
use super::structured;
use crate::host::peer::Peer;
use crate::session::lines::{LOOKED_BEHIND, Lines};
use crate::session::routes::{Route, Routes, Rules};
use crate::session::write::json::{self, Attrs, Value};
use crate::session::write::{Escape, Form, Format, Record, Writer, longest_record};
use crate::session::{Frame, Window};
use std::cell::Cell;
use std::fmt::Write;
use std::sync::Arc;

/// Bytes that `TIMESTAMP HOST TAG: ` takes at most; what would be longer is not made up.
const LONGEST_LEAD: usize = 1024;
/// Bytes of the names of attributes and of the words for facility and severity, with what JSON puts around them.
pub const ATTRS: usize = LONGEST_LEAD;

/// How the messages of a listener are written, and where they go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What happens to newlines and backslashes.
    pub escape: Escape,
    /// The streams.
    pub routes: Arc<Routes>,
    /// Which message goes to which.
    pub rules: Arc<Rules>,
}

impl Options {
    /// All to one stream, in this format.
    #[must_use]
    pub fn plain(format: Format, escape: Escape) -> Options {
        let own = Route { name: "default".into(), index: 0, format };
        Options { escape, routes: Arc::new(Routes::new(own, [])), rules: Arc::default() }
    }

    /// Bytes of a chunk that a message of so many bytes needs at most.
    #[must_use]
    pub fn longest_record(&self, longest: usize) -> usize {
        let of = |format| longest_record(longest, ATTRS, format, self.escape);
        self.routes.all().map(|route| of(route.format)).max().unwrap_or(0)
    }
}

/// The writer of one connection.
#[derive(Debug)]
pub struct Writing {
    raw: Form,
    /// Where some stream is written so.
    json: Option<Form>,
    /// How the listener's own stream is written,
    own: Format,
    /// and how the one that the present message goes to.
    format: Cell<Format>,
    rules: Arc<Rules>,
    /// Some stream is written as syslog files are. Then this stands for a host where a message names none.
    is_classic: bool,
    host: String,
    /// The last second of which the time was written, and its text.
    time: Cell<(u64, [u8; TIME])>,
}

/// Bytes of `Mmm dd hh:mm:ss`.
const TIME: usize = 15;

impl Writing {
    /// Of a listener's connection with this peer.
    #[must_use]
    pub fn new(options: &Options, listener: &str, peer: &Peer) -> Writing {
        let form = |format| Form::new(format, options.escape, listener, &peer.to_string());
        let own = options.routes.own().format;
        let mut writing = Writing {
            raw: form(Format::Raw),
            json: options.routes.any(Format::Json).then(|| form(Format::Json)),
            own,
            format: Cell::new(own),
            rules: Arc::clone(&options.rules),
            is_classic: options.routes.any(Format::Classic),
            host: String::new(),
            time: Cell::new((u64::MAX, [0; TIME])),
        };
        writing.set_peer(peer);
        writing
    }

    /// Finds the stream of the message that ends with this piece, `cut` more bytes of which are gone, and with what was gathered before it.
    /// From here on records belong to it, and to this frame.
    pub fn direct(&self, lines: &Lines, (piece, cut): (&[u8], usize), frame: Frame, window: &mut Window<'_>) {
        if self.rules.is_empty() {
            return window.sink.to(None, frame);
        }
        // As much more as tells whether one that has so many bytes is kept whole.
        let mut beginning = [0; LOOKED_AT + LOOKED_BEHIND];
        let held = window.tail.copy_beginning(&mut beginning);
        let n = piece.len().min(beginning.len() - held);
        beginning[held..held + n].copy_from_slice(&piece[..n]);
        let found = &beginning[..held + n];
        // Behind the kept beginning of a message that is too long, a piece of its end would stand.
        let known = lines.known(window.tail.len() + piece.len() + cut, found).min(LOOKED_AT).min(found.len());
        let route = route::find(&self.rules, &found[..known]);
        self.format.set(route.map_or(self.own, |route| route.format));
        window.sink.to(route.map(|route| route.index), frame);
    }

    /// Changes the peer of the messages to come.
    pub fn set_peer(&mut self, peer: &Peer) {
        // Of datagrams each may have another sender, so nothing is allocated here once there is room.
        self.json.iter_mut().for_each(|json| json.set_peer(peer));
        if self.is_classic {
            self.host.clear();
            let _ = match peer {
                Peer::Ip(address) => write!(self.host, "{}", address.ip().to_canonical()),
                Peer::Local => self.host.write_str("localhost"),
            };
        }
    }

    fn json(&self, form: &Form, found: &Message<'_>, record: &Record<'_>, to: &mut [u8]) -> Option<usize> {
        let mut attrs = Attrs::<8>::default();
        if let (Some(facility), Some(severity)) = (found.facility(), found.severity()) {
            attrs.add(b"facility", Value::Text(facility.as_bytes()));
            attrs.add(b"severity", Value::Text(severity.as_bytes()));
        }
        let texts: [(&[u8], &[u8]); 5] = [
            (b"host", found.host),
            (b"app", found.app),
            (b"procid", found.procid),
            (b"msgid", found.msgid),
            (b"time", found.time),
        ];
        for (name, text) in texts {
            attrs.add_some(name, text, Value::Text);
        }
        attrs.add_some(b"sd", found.sd, |sd| Value::Made(structured::make, sd));
        form.render(&Record { message: found.msg, attrs: &attrs, ..*record }, to)
    }

    fn classic(&self, found: &Message<'_>, record: &Record<'_>, to: &mut [u8]) -> Option<usize> {
        let received = self.received(record.wall_ns);
        let mut turned = [0; TIME];
        let time = match found.time {
            said if traditional(said, &mut turned) || shortened(said, &mut turned) => &turned[..],
            _ => &received[..],
        };
        let host = if found.host.is_empty() { self.host.as_bytes() } else { found.host };
        let mut lead = Lead { bytes: [0; LONGEST_LEAD], len: 0, fits: true };
        [time, b" ", host, b" "].iter().for_each(|piece| lead.put(piece));
        if !found.app.is_empty() {
            lead.put(found.app);
            if !found.procid.is_empty() {
                [b"[", found.procid, b"]"].iter().for_each(|piece| lead.put(piece));
            }
            lead.put(if found.msg.is_empty() { b":" } else { b": " });
        }
        if lead.fits {
            return self.raw.render(&Record { lead: &lead.bytes[..lead.len], message: found.msg, ..*record }, to);
        }
        // Names of such length are none: all of it stays in the message.
        let mut lead = Lead { bytes: [0; LONGEST_LEAD], len: 0, fits: true };
        [&received[..], b" ", self.host.as_bytes(), b" "].iter().for_each(|piece| lead.put(piece));
        self.raw.render(&Record { lead: &lead.bytes[..lead.len], ..*record }, to)
    }

    /// The time of receipt in UTC, as it stands in syslog files.
    fn received(&self, wall_ns: u64) -> [u8; TIME] {
        let second = wall_ns / 1_000_000_000;
        let (of, mut text) = self.time.get();
        if of != second {
            traditional(json::time(wall_ns).as_bytes(), &mut text);
            self.time.set((second, text));
        }
        text
    }
}

struct Lead {
    bytes: [u8; LONGEST_LEAD],
    len: usize,
    fits: bool,
}

impl Lead {
    fn put(&mut self, piece: &[u8]) {
        match self.bytes.get_mut(self.len..self.len + piece.len()) {
            // A name with a newline is none, and a record is one line whatever a parser finds.
            Some(to) if !piece.contains(&b'\n') => {
                to.copy_from_slice(piece);
                self.len += piece.len();
            }
            _ => self.fits = false,
        }
    }
}

/// Turns the beginning of an RFC 3339 time into `Mmm dd hh:mm:ss`, by its own clock. False: it is none.
fn traditional(iso: &[u8], to: &mut [u8; TIME]) -> bool {
    const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let (Some(month), Some(day), Some(time)) = (iso.get(5..7), iso.get(8..10), iso.get(11..19)) else { return false };
    if iso[4] != b'-' || iso[10] != b'T' || !month.iter().chain(day).all(u8::is_ascii_digit) {
        return false;
    }
    let number = usize::from(month[0] - b'0') * 10 + usize::from(month[1] - b'0');
    let Some(name) = number.checked_sub(1).and_then(|i| MONTHS.get(3 * i..3 * i + 3)) else { return false };
    to[..3].copy_from_slice(name);
    (to[3], to[6]) = (b' ', b' ');
    to[4] = if day[0] == b'0' { b' ' } else { day[0] };
    to[5] = day[1];
    to[7..].copy_from_slice(time);
    true
}

/// Leaves year, fraction and zone out of `Mmm dd yyyy hh:mm:ss.fff ZONE`. False: it is something else.
fn shortened(said: &[u8], to: &mut [u8; TIME]) -> bool {
    let is_clock = |at: &usize| matches!(said[*at..], [_, _, b':', _, _, b':', _, _, ..]);
    let (Some(date), Some(clock)) = (said.get(..6), (7..said.len()).find(is_clock)) else { return false };
    if !date[0].is_ascii_alphabetic() {
        return false;
    }
    to[..6].copy_from_slice(date);
    if date[5] == b' ' {
        (to[4], to[5]) = (b' ', date[4]); // a day of one digit without its blank
    }
    to[6] = b' ';
    to[7..].copy_from_slice(&said[clock..clock + 8]);
    true
}

impl Writer for Writing {
    fn is_plain(&self) -> bool {
        false
    }

    fn keeps_lines(&self) -> bool {
        self.rules.is_empty() && self.own == Format::Raw && self.raw.keeps_lines()
    }

    fn room_for(&self, len: usize) -> usize {
        self.json.as_ref().map_or(0, |json| json.room_for(len)).max(self.raw.room_for(len)) + ATTRS
    }

    fn render(&self, record: &Record<'_>, to: &mut [u8]) -> Option<usize> {
        match (self.format.get(), &self.json) {
            (Format::Json, Some(form)) => self.json(form, &message::parse(record.message), record, to),
            (Format::Classic, _) => self.classic(&message::parse(record.message), record, to),
            _ => self.raw.render(record, to),
        }
    }
}
