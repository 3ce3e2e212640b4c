//! The admin address: `/metrics`, `/healthz`, `/readyz`, and the status page. Read-only and small; the lines never pass here.
//!
//! Two threads answer, each with a deadline per request, so that one slow client delays no probe for long.

mod page;

use crate::control::Control;
use crate::metrics::render::Metrics;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Threads that answer.
const THREADS: usize = 2;
/// Time for one request, from accept to answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Longest request head.
const HEAD_MAX: usize = 8 * 1024;
/// Headers that are looked at; more are refused with 400.
const HEADERS_MAX: usize = 64;

/// Listens on the admin address, or takes over a socket that does already.
///
/// # Errors
/// The address is taken or not ours.
pub fn bind(address: SocketAddr, kept: Option<socket2::Socket>) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = match kept {
        Some(socket) => {
            socket.set_nonblocking(false)?;
            socket.into()
        }
        None => TcpListener::bind(address)?,
    };
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Starts answering; the threads live as long as the process.
///
/// # Errors
/// No threads can be had.
pub fn start(listener: TcpListener, metrics: &Arc<Metrics>, control: &Arc<Control>) -> io::Result<()> {
    let listener = Arc::new(listener);
    for i in 0..THREADS {
        let (listener, metrics, control) = (Arc::clone(&listener), Arc::clone(metrics), Arc::clone(control));
        std::thread::Builder::new().name(format!("admin-{i}")).spawn(move || {
            loop {
                match listener.accept() {
                    Ok((stream, _)) => {
                        if let Err(error) = answer(stream, &metrics, &control) {
                            tracing::debug!(%error, "admin request failed");
                        }
                    }
                    Err(error) => {
                        tracing::debug!(%error, "admin accept failed");
                        std::thread::park_timeout(Duration::from_millis(100)); // descriptors ran out: not a busy loop
                    }
                }
            }
        })?;
    }
    Ok(())
}

fn answer(mut stream: TcpStream, metrics: &Metrics, control: &Control) -> io::Result<()> {
    let head = read_head(&mut stream)?;
    let (status, kind, body) = respond(&head, metrics, control);
    let more = if kind == HTML { page::headers() } else { "" };
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\n{more}Connection: close\r\n\r\n",
        body.len()
    );
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.write_all(response.as_bytes())?;
    if !head.starts_with(b"HEAD ") {
        stream.write_all(body.as_bytes())?;
    }
    stream.shutdown(std::net::Shutdown::Write)
}

fn read_head(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let start = Instant::now();
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < HEAD_MAX {
        let left = DEADLINE.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => break,
            n => head.extend_from_slice(&buffer[..n]),
        }
    }
    Ok(head)
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Browsers ask for HTML; curl and probes do not.
fn wants_html(request: &httparse::Request<'_, '_>) -> bool {
    let mut accepts = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("accept"));
    accepts.any(|h| h.value.to_ascii_lowercase().windows(9).any(|w| w == b"text/html"))
}

fn respond(head: &[u8], metrics: &Metrics, control: &Control) -> (&'static str, &'static str, String) {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return ("400 Bad Request", TEXT, "not an HTTP request that is understood here\n".into()),
    }
    if !matches!(request.method, Some("GET" | "HEAD")) {
        return ("405 Method Not Allowed", TEXT, "this address is read-only\n".into());
    }
    match request.path.map(|p| p.split('?').next().unwrap_or(p)) {
        Some("/metrics") => ("200 OK", "text/plain; version=0.0.4; charset=utf-8", metrics.render()),
        // Alive is what answers; a disk that failed needs an operator, not a restart loop.
        Some("/healthz") => ("200 OK", TEXT, "ok\n".into()),
        Some("/readyz") => match control.not_ready() {
            None => ("200 OK", TEXT, "ready\n".into()),
            Some(why) => ("503 Service Unavailable", TEXT, format!("{why}\n")),
        },
        Some("/") if wants_html(&request) => ("200 OK", HTML, page::PAGE.into()),
        Some("/") => {
            ("200 OK", TEXT, "logweir (a browser gets a status page here)\n/metrics\n/healthz\n/readyz\n".into())
        }
        _ => ("404 Not Found", TEXT, "known are /, /metrics, /healthz and /readyz\n".into()),
    }
}
