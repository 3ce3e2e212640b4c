//! Every limit: what is over it gets a clear answer, and the others go on.

mod common;

use common::{Server, await_that, scratch};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

/// True once the server has closed the connection.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    !matches!(stream.read(&mut [0; 16]), Ok(n) if n > 0)
}

#[test]
fn connections_in_all_are_limited() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &["--set", "limits.max_connections=3"]);
    let mut inside: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
    await_that("three inside", || server.metrics().sum("logweir_connections", "") == 3.0);
    let mut outside = server.connect();
    assert!(is_closed(&mut outside));
    inside[0].write_all(b"still served\n").unwrap();
    await_that("the line", || server.cat() == b"still served\n");
    inside.pop();
    await_that("room again", || server.metrics().sum("logweir_connections", "") == 2.0);
    common::send_all(server.address("lines"), b"next\n");
    await_that("the next line", || server.cat() == b"still served\nnext\n");
    assert!(server.metrics().sum("logweir_connections_refused_total", "\"max_connections\"") >= 1.0);
}

#[test]
fn connections_per_address_are_limited() {
    let dir = scratch();
    let config = "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nmax_connections_per_address = 2";
    let server = Server::with_config(&dir.path().join("data"), config);
    let from = |ip: [u8; 4]| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&std::net::SocketAddr::from((ip, 0)).into()).unwrap();
        socket.connect(&server.address("lines").into()).unwrap();
        TcpStream::from(socket)
    };
    let _inside = [from([127, 0, 0, 2]), from([127, 0, 0, 2])];
    let mut third = from([127, 0, 0, 2]);
    assert!(is_closed(&mut third));
    let mut other = from([127, 0, 0, 3]);
    other.write_all(b"another address\n").unwrap();
    await_that("the line", || server.cat() == b"another address\n");
    assert_eq!(server.metrics().sum("logweir_connections_refused_total", "per_address"), 1.0);
}

#[test]
fn idle_connections_end() {
    let dir = scratch();
    let config = "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nidle_timeout = \"300ms\"";
    let server = Server::with_config(&dir.path().join("data"), config);
    let mut idle = server.connect();
    assert!(is_closed(&mut idle));
    assert_eq!(server.metrics().sum("logweir_connections_refused_total", "idle_timeout"), 1.0);
}

#[test]
fn a_line_that_does_not_end_ends_its_connection_and_is_counted() {
    let dir = scratch();
    let config = "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nline_timeout = \"300ms\"";
    let server = Server::with_config(&dir.path().join("data"), config);
    let mut slow = server.connect();
    slow.write_all(b"whole\nhalf a li").unwrap();
    let mut fine = server.connect();
    assert!(is_closed(&mut slow));
    fine.write_all(b"fine\n").unwrap();
    await_that("the whole lines", || server.cat() == b"whole\nfine\n");
    let metrics = server.metrics();
    assert_eq!(metrics.sum("logweir_dropped_lines_total", "line_timeout"), 1.0);
    assert_eq!(metrics.sum("logweir_dropped_bytes_total", "line_timeout"), 9.0);
    metrics.check_accounts();
}

#[test]
fn without_descriptors_it_goes_on_and_still_rotates() {
    let dir = scratch();
    let data = dir.path().join("data");
    // 210 descriptors: after what logweir keeps for itself, a handful of connections.
    let args = ["--listen", "tcp://127.0.0.1:0", "--set", "storage.segment_size=64KiB"];
    let mut server = Server::start_with(&data, &args, Stdio::null(), |command| {
        let mut limited = std::process::Command::new("prlimit");
        limited.arg("--nofile=210:210").arg(command.get_program()).args(command.get_args());
        *command = limited;
    });
    let mut held = Vec::new();
    for _ in 0..200 {
        held.push(server.connect());
    }
    await_that("refusals", || server.metrics().sum("logweir_connections_refused_total", "") > 100.0);
    let line = [b"x".repeat(999), b"\n".to_vec()].concat();
    let mut served = 0;
    for stream in &mut held {
        for _ in 0..40 {
            if stream.write_all(&line).is_err() {
                break;
            }
        }
        served += 1;
    }
    assert_eq!(served, 200);
    await_that("a rotation", || server.metrics().sum("logweir_rotations_total", "") >= 1.0);
    drop(held);
    // Some may wait in the accept queue still; they would take the places that are free now.
    await_that("room again", || {
        let metrics = server.metrics();
        let seen = |name: &str| metrics.sum(name, "");
        let met = seen("logweir_connections_accepted_total") + seen("logweir_connections_refused_total");
        seen("logweir_connections") == 0.0 && met >= 200.0
    });
    common::send_all(server.address("lines"), b"after\n");
    await_that("the line", || server.cat().ends_with(b"\nafter\n"));
    assert!(server.stop().success());
}

#[test]
fn a_thousand_halves_of_lines_in_a_small_budget_all_get_done() {
    let dir = scratch();
    let data = dir.path().join("data");
    let config =
        "[buffer]\nmemory = \"4MiB\"\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"64KiB\"";
    let mut server = Server::with_config(&data, config);
    // 1,000 times 2 KB of half lines: half of that in blocks that are their own, half of it twice the budget of 512 KiB.
    let mut clients: Vec<TcpStream> = (0..1000).map(|_| server.connect()).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.write_all(format!("{i:04}").repeat(500).as_bytes()).unwrap();
    }
    await_that("the budget to be spent", || server.metrics().sum("logweir_partial_line_waits_total", "") > 0.0);
    assert!(
        server.metrics().sum("logweir_partial_line_bytes", "") <= (512 * 1024 + 64 * 1024 + 2048 + 1000 * 1024) as f64
    );
    for (i, client) in clients.iter_mut().enumerate() {
        client.write_all(format!("{i:04}").repeat(500).as_bytes()).unwrap();
        client.write_all(b"\n").unwrap();
    }
    await_that("all lines", || server.metrics().sum("logweir_received_lines_total", "") == 1000.0);
    drop(clients);
    assert!(server.stop().success());
    let out = common::cat(&data);
    let mut lines = common::lines_of(&out);
    lines.sort_unstable();
    assert_eq!(lines.len(), 1000);
    for (i, line) in lines.iter().enumerate() {
        assert!(*line == format!("{i:04}").repeat(1000).as_bytes(), "line {i}");
    }
}

/// Found by review: each of those who brought no partial line to the lane left one behind, beyond what the store has.
#[test]
fn lines_that_were_too_long_leave_no_more_behind_than_there_is_room_for() {
    let dir = scratch();
    let data = dir.path().join("data");
    let config = "[buffer]\nmemory = \"1MiB\"\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"2KiB\"\ntoo_long = \"drop\"\nline_timeout = \"0s\"";
    let mut server = Server::with_config(&data, config);
    let received = |server: &Server| server.metrics().sum("logweir_network_received_bytes_total", "");
    let mut droppers: Vec<TcpStream> = (0..20).map(|_| server.connect()).collect();
    droppers.iter_mut().for_each(|d| d.write_all(&[b'x'; 5000]).unwrap());
    await_that("lines that are too long", || received(&server) == 100_000.0);
    // One block each beyond those that are their own, more than there are.
    let mut fillers: Vec<TcpStream> = (0..300).map(|_| server.connect()).collect();
    fillers.iter_mut().for_each(|f| f.write_all(&[b'f'; 1500]).unwrap());
    await_that("the budget to be spent", || server.metrics().sum("logweir_partial_line_waits_total", "") > 0.0);
    droppers.iter_mut().for_each(|d| d.write_all(b"x\nabc").unwrap());
    for filler in &mut fillers {
        filler.write_all(&[b'f'; 400]).unwrap();
        filler.write_all(b"\n").unwrap();
    }
    droppers.iter_mut().for_each(|d| d.write_all(b"def\n").unwrap());
    await_that("all lines", || server.metrics().sum("logweir_durable_lines_total", "") == 320.0);
    server.metrics().check_accounts();
    drop((droppers, fillers));
    assert!(server.stop().success());
    let out = common::cat(&data);
    let count = |line: &[u8]| common::lines_of(&out).iter().filter(|l| **l == line).count();
    assert_eq!((count(b"abcdef"), count(&[b'f'; 1900])), (20, 300));
}
