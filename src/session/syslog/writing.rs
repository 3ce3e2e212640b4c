//! How syslog messages look on disk: as sent, as JSON, or as in the files that rsyslog and syslog-ng write.

use super::message::{self, Message};
use super::structured;
use crate::host::peer::Peer;
use crate::session::write::json::{self, Attr, Value};
use crate::session::write::{Escape, Form, Format, Record, Writer};
use std::cell::Cell;

/// Bytes that `TIMESTAMP HOST TAG: ` takes at most; what would be longer is not made up.
const LONGEST_LEAD: usize = 1024;
/// Bytes of the names of attributes and of the words for facility and severity, with what JSON puts around them.
pub const ATTRS: usize = LONGEST_LEAD;

/// The writer of one connection.
#[derive(Debug)]
pub struct Writing {
    form: Form,
    format: Format,
    /// What stands for a host where a message names none.
    host: String,
    /// The last second of which the time was written, and its text.
    time: Cell<(u64, [u8; TIME])>,
}

/// Bytes of `Mmm dd hh:mm:ss`.
const TIME: usize = 15;

impl Writing {
    /// Of a listener's connection with this peer.
    #[must_use]
    pub fn new(format: Format, escape: Escape, listener: &str, peer: &Peer) -> Writing {
        let form = Form::new(format, escape, listener, &peer.to_string());
        let mut writing = Writing { form, format, host: String::new(), time: Cell::new((u64::MAX, [0; TIME])) };
        writing.set_peer(peer);
        writing
    }

    /// Changes the peer of the messages to come.
    pub fn set_peer(&mut self, peer: &Peer) {
        self.form.set_peer(&peer.to_string());
        self.host = match peer {
            Peer::Ip(address) => address.ip().to_canonical().to_string(),
            _ => "localhost".into(),
        };
    }

    fn json(&self, found: &Message<'_>, record: &Record<'_>, to: &mut [u8]) -> Option<usize> {
        let nothing = Attr { name: b"", value: Value::Text(b"") };
        let (mut attrs, mut n) = ([nothing; 8], 0);
        let mut add = |name, value| {
            attrs[n] = Attr { name, value };
            n += 1;
        };
        if let (Some(facility), Some(severity)) = (found.facility(), found.severity()) {
            add(b"facility", Value::Text(facility.as_bytes()));
            add(b"severity", Value::Text(severity.as_bytes()));
        }
        let texts: [(&[u8], &[u8]); 5] = [
            (b"host", found.host),
            (b"app", found.app),
            (b"procid", found.procid),
            (b"msgid", found.msgid),
            (b"time", found.time),
        ];
        for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            add(name, Value::Text(text));
        }
        if !found.sd.is_empty() {
            add(b"sd", Value::Made(structured::make, found.sd));
        }
        self.form.render(&Record { message: found.msg, attrs: &attrs[..n], ..*record }, to)
    }

    fn classic(&self, found: &Message<'_>, record: &Record<'_>, to: &mut [u8]) -> Option<usize> {
        let received = self.received(record.wall_ns);
        let mut turned = [0; TIME];
        let time = match found.time {
            iso if traditional(iso, &mut turned) => &turned[..],
            said if said.first().is_some_and(u8::is_ascii_alphabetic) => said,
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
            return self.form.render(&Record { lead: &lead.bytes[..lead.len], message: found.msg, ..*record }, to);
        }
        // Names of such length are none: all of it stays in the message.
        let mut lead = Lead { bytes: [0; LONGEST_LEAD], len: 0, fits: true };
        [&received[..], b" ", self.host.as_bytes(), b" "].iter().for_each(|piece| lead.put(piece));
        self.form.render(&Record { lead: &lead.bytes[..lead.len], ..*record }, to)
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
            Some(to) => {
                to.copy_from_slice(piece);
                self.len += piece.len();
            }
            None => self.fits = false,
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

impl Writer for Writing {
    fn is_plain(&self) -> bool {
        false
    }

    fn keeps_lines(&self) -> bool {
        self.format == Format::Raw && self.form.keeps_lines()
    }

    fn room_for(&self, len: usize) -> usize {
        self.form.room_for(len) + ATTRS
    }

    fn render(&self, record: &Record<'_>, to: &mut [u8]) -> Option<usize> {
        match self.format {
            Format::Raw => self.form.render(record, to),
            Format::Json => self.json(&message::parse(record.message), record, to),
            Format::Classic => self.classic(&message::parse(record.message), record, to),
        }
    }
}
