//! The admin address: `/metrics`, `/healthz`, `/readyz`, and the status page. Read-only and small; the lines never pass here.

mod page;
mod serve;

use crate::pipeline::control::Control;
use crate::watch::render::Metrics;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

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
    let site = Site { metrics: Arc::clone(metrics), control: Arc::clone(control) };
    serve::Serving::start(listener, Arc::new(site))
}

/// What there is to be said.
struct Site {
    metrics: Arc<Metrics>,
    control: Arc<Control>,
}

/// Answers requests.
trait Respond: Send + Sync {
    /// The answer to a request; `None`: it is [`Respond::metrics`]. Never waits.
    fn respond(&self, head: &[u8]) -> Option<Answer>;
    /// `/metrics`, which may take its time.
    fn metrics(&self) -> Answer;
}

/// An answer.
struct Answer {
    status: &'static str,
    kind: &'static str,
    body: String,
}

impl Answer {
    fn new(status: &'static str, kind: &'static str, body: impl Into<String>) -> Answer {
        Answer { status, kind, body: body.into() }
    }

    /// As it goes over the wire.
    fn bytes(&self, without_body: bool) -> Vec<u8> {
        let more = if self.kind == HTML { page::headers() } else { "" };
        let mut text = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             X-Content-Type-Options: nosniff\r\n{more}Connection: close\r\n\r\n",
            self.status,
            self.kind,
            self.body.len()
        );
        if !without_body {
            text += &self.body;
        }
        text.into_bytes()
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Browsers ask for HTML; curl and probes do not.
fn wants_html(request: &httparse::Request<'_, '_>) -> bool {
    let mut accepts = request.headers.iter().filter(|h| h.name.eq_ignore_ascii_case("accept"));
    accepts.any(|h| h.value.to_ascii_lowercase().windows(9).any(|w| w == b"text/html"))
}

impl Respond for Site {
    fn respond(&self, head: &[u8]) -> Option<Answer> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(head) {
            Ok(httparse::Status::Complete(_)) => {}
            _ => return Some(Answer::new("400 Bad Request", TEXT, "not an HTTP request that is understood here\n")),
        }
        if !matches!(request.method, Some("GET" | "HEAD")) {
            return Some(Answer::new("405 Method Not Allowed", TEXT, "this address is read-only\n"));
        }
        let answer = match request.path.map(|p| p.split('?').next().unwrap_or(p)) {
            Some("/metrics") => return None,
            // Alive is what answers; a disk that failed needs an operator, not a restart loop.
            Some("/healthz") => Answer::new("200 OK", TEXT, "ok\n"),
            Some("/readyz") => match self.control.not_ready() {
                None => Answer::new("200 OK", TEXT, "ready\n"),
                Some(why) => Answer::new("503 Service Unavailable", TEXT, format!("{why}\n")),
            },
            Some("/") if wants_html(&request) => Answer::new("200 OK", HTML, page::PAGE),
            Some("/") => {
                let text = "logweir (a browser gets a status page here)\n/metrics\n/healthz\n/readyz\n";
                Answer::new("200 OK", TEXT, text)
            }
            _ => Answer::new("404 Not Found", TEXT, "known are /, /metrics, /healthz and /readyz\n"),
        };
        Some(answer)
    }

    fn metrics(&self) -> Answer {
        Answer::new("200 OK", "text/plain; version=0.0.4; charset=utf-8", self.metrics.render())
    }
}
