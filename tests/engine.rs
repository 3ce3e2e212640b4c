//! The contract of an engine, as one suite for all engines there are.

mod common;

use logweir::host::peer::Peer;
use logweir::intake::listener::DATAGRAM_MAX;
use logweir::intake::net::{
    Engine, EpollEngine, Event, Kind, Lease, LeaseMark, Outcome, Received, Socket, UringEngine, listen,
};
use logweir::pipeline::chunk::{Chunk, ConnId};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// An engine with a listener, and what a reactor would keep.
struct Rig<E: Engine> {
    engine: E,
    events: Vec<Event>,
    address: SocketAddr,
}

impl<E: Engine> Rig<E> {
    fn new(mut engine: E) -> Self {
        let (mut sockets, address) = listen::bind_tcp("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        engine.listen(7, sockets.remove(0)).unwrap();
        Rig { engine, events: Vec::new(), address }
    }

    /// Waits until an event satisfies `want` and returns it.
    fn next<T>(&mut self, want: impl Fn(&Event) -> Option<T>) -> T {
        for _ in 0..1000 {
            for (i, event) in self.events.iter().enumerate() {
                if let Some(found) = want(event) {
                    self.events.remove(i);
                    return found;
                }
            }
            self.engine.wait(Some(Duration::from_millis(100)), &mut self.events).unwrap();
        }
        panic!("no such event: {:?}", self.events);
    }

    /// A new connection: the client's end and the engine's.
    fn accept(&mut self) -> (TcpStream, ConnId) {
        let client = TcpStream::connect(self.address).unwrap();
        loop {
            let place = self.events.iter().position(|e| matches!(e, Event::Accepted { listener: 7, .. }));
            if let Some(place) = place
                && let Event::Accepted { socket, peer, .. } = self.events.remove(place)
            {
                assert_eq!(peer.to_string(), client.local_addr().unwrap().to_string());
                return (client, self.engine.open(socket).unwrap());
            }
            self.engine.wait(None, &mut self.events).unwrap();
        }
    }

    fn pending(&mut self, id: ConnId) {
        self.next(|e| matches!(e, Event::Pending(conn) if *conn == id).then_some(()));
    }

    fn recv(&mut self, id: ConnId, len: usize) -> (Vec<u8>, Outcome) {
        let chunk = Box::new(Chunk::new(64 * 1024).unwrap());
        let lease = Lease { chunk, start: 10, len, mark: LeaseMark::Lane(3) };
        let received = match self.engine.recv(id, lease) {
            Some(received) => received,
            None => loop {
                let place = self.events.iter().position(|e| matches!(e, Event::Received(r) if r.conn == id));
                if let Some(place) = place
                    && let Event::Received(received) = self.events.remove(place)
                {
                    break received;
                }
                self.engine.wait(None, &mut self.events).unwrap();
            },
        };
        let Received { conn, mut lease, outcome } = received;
        assert_eq!(
            (conn, lease.start, lease.len, lease.mark),
            (id, 10, len, LeaseMark::Lane(3)),
            "the lease comes back whole"
        );
        let n = if let Outcome::Bytes { len, .. } = outcome { len } else { 0 };
        (lease.chunk.free()[10..10 + n].to_vec(), outcome)
    }
}

fn suite<E: Engine>(make: impl Fn() -> E) {
    receives_and_ends(Rig::new(make()));
    a_connection_that_is_not_served_stays_pending(Rig::new(make()));
    resets_are_failures(Rig::new(make()));
    sends_wait_for_room_and_come_back(Rig::new(make()));
    closed_connections_are_silent_and_their_places_are_used_again(Rig::new(make()));
    wakers_wake_from_any_thread(Rig::new(make()));
    datagrams_come_in_batches(make());
    a_stopped_listener_gives_out_its_queue(Rig::new(make()));
    nobody_waits_for_anothers_buffers(Rig::new(make()));
    who_is_idle_causes_no_events_while_others_hold_all_buffers(Rig::new(make()));
    a_closed_connection_is_closed_whatever_was_under_way(Rig::new(make()));
    bytes_stay_whole_under_churn(Rig::new(make()));
    a_detached_connection_goes_on_elsewhere(Rig::new(make()), Rig::new(make()));
}

fn receives_and_ends<E: Engine>(mut rig: Rig<E>) {
    let (mut client, id) = rig.accept();
    client.write_all(b"hello").unwrap();
    rig.pending(id);
    let (bytes, outcome) = rig.recv(id, 1000);
    assert!(bytes == b"hello" && matches!(outcome, Outcome::Bytes { more: false, .. }), "{outcome:?}");
    assert!(matches!(rig.recv(id, 1000).1, Outcome::Empty));
    client.write_all(b"last").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    // Data and end may come as one event: whoever goes on while there is more gets both.
    let mut got = Vec::new();
    rig.pending(id);
    loop {
        match rig.recv(id, 1000) {
            (_, Outcome::End) => break,
            (_, Outcome::Empty) => rig.pending(id),
            (bytes, Outcome::Bytes { more, .. }) => {
                got.extend(bytes);
                if !more {
                    rig.pending(id);
                }
            }
            (_, other) => panic!("{other:?}"),
        }
    }
    assert_eq!(got, b"last");
}

fn a_connection_that_is_not_served_stays_pending<E: Engine>(mut rig: Rig<E>) {
    let (mut client, id) = rig.accept();
    client.write_all(&[b'x'; 1000]).unwrap();
    rig.pending(id);
    let (bytes, outcome) = rig.recv(id, 100);
    assert!(bytes.len() == 100 && matches!(outcome, Outcome::Bytes { more: true, .. }));
    // No event reminds of the rest; it is simply there when asked for, however much later.
    rig.engine.wait(Some(Duration::ZERO), &mut rig.events).unwrap();
    let (bytes, _) = rig.recv(id, 10_000);
    assert_eq!(bytes.len(), 900);
}

fn resets_are_failures<E: Engine>(mut rig: Rig<E>) {
    let (client, id) = rig.accept();
    let socket = socket2::Socket::from(client);
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    drop(socket);
    rig.pending(id);
    assert!(matches!(rig.recv(id, 100).1, Outcome::Failed(_)));
}

fn sends_wait_for_room_and_come_back<E: Engine>(mut rig: Rig<E>) {
    let (mut client, id) = rig.accept();
    let large = vec![b'y'; 32 << 20];
    let expected = large.len();
    let pointer = large.as_ptr();
    assert!(rig.engine.send(id, large).is_none(), "the socket takes less than that at once");
    let reader = std::thread::spawn(move || {
        let mut total = 0;
        let mut buffer = vec![0; 1 << 20];
        while total < expected {
            total += client.read(&mut buffer).unwrap();
        }
        total
    });
    loop {
        let place = rig.events.iter().position(|e| matches!(e, Event::Sent(s) if s.conn == id));
        if let Some(place) = place
            && let Event::Sent(sent) = rig.events.remove(place)
        {
            assert!(sent.result.is_ok() && sent.buffer.as_ptr() == pointer, "the same buffer comes back");
            break;
        }
        rig.engine.wait(None, &mut rig.events).unwrap();
    }
    assert_eq!(reader.join().unwrap(), expected);
}

fn closed_connections_are_silent_and_their_places_are_used_again<E: Engine>(mut rig: Rig<E>) {
    let (mut client, old) = rig.accept();
    client.write_all(b"too late").unwrap();
    rig.pending(old);
    rig.engine.close(old);
    assert!(matches!(rig.recv(old, 100).1, Outcome::Failed(_)), "a closed connection brings its lease back as failed");
    for _ in 0..3 {
        let (mut client, id) = rig.accept();
        assert_ne!(id, old, "an old id never means a new connection");
        client.write_all(b"new").unwrap();
        rig.pending(id);
        assert_eq!(rig.recv(id, 100).0, b"new");
        rig.engine.close(id);
    }
    assert!(!rig.events.iter().any(|e| matches!(e, Event::Pending(id) if *id == old)));
}

fn wakers_wake_from_any_thread<E: Engine>(mut rig: Rig<E>) {
    let waker = rig.engine.waker();
    std::thread::spawn(waker).join().unwrap();
    rig.next(|e| matches!(e, Event::Woken).then_some(()));
}

/// A batch holds whole datagrams, each with its length, its cut and its sender; an empty one is one of them.
fn datagrams_come_in_batches<E: Engine>(engine: E) {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    let mut rig = Rig::new(engine);
    let id = rig
        .engine
        .open(Socket { fd: std::os::fd::OwnedFd::from(ours).into(), kind: Kind::Datagram, counted: None, member: None })
        .unwrap();
    let mut space = vec![0; 3 * DATAGRAM_MAX];
    let mut batch = Vec::new();
    assert!(matches!(rig.engine.recv_batch(id, &mut space, &mut batch), Outcome::Empty));
    for text in [&b"one"[..], b"", b"three", b"four"] {
        theirs.send(text).unwrap();
    }
    rig.pending(id);
    let outcome = rig.engine.recv_batch(id, &mut space, &mut batch);
    assert!(matches!(outcome, Outcome::Bytes { len: 8, more: true, .. }), "as many as there is room for: {outcome:?}");
    let texts: Vec<&[u8]> = batch.iter().map(|d| &space[d.start..d.start + d.len]).collect();
    assert_eq!(texts, [&b"one"[..], b"", b"three"]);
    assert!(batch.iter().all(|d| d.cut == 0 && d.sender == Peer::Local));
    // One that is larger than what there is for it.
    batch.clear();
    theirs.send(&[7; 300]).unwrap();
    let outcome = rig.engine.recv_batch(id, &mut space[..100], &mut batch);
    assert!(matches!(outcome, Outcome::Bytes { len: 4, .. }), "{outcome:?}");
    let outcome = rig.engine.recv_batch(id, &mut space[..100], &mut batch);
    assert!(matches!(outcome, Outcome::Bytes { len: 100, .. }), "{outcome:?}");
    assert_eq!((batch.len(), batch[1].len, batch[1].cut), (2, 100, 200));
    assert!(matches!(rig.engine.recv_batch(id, &mut space, &mut batch), Outcome::Empty));
    theirs.send(b"later").unwrap();
    rig.pending(id);
}

fn a_stopped_listener_gives_out_its_queue<E: Engine>(mut rig: Rig<E>) {
    let clients: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    rig.engine.stop_listening(7, &mut rig.events);
    let accepted = rig.events.iter().filter(|e| matches!(e, Event::Accepted { .. })).count();
    assert_eq!(accepted, clients.len(), "nobody who waits is reset");
    assert!(TcpStream::connect(rig.address).is_err(), "and nobody else gets in");
}

/// The byte at a place of a connection's stream.
fn pattern(stream: usize, at: usize) -> u8 {
    (stream.wrapping_mul(31) ^ at ^ (at >> 8).wrapping_mul(7)) as u8
}

/// Reads until `total` bytes have come, checking each, and until the engine owes an event for the next.
fn read_pattern<E: Engine>(rig: &mut Rig<E>, id: ConnId, stream: usize, total: usize, piece: usize) {
    let (mut at, mut more) = (0, true);
    while at < total || more {
        if !more {
            rig.pending(id);
        }
        let (bytes, outcome) = rig.recv(id, piece.min(total - at).max(1));
        for byte in bytes {
            assert_eq!(byte, pattern(stream, at), "byte {at} of {stream}");
            at += 1;
        }
        more = match outcome {
            Outcome::Empty => false,
            Outcome::Bytes { more, .. } => more,
            other => panic!("{other:?}"),
        };
    }
}

/// Many connections with much to say that are not served, and one that is: however few buffers there are, it gets on, and
/// what the others sent is there when they are served at last.
fn nobody_waits_for_anothers_buffers<E: Engine>(mut rig: Rig<E>) {
    let mut paused: Vec<(TcpStream, ConnId)> = (0..12).map(|_| rig.accept()).collect();
    let len = 40_000;
    for (stream, (client, id)) in paused.iter_mut().enumerate() {
        client.write_all(&(0..len).map(|at| pattern(stream, at)).collect::<Vec<u8>>()).unwrap();
        rig.pending(*id);
    }
    let (mut client, id) = rig.accept();
    for round in 0..50 {
        client.write_all(&(0..500).map(|at| pattern(round, at)).collect::<Vec<u8>>()).unwrap();
        rig.pending(id);
        read_pattern(&mut rig, id, round, 500, 300);
    }
    for (stream, (_, id)) in paused.iter().enumerate() {
        read_pattern(&mut rig, *id, stream, len, 1000 + stream * 700);
    }
}

/// Closed with input unread, of which the engine may have received some, told the kernel to stop, or neither: the client
/// sees the end.
/// As a reactor does it: whoever is pending and may be served is received from until nothing is there.
fn who_is_idle_causes_no_events_while_others_hold_all_buffers<E: Engine>(mut rig: Rig<E>) {
    let mut holders = Vec::new();
    for _ in 0..20 {
        let (mut client, id) = rig.accept();
        client.write_all(b"a small read that nobody takes").unwrap();
        rig.pending(id);
        holders.push((client, id));
    }
    let (mut idle, idle_id) = rig.accept();
    let mut quiet = 0;
    for _ in 0..100 {
        rig.events.clear();
        rig.engine.wait(Some(Duration::from_millis(5)), &mut rig.events).unwrap();
        let mine = |e: &Event| matches!(e, Event::Pending(id) if *id == idle_id);
        quiet = if rig.events.iter().any(mine) { 0 } else { quiet + 1 };
        if quiet == 3 {
            break;
        }
        assert!(matches!(rig.recv(idle_id, 1000).1, Outcome::Empty));
    }
    assert_eq!(quiet, 3, "an idle connection is looked at again and again");
    // It is heard all the same, and the others go on once they are served.
    idle.write_all(b"here").unwrap();
    rig.pending(idle_id);
    assert_eq!(rig.recv(idle_id, 1000).0, b"here");
    for (client, id) in &mut holders {
        assert_eq!(rig.recv(*id, 1000).0, b"a small read that nobody takes");
        client.write_all(b"more").unwrap();
        while rig.recv(*id, 1000).0.is_empty() {
            rig.pending(*id);
        }
    }
    idle.write_all(b"again").unwrap();
    rig.events.retain(|e| !matches!(e, Event::Pending(id) if *id == idle_id));
    while rig.recv(idle_id, 1000).0.is_empty() {
        rig.pending(idle_id);
    }
}

fn a_closed_connection_is_closed_whatever_was_under_way<E: Engine>(mut rig: Rig<E>) {
    let mut clients = Vec::new();
    for n in 0..24 {
        let (mut client, id) = rig.accept();
        client.write_all(&vec![b'x'; n * 2500]).unwrap();
        if n > 0 {
            rig.pending(id);
            // Until the engine has received all that it takes unasked.
            for _ in 0..3 {
                rig.engine.wait(Some(Duration::ZERO), &mut rig.events).unwrap();
            }
        }
        if n % 4 == 3 {
            rig.recv(id, 3000);
        }
        clients.push((client, id));
    }
    for (mut client, id) in clients {
        rig.engine.close(id);
        client.set_nonblocking(true).unwrap();
        let mut ended = false;
        for _ in 0..1000 {
            rig.engine.wait(Some(Duration::from_millis(1)), &mut rig.events).unwrap();
            // An end, or a reset where input was left unread.
            ended = !matches!(client.read(&mut [0; 8]), Err(e) if e.kind() == std::io::ErrorKind::WouldBlock);
            if ended {
                break;
            }
        }
        assert!(ended, "{id:?} is still open");
    }
}

/// Connections come, say something, are read in part or whole, and are closed with bytes, receives and sends under way:
/// nobody ever sees a byte of another.
fn bytes_stay_whole_under_churn<E: Engine>(mut rig: Rig<E>) {
    let mut open: Vec<(TcpStream, ConnId, usize)> = Vec::new();
    for stream in 0..400 {
        let (mut client, id) = rig.accept();
        let len = 1 + stream * 97 % 30_000;
        client.write_all(&(0..len).map(|at| pattern(stream, at)).collect::<Vec<u8>>()).unwrap();
        open.push((client, id, stream));
        if stream % 3 == 0 {
            rig.engine.send(id, vec![b'a'; 100 + stream * 10]);
        }
        if open.len() > 8 {
            let (client, id, stream) = open.remove(stream * 7 % 8);
            let len = 1 + stream * 97 % 30_000;
            match stream % 4 {
                0 => {} // closed unread
                1 => {
                    let (bytes, _) = rig.recv(id, 512);
                    assert!(bytes.iter().zip(0..).all(|(byte, at)| *byte == pattern(stream, at)));
                }
                _ => read_pattern(&mut rig, id, stream, len, 3000),
            }
            if stream % 5 == 0 {
                drop(client);
            }
            rig.engine.close(id);
        }
        rig.events.retain(|e| !matches!(e, Event::Sent(_)));
    }
}

/// Back and forth between two engines while the client sends: not a byte is lost or out of place.
fn a_detached_connection_goes_on_elsewhere<E: Engine>(mut rig: Rig<E>, mut other: Rig<E>) {
    let (mut client, mut id) = rig.accept();
    let total = 400_000;
    let writer = std::thread::spawn(move || {
        let bytes: Vec<u8> = (0..total).map(|at| pattern(1, at)).collect();
        // Small writes and large ones: both ways of receiving.
        for (i, part) in bytes.chunks(700).enumerate() {
            client.write_all(part).unwrap();
            if i % 64 == 0 {
                std::thread::yield_now();
            }
        }
        client
    });
    let (mut at, mut turn) = (0, 0);
    while at < total {
        let (bytes, outcome) = rig.recv(id, 1 + turn * 911 % 9000);
        for byte in bytes {
            assert_eq!(byte, pattern(1, at), "byte {at}");
            at += 1;
        }
        turn += 1;
        if turn % 7 == 0 {
            if let Some(socket) = rig.engine.detach(id) {
                rig.events.retain(|e| !matches!(e, Event::Pending(conn) if *conn == id));
                id = other.engine.open(socket).unwrap();
                std::mem::swap(&mut rig, &mut other);
                continue; // the new engine says when there is something
            }
            if turn % 3 == 0 {
                rig.engine.retain(id); // it stays after all
            }
        }
        if matches!(outcome, Outcome::Empty | Outcome::Bytes { more: false, .. }) && at < total {
            rig.engine.retain(id);
            rig.pending(id);
        }
    }
    drop(writer.join().unwrap());
    rig.engine.retain(id);
    loop {
        match rig.recv(id, 10).1 {
            Outcome::End => break,
            Outcome::Empty | Outcome::Bytes { more: false, .. } => rig.pending(id),
            _ => {}
        }
    }
}

#[test]
fn epoll_keeps_the_contract() {
    suite(|| EpollEngine::new(16).unwrap());
}

#[test]
fn io_uring_keeps_the_contract() {
    suite(|| UringEngine::new(16, 8).unwrap());
}
