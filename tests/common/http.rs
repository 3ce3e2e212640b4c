//! HTTP by hand.

use super::PATIENCE;
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
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let length = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_string);
        let length = head.lines().find_map(length).map_or(0, |n| n.parse().unwrap());
        let mut body = vec![0; length];
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
    let mut reader =
        Client { reader: BufReader::new(stream.try_clone().unwrap()), stream: stream.try_clone().unwrap() };
    let (sent, awaited) = sync_channel::<u64>(8);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for lines in awaited {
                match reader.answer() {
                    Some(Answer { status: 204, .. }) => {}
                    None => return,
                    // The disk is gone, or does not keep up. What was sent behind it may be taken all the same.
                    Some(Answer { status: 503 | 429, .. }) => return account.refused.store(true, Ordering::SeqCst),
                    Some(answer) => panic!("{answer:?}"),
                }
                account.acked.fetch_add(lines, Ordering::SeqCst);
            }
        });
        let mut stream = stream;
        let (mut next, mut body, mut wire) = (0, Vec::new(), Vec::new());
        for round in 0u64.. {
            body.clear();
            wire.clear();
            let lines = 1 + round % 23;
            for _ in 0..lines {
                account.line(next, &mut body);
                next += 1;
            }
            account.sent.store(next, Ordering::SeqCst);
            let _ = write!(wire, "POST {path} HTTP/1.1\r\nHost: x\r\n");
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
                1 => {
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
            if sent.send(lines).is_err() || stream.write_all(&wire).is_err() {
                return;
            }
        }
    });
}
