//! Compressing, moving and deleting sealed segments: killed or cut off at every call, no line is ever out of reach, and doing it
//! again finishes it.

mod common;

use common::sim_disk::{Call, Chance, SimDisk};
use logweir::log::archive::Shelf;
use logweir::log::content::{ContentReader, open_text};
use logweir::log::disk::{Disk, append_all, replace_file};
use logweir::log::names::{Kind, SegmentId};
use logweir::log::retention::{finish, retire};
use logweir::log::trail::{Header, Record, What};
use logweir::log::verify;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const DATA: &str = "/data";
const STREAM: &str = "s";
const ID: SegmentId = SegmentId { shard: 0, sequence: 7 };

fn dir() -> PathBuf {
    Path::new(DATA).join(STREAM)
}

fn text() -> Vec<u8> {
    (0..20_000).flat_map(|i| format!("line {i} of some length {}\n", i * 31).into_bytes()).collect()
}

/// A disk on which the process dies at a call of its choice.
struct Mortal {
    disk: SimDisk,
    /// Calls until then.
    left: Arc<AtomicU64>,
    armed: Arc<AtomicBool>,
}

/// What a killed process unwinds with.
struct Killed;

impl Mortal {
    /// With a sealed segment, its trail and a torn rest, all durable.
    fn new(seed: u64) -> Mortal {
        let (left, armed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, on) = (Arc::clone(&left), Arc::clone(&armed));
        let hook = Arc::new(move |_| {
            if on.load(Ordering::SeqCst) && count.fetch_sub(1, Ordering::SeqCst) == 0 {
                on.store(false, Ordering::SeqCst);
                std::panic::resume_unwind(Box::new(Killed));
            }
        });
        let disk = SimDisk::seeded(seed, Some(hook));
        let text = text();
        let header = Header { boot: [1; 16], node: [2; 16], mount: 1, id: ID, previous: 6, wall_ns: 3 };
        let (len, lines) = (text.len() as u64, 20_000);
        let crc = logweir::log::checksum::crc32c(&text);
        let write = Record { what: What::Write, offset: 0, len, lines, crc, wall_ns: 4, mono_ns: 5 };
        let sync = Record { what: What::Sync, offset: len, len: 0, lines: 0, crc: 0, ..write };
        let end = Record { what: What::End, ..sync };
        let put = |kind, bytes: &[u8]| replace_file(&disk, &dir().join(ID.file_name(kind)), bytes).unwrap();
        put(Kind::Trail, &header.encode_whole([write, sync, end].iter()));
        put(Kind::Torn, b"half a li");
        put(Kind::Sealed, &text);
        Mortal { disk, left, armed }
    }

    /// Does something that may be killed at its n-th call. True: it came to its end.
    fn dies_at(&self, n: u64, work: impl FnOnce(&SimDisk)) -> bool {
        self.left.store(n, Ordering::SeqCst);
        self.armed.store(true, Ordering::SeqCst);
        let done = catch_unwind(AssertUnwindSafe(|| work(&self.disk)));
        self.armed.store(false, Ordering::SeqCst);
        match done {
            Ok(()) => true,
            Err(panic) => panic.downcast::<Killed>().map_or_else(|other| std::panic::resume_unwind(other), |_| false),
        }
    }

    fn read(&self) -> Option<Vec<u8>> {
        let (content, _) = open_text(&self.disk, &dir(), ID).unwrap()?;
        let mut bytes = Vec::new();
        ContentReader::new(&*content, 0).read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }

    fn problems(&self) -> Vec<verify::Found> {
        verify::stream(&self.disk, Path::new(DATA), STREAM).unwrap().problems
    }
}

fn shelf(compress: bool, moves: bool) -> Shelf {
    let home = moves.then(|| Path::new("/archive").join(STREAM));
    Shelf { dir: dir(), home, compress: compress.then_some(3) }
}

/// All ways of one shelf: killed at every call, with the power gone or not.
fn put_away_anywhere(shelf: &Shelf) {
    let whole = text();
    let mut n = 0;
    let mut kills = 0;
    loop {
        let mut ended = true;
        for seed in 0..4 {
            let it = Mortal::new(seed);
            let work = |disk: &SimDisk| {
                shelf.put_away(disk, ID, &|| true).unwrap();
            };
            ended = it.dies_at(n, work);
            if seed > 0 {
                it.disk.write_back_some();
                it.disk.power_cut(&mut Chance::new(seed * 1000 + n));
            }
            kills += 1;
            // As the next start does.
            shelf.find_again(&it.disk).unwrap();
            assert!(it.read().unwrap() == whole, "call {n}, seed {seed}: the lines are not all there");
            assert_eq!(it.problems(), [], "call {n}, seed {seed}");
            shelf.put_away(&it.disk, ID, &|| true).unwrap();
            assert!(it.read().unwrap() == whole, "call {n}, seed {seed}: after the second time");
            assert_eq!(it.problems(), [], "call {n}, seed {seed}");
            let kinds: Vec<String> = it.disk.list(&dir()).unwrap();
            let expected = if shelf.compress.is_some() { Kind::Compressed } else { Kind::Sealed };
            assert!(kinds.contains(&ID.file_name(expected)), "{kinds:?}");
            assert_eq!(kinds.len(), 3, "nothing else is left: {kinds:?}");
            for kind in [expected, Kind::Trail, Kind::Torn] {
                let target = it.disk.link_target(&dir().join(ID.file_name(kind))).unwrap();
                assert_eq!(target.is_some(), shelf.home.is_some());
            }
            if let Some(home) = &shelf.home {
                assert_eq!(it.disk.list(home).unwrap().len(), 3, "{:?}", it.disk.list(home).unwrap());
            }
        }
        if ended {
            println!("{kills} ends, at {n} calls");
            return;
        }
        n += 1;
    }
}

#[test]
fn compressing_loses_nothing_wherever_it_ends() {
    put_away_anywhere(&shelf(true, false));
}

#[test]
fn moving_loses_nothing_wherever_it_ends() {
    put_away_anywhere(&shelf(false, true));
}

#[test]
fn compressing_into_another_directory_loses_nothing_wherever_it_ends() {
    put_away_anywhere(&shelf(true, true));
}

#[test]
fn a_data_directory_that_is_gone_is_found_again_from_what_was_moved() {
    for compress in [false, true] {
        let it = Mortal::new(1);
        let shelf = shelf(compress, true);
        shelf.put_away(&it.disk, ID, &|| true).unwrap();
        for name in it.disk.list(&dir()).unwrap() {
            it.disk.remove(&dir().join(name)).unwrap();
        }
        shelf.find_again(&it.disk).unwrap();
        assert!(it.read().unwrap() == text());
        assert_eq!(it.problems(), []);
    }
}

#[test]
fn an_error_at_any_call_leaves_the_lines_where_they_are() {
    for shelf in [shelf(true, false), shelf(false, true), shelf(true, true)] {
        for errno in [libc::EIO, libc::ENOSPC] {
            for n in 0.. {
                let it = Mortal::new(n);
                it.disk.fail_at(n, errno);
                let put = shelf.put_away(&it.disk, ID, &|| true);
                let was_reached = !it.disk.heal();
                assert!(it.read().unwrap() == text(), "{errno} at call {n}");
                if !was_reached {
                    put.unwrap();
                    break;
                }
                shelf.put_away(&it.disk, ID, &|| true).unwrap();
                assert!(it.read().unwrap() == text(), "{errno} at call {n}, second time");
                assert_eq!(it.problems(), []);
            }
        }
    }
}

#[test]
fn a_copy_that_changed_on_its_way_is_not_taken_for_the_original() {
    let it = Mortal::new(1);
    // Memory that is not sound: the text changes between being read for compression and being compressed again in the check.
    let disk = &it.disk;
    let temp = dir().join(format!("{}.tmp", ID.file_name(Kind::Compressed)));
    let calls = AtomicU64::new(0);
    let go_on = || {
        // Once the whole text is in, before it is looked at again.
        if calls.fetch_add(1, Ordering::SeqCst) == 2 {
            disk.open(&temp).unwrap().rewrite(b"x", 1000).unwrap();
        }
        true
    };
    let error = shelf(true, false).put_away(disk, ID, &go_on).unwrap_err();
    assert!(error.io().is_some_and(|e| e.kind() == std::io::ErrorKind::InvalidData), "{error}");
    assert!(it.read().unwrap() == text());
    assert!(disk.open(&dir().join(ID.file_name(Kind::Sealed))).is_ok());
}

#[test]
fn what_retention_takes_is_gone_or_there_wherever_it_ends() {
    for moves in [false, true] {
        for n in 0.. {
            let mut ended = true;
            for seed in 0..4 {
                let it = Mortal::new(seed);
                if moves {
                    shelf(true, true).put_away(&it.disk, ID, &|| true).unwrap();
                }
                // One behind it, that stays.
                let next = SegmentId { sequence: 8, ..ID };
                let file = it.disk.create_new(&dir().join(next.file_name(Kind::Active))).unwrap();
                append_all(&*file, b"x\n").unwrap();
                it.disk.sync_dir(&dir()).unwrap();
                ended = it.dies_at(n, |disk| retire(disk, Path::new(DATA), STREAM, ID).unwrap());
                if seed > 0 {
                    it.disk.power_cut(&mut Chance::new(seed * 1000 + n));
                }
                let about = |problems: Vec<verify::Found>| -> Vec<verify::Found> {
                    problems.into_iter().filter(|p| p.file.contains("0000000007")).collect()
                };
                assert_eq!(about(it.problems()), [], "call {n}, seed {seed}");
                shelf(true, moves).find_again(&it.disk).unwrap();
                assert_eq!(about(it.problems()), [], "call {n}, seed {seed}");
                finish(&it.disk, Path::new(DATA), STREAM).unwrap();
                let names: Vec<String> = it.disk.list(&dir()).unwrap();
                let left = names.iter().filter(|name| name.contains("0000000007")).count();
                assert!(left == 0 || (left == 3 && it.read().unwrap() == text()), "call {n}, seed {seed}: {names:?}");
                assert!(!ended || left == 0);
                assert!(names.contains(&next.file_name(Kind::Active)));
            }
            if ended {
                break;
            }
        }
    }
}

/// No note can be written before something has gone.
#[test]
fn retention_makes_room_on_a_disk_that_is_full() {
    let of: Arc<std::sync::OnceLock<SimDisk>> = Arc::default();
    let room = Arc::clone(&of);
    let hook = Arc::new(move |call| {
        if let (Call::Remove, Some(disk)) = (call, room.get()) {
            disk.set_full(false);
        }
    });
    let disk = SimDisk::seeded(1, Some(hook));
    for kind in [Kind::Sealed, Kind::Trail] {
        replace_file(&disk, &dir().join(ID.file_name(kind)), b"x\n").unwrap();
    }
    disk.set_full(true);
    assert!(of.set(disk.clone()).is_ok());
    retire(&disk, Path::new(DATA), STREAM, ID).unwrap();
    assert_eq!(disk.list(&dir()).unwrap(), Vec::<String>::new());
    let mark = logweir::log::retention::mark_path(Path::new(DATA), STREAM, 0);
    assert_eq!(logweir::log::disk::read_file(&disk, &mark).unwrap(), b"7\n");
}
