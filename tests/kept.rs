//! Housekeeping and reading back, through a running server: retention, compression, a second directory, `cat` by time, `tail`.

mod common;

use common::{Server, await_that, lines_of, logweir, scratch, send_all};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

const LISTENER: &str = "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\n";

fn config(storage: &str, more: &str) -> String {
    format!(
        "[placement]\nshards = 1\n[storage]\nreserve_step = \"0B\"\nsync_interval = \"10ms\"\n{storage}\n{more}\n{LISTENER}"
    )
}

/// So many lines of 100 bytes, numbered from there.
fn numbered(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).flat_map(|i| format!("{i:0>99}\n").into_bytes()).collect()
}

fn rotate(server: &Server) {
    let rotations = || server.metrics().sum("logweir_rotations_total", "");
    // What is not in the segment yet does not ask for another one.
    await_that("all is written", || server.metrics().sum("logweir_in_flight_lines", "") == 0.0);
    let before = rotations();
    server.signal(Signal::SIGUSR1);
    await_that("a rotation", || rotations() > before);
}

fn await_lines(server: &Server, lines: usize) {
    await_that("the lines are durable", || server.metrics().sum("logweir_durable_lines_total", "") >= lines as f64);
}

fn files(dir: &Path, ending: &str) -> usize {
    let names = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(ending)).count()
}

fn verified(data: &Path) {
    let output = logweir(&["verify", "--data-dir", data.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn run(args: &[&str], data: &Path) -> String {
    let output = logweir(&[args, &["--data-dir", data.to_str().unwrap()]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_stream_never_has_more_than_it_may() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server =
        Server::with_config(&data, &config("segment_size = \"64KiB\"", "[retention]\nmax_bytes = \"300KiB\""));
    for round in 0..20 {
        send_all(server.address("lines"), &numbered(round * 500, 500));
        await_lines(&server, (round + 1) * 500);
    }
    let deleted = || server.metrics().sum("logweir_deleted_segments_total", "\"max_bytes\"");
    await_that("old segments are gone", || deleted() >= 10.0);
    let bytes = || -> u64 {
        let files = std::fs::read_dir(data.join("default")).unwrap().filter_map(|e| e.ok()?.metadata().ok());
        files.filter(|m| m.is_file()).map(|m| m.len()).sum()
    };
    await_that("no more than it may", || bytes() <= 300 << 10);
    // What is left is the end of what was sent, whole and in order.
    let text = server.cat();
    let lines = lines_of(&text);
    assert_eq!(*lines.last().unwrap(), &numbered(9_999, 1)[..99]);
    let first: usize = String::from_utf8(lines[0].to_vec()).unwrap().parse().unwrap();
    assert!(text == numbered(first, 10_000 - first) && first > 5_000, "{first}");
    verified(&data);
    server.metrics().check_accounts();
    assert!(server.stop().success());
    verified(&data);
    // Names go on where they were.
    let server = Server::with_config(&data, &config("segment_size = \"64KiB\"", "[retention]\nmax_age = \"1s\""));
    await_that("all that was sealed is gone", || server.cat().is_empty());
    verified(&data);
    send_all(server.address("lines"), b"after all\n");
    await_that("the line", || server.cat() == b"after all\n");
    let name = common::current(&data).unwrap().file_name().unwrap().to_os_string();
    assert!(name.to_str().unwrap() > "000-0000000015", "{name:?}");
    verified(&data);
}

#[test]
fn sealed_segments_are_compressed_and_read_like_others() {
    let dir = scratch();
    let data = dir.path().join("data");
    let text = config("segment_size = \"4MiB\"\ncompress = \"zstd\"", "[stream.plain]\ncompress = \"none\"");
    let mut server = Server::with_config(
        &data,
        &format!("{text}[listener.p]\naddress = \"tcp://127.0.0.1:0\"\nstream = \"plain\"\n"),
    );
    send_all(server.address("lines"), &numbered(0, 30_000));
    send_all(server.address("p"), &numbered(0, 10));
    await_lines(&server, 30_010);
    rotate(&server);
    await_that("compressed", || {
        files(&data.join("default"), ".log.zst") >= 1 && files(&data.join("default"), ".log") == 0
    });
    await_that("sealed", || files(&data.join("plain"), ".log") == 1);
    send_all(server.address("lines"), &numbered(30_000, 10));
    await_lines(&server, 30_020);
    assert!(run(&["cat", "-s", "default"], &data).as_bytes() == numbered(0, 30_010));
    assert_eq!(run(&["cat", "-s", "plain"], &data).as_bytes(), numbered(0, 10));
    verified(&data);
    let metrics = server.metrics();
    let (plain, packed) = (
        metrics.sum("logweir_compressed_text_bytes_total", "\"default\""),
        metrics.sum("logweir_compressed_file_bytes_total", "\"default\""),
    );
    assert!(plain == 3_000_000.0 && packed * 5.0 < plain, "{plain} {packed}");
    // Other tools read it too.
    if common::programs::have("zstd") {
        let names = std::fs::read_dir(data.join("default")).unwrap().map(|e| e.unwrap().path());
        let file = names.into_iter().find(|p| p.to_str().unwrap().ends_with(".zst")).unwrap();
        let output = Command::new("zstdcat").arg(&file).output().unwrap();
        assert!(output.stdout == numbered(0, 30_000), "{}", String::from_utf8_lossy(&output.stderr));
    } else {
        common::skipped("sealed_segments_are_compressed (zstdcat)", "no zstd");
    }
    assert_eq!(run(&["tail", "-s", "default", "-n", "12"], &data).as_bytes(), numbered(29_998, 12));
    assert!(server.stop().success());
    // A bit that changes is found.
    let path = data.join("default/000-0000000001.log.zst");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let output = logweir(&["verify", "--data-dir", data.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("000-0000000001.log.zst"), "{said}");
    let output = logweir(&["cat", "--data-dir", data.to_str().unwrap()]);
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("does not decompress"));
}

#[test]
fn sealed_segments_move_and_are_found_where_they_were() {
    let dir = scratch();
    let (data, archive) = (dir.path().join("data"), dir.path().join("archive"));
    let moves = format!("segment_size = \"64KiB\"\nsealed_dir = \"{}\"", archive.display());
    let mut server = Server::with_config(&data, &config(&moves, ""));
    for round in 0..10 {
        send_all(server.address("lines"), &numbered(round * 500, 500));
        await_lines(&server, (round + 1) * 500);
    }
    let moved = || files(&archive.join("default"), ".log");
    await_that("moved", || moved() >= 7 && moved() == files(&data.join("default"), ".log"));
    assert!(server.cat() == numbered(0, 5_000));
    verified(&data);
    assert!(server.stop().success());
    await_lines_of(&archive, 5_000);
    // A data directory in memory is empty after a power cut.
    std::fs::remove_dir_all(&data).unwrap();
    let server = Server::with_config(&data, &config(&moves, ""));
    assert!(server.cat() == numbered(0, 5_000));
    send_all(server.address("lines"), &numbered(5_000, 10));
    await_lines(&server, 10);
    assert!(server.cat() == numbered(0, 5_010), "and names do not come back");
    verified(&data);
    // Another server must not write into the same directory.
    let other = dir.path().join("other");
    let path = dir.path().join("other.toml");
    std::fs::write(&path, config(&moves, "")).unwrap();
    let output = logweir(&[
        "serve",
        "--config",
        path.to_str().unwrap(),
        "--admin",
        "off",
        "--data-dir",
        other.to_str().unwrap(),
    ]);
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("is in use by another logweir"));
}

/// The directory that was moved to can be read by itself.
fn await_lines_of(dir: &Path, lines: usize) {
    assert_eq!(lines_of(run(&["cat"], dir).as_bytes()).len(), lines);
    verified(dir);
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn lines_are_found_by_the_time_they_came() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::with_config(&data, &config("compress = \"zstd\"", ""));
    send_all(server.address("lines"), b"early\n");
    await_lines(&server, 1);
    rotate(&server);
    await_that("compressed", || files(&data.join("default"), ".log.zst") == 1);
    let first = seconds_now() + 1;
    await_that("the next second", || seconds_now() > first);
    send_all(server.address("lines"), b"late\nlater \x1b[31m\xff\n");
    await_lines(&server, 3);
    let at = format!("@{first}");
    let raw = |args: &[&str]| logweir(&[args, &["--data-dir", data.to_str().unwrap()]].concat()).stdout;
    assert_eq!(raw(&["cat", "--until", &at]), b"early\n");
    await_that("the trail knows", || raw(&["cat", "--since", &at]) == b"late\nlater \x1b[31m\xff\n");
    assert_eq!(raw(&["cat", "--since", "1h"]).len(), raw(&["cat"]).len());
    assert_eq!(raw(&["cat", "--until", "1h"]), b"");
    let json = run(&["cat", "--json"], &data);
    let lines: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let shown: Vec<&str> = lines.iter().map(|l| l["line"].as_str().unwrap()).collect();
    assert_eq!(shown, ["early", "late", "later \u{1b}[31m\u{fffd}"]);
    assert_eq!((lines[0]["stream"].as_str(), lines[0]["segment"].as_str()), (Some("default"), Some("000-0000000001")));
    assert_eq!((lines[2]["offset"].as_u64(), lines[2]["lossy"].as_bool()), (Some(5), Some(true)));
    assert!(lines[0]["t"].as_str().unwrap() < lines[1]["t"].as_str().unwrap(), "{json}");
    let bad = logweir(&["cat", "--since", "tomorrow"]);
    assert!(!bad.status.success() && String::from_utf8(bad.stderr).unwrap().contains("expected how long ago"));
}

#[test]
fn tail_follows_over_rotations_and_compression() {
    let dir = scratch();
    let data = dir.path().join("data");
    let text = config("segment_size = \"64KiB\"\ncompress = \"zstd\"", "")
        .replace("shards = 1", "shards = 2\nreactors_per_shard = 1");
    let server = Server::with_config(&data, &text);
    send_all(server.address("lines"), &numbered(0, 3));
    await_lines(&server, 3);
    let mut tail = Command::new(common::BINARY)
        .args(["tail", "-f", "-n", "2", "--data-dir", data.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(tail.stdout.take().unwrap());
    let mut next = || {
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        line.trim().parse::<usize>().unwrap()
    };
    assert_eq!((next(), next()), (1, 2));
    // Many connections, so that both shards have some; each line comes once.
    let mut expected = Vec::new();
    for round in 1..31 {
        let lines = round * 100..round * 100 + 100;
        send_all(server.address("lines"), &numbered(lines.start, 100));
        expected.extend(lines);
        if round % 5 == 0 {
            rotate(&server);
        }
    }
    let mut seen: Vec<usize> = expected.iter().map(|_| next()).collect();
    seen.sort_unstable();
    assert_eq!(seen, expected);
    tail.kill().unwrap();
    tail.wait().unwrap();
    await_that("both shards have written", || server.metrics().sum("logweir_appended_bytes_total", "\"1\"") > 0.0);
    // Both shards' lines in the order of their times.
    await_that("all are sealed", || {
        let times: Vec<String> = run(&["tail", "-n", "100000", "--json"], &data)
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["t"].as_str().unwrap_or("~").to_string())
            .collect();
        times.len() == 3_003 && times.is_sorted()
    });
}

#[test]
fn tail_awaits_what_is_not_there_yet() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut tail = Command::new(common::BINARY)
        .args(["tail", "-f", "--data-dir", data.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let two = format!("{}[listener.b]\naddress = \"tcp://127.0.0.1:0\"\nstream = \"b\"\n", config("", ""));
    let server = Server::with_config(&data, &two);
    let mut lines = BufReader::new(tail.stdout.take().unwrap()).lines().map(Result::unwrap);
    send_all(server.address("lines"), b"to default\n");
    assert_eq!((lines.next().unwrap(), lines.next().unwrap()), ("==> default <==".into(), "to default".into()));
    send_all(server.address("b"), b"to b\n");
    let more: Vec<String> = lines.by_ref().take(3).collect();
    assert_eq!(more, ["", "==> b <==", "to b"]);
    tail.kill().unwrap();
    tail.wait().unwrap();
    drop(server);
    let gone = logweir(&["tail", "--data-dir", dir.path().join("nowhere").to_str().unwrap()]);
    assert!(!gone.status.success());
}

/// Found from outside: a reader that paused cost `tail -f` more memory than there were lines to print.
#[test]
fn tail_holds_little_however_much_waits_for_its_reader() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = common::Server::start(&data, &["--set", "storage.segment_size=4MiB"]);
    common::send_all(server.address("lines"), b"first\n");
    let mut tail = Command::new(common::BINARY)
        .args(["tail", "-f", "-n", "1", "--data-dir", data.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(tail.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "first\n");
    // Nobody reads on while 40 MB come, over ten segments.
    let text = |i: usize| format!("line {i} {}\n", "x".repeat(i % 400));
    let all: String = (0..200_000).map(text).collect();
    common::send_all(server.address("lines"), all.as_bytes());
    await_that("all of it", || server.metrics().sum("logweir_durable_lines_total", "") == 200_001.0);
    for i in 0..200_000 {
        line.clear();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, text(i), "line {i}");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", tail.id())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 32 << 10, "{peak} KiB at most, of {} KiB", all.len() >> 10);
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(server.stop().success());
}

/// Found in review: the empty spare segment that `tail -f` had looked at went with the server, and nothing of the next was shown.
#[test]
fn tail_goes_on_over_a_restart_of_the_server() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut tail = None;
    let mut out = None;
    for round in 0..4 {
        let mut server = common::Server::start(&data, &[]);
        common::send_all(server.address("lines"), format!("round {round}\n").as_bytes());
        let reader = out.get_or_insert_with(|| {
            let mut command = Command::new(common::BINARY);
            command.args(["tail", "-f", "--data-dir"]).arg(&data).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let reader = BufReader::new(child.stdout.take().unwrap());
            tail = Some(child);
            reader
        });
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, format!("round {round}\n"));
        assert!(server.stop().success());
    }
    let mut tail = tail.unwrap();
    tail.kill().unwrap();
    tail.wait().unwrap();
}

/// What is acknowledged is marked as synced in the trail soon after, though no other line comes and nothing is sealed: recovery believes marks,
/// and a kill takes what only the process knows.
#[test]
fn a_mark_of_a_sync_reaches_the_trail_though_nothing_else_comes() {
    let dir = scratch();
    let data = dir.path().join("data");
    let config =
        "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\n[storage]\nsync_interval = \"1h\"\n";
    let mut server = Server::with_config(&data, config);
    let trail = data.join("default/000-0000000001.trail");
    let before = std::fs::metadata(&trail).unwrap().len();
    let mut client = server.connect();
    std::io::Write::write_all(&mut client, b"a line\n").unwrap();
    let mut answer = [0; 2];
    std::io::Read::read_exact(&mut client, &mut answer).unwrap();
    assert_eq!(&answer, b"1\n");
    await_that("the mark", || std::fs::metadata(&trail).unwrap().len() > before);
    server.kill();
    let server = Server::start(&data, &[]);
    assert_eq!(server.cat(), b"a line\n");
    verified(&data);
}

/// What `cat --hold` has still to print stays, though nobody reads what it prints for a while.
#[test]
fn what_a_reader_holds_is_printed_whole() {
    let dir = scratch();
    let data = dir.path().join("data");
    let server = Server::with_config(&data, &config("segment_size = \"64KiB\"", "[retention]\nmax_bytes = \"900KiB\""));
    send_all(server.address("lines"), &numbered(0, 5_000));
    await_lines(&server, 5_000);
    let holds = || std::fs::read_dir(data.join(".logweir/holds")).map_or(0, Iterator::count);
    let mut reader = Command::new(env!("CARGO_BIN_EXE_logweir"))
        .args(["cat", "--hold", "--data-dir", data.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    await_that("the hold", || holds() == 1);
    let mut out = reader.stdout.take().unwrap();
    // More than the pipe and one buffer take: it stands in the first segments.
    let mut begun = vec![0; 100];
    std::io::Read::read_exact(&mut out, &mut begun).unwrap();
    let deleted = || server.metrics().sum("logweir_deleted_segments_total", "");
    send_all(server.address("lines"), &numbered(5_000, 20_000));
    await_lines(&server, 25_000);
    std::io::Read::read_to_end(&mut out, &mut begun).unwrap();
    assert!(reader.wait().unwrap().success());
    assert!(begun.starts_with(&numbered(0, 5_000)), "{}", begun.len());
    await_that("nothing is held", || holds() == 0);
    await_that("then it goes", || deleted() >= 2.0 && server.cat().len() < 2_000_000);
    verified(&data);
}
