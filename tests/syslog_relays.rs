//! Syslog from rsyslog and syslog-ng, with the settings of `docs/syslog.md`, word for word. `.ci/extract-syslog` unpacks both.

mod common;

use common::syslog::{
    Heard, Running, as_line, await_lines, certificates, check_lines, check_raw, documented, record_datagrams,
    record_tcp, rsyslogd, syslog_ng,
};
use common::{Server, await_that, scratch, skipped};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

const SOON: &str = "[storage]\nsync_interval = \"20ms\"\n";
const TCP: &str = "[listener.tcp]\nprotocol = \"syslog\"\naddress = \"tcp://127.0.0.1:0\"\n";

/// Texts of messages, of many lengths.
fn texts() -> Vec<String> {
    let mut texts: Vec<String> =
        (0..300).map(|i| format!("message {i} \"C:\\new\" [x] é {}", "0123456789 ".repeat(i * 7 % 90))).collect();
    texts.extend(["7 <13>not a count", "<14>1 - - - - - -", "", "a\ttab", "two\nlines"].map(String::from));
    texts.iter().map(|t| t.trim_end().to_string()).collect()
}

/// Gives a relay all texts, as programs of its machine do, once it listens.
fn give(socket: &Path, texts: &[String]) {
    let sender = UnixDatagram::unbound().unwrap();
    await_that("the relay listens", || sender.connect(socket).is_ok());
    for text in texts {
        sender.send(format!("<86>Nov 27 10:00:00 prog[42]: {text}").as_bytes()).unwrap();
    }
}

/// A relay with settings behind those that it needs here.
struct Relay {
    name: &'static str,
    first: fn(&Path) -> String,
    command: fn(&Path, &Path) -> Option<Command>,
}

const RSYSLOG: Relay = Relay {
    name: "rsyslog",
    first: |work| {
        let work = work.display();
        format!(
            "global(workDirectory=\"{work}\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\n\
             input(type=\"imuxsock\" Socket=\"{work}/in\" RateLimit.Interval=\"0\")\n"
        )
    },
    command: rsyslogd,
};

const SYSLOG_NG: Relay = Relay {
    name: "syslog-ng",
    first: |work| format!("@version: 3.38\nsource s_src {{ unix-dgram(\"{}/in\"); }};\n", work.display()),
    command: syslog_ng,
};

impl Relay {
    /// Runs it with these settings and gives it the texts. `None`: it is not here.
    fn run(&self, test: &str, work: &Path, settings: &str) -> Option<Running> {
        let config = work.join(format!("{}.conf", self.name));
        std::fs::write(&config, format!("{}{settings}", (self.first)(work))).unwrap();
        let Some(mut command) = (self.command)(&config, work) else {
            skipped(test, &format!("{} is not here: .ci/extract-syslog unpacks it", self.name));
            return None;
        };
        let running = Running::start(&mut command);
        give(&work.join("in"), &texts());
        Some(running)
    }

    /// The same over TCP, with settings of the page. Every message that was sent is there.
    fn over_tcp(&self, test: &str, with: &str, messages: fn(&Heard) -> Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let dir = scratch();
        let server = Server::with_config(&dir.path().join("data"), &format!("{SOON}{TCP}"));
        let (port, heard) = record_tcp(server.address("tcp"));
        let settings =
            documented(self.name, with).replace("logs.example", "127.0.0.1").replace("5140", &port.to_string());
        let Some(_running) = self.run(test, dir.path(), &settings) else {
            return Vec::new();
        };
        await_lines(&server, texts().len());
        let sent = messages(&heard);
        check_raw(&server, &sent);
        sent
    }
}

/// Each text is at the end of its message; a relay may have escaped a character of it.
fn hold_texts(sent: &[Vec<u8>], escaped: [(&str, &str); 2]) {
    for (message, text) in sent.iter().zip(texts()) {
        let text = escaped.iter().fold(text, |text, (from, to)| text.replace(from, to));
        let message = String::from_utf8(message.clone()).unwrap();
        assert!(message.ends_with(&text), "{message:?} does not end with {text:?}");
    }
}

const RSYSLOG_ESCAPES: [(&str, &str); 2] = [("\t", "#011"), ("\n", "#012")];
const NONE: [(&str, &str); 2] = [("", ""); 2];

#[test]
fn rsyslog_counts_octets() {
    let sent = RSYSLOG.over_tcp("rsyslog_counts_octets", "queue.filename", Heard::counted);
    hold_texts(&sent, RSYSLOG_ESCAPES);
    assert!(sent.iter().all(|m| m.starts_with(b"<86>1 ")), "RFC 5424");
}

#[test]
fn rsyslog_ends_lines() {
    let sent = RSYSLOG.over_tcp("rsyslog_ends_lines", "@@", |heard| heard.ended(b'\n'));
    hold_texts(&sent, RSYSLOG_ESCAPES);
    assert!(sent.iter().all(|m| m.starts_with(b"<86>") && m[4].is_ascii_uppercase()), "RFC 3164");
}

#[test]
fn syslog_ng_counts_octets() {
    let sent = SYSLOG_NG.over_tcp("syslog_ng_counts_octets", "syslog(\"logs.example\" port(5140)", Heard::counted);
    hold_texts(&sent, NONE);
    assert!(sent.iter().all(|m| m.starts_with(b"<86>1 ")), "RFC 5424");
}

#[test]
fn syslog_ng_ends_lines() {
    const NAME: &str = "syslog_ng_ends_lines";
    let sent = SYSLOG_NG.over_tcp(NAME, "network(", |heard| heard.ended(b'\n'));
    assert!(sent.is_empty() || sent.len() > texts().len(), "a message of two lines becomes two messages");
}

#[test]
fn syslog_ng_on_a_datagram_socket() {
    let dir = scratch();
    let (at, tap) = (dir.path().join("syslog.sock"), dir.path().join("tap"));
    let config = format!("{SOON}[listener.local]\nprotocol = \"syslog\"\naddress = \"unixgram://{}\"\n", at.display());
    let server = Server::with_config(&dir.path().join("data"), &config);
    let heard = record_datagrams(&tap, &at);
    let settings = documented("syslog-ng", "unix-dgram(").replace("/run/logweir/syslog.sock", tap.to_str().unwrap());
    let Some(_running) = SYSLOG_NG.run("syslog_ng_on_a_datagram_socket", dir.path(), &settings) else {
        return;
    };
    await_lines(&server, texts().len());
    let sent = heard.datagrams();
    hold_texts(&sent, NONE);
    check_raw(&server, &sent);
}

/// What rsyslog sends in RFC 5424 and what the server makes of it, part by part.
#[test]
fn rsyslog_into_json() {
    let dir = scratch();
    let server = Server::with_config(&dir.path().join("data"), &format!("{SOON}{TCP}format = \"json\"\n"));
    let (port, heard) = record_tcp(server.address("tcp"));
    let settings =
        documented("rsyslog", "queue.filename").replace("logs.example", "127.0.0.1").replace("5140", &port.to_string());
    let Some(_running) = RSYSLOG.run("rsyslog_into_json", dir.path(), &settings) else {
        return;
    };
    await_lines(&server, texts().len());
    let (out, sent) = (server.cat(), heard.counted());
    assert_eq!(common::lines_of(&out).len(), sent.len());
    for (line, message) in common::lines_of(&out).iter().zip(sent) {
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        let message = String::from_utf8(message).unwrap();
        // <86>1 TIME HOST APP PROCID - - MSG
        let parts: Vec<&str> = message.splitn(8, ' ').collect();
        let attrs = serde_json::json!({"facility": "authpriv", "severity": "info", "time": parts[1], "host": parts[2], "app": "prog",
            "procid": "42"});
        assert_eq!((&line["attrs"], &line["msg"]), (&attrs, &parts[7].into()), "{message}");
        assert_eq!((parts[3], parts[4], parts[5], parts[6]), ("prog", "42", "-", "-"), "{message}");
    }
}

#[test]
fn rsyslog_into_classic() {
    let dir = scratch();
    let server = Server::with_config(&dir.path().join("data"), &format!("{SOON}{TCP}format = \"classic\"\n"));
    let (port, heard) = record_tcp(server.address("tcp"));
    let settings = documented("rsyslog", "@@").replace("logs.example", "127.0.0.1").replace("5140", &port.to_string());
    let Some(_running) = RSYSLOG.run("rsyslog_into_classic", dir.path(), &settings) else {
        return;
    };
    await_lines(&server, texts().len());
    // As rsyslog itself writes files: without PRI. Of an empty message no blank is left.
    let sent = heard.ended(b'\n');
    let without_pri = sent.iter().map(|m| m.strip_prefix(b"<86>").unwrap().trim_ascii_end().to_vec());
    check_lines(&server, &without_pri.collect::<Vec<_>>());
}

/// Over TLS with settings of the page. The relay also writes what it sends into a file, with `copy`.
fn over_tls(relay: &Relay, test: &str, change: fn(String) -> String, copy: &str) {
    let dir = scratch();
    certificates(dir.path());
    let place = dir.path().display();
    let tls = format!(
        "{SOON}{TCP}tls_cert = \"{place}/server.pem\"\ntls_key = \"{place}/server.key\"\ntls_client_ca = \"{place}/ca.pem\"\n"
    );
    let server = Server::with_config(&dir.path().join("data"), &tls);
    let settings = change(documented(relay.name, "6514"))
        .replace("logs.example", "127.0.0.1")
        .replace("6514", &server.address("tcp").port().to_string())
        .replace("/etc/ssl/certs/logweir-ca.pem", &format!("{place}/ca.pem"))
        .replace("/etc/ssl/private/this-host", &format!("{place}/server"));
    let copy = copy.replace("FILE", &format!("{place}/copy"));
    let Some(_running) = relay.run(test, dir.path(), &format!("{settings}{copy}")) else {
        return;
    };
    await_lines(&server, texts().len());
    let mut copied = Vec::new();
    await_that("the relay's own copy", || {
        let copy = std::fs::read_to_string(dir.path().join("copy")).unwrap_or_default();
        copied = copy.trim_end().split("\n<86>1 ").map(str::to_string).collect();
        copied.len() >= texts().len() && copy.ends_with('\n')
    });
    copied[0] = copied[0].strip_prefix("<86>1 ").unwrap().to_string();
    check_lines(&server, &copied.iter().map(|m| as_line(format!("<86>1 {m}").as_bytes())).collect::<Vec<_>>());
}

const RSYSLOG_COPY: &str = "action(type=\"omfile\" file=\"FILE\" template=\"RSYSLOG_SyslogProtocol23Format\")\n";

#[test]
fn rsyslog_over_tls_with_openssl() {
    over_tls(&RSYSLOG, "rsyslog_over_tls_with_openssl", |settings| settings, RSYSLOG_COPY);
}

#[test]
fn rsyslog_over_tls_with_gnutls() {
    over_tls(&RSYSLOG, "rsyslog_over_tls_with_gnutls", |settings| settings.replace("ossl", "gtls"), RSYSLOG_COPY);
}

#[test]
fn syslog_ng_over_tls() {
    let copy = "destination d_copy { file(\"FILE\" flags(syslog-protocol)); };\nlog { source(s_src); destination(d_copy); };\n";
    over_tls(&SYSLOG_NG, "syslog_ng_over_tls", |settings| settings, copy);
}

/// Both ways in which rsyslog compresses: each message by itself, and the whole connection.
#[test]
fn what_rsyslog_compresses_is_refused() {
    let tcp = "action(type=\"omfwd\" target=\"127.0.0.1\" port=\"PORT\" protocol=\"tcp\"";
    for more in [
        "ZipLevel=\"9\"",
        "ZipLevel=\"9\" compression.mode=\"stream:always\"",
        "ZipLevel=\"9\" TCP_Framing=\"octet-counted\"",
    ] {
        let dir = scratch();
        let server = Server::with_config(&dir.path().join("data"), &format!("{SOON}{TCP}"));
        let settings = format!("{tcp} {more})\n").replace("PORT", &server.address("tcp").port().to_string());
        let Some(_running) = RSYSLOG.run("what_rsyslog_compresses_is_refused", dir.path(), &settings) else {
            return;
        };
        await_that(more, || server.metrics().sum("logweir_unexpected_input_total", "compressed_syslog") >= 1.0);
        server.metrics().check_accounts();
    }
}
