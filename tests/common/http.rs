//! HTTP by hand.

use super::PATIENCE;
use super::apis::{self, Request};
use super::ledger::Account;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::mpsc::sync_channel;

/// A connection of an HTTP client that knows little, but says exactly what it is told.
pub struct Client {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// An answer: status, head and body.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Client {
    pub fn to(address: SocketAddr) -> Client {
        Client::over(TcpStream::connect(address).unwrap())
    }

    pub fn over(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { reader: BufReader::new(stream.try_clone().unwrap()), stream }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn post(&mut self, path: &str, headers: &str, body: &str) -> Answer {
        self.send(request(path, headers, body).as_bytes());
        self.answer().expect("an answer")
    }

    /// The next answer; `None`: the connection was ended before one.
    pub fn answer(&mut self) -> Option<Answer> {
        self.answer_to(false)
    }

    /// The next answer, which has no body if the request was HEAD.
    pub fn answer_to(&mut self, is_head: bool) -> Option<Answer> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_string);
        let length = head.lines().find_map(length).map_or(0, |n| n.parse().unwrap());
        let mut body = vec![0; if is_head { 0 } else { length }];
        self.reader.read_exact(&mut body).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }

    /// True once the server has ended the connection without another answer.
    pub fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).is_ok() && rest.is_empty()
    }
}

/// A POST.
pub fn request(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Posts numbered lines of many lengths, plain, chunked and compressed, pipelined, until the server is gone, and keeps the
/// ledger by the answers.
pub fn acked_client(stream: TcpStream, path: &str, account: &Account) {
    let lines_of = |round: u64| 1 + round % 23;
    acked_by(stream, account, lines_of, |_, lines| Request { path: path.into(), ..apis::lines(lines) });
}

/// The same with requests of these APIs of other servers, in turn.
pub fn acked_client_of(stream: TcpStream, makers: &[apis::Maker], account: &Account) {
    // Few, since documents are gathered.
    let lines_of = |round: u64| 1 + round % 7;
    acked_by(stream, account, lines_of, |round, lines| makers[round as usize % makers.len()](lines));
}

fn acked_by(
    stream: TcpStream,
    account: &Account,
    lines_of: impl Fn(u64) -> u64,
    make: impl Fn(u64, &[Vec<u8>]) -> Request,
) {
    let mut reader =
        Client { reader: BufReader::new(stream.try_clone().unwrap()), stream: stream.try_clone().unwrap() };
    let (sent, awaited) = sync_channel::<(u64, &str)>(8);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (lines, success) in awaited {
                match reader.answer() {
                    Some(answer) if answer.status.to_string() == success => apis::check(answer.body.as_bytes(), lines),
                    None => return,
                    // The disk is gone, or does not keep up. What was sent behind it may be taken all the same.
                    Some(Answer { status: 503 | 429, .. }) => return account.refused.store(true, Ordering::SeqCst),
                    Some(answer) => panic!("{answer:?}"),
                }
                account.acked.fetch_add(lines, Ordering::SeqCst);
            }
        });
        let mut stream = stream;
        let mut next = 0;
        for round in 0u64.. {
            let count = lines_of(round);
            let line = |number: u64| {
                let mut line = Vec::new();
                account.line(number, &mut line);
                line
            };
            let lines: Vec<Vec<u8>> = (next..next + count).map(line).collect();
            next += count;
            account.sent.store(next, Ordering::SeqCst);
            let request = make(round, &lines);
            let success = request.success;
            if sent.send((count, success)).is_err() || stream.write_all(&framed(round, request)).is_err() {
                return;
            }
        }
    });
}

/// A request as it is sent: every fourth is chunked, and every fourth compressed where it is not yet.
fn framed(round: u64, Request { path, headers, body, .. }: Request) -> Vec<u8> {
    let mut wire = Vec::new();
    let _ = write!(wire, "POST {path} HTTP/1.1\r\nHost: x\r\n{headers}");
    match round % 4 {
        0 => {
            let _ = write!(wire, "Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(1000) {
                let _ = write!(wire, "{:x}\r\n", chunk.len());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
        }
        1 if !headers.contains("Encoding") => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&body).unwrap();
            let body = encoder.finish().unwrap();
            let _ = write!(wire, "Content-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
            wire.extend_from_slice(&body);
        }
        _ => {
            let _ = write!(wire, "Content-Length: {}\r\n\r\n", body.len());
            wire.extend_from_slice(&body);
        }
    }
    wire
}
