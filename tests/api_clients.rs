//! Clients that others have written, unchanged, at the APIs of one HTTP listener: every record is on disk as it was sent, in order, and
//! where a client sends again by itself, also through a restart of the server.
//!
//! `.ci/run` installs them (`.ci/api-clients.txt`) and says in `LOGWEIR_API_CLIENTS` where.

mod common;

use common::programs::{Python, run};
use common::syslog::{Running, of_systemd, rsyslogd, syslog_ng};
use common::{Server, await_that, scratch, skipped};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const COUNT: usize = 200;

/// The message of a record: as in `api_clients/send.py`.
fn message(i: usize) -> String {
    format!("record {i} \"quoted\" \\ é 日本\twith a tab\nand a second line")
}

/// Finds the message of a record in a line on disk.
type Find = fn(&serde_json::Value) -> Option<String>;

/// Each client, its module, and how its messages are found.
const CLIENTS: [(&str, &str, Find); 8] = [
    ("loki", "logging_loki", |line| text(&line["msg"])),
    ("loki_logger_handler", "loki_logger_handler", |line| {
        let inner: serde_json::Value = serde_json::from_str(line["msg"].as_str()?).ok()?;
        text(&inner["message"])
    }),
    ("elasticsearch", "elasticsearch", |line| text(&line["msg"]["message"])),
    ("splunk", "splunk_handler", |line| text(&line["msg"])),
    ("otlp", "opentelemetry.exporter.otlp.proto.http", |line| text(&line["msg"])),
    ("otlp_gzip", "opentelemetry.exporter.otlp.proto.http", |line| text(&line["msg"])),
    ("datadog", "datadog_api_client", |line| text(&line["msg"]["message"])),
    ("gelf", "graypy", |line| {
        let message = &line["msg"];
        text(&message["full_message"]).or_else(|| text(&message["short_message"]))
    }),
];

fn text(value: &serde_json::Value) -> Option<String> {
    value.as_str().map(str::to_string)
}

fn directory() -> Option<PathBuf> {
    let cache = std::env::var("HOME").map(|home| Path::new(&home).join(".cache/logweir-ci/api-clients"));
    std::env::var("LOGWEIR_API_CLIENTS").map(PathBuf::from).ok().or(cache.ok()).filter(|dir| dir.is_dir())
}

/// Runs a client.
fn send(client: &str, port: u16, first: usize, count: usize) -> Option<Command> {
    let dir = directory()?;
    Python::with("json")?;
    let mut command = Command::new("python3");
    command
        .env("PYTHONPATH", dir)
        .env_remove("http_proxy")
        .env("no_proxy", "*")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api_clients/send.py"))
        .args([client, &format!("http://127.0.0.1:{port}"), &first.to_string(), &count.to_string()])
        .stdin(Stdio::null());
    Some(command)
}

fn start(dir: &Path, port: u16) -> Server {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/drop-in.toml");
    let address = format!("listener.http.address=\"tcp://127.0.0.1:{port}\"");
    Server::start(&dir.join("data"), &["--config", file.to_str().unwrap(), "--set", &address])
}

fn messages(server: &Server, of: Find) -> Vec<String> {
    let text = String::from_utf8(server.cat()).unwrap();
    let line =
        |line: &str| -> serde_json::Value { serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")) };
    text.lines().map(|l| of(&line(l)).unwrap_or_else(|| panic!("no message: {l}"))).collect()
}

#[test]
fn what_clients_send_is_on_disk_as_they_sent_it() {
    for (client, module, of) in CLIENTS {
        let dir = scratch();
        let server = start(dir.path(), 0);
        let Some(mut command) = send(client, server.address("http").port(), 0, COUNT) else {
            skipped("what_clients_send_is_on_disk_as_they_sent_it", &format!("{module} is not installed"));
            return;
        };
        let said = run(&mut command, b"");
        // The client ends when all was answered, and an answer means that it is durable.
        assert_eq!(server.metrics().sum("logweir_durable_lines_total", ""), COUNT as f64, "{client}: {said}");
        let expected: Vec<String> = (0..COUNT).map(message).collect();
        await_that("the files have all", || server.cat().iter().filter(|b| **b == b'\n').count() >= COUNT);
        assert_eq!(messages(&server, of), expected, "{client}");
        server.metrics().check_accounts();
    }
}

#[test]
fn clients_that_send_again_lose_nothing_through_a_restart() {
    for client in ["otlp", "elasticsearch", "splunk"] {
        let (_, module, of) = CLIENTS.into_iter().find(|c| c.0 == client).unwrap();
        let dir = scratch();
        // A port that stays the same: taken by nobody else while the server is away, as far as can be known.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut server = start(dir.path(), port);
        let Some(mut command) = send(client, port, 0, 20 * COUNT) else {
            skipped("clients_that_send_again_lose_nothing_through_a_restart", &format!("{module} is not installed"));
            return;
        };
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        await_that("it has begun", || server.metrics().sum("logweir_received_lines_total", "") > 0.0);
        assert!(server.stop().success());
        let server = start(dir.path(), port);
        assert!(child.wait().unwrap().success(), "{client}");
        let mut found = messages(&server, of);
        found.sort_unstable();
        found.dedup(); // what was answered while the server ended may have been sent again
        let mut expected: Vec<String> = (0..20 * COUNT).map(message).collect();
        expected.sort_unstable();
        assert!(found == expected, "{client}: {} of {} records", found.len(), expected.len());
    }
}

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

#[test]
fn rsyslog_sends_to_elasticsearch_and_here_through_a_restart() {
    let dir = scratch();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = start(dir.path(), port);
    let port_file = dir.path().join("port");
    let config = format!(
        r#"module(load="imtcp") module(load="omelasticsearch")
template(name="doc" type="list" option.jsonf="on") {{ property(outname="message" name="msg" format="jsonf") }}
input(type="imtcp" address="127.0.0.1" port="0" listenPortFileName="{}")
action(type="omelasticsearch" server="127.0.0.1" serverport="{port}" template="doc" searchIndex="logs" searchType="_doc"
       bulkmode="on" maxbytes="20k" action.resumeRetryCount="-1" action.resumeInterval="1" queue.type="linkedList")
"#,
        port_file.display()
    );
    let file = dir.path().join("rsyslog.conf");
    std::fs::write(&file, config).unwrap();
    let Some(mut command) = rsyslogd(&file, dir.path()) else {
        return skipped("rsyslog_sends_to_elasticsearch_and_here_through_a_restart", "rsyslogd is not here");
    };
    let _relay = Running::start(&mut command);
    let input = || std::fs::read_to_string(&port_file).ok()?.trim().parse().ok();
    await_that("rsyslog listens", || input().is_some());
    feed(input().unwrap(), 1000);
    await_that("some are here", || !numbers(&server).is_empty());
    assert!(server.stop().success());
    feed(input().unwrap(), 1000);
    let server = start(dir.path(), port);
    let text = || String::from_utf8(server.cat()).unwrap();
    await_that("all are here", || numbers(&server).len() >= 2000);
    let mut found = numbers(&server);
    found.sort_unstable();
    assert!((0..1000).all(|i| found.iter().filter(|n| **n == i).count() >= 2), "each was sent twice");
    for line in text().lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let message = value["msg"]["message"].as_str().unwrap_or_else(|| panic!("{line}"));
        assert!(message.ends_with(" \"quoted\" \\ é") && value["attrs"]["index"] == "logs", "{line}");
    }
}

#[test]
fn syslog_ng_sends_by_http() {
    let dir = scratch();
    let server = start(dir.path(), 0);
    let input = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        r#"@version: 3.38
options {{ keep-hostname(yes); }};
source s {{ network(ip("127.0.0.1") port({input}) transport("tcp")); }};
destination d {{
    http(url("http://127.0.0.1:{}/_bulk") method("POST") headers("Content-Type: application/x-ndjson") workers(1)
         batch-lines(50) body('{{"index":{{"_index":"logs"}}}}\n$(format-json message=$MSG)') delimiter("\n") body-suffix("\n"));
}};
log {{ source(s); destination(d); flags(flow-control); }};
"#,
        server.address("http").port()
    );
    let file = dir.path().join("syslog-ng.conf");
    std::fs::write(&file, config.replace("\\n", "\n")).unwrap();
    let Some(mut command) = syslog_ng(&file, dir.path()) else {
        return skipped("syslog_ng_sends_by_http", "syslog-ng is not here");
    };
    let _relay = Running::start(&mut command);
    await_that("syslog-ng listens", || is_listening(input));
    feed(input, 500);
    await_that("all are here", || numbers(&server).len() >= 500);
    assert_eq!(numbers(&server), (0..500).collect::<Vec<_>>());
}

#[test]
fn a_journal_is_uploaded() {
    let dir = scratch();
    let server = start(dir.path(), 0);
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
    await_that("the files have all", || server.cat().iter().filter(|b| **b == b'\n').count() >= 500);
    assert_eq!(messages(&server, |line| text(&line["msg"])), (0..500).map(message).collect::<Vec<_>>());
    assert!(String::from_utf8(server.cat()).unwrap().contains("\"SYSLOG_IDENTIFIER\":\"shop\""));
}
