//! Programs that send on what they are given: rsyslog, syslog-ng, journal-upload; and curl.

use super::common::image::{FileSystem, Image};
use super::common::programs::run;
use super::common::syslog::{Running, of_syslog_ng, of_systemd, rsyslogd, syslog_ng};
use super::common::{Server, await_that, ran, scratch, skipped};
use super::full::{FullDisk, SMALL, await_quiet};
use super::table::{FILLER, a_port, message, message_of, messages, start};
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Lines for a relay to send on, each with its number.
fn feed(port: u16, count: usize) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    for i in 0..count {
        writeln!(stream, "<13>Nov 28 10:00:00 host app: number {i} \"quoted\" \\ é").unwrap();
    }
}

fn is_listening(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// The numbers of the lines that a relay has sent on.
fn numbers(server: &Server) -> Vec<usize> {
    let text = String::from_utf8(server.cat()).unwrap();
    let number = |line: &str| line.split_once("number ")?.1.split(' ').next()?.parse().ok();
    text.lines().filter_map(number).collect()
}

/// rsyslog that sends documents to a port, and where it listens itself.
fn rsyslog(dir: &Path, port: u16) -> Option<(Running, u16)> {
    let port_file = dir.join("port");
    let config = format!(
        r#"module(load="imtcp") module(load="omelasticsearch")
template(name="doc" type="list" option.jsonf="on") {{ property(outname="message" name="msg" format="jsonf") }}
input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{}")
action(type="omelasticsearch" server="127.0.0.1" serverport="{port}" template="doc" searchIndex="logs" searchType="_doc"
       bulkmode="on" maxbytes="20k" action.resumeRetryCount="-1" action.resumeInterval="1" queue.type="linkedList")
"#,
        port_file.display()
    );
    let file = dir.join("rsyslog.conf");
    std::fs::write(&file, config).unwrap();
    let relay = Running::start(&mut rsyslogd(&file, dir)?);
    let input = || std::fs::read_to_string(&port_file).ok()?.trim().parse().ok();
    await_that("rsyslog listens", || input().is_some());
    let input = input().unwrap();
    Some((relay, input))
}

/// What was fed twice is here twice, or more often where an answer was lost.
fn is_here_twice(server: &Server) -> bool {
    let found = numbers(server);
    (0..1000).all(|i| found.iter().filter(|n| **n == i).count() >= 2)
}

/// It is here as documents.
fn check_documents(server: &Server) {
    let text = String::from_utf8(server.cat()).unwrap();
    for line in text.lines().filter(|line| !line.contains(FILLER)) {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let message = value["msg"]["message"].as_str().unwrap_or_else(|| panic!("{line}"));
        assert!(message.ends_with(" \"quoted\" \\ é") && value["attrs"]["index"] == "logs", "{line}");
    }
}

/// Starts a relay that sends to a port, in a directory, and says where it listens itself. `None`: it is not here.
type Relay = fn(&Path, u16) -> Option<(Running, u16)>;

fn is_missing(test: &str) {
    skipped(test, "the relay is not here");
}

/// The second half is fed while nobody is there.
fn through_a_restart(test: &str, relay: Relay) {
    let dir = scratch();
    let (data, port) = (dir.path().join("data"), a_port());
    let mut server = start(&data, port, &[]);
    let Some((_relay, input)) = relay(dir.path(), port) else { return is_missing(test) };
    feed(input, 1000);
    await_that("some are here", || !numbers(&server).is_empty());
    assert!(server.stop().success());
    feed(input, 1000);
    let server = start(&data, port, &[]);
    await_that("all are here", || is_here_twice(&server));
    check_documents(&server);
}

/// The second half is fed while the disk is full.
fn through_a_full_disk(test: &str, relay: Relay) {
    let dir = scratch();
    let image = match Image::new(FileSystem::Ext4, dir.path(), &dir.path().join("mount"), 64 << 20) {
        Ok(image) => image,
        Err(why) => return skipped(test, &why),
    };
    let server = start(&image.mount.join("data"), 0, SMALL);
    let Some((_relay, input)) = relay(dir.path(), server.address("http").port()) else { return is_missing(test) };
    feed(input, 1000);
    await_quiet(&server, 1000);
    let full = FullDisk::make(&server, &image);
    feed(input, 1000);
    await_that("it is refused", || full.refusals() >= 2.0);
    full.has_room_again();
    await_that("all are here", || is_here_twice(&server));
    check_documents(&server);
}

#[test]
fn rsyslog_sends_to_elasticsearch_and_here_through_a_restart() {
    through_a_restart("rsyslog_sends_to_elasticsearch_and_here_through_a_restart", rsyslog);
}

#[test]
fn rsyslog_loses_nothing_while_the_disk_is_full() {
    through_a_full_disk("rsyslog_loses_nothing_while_the_disk_is_full", rsyslog);
}

/// syslog-ng with this destination, in whose text URL is that of a port, and where it listens itself.
fn syslog_ng_to(dir: &Path, port: u16, before: &str, destination: &str) -> Option<(Running, u16)> {
    let input = a_port();
    let url = format!("http://127.0.0.1:{port}");
    let config = format!(
        r#"@version: 3.38
{before}
options {{ keep-hostname(yes); time-reopen(1); }};
source s {{ network(ip("127.0.0.1") port({input}) transport("tcp")); }};
destination d {{ {} }};
log {{ source(s); destination(d); flags(flow-control); }};
"#,
        destination.replace("URL", &url)
    );
    let file = dir.join("syslog-ng.conf");
    std::fs::write(&file, config).unwrap();
    let relay = Running::start(&mut syslog_ng(&file, dir)?);
    await_that("syslog-ng listens", || is_listening(input));
    Some((relay, input))
}

/// Each destination of syslog-ng, what of its library it needs, and whether it keeps the order.
const DESTINATIONS: [(&str, &str, bool); 3] = [
    (
        "",
        r#"http(url("URL/_bulk") method("POST") headers("Content-Type: application/x-ndjson") workers(1) batch-lines(50)
            body('{"index":{"_index":"logs"}}
$(format-json message=$MSG)') delimiter("
") body-suffix("
"));"#,
        true,
    ),
    (
        "elasticsearch/elastic-http.conf",
        r#"elasticsearch-http(url("URL/_bulk") index("logs") type("") workers(1) template("$(format-json message=$MSG)"));"#,
        true,
    ),
    (
        "graylog2/plugin.conf",
        r#"http(url("URL/gelf") method("POST") headers("Content-Type: application/json") body("$(format-gelf)"));"#,
        false,
    ),
];

#[test]
fn syslog_ng_sends_by_http() {
    for (library, destination, in_order) in DESTINATIONS {
        let dir = scratch();
        let server = start(&dir.path().join("data"), 0, &[]);
        let Some(include) = (if library.is_empty() { Some(PathBuf::new()) } else { of_syslog_ng(library) }) else {
            skipped("syslog_ng_sends_by_http", &format!("syslog-ng's {library} is not here"));
            continue;
        };
        let before = if library.is_empty() { String::new() } else { format!("@include \"{}\"", include.display()) };
        let Some((_relay, input)) = syslog_ng_to(dir.path(), server.address("http").port(), &before, destination)
        else {
            return skipped("syslog_ng_sends_by_http", "syslog-ng is not here");
        };
        feed(input, 500);
        await_that(destination, || numbers(&server).len() >= 500);
        let mut found = numbers(&server);
        if !in_order {
            found.sort_unstable();
        }
        assert_eq!(found, (0..500).collect::<Vec<_>>(), "{destination}");
        ran("syslog_ng_sends_by_http", destination.split('(').next().unwrap());
    }
}

fn syslog_ng_by_http(dir: &Path, port: u16) -> Option<(Running, u16)> {
    syslog_ng_to(dir, port, "", DESTINATIONS[0].1)
}

#[test]
fn syslog_ng_loses_nothing_through_a_restart() {
    through_a_restart("syslog_ng_loses_nothing_through_a_restart", syslog_ng_by_http);
}

#[test]
fn syslog_ng_loses_nothing_while_the_disk_is_full() {
    through_a_full_disk("syslog_ng_loses_nothing_while_the_disk_is_full", syslog_ng_by_http);
}

#[test]
fn a_journal_is_uploaded() {
    let dir = scratch();
    let server = start(&dir.path().join("data"), 0, &[]);
    let (Some(mut remote), Some(mut upload)) =
        (of_systemd("systemd-journal-remote"), of_systemd("systemd-journal-upload"))
    else {
        return skipped("a_journal_is_uploaded", "systemd-journal-remote is not here");
    };
    let mut export = Vec::new();
    for i in 0..500u64 {
        let time = 1_800_000_000_000_000 + i;
        write!(export, "__REALTIME_TIMESTAMP={time}\n__MONOTONIC_TIMESTAMP={}\n", i + 1).unwrap();
        write!(export, "_BOOT_ID=0123456789abcdef0123456789abcdef\nPRIORITY=6\nSYSLOG_IDENTIFIER=shop\n").unwrap();
        let text = message(i as usize);
        writeln!(export, "MESSAGE").unwrap();
        export.extend((text.len() as u64).to_le_bytes());
        write!(export, "{text}\n\n").unwrap();
    }
    let journal = dir.path().join("x.journal");
    run(remote.arg("-o").arg(&journal).arg("-"), &export);
    let url = format!("--url=http://{}", server.address("http"));
    run(upload.arg(url).arg(format!("--file={}", journal.display())).arg("--follow=no"), b"");
    assert_eq!(server.metrics().sum("logweir_durable_lines_total", ""), 500.0);
    assert_eq!(messages(&server, message_of), (0..500).map(message).collect::<Vec<_>>());
    assert!(String::from_utf8(server.cat()).unwrap().contains("\"SYSLOG_IDENTIFIER\":\"shop\""));
}

/// A request with curl for each API: its path, type and body, and the answer's status.
const CURL: [(&str, &str, &str, &str); 10] = [
    ("/", "text/plain", "hello\n", "204"),
    (
        "/loki/api/v1/push",
        "application/json",
        r#"{"streams":[{"stream":{"job":"a"},"values":[["1795884992484244992","hello"]]}]}"#,
        "204",
    ),
    ("/_bulk", "application/x-ndjson", "{\"create\":{\"_index\":\"a\"}}\n{\"message\":\"hello\"}\n", "200"),
    ("/a/_doc", "application/json", r#"{"message":"hello"}"#, "201"),
    ("/services/collector/event", "application/json", r#"{"event":"hello"}{"event":"hello"}"#, "200"),
    ("/services/collector/raw", "text/plain", "hello\nhello\n", "200"),
    (
        "/v1/logs",
        "application/json",
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"stringValue":"hello"}}]}]}]}"#,
        "200",
    ),
    ("/api/v2/logs", "application/json", r#"[{"message":"hello"}]"#, "202"),
    ("/gelf", "application/json", r#"{"version":"1.1","host":"a","short_message":"hello"}"#, "202"),
    ("/upload", "application/vnd.fdo.journal", "__REALTIME_TIMESTAMP=1\nMESSAGE=hello\n\n", "202"),
];

#[test]
fn curl_sends_to_each_api() {
    let dir = scratch();
    let server = start(&dir.path().join("data"), 0, &[]);
    let mut sent = 0;
    for (path, kind, body, status) in CURL {
        let mut curl = Command::new("curl");
        curl.args(["--noproxy", "*", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--data-binary", body]);
        curl.args(["-H", &format!("Content-Type: {kind}"), &format!("http://{}{path}", server.address("http"))]);
        assert_eq!(run(&mut curl, b""), status, "{path}");
        sent += body.matches("hello").count();
        assert_eq!(server.metrics().sum("logweir_durable_lines_total", ""), sent as f64, "{path}");
    }
    let text = String::from_utf8(server.cat()).unwrap();
    assert!(text.lines().count() == sent && text.lines().all(|line| line.contains("\"hello\"")), "{text}");
}
