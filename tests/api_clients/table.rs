//! The clients that are programs of ours around somebody else's library, and how they are started.

use super::common::Server;
use super::common::programs::{Python, find};
use serde_json::Value;
use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The message of a record: as in `send.py`, `send.mjs`, `go/main.go` and `java/src/Send.java`.
pub fn message(i: usize) -> String {
    format!("record {i} \"quoted\" \\ é 日本\twith a tab\nand a second line")
}

/// What a client is written in. All but Python belong to `.ci/run --clients`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum In {
    /// With the module that must be there.
    Python(&'static str),
    Node,
    Go,
    Java,
}

/// What a client sends again by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    Nothing,
    /// That for which there was no connection.
    Unconnected,
    /// That, and what was refused.
    Refused,
}

/// Finds the message of a record in a line on disk.
type Find = fn(&Value) -> Option<String>;

/// A client.
pub struct Client {
    /// Its name in `send.py` or `send.mjs`.
    pub name: &'static str,
    pub within: In,
    pub again: Again,
    pub of: Find,
    /// Settings of the server.
    pub set: &'static [&'static str],
    /// It reads answers, so that all is durable when it ends, and sends one request after the other.
    pub reads_answers: bool,
}

const fn client(name: &'static str, within: In, again: Again, of: Find) -> Client {
    Client { name, within, again, of, set: &[], reads_answers: true }
}

pub const CLIENTS: &[Client] = &[
    client("loki", In::Python("logging_loki"), Again::Nothing, message_of),
    client("loki_logger_handler", In::Python("loki_logger_handler"), Again::Nothing, |line| {
        text(&serde_json::from_str::<Value>(line["msg"].as_str()?).ok()?["message"])
    }),
    client("elasticsearch", In::Python("elasticsearch"), Again::Refused, document_of),
    client("splunk", In::Python("splunk_handler"), Again::Refused, message_of),
    Client {
        set: &["listener.http.splunk_ack=true"],
        ..client("splunk_ack", In::Python("json"), Again::Refused, message_of)
    },
    client("otlp", In::Python("opentelemetry.exporter.otlp.proto.http"), Again::Refused, message_of),
    client("otlp_gzip", In::Python("opentelemetry.exporter.otlp.proto.http"), Again::Refused, message_of),
    client("datadog", In::Python("datadog_api_client"), Again::Refused, document_of),
    Client {
        reads_answers: false,
        ..client("gelf", In::Python("graypy"), Again::Nothing, |line| {
            text(&line["msg"]["full_message"]).or_else(|| text(&line["msg"]["short_message"]))
        })
    },
    client("winston_loki_json", In::Node, Again::Refused, message_of),
    client("winston_loki_protobuf", In::Node, Again::Refused, message_of),
    client("elasticsearch_js", In::Node, Again::Refused, document_of),
    client("splunk_logging", In::Node, Again::Unconnected, message_of),
    client("otlp_js_json", In::Node, Again::Refused, message_of),
    client("otlp_js_json_gzip", In::Node, Again::Refused, message_of),
    client("otlp_js_protobuf", In::Node, Again::Refused, message_of),
    client("otlp_js_protobuf_gzip", In::Node, Again::Refused, message_of),
    client("go_elasticsearch", In::Go, Again::Refused, document_of),
    client("loki4j", In::Java, Again::Refused, message_of),
];

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_string)
}

pub fn message_of(line: &Value) -> Option<String> {
    text(&line["msg"])
}

fn document_of(line: &Value) -> Option<String> {
    text(&line["msg"]["message"])
}

/// A directory of clients: what the variable says, or the one in the cache of `.ci/run`.
fn directory(variable: &str, name: &str) -> Option<PathBuf> {
    let cache = std::env::var("HOME").map(|home| Path::new(&home).join(".cache/logweir-ci").join(name));
    std::env::var(variable).map(PathBuf::from).ok().or(cache.ok()).filter(|dir| dir.is_dir())
}

/// A program or file that `.ci/more-clients` has made.
pub fn more(name: &str) -> Option<PathBuf> {
    directory("LOGWEIR_MORE_CLIENTS", "more-clients").map(|dir| dir.join(name)).filter(|path| path.exists())
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api_clients").join(name)
}

impl Client {
    /// Runs it, or says what is missing.
    pub fn command(&self, port: u16, count: usize) -> Result<Command, String> {
        let missing = |what: &str| format!("{}: {what} is not here", self.name);
        let mut command = match self.within {
            In::Python(module) => {
                let dir = directory("LOGWEIR_API_CLIENTS", "api-clients").ok_or_else(|| missing(module))?;
                if !dir.join(module.split('.').next().unwrap()).exists() && module != "json" {
                    return Err(missing(module));
                }
                Python::with("json").ok_or_else(|| missing("Python"))?;
                let mut command = Command::new("python3");
                command.env("PYTHONPATH", dir).arg(source("send.py")).arg(self.name);
                command
            }
            In::Node => {
                let packages = more("node").ok_or_else(|| missing("its package"))?;
                let mut command = Command::new(find("node").ok_or_else(|| missing("Node.js"))?);
                command.env("NODE_CLIENTS", packages).arg(source("send.mjs")).arg(self.name);
                command
            }
            In::Go => Command::new(more("go/elasticsearch").ok_or_else(|| missing("the program"))?),
            In::Java => {
                let target = more("java/target").ok_or_else(|| missing("the program"))?;
                let mut command = Command::new(find("java").ok_or_else(|| missing("Java"))?);
                command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dfile.encoding=UTF-8", "-cp"]);
                command.arg(format!("{0}/classes:{0}/jars/*", target.display())).arg("Send");
                command
            }
        };
        command.env_remove("http_proxy").env_remove("HTTP_PROXY").env("no_proxy", "*");
        command.args([&format!("http://127.0.0.1:{port}"), "0", &count.to_string()]).stdin(Stdio::null());
        Ok(command)
    }
}

/// A client that runs: it has sent the first half, or is about to. Killed when dropped.
pub struct Sending {
    child: Child,
    said: PathBuf,
}

impl Sending {
    pub fn start(mut command: Command, dir: &Path) -> Sending {
        let said = dir.join("said");
        let file = File::create(&said).unwrap();
        command.stdin(Stdio::piped()).stdout(file.try_clone().unwrap()).stderr(file);
        Sending { child: command.spawn().unwrap(), said }
    }

    /// Lets it send the second half.
    pub fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Lets it end, which it must do content.
    pub fn end(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}: {}", std::fs::read_to_string(&self.said).unwrap());
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// A port that stays the same: taken by nobody else while the server is away, as far as can be known.
pub fn a_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A server for all APIs, as it is documented, and with these settings besides.
pub fn start(data: &Path, port: u16, set: &[&str]) -> Server {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/drop-in.toml");
    let address = format!("listener.http.address=\"tcp://127.0.0.1:{port}\"");
    let settings = set.iter().copied().chain([address.as_str()]).flat_map(|s| ["--set", s]);
    Server::start(data, &["--config", file.to_str().unwrap()].into_iter().chain(settings).collect::<Vec<_>>())
}

pub fn received(server: &Server) -> f64 {
    server.metrics().sum("logweir_received_lines_total", "")
}

/// Of lines that are not a client's.
pub const FILLER: &str = "filler";

/// The messages on disk.
pub fn messages(server: &Server, of: Find) -> Vec<String> {
    let text = String::from_utf8(server.cat()).unwrap();
    let line = |line: &str| -> Value { serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")) };
    let lines = text
        .lines()
        .map(|l| (l, line(l)))
        .filter(|(_, value)| !value["msg"].as_str().is_some_and(|m| m.starts_with(FILLER)));
    lines.map(|(l, value)| of(&value).unwrap_or_else(|| panic!("no message: {l}"))).collect()
}

/// Each message is there, and nothing else. What was answered while the server ended, or had no room, may have been sent again.
pub fn check_all(server: &Server, count: usize, of: Find, who: &str) {
    let mut found = messages(server, of);
    found.sort_unstable();
    found.dedup();
    let mut expected: Vec<String> = (0..count).map(message).collect();
    expected.sort_unstable();
    assert!(found == expected, "{who}: {} of {count} records", found.len());
}
