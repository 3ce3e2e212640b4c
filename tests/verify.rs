//! `logweir verify`: says nothing of sound directories, also beside a running server and after a kill; finds what is changed,
//! cut, missing.

mod common;

use common::{BINARY, Server, lines_of, scratch};
use std::path::{Path, PathBuf};
use std::process::Command;

const CONFIG: &str = "[storage]\nsegment_size = \"64KiB\"\nsync_interval = \"5ms\"\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\n";

/// Exit code, and what `--json` says.
fn verify(data: &Path) -> (bool, serde_json::Value) {
    let output = Command::new(BINARY).args(["verify", "--json", "--data-dir"]).arg(data).output().unwrap();
    let json = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.success(), json)
}

fn verify_in_words(data: &Path) -> (bool, String) {
    let output = Command::new(BINARY).args(["verify", "--data-dir"]).arg(data).output().unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

/// Problems as `kind file from to`.
fn problems(json: &serde_json::Value) -> Vec<String> {
    let of = |stream: &serde_json::Value| stream["problems"].as_array().unwrap().clone();
    let all = json["streams"].as_array().unwrap().iter().flat_map(of);
    all.map(|p| format!("{} {} {} {}", p["problem"].as_str().unwrap(), p["file"].as_str().unwrap(), p["from"], p["to"]))
        .collect()
}

/// Sends lines, and awaits that they are durable.
fn feed(server: &Server, lines: u64) {
    let mut bytes = Vec::new();
    (0..lines).for_each(|n| logweir::bench::lines::numbered(1, n, 200, &mut bytes));
    common::send_all(server.address("lines"), &bytes);
}

/// A directory with several sealed segments, in their order.
fn sealed(dir: &Path) -> (PathBuf, Vec<PathBuf>) {
    let data = dir.join("data");
    let mut server = Server::with_config(&data, CONFIG);
    (0..6).for_each(|_| feed(&server, 300));
    assert!(server.stop().success());
    let mut logs: Vec<PathBuf> = std::fs::read_dir(data.join("default")).unwrap().map(|e| e.unwrap().path()).collect();
    logs.retain(|p| p.extension().is_some_and(|e| e == "log"));
    logs.sort();
    assert!(logs.len() >= 4, "{logs:?}");
    (data, logs)
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

#[test]
fn sound_directories_are_sound() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = Server::with_config(&data, CONFIG);
    feed(&server, 1000);
    // The last records of the active trail are in the server's memory still.
    let (ok, json) = verify(&data);
    assert!(ok, "beside a running server: {json}");
    let bytes = |key: &str| json["streams"][0][key].as_u64().unwrap();
    assert_eq!(bytes("bytes_proven") + bytes("bytes_unproven"), 200 * 1000, "{json}");
    server.kill();
    drop(server);
    let (ok, json) = verify(&data);
    assert!(ok, "after a kill, before recovery: {json}");
    let mut server = Server::with_config(&data, CONFIG);
    feed(&server, 10);
    assert!(server.stop().success());
    let (ok, json) = verify(&data);
    assert!(ok && json["ok"] == true && json["problems"] == 0, "{json}");
    assert_eq!(json["streams"][0]["lines"], 1010);
    assert_eq!(json["streams"][0]["bytes_unproven"], 0);
    assert_eq!(lines_of(&common::cat(&data)).len(), 1010);
    let (ok, words) = verify_in_words(&data);
    assert!(
        ok && words.contains("1010 lines")
            && words.ends_with("ok: everything that has a checksum matches it, nothing is missing in between\n")
    );
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let dir = scratch();
    let (data, logs) = sealed(dir.path());
    for (i, log) in logs.iter().enumerate() {
        let sound = std::fs::read(log).unwrap();
        let at = [0, sound.len() / 2, sound.len() - 1, 511][i % 4];
        let mut changed = sound.clone();
        changed[at] ^= 1 << (i % 8);
        std::fs::write(log, &changed).unwrap();
        let (ok, json) = verify(&data);
        let found = problems(&json);
        assert!(
            !ok && found.len() == 1 && found[0].starts_with(&format!("changed default/{} ", name(log))),
            "{found:?}"
        );
        let range: Vec<usize> = found[0].split(' ').skip(2).map(|n| n.parse().unwrap()).collect();
        assert!((range[0]..range[1]).contains(&at), "byte {at}: {found:?}");
        std::fs::write(log, &sound).unwrap();
    }
    assert!(verify(&data).0);
}

#[test]
fn cut_lengthened_and_missing_files_are_found() {
    let dir = scratch();
    let (data, logs) = sealed(dir.path());
    let [first, second, third] = [&logs[0], &logs[1], &logs[2]];
    let sound = std::fs::read(first).unwrap();
    let expect = |what: &str| {
        let (ok, json) = verify(&data);
        let found = problems(&json);
        assert!(!ok && found.iter().any(|f| f.starts_with(what)), "{what}: {found:?}");
        let (ok, words) = verify_in_words(&data);
        assert!(!ok && words.contains("DAMAGE"), "{words}");
        found
    };

    std::fs::write(first, &sound[..sound.len() - 7]).unwrap();
    expect(&format!("short default/{}", name(first)));
    std::fs::write(first, [&sound[..], b"more\n"].concat()).unwrap();
    expect(&format!("changed default/{} {}", name(first), sound.len()));
    std::fs::write(first, &sound).unwrap();

    // A segment without its trail, a trail without its segment, and both gone.
    let trail = second.with_extension("trail");
    let records = std::fs::read(&trail).unwrap();
    std::fs::remove_file(&trail).unwrap();
    expect(&format!("missing default/{}", name(&trail)));
    std::fs::copy(third.with_extension("trail"), &trail).unwrap();
    expect(&format!("wrong_trail default/{}", name(&trail)));
    // A bit of the trail itself, in a record and in the header.
    for at in [100, records.len() / 2, 20] {
        let mut changed = records.clone();
        changed[at] ^= 4;
        std::fs::write(&trail, &changed).unwrap();
        expect(&format!("changed default/{}", name(&trail)));
    }
    std::fs::write(&trail, &records).unwrap();
    let lines = std::fs::read(second).unwrap();
    std::fs::remove_file(second).unwrap();
    expect(&format!("missing default/{}", name(second)));
    std::fs::remove_file(&trail).unwrap();
    assert_eq!(expect(&format!("missing default/{}", name(second))).len(), 1, "the next one names it");
    std::fs::write(second, &lines).unwrap();
    std::fs::write(&trail, &records).unwrap();

    std::fs::copy(third, third.with_extension("log.active")).unwrap();
    expect(&format!("twice default/{}.active", name(third)));
    std::fs::remove_file(third.with_extension("log.active")).unwrap();
    assert!(verify(&data).0);

    // Who needs room takes the oldest away, with its trail.
    std::fs::remove_file(first).unwrap();
    std::fs::remove_file(first.with_extension("trail")).unwrap();
    assert!(verify(&data).0);
}

#[test]
fn what_is_not_logweirs_is_left_out_and_what_is_not_there_is_said() {
    let dir = scratch();
    let (data, _) = sealed(dir.path());
    std::fs::write(data.join("default/notes.txt"), "x").unwrap();
    std::fs::write(data.join("afile"), "x").unwrap();
    let (ok, json) = verify(&data);
    assert!(ok, "{json}");
    assert_eq!(json["streams"][0]["foreign_files"], 1);
    for args in [["--data-dir", "/nonexistent"], ["--stream", "no such"]] {
        let output = Command::new(BINARY).arg("verify").args(args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && error.starts_with("logweir: "), "{error}");
    }
}

/// What was durable and is gone is said before the next start and after it, wherever the cut is.
#[test]
fn a_start_does_not_hide_what_is_missing() {
    for keep in [0, 200 * 150] {
        let dir = scratch();
        let data = dir.path().join("data");
        let mut server = Server::with_config(&data, CONFIG);
        // Two groups, each with its record.
        feed(&server, 150);
        feed(&server, 100);
        server.signal(nix::sys::signal::Signal::SIGUSR1);
        let first = data.join("default/000-0000000001.log");
        common::await_that("the sealing", || first.exists());
        feed(&server, 10);
        server.kill();
        drop(server);
        // As if the first segment had been active still, and cut.
        let active = first.with_extension("log.active");
        std::fs::rename(&first, &active).unwrap();
        std::fs::OpenOptions::new().write(true).open(&active).unwrap().set_len(keep).unwrap();
        let (ok, json) = verify(&data);
        assert!(!ok && problems(&json).iter().any(|p| p.starts_with("short ")), "{json}");
        let mut server = Server::with_config(&data, CONFIG);
        assert_eq!(server.metrics().sum("logweir_recovered_damaged_segments", ""), 1.0);
        assert!(server.stop().success());
        let (ok, json) = verify(&data);
        assert!(!ok && problems(&json).iter().any(|p| p.starts_with("short default/000-0000000001.log")), "{json}");
        assert_eq!(first.metadata().unwrap().len(), keep, "and nothing of it was taken away");
    }
}
