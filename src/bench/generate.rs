//! The load generator for lines. It has few threads and non-blocking sockets, and each socket writes in turn.

use super::{datagrams, lines};
use crate::host::address::Address;
use crate::host::output::say;
use clap::Args;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The options of `bench send`.
#[derive(Debug, Clone, Args)]
pub struct SendArgs {
    /// Where to send: tcp://IP:PORT or unix://PATH.
    #[arg(short, long, default_value = "tcp://127.0.0.1:5170", value_name = "ADDRESS")]
    pub address: String,
    /// Send datagrams to this address instead, each with one line. Nobody says what has arrived of them.
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["address", "idle", "write_bytes"])]
    pub udp: Option<SocketAddr>,
    /// Let the kernel cut up to 32 datagrams out of one send (UDP_SEGMENT). Sending costs little then, so a receiver on the same cores can show
    /// its limit.
    #[arg(long, requires = "udp")]
    pub segments: bool,
    /// How many connections, or sockets that send datagrams.
    #[arg(short, long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub connections: u32,
    /// How many threads share the connections.
    #[arg(short, long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// How many lines in all.
    #[arg(short = 'n', long, default_value_t = 4_000_000)]
    pub lines: u64,
    /// Bytes of each line, with its newline.
    #[arg(short = 'b', long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    pub line_bytes: u32,
    /// Bytes of each write, rounded down to whole lines.
    #[arg(short, long, default_value_t = 262_144, value_parser = clap::value_parser!(u32).range(2..=16_777_216))]
    pub write_bytes: u32,
    /// Number the lines, for `bench verify`. This is slower, because each line is made anew.
    #[arg(short, long)]
    pub sequence: bool,
    /// Lines a second over all connections, at an even pace. 0: as fast as the server takes them; datagrams as fast as they can be sent.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// How many more connections to open that send nothing.
    #[arg(long, default_value_t = 0)]
    pub idle: u32,
}

/// What a load came to.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// Lines sent.
    pub lines: u64,
    /// From the first byte until the server had read everything (it closed every connection). Of datagrams: until the last was sent.
    pub seconds: f64,
}

/// Runs and reports.
pub fn run(args: &SendArgs) -> io::Result<ExitCode> {
    let sent = send(args)?;
    let rate = sent.lines as f64 / sent.seconds;
    say!(
        "sent lines={} seconds={:.3} lines_per_second={rate:.0} MB_per_second={:.1}",
        sent.lines,
        sent.seconds,
        rate * f64::from(args.line_bytes) / 1e6
    );
    Ok(ExitCode::SUCCESS)
}

/// Sends everything and waits until the server has taken it in.
///
/// # Errors
/// A connection could not be made, or it broke.
pub fn send(args: &SendArgs) -> io::Result<Sent> {
    let address: Address = args.address.parse().map_err(io::Error::other)?;
    if args.sequence && (args.line_bytes as usize) < lines::NUMBERED_MIN {
        return Err(io::Error::other(format!("numbered lines have at least {} bytes", lines::NUMBERED_MIN)));
    }
    if let Some(to) = args.udp {
        return datagrams::send(args, to);
    }
    let wanted = args.connections as usize + args.idle as usize;
    if crate::host::limits::connections_that_fit(wanted, 0, 0, 0) < wanted {
        return Err(io::Error::other(format!("the descriptor limit does not allow {wanted} connections")));
    }
    let idle = (0..args.idle).map(|i| connect(&address, i)).collect::<io::Result<Vec<_>>>()?;
    let client = |Part { number, lines }| {
        let socket = connect(&address, number)?;
        socket.set_nonblocking(true)?;
        Ok(Client { socket, number, lines, next: 0, buffer: Vec::new(), at: 0, shut: false, closed: false })
    };
    let all = split(args).into_iter().map(|parts| parts.into_iter().map(client).collect());
    let all: Vec<Vec<Client>> = all.collect::<io::Result<_>>()?;
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.into_iter().map(|clients| scope.spawn(|| drive(clients, args))).collect();
        threads.into_iter().try_for_each(|t| t.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    drop(idle);
    Ok(Sent { lines: args.lines, seconds })
}

/// What a connection has to send; it may be nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// The number of the connection.
    pub number: u32,
    /// How many lines.
    pub lines: u64,
}

/// The connections of each thread. The first ones take one line more where it does not divide evenly.
pub(super) fn split(args: &SendArgs) -> Vec<Vec<Part>> {
    let (each, more) = (args.lines / u64::from(args.connections), args.lines % u64::from(args.connections));
    let part = |number| Part { number, lines: each + u64::from(u64::from(number) < more) };
    let of_thread = |thread| (thread..args.connections).step_by(args.threads as usize).map(part).collect();
    (0..args.threads).map(of_thread).collect()
}

fn connect(address: &Address, number: u32) -> io::Result<Socket> {
    match address {
        Address::Tcp(to) => {
            let socket = Socket::new(Domain::for_address(*to), Type::STREAM, None)?;
            if number >= 20_000 && to.ip().is_loopback() && to.is_ipv4() {
                // Ports of one source address end at 28,000 or so; 127/8 has addresses enough.
                let from = std::net::Ipv4Addr::new(127, 0, 0, 1 + (number / 20_000) as u8);
                socket.bind(&SockAddr::from(std::net::SocketAddrV4::new(from, 0)))?;
            }
            socket.connect(&(*to).into())?;
            Ok(socket)
        }
        Address::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.connect(&SockAddr::unix(path)?)?;
            Ok(socket)
        }
        other => Err(io::Error::other(format!("cannot send to {other}; expected tcp:// or unix://, or --udp IP:PORT"))),
    }
}

struct Client {
    socket: Socket,
    number: u32,
    lines: u64,
    next: u64,
    /// Numbered lines being sent; plain ones come from a buffer that all share.
    buffer: Vec<u8>,
    at: usize,
    /// We have sent everything.
    shut: bool,
    /// So has the server, and nothing of it is left.
    closed: bool,
}

enum Wrote {
    /// So many bytes.
    Some(usize),
    Blocked,
    Finished,
}

impl Client {
    fn write(&mut self, args: &SendArgs, plain: &[u8]) -> io::Result<Wrote> {
        let line = args.line_bytes as usize;
        let per_write = (args.write_bytes as usize / line).max(1);
        if !args.sequence {
            // `next` counts bytes here: the shared buffer repeats, so any place in it continues any line.
            let left = self.lines * line as u64 - self.next;
            if left == 0 {
                return Ok(Wrote::Finished);
            }
            let at = (self.next % line as u64) as usize;
            let n = (per_write * line - at).min(usize::try_from(left).unwrap_or(usize::MAX));
            let Some(n) = self.put(&plain[at..at + n])? else { return Ok(Wrote::Blocked) };
            self.next += n as u64;
            return Ok(Wrote::Some(n));
        }
        if self.at == self.buffer.len() {
            if self.next == self.lines {
                return Ok(Wrote::Finished);
            }
            let (mut buffer, count) =
                (std::mem::take(&mut self.buffer), (per_write as u64).min(self.lines - self.next));
            buffer.clear();
            (self.next..self.next + count).for_each(|n| lines::numbered(self.number, n, line, &mut buffer));
            (self.buffer, self.at) = (buffer, 0);
            self.next += count;
        }
        let from = self.at;
        let buffer = std::mem::take(&mut self.buffer);
        let result = self.put(&buffer[from..]);
        self.buffer = buffer;
        Ok(match result? {
            Some(n) => {
                self.at += n;
                Wrote::Some(n)
            }
            None => Wrote::Blocked,
        })
    }

    fn put(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        loop {
            match (&self.socket).write(bytes) {
                Ok(n) => return Ok(Some(n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Reads and throws away what the server says. True at its end.
    fn drained(&self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            match (&self.socket).read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// A paced generator looks so often whether the next writes are due.
pub(super) const PACE_STEP: Duration = Duration::from_millis(1);

/// How many lines of a thread are due.
pub(super) struct Pace {
    start: Instant,
    /// 0: there is no pace.
    lines_per_second: f64,
}

impl Pace {
    /// For a thread with so many of the lines: it has as much of the rate, so that all threads end at once.
    pub(super) fn new(args: &SendArgs, lines: u64) -> Pace {
        let lines_per_second = args.rate as f64 * lines as f64 / args.lines.max(1) as f64;
        Pace { start: Instant::now(), lines_per_second }
    }

    /// How many more are due, after so many.
    pub(super) fn allowed(&self, done: u64) -> usize {
        if self.lines_per_second == 0.0 {
            return usize::MAX;
        }
        let due = self.start.elapsed().as_secs_f64() * self.lines_per_second;
        (due as u64).saturating_sub(done) as usize
    }
}

fn drive(mut clients: Vec<Client>, args: &SendArgs) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let line = args.line_bytes as usize;
    let mut one = vec![b'x'; line];
    one[line - 1] = b'\n';
    let per_write = (args.write_bytes as usize / line).max(1);
    let plain = one.repeat(per_write);
    let mut ready: VecDeque<usize> = (0..clients.len()).collect();
    for (i, client) in clients.iter().enumerate() {
        let fd = client.socket.as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), Token(i), Interest::READABLE | Interest::WRITABLE)?;
    }
    let mut writable = vec![true; clients.len()];
    let lines = clients.iter().map(|client| client.lines).sum();
    let pace = Pace::new(args, lines);
    // A connection may have less to send than a whole write.
    let most = clients.iter().map(|client| client.lines).max().unwrap_or(0).min(per_write as u64);
    let mut bytes = 0;
    let is_due = |bytes: u64| {
        let done = bytes / line as u64;
        pace.allowed(done) as u64 >= most.min(lines - done)
    };
    let mut open = clients.len();
    while open > 0 {
        let timeout = match ready.is_empty() {
            true => None,
            false if is_due(bytes) => Some(Duration::ZERO),
            false => Some(PACE_STEP),
        };
        poll.poll(&mut events, timeout)?;
        for event in &events {
            let i = event.token().0;
            if event.is_writable() && !writable[i] && !clients[i].shut {
                writable[i] = true;
                ready.push_back(i);
            }
            if event.is_readable() && !clients[i].closed && clients[i].drained()? {
                if !clients[i].shut {
                    return Err(io::Error::other("the server closed a connection before everything was sent"));
                }
                clients[i].closed = true;
                open -= 1;
            }
        }
        // One write each before looking for events again.
        for _ in 0..ready.len() {
            if !is_due(bytes) {
                break;
            }
            let Some(i) = ready.pop_front() else { break };
            match clients[i].write(args, &plain)? {
                Wrote::Some(n) => {
                    bytes += n as u64;
                    ready.push_back(i);
                }
                Wrote::Blocked => writable[i] = false,
                Wrote::Finished => {
                    clients[i].shut = true;
                    clients[i].socket.shutdown(std::net::Shutdown::Write)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "generate_tests.rs"]
mod tests;
