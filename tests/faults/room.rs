//! A disk without room, and a slow one.

use crate::common::image::{FileSystem, Image, await_full_for_good, fill, full};
use crate::common::ledger::{self, Findings, Watch, row, times};
use crate::common::{Metrics, Server, await_that, scratch, skipped};
use crate::fuse::Mounted;
use crate::load::{Client, accounts, config, mixed, send_exactly, under_load};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The disk fills under load, `leave` bytes after it was filled from outside, and has room again a while later.
fn fills_up(image: &Image, dir: &Path, leave: u64, found: &mut Findings) -> (ledger::Memory, u64) {
    let data = image.mount.join("data");
    let path = dir.join("logweir.toml");
    let text = config("auto", "auto", "durable", "segment_size = \"512KiB\"\nsync_interval = \"20ms\"\n");
    std::fs::write(&path, text).unwrap();
    let clients = mixed(900);
    let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
    let cap = ledger::memory_cap(&server.introduction);
    let watch = Watch::over(server.admin.unwrap(), server.pid());
    let before = under_load(&mut server, &clients, |server| {
        await_that("a beginning", || accounts(&clients).all(|a| a.acked() > 20));
        fill(&image.mount, leave);
        // While it is full nothing is acknowledged that is not on it: a kill now must lose nothing.
        await_full_for_good(server);
        let acked = ledger::acked_in_all(accounts(&clients));
        std::fs::remove_file(image.mount.join("ballast")).unwrap();
        await_that("the disk to have room", || !full(server));
        // The HTTP clients were told 503, or waited; those with lines go on.
        await_that("intake to resume", || ledger::acked_in_all(accounts(&clients)) > acked + 500);
        ledger::acked_now(accounts(&clients))
    });
    let memory = watch.end().memory;
    let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
    assert!(server.stop().success());
    let now = ledger::check(&data, accounts(&clients), &before);
    now.must_be_clean(&format!("full with {leave} bytes left"));
    found.add(&now);
    ledger::clear(&data);
    (memory, cap)
}

#[test]
fn a_full_disk_stops_intake_and_resumes_and_splits_no_line() {
    let test = "a_full_disk_stops_intake_and_resumes_and_splits_no_line";
    for kind in [FileSystem::Ext4, FileSystem::Ext4SmallBlocks, FileSystem::Xfs] {
        let dir = scratch();
        // Large enough that a busy machine's load does not fill it by itself.
        let image = match Image::new(kind, dir.path(), &dir.path().join("mount"), 768 << 20) {
            Ok(image) => image,
            Err(why) => return skipped(test, &why),
        };
        let (mut found, mut runs, mut memory, mut cap) = (Findings::default(), 0, ledger::Memory::default(), 0);
        for _ in 0..times("LOGWEIR_FULL", 1) {
            // At once; in the middle of a segment; at a rotation, with no room for the next one's reserve.
            for leave in [0, 300 << 10, 1500 << 10] {
                let seen = fills_up(&image, dir.path(), leave, &mut found);
                (memory, cap) = (memory.most(seen.0), seen.1);
                runs += 1;
            }
        }
        assert!(memory.own_kib << 10 <= cap, "{memory:?} of {cap}");
        let note = "filled under load, kept full, freed; then kill -9";
        row("disk full", &format!("{kind:?}, block and 503"), runs, &found, Some((memory, cap)), note);
    }
}

#[test]
fn a_server_on_a_full_disk_says_so_and_loses_nothing() {
    let dir = scratch();
    let image = match Image::new(FileSystem::Ext4, dir.path(), &dir.path().join("mount"), 192 << 20) {
        Ok(image) => image,
        Err(why) => return skipped("a_server_on_a_full_disk_says_so_and_loses_nothing", &why),
    };
    let data = image.mount.join("data");
    let path = dir.path().join("logweir.toml");
    std::fs::write(&path, config("auto", "auto", "durable", "segment_size = \"512KiB\"\n")).unwrap();
    let args = ["--config", path.to_str().unwrap()];
    let clients = mixed(900);
    let mut server = Server::start(&data, &args);
    let before = under_load(&mut server, &clients, |_| {
        await_that("a beginning", || accounts(&clients).all(|a| a.acked() > 50));
        ledger::acked_now(accounts(&clients))
    });
    fill(&image.mount, 0);
    let mut command = std::process::Command::new(crate::common::BINARY);
    command.args(["serve", "--admin", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()]).args(args);
    let said = dir.path().join("said");
    command.stdin(std::process::Stdio::null()).stderr(std::fs::File::create(&said).unwrap());
    let has_said = |what: &str| std::fs::read_to_string(&said).unwrap().contains(what);
    let note = std::thread::scope(|scope| {
        let start = scope.spawn(|| Server::launch(&mut command, &data));
        // Here and there what is left is enough.
        await_that("a start that waits, or one that has room", || {
            has_said("no room on the disk to start") || start.is_finished()
        });
        let note = if start.is_finished() { "starts" } else { "waits, and starts when there is room" };
        std::fs::remove_file(image.mount.join("ballast")).unwrap();
        let mut server = start.join().unwrap().unwrap_or_else(|(status, _)| panic!("{status}"));
        assert_eq!(has_said("No space left on device"), note.starts_with("waits"));
        server.kill();
        note
    });
    assert!(Server::start(&data, &args).stop().success());
    let found = ledger::check(&data, accounts(&clients), &before);
    found.must_be_clean("started on a full disk");
    row("disk full", "Ext4, at the start, with a segment to recover", 1, &found, None, note);
}

/// One shard's files are on a slow disk, the other's are not.
#[test]
fn a_slow_disk_holds_up_its_shard_only_and_memory_stays_where_it_is() {
    let test = "a_slow_disk_holds_up_its_shard_only_and_memory_stays_where_it_is";
    let dir = scratch();
    let seconds = times("LOGWEIR_SLOW_SECONDS", 1);
    let mounted = match Mounted::new(&dir.path().join("mount")) {
        Ok(mounted) => mounted,
        Err(why) => return skipped(test, &why),
    };
    let data = mounted.mount.join("data");
    let path = dir.path().join("logweir.toml");
    let text = config("auto", "append", "durable", "segment_size = \"8MiB\"\nsync_interval = \"20ms\"\n");
    std::fs::write(&path, format!("{text}[placement]\nshards = 2\nreactors_per_shard = 1\n")).unwrap();
    let clients: Vec<Client> = (0..8).map(|i| Client::new("lines", i, 900)).collect();
    let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
    let cap = ledger::memory_cap(&server.introduction);
    let watch = Watch::over(server.admin.unwrap(), server.pid());
    let mut note = String::new();
    let before = under_load(&mut server, &clients, |_| {
        await_that("a beginning", || accounts(&clients).all(|a| a.acked() > 50));
        *mounted.disk.knobs.slow.lock().unwrap() = "001-".into();
        mounted.disk.knobs.sync_delay_ms.store(seconds * 1000, Ordering::SeqCst);
        let start = ledger::acked_now(accounts(&clients));
        let begun = Instant::now();
        ledger::pass(Duration::from_millis(seconds * 2500));
        let progress: Vec<u64> = accounts(&clients).map(|a| a.acked() - start[&a.connection]).collect();
        let took = begun.elapsed();
        mounted.disk.knobs.sync_delay_ms.store(0, Ordering::SeqCst);
        let (mut fast, mut slow) = (progress.clone(), progress);
        fast.sort_unstable();
        slow.sort_unstable_by(|a, b| b.cmp(a));
        // Half of the connections belong to each shard. Two to three syncs of the slow one went through.
        let (fast, slow) = (fast[4..].iter().sum::<u64>(), slow[4..].iter().sum::<u64>());
        note = format!("in {took:.1?} the shard beside it took {fast} lines, the slow one {slow}");
        assert!(fast > 3 * slow && fast > 500, "{note}");
        await_that("all again", || accounts(&clients).all(|a| a.acked() > start[&a.connection] + 100));
        ledger::acked_now(accounts(&clients))
    });
    let memory = watch.end().memory;
    assert!(memory.own_kib << 10 <= cap, "{memory:?} of {cap}");
    let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
    assert!(server.stop().success());
    let found = ledger::check(&data, accounts(&clients), &before);
    found.must_be_clean("slow disk");
    row("slow disk", &format!("FUSE, each sync of one shard takes {seconds} s"), 1, &found, Some((memory, cap)), &note);
}

/// What is dropped is counted exactly, by both policies, and what waits for an answer loses nothing.
#[test]
fn a_slow_disk_drops_as_told_and_counts_exactly() {
    let dir = scratch();
    let delay = times("LOGWEIR_SLOW_SECONDS", 0) * 1000 + 300;
    for (policy, reason) in [("drop_newest", "buffer_full"), ("drop_oldest", "evicted")] {
        let mounted = match Mounted::new(&dir.path().join("mount")) {
            Ok(mounted) => mounted,
            Err(why) => return skipped("a_slow_disk_drops_as_told_and_counts_exactly", &why),
        };
        let data = mounted.mount.join("data");
        let path = dir.path().join("logweir.toml");
        let text = config("auto", "append", "durable", "segment_size = \"8MiB\"\nsync_interval = \"20ms\"\n")
            .replace("16MiB", "12MiB");
        let more = "[listener.lossy]\naddress = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"64KiB\"\n";
        std::fs::write(&path, format!("{text}{more}when_full = \"{policy}\"\n")).unwrap();
        let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
        let cap = ledger::memory_cap(&server.introduction);
        let watch = Watch::over(server.admin.unwrap(), server.pid());
        let clients = [Client::new("lossy", 1, 3000), Client::new("lossy", 2, 3000)];
        mounted.disk.knobs.write_delay_ms.store(delay, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for client in &clients {
                scope.spawn(|| send_exactly(&server, "lossy", &client.account, 20_000));
            }
        });
        mounted.disk.knobs.write_delay_ms.store(0, Ordering::SeqCst);
        let count = |m: &Metrics, what: &str| m.sum(&format!("logweir_{what}_lines_total"), "\"lossy\"");
        await_that("quiet", || count(&server.metrics(), "received") == 40_000.0);
        await_that("all written", || server.metrics().sum("logweir_in_flight_lines", "") == 0.0);
        let last = server.metrics();
        last.check_accounts();
        assert!(server.stop().success());
        let watched = watch.end();
        let dropped = count(&last, "dropped");
        let found = ledger::check(&data, accounts(&clients), &Default::default());
        found.must_be_honest(policy);
        assert_eq!(found.duplicate, 0);
        assert_eq!(last.sum("logweir_dropped_lines_total", reason), dropped);
        assert_eq!(found.lines as f64, 40_000.0 - dropped, "{policy}: what was dropped is counted exactly");
        assert!(dropped > 1000.0, "{policy}: {dropped}");
        let memory = watched.memory;
        assert!(memory.own_kib << 10 <= cap, "{memory:?} of {cap}");
        let note = format!("of 40000 lines {dropped} dropped and counted, {} scrapes balance", watched.scrapes);
        row("slow disk", &format!("FUSE, {delay} ms a write, {policy}"), 1, &found, Some((memory, cap)), &note);
    }
}

/// A file system that promises room and does not keep it: ENOSPC in the middle of a batch.
#[test]
fn room_that_ends_in_the_middle_of_a_line_splits_none() {
    let test = "room_that_ends_in_the_middle_of_a_line_splits_none";
    let dir = scratch();
    let mounted = match Mounted::new(&dir.path().join("mount")) {
        Ok(mounted) => mounted,
        Err(why) => return skipped(test, &why),
    };
    let data = mounted.mount.join("data");
    let path = dir.path().join("logweir.toml");
    let (mut all, runs) = (Findings::default(), times("LOGWEIR_FULL", 2));
    for run in 0..runs {
        let io = ["append", "direct"][run as usize % 2];
        std::fs::write(&path, config("auto", io, "durable", "segment_size = \"4MiB\"\nsync_interval = \"20ms\"\n"))
            .unwrap();
        let args = ["--config", path.to_str().unwrap()];
        let clients = mixed(900);
        let mut server = Server::start(&data, &args);
        let watch = Watch::over(server.admin.unwrap(), server.pid());
        let before = under_load(&mut server, &clients, |server| {
            await_that("a beginning", || accounts(&clients).all(|a| a.acked() > 50));
            let disk = &mounted.disk;
            // Room for a part of a line, and then for parts of some more.
            for _ in 0..3 {
                disk.knobs.capacity.store(disk.used() + 12_345 + run * 77, Ordering::SeqCst);
                await_that("the disk to be full", || full(server));
            }
            let acked = ledger::acked_in_all(accounts(&clients));
            disk.knobs.capacity.store(u64::MAX, Ordering::SeqCst);
            await_that("intake to resume", || ledger::acked_in_all(accounts(&clients)) > acked + 300);
            ledger::acked_now(accounts(&clients))
        });
        watch.end();
        assert!(Server::start(&data, &args).stop().success());
        let found = ledger::check(&data, accounts(&clients), &before);
        found.must_be_clean(io);
        all.add(&found);
        ledger::clear(&data);
    }
    row("disk full", "FUSE, room ends in the middle of a line", runs, &all, None, "resumes alone");
}
