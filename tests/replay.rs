//! Real log files of different shapes, replayed over 16 connections and compared byte for byte.

mod common;

use common::{Server, cat, lines_of, scratch};
use std::collections::BTreeMap;
use std::process::Command;

/// Log files that a Debian machine has, and logs that real programs write when asked.
fn real_logs() -> Vec<(String, Vec<u8>)> {
    let mut logs = Vec::new();
    let files = [
        "/var/log/dpkg.log",
        "/var/log/alternatives.log",
        "/var/log/apt/history.log",
        "/var/log/apt/term.log",
        "/var/log/bootstrap.log",
        "/var/log/syslog",
        "/proc/self/smaps",
        "/proc/crypto",
    ];
    for file in files {
        if let Ok(content) = std::fs::read(file) {
            logs.push((file.to_string(), content));
        }
    }
    let programs: [(&str, &[&str]); 4] = [
        ("git", &["log", "--stat", "-p"]),
        ("ls", &["-lR", "/usr/share/doc"]),
        ("dmesg", &[]),
        ("strace", &["-f", "-tt", "-o", "/dev/stdout", "ls", "/"]),
    ];
    for (program, args) in programs {
        if let Ok(output) = Command::new(program).args(args).output() {
            logs.push((format!("{program} {}", args.join(" ")), output.stdout));
        }
    }
    logs.retain(|(_, content)| content.len() > 1000);
    logs
}

#[test]
fn real_logs_come_out_as_they_went_in() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = Server::start(&data, &["--set", "buffer.memory=16MiB"]);
    let logs = real_logs();
    assert!(logs.len() >= 3, "this machine has only {} real logs", logs.len());
    for (name, content) in &logs {
        eprintln!("replaying {name}: {} bytes", content.len());
    }
    // Each connection sends one log, its lines marked with the connection; 16 connections, so some logs are sent twice.
    let mut sent: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
    for connection in 0..16 {
        let (_, content) = &logs[connection % logs.len()];
        let mut lines: Vec<&[u8]> = content.split(|b| *b == b'\n').collect();
        if lines.last() == Some(&&b""[..]) {
            lines.pop();
        }
        let mark = |l: &[u8]| [format!("{connection:02}|").as_bytes(), l].concat();
        sent.insert(connection, lines.into_iter().map(mark).collect());
    }
    std::thread::scope(|scope| {
        for lines in sent.values() {
            let address = server.address("lines");
            scope.spawn(move || common::send_all(address, &[lines.join(&b'\n'), b"\n".to_vec()].concat()));
        }
    });
    assert!(server.stop().success());
    let mut got: BTreeMap<usize, Vec<Vec<u8>>> = BTreeMap::new();
    let out = cat(&data);
    for line in lines_of(&out) {
        let connection = std::str::from_utf8(&line[..2]).unwrap().parse().unwrap();
        got.entry(connection).or_default().push(line.to_vec());
    }
    for (connection, lines) in &sent {
        assert!(got.get(connection) == Some(lines), "connection {connection} differs");
    }
}
