//! The connections of the admin address: one thread that never waits for any of them, and one that makes `/metrics`, which may take
//! its time (it asks the disk). A probe is answered at once, whatever the other clients do.

use super::{Answer, Respond};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

/// Connections at once. Beyond them one makes room: the oldest that has asked nothing yet, else that has not read its answer.
const MOST: usize = 128;
/// Time for a request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(2);
/// Time for everything.
const ALL_WITHIN: Duration = Duration::from_secs(10);
/// Longest request head.
const HEAD_MAX: usize = 8 * 1024;
/// Time before accepting is tried again after descriptors ran out.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
const LISTENER: Token = Token(usize::MAX);
const MADE: Token = Token(usize::MAX - 1);

/// What a connection is about.
enum State {
    /// Its request comes.
    Asks(Vec<u8>),
    /// It waits for `/metrics` as it is made the so-manieth time.
    Waits { time: u64, without_body: bool },
    /// Its answer goes out; so much of it has.
    Hears(Arc<Vec<u8>>, usize),
}

struct Conn {
    stream: TcpStream,
    since: Instant,
    state: State,
}

impl Conn {
    fn due(&self) -> Instant {
        self.since + if matches!(self.state, State::Asks(_)) { HEAD_WITHIN } else { ALL_WITHIN }
    }
}

/// The admin address, served.
pub struct Serving {
    poll: Poll,
    listener: TcpListener,
    respond: Arc<dyn Respond>,
    conns: HashMap<usize, Conn>,
    next: usize,
    accept_again: Option<Instant>,
    /// Asks for `/metrics` to be made, and where it comes.
    wanted: Sender<()>,
    made: Receiver<Answer>,
    /// It was asked for so many times,
    ordered: u64,
    /// and came so many times.
    come: u64,
}

impl Serving {
    /// Starts both threads; they live as long as the process.
    ///
    /// # Errors
    /// There is no epoll instance or thread to be had.
    pub fn start(listener: std::net::TcpListener, respond: Arc<dyn Respond>) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        let mut listener = TcpListener::from_std(listener);
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Waker::new(poll.registry(), MADE)?;
        let (wanted, orders) = channel();
        let (sender, made) = channel();
        let maker = Arc::clone(&respond);
        std::thread::Builder::new().name("metrics".into()).spawn(move || {
            while orders.recv().is_ok() {
                let _ = sender.send(maker.metrics()); // both threads live as long as the process
                let _ = waker.wake();
            }
        })?;
        let mut serving = Serving {
            poll,
            listener,
            respond,
            conns: HashMap::new(),
            next: 0,
            accept_again: None,
            wanted,
            made,
            ordered: 0,
            come: 0,
        };
        std::thread::Builder::new().name("admin".into()).spawn(move || serving.run())?;
        Ok(())
    }

    fn run(&mut self) {
        let mut events = Events::with_capacity(64);
        loop {
            let now = Instant::now();
            let due = self.conns.values().map(Conn::due).chain(self.accept_again).min();
            let timeout = due.map(|at| at.saturating_duration_since(now) + Duration::from_millis(1));
            if let Err(error) = self.poll.poll(&mut events, timeout)
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "the admin address is served no more");
                return;
            }
            let tokens: Vec<Token> = events.iter().map(mio::event::Event::token).collect();
            for token in tokens {
                match token {
                    LISTENER => self.accept(),
                    MADE => self.hand_out(),
                    Token(id) => self.go_on(id),
                }
            }
            let now = Instant::now();
            if self.accept_again.is_some_and(|at| at <= now) {
                self.accept_again = None;
                self.accept();
            }
            self.conns.retain(|_, conn| conn.due() > now);
        }
    }

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => self.take_in(stream),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    tracing::debug!(%error, "admin accept failed");
                    self.accept_again = Some(Instant::now() + ACCEPT_AGAIN);
                    return;
                }
            }
        }
    }

    fn take_in(&mut self, mut stream: TcpStream) {
        if self.conns.len() >= MOST {
            let rank = |c: &Conn| match c.state {
                State::Asks(_) => 0,
                State::Hears(..) => 1,
                State::Waits { .. } => 2,
            };
            let oldest = self.conns.iter().min_by_key(|(_, c)| (rank(c), c.since)).map(|(id, _)| *id);
            oldest.map(|id| self.conns.remove(&id));
        }
        let id = self.next;
        self.next = (self.next + 1) % (usize::MAX / 2);
        if self.poll.registry().register(&mut stream, Token(id), Interest::READABLE | Interest::WRITABLE).is_ok() {
            self.conns.insert(id, Conn { stream, since: Instant::now(), state: State::Asks(Vec::new()) });
            self.go_on(id); // what it has sent may be here already
        }
    }

    /// Reads or writes as far as that goes, and lets a connection go that is done or broken.
    fn go_on(&mut self, id: usize) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let State::Asks(head) = &mut conn.state {
            match read_head(&mut conn.stream, head) {
                Ok(false) => return,
                Err(_) => drop(self.conns.remove(&id)),
                Ok(true) => {
                    let answer = self.respond.respond(head);
                    let without_body = head.starts_with(b"HEAD ");
                    conn.state = match answer {
                        Some(answer) => State::Hears(Arc::new(answer.bytes(without_body)), 0),
                        // What is being made already began before it asked.
                        None => State::Waits { time: self.ordered + 1, without_body },
                    };
                    self.order();
                }
            }
        }
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if let State::Hears(bytes, sent) = &mut conn.state {
            while *sent < bytes.len() {
                match conn.stream.write(&bytes[*sent..]) {
                    Ok(n) if n > 0 => *sent += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                    _ => break,
                }
            }
            let _ = conn.stream.shutdown(std::net::Shutdown::Write); // it may be gone already
            self.conns.remove(&id);
        }
    }

    /// Has `/metrics` made for those who wait, unless it is being made: then once more for them when that has come.
    fn order(&mut self) {
        let is_wanted = |c: &Conn| matches!(c.state, State::Waits { time, .. } if time > self.ordered);
        if self.ordered == self.come && self.conns.values().any(is_wanted) && self.wanted.send(()).is_ok() {
            self.ordered += 1;
        }
    }

    /// `/metrics` was made.
    fn hand_out(&mut self) {
        while let Ok(answer) = self.made.try_recv() {
            self.give(&answer);
        }
    }

    fn give(&mut self, answer: &Answer) {
        self.come += 1;
        let (whole, head) = (Arc::new(answer.bytes(false)), Arc::new(answer.bytes(true)));
        let mut ids = Vec::new();
        for (id, conn) in &mut self.conns {
            if let State::Waits { time, without_body } = conn.state
                && time <= self.come
            {
                conn.state = State::Hears(Arc::clone(if without_body { &head } else { &whole }), 0);
                ids.push(*id);
            }
        }
        ids.into_iter().for_each(|id| self.go_on(id));
        self.order();
    }
}

/// Reads what is there. True: the head is whole, or will never be.
fn read_head(stream: &mut TcpStream, head: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 1024];
    loop {
        if head.windows(4).any(|w| w == b"\r\n\r\n") || head.len() >= HEAD_MAX {
            return Ok(true);
        }
        match stream.read(&mut buffer) {
            Ok(0) if head.is_empty() => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(0) => return Ok(true),
            Ok(n) => head.extend_from_slice(&buffer[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
