//! Many connections with numbered lines: nothing lost, doubled, torn or reordered, whatever happens meanwhile.

mod common;

use common::{Server, await_that, cat, logweir, scratch};
use nix::sys::signal::Signal;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

fn load(address: SocketAddr, connections: u32, lines: u64, more: &[&str]) -> Child {
    Command::new(common::BINARY)
        .args(["bench", "send", "--sequence", "--address", &format!("tcp://{address}")])
        .args(["-c", &connections.to_string(), "-n", &lines.to_string()])
        .args(more)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn verify(data: &Path, lines: u64) {
    let output = logweir(&["bench", "verify", "-d", data.to_str().unwrap(), "-n", &lines.to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn many_connections_and_small_segments_and_every_account_balances() {
    let dir = scratch();
    let data = dir.path().join("data");
    let config = "[storage]\nsegment_size = \"1MiB\"\nsync_interval = \"20ms\"\n[placement]\nreactors_per_shard = 2\n[buffer]\nmemory = \"8MiB\"\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"64KiB\"";
    let mut server = Server::with_config(&data, config);
    let (done, mut scrapes) = (AtomicBool::new(false), 0);
    std::thread::scope(|scope| {
        let address = server.address("lines");
        let done = &done;
        scope.spawn(move || {
            assert!(load(address, 50, 400_000, &["-b", "120", "-w", "3000"]).wait().unwrap().success());
            done.store(true, Ordering::SeqCst);
        });
        while !done.load(Ordering::SeqCst) {
            server.metrics().check_accounts();
            scrapes += 1;
        }
    });
    assert!(scrapes > 3, "{scrapes} scrapes");
    await_that("everything durable", || server.metrics().sum("logweir_durable_lines_total", "") == 400_000.0);
    let metrics = server.metrics();
    metrics.check_accounts();
    assert_eq!(metrics.sum("logweir_in_flight_lines", "") + metrics.sum("logweir_written_lines", ""), 0.0);
    assert!(server.stop().success());
    verify(&data, 400_000);
    let sizes: Vec<u64> = std::fs::read_dir(data.join("default"))
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.path().extension().is_some_and(|x| x == "log"))
        .map(|e| e.metadata().unwrap().len())
        .collect();
    assert!(sizes.len() >= 46 && sizes.iter().all(|s| *s <= 1 << 20), "{sizes:?}");
}

#[test]
fn one_fat_connection_and_lines_of_every_length() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, &["--set", "buffer.memory=16MiB"]);
    let mut sent = Vec::new();
    let mut length = 0;
    while sent.len() < 40 << 20 {
        length = (length * 7 + 13) % 90_001;
        sent.extend(std::iter::repeat_n(b'a' + (length % 26) as u8, length));
        sent.push(b'\n');
    }
    common::send_all(server.address("lines"), &sent);
    assert!(server.stop().success());
    assert!(cat(&data) == sent, "the bytes differ");
}

#[test]
fn sigusr1_rotates_under_load_and_current_follows() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, &["--set", "storage.sync_interval=10ms"]);
    let current = data.join("default/current-0");
    let mut targets = std::collections::BTreeSet::new();
    let mut load = load(server.address("lines"), 8, 500_000, &["-b", "100", "-w", "2000"]);
    while load.try_wait().unwrap().is_none() {
        server.signal(Signal::SIGUSR1);
        server.metrics().check_accounts(); // and so not a signal every microsecond
        targets.extend(common::current(&data));
    }
    assert!(load.wait().unwrap().success());
    assert!(server.stop().success());
    verify(&data, 500_000);
    assert!(targets.len() >= 2, "{targets:?}");
    assert!(!current.exists(), "nothing is current after an orderly end");
}

#[test]
fn sigusr1_on_an_idle_server_seals_what_there_is_and_not_what_is_empty() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, &[]);
    server.signal(Signal::SIGUSR1);
    common::send_all(server.address("lines"), b"one\n");
    await_that("the line", || server.cat() == b"one\n");
    assert!(!data.join("default/000-0000000001.log").exists(), "an empty segment did not rotate");
    server.signal(Signal::SIGUSR1);
    await_that("the sealed segment", || data.join("default/000-0000000001.log").exists());
    common::send_all(server.address("lines"), b"two\n");
    await_that("the second line", || server.cat() == b"one\ntwo\n");
    assert!(server.stop().success());
}

#[test]
fn segments_rotate_by_age() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::start(&data, &["--set", "storage.segment_age=1s"]);
    common::send_all(server.address("lines"), b"old\n");
    await_that("the sealed segment", || data.join("default/000-0000000001.log").exists());
    assert_eq!(std::fs::read(data.join("default/000-0000000001.log")).unwrap(), b"old\n");
}

#[test]
fn an_orderly_end_under_load_loses_nothing_that_was_read() {
    for round in 0..3u64 {
        let dir = scratch();
        let data = dir.path().join("data");
        let mut server = Server::start(&data, &[]);
        let mut load = load(server.address("lines"), 16, 20_000_000, &["-b", "100", "-w", "4000"]);
        await_that("load", || server.metrics().sum("logweir_received_lines_total", "") > (50_000 * (round + 1)) as f64);
        assert!(server.stop().success());
        let _ = load.kill();
        let _ = load.wait();
        // Every line but the last of each connection is whole; that one was cut by the end and kept as it was.
        let out = cat(&data);
        let lines = common::lines_of(&out);
        let mut next = std::collections::HashMap::new();
        let mut cut = 0;
        for line in lines {
            match logweir::bench::lines::parse_numbered(line) {
                Some((connection, number)) => {
                    let expected = next.entry(connection).or_insert(0);
                    assert_eq!(number, *expected, "connection {connection}");
                    *expected += 1;
                }
                None => cut += 1,
            }
        }
        assert!(cut <= 16, "{cut} lines were cut by the end");
    }
}

#[test]
fn sequences_go_on_after_a_restart_and_no_name_comes_back() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut highest = 0;
    for round in 0..4 {
        let mut server = Server::start(&data, &[]);
        common::send_all(server.address("lines"), b"x\n");
        assert!(server.stop().success());
        let names = logweir::log::cat::segments(&data.join("default")).unwrap();
        let last = names.last().unwrap().sequence;
        assert!(last > highest, "round {round}");
        highest = last;
        // Retention takes everything: the next name must be new all the same.
        for entry in std::fs::read_dir(data.join("default")).unwrap() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
}

#[test]
fn an_idle_server_sleeps() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    common::send_all(server.address("lines"), b"x\n");
    let _idle: Vec<_> = (0..100).map(|_| server.connect()).collect();
    await_that("durable", || server.metrics().sum("logweir_durable_lines_total", "") == 1.0);
    // Voluntary context switches of the threads that carry lines: each wake-up is one.
    let switches = || -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
        let mut sum = 0;
        for task in tasks {
            let path = task.unwrap().path();
            let name = std::fs::read_to_string(path.join("comm")).unwrap();
            if ["reactor", "writer", "steward"].iter().any(|n| name.starts_with(n)) {
                let status = std::fs::read_to_string(path.join("status")).unwrap();
                let line = status.lines().find(|l| l.starts_with("voluntary_ctxt_switches")).unwrap();
                sum += line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
            }
        }
        sum
    };
    await_that("100 connections", || server.metrics().sum("logweir_connections", "") == 100.0);
    let before = switches();
    // The time itself is what is measured here: nothing may happen in it.
    std::thread::park_timeout(std::time::Duration::from_secs(2));
    assert!(switches() - before <= 2, "{} wake-ups in two idle seconds", switches() - before);
}

/// Whoever fills whole chunks leaves the others none that is fresh. Requests that need one, since a body is decoded piece by piece, go
/// on all the same.
#[test]
fn requests_go_on_beside_senders_that_fill_every_chunk() {
    let dir = scratch();
    let config = "[placement]\nshards = 1\nreactors_per_shard = 1\n[buffer]\nmemory = \"8MiB\"\n\
        [listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\nmax_line_bytes = \"64KiB\"\n\
        [listener.web]\nprotocol = \"http\"\naddress = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"64KiB\"\nqueue_timeout = \"1h\"\n";
    let server = Server::with_config(&dir.path().join("data"), config);
    let body = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        (0..600).for_each(|i| writeln!(encoder, "{i} {}", "y".repeat(300)).unwrap());
        encoder.finish().unwrap()
    };
    let head =
        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", body.len());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut sender = TcpStream::connect(server.address("lines")).unwrap();
                let mut counts = sender.try_clone().unwrap();
                scope.spawn(move || std::io::copy(&mut counts, &mut std::io::sink()));
                let lines = [&[b'x'; 299][..], b"\n"].concat().repeat(1000);
                while !over.load(Ordering::SeqCst) {
                    sender.write_all(&lines).unwrap();
                }
                sender.shutdown(std::net::Shutdown::Write).unwrap();
            });
        }
        let mut client = common::http::Client::to(server.address("web"));
        for _ in 0..5 {
            (0..8).for_each(|_| client.send(&[head.as_bytes(), &body].concat()));
            (0..8).for_each(|_| assert_eq!(client.answer().expect("an answer").status, 204));
        }
        over.store(true, Ordering::SeqCst);
    });
    let metrics = server.metrics();
    metrics.check_accounts();
    assert_eq!(metrics.sum("logweir_durable_lines_total", "listener=\"web\""), 24_000.0);
}

/// The README's advice, with GNU tail: no line is missing though segments are exchanged, and all come in their order.
#[test]
fn tail_with_f_shows_every_line_over_rotations() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, &["--set", "storage.sync_interval=5ms"]);
    let current = data.join("default/current-0");
    let out = dir.path().join("out");
    let mut tail = std::process::Command::new("tail");
    tail.args(["-n", "+1", "-F"]).arg(&current).stdout(std::fs::File::create(&out).unwrap());
    let mut tail = tail.stderr(std::process::Stdio::null()).spawn().unwrap();
    let shown = || std::fs::read_to_string(&out).unwrap();
    let mut client = server.connect();
    let mut sent = String::new();
    for round in 0..12 {
        let mut lines = String::new();
        (0..200).for_each(|i| lines += &format!("round {round} line {i}\n"));
        client.write_all(lines.as_bytes()).unwrap();
        sent += &lines;
        let durable = || server.metrics().sum("logweir_durable_lines_total", "");
        await_that("they are on disk", || durable() == (round + 1) as f64 * 200.0);
        // tail looks at one file at a time: two exchanges before it looks would hide a whole segment.
        await_that("tail has caught up", || shown().len() == sent.len());
        server.signal(Signal::SIGUSR1);
        let rotations = || server.metrics().sum("logweir_rotations_total", "");
        await_that("a rotation", || rotations() == (round + 1) as f64);
    }
    await_that("everything is shown", || shown().len() >= sent.len());
    assert!(shown() == sent, "lines are missing, or in another order");
    let _ = tail.kill();
    let _ = tail.wait();
    assert!(server.stop().success());
}

/// A server that ends before its first line leaves `current-0` as the last name of an empty segment, which recovery removes: that is ours too.
#[test]
fn current_points_at_what_is_written_after_a_crash_without_lines() {
    let dir = scratch();
    let data = dir.path().join("data");
    for before in [&b""[..], b"a line\n"] {
        let mut server = Server::start(&data, &["--set", "storage.sync_interval=5ms"]);
        if !before.is_empty() {
            let durable = || server.metrics().sum("logweir_durable_lines_total", "");
            common::send_all(server.address("lines"), before);
            await_that("the line", || durable() == 1.0);
            server.signal(Signal::SIGUSR1);
            await_that("a rotation", || server.metrics().sum("logweir_rotations_total", "") == 1.0);
        }
        server.kill();
    }
    // A start that fails leaves nothing in the way either.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", taken.local_addr().unwrap());
    let output = logweir(&["serve", "--admin", "off", "--listen", &address, "--data-dir", data.to_str().unwrap()]);
    assert!(!output.status.success());
    let server = Server::start(&data, &[]);
    let active = common::current(&data).expect("current-0 is a name of the active segment");
    assert_eq!(active.extension().unwrap(), "active");
    common::send_all(server.address("lines"), b"after the crash\n");
    await_that("the line by its other name", || {
        std::fs::read(data.join("default/current-0")).unwrap() == b"after the crash\n"
    });
}
