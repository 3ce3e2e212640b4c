//! Clients that others have written, unchanged, at the APIs of one HTTP listener: every record is on disk as it was sent, in order, and
//! where a client sends again by itself, also through a restart of the server.
//!
//! `.ci/run` installs them (`.ci/api-clients.txt`) and says in `LOGWEIR_API_CLIENTS` where.

mod common;

use common::programs::Python;
use common::{Server, await_that, scratch, skipped};
use std::net::TcpListener;
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
        let said = common::programs::run(&mut command, b"");
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
