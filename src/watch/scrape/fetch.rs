//! Makes one GET request to an admin address, with a deadline and a limit on the bytes read.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Most bytes of an answer.
const MOST: usize = 32 << 20;

/// An answer.
#[derive(Debug)]
pub struct Fetched {
    /// Its body.
    pub body: String,
    /// The time of day by the server's clock, in seconds since 1970.
    pub time: Option<f64>,
}

/// A `200` or a `503`, which is what "not ready" is.
///
/// # Errors
/// Nobody answers in time, or with something else.
pub fn fetch(address: SocketAddr, path: &str, patience: Duration) -> io::Result<Fetched> {
    let start = Instant::now();
    let left = || {
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/plain\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => answer.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if answer.len() > MOST {
            return Err(io::Error::other("the answer does not end"));
        }
    }
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| io::Error::other("the answer is no HTTP"))?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    match status {
        Some(200 | 503) => Ok(Fetched { body: body.to_string(), time: time(head) }),
        Some(status) => Err(io::Error::other(format!("the answer is {status}"))),
        None => Err(io::Error::other("the answer is no HTTP")),
    }
}

/// What the header `Date` says.
fn time(head: &str) -> Option<f64> {
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let (_, date) = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("date"))?;
    let date = httpdate::parse_http_date(date.trim()).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_time_is_that_of_the_server() {
        let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\ndate: Thu, 01 Jan 1970 00:01:40 GMT";
        assert_eq!(super::time(head), Some(100.0));
        assert_eq!(super::time("HTTP/1.1 200 OK\r\nDate: today"), None);
        assert_eq!(super::time("HTTP/1.1 200 OK"), None);
    }
}
