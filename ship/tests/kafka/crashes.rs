//! What happens to a whole machine while a shipper runs: power cuts, kills with lines in the commit log only, clocks that jump.

use crate::brokers::{PATIENCE, await_that, brokers, skipped};
use crate::node::{Arrived, Node, Server, check, kill};
use nix::sys::signal::Signal;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    match Command::new(program).args(args).env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin").output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => Err(format!("{program}: {error}")),
    }
}

/// The data directory of a node as a file system of its own, whose power can be cut.
struct Volume {
    image: PathBuf,
    mount: PathBuf,
}

/// `EXT4_IOC_SHUTDOWN` without a flush of the journal: what the disk has at this moment is what there will be.
const CUT: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

impl Volume {
    fn new(node: &Node) -> Result<Volume, String> {
        if !nix::unistd::Uid::effective().is_root() {
            return Err("needs root to mount".into());
        }
        let volume = Volume { image: node.dir.path().join("image"), mount: node.data() };
        std::fs::create_dir_all(&volume.mount).unwrap();
        std::fs::File::create(&volume.image).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-b", "4096", volume.image.to_str().unwrap()])?;
        run("mount", &["-o", "loop", volume.image.to_str().unwrap(), volume.mount.to_str().unwrap()])?;
        Ok(volume)
    }

    fn cut(&self) {
        run("python3", &["-c", CUT, self.mount.to_str().unwrap()]).unwrap();
    }

    /// As after a reboot: the journal is replayed.
    fn reboot(&self) {
        let (image, mount) = (self.image.to_str().unwrap(), self.mount.to_str().unwrap());
        await_that("unmount", || run("umount", &[mount]).is_ok());
        run("mount", &["-o", "loop", image, mount]).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: where a test has failed, somebody may still be in it.
        let _ = run("umount", &["-l", self.mount.to_str().unwrap()]);
    }
}

/// Sends numbered lines, a few at a time, until the server is gone. Returns the number that is next.
fn send_until_gone(server: &Server, next: u64, is_over: &AtomicBool) -> u64 {
    let (mut stream, mut next) = (server.connect("a"), next);
    while !is_over.load(Ordering::Relaxed) {
        let mut text = String::new();
        (next..next + 50).for_each(|number| writeln!(text, "one {number}").unwrap());
        next += 50;
        if stream.write_all(text.as_bytes()).is_err() {
            break;
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    next
}

/// Raises a flag when it goes.
struct Raised<'a>(&'a AtomicBool);

impl Drop for Raised<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn lines(arrived: &[Arrived]) -> Vec<&str> {
    arrived.iter().map(|one| one.line.as_str()).collect()
}

#[test]
fn nothing_arrives_that_a_power_cut_takes_from_the_disk() {
    let test = "nothing_arrives_that_a_power_cut_takes_from_the_disk";
    let Some(brokers) = brokers(test) else { return };
    let node = Node::new(&brokers, "cuts", "");
    let volume = match Volume::new(&node) {
        Ok(volume) => volume,
        Err(why) => return skipped(test, &why),
    };
    // Much is written and not synced at any time.
    let config = std::fs::read_to_string(node.config()).unwrap();
    std::fs::write(node.config(), config.replace("sync_interval = \"20ms\"", "sync_interval = \"300ms\"")).unwrap();
    let mut next = 0;
    for round in 0..4 {
        let (mut server, is_over) = (node.serve(), AtomicBool::new(false));
        let mut shipper = node.shipper().spawn().unwrap();
        next = std::thread::scope(|scope| {
            let sender = scope.spawn(|| send_until_gone(&server, next, &is_over));
            // It ends also where the wait fails.
            let _over = Raised(&is_over);
            let shipped = || server.metric("logweir_ship_lines_total", "k").is_some_and(|lines| lines > 1_000.0);
            await_that("lines to arrive", shipped);
            // Wherever it is now: before, in, or behind a transaction.
            std::thread::park_timeout(Duration::from_millis(37 * round));
            volume.cut();
            is_over.store(true, Ordering::Relaxed);
            sender.join().unwrap()
        });
        // Whatever it has sent since then is as good as sent before.
        let _ = shipper.kill();
        shipper.wait().unwrap();
        server.signal(Signal::SIGKILL);
        volume.reboot();
        let arrived = node.arrived("a");
        let had = arrived.len();
        node.serve().stop(); // recovers what the cut has left
        let there = node.on_disk("a");
        assert!(there.len() >= had, "{had} lines arrived, {} are on the disk", there.len());
        assert_eq!(lines(&arrived), there[..had]);
    }
    assert!((node.on_disk("a").len() as u64) < next, "no cut took anything");
    node.ship();
    assert_eq!(lines(&node.arrived("a")), node.on_disk("a"), "what is durable arrived once, and nothing else");
}

#[test]
fn what_a_start_brings_from_the_commit_log_arrives_once() {
    let test = "what_a_start_brings_from_the_commit_log_arrives_once";
    let Some(brokers) = brokers(test) else { return };
    let node = Node::new(&brokers, "logged", "");
    let config = std::fs::read_to_string(node.config()).unwrap();
    // Lines stay in the log for a while before they are written to their segment.
    let config = config
        .replacen("data_dir", "engine = \"io_uring\"\ndata_dir", 1)
        .replace("[storage]", "[buffer]\nlinger = \"500ms\"\n[storage]\ncommit_log = \"1MiB\"")
        .replacen("stream = \"a\"", "stream = \"a\"\nreply = \"count\"", 1);
    std::fs::write(node.config(), config).unwrap();
    let mut shipper = None;
    let (mut sent, mut brought) = (0_u64, 0);
    for _ in 0..6 {
        let mut server = node.serve();
        let is_there = || server.metric_of("logweir_commit_logs{shard=\"0\"}").is_some_and(|logs| logs > 0.0);
        await_that("the commit log", is_there);
        let shipper = shipper.get_or_insert_with(|| node.shipper().spawn().unwrap());
        assert!(shipper.try_wait().unwrap().is_none(), "it lives through all of it");
        let mut stream = BufReader::new(server.connect("a"));
        for _ in 0..20 {
            writeln!(stream.get_mut(), "one {sent}").unwrap();
            let mut answer = String::new();
            stream.read_line(&mut answer).unwrap();
            sent += 1;
        }
        // All of them are durable: the client was told.
        server.signal(Signal::SIGKILL);
        let last = format!("one {}\n", sent - 1);
        let files = std::fs::read_dir(node.data().join("a")).unwrap().map(|entry| entry.unwrap().path());
        let texts = files
            .filter(|path| path.to_string_lossy().ends_with(".log.active"))
            .map(|path| std::fs::read(path).unwrap());
        brought += u64::from(!texts.collect::<Vec<_>>().iter().any(|text| text.ends_with(last.as_bytes())));
    }
    assert!(brought > 0, "no kill left anything in the commit log only");
    node.serve().stop();
    await_that("all to arrive", || node.arrived("a").len() as u64 >= sent);
    let mut shipper = shipper.unwrap();
    kill(shipper.id() as i32, Signal::SIGTERM);
    assert!(shipper.wait().unwrap().success());
    node.ship();
    check(&node.arrived("a"), &[("one", sent)]);
}

const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const DAY_MS: i64 = 86_400_000;

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[test]
fn lines_of_a_clock_that_jumps_arrive_once_with_the_times_of_their_receipt() {
    let test = "lines_of_a_clock_that_jumps_arrive_once_with_the_times_of_their_receipt";
    if !Path::new(FAKETIME).exists() {
        return skipped(test, "libfaketime is not installed");
    }
    let Some(brokers) = brokers(test) else { return };
    let node = Node::new(&brokers, "jumps", "");
    let clock = node.dir.path().join("clock");
    let set = |to: &str| {
        let new = clock.with_extension("new");
        std::fs::write(&new, to).unwrap();
        std::fs::rename(&new, &clock).unwrap();
    };
    set("+0");
    let server = node.serve_by(|command| {
        command.arg("--no-sandbox").env("LD_PRELOAD", FAKETIME).env("FAKETIME_TIMESTAMP_FILE", &clock);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
    });
    let mut shipper = node.shipper().spawn().unwrap();
    let begun = now_ms();
    let (sent, jumps) = (AtomicU64::new(0), [0, 365, -365, 0, -1, 1, 0]);
    for days in jumps {
        set(&format!("{days:+}d"));
        let from = sent.fetch_add(20_000, Ordering::Relaxed);
        server.send("a", "one", from..from + 20_000);
        // Those that are written only after the next jump would have its time.
        await_that("lines to arrive", || node.arrived("a").len() as u64 == from + 20_000);
    }
    kill(shipper.id() as i32, Signal::SIGTERM);
    assert!(shipper.wait().unwrap().success());
    server.stop();
    node.ship();
    let arrived = node.arrived("a");
    check(&arrived, &[("one", sent.into_inner())]);
    let slack = PATIENCE.as_millis() as i64;
    for (group, days) in arrived.chunks(20_000).zip(jumps) {
        // Nothing was received tomorrow: brokers refuse such times, so those lines have the time at which they were shipped.
        let (from, to) = (begun + days.min(0) * DAY_MS, now_ms() + days.min(0) * DAY_MS);
        let times = group.iter().map(|one| one.time.unwrap());
        let (least, most) = (times.clone().min().unwrap(), times.max().unwrap());
        assert!(least >= from - slack && most <= to + slack, "{days} days: {least} to {most}, not {from} to {to}");
    }
}
