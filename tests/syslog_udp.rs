//! Syslog over UDP from what people have, with the settings of `docs/syslog.md`, word for word: logger, Python, nginx, haproxy, rsyslog and
//! syslog-ng. Every message is compared with what a recorder before the server has heard.

mod common;

use common::programs::{Python, find, run};
use common::syslog::{
    Heard, Running, await_lines, check_raw, documented, haproxy, haproxy_logs, nginx, nginx_logs, record_udp, rsyslogd,
    syslog_ng,
};
use common::{Server, await_that, scratch, skipped};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

/// A server on UDP with a recorder before it: the recorder's port, what it hears, and the server.
fn start(dir: &Path) -> (u16, Heard, Server) {
    let config = "[storage]\nsync_interval = \"20ms\"\n[listener.syslog]\nprotocol = \"syslog\"\naddress = \"udp://127.0.0.1:0\"\n";
    let server = Server::with_config(&dir.join("data"), config);
    let (port, heard) = record_udp(server.address("syslog"));
    (port, heard, server)
}

/// Settings of the page, for the recorder's port.
fn settings(of: &str, with: &str, port: u16) -> String {
    documented(of, with).replace("logs.example", "127.0.0.1").replace("5140", &port.to_string())
}

/// Of many lengths. Each is sent when the one before has arrived: a burst may be too much for the recorder.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> = (0..60).map(|i| format!("message {i} {}", "0123456789 ".repeat(i % 70))).collect();
    texts.extend(["7 <13>no count", "C:\\new\\", "a\ttab", "é\u{1f600}", "[x] \"y\" %s"].map(String::from));
    texts.iter().map(|t| t.trim_end().to_string()).collect()
}

/// Each text is in its message.
fn hold_texts(sent: &[Vec<u8>]) {
    assert_eq!(sent.len(), texts().len());
    for (message, text) in sent.iter().zip(texts()) {
        let message = String::from_utf8(message.clone()).unwrap();
        assert!(message.ends_with(&text) || text.contains('\t'), "{message} does not end with {text}");
    }
}

#[test]
fn logger_sends_datagrams() {
    if find("logger").is_none() {
        return skipped("logger_sends_datagrams", "logger (util-linux) is not installed");
    }
    let dir = scratch();
    let (port, heard, server) = start(dir.path());
    let page = settings("logger", "-d -n", port);
    for (i, command) in page.lines().enumerate() {
        run(Command::new("sh").args(["-c", command]), b"");
        await_lines(&server, i + 1);
    }
    for (i, text) in texts().iter().enumerate() {
        let form = ["--rfc3164", "--rfc5424"][i % 2];
        run(Command::new("logger").args(["-d", "-n", "127.0.0.1", "-P", &port.to_string(), form, "--", text]), b"");
        await_lines(&server, page.lines().count() + i + 1);
    }
    let sent = heard.datagrams();
    hold_texts(&sent[page.lines().count()..]);
    check_raw(&server, &sent);
}

#[test]
fn python_sends_datagrams() {
    let Some(python) = Python::with("logging.handlers") else {
        return skipped("python_sends_datagrams", "no python3");
    };
    let dir = scratch();
    let (port, heard, server) = start(dir.path());
    let page = settings("Python", "5140), facility=\"local0\")", port);
    let then = "import time\nfor text in sys.stdin.read().split('\\n'):\n    logging.error('%s', text)\n    time.sleep(0.001)\n\
                try: 1/0\nexcept ZeroDivisionError: logging.exception('a bug\\nhere')\n";
    run(&mut python.script(&format!("{page}{then}")), texts().join("\n").as_bytes());
    await_lines(&server, texts().len() + 1);
    let sent = heard.datagrams();
    hold_texts(&sent[..texts().len()]);
    assert!(sent.last().unwrap().starts_with(b"<131>app: a bug\nhere\nTraceback "), "a traceback is one message");
    check_raw(&server, &sent);
}

#[test]
fn nginx_sends_datagrams() {
    let Some(program) = find("nginx") else {
        return skipped("nginx_sends_datagrams", "nginx is not installed");
    };
    let dir = scratch();
    let (port, heard, server) = start(dir.path());
    let daemon = nginx(&program, dir.path(), &settings("nginx", "server=logs.example", port));
    check_raw(&server, &nginx_logs(&daemon, &heard));
}

#[test]
fn haproxy_sends_datagrams() {
    let Some(program) = find("haproxy") else {
        return skipped("haproxy_sends_datagrams", "haproxy is not installed");
    };
    let dir = scratch();
    let (port, heard, server) = start(dir.path());
    let daemon = haproxy(&program, dir.path(), &settings("haproxy", "log logs.example", port));
    check_raw(&server, &haproxy_logs(&daemon, &heard));
}

/// Gives a relay all texts, one after the other, and compares what it made of them.
fn relay(test: &str, first: &str, settings: &str, command: fn(&Path, &Path) -> Option<Command>, to: &(Heard, Server)) {
    let dir = scratch();
    let (config, input) = (dir.path().join("relay.conf"), dir.path().join("in"));
    std::fs::write(&config, format!("{first}{settings}").replace("WORK", dir.path().to_str().unwrap())).unwrap();
    let Some(mut command) = command(&config, dir.path()) else {
        return skipped(test, "it is not here: .ci/extract-syslog unpacks it");
    };
    let _running = Running::start(&mut command);
    let (heard, server) = to;
    let sender = UnixDatagram::unbound().unwrap();
    await_that("the relay listens", || sender.connect(&input).is_ok());
    for (i, text) in texts().iter().enumerate() {
        sender.send(format!("<86>Nov 27 10:00:00 prog[42]: {text}").as_bytes()).unwrap();
        await_that("its datagram", || heard.all().len() == i + 1);
    }
    let sent = heard.datagrams();
    hold_texts(&sent);
    check_raw(server, &sent);
}

#[test]
fn rsyslog_sends_datagrams() {
    let dir = scratch();
    let (port, heard, server) = start(dir.path());
    let first = "global(workDirectory=\"WORK\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
                 input(type=\"imuxsock\" Socket=\"WORK/in\" RateLimit.Interval=\"0\")\n";
    let page = settings("rsyslog", "*.* @logs", port);
    relay("rsyslog_sends_datagrams", first, &page, rsyslogd, &(heard, server));
}

#[test]
fn syslog_ng_sends_datagrams() {
    const NAME: &str = "syslog_ng_sends_datagrams";
    let first = "@version: 3.38\nsource s_src { unix-dgram(\"WORK/in\"); };\n";
    for syslog in [false, true] {
        let dir = scratch();
        let (port, heard, server) = start(dir.path());
        let page = settings("syslog-ng", "udp", port);
        // RFC 5424 the same way.
        let page = if syslog { page.replace("network(", "syslog(") } else { page };
        relay(NAME, first, &page, syslog_ng, &(heard, server));
    }
}
