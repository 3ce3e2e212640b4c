//! Clients: send lines in pieces of any size, read what is answered now and then, and go as clients go.

use super::common::apis;
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
    /// Requests of the APIs of other servers.
    Apis(Promise),
    /// Requests that are answered with a number, which becomes true later.
    Numbered(Promise),
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

/// What an answer is awaited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Lines, and the status that their API has for success.
    Lines(u64, u64, &'static str),
    /// Which numbers have become true.
    Numbers,
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
    /// Requests and frames that wait for their answer.
    asked: VecDeque<Asked>,
    /// Numbers that are not true yet, and the lines that they stand for.
    numbers: Vec<(u64, u64, u64)>,
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
            numbers: Vec::new(),
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
        if !self.numbers.is_empty() && self.asked.is_empty() && !once_in(30) {
            return self.ask_for_numbers();
        }
        if self.is_answered(ledger) || once_in(8) {
            net.borrow_mut().end(self.wire, false);
            self.ended = true;
            self.numbers.clear(); // nobody is left to ask for them
        }
    }

    /// True if everything that it sent was acknowledged, as far as it is promised anything.
    pub fn is_answered(&self, ledger: &Ledger) -> bool {
        match self.speaks {
            Speaks::Lines => true,
            Speaks::Counted(_) => self.counted == ledger.sent(self.conn),
            Speaks::Http(_) | Speaks::Apis(_) | Speaks::Relp(_) => self.asked.is_empty(),
            Speaks::Numbered(_) => self.asked.is_empty() && self.numbers.is_empty(),
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
        self.asked.push_back(Asked::Lines(from, from + lines, ""));
    }

    fn ask_for_numbers(&mut self) {
        let numbers: Vec<u64> = self.numbers.iter().map(|(number, ..)| *number).collect();
        self.out.extend(apis::question(&numbers));
        self.asked.push_back(Asked::Numbers);
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
        let texts: Vec<Vec<u8>> = (0..lines).map(|_| ledger.send(self.conn)).collect();
        let made = match self.speaks {
            Speaks::Http(_) => apis::lines(&texts),
            Speaks::Apis(_) => apis::MAKERS[below(apis::MAKERS.len() as u64) as usize](&texts),
            Speaks::Numbered(_) => {
                if !self.numbers.is_empty() && self.asked.is_empty() && once_in(3) {
                    self.ask_for_numbers();
                }
                apis::events(&texts)
            }
            _ => return texts.iter().for_each(|text| self.out.extend(text)),
        };
        let success = made.success;
        self.out.extend(framed(made));
        self.asked.push_back(Asked::Lines(from, from + lines, success));
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
            Speaks::Http(promise) | Speaks::Apis(promise) | Speaks::Numbered(promise) => {
                while self.read_answer(promise, ledger) {}
            }
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
        let Some(Asked::Lines(from, to, _)) = self.asked.pop_front() else { panic!("an answer that nobody asked for") };
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
        let body: Vec<u8> = self.heard.drain(..end + 4 + length).skip(end + 4).collect();
        let status = head.split(' ').nth(1).unwrap();
        let asked = self.asked.pop_front().expect("an answer that nobody asked for");
        match (status, asked) {
            ("429" | "503", _) => self.refused += 1,
            ("408", _) if self.speaks == Speaks::Http(promise) => self.refused += 1, // nobody else is told so
            ("200", Asked::Numbers) => {
                let are_true = apis::true_numbers(&body);
                self.numbers.retain(|(number, from, to)| {
                    let is_true = are_true.contains(number);
                    if is_true {
                        ledger.promise(self.conn, *from, *to, promise);
                    }
                    !is_true
                });
            }
            (_, Asked::Lines(from, to, success)) if status == success => match self.speaks {
                Speaks::Numbered(_) if self.ended => {}
                Speaks::Numbered(_) => self.numbers.push((apis::number(&body), from, to)),
                _ => {
                    apis::check(&body, to - from);
                    ledger.promise(self.conn, from, to, promise);
                }
            },
            _ => panic!("connection {}: {head} {}", self.conn, String::from_utf8_lossy(&body)),
        }
        true
    }
}

/// A request with its body, whole or in chunks.
fn framed(apis::Request { path, headers, body, .. }: apis::Request) -> Vec<u8> {
    let mut out = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}").into_bytes();
    if once_in(3) {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        for part in body.chunks(1 + below(2000) as usize) {
            let _ = write!(out, "{:x}\r\n", part.len());
            out.extend_from_slice(part);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"0\r\n\r\n");
    } else {
        let _ = write!(out, "Content-Length: {}\r\n\r\n", body.len());
        out.extend(body);
    }
    out
}
