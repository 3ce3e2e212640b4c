//! Power cuts on a real ext4 and a real xfs: an image on a loop device, shut down without flushing its journal at a random
//! moment, mounted again. What was acknowledged as durable before the cut began must be there.

use crate::common::image::{FileSystem, Image};
use crate::common::ledger::{self, Dice, Findings, Watch, clear, row};
use crate::common::{Server, await_that, scratch, skipped};
use crate::kills::killed_early;
use crate::load::{Client, ENGINES, MODES, accounts, config, mixed, under_load};
use std::path::Path;
use std::time::{Duration, Instant};

/// Cuts for each way to run a server in `cargo test`; LOGWEIR_POWER_CUTS asks for more.
const CUTS: u64 = 1;

const STORAGE: &str = "segment_size = \"2MiB\"\nsync_interval = \"5ms\"\n";

/// One cut under load, and what is there after it.
fn cut(image: &Image, dir: &Path, text: &str, dice: &mut Dice, seen: &mut Seen) -> Findings {
    let data = image.mount.join("data");
    let path = dir.join("logweir.toml");
    std::fs::write(&path, text).unwrap();
    let start = || Server::start(&data, &["--config", path.to_str().unwrap()]);
    let longest = [300, 3000, 40_000][dice.below(3) as usize];
    let mut clients = mixed(longest);
    clients.push(Client::new("plain", 99, longest));
    clients.iter_mut().for_each(|c| c.durable = !text.contains("ack = \"written\""));
    let begun = Instant::now();
    let mut server = start();
    let start_time = begun.elapsed();
    seen.cap = ledger::memory_cap(&server.introduction);
    seen.introduction.clone_from(&server.introduction);
    let watch = Watch::over(server.admin.unwrap(), server.pid());
    let moment = dice.below(12_000_000 / longest);
    let before = under_load(&mut server, &clients, |server| {
        await_that("acknowledgements", || ledger::acked_in_all(accounts(&clients)) > moment);
        let before = ledger::acked_now(accounts(&clients));
        image.cut_power();
        server.kill();
        before
    });
    drop(server);
    seen.memory = seen.memory.most(watch.end().memory);
    image.reboot();
    // The power fails again while the next server recovers.
    for _ in 0..dice.below(3) {
        let after = Duration::from_micros(dice.below(start_time.as_micros() as u64 * 5 / 4));
        killed_early(&data, &path, after, || image.cut_power());
        image.reboot();
        seen.in_recovery += 1;
    }
    let mut server = start();
    let metrics = server.metrics();
    assert_eq!(metrics.sum("logweir_recovered_damaged_segments", ""), 0.0);
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
    introduction: String,
}

fn cuts(test: &str, kind: FileSystem) {
    let dir = scratch();
    let image = match Image::new(kind, dir.path(), &dir.path().join("mount"), 320 << 20) {
        Ok(image) => image,
        Err(why) => return skipped(test, &why),
    };
    let cuts = ledger::times("LOGWEIR_POWER_CUTS", CUTS);
    for (which, (engine, io)) in ENGINES.iter().flat_map(|e| MODES.iter().map(move |io| (e, io))).enumerate() {
        let text = config(engine, io, "durable", STORAGE);
        let (mut found, mut seen) = (Findings::default(), Seen::default());
        for round in 0..cuts {
            let mut dice = Dice::new(test, (which as u64) << 20 | round);
            let now = cut(&image, dir.path(), &text, &mut dice, &mut seen);
            now.must_be_honest(&format!("{test}, {engine}, {io}, cut {round}"));
            assert_eq!((now.duplicate, now.gaps), (0, 0), "{engine}, {io}, cut {round}: {now:?}");
            assert_eq!(*io == "direct", seen.introduction.contains("direct, whole blocks"), "{}", seen.introduction);
            found.add(&now);
        }
        assert!(seen.memory.own_kib << 10 <= seen.cap, "{:?} of {}", seen.memory, seen.cap);
        let variant = format!("{kind:?}, {engine}, {io}");
        let note = format!(
            "and {} cuts during recovery; fsck clean; {} KiB moved to .torn",
            seen.in_recovery,
            seen.torn_bytes >> 10
        );
        row("power cut A", &variant, cuts, &found, Some((seen.memory, seen.cap)), &note);
    }
}

#[test]
fn durable_lines_survive_power_cuts() {
    cuts("durable_lines_survive_power_cuts", FileSystem::Ext4);
}

#[test]
fn durable_lines_survive_power_cuts_with_small_blocks() {
    cuts("durable_lines_survive_power_cuts_with_small_blocks", FileSystem::Ext4SmallBlocks);
}

#[test]
fn durable_lines_survive_power_cuts_on_xfs() {
    cuts("durable_lines_survive_power_cuts_on_xfs", FileSystem::Xfs);
}

/// The cut really takes what was not synced, and the ledger sees it: or the tests above would prove nothing.
#[test]
fn written_lines_do_not_all_survive_power_cuts() {
    let dir = scratch();
    let image = match Image::new(FileSystem::Ext4, dir.path(), &dir.path().join("mount"), 320 << 20) {
        Ok(image) => image,
        Err(why) => return skipped("written_lines_do_not_all_survive_power_cuts", &why),
    };
    let text = config("auto", "append", "written", "sync_interval = \"1h\"\nsync_bytes = \"64MiB\"\n");
    let mut dice = Dice::new("written", 0);
    let (mut found, mut seen) = (Findings::default(), Seen::default());
    for _ in 0..3 {
        found.add(&cut(&image, dir.path(), &text, &mut dice, &mut seen));
    }
    assert!(found.acked_lost > 0, "{found:?}");
    assert_eq!((found.corrupted, found.torn_shown, found.reordered, found.phantom), (0, 0, 0, 0), "{found:?}");
    row("oracle", "Ext4, written, no sync, power cut: must lose", 3, &found, None, "proves that losses are seen");
}
