//! Clients that speak another protocol than their listener: noticed, said in the log with the likely cause, counted. What a lines listener
//! is told to store it stores all the same, but for a TLS handshake, whose client would wait for ever.

mod common;

use common::{BINARY, Server, await_that, lines_of, scratch};
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A server whose log goes to a file.
fn start(dir: &Path, config: &str) -> (Server, PathBuf) {
    let (log, data) = (dir.join("log"), dir.join("data"));
    std::fs::write(dir.join("c.toml"), config).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["serve", "--admin", "127.0.0.1:0", "--data-dir"]).arg(&data).arg("--config").arg(dir.join("c.toml"));
    command.stdin(Stdio::null()).stderr(File::create(&log).unwrap());
    (Server::launch(&mut command, &data).unwrap(), log)
}

fn said(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap()
}

fn send(server: &Server, listener: &str, bytes: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(server.address(listener)).unwrap();
    client.write_all(bytes).unwrap();
    client
}

const LINES: &str = "[listener.l]\naddress = \"tcp://127.0.0.1:0\"\n";

#[test]
fn a_lines_listener_says_what_others_send_and_stores_it() {
    let dir = scratch();
    let (server, log) = start(dir.path(), LINES);
    let cases: [(&[u8], &str); 8] = [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\na\n", "http"),
        (b"41 <14>1 2026-11-27T00:00:00Z host app - -\n", "octet_counting"),
        (b"1 open 85 relp_version=0\nrelp_software=x\n", "relp"),
        (b"2W\0\0\0\x01\n", "beats"),
        (b"\x92\xa3app\x93\n", "forward"),
        (b"\0\0\x02\x15\x80\x05\x95\n", "pickle"),
        (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nline\n", "proxy_header"),
        (b"a line\0\n", "nul"),
    ];
    let mut expected = Vec::new();
    for (bytes, kind) in cases {
        drop(send(&server, "l", bytes));
        expected.extend_from_slice(bytes);
        await_that(kind, || server.metrics().sum("logweir_unexpected_input_total", &format!("kind=\"{kind}\"")) == 1.0);
        await_that("a line of the log", || said(&log).contains(&format!("kind=\"{kind}\"")));
    }
    drop(send(&server, "l", b"an ordinary line\n"));
    expected.extend_from_slice(b"an ordinary line\n");
    let mut expected = lines_of(&expected);
    expected.sort_unstable();
    await_that("everything is on disk", || {
        let cat = server.cat();
        let mut found = lines_of(&cat);
        found.sort_unstable();
        found == expected
    });
    assert_eq!(
        server.metrics().sum("logweir_unexpected_input_total", ""),
        cases.len() as f64,
        "an ordinary line is none"
    );
    let log = said(&log);
    assert!(
        log.contains("listener=\"l\"") && log.contains("peer=127.0.0.1:") && log.contains("octet counting (RFC 6587)"),
        "{log}"
    );
}

#[test]
fn a_tls_handshake_on_a_plain_listener_is_closed_and_said() {
    let dir = scratch();
    let (server, log) = start(dir.path(), LINES);
    let mut client = send(&server, "l", b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03");
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest); // its end, or a reset: either way it does not wait
    assert!(rest.is_empty());
    await_that("it is counted", || {
        server.metrics().sum("logweir_connections_refused_total", "reason=\"unexpected\"") == 1.0
    });
    server.metrics().check_accounts();
    assert_eq!(server.metrics().sum("logweir_dropped_lines_total", "reason=\"unexpected\""), 1.0);
    await_that("it is said", || said(&log).contains("a TLS handshake, and this listener has no tls_cert"));
    assert!(server.cat().is_empty());
}

#[test]
fn an_http_listener_answers_others_at_once() {
    let dir = scratch();
    let (server, log) = start(dir.path(), "[listener.h]\naddress = \"tcp://127.0.0.1:0\"\nprotocol = \"http\"\n");
    for bytes in [&b"41 <14>1 2026-11-27T00:00:00Z host app - -"[..], b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03"] {
        let mut answer = String::new();
        let _ = send(&server, "h", bytes).read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    let gelf = b"{\"version\":\"1.1\",\"short_message\":\"x\"}\0";
    for bytes in [&b"plain lines\nof a log\n"[..], gelf] {
        let mut answer = String::new();
        let _ = send(&server, "h", bytes).read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    }
    await_that("all are counted", || {
        server.metrics().sum("logweir_unexpected_input_total", "kind=\"not_http\"") == 2.0
    });
    for kind in ["tls", "octet_counting", "not_http"] {
        await_that("it is said", || said(&log).contains(&format!("kind=\"{kind}\"")));
    }
}

/// As Python's SysLogHandler sends them, over a datagram socket and over TCP; and GELF.
#[test]
fn nul_is_noticed_taken_off_or_ends_lines() {
    let dir = scratch();
    let path = |name: &str| dir.path().join(name);
    let mut config =
        String::from("[listener.split]\naddress = \"tcp://127.0.0.1:0\"\nnul = \"split\"\nstream = \"split\"\n");
    for (name, nul) in [("kept", "keep"), ("stripped", "strip")] {
        config += &format!(
            "[listener.{name}]\naddress = \"unixgram://{}\"\nnul = \"{nul}\"\nstream = \"{name}\"\n",
            path(name).display()
        );
    }
    let (server, log) = start(dir.path(), &config);
    for name in ["kept", "stripped"] {
        let client = UnixDatagram::unbound().unwrap();
        for message in [&b"<14>one\0"[..], b"<14>two\0"] {
            client.send_to(message, path(name)).unwrap();
        }
    }
    drop(send(&server, "split", b"{\"a\":1}\0{\"a\":2}\0"));
    let cat = |stream: &str| {
        let output = common::logweir(&["cat", "--data-dir", server.data_dir.to_str().unwrap(), "-s", stream]);
        String::from_utf8(output.stdout).unwrap()
    };
    await_that("all is on disk", || server.metrics().sum("logweir_durable_lines_total", "") == 6.0);
    assert_eq!(cat("kept"), "<14>one\0\n<14>two\0\n");
    assert_eq!(cat("stripped"), "<14>one\n<14>two\n");
    assert_eq!(cat("split"), "{\"a\":1}\n{\"a\":2}\n");
    assert_eq!(
        server.metrics().sum("logweir_unexpected_input_total", "kind=\"nul\""),
        1.0,
        "once for a socket, and only where it is kept"
    );
    await_that("it is said", || said(&log).contains("nul = \\\"strip\\\"") || said(&log).contains("nul = \"strip\""));
}

/// A message may be longer than what comes first of it.
#[test]
fn nul_is_noticed_behind_the_first_receive_too() {
    let dir = scratch();
    let (server, log) = start(dir.path(), LINES);
    let mut client = send(&server, "l", b"{\"short_message\":\"");
    let received = || server.metrics().sum("logweir_network_received_bytes_total", "");
    await_that("the first part", || received() == 18.0);
    client.write_all(b"x\"}\0{\"a\":1}\0").unwrap();
    await_that("it is counted", || server.metrics().sum("logweir_unexpected_input_total", "kind=\"nul\"") == 1.0);
    await_that("it is said", || said(&log).contains("kind=\"nul\""));
}

/// One listener's noise hides nothing of another's.
#[test]
fn each_listener_has_its_own_line() {
    let dir = scratch();
    let two = "[listener.a]\naddress = \"tcp://127.0.0.1:0\"\nline_timeout = \"20ms\"\n[listener.b]\naddress = \"tcp://127.0.0.1:0\"\nline_timeout = \"20ms\"\n";
    let (server, log) = start(dir.path(), two);
    for listener in ["a", "b"] {
        let _client = send(&server, listener, b"begun");
        let line = format!("connection closed by the server listener=\"{listener}\"");
        await_that(&line, || said(&log).contains(&line));
    }
}

/// Every close and drop by a listener has a line in the log that names the client and the reason, and a thousand of them do not have a thousand.
#[test]
fn what_is_closed_and_dropped_is_said_with_its_client() {
    let dir = scratch();
    let config = "[listener.slow]\naddress = \"tcp://127.0.0.1:0\"\nline_timeout = \"50ms\"\n\
                  [listener.idle]\naddress = \"tcp://127.0.0.1:0\"\nidle_timeout = \"50ms\"\n\
                  [listener.long]\naddress = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"128B\"\ntoo_long = \"close\"\n\
                  [listener.cut]\naddress = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"128B\"\n";
    let (server, log) = start(dir.path(), config);
    let _clients =
        [send(&server, "slow", b"begun"), send(&server, "idle", b"a line\n"), send(&server, "long", &[b'x'; 200])];
    let long = [&[b'x'; 200][..], b"\n"].concat();
    let clients: Vec<TcpStream> = (0..20).map(|_| send(&server, "cut", &long)).collect();
    for part in [
        "lines dropped listener=\"slow\" peer=127.0.0.1:",
        "connection closed by the server listener=\"slow\" peer=127.0.0.1:",
        "connection closed: no input for idle_timeout listener=\"idle\"",
        "connection closed by the server listener=\"long\"",
        "lines cut to max_line_bytes listener=\"cut\"",
    ] {
        await_that(part, || said(&log).contains(part));
    }
    await_that("all are cut", || server.metrics().sum("logweir_truncated_lines_total", "") == 20.0);
    drop(clients);
    // One reactor says it once in ten seconds.
    assert!(said(&log).matches("lines cut to max_line_bytes").count() <= 10, "{}", said(&log));
}
