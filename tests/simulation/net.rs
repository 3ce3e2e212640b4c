//! Sockets without a kernel: wires between clients and reactors, and an engine on them. Receives finish at once, as with both
//! real engines, in pieces of any size; sends at once or later, as the seed has it.

use super::fiber::{Flag, below, machine, note, now, once_in, point, sleep};
use logweir::host::peer::{ListenerId, Peer};
use logweir::intake::net::{ConnId, Datagram, Engine, Event, Kind, Lease, Outcome, Received, Sent, Socket};
use logweir::log::commit::record::decode;
use logweir::pipeline::commit::{CommitWrite, Committed};
use logweir::pipeline::control::{Control, NotReady};
use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Bytes that a socket takes before it says "would block".
const BUFFER: usize = 6000;

/// One connection.
#[derive(Default)]
pub struct Wire {
    listener: ListenerId,
    to_server: VecDeque<u8>,
    pub to_client: VecDeque<u8>,
    /// The client has ended its side.
    fin: bool,
    /// The client has broken it.
    reset: bool,
    /// The server has ended it, or its sending side.
    pub closed: bool,
    /// Whose it is: which reactor, which place.
    place: Option<(usize, usize)>,
}

#[derive(Default)]
struct Place {
    generation: u32,
    wire: Option<usize>,
    socket: Option<Socket>,
    /// The next input makes an event.
    armed: bool,
    sending: Option<(Vec<u8>, usize)>,
}

/// What a reactor's engine has.
struct Side {
    queue: VecDeque<usize>,
    accept_failed: bool,
    events: Vec<Event>,
    places: Vec<Place>,
    /// Writes to the commit log that are under way.
    commits: Vec<CommitWrite>,
    flag: Flag,
}

/// All wires of one process.
pub struct Net {
    pub wires: Vec<Wire>,
    by_fd: HashMap<RawFd, usize>,
    sides: Vec<Side>,
    null: OwnedFd,
}

pub type SharedNet = Rc<RefCell<Net>>;

impl Net {
    /// For reactors with these flags.
    pub fn new(flags: &[Flag]) -> SharedNet {
        let side = |flag: &Flag| Side {
            queue: VecDeque::new(),
            accept_failed: false,
            events: Vec::new(),
            places: Vec::new(),
            commits: Vec::new(),
            flag: Arc::clone(flag),
        };
        let null = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let sides = flags.iter().map(side).collect();
        Rc::new(RefCell::new(Net { wires: Vec::new(), by_fd: HashMap::new(), sides, null }))
    }

    /// A client connects; the kernel puts it into some reactor's queue.
    pub fn connect(&mut self, listener: ListenerId) -> usize {
        self.wires.push(Wire { listener, ..Wire::default() });
        let side = below(self.sides.len() as u64) as usize;
        self.sides[side].queue.push_back(self.wires.len() - 1);
        self.sides[side].flag.store(true, Ordering::SeqCst);
        self.wires.len() - 1
    }

    /// A client sends some of `bytes`, as much as goes. Returns how much that was.
    pub fn send(&mut self, wire: usize, bytes: &[u8]) -> usize {
        let w = &mut self.wires[wire];
        let room = BUFFER.saturating_sub(w.to_server.len());
        let n = if w.closed { bytes.len() } else { room.min(bytes.len()) };
        w.to_server.extend(&bytes[..n]);
        self.stir(wire);
        n
    }

    /// A client ends its side, or breaks the connection.
    pub fn end(&mut self, wire: usize, reset: bool) {
        self.wires[wire].fin = true;
        self.wires[wire].reset |= reset;
        if reset {
            self.wires[wire].to_server.clear();
        }
        self.stir(wire);
    }

    /// Something came for a wire's reader.
    fn stir(&mut self, wire: usize) {
        let Some((side, place)) = self.wires[wire].place else { return };
        let side = &mut self.sides[side];
        if std::mem::take(&mut side.places[place].armed) {
            let generation = side.places[place].generation;
            side.events.push(Event::Pending(ConnId { index: place as u32, generation }));
            side.flag.store(true, Ordering::SeqCst);
        }
    }

    /// Finishes a write to some commit log. False: none is under way.
    fn settle_commit(&mut self) -> bool {
        let busy: Vec<usize> = (0..self.sides.len()).filter(|s| !self.sides[*s].commits.is_empty()).collect();
        if busy.is_empty() {
            return false;
        }
        let side = &mut self.sides[busy[below(busy.len() as u64) as usize]];
        let at = below(side.commits.len() as u64) as usize;
        let CommitWrite { slot, file, memory, len, offset } = side.commits.remove(at);
        let result = file.write_at(&memory[..len], offset);
        note("committed", u64::from(result.is_ok()));
        side.events.push(Event::Committed(Committed { slot, memory, result }));
        side.flag.store(true, Ordering::SeqCst);
        true
    }

    /// The process dies in the middle of writes to its commit logs. Without power, each sector may be there or not.
    pub fn crash(&mut self, has_power: bool) {
        for CommitWrite { file, memory, len, offset, .. } in self.sides.iter_mut().flat_map(|s| s.commits.drain(..)) {
            let (all, sector) = (once_in(2), 512);
            for (i, bytes) in memory[..len].chunks(sector).enumerate() {
                if if has_power { all } else { once_in(2) } {
                    let _ = file.write_at(bytes, offset + (i * sector) as u64);
                }
            }
        }
    }

    /// Finishes one of the sends or writes that are under way. False: there is none that could be finished.
    pub fn settle_one(&mut self) -> bool {
        if once_in(2) && self.settle_commit() {
            return true;
        }
        let mut busy = Vec::new();
        for (s, side) in self.sides.iter().enumerate() {
            for (p, place) in side.places.iter().enumerate() {
                let Some(wire) = place.wire.map(|w| &self.wires[w]) else { continue };
                if place.sending.is_some() && (wire.reset || wire.to_client.len() < BUFFER) {
                    busy.push((s, p));
                }
            }
        }
        if busy.is_empty() {
            return false;
        }
        let (s, p) = busy[below(busy.len() as u64) as usize];
        let side = &mut self.sides[s];
        let place = &mut side.places[p];
        let conn = ConnId { index: p as u32, generation: place.generation };
        let Some(wire) = place.wire else { return false };
        if let Some((buffer, done)) = place.sending.take() {
            match transmit(&mut self.wires[wire], &buffer, done) {
                Ok(n) if n < buffer.len() => place.sending = Some((buffer, n)),
                result => side.events.push(Event::Sent(Sent { conn, buffer, result: result.map(|_| ()) })),
            }
        }
        side.flag.store(true, Ordering::SeqCst);
        true
    }

    /// True where nothing is on its way to a reactor.
    pub fn is_quiet(&self, wire: usize) -> bool {
        self.wires[wire].to_server.is_empty() || self.wires[wire].closed
    }
}

fn receive(wire: &mut Wire, lease: &mut Lease, place: &mut Place, conn: ConnId, events: &mut Vec<Event>) -> Outcome {
    if wire.reset {
        return Outcome::Failed(io::ErrorKind::ConnectionReset.into());
    }
    if wire.to_server.is_empty() {
        if wire.fin {
            return Outcome::End;
        }
        place.armed = true;
        return Outcome::Empty;
    }
    let most = lease.len.min(wire.to_server.len());
    let len = if once_in(2) { most } else { 1 + below(most as u64) as usize };
    let space = &mut lease.chunk.free()[lease.start..][..len];
    space.iter_mut().for_each(|b| *b = wire.to_server.pop_front().unwrap());
    let waits = !wire.to_server.is_empty() || wire.fin;
    let more = waits && !once_in(4);
    if !more && waits {
        events.push(Event::Pending(conn));
    } else if !more {
        place.armed = true;
    }
    Outcome::Bytes { len, more }
}

fn transmit(wire: &mut Wire, buffer: &[u8], done: usize) -> io::Result<usize> {
    if wire.reset {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let n = BUFFER.saturating_sub(wire.to_client.len()).min(buffer.len() - done);
    wire.to_client.extend(&buffer[done..done + n]);
    Ok(done + n)
}

/// The engine of one reactor.
pub struct SimEngine {
    pub net: SharedNet,
    pub number: usize,
    pub control: Arc<Control>,
}

impl SimEngine {
    /// The place of a connection that is open, and its wire.
    fn open_place(net: &mut Net, number: usize, id: ConnId) -> Option<(&mut Side, &mut [Wire], usize)> {
        let side = &mut net.sides[number];
        let place = side.places.get(id.index as usize)?;
        let wire = place.wire.filter(|_| place.generation == id.generation)?;
        Some((side, &mut net.wires, wire))
    }

    fn accept(
        side: &mut Side,
        wires: &[Wire],
        by_fd: &mut HashMap<RawFd, usize>,
        null: &OwnedFd,
        out: &mut Vec<Event>,
    ) {
        while let Some(wire) = side.queue.pop_front() {
            let fd = socket2::Socket::from(null.try_clone().unwrap());
            by_fd.insert(fd.as_raw_fd(), wire);
            let socket = Socket { fd, kind: Kind::Stream, counted: None, member: None };
            out.push(Event::Accepted { listener: wires[wire].listener, socket, peer: Peer::Local });
        }
    }
}

impl Engine for SimEngine {
    fn listen(&mut self, _listener: ListenerId, _socket: socket2::Socket) -> io::Result<()> {
        Ok(()) // every listener of the simulation is there from the start
    }

    fn stop_listening(&mut self, _listener: ListenerId, events: &mut Vec<Event>) {
        let net = &mut *self.net.borrow_mut();
        SimEngine::accept(&mut net.sides[self.number], &net.wires, &mut net.by_fd, &net.null, events);
    }

    fn retry_accept(&mut self, _listener: ListenerId) {
        self.net.borrow_mut().sides[self.number].accept_failed = false;
    }

    fn open(&mut self, socket: Socket) -> io::Result<ConnId> {
        let net = &mut *self.net.borrow_mut();
        let wire = net.by_fd[&socket.fd.as_raw_fd()];
        let side = &mut net.sides[self.number];
        let index = side.places.iter().position(|p| p.wire.is_none()).unwrap_or_else(|| {
            side.places.push(Place::default());
            side.places.len() - 1
        });
        let place = &mut side.places[index];
        (place.wire, place.socket, place.armed) = (Some(wire), Some(socket), true);
        let generation = place.generation;
        net.wires[wire].place = Some((self.number, index));
        if !net.wires[wire].to_server.is_empty() || net.wires[wire].fin {
            net.stir(wire);
        }
        Ok(ConnId { index: index as u32, generation })
    }

    fn close(&mut self, id: ConnId) {
        let net = &mut *self.net.borrow_mut();
        let number = self.number;
        let Some((side, wires, wire)) = SimEngine::open_place(net, number, id) else { return };
        (wires[wire].closed, wires[wire].place) = (true, None);
        let place = &mut side.places[id.index as usize];
        let fd = place.socket.take().map(|s| s.fd.as_raw_fd());
        (place.wire, place.sending, place.armed) = (None, None, false);
        place.generation += 1;
        if let Some(fd) = fd {
            net.by_fd.remove(&fd);
        }
    }

    fn detach(&mut self, id: ConnId) -> Option<Socket> {
        let net = &mut *self.net.borrow_mut();
        let (side, wires, wire) = SimEngine::open_place(net, self.number, id)?;
        let place = &mut side.places[id.index as usize];
        if once_in(3) {
            side.events.push(Event::Pending(id)); // not yet
            return None;
        }
        wires[wire].place = None;
        (place.wire, place.armed) = (None, false);
        place.generation += 1;
        place.socket.take()
    }

    fn retain(&mut self, _conn: ConnId) {}

    fn recv(&mut self, id: ConnId, mut lease: Lease) -> Option<Received> {
        point();
        let net = &mut *self.net.borrow_mut();
        let Some((side, wires, wire)) = SimEngine::open_place(net, self.number, id) else {
            let outcome = Outcome::Failed(io::ErrorKind::NotConnected.into());
            return Some(Received { conn: id, lease, outcome });
        };
        let place = &mut side.places[id.index as usize];
        let outcome = receive(&mut wires[wire], &mut lease, place, id, &mut side.events);
        Some(Received { conn: id, lease, outcome })
    }

    fn recv_batch(&mut self, _: ConnId, _: &mut [u8], _: &mut Vec<Datagram>) -> Outcome {
        unreachable!("no datagrams are simulated")
    }

    fn send(&mut self, id: ConnId, buffer: Vec<u8>) -> Option<Sent> {
        point();
        let net = &mut *self.net.borrow_mut();
        let Some((side, wires, wire)) = SimEngine::open_place(net, self.number, id) else {
            return Some(Sent { conn: id, buffer, result: Err(io::ErrorKind::NotConnected.into()) });
        };
        let place = &mut side.places[id.index as usize];
        if once_in(4) {
            place.sending = Some((buffer, 0));
            return None;
        }
        match transmit(&mut wires[wire], &buffer, 0) {
            Ok(n) if n < buffer.len() => {
                place.sending = Some((buffer, n));
                None
            }
            result => Some(Sent { conn: id, buffer, result: result.map(|_| ()) }),
        }
    }

    fn commit(&mut self, write: CommitWrite) {
        let (_, parts) = decode(&write.memory).expect("a whole record");
        let is_full = self.control.readiness() == Some(NotReady::DiskFull);
        assert!(parts.is_empty() || !is_full, "lines are logged while a writer waits for room");
        self.net.borrow_mut().sides[self.number].commits.push(write);
    }

    fn shut_down_sending(&mut self, id: ConnId) {
        let net = &mut *self.net.borrow_mut();
        if let Some((_, wires, wire)) = SimEngine::open_place(net, self.number, id) {
            wires[wire].closed = true;
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        point();
        let until = timeout.map(|t| now() + t.as_nanos() as u64);
        loop {
            let woken = {
                let net = &mut *self.net.borrow_mut();
                let side = &mut net.sides[self.number];
                if !side.queue.is_empty() && !side.accept_failed {
                    if once_in(20) {
                        side.accept_failed = true;
                        let error = io::Error::from_raw_os_error(libc::EMFILE);
                        events.push(Event::AcceptFailed { listener: 0, error });
                    } else {
                        SimEngine::accept(side, &net.wires, &mut net.by_fd, &net.null, events);
                    }
                }
                events.append(&mut side.events);
                side.flag.swap(false, Ordering::SeqCst)
            };
            if woken {
                events.push(Event::Woken);
            }
            if !events.is_empty() || until.is_some_and(|at| at <= now()) {
                note("reactor", events.len() as u64);
                return Ok(());
            }
            sleep(until);
        }
    }

    fn waker(&self) -> Box<dyn Fn() + Send + Sync> {
        let flag = Arc::clone(&self.net.borrow().sides[self.number].flag);
        Box::new(move || flag.store(true, Ordering::SeqCst))
    }
}

/// How far a piece of so many bytes goes: all of it, or a part.
pub fn piece(len: usize) -> usize {
    machine(|m| if m.chance.coin() { len } else { 1 + m.chance.below(len as u64) as usize })
}
