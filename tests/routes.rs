//! Syslog messages go to streams by what they say of themselves, each written as its stream says.

mod common;

use common::http::{Client, request};
use common::{Server, await_that, lines_of, logweir, scratch, send_all};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

const CONFIG: &str = r#"
[listener.syslog]
protocol = "syslog"
address = "tcp://127.0.0.1:0"
streams = ["web", "auth", "errors"]
route = { "app=nginx*" = "web", "facility=authpriv" = "auth", "severity=err" = "errors" }
[listener.relp]
protocol = "relp"
address = "tcp://127.0.0.1:0"
streams = ["web"]
route = { "host=web-*" = "web" }
[stream.web]
format = "json"
[stream.auth]
format = "classic"
"#;

fn text_of(server: &Server, stream: &str) -> String {
    let out = logweir(&["cat", "-s", stream, "--data-dir", server.data_dir.to_str().unwrap()]).stdout;
    String::from_utf8(out).unwrap()
}

#[test]
fn messages_go_where_rules_send_them_and_the_rest_to_the_listeners_own() {
    let dir = scratch();
    let mut server = Server::with_config(&dir.path().join("data"), CONFIG);
    let messages = [
        "<13>Nov 27 10:00:00 h nginx: one",
        "<86>Nov 27 10:00:00 h sshd[7]: two",
        "<11>Nov 27 10:00:00 h cron: three",
        "<13>Nov 27 10:00:00 h cron: four",
        "<83>1 2026-11-27T10:00:00Z h nginx-debug 1 - - five",
    ];
    send_all(server.address("syslog"), (messages.join("\n") + "\n").as_bytes());
    // One acknowledgement for messages in two streams.
    let mut relp = TcpStream::connect(server.address("relp")).unwrap();
    relp.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let open = "relp_version=0\ncommands=syslog";
    let six = "<13>Nov 27 10:00:00 web-1 a: six";
    let seven = "<13>Nov 27 10:00:00 db-01 a: seven";
    let frame =
        |(txnr, (command, data)): (usize, (&str, &str))| format!("{} {command} {} {data}\n", txnr + 1, data.len());
    let frames: String =
        [("open", open), ("syslog", six), ("syslog", seven)].into_iter().enumerate().map(frame).collect();
    relp.write_all(frames.as_bytes()).unwrap();
    let mut answers = BufReader::new(relp).lines().map(Result::unwrap);
    assert_eq!(answers.find(|line| line.starts_with("3 rsp")).as_deref(), Some("3 rsp 6 200 OK"));
    await_that("seven messages", || server.metrics().sum("logweir_received_lines_total", "") == 7.0);
    drop(answers);
    assert!(server.stop().success());
    let message =
        |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["msg"].as_str().unwrap().to_string();
    let mut found: Vec<String> = text_of(&server, "web").lines().map(message).collect();
    found.sort();
    assert_eq!(found, ["five", "one", "six"]);
    assert_eq!(text_of(&server, "auth"), "Nov 27 10:00:00 h sshd[7]: two\n");
    assert_eq!(text_of(&server, "errors"), format!("{}\n", messages[2]));
    let own = text_of(&server, "default");
    assert_eq!(lines_of(own.as_bytes()).len(), 2);
    assert!(own.contains(messages[3]) && own.contains(seven), "{own}");
}

/// Of a message that is too long only the beginning is kept, and only that decides: not what comes of its end in one piece with it.
#[test]
fn of_a_message_that_is_too_long_the_kept_beginning_decides() {
    let dir = scratch();
    let config = CONFIG.replacen("streams", "max_line_bytes = \"128B\"\nstreams", 1);
    let mut server = Server::with_config(&dir.path().join("data"), &config);
    // 88 bytes of 128 are kept, and end in the middle of the name.
    let beginning = format!("<13>Nov 27 10:00:00 {} ngi", "h".repeat(64));
    assert_eq!(beginning.len(), 88);
    let mut client = TcpStream::connect(server.address("syslog")).unwrap();
    client.write_all(format!("{beginning}-no-{}", "x".repeat(100)).as_bytes()).unwrap();
    await_that("the first part", || server.metrics().sum("logweir_network_received_bytes_total", "") >= 188.0);
    client.write_all(b"nx: end\n").unwrap();
    drop(client);
    let whole = format!("{beginning}nx: {}\n", "y".repeat(100));
    send_all(server.address("syslog"), whole.as_bytes());
    await_that("two messages", || server.metrics().sum("logweir_received_lines_total", "") == 2.0);
    assert!(server.stop().success());
    let own = text_of(&server, "default");
    assert_eq!(own.matches(&format!("{beginning} [truncated")).count(), 2, "{own}");
}

/// Found from outside: a client whose records alternate between streams, or that sends many small requests at once, ended the server. A
/// chunk describes so many runs and no more; it is full then.
#[test]
fn streams_and_requests_that_change_with_each_record_fill_chunks_and_lose_nothing() {
    let dir = scratch();
    let config = r#"
[listener.syslog]
protocol = "syslog"
address = "tcp://127.0.0.1:0"
streams = ["odd"]
route = { "app=a1" = "odd" }
[listener.http]
protocol = "http"
address = "tcp://127.0.0.1:0"
apis = ["lines", "elasticsearch", "datadog"]
format = "raw"
streams = ["odd"]
route = { "index=a1" = "odd", "service=a1" = "odd" }
[listener.relp]
protocol = "relp"
address = "tcp://127.0.0.1:0"
streams = ["odd"]
route = { "app=a1" = "odd" }
"#;
    let mut server = Server::with_config(&dir.path().join("data"), config);
    let (mut even, mut odd) = (Vec::new(), Vec::new());
    let mut expect = |count: usize, text: &dyn Fn(usize) -> String| {
        (0..count).for_each(|i| if i % 2 == 0 { even.push(text(i)) } else { odd.push(text(i)) });
    };
    let message = |i: usize| format!("<13>1 - h a{} {i} - - m", i % 2);
    expect(200_000, &message);
    send_all(server.address("syslog"), ((0..200_000).map(message).collect::<Vec<_>>().join("\n") + "\n").as_bytes());
    await_that("the messages", || server.metrics().sum("logweir_received_lines_total", "") == 200_000.0);

    expect(20_000, &message);
    let relp = TcpStream::connect(server.address("relp")).unwrap();
    relp.set_read_timeout(Some(common::PATIENCE)).unwrap();
    let mut sender = relp.try_clone().unwrap();
    let frames: String =
        (0..20_000).map(|i| format!("{} syslog {} {}\n", i + 2, message(i).len(), message(i))).collect();
    let sending = std::thread::spawn(move || {
        let open = "relp_version=0\ncommands=syslog";
        sender.write_all(format!("1 open {} {open}\n{frames}", open.len()).as_bytes()).unwrap();
    });
    assert!(BufReader::new(relp).lines().map(Result::unwrap).any(|line| line == "20001 rsp 6 200 OK"));
    sending.join().unwrap();

    let mut client = Client::to(server.address("http"));
    let entry = |i: usize| format!("{{\"service\":\"a{}\",\"n\":{i}}}", i % 2);
    expect(20_000, &entry);
    let list = format!("[{}]", (0..20_000).map(entry).collect::<Vec<_>>().join(","));
    assert_eq!(client.post("/api/v2/logs", "Content-Type: application/json\r\n", &list).status, 202);

    let document = |i: usize| format!("{{\"n\":{i}}}");
    expect(20_000, &document);
    let pair = |i: usize| format!("{{\"create\":{{\"_index\":\"a{}\"}}}}\n{}\n", i % 2, document(i));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all((0..20_000).map(pair).collect::<String>().as_bytes()).unwrap();
    let body = encoder.finish().unwrap();
    let head = "POST /_bulk HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\nContent-Encoding: gzip\r\n";
    client.send(&[format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat());
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.body.matches("\"status\":201").count()), (200, 20_000));

    // Each request is acknowledged by itself.
    let line = |i: usize| format!("line {i}");
    (0..20_000).for_each(|i| even.push(line(i)));
    let mut sender = client.stream.try_clone().unwrap();
    let requests: String = (0..20_000).map(|i| request("/", "", &format!("{}\n", line(i)))).collect();
    let sending = std::thread::spawn(move || sender.write_all(requests.as_bytes()).unwrap());
    (0..20_000).for_each(|i| assert_eq!(client.answer().unwrap().status, 204, "{i}"));
    sending.join().unwrap();
    assert!(server.stop().success());
    for (stream, expected) in [("default", even), ("odd", odd)] {
        assert_eq!(text_of(&server, stream), expected.join("\n") + "\n", "{stream}");
    }
}

#[test]
fn wrong_rules_are_refused_by_name() {
    let dir = scratch();
    for (rule, expected) in [
        ("\"app\" = \"a\"", "`app` is no rule; expected"),
        ("\"tag=x\" = \"a\"", "a message has no `tag`; expected app, host, facility or severity"),
        ("\"facility=local9\" = \"a\"", "expected one of kern, user"),
        ("\"severity=err*\" = \"a\"", "expected one of emerg"),
        ("\"app=*\" = \"a\"", "names nothing"),
        ("\"app=x\" = \"b\"", "`b` is not among the `streams` of this listener"),
    ] {
        let file = dir.path().join("c.toml");
        std::fs::write(
            &file,
            format!("[listener.s]\nprotocol = \"syslog\"\nstreams = [\"a\"]\nroute = {{ {rule} }}\n"),
        )
        .unwrap();
        let out = logweir(&["check", "--config-only", "--config", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(78) && said.contains(expected), "{rule}: {said}");
    }
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "[listener.s]\nprotocol = \"syslog\"\nstreams = [\"a\"]\nroute = { \"app=x\" = \"a\" }\n")
        .unwrap();
    let out = logweir(&["check", "--config-only", "--print", "--config", file.to_str().unwrap()]);
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("route = { \"app=x\" = \"a\" }"), "{said}");
}
