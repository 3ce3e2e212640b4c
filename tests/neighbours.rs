//! One client, whoever it is, never stops the others: what it holds without sending whole records is little, and is taken from
//! it where others need it.

mod common;

use common::http::Client;
use common::{Server, await_that, scratch};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

/// A connection from one of the addresses of this machine.
fn from(ip: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    stream
}

/// Connections that send all this, as far as it is taken, and then say no more.
fn attackers(count: usize, to: SocketAddr, head: &str, bytes: usize) -> Vec<TcpStream> {
    let send = |mut stream: TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let all = [head.as_bytes(), &vec![b'a'; bytes]].concat();
        let mut sent = 0;
        while let Ok(n) = stream.write(&all[sent..])
            && n > 0
        {
            sent += n;
        }
        stream
    };
    (0..count).map(|_| send(TcpStream::connect(to).unwrap())).collect()
}

fn waits(server: &Server) -> f64 {
    server.metrics().sum("logweir_partial_line_waits_total", "")
}

fn ended(server: &Server) -> f64 {
    server.metrics().sum("logweir_connections_refused_total", "\"no_room\"")
}

const ROOM: &str = "[buffer]\nmemory = \"16MiB\"\n[placement]\nshards = 1\nreactors_per_shard = 1\n";
/// Nothing ends by a deadline: who goes on goes on by right.
const FOREVER: &str = "line_timeout = \"0s\"\nidle_timeout = \"0s\"\n";

/// Lines one after the other, each answered before the next is sent.
fn one_by_one(stream: UnixStream, line: &[u8], count: usize) {
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut answers = BufReader::new(stream).lines();
    for i in 1..=count {
        writer.write_all(line).unwrap();
        assert_eq!(answers.next().unwrap().expect("an answer"), i.to_string());
    }
}

/// Found from outside: 16 connections with an unfinished line each, on a public listener; a private one waited for half a minute.
#[test]
fn lines_of_a_private_listener_go_on_beside_unfinished_lines() {
    let dir = scratch();
    let socket = dir.path().join("s");
    let config = format!(
        "{ROOM}[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\n{FOREVER}[listener.private]\naddress = \"unix://{}\"\nreply = \"count\"\n{FOREVER}",
        socket.display()
    );
    let server = Server::with_config(&dir.path().join("data"), &config);
    let held = attackers(16, server.address("lines"), "", 560_000);
    await_that("the room to be spent", || waits(&server) > 0.0);
    let line = |len: usize| [vec![b'p'; len], vec![b'\n']].concat();
    one_by_one(UnixStream::connect(&socket).unwrap(), &line(200), 50);
    one_by_one(UnixStream::connect(&socket).unwrap(), &line(100_000), 20); // far longer than what is its own
    drop(held);
    server.metrics().check_accounts();
}

/// The same by heads and bodies of requests, on the very listener that is asked; others are served between them.
#[test]
fn requests_go_on_beside_unfinished_heads_and_bodies() {
    let dir = scratch();
    let config = format!(
        "{ROOM}[listener.web]\nprotocol = \"http\"\naddress = \"tcp://127.0.0.1:0\"\nheader_timeout = \"1h\"\nbody_timeout = \"1h\"\nidle_timeout = \"0s\"\nmax_header_bytes = \"256KiB\"\n"
    );
    let server = Server::with_config(&dir.path().join("data"), &config);
    let web = server.address("web");
    let heads = attackers(16, web, "POST / HTTP/1.1\r\nHost: x\r\nX: ", 250_000);
    let bodies = attackers(16, web, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n", 600_000);
    await_that("the room to be spent", || waits(&server) > 0.0);
    for len in [200, 30_000] {
        let mut client = Client::over(from([127, 0, 0, 9], web));
        for _ in 0..20 {
            assert_eq!(client.post("/", "", &format!("{}\n", "p".repeat(len))).status, 204);
        }
    }
    drop((heads, bodies));
    server.metrics().check_accounts();
}

/// One byte of a line is little: ten thousand of them are in nobody's way. (They took a block of 512 bytes each.)
#[test]
fn many_who_have_sent_one_byte_are_in_nobodys_way() {
    let dir = scratch();
    let config =
        format!("{ROOM}[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nmax_connections_per_address = 0\n{FOREVER}");
    let server = Server::with_config(&dir.path().join("data"), &config);
    let held = attackers(5000, server.address("lines"), "x", 0);
    await_that("all are in", || server.metrics().sum("logweir_connections", "") == 5000.0);
    let mut client = TcpStream::connect(server.address("lines")).unwrap();
    client.write_all(&[vec![b'p'; 900_000], b"\n".to_vec()].concat()).unwrap();
    await_that("the line", || server.metrics().sum("logweir_durable_lines_total", "") == 1.0);
    assert_eq!((waits(&server), ended(&server)), (0.0, 0.0));
    drop(held);
}

#[test]
fn the_largest_holder_ends_when_others_wait_and_is_counted() {
    let dir = scratch();
    let config = format!("{ROOM}[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\n{FOREVER}");
    let mut server = Server::with_config(&dir.path().join("data"), &config);
    let lines = server.address("lines");
    let mut small = from([127, 0, 0, 2], lines);
    small.write_all(&[b's'; 20_000]).unwrap();
    await_that("it is in", || server.metrics().sum("logweir_network_received_bytes_total", "") == 20_000.0);
    let mut held = attackers(16, lines, "", 560_000);
    await_that("one to end", || ended(&server) >= 1.0);
    await_that("whoever waits to have room", || {
        let received = server.metrics().sum("logweir_network_received_bytes_total", "");
        held.iter_mut().for_each(|h| drop(h.write(&[b'a'; 10_000])));
        received > 3_000_000.0
    });
    let metrics = server.metrics();
    assert!(metrics.sum("logweir_dropped_lines_total", "\"no_room\"") >= 1.0);
    metrics.check_accounts();
    small.write_all(b"\n").unwrap();
    await_that("the small one's line", || server.metrics().sum("logweir_durable_lines_total", "") == 1.0);
    drop((held, small));
    assert!(server.stop().success());
}

/// The head of a request with a zstd frame that needs a window of 8 MiB (RFC 8878 section 3.1.1), and the beginning of a block.
fn wide_window() -> Vec<u8> {
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, (23 - 10) << 3, 0, 0, 0x10];
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: zstd\r\nContent-Length: 100000\r\n\r\n";
    [head.as_bytes(), &frame, &[b'z'; 1000]].concat()
}

fn gzip(body: &str) -> Vec<u8> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    coder.write_all(body.as_bytes()).unwrap();
    let body = coder.finish().unwrap();
    let head =
        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), &body].concat()
}

/// Found from outside: two bodies with windows of 8 MiB, a few bytes a second, held the whole memory for decoding.
#[test]
fn bodies_that_hold_decoders_leave_room_for_others_and_end_when_others_want_theirs() {
    let dir = scratch();
    let config = "[listener.web]\nprotocol = \"http\"\naddress = \"tcp://127.0.0.1:0\"\nbody_timeout = \"1h\"\nidle_timeout = \"0s\"\n";
    let server = Server::with_config(&dir.path().join("data"), config);
    let web = server.address("web");
    // Wide ones and many small ones, until there is nothing for this address any more.
    let mut held = Vec::new();
    let refused = |client: &mut TcpStream| {
        client.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).is_ok_and(|()| &answer == b"HTTP/1.1 429")
    };
    let mut wide = from([127, 0, 0, 2], web);
    wide.write_all(&wide_window()).unwrap();
    assert!(!refused(&mut wide));
    held.push(wide);
    let request = gzip("some lines\nthat never come\n");
    for _ in 0..200 {
        let mut small = from([127, 0, 0, 2], web);
        small.write_all(&request[..request.len() - 10]).unwrap();
        let is_over = held.len() > 20 && refused(&mut small);
        held.push(small);
        if is_over {
            break;
        }
    }
    assert!(held.len() < 200, "somebody is refused");
    let mut other = Client::over(from([127, 0, 0, 3], web));
    for _ in 0..5 {
        other.send(&gzip("hello\n"));
        assert_eq!(other.answer().unwrap().status, 204, "others have their part");
    }
    // Who wants as much as the largest holds gets it once that one has had it for a while.
    await_that("the largest to end", || {
        let mut client = from([127, 0, 0, 4], web);
        client.write_all(&wide_window()).unwrap();
        let is_refused = refused(&mut client);
        held.push(client);
        !is_refused
    });
    assert_eq!(ended(&server), 1.0);
    let mut answer = [0; 12];
    held[0].set_read_timeout(Some(common::PATIENCE)).unwrap();
    held[0].read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 429", "it is told to send again");
    server.metrics().check_accounts();
}

/// Found from outside: 20 connections that say nothing held up a probe of liveness for 20 seconds.
#[test]
fn probes_are_answered_beside_clients_that_say_nothing_or_do_not_read() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    let admin = server.admin.unwrap();
    let silent: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(admin).unwrap()).collect();
    let mut half = TcpStream::connect(admin).unwrap();
    half.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
    // Answers that are asked for and never read.
    let deaf: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut client = TcpStream::connect(admin).unwrap();
            client.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            client
        })
        .collect();
    for path in ["/healthz", "/readyz", "/metrics", "/"] {
        assert_eq!(server.get(path).0, 200, "{path}");
    }
    // Those who say nothing are not kept.
    let mut last = &silent[199];
    last.set_read_timeout(Some(common::PATIENCE)).unwrap();
    assert!(!matches!(last.read(&mut [0; 1]), Ok(n) if n > 0));
    drop((half, deaf));
}
