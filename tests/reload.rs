//! SIGHUP: what can change changes without a line lost, what cannot says so, and a wrong file changes nothing.

mod common;

use common::http::Client;
use common::{Server, await_that, lines_of, scratch, send_all};
use nix::sys::signal::Signal;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A server with a configuration file that can change, and what it logs.
struct Reloading {
    server: Server,
    config: PathBuf,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Reloading {
    fn start(config: &str) -> Reloading {
        let dir = scratch();
        let (path, log) = (dir.path().join("logweir.toml"), dir.path().join("log"));
        std::fs::write(&path, config).unwrap();
        let server = Server::start_with(
            &dir.path().join("data"),
            &["--config", path.to_str().unwrap()],
            Stdio::null(),
            |command| {
                command.stderr(File::create(&log).unwrap());
            },
        );
        Reloading { server, config: path, log, _dir: dir }
    }

    fn logged(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Writes the file anew, sends SIGHUP and waits until the log says `what`.
    fn reload(&self, config: &str, what: &str) {
        std::fs::write(&self.config, config).unwrap();
        let before = self.logged().len();
        self.server.signal(Signal::SIGHUP);
        await_that(what, || self.logged()[before..].contains(what));
    }

    fn cat(&self, stream: &str) -> Vec<u8> {
        self.server.cat(); // what was answered is in the segments
        let dir = self.server.data_dir.to_str().unwrap();
        common::logweir(&["cat", "-s", stream, "--data-dir", dir]).stdout
    }
}

/// An address that nobody listens on. The port is of those that the kernel gives nobody by itself while it is held; here it is
/// let go, and taken at once.
fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn listener(name: &str, address: SocketAddr, more: &str) -> String {
    format!("[listener.{name}]\naddress = \"tcp://{address}\"\n{more}\n")
}

/// Sends a line where the count is the answer.
fn counted(stream: &mut TcpStream, line: &str) -> Option<u64> {
    stream.write_all(line.as_bytes()).ok()?;
    let mut answer = String::new();
    BufReader::new(stream.try_clone().unwrap()).read_line(&mut answer).ok()?;
    answer.trim().parse().ok()
}

#[test]
fn listeners_come_and_go_and_those_that_stay_are_not_disturbed() {
    let (a, b, c) = (free(), free(), free());
    let count = "reply = \"count\"";
    let with_a_b = listener("a", a, count) + &listener("b", b, count);
    let server = Reloading::start(&with_a_b);
    let (mut to_a, mut to_b) = (TcpStream::connect(a).unwrap(), TcpStream::connect(b).unwrap());
    assert_eq!((counted(&mut to_a, "a1\n"), counted(&mut to_b, "b1\n")), (Some(1), Some(1)));
    to_b.write_all(b"b2\nb3 is not ended").unwrap();

    server.reload(&(listener("a", a, count) + &listener("c", c, count)), "listener c listens on");
    // What was sent to the one that is gone is taken in and acknowledged, then its connection ends.
    let mut rest = String::new();
    to_b.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.lines().last(), Some("3"), "{rest}");
    await_that("nobody listens there", || TcpStream::connect(b).is_err());
    assert_eq!(counted(&mut to_a, "a2\n"), Some(2));
    let mut to_c = TcpStream::connect(c).unwrap();
    assert_eq!(counted(&mut to_c, "c1\n"), Some(1));

    server.reload(&with_a_b, "listener b listens on");
    let mut to_b = TcpStream::connect(b).unwrap();
    assert_eq!(counted(&mut to_b, "b4\n"), Some(1));
    assert_eq!(counted(&mut to_a, "a3\n"), Some(3));
    let text = String::from_utf8(server.cat("default")).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a1", "a2", "a3", "b1", "b2", "b3 is not ended", "b4", "c1"]);
    server.server.metrics().check_accounts();
    assert_eq!(server.server.metrics().sum("logweir_received_lines_total", "\"c\""), 1.0);
    let mut server = server;
    assert!(server.server.stop().success());
}

#[test]
fn a_new_listener_may_write_to_a_new_stream() {
    let (a, b) = (free(), free());
    let server = Reloading::start(&listener("a", a, "stream = \"m\""));
    let both = listener("a", a, "stream = \"m\"") + &listener("b", b, "stream = \"b\"\nreply = \"count\"");
    server.reload(&both.replace("reply = \"count\"", ""), "listener b listens on");
    send_all(a, b"to m\n");
    send_all(b, b"to b\n");
    await_that("both lines", || server.cat("b") == b"to b\n" && server.cat("m") == b"to m\n");
    // Streams keep their numbers, though by name `b` comes first now.
    send_all(a, b"to m again\n");
    await_that("the third line", || server.cat("m") == b"to m\nto m again\n");
    // Segments of the new stream obey what is said of them later.
    let smaller = both.replace("reply = \"count\"", "") + "[stream.b]\nsegment_size = \"64KiB\"\n";
    server.reload(&smaller, "stream b is stored");
    send_all(b, &b"x".repeat(99).into_iter().chain(*b"\n").collect::<Vec<u8>>().repeat(2000));
    await_that("segments", || {
        std::fs::read_dir(server.server.data_dir.join("b")).unwrap().count() > 6
            && lines_of(&server.cat("b")).len() == 2001
    });
    server.server.metrics().check_accounts();
    let mut server = server;
    assert!(server.server.stop().success());
}

#[test]
fn a_listener_that_is_renamed_keeps_its_address_and_refuses_nobody() {
    let a = free();
    let server = Reloading::start(&listener("old", a, "reply = \"count\""));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let client = scope.spawn(|| {
            let mut connected = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                drop(TcpStream::connect(a).expect("a connection is never refused"));
                connected += 1;
            }
            connected
        });
        for (name, other) in [("new", "old"), ("old", "new"), ("new", "old")] {
            server.reload(&listener(name, a, "reply = \"count\""), &format!("listener {other} is gone"));
            let mut stream = TcpStream::connect(a).unwrap();
            assert_eq!(counted(&mut stream, &format!("{name}\n")), Some(1));
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
        assert!(client.join().unwrap() > 0);
    });
    assert_eq!(lines_of(&server.cat("default")).len(), 3);
}

#[test]
fn a_token_that_is_taken_away_is_worth_nothing_on_a_connection_that_is_open() {
    let a = free();
    let hash = |token: &str| Sha256::digest(token).iter().map(|b| format!("{b:02x}")).collect::<String>();
    let config = |token: &str| {
        let http = "protocol = \"http\"\ntokens = [\"t\"]";
        listener("web", a, http) + &format!("[token.t]\nsha256 = \"{}\"\n", hash(token))
    };
    let server = Reloading::start(&config("first"));
    let mut client = Client::to(a);
    let post = |client: &mut Client, token: &str| {
        client.post("/", &format!("Authorization: Bearer {token}\r\n"), "a\n").status
    };
    assert_eq!(post(&mut client, "first"), 204);
    server.reload(&config("second"), "listener web has other options");
    assert_eq!(post(&mut client, "second"), 204);
    assert_eq!(post(&mut client, "first"), 401);
    assert_eq!(lines_of(&server.cat("default")).len(), 2);
}

#[test]
fn limits_change_for_those_who_come_from_then_on() {
    let a = free();
    let server = Reloading::start(&listener("a", a, "reply = \"count\""));
    let mut first = TcpStream::connect(a).unwrap();
    assert_eq!(counted(&mut first, "one\n"), Some(1));
    let strict =
        "reply = \"count\"\nmax_connections_per_address = 2\nmax_line_bytes = \"128B\"\nidle_timeout = \"10s\"";
    server.reload(&listener("a", a, strict), "listener a has other options");
    let mut second = TcpStream::connect(a).unwrap();
    assert_eq!(counted(&mut second, &format!("{}\n", "x".repeat(200))), Some(1));
    let mut third = TcpStream::connect(a).unwrap();
    assert_eq!(counted(&mut third, "three\n"), None, "it is one too many");
    let text = String::from_utf8(server.cat("default")).unwrap();
    assert!(text.contains(" [truncated "), "{text}");
    // And without limits again.
    server.reload(&listener("a", a, "reply = \"count\"\nidle_timeout = \"0s\""), "listener a has other options");
    let mut fourth = TcpStream::connect(a).unwrap();
    assert_eq!(counted(&mut fourth, "four\n"), Some(1));
    assert_eq!(counted(&mut first, "still here\n"), Some(2));
}

#[test]
fn what_cannot_change_says_so_and_the_rest_changes() {
    let (a, b) = (free(), free());
    let server = Reloading::start(&listener("a", a, "reply = \"count\""));
    let mut first = TcpStream::connect(a).unwrap();
    let other = format!(
        "engine = \"epoll\"\n[storage]\nfile_mode = \"0640\"\n[buffer]\nmemory = \"128MiB\"\n{}{}",
        listener("a", a, "reply = \"count\"\nack = \"received\""),
        listener("b", b, "reply = \"count\"")
    );
    server.reload(&other, "listener b listens on");
    // In CI's step for the other engine the environment names it, and comes before the file.
    let engine = std::env::var_os("LOGWEIR_ENGINE").map_or(Some("engine"), |_| None);
    let others = ["storage.file_mode", "buffer.memory", "listener.a (its `ack` or `reply`)"];
    for what in engine.into_iter().chain(others) {
        // Said behind what has changed.
        await_that(what, || server.logged().lines().any(|l| l.contains("restart needed") && l.contains(what)));
    }
    assert_eq!(counted(&mut first, "one\n"), Some(1));
    assert_eq!(counted(&mut TcpStream::connect(b).unwrap(), "two\n"), Some(1));
    // Lines that no chunk holds; bodies that no memory is there to decode.
    let too_much =
        listener("a", a, "reply = \"count\"\nmax_line_bytes = \"4MiB\"") + &listener("b", b, "protocol = \"http\"");
    server.reload(&too_much, "listener.b (its `protocol`)");
    assert!(
        server.logged().contains("listener.a (buffer.memory was divided for shorter lines)"),
        "{}",
        server.logged()
    );
    assert_eq!(counted(&mut first, "three\n"), Some(2));
}

#[test]
fn a_wrong_file_changes_nothing_and_says_why() {
    let (a, b) = (free(), free());
    let good = listener("a", a, "reply = \"count\"");
    let server = Reloading::start(&good);
    let mut first = TcpStream::connect(a).unwrap();
    let typing_error = listener("b", b, "adress = \"x\"");
    server.reload(&typing_error, "unknown key in [listener.b]; did you mean `address`?");
    // An address that is taken: the other new listener does not come either.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let half = listener("b", b, "") + &listener("c", taken.local_addr().unwrap(), "");
    server.reload(&half, "listener.c: cannot listen on");
    assert!(TcpStream::connect(b).is_err(), "nothing of it is there");
    assert_eq!(counted(&mut first, "one\n"), Some(1), "and the one that the file has no more stays");
    let secret = listener("a", a, "reply = \"count\"\ntls_cert = \"@/c.pem\"\ntls_key = \"@/k.pem\"");
    let place = server.config.parent().unwrap().to_str().unwrap();
    server.reload(&secret.replace('@', place), "listener.a: ");
    assert_eq!(counted(&mut first, "two\n"), Some(2));
    server.reload(&good, "nothing has changed");
}

#[test]
fn unix_sockets_come_move_and_go_with_their_files() {
    let unix = |name: &str, path: &Path| {
        format!("[listener.{name}]\naddress = \"unix://{}\"\nreply = \"count\"\n", path.display())
    };
    let gram = |path: &Path| format!("[listener.g]\naddress = \"unixgram://{}\"\n", path.display());
    let a = free();
    let tcp = listener("t", a, "");
    let server = Reloading::start(&tcp);
    // The sandbox lets sockets be made where files are.
    let at = |name: &str| server.server.data_dir.join(name);
    server.reload(&format!("{tcp}{}{}", unix("u", &at("one")), gram(&at("gram"))), "listener u listens on");
    let mut one = std::os::unix::net::UnixStream::connect(at("one")).unwrap();
    one.write_all(b"by stream\n").unwrap();
    let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
    datagram.send_to(b"by datagram\n", at("gram")).unwrap();
    await_that("two lines", || lines_of(&server.cat("default")).len() == 2);
    server.reload(&format!("{tcp}{}", unix("u", &at("two"))), "listener u listens on");
    assert!(!at("one").exists() && !at("gram").exists() && at("two").exists());
    one.write_all(b"the connection stays\n").unwrap();
    await_that("three lines", || lines_of(&server.cat("default")).len() == 3);
    server.reload(&tcp, "listener u is gone");
    assert!(!at("two").exists());
    let mut rest = String::new();
    one.read_to_string(&mut rest).unwrap();
    assert_eq!(rest.lines().last(), Some("2"));
}

#[test]
fn a_datagram_socket_that_changes_hands_belongs_to_one() {
    let a = free();
    let tcp = listener("t", a, "");
    let server = Reloading::start(&tcp);
    let at = |name: &str| server.server.data_dir.join(name);
    let gram = |name: &str, path: &Path, stream: &str| {
        format!("[listener.{name}]\naddress = \"unixgram://{}\"\nstream = \"{stream}\"\n", path.display())
    };
    server.reload(&format!("{tcp}{}", gram("one", &at("p1.sock"), "sa")), "listener one listens on");
    let moved = format!("{tcp}{}{}", gram("one", &at("p2.sock"), "sa"), gram("two", &at("p1.sock"), "sc"));
    server.reload(&moved, "listener two listens on");
    await_that("the first to let it go", || server.server.metrics().sum("logweir_connections", "") == 2.0);
    let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
    for i in 0..200 {
        datagram.send_to(format!("{i}\n").as_bytes(), at("p1.sock")).unwrap();
    }
    await_that("all of them", || lines_of(&server.cat("sc")).len() == 200);
    assert!(server.cat("sa").is_empty());
}

#[test]
fn a_reload_that_fails_leaves_no_segments_behind() {
    let (a, b) = (free(), free());
    let good = listener("a", a, "");
    let server = Reloading::start(&good);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let half = good.clone() + &listener("b", b, "stream = \"new\"") + &listener("c", taken.local_addr().unwrap(), "");
    server.reload(&half, "listener.c: cannot listen on");
    assert!(!server.server.data_dir.join("new").exists());
    let elsewhere = good.replace("127.0.0.1", "127.0.0.2");
    server.reload(&elsewhere, "listener.a (the same port at another IP address)");
}

#[test]
fn a_reload_keeps_the_numbers_of_splunks_acknowledgements() {
    let (web, other) = (free(), free());
    let listener = |more: &str| {
        format!(
            "[listener.web]\nprotocol = \"http\"\naddress = \"tcp://{web}\"\napis = [\"splunk\"]\nsplunk_ack = true\n{more}\n"
        )
    };
    let server = Reloading::start(&listener(""));
    let channel = "X-Splunk-Request-Channel: one\r\n";
    let number = |answer: &common::http::Answer| -> u64 {
        serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()["ackId"].as_u64().unwrap()
    };
    let asked = |client: &mut Client, number: u64| {
        let answer = client.post("/services/collector/ack", channel, &format!("{{\"acks\":[{number}]}}"));
        answer.body == format!("{{\"acks\":{{\"{number}\":true}}}}")
    };
    let mut before = Client::to(web);
    let first = number(&before.post("/services/collector/event", channel, "{\"event\":\"one\"}"));
    server.reload(&(listener("") + &self::listener("b", other, "")), "listener b listens on");
    let mut behind = Client::to(web);
    await_that("it is told behind a reload", || asked(&mut behind, first));
    let second = number(&behind.post("/services/collector/event", channel, "{\"event\":\"two\"}"));
    assert!(second > first);
    server.reload(&listener("max_requests = 1000"), "listener web has other options");
    let mut behind = Client::to(web);
    await_that("and where the listener itself changed", || asked(&mut behind, second));
    let third = number(&behind.post("/services/collector/event", channel, "{\"event\":\"three\"}"));
    assert!(third > second);
}
