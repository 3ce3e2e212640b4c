//! `logweir bench http`: sends POST requests at a constant rate, or as fast as answers come.
//!
//! At a constant rate, every request has a time at which it is due, and its latency counts from that time. So a server that
//! stalls cannot hide it by keeping the generator from sending (coordinated omission). It has one thread for each connection.
//! That is enough for tens of connections and tens of thousands of requests a second; for more, use wrk.

use super::bodies::{BenchApi, Body, body};
use super::lines;
use crate::host::output::say;
use clap::Args;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// The options of `bench http`.
#[derive(Debug, Args)]
pub struct HttpArgs {
    /// Where to send: IP:PORT.
    #[arg(long, default_value = "127.0.0.1:9880", value_name = "IP:PORT")]
    to: SocketAddr,
    /// The path and query of the requests.
    #[arg(long, default_value = "/", conflicts_with = "api")]
    path: String,
    /// Send requests of an API, each the same, made once: lines, loki-json, loki, elasticsearch, splunk, otlp, otlp-json, datadog.
    #[arg(long, value_name = "NAME")]
    api: Option<BenchApi>,
    /// How many connections. Each has one request under way at a time.
    #[arg(short, long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1000))]
    connections: u32,
    /// Requests a second over all connections. 0: as fast as answers come.
    #[arg(short, long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    rate: u32,
    /// How many seconds to send. The first one is for warming up and does not count.
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(2..=600))]
    seconds: u32,
    /// How many lines in a request.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    lines: u32,
    /// Bytes of each line, with its newline.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(60..=65_536))]
    length: u32,
}

/// What one connection saw.
#[derive(Default)]
struct Seen {
    latencies_ns: Vec<u64>,
    answers: u64,
    refused: u64,
}

/// Runs and reports.
pub fn run(args: &HttpArgs) -> io::Result<ExitCode> {
    let barrier = Barrier::new(args.connections as usize);
    let made = args.api.map(|api| body(api, args.lines, args.length));
    let made = made.as_ref();
    let results: Vec<io::Result<Seen>> = std::thread::scope(|scope| {
        let start = |number| {
            let barrier = &barrier;
            scope.spawn(move || connection(args, made, number, barrier))
        };
        let threads: Vec<_> = (0..args.connections).map(start).collect();
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("a thread died")))).collect()
    });
    let mut all = Seen::default();
    for result in results {
        let seen = result?;
        all.latencies_ns.extend(seen.latencies_ns);
        (all.answers, all.refused) = (all.answers + seen.answers, all.refused + seen.refused);
    }
    all.latencies_ns.sort_unstable();
    let at = |share: f64| {
        let place = ((all.latencies_ns.len() as f64 * share) as usize).min(all.latencies_ns.len().saturating_sub(1));
        all.latencies_ns.get(place).map_or(0.0, |ns| *ns as f64 / 1000.0)
    };
    let seconds = f64::from(args.seconds - 1);
    say!(
        "{:.0} requests/s ({:.0} lines/s{}), {} refused; latency from when each was due: p50 {:.0} us, p90 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, most {:.0} us",
        all.latencies_ns.len() as f64 / seconds,
        all.latencies_ns.len() as f64 / seconds * f64::from(args.lines),
        made.map_or(String::new(), |m| format!(
            ", {:.1} MB/s of bodies",
            all.latencies_ns.len() as f64 / seconds * m.plain as f64 / 1e6
        )),
        all.refused,
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0)
    );
    Ok(if all.refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn connection(args: &HttpArgs, made: Option<&Body>, number: u32, barrier: &Barrier) -> io::Result<Seen> {
    let connected = TcpStream::connect(args.to);
    barrier.wait(); // also where connecting failed: the others must not wait for ever
    let mut stream = connected?;
    stream.set_nodelay(true)?;
    let started = Instant::now();
    let (warm, end) = (Duration::from_secs(1), Duration::from_secs(u64::from(args.seconds)));
    let interval = match args.rate {
        0 => Duration::ZERO,
        rate => Duration::from_secs_f64(f64::from(args.connections) / f64::from(rate)),
    };
    // Spread over the interval: a crowd that sends at once would measure its own queue.
    let mut due = interval.mul_f64(f64::from(number) / f64::from(args.connections));
    let mut seen = Seen::default();
    let (mut body, mut request, mut buffer, mut next) = (Vec::new(), Vec::new(), Vec::new(), 0);
    while due < end {
        let now = started.elapsed();
        if args.rate == 0 {
            due = now;
        } else if due > now {
            std::thread::park_timeout(due - now);
            continue;
        }
        if made.is_none() {
            body.clear();
            for _ in 0..args.lines {
                lines::numbered(number, next, args.length as usize, &mut body);
                next += 1;
            }
            request.clear();
        }
        if request.is_empty() {
            let (path, headers, bytes) = made.map_or((&*args.path, "", &body), |m| (m.path, m.headers, &m.bytes));
            let length = bytes.len();
            write!(request, "POST {path} HTTP/1.1\r\nHost: bench\r\n{headers}Content-Length: {length}\r\n\r\n")?;
            request.extend_from_slice(bytes);
        }
        stream.write_all(&request)?;
        let is_taken = answer(&mut stream, &mut buffer)?;
        let done = started.elapsed();
        seen.answers += 1;
        seen.refused += u64::from(!is_taken);
        if due >= warm && done < end + Duration::from_secs(60) {
            seen.latencies_ns.push((done - due).as_nanos() as u64);
        }
        due += interval;
    }
    Ok(seen)
}

/// Reads one answer; true: its status is 2xx.
fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<bool> {
    buffer.clear();
    loop {
        if let Some(head) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            let length = length_of(&buffer[..head]);
            if buffer.len() >= head + 4 + length {
                return Ok(buffer.get(9) == Some(&b'2'));
            }
        }
        let mut part = [0; 1024];
        match stream.read(&mut part)? {
            0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended the connection")),
            n => buffer.extend_from_slice(&part[..n]),
        }
    }
}

fn length_of(head: &[u8]) -> usize {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let whole = [head, b"\r\n\r\n"].concat();
    if response.parse(&whole).is_err() {
        return 0;
    }
    let length = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case("content-length"));
    length.and_then(|h| std::str::from_utf8(h.value).ok()?.parse().ok()).unwrap_or(0)
}
