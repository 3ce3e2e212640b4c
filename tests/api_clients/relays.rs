//! Programs that send on what they are given: rsyslog, syslog-ng, journal-upload, the OpenTelemetry Collector.

use super::common::programs::run;
use super::common::syslog::{Running, of_systemd, rsyslogd, syslog_ng};
use super::common::{Server, await_that, scratch, skipped};
use super::table::{a_port, message, message_of, messages, start};
use std::io::Write;
use std::net::TcpStream;

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
    let port = a_port();
    let mut server = start(&dir.path().join("data"), port, &[]);
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
    let server = start(&dir.path().join("data"), port, &[]);
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
    let server = start(&dir.path().join("data"), 0, &[]);
    let input = a_port();
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
