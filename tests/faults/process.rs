//! What happens to a process: no descriptors, no memory, another time, a pause.

use crate::common::ledger::{self, Findings, Watch, row, times};
use crate::common::manager::Manager;
use crate::common::{BINARY, Server, await_that, scratch, skipped};
use crate::fuse::Mounted;
use crate::load::{Client, accounts, config, mixed, under_load};
use nix::sys::signal::Signal;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const STORAGE: &str = "segment_size = \"512KiB\"\nsync_interval = \"20ms\"\n";

/// `serve` behind some other program that becomes it.
fn behind(before: &[&str], data: &Path, path: &Path) -> Command {
    let words =
        [before, &[BINARY, "serve", "--admin", "127.0.0.1:0", "--data-dir", data.to_str().unwrap(), "--config"]]
            .concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(path).stdin(Stdio::null());
    command
}

fn recovered(data: &Path, path: &Path, clients: &[Client], before: &std::collections::HashMap<u32, u64>) -> Findings {
    let mut server = Server::start(data, &["--config", path.to_str().unwrap()]);
    assert!(server.stop().success());
    ledger::check(data, accounts(clients), before)
}

#[test]
fn without_descriptors_it_goes_on_serving_and_rotating() {
    let dir = scratch();
    let (data, path) = (dir.path().join("data"), dir.path().join("logweir.toml"));
    for engine in crate::load::ENGINES {
        let text =
            config(engine, "direct", "durable", STORAGE).replace("max_connections = 64", "max_connections = 1000");
        std::fs::write(&path, text).unwrap();
        let clients = mixed(6000);
        let mut server = Server::launch(&mut behind(&["env"], &data, &path), &data).unwrap();
        let watch = Watch::over(server.admin.unwrap(), server.pid());
        let address = server.address("plain");
        let before = under_load(&mut server, &clients, |server| {
            await_that("a beginning", || accounts(&clients).all(|a| a.acked() > 50));
            let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).map_or(0, Iterator::count);
            // The limit falls below what the server reckoned with: its table is full with ten connections more.
            let limit = descriptors() + 10;
            crate::common::image::run(
                "prlimit",
                &["--pid", &server.pid().to_string(), &format!("--nofile={limit}:{limit}")],
            )
            .unwrap();
            let crowd: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(address).unwrap()).collect();
            await_that("a full table", || descriptors() >= limit - 4);
            let now = ledger::acked_now(accounts(&clients));
            // Some segments' worth: each takes new descriptors.
            await_that("rotations", || accounts(&clients).all(|a| a.acked() > now[&a.connection] + 300));
            drop(crowd);
            await_that("room again", || {
                ledger::scrape(server.admin.unwrap())
                    .is_some_and(|m| m.sum("logweir_connections", "") <= clients.len() as f64)
            });
            // An accept that io_uring was given before keeps the limit that held then.
            assert!(engine != "epoll" || server.metrics().sum("logweir_accept_failures_total", "") > 0.0);
            assert!(server.metrics().sum("logweir_rotations_total", "") > 3.0);
            assert_eq!(server.metrics().sum("logweir_intake_stopped", ""), 0.0);
            ledger::acked_now(accounts(&clients))
        });
        watch.end();
        let found = recovered(&data, &path, &clients, &before);
        found.must_be_clean(engine);
        ledger::clear(&data);
        row(
            "out of descriptors",
            &format!("room for 10 more, 100 connect, direct, {engine}"),
            1,
            &found,
            None,
            "goes on, rotates",
        );
    }
}

/// A group of processes with a limit; removed when dropped.
struct Group(PathBuf);

impl Group {
    fn new(limit: u64) -> Result<Group, String> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/memory/logweir-faults-{}", std::process::id()));
        std::fs::create_dir(&path).map_err(|e| format!("no cgroup v1 for memory: {e}"))?;
        let group = Group(path);
        std::fs::write(group.0.join("memory.limit_in_bytes"), limit.to_string()).map_err(|e| e.to_string())?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let begun = Instant::now();
        while std::fs::remove_dir(&self.0).is_err() && begun.elapsed() < Duration::from_secs(5) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// Limits from too small to start up to plenty: each time the server is killed or lives, and nothing acknowledged is lost.
#[test]
fn out_of_memory_is_a_kill_like_any_other() {
    let dir = scratch();
    let (data, path) = (dir.path().join("data"), dir.path().join("logweir.toml"));
    std::fs::write(&path, config("epoll", "append", "durable", STORAGE)).unwrap();
    let (mut killed, mut runs, mut lives, mut all) = (0, 0, 0, Findings::default());
    for limit_kib in (4 << 10..32 << 10).step_by((1024 / times("LOGWEIR_OOM", 1).min(16)).max(64) as usize) {
        let group = match Group::new(limit_kib << 10) {
            Ok(group) => group,
            Err(why) => return skipped("out_of_memory_is_a_kill_like_any_other", &why),
        };
        let clients = mixed(900);
        let enter = format!("echo $$ > {}/tasks; exec \"$@\"", group.0.display());
        let launched = Server::launch(&mut behind(&["sh", "-c", &enter, "sh"], &data, &path), &data);
        runs += 1;
        let before = match launched {
            Err((status, said)) => {
                assert!(
                    status.signal() == Some(libc::SIGKILL) || status.code() == Some(1),
                    "{limit_kib} KiB: {status}: {said}"
                );
                killed += 1;
                continue;
            }
            Ok(mut server) => under_load(&mut server, &clients, |server| {
                let mut gone = false;
                await_that("enough or the end", || {
                    gone = server.is_gone();
                    gone || ledger::acked_in_all(accounts(&clients)) > 8000 // some may have been refused: it is slow then
                });
                killed += u64::from(gone);
                lives += u64::from(!gone);
                ledger::acked_now(accounts(&clients))
            }),
        };
        let found = recovered(&data, &path, &clients, &before);
        found.must_be_clean(&format!("{limit_kib} KiB"));
        all.add(&found);
        ledger::clear(&data);
        if lives >= 3 {
            break;
        }
    }
    assert!(killed > 0 && lives > 0, "{killed} {lives}");
    let note = format!("limits from 4 MiB up: {killed} killed, {lives} lived; sum printed 16 MiB and connections");
    row("out of memory", "cgroup limit", runs, &all, None, &note);
}

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

#[test]
fn jumps_of_the_clock_change_nothing() {
    if !Path::new(FAKETIME).exists() {
        return skipped("jumps_of_the_clock_change_nothing", "libfaketime is not installed");
    }
    let dir = scratch();
    let (data, path, clock) = (dir.path().join("data"), dir.path().join("logweir.toml"), dir.path().join("clock"));
    let storage = "segment_size = \"1MiB\"\nsegment_age = \"1s\"\nsync_interval = \"20ms\"\n";
    std::fs::write(&path, config("auto", "auto", "durable", storage)).unwrap();
    let set = |to: &str| {
        let new = clock.with_extension("new");
        std::fs::write(&new, to).unwrap();
        std::fs::rename(&new, &clock).unwrap();
    };
    set("+0");
    let clients = mixed(900);
    let mut command = behind(&["env"], &data, &path);
    command.env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", &clock).env("FAKETIME_NO_CACHE", "1");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    let said = dir.path().join("said");
    let mut server = Server::launch(command.stderr(std::fs::File::create(&said).unwrap()), &data).unwrap();
    let watch = Watch::over(server.admin.unwrap(), server.pid());
    let jumps = ["+365d", "-365d", "+0", "+366d", "-366d", "+1d", "+0"];
    let before = under_load(&mut server, &clients, |server| {
        for jump in jumps {
            set(jump);
            let now = ledger::acked_now(accounts(&clients));
            let rotations = server.metrics().sum("logweir_rotations_total", "");
            await_that("progress", || accounts(&clients).all(|a| a.acked() > now[&a.connection] + 100));
            await_that("rotation", || server.metrics().sum("logweir_rotations_total", "") > rotations);
        }
        ledger::acked_now(accounts(&clients))
    });
    watch.end();
    let trails: Vec<u64> = wall_seconds(&data);
    let (least, most) = (trails.iter().min().unwrap(), trails.iter().max().unwrap());
    assert!(most - least > 700 * 86_400, "the clock really jumped: {least} {most}");
    let found = recovered(&data, &path, &clients, &before);
    found.must_be_clean("jumps");
    row(
        "clock jumps",
        "a year forth and back, libfaketime",
        jumps.len() as u64,
        &found,
        None,
        "rotation and syncs go on",
    );
}

/// When the segments were begun by the wall clock, as their trails say.
fn wall_seconds(data: &Path) -> Vec<u64> {
    let trail = |path: &Path| {
        let disk = logweir::log::real_disk::RealDisk::new();
        let file = logweir::log::disk::Disk::open(&disk, path).ok()?;
        Some(logweir::log::trail::Trail::read(&*file).ok()?.header?.wall_ns / 1_000_000_000)
    };
    let entries = std::fs::read_dir(data.join("default")).unwrap().map(|e| e.unwrap().path());
    entries.filter(|p| p.extension().is_some_and(|e| e == "trail")).filter_map(|p| trail(&p)).collect()
}

/// Stopped while clients send and wait: nothing is acknowledged meanwhile, and nothing lost if it is killed then.
#[test]
fn a_stopped_server_acknowledges_nothing() {
    let dir = scratch();
    let (data, path) = (dir.path().join("data"), dir.path().join("logweir.toml"));
    std::fs::write(&path, config("auto", "auto", "durable", STORAGE)).unwrap();
    let seconds = times("LOGWEIR_STOP_SECONDS", 1);
    let (mut all, mut runs) = (Findings::default(), 0);
    for killed in [false, true] {
        let clients = mixed(900);
        let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
        let pid = server.pid();
        let before = under_load(&mut server, &clients, |server| {
            await_that("a beginning", || accounts(&clients).all(|a| a.acked() > 100));
            server.signal(Signal::SIGSTOP);
            let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            await_that("the stop", || state().rsplit(") ").next().unwrap().starts_with('T'));
            // What was answered before is still on its way, and on a busy machine its readers may be too.
            let (mut acked, mut quiet) = (0, 0);
            await_that("the last answers", || {
                ledger::pass(Duration::from_millis(100));
                let now = ledger::acked_in_all(accounts(&clients));
                quiet = if now == acked { quiet + 1 } else { 0 };
                acked = now;
                quiet >= 8
            });
            ledger::pass(Duration::from_secs(seconds));
            assert_eq!(ledger::acked_in_all(accounts(&clients)), acked, "no acknowledgement while it is stopped");
            if !killed {
                server.signal(Signal::SIGCONT);
                await_that("progress", || ledger::acked_in_all(accounts(&clients)) > acked + 1000);
            }
            ledger::acked_now(accounts(&clients))
        });
        let found = recovered(&data, &path, &clients, &before);
        found.must_be_clean("stopped");
        all.add(&found);
        ledger::clear(&data);
        runs += 1;
    }
    let variant = format!("{seconds} s, then SIGCONT or kill -9");
    row("SIGSTOP", &variant, runs, &all, None, "no acknowledgement meanwhile");
}

/// The manager's watchdog is not fed by a timer: a writer that hangs in a write is found out.
#[test]
fn a_writer_that_hangs_does_not_feed_the_watchdog() {
    let test = "a_writer_that_hangs_does_not_feed_the_watchdog";
    let dir = scratch();
    let mounted = match Mounted::new(&dir.path().join("mount")) {
        Ok(mounted) => mounted,
        Err(why) => return skipped(test, &why),
    };
    let (manager, log) = (Manager::new(dir.path()), dir.path().join("log"));
    let args = ["--listen", "tcp://127.0.0.1:0", "--set", "storage.io=append"];
    let environment = [("WATCHDOG_USEC", "200000")];
    let server = manager.start_logged(&mounted.mount.join("data"), &args, &[], &environment, &log);
    let fed = || manager.count("WATCHDOG=1");
    await_that("fed", || fed() > 3);
    mounted.disk.knobs.write_delay_ms.store(2_000, Ordering::SeqCst);
    let said = |what: &str| std::fs::read_to_string(&log).unwrap().contains(what);
    crate::common::send_all(server.address("lines"), b"a line that takes long\n");
    await_that("the writer is missed", || said("no sign of life"));
    assert!(said("writer of shard 0"));
    let before = fed();
    ledger::pass(Duration::from_millis(600)); // three times what the manager allows
    assert_eq!(fed(), before, "not fed while it hangs");
    mounted.disk.knobs.write_delay_ms.store(0, Ordering::SeqCst);
    await_that("fed again", || fed() > before && said("every thread answers again"));
    await_that("the line", || server.cat() == b"a line that takes long\n");
}
