//! Clients: send lines in pieces of any size, read what is answered now and then, and go as clients go.

use super::fiber::{below, once_in};
use super::ledger::{Ledger, Promise};
use super::net::{SharedNet, piece};
use std::collections::VecDeque;
use std::io::Write;

/// What a client speaks, and what it is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// Lines that nobody answers.
    Lines,
    /// Lines whose number comes back.
    Counted(Promise),
    /// Requests.
    Http(Promise),
    /// Numbered messages.
    Relp(Promise),
}

/// How it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Ends its side when everything is sent and answered.
    Orderly,
    /// Ends its side in the middle of a line.
    InsideALine,
    /// Breaks the connection somewhere.
    Reset,
}

/// One connection.
pub struct Client {
    pub wire: usize,
    pub listener: usize,
    pub conn: u32,
    pub speaks: Speaks,
    fate: Fate,
    /// Lines still to be made.
    left: u64,
    /// Not sent yet.
    out: VecDeque<u8>,
    /// Answers as far as they came.
    heard: Vec<u8>,
    /// Requests that wait for their answer: their lines.
    asked: VecDeque<(u64, u64)>,
    /// Lines that were acknowledged, in number; or RELP frames that were answered.
    counted: u64,
    /// RELP frames that were sent.
    frames: u64,
    said_goodbye: bool,
    /// Requests that were refused.
    pub refused: u64,
    pub over: bool,
    ended: bool,
}

impl Client {
    pub fn new(wire: usize, listener: usize, speaks: Speaks, orderly: bool, ledger: &mut Ledger) -> Client {
        let fate = match below(8) {
            0 if !orderly => Fate::Reset,
            1 if !orderly => Fate::InsideALine,
            _ => Fate::Orderly,
        };
        let left = 1 + below(40);
        let conn = ledger.open();
        Client {
            wire,
            listener,
            conn,
            speaks,
            fate,
            left,
            out: VecDeque::new(),
            heard: Vec::new(),
            asked: VecDeque::new(),
            counted: 0,
            frames: 0,
            said_goodbye: false,
            refused: 0,
            over: false,
            ended: false,
        }
    }

    /// Does something.
    pub fn act(&mut self, net: &SharedNet, ledger: &mut Ledger) {
        if self.over {
            return;
        }
        if once_in(3) {
            return self.listen(net, ledger);
        }
        if self.ended {
            return;
        }
        if self.out.is_empty() {
            if self.left == 0 {
                return self.leave(net, ledger);
            }
            self.speak(ledger);
        }
        if self.fate == Fate::Reset && once_in(30) {
            net.borrow_mut().end(self.wire, true);
            self.over = true;
            return;
        }
        let n = piece(self.out.len());
        let bytes: Vec<u8> = self.out.iter().take(n).copied().collect();
        let sent = net.borrow_mut().send(self.wire, &bytes);
        self.out.drain(..sent);
    }

    fn leave(&mut self, net: &SharedNet, ledger: &mut Ledger) {
        if self.fate == Fate::InsideALine && self.speaks == Speaks::Lines {
            // Everything before was whole; this is dropped, and counted.
            let text = ledger.send(self.conn);
            self.fate = Fate::Orderly;
            self.out.extend(&text[..1 + below(text.len() as u64 - 2) as usize]);
            return;
        }
        if let Speaks::Relp(_) = self.speaks
            && !self.said_goodbye
            && self.frames > 0
        {
            self.said_goodbye = true;
            if once_in(2) {
                return self.frame("close", b"", ledger.sent(self.conn), 0);
            }
        }
        if self.is_answered(ledger) || once_in(8) {
            net.borrow_mut().end(self.wire, false);
            self.ended = true;
        }
    }

    /// True if everything that it sent was acknowledged, as far as it is promised anything.
    pub fn is_answered(&self, ledger: &Ledger) -> bool {
        match self.speaks {
            Speaks::Lines => true,
            Speaks::Counted(_) => self.counted == ledger.sent(self.conn),
            Speaks::Http(_) | Speaks::Relp(_) => self.asked.is_empty(),
        }
    }

    /// Sends a RELP frame that has so many lines, from that one on.
    fn frame(&mut self, command: &str, data: &[u8], from: u64, lines: u64) {
        self.frames += 1;
        self.out.extend(format!("{} {command} {}", self.frames, data.len()).as_bytes());
        if !data.is_empty() {
            self.out.push_back(b' ');
            self.out.extend(data);
        }
        self.out.push_back(b'\n');
        self.asked.push_back((from, from + lines));
    }

    /// True if it has said everything, and ended its side.
    pub fn has_ended(&self) -> bool {
        self.ended && self.out.is_empty()
    }

    /// Says no more than it has begun.
    pub fn hurry(&mut self) {
        self.left = 0;
    }

    fn speak(&mut self, ledger: &mut Ledger) {
        let lines = (1 + below(8)).min(self.left);
        self.left -= lines;
        let from = ledger.sent(self.conn);
        if let Speaks::Relp(_) = self.speaks {
            if self.frames == 0 {
                self.frame("open", b"relp_version=0\nrelp_software=test\ncommands=syslog", from, 0);
            }
            for line in from..from + lines {
                let text = ledger.send(self.conn);
                // Some senders count their newline in.
                let text = if once_in(2) { &text[..] } else { &text[..text.len() - 1] };
                self.frame("syslog", text, line, 1);
            }
            return;
        }
        let mut body: Vec<u8> = Vec::new();
        (0..lines).for_each(|_| body.extend(ledger.send(self.conn)));
        let Speaks::Http(_) = self.speaks else { return self.out.extend(body) };
        let mut head = Vec::new();
        if once_in(3) {
            let _ = write!(head, "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
            for part in body.chunks(1 + below(2000) as usize) {
                let _ = write!(head, "{:x}\r\n", part.len());
                head.extend_from_slice(part);
                head.extend_from_slice(b"\r\n");
            }
            head.extend_from_slice(b"0\r\n\r\n");
            self.out.extend(head);
        } else {
            let _ = write!(head, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
            self.out.extend(head);
            self.out.extend(body);
        }
        self.asked.push_back((from, from + lines));
    }

    /// Reads what has come, or a part of it.
    pub fn listen(&mut self, net: &SharedNet, ledger: &mut Ledger) {
        {
            let net = &mut *net.borrow_mut();
            let wire = &mut net.wires[self.wire];
            let n = if wire.to_client.is_empty() { 0 } else { piece(wire.to_client.len()) };
            self.heard.extend(wire.to_client.drain(..n));
            if wire.closed && wire.to_client.is_empty() {
                self.over = true;
            }
        }
        match self.speaks {
            Speaks::Lines => assert!(self.heard.is_empty(), "an answer that nobody asked for"),
            Speaks::Counted(promise) => self.read_counts(promise, ledger),
            Speaks::Http(promise) => while self.read_answer(promise, ledger) {},
            Speaks::Relp(promise) => while self.read_response(promise, ledger) {},
        }
    }

    fn read_counts(&mut self, promise: Promise, ledger: &mut Ledger) {
        while let Some(end) = self.heard.iter().position(|b| *b == b'\n') {
            let text: Vec<u8> = self.heard.drain(..=end).collect();
            let count: u64 = std::str::from_utf8(&text[..end]).unwrap().parse().unwrap();
            assert!(count >= self.counted, "counts go up");
            ledger.promise(self.conn, self.counted, count, promise);
            self.counted = count;
        }
    }

    fn read_response(&mut self, promise: Promise, ledger: &mut Ledger) -> bool {
        let text = String::from_utf8_lossy(&self.heard).into_owned();
        let Some(header) = text.split_inclusive('\n').next().filter(|header| header.ends_with('\n')) else {
            return false;
        };
        let words: Vec<&str> = header.trim_end().splitn(4, ' ').collect();
        let (txnr, length): (u64, usize) = (words[0].parse().unwrap(), words[2].parse().unwrap());
        let before = words[..3].iter().map(|word| word.len() + 1).sum::<usize>();
        let end = if length == 0 { before } else { before + length + 1 };
        if self.heard.len() < end {
            return false;
        }
        self.heard.drain(..end);
        if txnr == 0 {
            assert_eq!(words[1], "serverclose");
            return true;
        }
        self.counted += 1;
        assert_eq!((txnr, words[1]), (self.counted, "rsp"), "answers come in order");
        assert!(length == 0 || words[3].starts_with("200 OK"), "{text}");
        let (from, to) = self.asked.pop_front().expect("an answer that nobody asked for");
        ledger.promise(self.conn, from, to, promise);
        true
    }

    fn read_answer(&mut self, promise: Promise, ledger: &mut Ledger) -> bool {
        let Some(end) = self.heard.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
        let head = String::from_utf8(self.heard[..end].to_vec()).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|l| l.strip_prefix("content-length: ")?.parse::<usize>().ok()).unwrap_or(0);
        if self.heard.len() < end + 4 + length {
            return false;
        }
        self.heard.drain(..end + 4 + length);
        let status = head.split(' ').nth(1).unwrap();
        let (from, to) = self.asked.pop_front().expect("an answer that nobody asked for");
        match status {
            "204" => ledger.promise(self.conn, from, to, promise),
            "429" | "503" | "408" => self.refused += 1,
            _ => panic!("connection {}: {head}", self.conn),
        }
        true
    }
}
