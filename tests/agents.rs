//! Agents that cannot be had for tests, played by hand: what each asks first, what it sends, and what it makes of the answer. The facts
//! are from their sources; each rule names its file. Nothing that they send is lost, also where the disk is full or the memory in use.

mod common;

use common::apis;
use common::faulty_disk::Call;
use common::http::{Answer, Client};
use common::running::Running;
use common::{await_that, scratch};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;

/// What an agent makes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// It forgets the records, which are stored.
    Stored,
    /// It sends them again.
    Again,
    /// It forgets the records, which are lost.
    Lost,
}
use Verdict::{Again, Lost, Stored};

/// Path, headers and body of a request.
type Sent = (String, String, Vec<u8>);

/// One output of an agent.
struct Agent {
    name: &'static str,
    /// What it asks before it sends, and the least and the greatest status that satisfy it.
    probes: &'static [(&'static str, u16, u16)],
    /// Its path, headers and body with these messages.
    request: fn(&[String]) -> Sent,
    /// Where a message is found in a line on disk.
    message: &'static str,
    reads: fn(&Answer) -> Verdict,
}

fn gzip(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes.as_ref()).unwrap();
    encoder.finish().unwrap()
}

const JSON: &str = "Content-Type: application/json\r\n";
const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";
const TIME: u64 = 1_795_884_992_484_244_992;

/// Pairs of `_bulk`.
fn pairs(action: &str, documents: impl Iterator<Item = Value>) -> Vec<u8> {
    documents.map(|document| format!("{action}\n{document}\n")).collect::<String>().into_bytes()
}

/// A body of `_bulk` as text, whose keys stand in an order that clients match.
fn items(answer: &Answer) -> Option<Vec<u64>> {
    let body: Value = serde_json::from_str(&answer.body).ok()?;
    let status = |item: &Value| item.as_object()?.values().next()?["status"].as_u64();
    body["items"].as_array()?.iter().map(status).collect()
}

/// `plugins/out_es/es.c`: 200 or 201, a body, and in it `errors`. Where one is true the whole chunk is sent again.
fn fluent_bit_es(answer: &Answer) -> Verdict {
    if !matches!(answer.status, 200 | 201) || answer.body.is_empty() {
        return Again;
    }
    // Its buffer is 512 KiB: of a longer answer it looks for this.
    let is_good = answer.body.contains("\"errors\":false,\"items\":[");
    if is_good { Stored } else { Again }
}

/// `plugins/out_loki/loki.c`: 400 is final, anything else but 2xx is tried again.
fn fluent_bit_loki(answer: &Answer) -> Verdict {
    match answer.status {
        200..=299 => Stored,
        400 => Lost,
        _ => Again,
    }
}

/// `plugins/out_splunk/splunk.c`: of 4xx only 408 and 429 are tried again.
fn fluent_bit_splunk(answer: &Answer) -> Verdict {
    match answer.status {
        200 => Stored,
        408 | 429 => Again,
        400..=499 => Lost,
        _ => Again,
    }
}

/// `plugins/out_datadog/datadog.c`: 200 to 205, anything else again.
fn fluent_bit_datadog(answer: &Answer) -> Verdict {
    if (200..=205).contains(&answer.status) { Stored } else { Again }
}

/// The specification of OTLP/HTTP, "Failures": these four are tried again, and a partial success is final.
fn otlp(answer: &Answer) -> Verdict {
    match answer.status {
        200..=205 if answer.body.is_empty() || answer.body == "{}" => Stored,
        429 | 502 | 503 | 504 => Again,
        _ => Lost,
    }
}

/// `libbeat/outputs/elasticsearch/client.go`: any status but 200 is tried again; then each item has a status, in the order of the events.
fn filebeat(answer: &Answer) -> Verdict {
    if answer.status != 200 {
        return Again;
    }
    match items(answer) {
        Some(all) if all.iter().all(|status| *status < 300 || *status == 409) => Stored,
        Some(all) if all.iter().any(|status| *status >= 500 || *status == 429) => Again,
        _ => Lost, // an item that cannot be read is dropped with all behind it
    }
}

/// logstash-output-elasticsearch: 429 and 5xx are tried again for ever, other statuses are dropped (or go to a dead letter queue).
fn logstash(answer: &Answer) -> Verdict {
    match (answer.status, items(answer)) {
        (200, Some(all)) if all.iter().all(|status| *status < 300) => Stored,
        (429 | 500..=599, _) => Again,
        _ => Lost,
    }
}

/// `src/sinks/loki/service.rs`: 204 only; 429 and 5xx are tried again.
fn vector_loki(answer: &Answer) -> Verdict {
    match answer.status {
        204 => Stored,
        429 | 500..=599 => Again,
        _ => Lost,
    }
}

/// `src/sinks/elasticsearch/service.rs`: a success whose body has this text is rejected; 429 and 5xx are tried again.
fn vector_elasticsearch(answer: &Answer) -> Verdict {
    match answer.status {
        200..=299 if !answer.body.contains("\"errors\":true") => Stored,
        429 | 500..=599 => Again,
        _ => Lost,
    }
}

/// `src/sinks/splunk_hec` and `datadog/logs`: success, or 429 and 5xx again.
fn vector(answer: &Answer) -> Verdict {
    match answer.status {
        200..=299 => Stored,
        429 | 500..=599 => Again,
        _ => Lost,
    }
}

/// `clients/pkg/promtail/client/client.go`, and the same in Alloy: 2xx, and 429 and 5xx again.
fn promtail(answer: &Answer) -> Verdict {
    vector(answer)
}

/// `pkg/logs/client/http/destination.go`: these four are final, everything else above 400 is tried again.
fn datadog_agent(answer: &Answer) -> Verdict {
    match answer.status {
        400 | 401 | 403 | 413 => Lost,
        401.. => Again,
        _ => Stored,
    }
}

fn loki_json(messages: &[String]) -> Vec<u8> {
    // Fluent Bit sends the record as a line of JSON by default.
    let values: Vec<Value> =
        messages.iter().zip(TIME..).map(|(m, time)| json!([time.to_string(), m, { "pod": "a-1" }])).collect();
    json!({ "streams": [{ "stream": { "job": "fluent-bit" }, "values": values }] }).to_string().into_bytes()
}

/// As promtail writes it.
fn loki_protobuf(messages: &[String]) -> Vec<u8> {
    apis::push_request("{filename=\"/var/log/app.log\", job=\"app\"}", messages.iter().map(String::as_str))
}

fn datadog(messages: &[String], origin: &str) -> (String, Vec<u8>) {
    let object = |message: &String| json!({ "message": message, "ddsource": "app", "service": "shop", "timestamp": TIME / 1_000_000 });
    let body = Value::from_iter(messages.iter().map(object)).to_string();
    (
        format!("{JSON}DD-API-KEY: key\r\nDD-EVP-ORIGIN: {origin}\r\nDD-EVP-ORIGIN-VERSION: 7.60.0\r\n"),
        body.into_bytes(),
    )
}

const AGENTS: &[Agent] = &[
    Agent {
        name: "Fluent Bit es",
        probes: &[],
        request: |messages| {
            let documents = messages.iter().map(|m| json!({ "@timestamp": "2026-11-28T10:00:00.123Z", "log": m }));
            let headers = format!("{NDJSON}User-Agent: Fluent-Bit\r\n");
            ("/_bulk".into(), headers, pairs("{\"create\":{\"_index\":\"fluent-bit\"}}", documents))
        },
        message: "/msg/log",
        reads: fluent_bit_es,
    },
    Agent {
        name: "Fluent Bit es, with a type, a pipeline and gzip",
        probes: &[],
        request: |messages| {
            let documents = messages.iter().map(|m| json!({ "@timestamp": "2026-11-28T10:00:00.123Z", "log": m }));
            let body = pairs("{\"create\":{\"_index\":\"fluent-bit\",\"_type\":\"_doc\"}}", documents);
            ("/_bulk?pipeline=logs".into(), format!("{NDJSON}Content-Encoding: gzip\r\n"), gzip(body))
        },
        message: "/msg/log",
        reads: fluent_bit_es,
    },
    Agent {
        name: "Fluent Bit loki",
        probes: &[],
        request: |messages| {
            (
                "/loki/api/v1/push".into(),
                format!("{JSON}User-Agent: Fluent-Bit\r\nX-Scope-OrgID: a\r\n"),
                loki_json(messages),
            )
        },
        message: "/msg",
        reads: fluent_bit_loki,
    },
    Agent {
        name: "Fluent Bit splunk",
        probes: &[],
        request: |messages| {
            // Objects one after the other, without anything between them.
            let event = |m: &String| json!({ "time": 1_795_884_992.484, "event": { "log": m } }).to_string();
            let headers = format!("{JSON}User-Agent: Fluent-Bit\r\nAuthorization: Splunk token\r\n");
            ("/services/collector/event".into(), headers, messages.iter().map(event).collect::<String>().into_bytes())
        },
        message: "/msg/log",
        reads: fluent_bit_splunk,
    },
    Agent {
        name: "Fluent Bit splunk, raw with a channel",
        probes: &[],
        request: |messages| {
            let headers =
                "Authorization: Splunk token\r\nX-Splunk-Request-Channel: 8a1e3c5e-9a0f-4c1d-8a3e-0f1d2c3b4a59\r\n";
            let lines = messages.iter().map(|m| m.replace('\n', " ") + "\n").collect::<String>();
            ("/services/collector/raw".into(), headers.into(), lines.into_bytes())
        },
        message: "/msg",
        reads: fluent_bit_splunk,
    },
    Agent {
        name: "Fluent Bit opentelemetry",
        probes: &[],
        request: |messages| {
            let headers =
                "Content-Type: application/x-protobuf\r\nContent-Encoding: gzip\r\nUser-Agent: Fluent-Bit\r\n";
            ("/v1/logs".into(), headers.into(), gzip(apis::export_request(messages.iter().map(String::as_str))))
        },
        message: "/msg",
        reads: otlp,
    },
    Agent {
        name: "Fluent Bit datadog",
        probes: &[],
        request: |messages| {
            let (headers, body) = datadog(messages, "Fluent-Bit");
            ("/api/v2/logs".into(), format!("{headers}Content-Encoding: gzip\r\n"), gzip(body))
        },
        message: "/msg/message",
        reads: fluent_bit_datadog,
    },
    Agent {
        name: "Filebeat",
        probes: &[
            ("GET /", 200, 200),
            ("GET /_license?human=false", 200, 200),
            ("GET /_ilm/policy/filebeat", 200, 404),
            ("PUT /_ilm/policy/filebeat", 200, 200),
            ("HEAD /_index_template/filebeat-8.15.0", 200, 404),
            ("PUT /_index_template/filebeat-8.15.0", 200, 200),
            ("HEAD /_alias/filebeat-8.15.0", 200, 404),
        ],
        request: |messages| {
            let documents = messages.iter().map(|m| json!({ "@timestamp": "2026-11-28T10:00:00.123Z", "message": m, "ecs": { "version": "8.0.0" }, "log": { "offset": 9_007_199_254_740_993u64 } }));
            let body = pairs("{\"create\":{\"_index\":\"filebeat-8.15.0\"}}", documents);
            (
                "/_bulk".into(),
                format!(
                    "{JSON}Accept: application/json\r\nUser-Agent: Elastic-Filebeat/8.15.0\r\nContent-Encoding: gzip\r\nX-Elastic-Product-Origin: beats\r\n"
                ),
                gzip(body),
            )
        },
        message: "/msg/message",
        reads: filebeat,
    },
    Agent {
        name: "Logstash",
        probes: &[
            ("HEAD /", 200, 200),
            ("GET /", 200, 200),
            ("GET /_license", 200, 200),
            ("HEAD /_index_template/ecs-logstash", 200, 404),
            ("PUT /_index_template/ecs-logstash", 200, 200),
            ("GET /_nodes/http", 200, 200),
        ],
        request: |messages| {
            let documents =
                messages.iter().map(|m| json!({ "@version": "1", "event": { "original": m }, "message": m }));
            let body =
                pairs("{\"create\":{\"_id\":null,\"_index\":\"logs-generic-default\",\"routing\":null}}", documents);
            ("/_bulk?filter_path=errors,items.*.error,items.*.status".into(), JSON.into(), body)
        },
        message: "/msg/message",
        reads: logstash,
    },
    Agent {
        name: "Vector loki",
        probes: &[("GET /ready", 200, 200)],
        request: |messages| {
            ("/loki/api/v1/push".into(), format!("{JSON}Content-Encoding: gzip\r\n"), gzip(loki_json(messages)))
        },
        message: "/msg",
        reads: vector_loki,
    },
    Agent {
        name: "Vector loki, protobuf",
        probes: &[("GET /ready", 200, 200)],
        request: |messages| {
            let headers = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n";
            ("/loki/api/v1/push".into(), headers.into(), loki_protobuf(messages))
        },
        message: "/msg",
        reads: vector_loki,
    },
    Agent {
        name: "Vector elasticsearch",
        probes: &[("GET /_cluster/health", 200, 200), ("GET /", 200, 200)],
        request: |messages| {
            let documents = messages.iter().map(|m| json!({ "message": m, "source_type": "file" }));
            let body = pairs("{\"index\":{\"_index\":\"vector-2026.11.28\",\"_type\":\"_doc\"}}", documents);
            ("/_bulk?timeout=60s".into(), format!("{NDJSON}Accept-Encoding: gzip\r\n"), body)
        },
        message: "/msg/message",
        reads: vector_elasticsearch,
    },
    Agent {
        name: "Vector splunk_hec_logs",
        probes: &[("GET /services/collector/health/1.0", 200, 200)],
        request: |messages| {
            let event = |m: &String| {
                json!({ "event": m, "fields": {}, "host": "web-1", "time": 1_795_884_992.484 }).to_string()
            };
            let headers = format!(
                "{JSON}Authorization: Splunk token\r\nContent-Encoding: gzip\r\nX-Splunk-Request-Channel: 8a1e3c5e-9a0f-4c1d-8a3e-0f1d2c3b4a59\r\n"
            );
            ("/services/collector/event".into(), headers, gzip(messages.iter().map(event).collect::<String>()))
        },
        message: "/msg",
        reads: vector,
    },
    Agent {
        name: "Vector datadog_logs",
        probes: &[("GET /api/v1/validate", 200, 200)],
        request: |messages| {
            let (headers, body) = datadog(messages, "vector");
            ("/api/v2/logs".into(), headers, body)
        },
        message: "/msg/message",
        reads: vector,
    },
    Agent {
        name: "promtail and Alloy",
        probes: &[],
        request: |messages| {
            let headers =
                "Content-Type: application/x-protobuf\r\nUser-Agent: promtail/3.0.0\r\nX-Scope-OrgID: team-a\r\n";
            ("/loki/api/v1/push".into(), headers.into(), loki_protobuf(messages))
        },
        message: "/msg",
        reads: promtail,
    },
    Agent {
        name: "Datadog agent",
        probes: &[],
        request: |messages| {
            let (headers, body) = datadog(messages, "agent");
            let headers = format!(
                "{headers}DD-PROTOCOL: agent-json\r\nUser-Agent: datadog-agent/7.60.0\r\nContent-Encoding: zstd\r\ndd-message-timestamp: 1795884992484\r\ndd-current-timestamp: 1795884992500\r\n"
            );
            ("/api/v2/logs".into(), headers, zstd::bulk::compress(&body, 1).unwrap())
        },
        message: "/msg/message",
        reads: datadog_agent,
    },
];

fn drop_in(more: &str) -> String {
    let text = include_str!("../config/drop-in.toml").replace("tcp://0.0.0.0:9880", "tcp://127.0.0.1:0");
    assert!(text.contains("tcp://127.0.0.1:0"));
    text.replace("protocol = \"http\"\n", &format!("protocol = \"http\"\n{more}"))
}

fn send(client: &mut Client, agent: &Agent, messages: &[String]) -> Answer {
    let (path, headers, body) = (agent.request)(messages);
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: logs.example:9880\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    client.send(&[head.as_bytes(), &body].concat());
    client.answer().unwrap_or_else(|| panic!("{}: no answer", agent.name))
}

fn messages(agent: &Agent, what: &str) -> Vec<String> {
    (0..20).map(|i| format!("{what} {i} of {} \"quoted\" \\ é 日本\twith a tab", agent.name)).collect()
}

/// The messages of an agent that are on disk.
fn stored(lines: &[Vec<u8>], agent: &Agent) -> Vec<String> {
    let parsed = |line: &Vec<u8>| -> Value { serde_json::from_slice(line).unwrap() };
    let message = |line: Value| line.pointer(agent.message)?.as_str().map(String::from);
    let own = format!(" of {} \"", agent.name);
    lines.iter().map(parsed).filter_map(message).filter(|message| message.contains(&own)).collect()
}

#[test]
fn what_agents_ask_and_send_is_answered_as_they_expect_and_stored() {
    let dir = scratch();
    let mut server = Running::start(dir.path(), &drop_in(""));
    for agent in AGENTS {
        let mut client = Client::to(server.address("http"));
        for (line, least, most) in agent.probes {
            let body = if line.starts_with("PUT") { "{}" } else { "" };
            let length = format!("{JSON}Content-Length: {}\r\n", body.len());
            let more = if body.is_empty() { "" } else { &length };
            client.send(
                format!(
                    "{line} HTTP/1.1\r\nHost: x\r\nAuthorization: Splunk token\r\nDD-API-KEY: key\r\n{more}\r\n{body}"
                )
                .as_bytes(),
            );
            let answer = client.answer_to(line.starts_with("HEAD")).unwrap();
            assert!((*least..=*most).contains(&answer.status), "{}: {line}: {answer:?}", agent.name);
        }
        let answer = send(&mut client, agent, &messages(agent, "one"));
        assert_eq!((agent.reads)(&answer), Stored, "{}: {answer:?}", agent.name);
    }
    // The Datadog agent's question whether it can connect is no record.
    let mut client = Client::to(server.address("http"));
    assert_eq!(client.post("/api/v2/logs", JSON, "{}").body, "{}");
    assert!(server.stop());
    let lines = server.lines();
    assert_eq!(lines.len(), 20 * AGENTS.len());
    for agent in AGENTS {
        assert_eq!(stored(&lines, agent), messages(agent, "one"), "{}", agent.name);
    }
}

/// Each agent sends until it reads of success, as it does by itself.
fn until_stored(server: &Running, agent: &Agent, what: &str) {
    await_that(agent.name, || {
        let verdict = (agent.reads)(&send(&mut Client::to(server.address("http")), agent, &messages(agent, what)));
        assert_ne!(verdict, Lost, "{}", agent.name);
        verdict == Stored
    });
}

#[test]
fn no_agent_drops_what_a_full_disk_refuses() {
    let dir = scratch();
    let mut server = Running::start(dir.path(), &drop_in(""));
    server.faults.fail(Call::Append, libc::ENOSPC, u64::MAX);
    let mut first = Client::to(server.address("http"));
    first.send(common::http::request("/", "", "first\n").as_bytes());
    await_that("the disk is found full", || server.count("logweir_disk_full", "") == 1.0);
    for agent in AGENTS {
        let answer = send(&mut Client::to(server.address("http")), agent, &messages(agent, "two"));
        assert_eq!((agent.reads)(&answer), Again, "{}: {answer:?}", agent.name);
    }
    server.faults.heal();
    assert_eq!(first.answer().unwrap().status, 204);
    AGENTS.iter().for_each(|agent| until_stored(&server, agent, "two"));
    assert!(server.stop());
    let lines = server.lines();
    for agent in AGENTS {
        let found = stored(&lines, agent);
        assert!(messages(agent, "two").iter().all(|message| found.contains(message)), "{}", agent.name);
    }
}

#[test]
fn no_agent_drops_what_a_slow_disk_refuses() {
    let dir = scratch();
    // Room for a few chunks, so that it is soon in use.
    let config =
        format!("[buffer]\nmemory = \"8MiB\"\n{}", drop_in("max_line_bytes = \"16KiB\"\nqueue_timeout = \"20ms\"\n"));
    let mut server = Running::start(dir.path(), &config);
    server.faults.shut_gate();
    let mut waiting = Vec::new();
    let body = "x".repeat(999) + "\n";
    await_that("a request is refused", || {
        let mut client = Client::to(server.address("http"));
        client.stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        client.send(common::http::request("/", "", &body.repeat(500)).as_bytes());
        let answer = client.answer();
        waiting.push(client);
        answer.is_some_and(|answer| answer.status == 429)
    });
    for agent in AGENTS {
        let answer = send(&mut Client::to(server.address("http")), agent, &messages(agent, "three"));
        assert_eq!((agent.reads)(&answer), Again, "{}: {answer:?}", agent.name);
    }
    server.faults.open_gate();
    AGENTS.iter().for_each(|agent| until_stored(&server, agent, "three"));
    drop(waiting);
    assert!(server.stop());
    let lines = server.lines();
    for agent in AGENTS {
        let found = stored(&lines, agent);
        assert!(messages(agent, "three").iter().all(|message| found.contains(message)), "{}", agent.name);
    }
}
