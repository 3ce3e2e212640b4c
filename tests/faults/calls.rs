//! An error, or a kill, at the Nth system call on a file of the data directory, for each kind of call and N = 1, 2, 3 …
//! until no call is hit any more. Injected by strace, so the binary is the real one; the network is not touched.

use crate::common::ledger::{self, Findings, Watch, row, times};
use crate::common::{BINARY, Server, await_that, scratch, skipped};
use crate::load::{Client, MODES, accounts, config, under_load};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const CALLS: [&str; 14] = [
    "pwritev2",
    "pwrite64",
    "write",
    "fdatasync",
    "fsync",
    "rename",
    "renameat2",
    "openat",
    "fallocate",
    "ftruncate",
    "close",
    "symlink",
    "unlink",
    "mkdir",
];
const ERRNOS: [&str; 6] = ["EIO", "ENOSPC", "EDQUOT", "EROFS", "EINTR", "EAGAIN"];
/// N up to here in `cargo test`, one errno for each; LOGWEIR_CALLS asks for more, and for all errnos.
const UP_TO: u64 = 2;
/// Lines acknowledged before the kill: some rotations' worth.
const ENOUGH: u64 = 2500;
/// How long a server may go on without them. Not waited for where all goes well.
const LONG_ENOUGH: Duration = Duration::from_millis(1500);

fn strace_is_missing(test: &str) -> bool {
    // Installed, and allowed to trace.
    let attempt = Command::new("strace").args(["-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    let why = match attempt {
        Ok(status) if status.success() => return false,
        Ok(status) => format!("strace cannot trace here: {status}"),
        Err(error) => format!("strace: {error}"),
    };
    skipped(test, &why);
    true
}

/// strace in front of a server: only what touches the data directory is traced.
fn traced(data: &Path, log: &Path, call: &str, inject: &str) -> Command {
    let mut command = Command::new("strace");
    // -D: the server is our child, strace its grandchild.
    command.args(["-D", "-f", "-y", "-q", "-o", log.to_str().unwrap()]);
    if inject.starts_with("error") {
        command.arg("--seccomp-bpf"); // faster, but strace 6.1 injects no signals with it
    }
    command.args(["-e", &format!("trace={call}"), "-e", &format!("inject={call}:{inject}")]);
    let mut paths: Vec<PathBuf> =
        ["", ".logweir", ".logweir/sequence", "default", "probe.tmp"].iter().map(|p| data.join(p)).collect();
    for name in ["node", "node.tmp", "sequence/default.0", "sequence/default.0.tmp"] {
        paths.push(data.join(".logweir").join(name));
    }
    for name in ["current-0", "current-0.tmp", "probe.tmp"] {
        paths.push(data.join("default").join(name));
    }
    for sequence in 1..40 {
        for kind in ["log", "log.active", "trail", "trail.tmp", "torn", "torn.tmp", "log.tmp"] {
            paths.push(data.join(format!("default/000-{sequence:010}.{kind}")));
        }
    }
    for path in paths {
        command.arg("-P").arg(path);
    }
    command.arg(BINARY).args(["serve", "--admin", "127.0.0.1:0", "--data-dir", data.to_str().unwrap(), "--config"]);
    command.arg(data.with_extension("toml")).stdin(Stdio::null());
    command
}

struct Outcome {
    found: Findings,
    hit: bool,
    end: &'static str,
    memory: ledger::Memory,
    cap: u64,
}

/// One run: an injection, load, a kill, a recovery, the ledger.
fn run(dir: &Path, io: &str, ack: &str, call: &str, inject: &str, fail_at_end: &mut Vec<String>) -> Outcome {
    let data = dir.join("data");
    let (log, said) = (dir.join("strace"), dir.join("stderr"));
    let text = config("epoll", io, ack, "segment_size = \"256KiB\"\nsync_interval = \"20ms\"\n");
    std::fs::write(data.with_extension("toml"), text.replace("reserve_step = \"1MiB\"", "reserve_step = \"128KiB\""))
        .unwrap();
    let longest = if io == "direct" { 6000 } else { 600 };
    let mut clients =
        ["lines", "web", "plain", "relp"].iter().zip(0..).map(|(l, i)| Client::new(l, i, longest)).collect::<Vec<_>>();
    clients.iter_mut().for_each(|c| c.durable = ack == "durable");
    let mut command = traced(&data, &log, call, inject);
    command.stderr(std::fs::File::create(&said).unwrap());
    let what = format!("{io}, {ack}, {call}, {inject}");
    let (mut before, mut memory, mut cap) = (Default::default(), ledger::Memory::default(), 0);
    let end = match Server::launch(&mut command, &data) {
        Err((status, _)) if status.signal() == Some(libc::SIGKILL) => "killed at start",
        Err((status, _)) => {
            let said = std::fs::read_to_string(&said).unwrap();
            // Rust's standard library ends the process when closing a directory fails, and says so.
            let is_std = call == "close" && said.contains("unexpected error during closedir");
            if !is_std && (!matches!(status.code(), Some(1 | 78)) || !said.contains("logweir: ")) {
                fail_at_end.push(format!("{what}: no clear end at the start: {status}, {said}"));
            }
            "refused to start"
        }
        Ok(mut server) => {
            cap = ledger::memory_cap(&server.introduction);
            let watch = Watch::over(server.admin.unwrap(), server.pid());
            let mut end = "went on";
            before = under_load(&mut server, &clients, |server| {
                let begun = Instant::now();
                let admin = server.admin.unwrap();
                await_that("enough", || {
                    let acked: Vec<u64> = accounts(&clients[..2]).map(|a| a.acked()).collect();
                    let enough = acked.iter().sum::<u64>() > ENOUGH * 600 / longest && acked.iter().all(|a| *a > 20);
                    if server.is_gone() {
                        end = "ended";
                    } else if begun.elapsed() > LONG_ENOUGH {
                        end = "waited";
                    }
                    if !enough && end == "went on" {
                        let stopped = ledger::scrape(admin).is_some_and(|m| m.sum("logweir_intake_stopped", "") == 1.0);
                        end = if stopped { "stopped intake" } else { end };
                    }
                    enough || end != "went on"
                });
                ledger::acked_now(accounts(&clients))
            });
            memory = watch.end().memory;
            end
        }
    };
    let traced = await_trace(&log);
    let killed = inject.starts_with("signal") && matches!(end, "killed at start" | "ended");
    let hit = killed || traced.contains("(INJECTED)");
    if let Some(path) = synced_again(&traced) {
        fail_at_end.push(format!("{what}: {path} was synced again after its sync had failed"));
    }
    let said = std::fs::read_to_string(&said).unwrap();
    let ended_at_start = end == "refused to start";
    if said.contains("panicked") && !ended_at_start || end == "ended" && inject.starts_with("error") {
        fail_at_end.push(format!("{what}: {end}: {said}"));
    }
    let mut server = Server::start(&data, &["--config", data.with_extension("toml").to_str().unwrap()]);
    assert!(server.stop().success());
    let found = ledger::check(&data, accounts(&clients), &before);
    let synced = inject.contains("error=") && hit;
    if !found.is_honest() || (!synced && found.duplicate + found.gaps > 0) {
        fail_at_end.push(format!("{what}: {end}: {found:?}"));
    }
    std::fs::remove_dir_all(&data).unwrap();
    Outcome { found, hit, end, memory, cap }
}

/// What strace wrote, once it has seen the end of the server.
fn await_trace(log: &Path) -> String {
    let mut text = String::new();
    await_that("the end of strace", || {
        text = std::fs::read_to_string(log).unwrap_or_default();
        text.lines().last().is_some_and(|l| l.contains("+++ "))
    });
    text
}

/// A segment or trail that was synced though a sync of it had failed before.
fn synced_again(trace: &str) -> Option<String> {
    let mut failed: Vec<&str> = Vec::new();
    for line in trace.lines().filter(|l| l.contains("sync(")) {
        let path = line.split_once('<').and_then(|(_, p)| p.split_once('>')).map_or("", |(p, _)| p);
        if !(path.ends_with(".log.active") || path.ends_with(".trail")) {
            continue;
        }
        if failed.contains(&path) {
            return Some(path.to_string());
        }
        if line.contains("(INJECTED)") && !line.contains("EINTR") {
            failed.push(path);
        }
    }
    None
}

#[test]
fn an_error_at_any_call_loses_nothing_acknowledged() {
    let test = "an_error_at_any_call_loses_nothing_acknowledged";
    if strace_is_missing(test) {
        return;
    }
    let long = std::env::var_os("LOGWEIR_CALLS").is_some();
    let up_to = times("LOGWEIR_CALLS", UP_TO);
    let dir = scratch();
    let mut wrong = Vec::new();
    for (which, call) in CALLS.iter().enumerate() {
        let (mut found, mut runs, mut ends) = (Findings::default(), 0, BTreeMap::new());
        let (mut memory, mut cap) = (ledger::Memory::default(), 0);
        for (e, errno) in ERRNOS.iter().enumerate() {
            for n in 1..=up_to {
                if !long && (which as u64 + n) % ERRNOS.len() as u64 != e as u64 {
                    continue;
                }
                let io = if *call == "pwrite64" { "direct" } else { MODES[(e + n as usize) % MODES.len()] };
                let outcome = run(dir.path(), io, "durable", call, &format!("error={errno}:when={n}"), &mut wrong);
                if !outcome.hit {
                    break;
                }
                runs += 1;
                *ends.entry(outcome.end).or_insert(0u64) += 1;
                found.add(&outcome.found);
                memory = memory.most(outcome.memory);
                cap = cap.max(outcome.cap);
            }
        }
        let ends: Vec<String> = ends.iter().map(|(end, n)| format!("{end} {n}")).collect();
        let errnos = if long { "six errnos" } else { "an errno each" };
        row(
            "an error at the Nth call",
            &format!("{call}, {errnos}"),
            runs,
            &found,
            Some((memory, cap)),
            &ends.join(", "),
        );
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_kill_at_any_call_loses_nothing_acknowledged() {
    let test = "a_kill_at_any_call_loses_nothing_acknowledged";
    if strace_is_missing(test) {
        return;
    }
    let up_to = times("LOGWEIR_CALLS", UP_TO);
    let dir = scratch();
    let mut wrong = Vec::new();
    for call in CALLS {
        let (mut found, mut runs, mut ends) = (Findings::default(), 0, BTreeMap::new());
        for n in 1..=up_to {
            let io = if call == "pwrite64" { "direct" } else { MODES[n as usize % MODES.len()] };
            let ack = ["durable", "written"][n as usize / MODES.len() % 2];
            let outcome = run(dir.path(), io, ack, call, &format!("signal=KILL:when={n}"), &mut wrong);
            if !outcome.hit {
                break;
            }
            runs += 1;
            *ends.entry(outcome.end).or_insert(0u64) += 1;
            found.add(&outcome.found);
        }
        let ends: Vec<String> = ends.iter().map(|(end, n)| format!("{end} {n}")).collect();
        row("kill -9 at the Nth call", call, runs, &found, None, &ends.join(", "));
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// A segment that a kill left active is recovered by servers that are killed at each call, and then by one that lives.
#[test]
fn a_kill_at_any_call_of_recovery_loses_nothing_acknowledged() {
    let test = "a_kill_at_any_call_of_recovery_loses_nothing_acknowledged";
    if strace_is_missing(test) {
        return;
    }
    let up_to = times("LOGWEIR_CALLS", UP_TO);
    let dir = scratch();
    let (data, log) = (dir.path().join("data"), dir.path().join("strace"));
    for call in ["pwritev2", "fsync", "rename", "renameat2", "openat", "fallocate", "ftruncate", "close", "unlink"] {
        let text = config("epoll", "auto", "durable", "segment_size = \"256KiB\"\n");
        let clients = [Client::new("lines", 0, 600), Client::new("plain", 2, 600)];
        let mut server = Server::with_config(&data, &text);
        let before = under_load(&mut server, &clients, |_| {
            await_that("enough", || clients[0].account.acked() > 900);
            ledger::acked_now(accounts(&clients))
        });
        let mut kills = 0;
        for n in 1..=up_to {
            let command = &mut traced(&data, &log, call, &format!("signal=KILL:when={n}"));
            let mut launched = Server::launch(command.stderr(Stdio::null()), &data);
            if let Ok(server) = &mut launched {
                server.kill();
            }
            await_trace(&log);
            match launched {
                Ok(_) => break, // recovered, without so many calls
                Err((status, said)) => assert_eq!(status.signal(), Some(libc::SIGKILL), "{call} {n}: {said}"),
            }
            kills += 1;
        }
        let mut server = Server::with_config(&data, &text);
        assert!(server.stop().success());
        let found = ledger::check(&data, accounts(&clients), &before);
        found.must_be_clean(&format!("{call}, {kills} kills"));
        row("kill -9 at the Nth call of recovery", call, kills, &found, None, "");
        std::fs::remove_dir_all(&data).unwrap();
    }
}

#[test]
fn the_trace_reader_sees_a_second_sync() {
    let bad = "1 fdatasync(9</d/000-0000000001.log.active>) = -1 EIO (Input/output error) (INJECTED)\n\
               1 fsync(9</d/000-0000000001.log.active>) = 0\n";
    assert!(synced_again(bad).is_some());
    assert!(synced_again(&bad.replace("(INJECTED)", "")).is_none());
    assert!(synced_again(&bad.replace("1 fsync(9</d/000-0000000001", "1 fsync(9</d/000-0000000002")).is_none());
}
