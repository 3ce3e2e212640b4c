//! Power cuts on a file system that forgets everything that was not synced, directory entries too.

use crate::common::ledger::{self, Dice, Findings, Watch, clear, row};
use crate::common::{Server, await_that, scratch, skipped};
use crate::fuse::Mounted;
use crate::kills::killed_early;
use crate::load::{Client, ENGINES, accounts, await_commit_log, config, mixed, under_load};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Cuts for each way to run a server in `cargo test`; LOGWEIR_FORGETFUL_CUTS asks for more.
const CUTS: u64 = 3;

const STORAGE: &str = "segment_size = \"1MiB\"\nsync_interval = \"5ms\"\n";

/// One cut under load, and what is there after it. `None` for the seed of a cut that nothing came of: the server was refused.
fn cut(mounted: &mut Mounted, dir: &Path, text: &str, dice: &mut Dice, seen: &mut Seen) -> Findings {
    let data = mounted.mount.join("data");
    let path = dir.join("logweir.toml");
    std::fs::write(&path, text).unwrap();
    let start = || Server::start(&data, &["--config", path.to_str().unwrap()]);
    let longest = [80, 300, 3000, 40_000][dice.below(4) as usize];
    let mut clients = mixed(longest);
    clients.push(Client::new("plain", 99, longest));
    let begun = Instant::now();
    let mut server = start();
    let start_time = begun.elapsed();
    seen.cap = ledger::memory_cap(&server.introduction);
    seen.mode = server
        .introduction
        .lines()
        .find(|l| l.contains("file mode"))
        .unwrap_or_default()
        .replace("file mode", "")
        .trim()
        .to_string();
    let watch = Watch::over(server.admin.unwrap(), server.pid());
    seen.logged += u64::from(await_commit_log(&server));
    let moment = dice.below(3_000_000 / longest);
    let before = under_load(&mut server, &clients, |server| {
        await_that("acknowledgements", || ledger::acked_in_all(accounts(&clients)) > moment);
        let before = ledger::acked_now(accounts(&clients));
        mounted.disk.cut();
        server.kill();
        before
    });
    drop(server);
    seen.memory = seen.memory.most(watch.end().memory);
    mounted.reboot(dice);
    // The power fails again while the next server recovers.
    for _ in 0..dice.below(3) {
        let after = Duration::from_micros(dice.below(start_time.as_micros() as u64 * 5 / 4));
        let disk = Arc::clone(&mounted.disk);
        killed_early(&data, &path, after, || disk.cut());
        mounted.reboot(dice);
        seen.in_recovery += 1;
    }
    let mut server = start();
    let metrics = server.metrics();
    seen.damaged += metrics.sum("logweir_recovered_damaged_segments", "") as u64;
    seen.torn_bytes += metrics.sum("logweir_recovered_torn_bytes", "") as u64;
    assert!(server.stop().success());
    let found = ledger::check(&data, accounts(&clients), &before);
    clear(&data);
    found
}

#[derive(Default)]
struct Seen {
    memory: ledger::Memory,
    cap: u64,
    torn_bytes: u64,
    in_recovery: u64,
    damaged: u64,
    mode: String,
    /// Cuts of servers whose small groups went to a commit log.
    logged: u64,
}

#[test]
fn durable_lines_survive_a_file_system_that_forgets() {
    let test = "durable_lines_survive_a_file_system_that_forgets";
    let dir = scratch();
    let cuts = ledger::times("LOGWEIR_FORGETFUL_CUTS", CUTS);
    for (which, (engine, io)) in ENGINES.iter().flat_map(|e| ["append", "direct", "auto"].map(|io| (e, io))).enumerate()
    {
        let mut mounted = match Mounted::new(&dir.path().join("mount")) {
            Ok(mounted) => mounted,
            Err(why) => return skipped(test, &why),
        };
        let text = config(engine, io, "durable", STORAGE);
        let (mut found, mut seen) = (Findings::default(), Seen::default());
        for round in 0..cuts {
            let mut dice = Dice::new(test, (which as u64) << 20 | round);
            let now = cut(&mut mounted, dir.path(), &text, &mut dice, &mut seen);
            now.must_be_honest(&format!("{engine}, {io}, cut {round}"));
            assert_eq!((now.duplicate, now.gaps), (0, 0), "{engine}, {io}, cut {round}: {now:?}");
            assert_eq!(seen.damaged, 0, "{engine}, {io}, cut {round}");
            found.add(&now);
        }
        assert!(!mounted.disk.knobs.synced_after_failure.load(Ordering::SeqCst));
        assert!(seen.memory.own_kib << 10 <= seen.cap, "{:?} of {}", seen.memory, seen.cap);
        let note = format!(
            "and {} cuts during recovery; {} with a commit log; {}; {} KiB moved to .torn",
            seen.in_recovery,
            seen.logged,
            seen.mode,
            seen.torn_bytes >> 10
        );
        row("power cut C", &format!("FUSE, {engine}, {io}"), cuts, &found, Some((seen.memory, seen.cap)), &note);
    }
}

/// The same on a disk that says yes to each sync and does nothing: the ledger must see what is lost then.
#[test]
fn durable_lines_do_not_survive_a_disk_that_lies() {
    let dir = scratch();
    let mut mounted = match Mounted::new(&dir.path().join("mount")) {
        Ok(mounted) => mounted,
        Err(why) => return skipped("durable_lines_do_not_survive_a_disk_that_lies", &why),
    };
    let text = config("auto", "append", "durable", STORAGE);
    let mut found = Findings::default();
    for round in 0..3 {
        // What the server needs for itself is there; then the lies begin.
        let data = mounted.mount.join("data");
        let path = dir.path().join("logweir.toml");
        std::fs::write(&path, &text).unwrap();
        assert!(Server::start(&data, &["--config", path.to_str().unwrap()]).stop().success());
        mounted.disk.knobs.lies.store(true, Ordering::SeqCst);
        let mut dice = Dice::new("a disk that lies", round);
        found.add(&cut(&mut mounted, dir.path(), &text, &mut dice, &mut Seen::default()));
        mounted.disk.knobs.lies.store(false, Ordering::SeqCst);
    }
    assert!(found.acked_lost > 0, "{found:?}");
    row("oracle", "FUSE that lies about syncs, power cut C: must lose", 3, &found, None, "proves that losses are seen");
}

/// The Nth write or sync fails, once or for good, whatever engine runs; what could not be synced is gone, and then the power.
#[test]
fn errors_and_then_a_power_cut_lose_nothing_acknowledged() {
    let test = "errors_and_then_a_power_cut_lose_nothing_acknowledged";
    let up_to = ledger::times("LOGWEIR_FUSE_ERRORS", 2);
    let dir = scratch();
    let path = dir.path().join("logweir.toml");
    for (which, (engine, call)) in ENGINES.iter().flat_map(|e| ["write", "fsync"].map(|c| (e, c))).enumerate() {
        let (mut found, mut runs, mut stopped) = (Findings::default(), 0, 0);
        for n in 0..up_to {
            let mut mounted = match Mounted::new(&dir.path().join("mount")) {
                Ok(mounted) => mounted,
                Err(why) => return skipped(test, &why),
            };
            let mut dice = Dice::new(test, (which as u64) << 20 | n);
            let io = ["append", "direct", "auto"][n as usize % 3];
            std::fs::write(
                &path,
                config(engine, io, "durable", "segment_size = \"512KiB\"\nsync_interval = \"20ms\"\n"),
            )
            .unwrap();
            let data = mounted.mount.join("data");
            let start = || Server::start(&data, &["--config", path.to_str().unwrap()]);
            let mut clients = mixed([300, 3000][n as usize % 2]);
            clients.push(Client::new("plain", 99, 300));
            let mut server = start();
            let watch = Watch::over(server.admin.unwrap(), server.pid());
            let (disk, admin) = (&mounted.disk, server.admin.unwrap());
            let errno = [libc::EIO, libc::ENOSPC, libc::EDQUOT, libc::EROFS][dice.below(4) as usize];
            disk.knobs.errno.store(errno.into(), Ordering::SeqCst);
            disk.knobs.fail_for.store(
                [1, 1, 2, ledger::times("LOGWEIR_FUSE_ERRORS_FOR", 20) as i64][dice.below(4) as usize],
                Ordering::SeqCst,
            );
            let knob = if call == "write" { &disk.knobs.fail_write } else { &disk.knobs.fail_sync };
            knob.store(n as i64, Ordering::SeqCst);
            let begun = Instant::now();
            let before = under_load(&mut server, &clients, |server| {
                await_that("the failure", || knob.load(Ordering::SeqCst) < 0);
                let acked = ledger::acked_in_all(accounts(&clients));
                let mut end = false;
                await_that("more, or the end of intake", || {
                    end = ledger::scrape(admin).is_some_and(|m| m.sum("logweir_intake_stopped", "") == 1.0);
                    let late = begun.elapsed() > Duration::from_secs(3);
                    end || late || ledger::acked_in_all(accounts(&clients)) > acked + 400
                });
                stopped += u64::from(end);
                let before = ledger::acked_now(accounts(&clients));
                disk.cut();
                server.kill();
                before
            });
            drop(server);
            watch.end();
            knob.store(crate::memory_disk::NEVER, Ordering::SeqCst);
            assert!(!disk.knobs.synced_after_failure.load(Ordering::SeqCst), "{engine}, {call} {n}: a second sync");
            mounted.reboot(&mut dice);
            assert!(start().stop().success());
            let now = ledger::check(&data, accounts(&clients), &before);
            now.must_be_honest(&format!("{engine}, {call} {n}, {io}, errno {errno}"));
            assert!(now.gaps == 0, "{engine}, {call} {n}, {io}, errno {errno}: {now:?}");
            found.add(&now);
            runs += 1;
        }
        let note = format!("intake stopped {stopped} times; no second sync of a failed file");
        row(
            "an error at the Nth call, then power cut C",
            &format!("FUSE, {call}, {engine}"),
            runs,
            &found,
            None,
            &note,
        );
    }
}
