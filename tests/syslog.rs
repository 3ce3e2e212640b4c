//! Syslog from what people have: logger, Python, nginx, haproxy and journald, with the settings of `docs/syslog.md`, word for word.
//! `syslog_relays.rs` has rsyslog and syslog-ng.

mod common;

use common::manager::Manager;
use common::programs::{Python, find, run};
use common::syslog::{
    Heard, as_line, await_lines, certificates, check_lines, check_raw, documented, get, haproxy, haproxy_logs, nginx,
    nginx_logs, record_datagrams, record_stream, record_tcp,
};
use common::{PATIENCE, Server, await_that, lines_of, scratch, skipped};
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOON: &str = "[storage]\nsync_interval = \"20ms\"\n";
const SOCKET: &str = "/run/logweir/syslog.sock";

/// A server with one listener, and more keys of it.
fn start(dir: &Path, address: &str, more: &str) -> Server {
    let config = format!("{SOON}[listener.syslog]\nprotocol = \"syslog\"\naddress = \"{address}\"\n{more}");
    Server::with_config(&dir.join("data"), &config)
}

/// A server on a datagram socket with a recorder before it: the recorder's file, what it hears, and the server.
fn on_datagrams(dir: &Path, more: &str) -> (PathBuf, Heard, Server) {
    let (at, tap) = (dir.join("server.sock"), dir.join("tap.sock"));
    let server = start(dir, &format!("unixgram://{}", at.display()), more);
    let heard = record_datagrams(&tap, &at);
    (tap, heard, server)
}

/// A server on TCP with a recorder before it: the recorder's port, what it hears, and the server.
fn on_tcp(dir: &Path, more: &str) -> (u16, Heard, Server) {
    let server = start(dir, "tcp://127.0.0.1:0", more);
    let (port, heard) = record_tcp(server.address("syslog"));
    (port, heard, server)
}

/// What programs log: of many lengths, with what framing and escapes may fall over.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = (0..100).map(|i| format!("message {i} {}", "0123456789 ".repeat(i % 80))).collect();
    let unusual = [
        "7 <13>no count",
        "<14>1 - - - - - - no PRI",
        "C:\\new\\",
        "a\ttab",
        "é\u{1f600}",
        "12",
        "[x] \"y\" %s",
        ": -",
    ];
    texts.extend(unusual.map(String::from));
    texts.iter().map(|t| t.trim_end().to_string()).collect()
}

/// Runs logger with these arguments; each text is a line of its standard input. All are on disk then. False: it is not here.
fn logger(test: &str, args: &[&str], server: &Server) -> bool {
    let Some(program) = find("logger") else {
        skipped(test, "logger (util-linux) is not installed");
        return false;
    };
    let before = server.metrics().sum("logweir_durable_lines_total", "") as usize;
    run(Command::new(program).args(args), format!("{}\n", texts().join("\n")).as_bytes());
    await_lines(server, before + texts().len());
    true
}

/// Each text is at the end of its message.
fn hold_texts(messages: &[Vec<u8>]) {
    assert!(messages.len() >= texts().len() && messages.len().is_multiple_of(texts().len()), "{}", messages.len());
    for (message, text) in messages.iter().zip(texts().iter().cycle()) {
        assert!(message.ends_with(text.as_bytes()), "{} does not end with {text}", message.escape_ascii());
    }
}

#[test]
fn logger_ends_lines() {
    let dir = scratch();
    let (port, heard, server) = on_tcp(dir.path(), "");
    let to = ["-T", "-n", "127.0.0.1", "-P", &port.to_string()];
    for more in
        [&[][..], &["--rfc3164"], &["--rfc3164", "-t", "backup", "-p", "daemon.err", "-i"], &["--rfc5424=nohost"]]
    {
        if !logger("logger_ends_lines", &[&to[..], more].concat(), &server) {
            return;
        }
    }
    let sent = heard.ended(b'\n');
    hold_texts(&sent);
    check_raw(&server, &sent);
}

#[test]
fn logger_counts_octets() {
    let dir = scratch();
    let (port, heard, server) = on_tcp(dir.path(), "");
    let to = ["-T", "-n", "127.0.0.1", "-P", &port.to_string(), "--octet-count"];
    for more in [&[][..], &["--rfc3164", "-t", "backup"], &["--rfc5424=notime,nohost", "--size", "100"]] {
        if !logger("logger_counts_octets", &[&to[..], more].concat(), &server) {
            return;
        }
    }
    check_raw(&server, &heard.counted());
}

/// Its messages as the page shows them, with other addresses.
#[test]
fn logger_as_documented() {
    let dir = scratch();
    let (at, stream) = (dir.path().join("server.sock"), dir.path().join("server.stream"));
    let config = format!(
        "{SOON}[listener.a]\nprotocol = \"syslog\"\naddress = \"tcp://127.0.0.1:0\"\n[listener.b]\nprotocol = \"syslog\"\n\
         address = \"unixgram://{}\"\n[listener.c]\nprotocol = \"syslog\"\naddress = \"unix://{}\"\n",
        at.display(),
        stream.display()
    );
    let server = Server::with_config(&dir.path().join("data"), &config);
    let (port, tcp) = record_tcp(server.address("a"));
    let (tap, tap_stream) = (dir.path().join("tap.sock"), dir.path().join("tap.stream"));
    let (grams, streams) = (record_datagrams(&tap, &at), record_stream(&tap_stream, &stream));
    if find("logger").is_none() {
        return skipped("logger_as_documented", "logger (util-linux) is not installed");
    }
    let page = documented("logger", "-T").replace("logs.example", "127.0.0.1").replace("5140", &port.to_string());
    let page = page.replace(SOCKET, tap.to_str().unwrap());
    for (i, command) in page.lines().enumerate() {
        run(Command::new("sh").args(["-c", command]), b"");
        await_lines(&server, i + 1);
    }
    // Stream sockets too: it tries a datagram socket first.
    for (i, more) in ["", "-T", "-T --rfc5424 --octet-count"].into_iter().enumerate() {
        run(Command::new("sh").args(["-c", &format!("logger -u {} {more} 'by stream'", tap_stream.display())]), b"");
        await_lines(&server, page.lines().count() + i + 1);
    }
    let connections = tcp.all();
    let counted = connections[0].splitn(2, |b| *b == b' ').nth(1).unwrap().to_vec();
    let mut sent = vec![counted, connections[1].trim_ascii_end().to_vec()];
    sent.extend(grams.datagrams());
    let of_streams = streams.all();
    sent.extend(of_streams[..2].iter().map(|m| m.trim_ascii_end().to_vec()));
    sent.push(of_streams[2].splitn(2, |b| *b == b' ').nth(1).unwrap().to_vec());
    assert!(sent[0].ends_with(b"hello, log") && sent[1].ends_with(b" backup: disk full"), "{sent:?}");
    check_raw(&server, &sent);
}

#[test]
fn logger_into_json() {
    let dir = scratch();
    let (tap, heard, server) = on_datagrams(dir.path(), "format = \"json\"\n");
    let all = "--rfc5424 -t backup -p local3.crit --id=812 --msgid ID47 --sd-id x@1 --sd-param a=\"1\" --sd-param b=\"q\\\"\\]\"";
    let args: Vec<&str> = ["-u", tap.to_str().unwrap()].into_iter().chain(all.split(' ')).collect();
    if !logger("logger_into_json", &args, &server) {
        return;
    }
    let (out, sent) = (server.cat(), heard.datagrams());
    for ((line, message), text) in lines_of(&out).iter().zip(&sent).zip(texts()) {
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        let message = std::str::from_utf8(message).unwrap();
        // <158>1 TIME HOST …
        let parts: Vec<&str> = message.splitn(4, ' ').collect();
        let time_quality = &line["attrs"]["sd"]["timeQuality"];
        let attrs = serde_json::json!({"facility": "local3", "severity": "crit", "host": parts[2], "app": "backup", "procid": "812",
            "msgid": "ID47", "time": parts[1], "sd": {"timeQuality": time_quality, "x@1": {"a": "1", "b": "q\"]"}}});
        assert_eq!(line["attrs"], attrs, "{message}");
        assert_eq!((&line["msg"], &line["listener"], &line["peer"]), (&text.into(), &"syslog".into(), &"local".into()));
        assert!(time_quality["tzKnown"].is_string(), "{message}");
    }
    assert_eq!((lines_of(&out).len(), sent.len()), (texts().len(), texts().len()));
}

#[test]
fn logger_into_classic() {
    let dir = scratch();
    let (port, heard, server) = on_tcp(dir.path(), "format = \"classic\"\n");
    let args = ["-T", "-n", "127.0.0.1", "-P", &port.to_string(), "--rfc3164", "-t", "backup", "--id=812"];
    if !logger("logger_into_classic", &args, &server) {
        return;
    }
    let sent = heard.ended(b'\n');
    hold_texts(&sent);
    // The same without PRI.
    check_lines(&server, &sent.iter().map(|m| m.strip_prefix(b"<13>").unwrap().to_vec()).collect::<Vec<_>>());
}

/// Runs Python's SysLogHandler as the page shows it, with other addresses. False: no Python.
fn python(test: &str, with: &str, change: &[(&str, &str)], then: &str) -> bool {
    let Some(python) = Python::with("logging.handlers") else {
        skipped(test, "no python3");
        return false;
    };
    let page = change.iter().fold(documented("Python", with), |page, (from, to)| page.replace(from, to));
    run(&mut python.script(&format!("{page}{then}")), texts().join("\n").as_bytes());
    true
}

const LOG_ALL: &str = "for text in sys.stdin.read().split('\\n'): logging.error('%s', text)\n";

/// What it sends for each text, without what ends it.
fn as_python() -> Vec<Vec<u8>> {
    texts().iter().map(|text| format!("<131>app: {text}").into_bytes()).collect()
}

#[test]
fn python_on_a_datagram_socket() {
    const NAME: &str = "python_on_a_datagram_socket";
    let dir = scratch();
    let (tap, heard, server) = on_datagrams(dir.path(), "");
    let then = format!("{LOG_ALL}try: 1/0\nexcept ZeroDivisionError: logging.exception('a bug\\nhere')\n");
    if !python(NAME, "address=\"", &[(SOCKET, tap.to_str().unwrap())], &then) {
        return;
    }
    await_lines(&server, texts().len() + 1);
    // NUL ends each.
    assert!(heard.all().iter().all(|m| m.ends_with(b"\0")));
    let sent = heard.datagrams();
    assert_eq!(sent[..texts().len()], as_python());
    let traceback = String::from_utf8(sent.last().unwrap().clone()).unwrap();
    assert!(
        traceback.starts_with("<131>app: a bug\nhere\nTraceback ") && traceback.ends_with("by zero"),
        "{traceback}"
    );
    check_raw(&server, &sent);
}

#[test]
fn python_over_tcp() {
    let dir = scratch();
    let server = start(dir.path(), "tcp://127.0.0.1:0", "");
    let port = server.address("syslog").port().to_string();
    if python("python_over_tcp", "SOCK_STREAM", &[("logs.example", "127.0.0.1"), ("5140", &port)], LOG_ALL) {
        check_raw(&server, &as_python());
    }
}

#[test]
fn python_on_a_stream_socket() {
    let dir = scratch();
    let at = dir.path().join("server.stream");
    let server = start(dir.path(), &format!("unix://{}", at.display()), "");
    let address = format!("\"{}\"", at.display());
    if python("python_on_a_stream_socket", "SOCK_STREAM", &[("(\"logs.example\", 5140)", &address)], LOG_ALL) {
        check_raw(&server, &as_python());
    }
}

/// nginx with settings of the page.
#[test]
fn nginx_logs_requests_and_errors() {
    let Some(program) = find("nginx") else {
        return skipped("nginx_logs_requests_and_errors", "nginx is not installed");
    };
    let dir = scratch();
    let (tap, heard, server) = on_datagrams(dir.path(), "");
    let settings = documented("nginx", "access_log").replace(SOCKET, tap.to_str().unwrap());
    let daemon = nginx(&program, dir.path(), &settings);
    let sent = nginx_logs(&daemon, &heard);
    check_raw(&server, &sent);
}

#[test]
fn haproxy_on_a_datagram_socket() {
    let Some(program) = find("haproxy") else {
        return skipped("haproxy_on_a_datagram_socket", "haproxy is not installed");
    };
    let dir = scratch();
    let (tap, heard, server) = on_datagrams(dir.path(), "");
    let settings = documented("haproxy", "log /run").replace(SOCKET, tap.to_str().unwrap());
    let daemon = haproxy(&program, dir.path(), &settings);
    let sent = haproxy_logs(&daemon, &heard);
    check_raw(&server, &sent);
}

#[test]
fn haproxy_through_a_ring() {
    let Some(program) = find("haproxy") else {
        return skipped("haproxy_through_a_ring", "haproxy is not installed");
    };
    let dir = scratch();
    let (port, heard, server) = on_tcp(dir.path(), "");
    let settings =
        documented("haproxy", "ring logweir").replace("logs.example", "127.0.0.1").replace("5140", &port.to_string());
    let daemon = haproxy(&program, dir.path(), &settings);
    for i in 0..50 {
        get(daemon.address, &format!("/number-{i}/{}", "x".repeat(i * 100)));
    }
    await_that("the last request", || heard.all().concat().windows(11).any(|w| w == b"/number-49/"));
    await_lines(&server, 50);
    let sent = heard.counted();
    assert!(sent.len() >= 50 && sent[0].starts_with(b"<13"), "{sent:?}");
    check_raw(&server, &sent);
}

/// As journald forwards, on a socket as systemd's `syslog.socket` opens it: the manager passes it, and it carries credentials.
#[test]
fn journald_forwards() {
    let dir = scratch();
    let (at, manager) = (dir.path().join("syslog"), Manager::new(dir.path()));
    let socket = UnixDatagram::bind(&at).unwrap();
    setsockopt(&socket, sockopt::PassCred, &true).unwrap();
    setsockopt(&socket, sockopt::RcvBuf, &(8 << 20)).unwrap();
    let config = dir.path().join("logweir.toml");
    let page =
        documented("journald", "[listener.journal]").replace("/run/systemd/journal/syslog", at.to_str().unwrap());
    std::fs::write(&config, format!("{SOON}{page}")).unwrap();
    let args = ["--config", config.to_str().unwrap()];
    let server = manager.start(&dir.path().join("data"), &args, &[("syslog.socket", OwnedFd::from(socket))], &[]);
    let mut sent: Vec<Vec<u8>> =
        texts().iter().map(|text| format!("<30>Nov 27 10:00:00 name[17]: {text}").into_bytes()).collect();
    // A stack trace, what is no UTF-8, and long ones.
    sent.push(b"<27>Nov 27 10:00:00 name[17]: panic\n\tat a\n\tat b".to_vec());
    sent.push(b"<27>Nov 27 10:00:00 name[17]: \xff\xfe".to_vec());
    sent.push([&b"<6>Nov 27 10:00:00 kernel: "[..], &vec![b'x'; 100_000]].concat());
    let sender = UnixDatagram::unbound().unwrap();
    for message in &sent {
        sender.send_to(message, &at).unwrap();
    }
    check_raw(&server, &sent);
}

/// A count that is too short or too long ends the connection: what follows is not guessed.
#[test]
fn a_lying_count_ends_the_connection() {
    let dir = scratch();
    let server = start(dir.path(), "tcp://127.0.0.1:0", "");
    for (i, lie) in
        [&b"9 <13>first8 <13>second"[..], b"15 <13>first9 <13>second", b"9 <13>first x"].into_iter().enumerate()
    {
        let mut client = TcpStream::connect(server.address("syslog")).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(lie).unwrap();
        let end = client.read(&mut [0]);
        let is_end = end.as_ref().is_ok_and(|n| *n == 0);
        assert!(
            is_end || end.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
            "{}",
            lie.escape_ascii()
        );
        await_that("it is counted", || {
            server.metrics().sum("logweir_unexpected_input_total", "kind=\"octet_count\"") == (i + 1) as f64
        });
    }
    // Nobody else notices.
    let mut client = TcpStream::connect(server.address("syslog")).unwrap();
    client.write_all(b"9 <13>third10 <13>fourth").unwrap();
    await_lines(&server, 6);
    let out = server.cat();
    let mut found = lines_of(&out);
    found.sort_unstable();
    // What a count covered was taken; nothing was made of the rest.
    let expected = [&b"<13>first"[..], b"<13>first", b"<13>first9 <13>", b"<13>fourth", b"<13>seco", b"<13>third"];
    assert_eq!(found, expected, "{}", out.escape_ascii());
    assert_eq!(server.metrics().sum("logweir_dropped_lines_total", "reason=\"unexpected\""), 3.0);
    server.metrics().check_accounts();
}

/// `config/syslog.toml` with everything in it that is commented out, on free ports.
#[test]
fn the_server_of_a_network() {
    let dir = scratch();
    certificates(dir.path());
    let place = dir.path().to_str().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/syslog.toml");
    let all: Vec<String> = std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| {
            let inside = line.strip_prefix("# ").unwrap_or(line);
            let is_key = |(key, _): (&str, &str)| !key.contains(' ');
            let is_toml = inside.starts_with('[') || inside.split_once(" = ").is_some_and(is_key);
            if is_toml { inside } else { line }.to_string()
        })
        .collect();
    let text = all.join("\n");
    let text =
        ["5140", "514", "6514"].iter().fold(text, |t, port| t.replace(&format!("0.0.0.0:{port}\""), "127.0.0.1:0\""));
    let text = text
        .replace("/run/logweir", place)
        .replace("/etc/logweir/tls/tls.crt", &format!("{place}/server.pem"))
        .replace("/etc/logweir/tls/tls.key", &format!("{place}/server.key"))
        .replace("/etc/logweir/tls/clients.crt", &format!("{place}/ca.pem"))
        .replace("10GiB", "0B");
    let server = Server::with_config_and(&dir.path().join("data"), &text, &["--set", "storage.sync_interval=20ms"]);
    for listener in ["tcp", "port-514"] {
        let mut client = TcpStream::connect(server.address(listener)).unwrap();
        client.write_all(format!("<34>Oct 11 22:14:15 gate1 su[7]: by {listener}\n").as_bytes()).unwrap();
    }
    let local = UnixDatagram::unbound().unwrap();
    local.send_to(b"<30>Nov 27 10:00:00 name[17]: of this machine", dir.path().join("syslog.sock")).unwrap();
    await_lines(&server, 3);
    let cat =
        |stream: &str| common::logweir(&["cat", "-s", stream, "--data-dir", server.data_dir.to_str().unwrap()]).stdout;
    assert_eq!(
        cat("local"),
        as_line(b"<30>Nov 27 10:00:00 name[17]: of this machine").into_iter().chain(*b"\n").collect::<Vec<_>>()
    );
    let Some(python) = Python::with("ssl") else {
        return skipped("the_server_of_a_network", "no python3 to speak TLS");
    };
    let script = format!(
        "import socket, ssl\nc = ssl.create_default_context(cafile='{place}/ca.pem')\nc.load_cert_chain('{place}/server.pem', '{place}/server.key')\n\
         with c.wrap_socket(socket.create_connection(('127.0.0.1', {})), server_hostname='127.0.0.1') as s:\n    \
         s.sendall(b'<34>Oct 11 22:14:15 gate1 su[7]: by tls\\n')\n    s.unwrap()\n",
        server.address("tls").port()
    );
    run(&mut python.script(&script), b"");
    await_lines(&server, 4);
    let mut found = Vec::new();
    for line in lines_of(&cat("network")) {
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        let attrs = serde_json::json!({"facility": "auth", "severity": "crit", "host": "gate1", "app": "su", "procid": "7",
            "time": "Oct 11 22:14:15"});
        assert_eq!(line["attrs"], attrs);
        found.push(line["msg"].as_str().unwrap().to_string());
    }
    found.sort();
    assert_eq!(found, ["by port-514", "by tcp", "by tls"]);
    server.metrics().check_accounts();
}

/// The message that `docs/syslog.md` shows becomes the lines that it shows.
#[test]
fn the_page_shows_what_is_written() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/syslog.md")).unwrap();
    let shown = |start: &str| page.lines().map(str::trim).find(|l| l.starts_with(start)).unwrap().to_string();
    let message = shown("<165>1 ");
    let dir = scratch();
    for format in ["raw", "json", "classic"] {
        let place = dir.path().join(format);
        std::fs::create_dir(&place).unwrap();
        let server = start(&place, "tcp://127.0.0.1:0", &format!("format = \"{format}\"\n"));
        common::send_all(server.address("syslog"), message.as_bytes());
        await_lines(&server, 1);
        let line = String::from_utf8(server.cat()).unwrap();
        if format != "json" {
            assert_eq!(
                line.trim_end(),
                if format == "raw" { message.clone() } else { shown("Nov 27 10:00:00 gate1 ") }
            );
            continue;
        }
        // Apart from what is the server's own.
        let of = |line: &str| line.split_once(",\"attrs\":").unwrap().1.to_string();
        assert_eq!(of(line.trim_end()), of(&shown("{\"t\":")));
    }
}
