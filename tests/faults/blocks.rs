//! Power cuts beneath real file systems: what reached the device and was not flushed is dropped, kept or split, and each state
//! that can come of that is mounted, checked and recovered.

use crate::block_fuse::{BlockDisk, Event};
use crate::common::image::{FileSystem, Image};
use crate::common::ledger::{self, Dice, Findings, Watch, row, times};
use crate::common::{Server, await_that, scratch, skipped};
use crate::load::{Client, MODES, accounts, config, mixed, under_load};
use std::collections::HashMap;
use std::sync::Arc;

/// Runs for each file system in `cargo test`, and images built of each; LOGWEIR_BLOCK_RUNS and LOGWEIR_BLOCK_IMAGES ask for more.
const RUNS: u64 = 1;
const IMAGES: u64 = 4;

fn images(test: &str, kind: FileSystem, bytes: u64) {
    let (mut found, mut built, mut doubtful, mut events_in_all) = (Findings::default(), 0, 0, 0);
    let (mut could_notice, mut noticed) = (0, 0u64);
    for round in 0..times("LOGWEIR_BLOCK_RUNS", RUNS) {
        let mut dice = Dice::new(test, round);
        let dir = scratch();
        let longest = [300, 3000, 40_000][dice.below(3) as usize];
        let mut clients = mixed(longest);
        clients.push(Client::new("plain", 99, longest));
        let clients = Arc::new(clients);
        let observed = Arc::clone(&clients);
        let disk = match BlockDisk::new(&dir.path().join("device"), move || ledger::acked_now(accounts(&observed))) {
            Ok(disk) => disk,
            Err(why) => return skipped(test, &why),
        };
        let image = match Image::new(kind, &dir.path().join("device"), &dir.path().join("mount"), bytes) {
            Ok(image) => image,
            Err(why) => return skipped(test, &why),
        };
        let data = image.mount.join("data");
        let path = dir.path().join("logweir.toml");
        let io = MODES[dice.below(4) as usize];
        std::fs::write(&path, config("auto", io, "durable", "segment_size = \"1MiB\"\nsync_interval = \"5ms\"\n"))
            .unwrap();
        let start = disk.begin_log();
        let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
        let watch = Watch::over(server.admin.unwrap(), server.pid());
        let moment = 500 + dice.below(4_000_000 / longest);
        let events = under_load(&mut server, &clients, |server| {
            await_that("acknowledgements", || ledger::acked_in_all(accounts(&clients)) > moment);
            let events = disk.end_log();
            server.kill();
            events
        });
        watch.end();
        drop((server, image, disk));
        assert!(events.len() > 20, "{} events", events.len());
        events_in_all += events.len();
        for number in 0..times("LOGWEIR_BLOCK_IMAGES", IMAGES) {
            // The last image is the last moment; the others are any.
            let mut at = if number == 0 { events.len() } else { 1 + dice.below(events.len() as u64) as usize };
            if dice.below(4) > 0 {
                // As late before the next flush as can be: most is in doubt then.
                at += events[at..].iter().take_while(|e| matches!(e, Event::Write { .. })).count();
            }
            let file = dir.path().join("after");
            doubtful += start.image(&events, at, &mut dice, &file);
            let acked: &HashMap<u32, u64> = events[at - 1].seen();
            let what = format!("{kind:?}, {io}, run {round}, image {number}, behind event {at} of {}", events.len());
            let image =
                Image::of(kind, &file, &dir.path().join("mounted")).unwrap_or_else(|why| panic!("{what}: {why}"));
            image.reboot();
            let data = image.mount.join("data");
            if data.join(".logweir").exists() {
                let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
                let damaged = server.metrics().sum("logweir_recovered_damaged_segments", "");
                assert!(server.stop().success());
                let now = ledger::check(&data, accounts(&clients), acked);
                now.must_be_clean(&what);
                // Held against what was promised long after, the same image must be found wanting.
                let later = events[events.len() - 1].seen();
                if later.values().sum::<u64>() > acked.values().sum::<u64>() + 300 {
                    could_notice += 1;
                    noticed += u64::from(ledger::check(&data, accounts(&clients), later).acked_lost > 0);
                }
                assert_eq!(damaged, 0.0, "{what}");
                found.add(&now);
            } else {
                assert!(acked.values().all(|a| *a == 0), "{what}: the data directory is gone");
            }
            built += 1;
        }
    }
    assert!(could_notice == 0 || noticed > 0, "the ledger does not notice what an image lacks");
    let note = format!("of {events_in_all} writes and flushes; {doubtful} writes in doubt; fsck clean");
    row("power cut B", &format!("{kind:?} over a device that drops and splits"), built, &found, None, &note);
}

#[test]
fn every_state_of_the_device_holds_what_is_durable_on_ext4() {
    images("every_state_of_the_device_holds_what_is_durable_on_ext4", FileSystem::Ext4, 64 << 20);
}

#[test]
fn every_state_of_the_device_holds_what_is_durable_on_ext4_with_small_blocks() {
    let test = "every_state_of_the_device_holds_what_is_durable_on_ext4_with_small_blocks";
    images(test, FileSystem::Ext4SmallBlocks, 64 << 20);
}

#[test]
fn every_state_of_the_device_holds_what_is_durable_on_xfs() {
    images("every_state_of_the_device_holds_what_is_durable_on_xfs", FileSystem::Xfs, 320 << 20);
}

#[test]
fn every_state_of_the_device_holds_what_is_durable_on_btrfs() {
    images("every_state_of_the_device_holds_what_is_durable_on_btrfs", FileSystem::Btrfs, 128 << 20);
}
