//! Recovery of commit logs on a disk in memory: what no segment has is brought into one, once, whatever interrupts it.

mod common;

use common::sim_disk::{Chance, SimDisk};
use logweir::host::clock::{BootId, Clock};
use logweir::log::LogError;
use logweir::log::commit::generation::Generation;
use logweir::log::commit::record::{BLOCK, Head, Part, encode};
use logweir::log::commit::recover::{Around, Brought, recover};
use logweir::log::commit::{self, Named};
use logweir::log::content::OnDisk;
use logweir::log::disk::{Caching, Disk};
use logweir::log::names::{Kind, SegmentId};
use logweir::log::recover::recover_dir;
use logweir::log::segment::{AppendError, AppendOptions, Segment, Stamp};
use logweir::log::ship::Position;
use logweir::log::ship::reader::ShardReader;
use logweir::log::stream_dir::StreamDir;
use logweir::log::trail::RECORD_LEN;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const DATA: &str = "/data";
const OPTIONS: AppendOptions = AppendOptions { large: Caching::Keep, reserve_step: 0 };

#[derive(Clone, Copy)]
struct StoppedClock;

impl Clock for StoppedClock {
    fn mono_ns(&self) -> u64 {
        1
    }
    fn wall_ns(&self) -> u64 {
        1
    }
    fn boot_id(&self) -> BootId {
        [1; 16]
    }
}

struct Setup {
    disk: SimDisk,
}

impl Setup {
    fn new() -> Setup {
        let setup = Setup { disk: SimDisk::new() };
        Generation { number: 7, ..Generation::default() }.begin(&setup.disk, Path::new(DATA)).unwrap();
        setup
    }

    fn disk(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    /// Writes a record to the log of a reactor, at a block of it.
    fn log(&self, reactor: u16, block: usize, head: Head, parts: &[Part<'_>]) {
        let path = commit::path(Path::new(DATA), reactor);
        let is_new = self.disk().size_of(&path).is_err();
        let file = self.disk.fixed(&path, is_new.then_some(16 * BLOCK as u64)).unwrap();
        let mut memory = vec![0; BLOCK];
        let len = encode(&mut memory, &head, parts).unwrap();
        file.write_at(&memory[..len], (block * BLOCK) as u64).unwrap();
    }

    fn recover(&self) -> Result<Brought, LogError> {
        let (disk, clock): (_, Arc<dyn Clock>) = (self.disk(), Arc::new(StoppedClock));
        for stream in ["a", "b"] {
            recover_dir(&*disk, &*clock, &Path::new(DATA).join(stream), false)?;
        }
        let around = Around { disk: &disk, clock: &clock, data_dir: Path::new(DATA), sealed_dir: None, node: [7; 16] };
        let (generation, brought) = recover(&around)?;
        assert_eq!(generation, 7);
        Ok(brought)
    }

    /// What readers see of a stream.
    fn text(&self, stream: &str) -> String {
        let of = |(path, _): &(PathBuf, Vec<u8>)| path.starts_with(Path::new(DATA).join(stream));
        let files = self.disk.contents(".log").into_iter().chain(self.disk.contents(".log.active"));
        files.filter(of).map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
    }

    /// The first segment of a stream.
    fn begin(&self, stream: &str) -> Segment {
        let dir = StreamDir::open(self.disk(), Arc::new(StoppedClock), Path::new(DATA), [7; 16], stream, 0, 0).unwrap();
        dir.begin_first().unwrap()
    }

    /// A segment of a stream that a crash left active, with these lines, of which the trail names what is in the logs.
    fn segment(&self, stream: &str, lines: &[u8], named: &[Named]) {
        let mut segment = self.begin(stream);
        let count = lines.iter().filter(|b| **b == b'\n').count() as u64;
        // A call may take fewer bytes than offered; `append` makes as many as it needs.
        segment.append(&[IoSlice::new(lines)], count, OPTIONS, Stamp::default(), named, || 0).unwrap();
    }
}

fn head(reactor: u16, sequence: u64, mono_ns: u64) -> Head {
    Head { generation: 7, reactor, shard: 0, sequence, freed_to: 1, mono_ns, wall_ns: 5 }
}

fn part<'a>(stream: &'a str, text: &'a str) -> Part<'a> {
    Part { stream, listener: 0, lines: text.lines().count() as u32, bytes: text.as_bytes() }
}

/// Two logs, one of a reactor that is not configured any more; a part of them in a segment already.
fn filled() -> Setup {
    let setup = Setup::new();
    setup.log(0, 0, head(0, 1, 10), &[part("a", "a1\na2\n"), part("b", "b1\n")]);
    setup.log(9, 0, head(9, 1, 20), &[part("a", "a3\n")]);
    setup.log(0, 1, head(0, 2, 30), &[part("b", "b2\n"), part("a", "a4\n")]);
    setup.log(9, 1, head(9, 2, 40), &[part("a", "a5\na6\n")]);
    // Of another run, and behind a hole: nobody was told of it.
    setup.log(0, 2, Head { generation: 6, ..head(0, 3, 50) }, &[part("a", "stale\n")]);
    setup.log(9, 2, head(9, 4, 60), &[part("a", "behind a hole\n")]);
    setup.segment("a", b"a1\na2\nplain\n", &[Named { generation: 7, reactor: 0, through: 1 }]);
    setup
}

#[test]
fn what_no_segment_has_is_brought_once_and_in_order() {
    let setup = filled();
    let brought = setup.recover().unwrap();
    assert_eq!((brought.segments, brought.lines), (2, 6));
    assert_eq!(setup.text("a"), "a1\na2\nplain\na3\na4\na5\na6\n");
    assert_eq!(setup.text("b"), "b1\nb2\n");
    assert_eq!(setup.recover().unwrap(), Brought::default(), "and not again");
    for stream in ["a", "b"] {
        let report = logweir::log::verify::stream(&setup.disk, Path::new(DATA), stream).unwrap();
        assert_eq!(report.problems, []);
    }
}

#[test]
fn an_interrupted_recovery_shows_nothing_twice_and_loses_nothing() {
    for power in [true, false] {
        for n in 0..1000 {
            assert!(n < 999, "recovery does not end");
            let setup = filled();
            setup.disk.sync_all_names();
            setup.disk.fail_at(n, libc::EIO);
            let first = setup.recover();
            let is_over = setup.disk.heal();
            if !power {
                setup.disk.power_cut(&mut Chance::new(n));
            }
            setup.recover().unwrap();
            let a = setup.text("a");
            let logged: String = a.lines().filter(|l| *l != "plain").map(|l| format!("{l}\n")).collect();
            assert_eq!(logged, "a1\na2\na3\na4\na5\na6\n", "call {n}, {first:?}");
            assert_eq!(setup.text("b"), "b1\nb2\n", "call {n}, {first:?}");
            if is_over {
                assert!(n > 20 && first.is_ok());
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_keeps_the_logs_for_the_next_start() {
    let setup = filled();
    setup.recover().unwrap();
    let setup_full = filled();
    setup_full.disk.set_full(true);
    let error = setup_full.recover().unwrap_err();
    assert!(error.is_full(), "{error}");
    for stream in ["a", "b"] {
        let left = setup_full.disk.list(&Path::new(DATA).join(stream)).unwrap_or_default();
        assert!(
            !left.iter().any(|name| name.ends_with(".tmp")),
            "a try leaves nothing in the way of the next: {left:?}"
        );
    }
    setup_full.disk.set_full(false);
    assert_eq!(setup_full.recover().unwrap().lines, 6);
    assert_eq!(setup_full.text("a"), setup.text("a"));
}

#[test]
fn a_log_that_ended_in_order_is_not_looked_at() {
    let setup = filled();
    Generation { number: 7, is_empty: true, ..Generation::default() }.begin(&setup.disk, Path::new(DATA)).unwrap();
    assert_eq!(setup.recover().unwrap(), Brought::default());
}

/// The process died in the middle of a write: of what the log brings again nothing is shown from there.
#[test]
fn half_a_write_with_logged_lines_is_put_aside() {
    let setup = Setup::new();
    setup.log(0, 0, head(0, 1, 10), &[part("a", "a1\na2\na3\n")]);
    setup.segment("a", b"a1\na2\na3\n", &[Named { generation: 7, reactor: 0, through: 1 }]);
    let (path, _) = setup.disk.contents(".log.active").remove(0);
    setup.disk().open(&path).unwrap().truncate(7).unwrap();
    assert_eq!(setup.recover().unwrap().lines, 3);
    assert_eq!(setup.text("a"), "a1\na2\na3\n");
}

/// The kernel had written text back before its note in the trail, and then the power went: the log brings what was logged, so the
/// segment must not show it too. What was synced the direct way, in no log, stays.
#[test]
fn text_that_reached_the_disk_before_its_note_is_not_shown_twice() {
    let setup = Setup::new();
    setup.log(0, 0, head(0, 1, 10), &[part("a", "a1\n")]);
    setup.log(0, 1, head(0, 2, 20), &[part("a", "a2\n")]);
    let mut segment = setup.begin("a");
    let append = |segment: &mut Segment, text: &str, through: Option<u64>| {
        let named = through.map(|through| Named { generation: 7, reactor: 0, through });
        segment.append(&[IoSlice::new(text.as_bytes())], 1, OPTIONS, Stamp::default(), named.as_slice(), || 0).unwrap();
    };
    append(&mut segment, "a1\n", Some(1));
    append(&mut segment, "direct\n", None);
    segment.sync_ahead().unwrap().expect("a trail that names records goes first").sync().unwrap();
    segment.file.sync_data().unwrap();
    append(&mut segment, "a2\n", Some(2));
    drop(segment);
    let (trail, bytes) = setup.disk.contents(".trail").remove(0);
    setup.disk().open(&trail).unwrap().truncate(bytes.len() as u64 - RECORD_LEN as u64).unwrap();
    setup.disk.remount();
    assert_eq!(setup.recover().unwrap().lines, 1);
    assert_eq!(setup.text("a"), "a1\ndirect\na2\n");
}

/// On a full disk the writer tries again and again: what could not be named does not pile up, or the trail would be given up in the end, and
/// the server would stop.
#[test]
fn a_trail_without_room_is_not_given_up_however_long_it_lasts() {
    let setup = Setup::new();
    let mut segment = setup.begin("a");
    for (through, text) in [(1, "a1\n"), (2, "a2\n")] {
        let named = [Named { generation: 7, reactor: 0, through }, Named { generation: 7, reactor: 1, through }];
        let mut append =
            || segment.append(&[IoSlice::new(text.as_bytes())], 1, OPTIONS, Stamp::default(), &named, || 0);
        setup.disk.set_full(true);
        for _ in 0..30_000 {
            assert!(matches!(append(), Err(AppendError::Full(_))));
        }
        setup.disk.set_full(false);
        append().unwrap();
    }
    assert_eq!(segment.len(), 6);
    assert!(segment.trail_len() < 500, "{} bytes of trail", segment.trail_len());
}

/// Somebody has deleted the note of the generation: the records say which it was.
#[test]
fn without_its_note_the_last_generation_is_found() {
    let setup = filled();
    setup.disk.remove(&Path::new(DATA).join(".logweir/generation")).unwrap();
    assert_eq!(setup.recover().unwrap().lines, 6);
}

/// The process was killed before it had noted a sync in the trail, and the sync of the next start fails: the start after that keeps the
/// lines, so a shipper that comes by in between may not go on behind them.
#[test]
fn a_start_that_fails_anywhere_makes_no_shipper_pass_lines_by() {
    let (mut waits, mut failures) = (0, 0);
    for n in 0..60 {
        let setup = Setup::new();
        setup.segment("a", b"one\ntwo\n", &[]);
        setup.disk.fail_at(n, libc::EIO);
        failures += u32::from(recover_dir(&*setup.disk(), &StoppedClock, &Path::new(DATA).join("a"), false).is_err());
        // As a shipper finds it, with a segment behind it.
        let dir = common::scratch();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        for (path, bytes) in setup.disk.contents("").iter().filter(|(path, _)| path.starts_with("/data/a")) {
            std::fs::write(dir.path().join("a").join(path.file_name().unwrap()), bytes).unwrap();
        }
        let next = SegmentId { shard: 0, sequence: 9 };
        std::fs::write(dir.path().join("a").join(next.file_name(Kind::Sealed)), "later\n").unwrap();
        let mut reader = ShardReader::new(dir.path(), "a", 0, Position::default(), StoppedClock.boot_id());
        let (mut text, mut buffer) = (Vec::new(), Vec::new());
        while reader.take(&OnDisk, 100, &mut buffer).unwrap().is_some() {
            text.extend_from_slice(&buffer);
        }
        assert!(text.is_empty() || text == b"one\ntwo\nlater\n", "call {n}: {:?}", String::from_utf8_lossy(&text));
        waits += u32::from(text.is_empty());
    }
    assert!(waits > 3 && failures > 3 && waits < 60, "{waits} {failures}");
}
