//! Lines in, files out: every listener, as sent, and every option of the protocol.

mod common;

use common::{Server, await_that, lines_of, logweir, scratch, send_all};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};

#[test]
fn a_first_line_sent_with_nc_is_read_back_with_cat() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    let port = server.address("lines").port().to_string();
    let mut nc = match Command::new("nc").args(["-N", "127.0.0.1", &port]).stdin(Stdio::piped()).spawn() {
        Ok(nc) => nc,
        Err(error) => return common::skipped("a_first_line_sent_with_nc", &format!("nc: {error}")),
    };
    nc.stdin.take().unwrap().write_all(b"hello, log\n").unwrap();
    assert!(nc.wait().unwrap().success());
    await_that("the line", || server.cat() == b"hello, log\n");
}

#[test]
fn the_introduction_says_what_a_user_wants_to_know() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    for part in [
        "tcp://127.0.0.1:",
        "written to",
        "data",
        "engine",
        "placement",
        "shard",
        "memory",
        "file mode",
        "nc -N",
        "logweir cat",
    ] {
        assert!(server.introduction.contains(part), "{part}\n{}", server.introduction);
    }
}

#[test]
fn bytes_are_kept_as_sent() {
    let dir = scratch();
    let mut server = Server::start(&dir.path().join("data"), &[]);
    let sent = b"plain\nwith\0nul\r\n\xff\xfe not utf-8\n\n\tlast without newline";
    send_all(server.address("lines"), sent);
    let mut expected = sent.to_vec();
    expected.push(b'\n');
    await_that("the lines", || server.cat() == expected);
    assert!(server.stop().success());
    assert_eq!(server.cat(), expected);
}

#[test]
fn unix_sockets_take_streams_and_datagrams() {
    let dir = scratch();
    let (stream, datagram) = (dir.path().join("s"), dir.path().join("d"));
    let config = format!(
        "[listener.s]\naddress = \"unix://{}\"\nstream = \"s\"\n[listener.d]\naddress = \"unixgram://{}\"\nstream = \"d\"\nsocket_mode = \"0600\"",
        stream.display(),
        datagram.display()
    );
    let mut server = Server::with_config(&dir.path().join("data"), &config);
    let mut client = UnixStream::connect(&stream).unwrap();
    client.write_all(b"over a stream\n").unwrap();
    let sender = UnixDatagram::unbound().unwrap();
    sender.send_to(b"one\ntwo", &datagram).unwrap();
    sender.send_to(b"", &datagram).unwrap();
    sender.send_to(b"three\n", &datagram).unwrap();
    let large = vec![b'x'; 100_000];
    sender.send_to(&large, &datagram).unwrap();
    let read = |name: &str| logweir(&["cat", "-d", dir.path().join("data").to_str().unwrap(), "--stream", name]).stdout;
    await_that("the stream", || read("s") == b"over a stream\n");
    await_that("the datagrams", || read("d").len() == 14 + 100_001);
    assert!(read("d").starts_with(b"one\ntwo\nthree\nxxx"));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&datagram).unwrap().permissions().mode() & 0o777, 0o600);
    drop(client);
    assert!(server.stop().success());
    assert!(!stream.exists() && !datagram.exists(), "socket files are removed at an orderly end");
}

/// The sum that `check` prints has room for several datagrams at once, where there is memory for that.
#[test]
fn datagrams_have_room_for_a_batch() {
    let dir = scratch();
    let config = dir.path().join("c.toml");
    let scratch_of = |listener: &str| {
        std::fs::write(&config, format!("[buffer]\nmemory = \"64MiB\"\n[listener.d]\naddress = \"{listener}\""))
            .unwrap();
        let out = logweir(&["check", "--config-only", "-c", config.to_str().unwrap()]);
        let text = String::from_utf8(out.stdout).unwrap();
        let (before, _) = text.split_once(" for input that is rewritten").unwrap_or_else(|| panic!("{text}"));
        before.rsplit(" x ").next().unwrap().to_string()
    };
    let socket = format!("unixgram://{}", dir.path().join("d").display());
    let kib = |text: String| text.trim_end_matches(" KiB").parse::<f64>().ok();
    assert!(kib(scratch_of("tcp://127.0.0.1:1")).unwrap() < 300.0);
    assert_eq!(scratch_of(&socket), "1.1 MiB");
}

#[test]
fn one_sender_of_datagrams_does_not_close_the_socket_of_the_others() {
    let dir = scratch();
    let (socket, data) = (dir.path().join("d"), dir.path().join("data"));
    let address = format!("address = \"unixgram://{}\"", socket.display());
    let config = format!("[listener.d]\n{address}\nmax_line_bytes = \"128B\"\ntoo_long = \"close\"");
    let mut server = Server::with_config(&data, &config);
    let sender = UnixDatagram::unbound().unwrap();
    let long = "x".repeat(1000);
    for datagram in ["first", &long, "a\n", &format!("b\n{long}\nc\n"), "last"] {
        sender.send_to(datagram.as_bytes(), &socket).unwrap();
    }
    await_that("what is short enough", || common::cat(&data) == b"first\na\nb\nc\nlast\n");
    assert!(server.stop().success());
}

#[test]
fn standard_input_is_a_listener_and_its_end_the_end() {
    let dir = scratch();
    let data = dir.path().join("data");
    let input = dir.path().join("input.log");
    let content: String = (0..50_000).map(|i| format!("line {i} from a regular file\n")).collect();
    std::fs::write(&input, &content).unwrap();
    let file = std::fs::File::open(&input).unwrap(); // epoll refuses regular files
    let mut server = Server::start_with(&data, &["--listen", "stdin:"], Stdio::from(file), |_| {});
    assert!(server.wait().success());
    assert!(common::cat(&data) == content.as_bytes());
}

#[test]
fn carriage_returns_go_only_when_asked() {
    let dir = scratch();
    let config = "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nstrip_cr = true";
    let server = Server::with_config(&dir.path().join("data"), config);
    send_all(server.address("lines"), b"a\r\nb\n\r\nc\r\r\n");
    await_that("the lines", || server.cat() == b"a\nb\n\nc\r\n");
}

#[test]
fn too_long_lines_are_truncated_dropped_or_end_the_connection() {
    let dir = scratch();
    let listener = |name: &str| {
        format!(
            "[listener.{name}]\naddress = \"tcp://127.0.0.1:0\"\nstream = \"{name}\"\nmax_line_bytes = \"1KiB\"\ntoo_long = \"{name}\"\n"
        )
    };
    let config = ["truncate", "drop", "close"].map(listener).concat();
    let server = Server::with_config(&dir.path().join("data"), &config);
    let mut sent = b"before\n".to_vec();
    sent.extend(std::iter::repeat_n(b'x', 5000));
    sent.extend_from_slice(b"\nafter\n");
    for name in ["truncate", "drop"] {
        send_all(server.address(name), &sent);
    }
    let mut closing = std::net::TcpStream::connect(server.address("close")).unwrap();
    closing.write_all(&sent).unwrap();
    let mut rest = Vec::new();
    let _ = closing.read_to_end(&mut rest); // an end or a reset: it was closed with data unread
    let read = |name: &str| {
        let out = logweir(&["cat", "-d", dir.path().join("data").to_str().unwrap(), "--stream", name]);
        String::from_utf8(out.stdout).unwrap()
    };
    let kept = 1024 - 40;
    let cut = format!("before\n{} [truncated {} bytes]\nafter\n", "x".repeat(kept), 5000 - kept);
    await_that("the truncated line", || read("truncate") == cut);
    await_that("the dropped line", || read("drop") == "before\nafter\n");
    await_that("the line before the end", || read("close") == "before\n");
    let metrics = server.metrics();
    assert_eq!(metrics.sum("logweir_truncated_lines_total", ""), 1.0);
    assert_eq!(metrics.sum("logweir_truncated_bytes_total", ""), (5000 - kept) as f64);
    assert_eq!(metrics.sum("logweir_dropped_lines_total", "too_long"), 2.0);
    assert_eq!(metrics.sum("logweir_connections_refused_total", "too_long"), 1.0);
    metrics.check_accounts();
}

#[test]
fn json_says_when_and_from_whom() {
    let dir = scratch();
    let config = "[stream.default]\nformat = \"json\"\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"";
    let server = Server::with_config(&dir.path().join("data"), config);
    send_all(server.address("lines"), b"say \"hi\"\n\x01\xff\nlast");
    await_that("the lines", || server.cat().iter().filter(|b| **b == b'\n').count() == 3);
    let cat = server.cat();
    let lines = lines_of(&cat);
    let values: Vec<serde_json::Value> = lines.iter().map(|l| serde_json::from_slice(l).unwrap()).collect();
    let messages: Vec<&str> = values.iter().map(|v| v["msg"].as_str().unwrap()).collect();
    assert_eq!(messages, ["say \"hi\"", "\u{1}\u{fffd}", "last"]);
    assert_eq!(values[0]["listener"], "lines");
    assert!(values[0]["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(values[0]["t"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn a_connection_that_ends_inside_a_line_keeps_or_drops_it_and_a_reset_drops_it() {
    let dir = scratch();
    let config = "[listener.keep]\naddress = \"tcp://127.0.0.1:0\"\n[listener.drop]\naddress = \"tcp://127.0.0.1:0\"\nunterminated = \"drop\"";
    let server = Server::with_config(&dir.path().join("data"), config);
    send_all(server.address("keep"), b"whole\nhalf kept");
    send_all(server.address("drop"), b"whole\nhalf dropped");
    let reset = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    reset.connect(&server.address("keep").into()).unwrap();
    (&reset).write_all(b"whole\nhalf reset").unwrap();
    await_that("three whole lines", || server.metrics().sum("logweir_received_lines_total", "") >= 5.0);
    reset.set_linger(Some(std::time::Duration::ZERO)).unwrap();
    drop(reset);
    await_that("the reset", || server.metrics().sum("logweir_dropped_lines_total", "reset") == 1.0);
    await_that("the lines", || server.cat().len() == 3 * 6 + 10);
    let metrics = server.metrics();
    assert_eq!(metrics.sum("logweir_dropped_lines_total", "unterminated"), 1.0);
    assert_eq!(metrics.sum("logweir_dropped_bytes_total", ""), (12 + 10) as f64);
    metrics.check_accounts();
}

#[test]
fn counts_come_back_at_each_level() {
    let dir = scratch();
    let listener =
        |ack: &str| format!("[listener.{ack}]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\nack = \"{ack}\"\n");
    let config = ["received", "written", "durable"].map(listener).concat();
    let server = Server::with_config(&dir.path().join("data"), &config);
    for ack in ["received", "written", "durable"] {
        let mut client = std::net::TcpStream::connect(server.address(ack)).unwrap();
        let mut replies = BufReader::new(client.try_clone().unwrap()).lines();
        let mut last = 0;
        for round in 1..=20u64 {
            client.write_all(b"a line\nanother\n").unwrap();
            while last < round * 2 {
                let count: u64 = replies.next().unwrap().unwrap().parse().unwrap();
                assert!(count > last && count <= round * 2, "{count} after {last}");
                last = count;
            }
        }
        client.write_all(b"without end").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(replies.next().unwrap().unwrap(), "41", "{ack}: the last line counts too");
        assert!(replies.next().is_none(), "{ack}: then the server closes");
    }
    let metrics = server.metrics();
    metrics.check_accounts();
    assert!(metrics.sum("logweir_ack_seconds_count", "") > 0.0);
    assert!(metrics.sum("logweir_sync_seconds_count", "") > 0.0);
}

#[test]
fn a_reader_of_counts_that_never_reads_does_not_stop_the_others() {
    let dir = scratch();
    let config = "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\nack = \"received\"";
    let mut server = Server::with_config(&dir.path().join("data"), config);
    let mut deaf = server.connect();
    for _ in 0..2000 {
        deaf.write_all(b"a\n").unwrap();
    }
    let mut client = server.connect();
    let mut replies = BufReader::new(client.try_clone().unwrap()).lines();
    client.write_all(b"b\n").unwrap();
    assert_eq!(replies.next().unwrap().unwrap(), "1");
    drop(client);
    assert!(server.stop().success());
}

#[test]
fn several_listeners_and_streams_at_once() {
    let dir = scratch();
    let config = "[listener.a]\naddress = \"tcp://127.0.0.1:0\"\nstream = \"red\"\n[listener.b]\naddress = \"tcp://127.0.0.1:0\"\nstream = \"blue\"\n[placement]\nshards = 2\nreactors_per_shard = 2";
    let mut server = Server::with_config(&dir.path().join("data"), config);
    std::thread::scope(|scope| {
        for i in 0..8 {
            let address = server.address(if i % 2 == 0 { "a" } else { "b" });
            scope.spawn(move || send_all(address, &format!("{i} line\n").repeat(20_000).into_bytes()));
        }
    });
    assert!(server.stop().success());
    for (stream, rest) in [("red", 0), ("blue", 1)] {
        let out = logweir(&["cat", "-d", dir.path().join("data").to_str().unwrap(), "-s", stream]).stdout;
        let lines = lines_of(&out);
        assert_eq!(lines.len(), 80_000);
        assert!(lines.iter().all(|l| (l[0] - b'0') % 2 == rest && l.ends_with(b" line")));
    }
}

#[test]
fn cat_shows_no_torn_line_and_knows_its_streams() {
    let dir = scratch();
    let stream = dir.path().join("s");
    std::fs::create_dir(&stream).unwrap();
    std::fs::write(stream.join("000-0000000002.log.active"), b"second\ntorn").unwrap();
    std::fs::write(stream.join("000-0000000001.log"), b"first\n").unwrap();
    std::fs::write(stream.join("001-0000000001.log"), b"other shard\n").unwrap();
    std::fs::write(stream.join("000-0000000001.torn"), b"never shown\n").unwrap();
    let path = dir.path().to_str().unwrap();
    assert_eq!(logweir(&["cat", "-d", path]).stdout, b"first\nsecond\nother shard\n");
    for args in [["cat", "-d", path, "-s", "missing"], ["cat", "-d", path, "-s", "../s"]] {
        let output = logweir(&args);
        assert_eq!(output.status.code(), Some(1));
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn a_signal_to_reload_says_what_it_does_and_harms_nothing() {
    let dir = scratch();
    let mut server = Server::start(&dir.path().join("data"), &[]);
    server.signal(Signal::SIGHUP);
    send_all(server.address("lines"), b"still here\n");
    assert!(server.stop().success());
    assert_eq!(server.cat(), b"still here\n");
}
