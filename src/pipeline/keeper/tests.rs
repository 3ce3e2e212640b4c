use super::events::SegmentEvents;
use super::room::AWAIT_ROOM_NS;
use super::trust::DISTRUST_NS;
use super::*;
use crate::host::clock::BootId;
use crate::log::disk::DiskFile;
use crate::log::names::SegmentId;
use crate::log::real_disk::RealDisk;
use crate::log::trail::{Header, Record, What};
use crate::pipeline::commit::Clearance;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

#[path = "others_tests.rs"]
mod others;
#[path = "targets_tests.rs"]
mod targets;

const SECOND: u64 = 1_000_000_000;
/// An hour after which ages are believed in any case.
const LATER: u64 = 4_000 * SECOND;

#[derive(Default)]
struct Times {
    wall: AtomicU64,
    mono: AtomicU64,
}

impl Clock for Times {
    fn mono_ns(&self) -> u64 {
        self.mono.load(Ordering::SeqCst)
    }
    fn wall_ns(&self) -> u64 {
        self.wall.load(Ordering::SeqCst)
    }
    fn boot_id(&self) -> BootId {
        [1; 16]
    }
}

impl Times {
    fn go_on(&self, ns: u64) {
        self.wall.fetch_add(ns, Ordering::SeqCst);
        self.mono.fetch_add(ns, Ordering::SeqCst);
    }
}

/// The machine's disk, but for what it says is free.
struct Told {
    real: RealDisk,
    free: Arc<AtomicU64>,
    stuck: Stuck,
    /// How often directories were listed.
    listed: Arc<AtomicU64>,
}

/// Names of files that cannot be removed.
type Stuck = Arc<Mutex<Vec<String>>>;

impl Disk for Told {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.real.create_dir_all(dir)
    }
    fn create_new(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.real.create_new(path)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.real.open(path)
    }
    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.listed.fetch_add(1, Ordering::SeqCst);
        self.real.list(dir)
    }
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename_new(from, to)
    }
    fn rename_over(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.real.rename_over(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.stuck.lock().unwrap().iter().any(|name| path.ends_with(name)) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        self.real.remove(path)
    }
    fn symlink(&self, target: &str, link: &Path) -> io::Result<()> {
        self.real.symlink(target, link)
    }
    fn link_target(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        self.real.link_target(path)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.real.sync_dir(dir)
    }
    fn free_bytes(&self, _dir: &Path) -> io::Result<u64> {
        Ok(self.free.load(Ordering::SeqCst))
    }
    fn device(&self, dir: &Path) -> Option<u64> {
        self.real.device(dir)
    }
    fn mount_id(&self, dir: &Path) -> u64 {
        self.real.mount_id(dir)
    }
}

struct Kept1 {
    stuck: Stuck,
    listed: Arc<AtomicU64>,
    free: Arc<AtomicU64>,
    dir: tempfile::TempDir,
    clock: Arc<Times>,
    keeper: Keeper,
}

impl Kept1 {
    fn new(limits: Limits) -> Kept1 {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("s")).unwrap();
        let clock = Arc::new(Times::default());
        clock.go_on(2_000_000_000 * SECOND); // in 2033
        let shelf = Shelf { dir: dir.path().join("s"), home: None, compress: None };
        let streams = Arc::new(RwLock::new(vec![KeptStream { name: "s".into(), shelf, limits, targets: Vec::new() }]));
        let time: Arc<dyn Clock> = Arc::clone(&clock) as Arc<dyn Clock>;
        let free = Arc::new(AtomicU64::new(1 << 30));
        let stuck = Stuck::default();
        let listed = Arc::new(AtomicU64::new(0));
        let disk: Arc<dyn Disk> = Arc::new(Told {
            real: RealDisk::new(),
            free: Arc::clone(&free),
            stuck: Arc::clone(&stuck),
            listed: Arc::clone(&listed),
        });
        let keeper = Keeper::new(
            disk,
            time,
            Arc::default(),
            dir.path(),
            (streams, KeptCounts::default(), Arc::new(SegmentEvents::new(Arc::new(|| ())))),
            Clearance::new(Vec::new()),
        );
        Kept1 { dir, clock, keeper, free, stuck, listed }
    }

    /// A sealed segment of so many bytes whose last line came now.
    fn seal(&self, shard: u16, sequence: u64, bytes: usize) {
        let id = SegmentId { shard, sequence };
        let wall_ns = self.clock.wall_ns();
        let header = Header { boot: [1; 16], node: [0; 16], mount: 1, id, previous: sequence - 1, wall_ns: 0 };
        let text = vec![b'\n'; bytes];
        let crc = crate::log::checksum::crc32c(&text);
        let (len, lines) = (bytes as u64, bytes as u32);
        let record = Record { what: What::Write, offset: 0, len, lines, crc, wall_ns, mono_ns: 0 };
        let put =
            |kind, bytes: &[u8]| std::fs::write(self.dir.path().join("s").join(id.file_name(kind)), bytes).unwrap();
        put(Kind::Trail, &header.encode_whole([record].iter()));
        put(Kind::Sealed, &text);
        self.keeper.events.sealed(&self.dir.path().join("s"), id);
    }

    fn there(&self) -> Vec<(u16, u64)> {
        let ids = crate::log::cat::segments(&self.dir.path().join("s")).unwrap();
        ids.into_iter().map(|id| (id.shard, id.sequence)).collect()
    }

    fn kept(&self) -> Kept {
        self.keeper.counts.streams.lock().unwrap()["s"].clone()
    }
}

#[test]
fn what_is_too_old_goes_and_says_when_the_next_does() {
    let mut it = Kept1::new(Limits { max_age_ns: Some(100 * SECOND), ..Limits::default() });
    it.seal(0, 1, 10);
    it.clock.go_on(60 * SECOND);
    it.seal(0, 2, 10);
    it.seal(1, 1, 10);
    assert_eq!(it.keeper.pass(), Some(it.clock.mono_ns() + 40 * SECOND));
    it.clock.go_on(40 * SECOND);
    assert_eq!(it.keeper.pass(), Some(it.clock.mono_ns() + 60 * SECOND));
    assert_eq!(it.there(), [(0, 2), (1, 1)]);
    it.clock.go_on(60 * SECOND);
    assert_eq!(it.keeper.pass(), None);
    assert_eq!(it.there(), []);
    assert_eq!(it.kept().deleted["max_age"], 3);
    assert_eq!(std::fs::read_dir(it.dir.path().join("s")).unwrap().count(), 0, "their trails went with them");
}

#[test]
fn what_is_too_much_goes_oldest_first_and_each_shard_in_its_order() {
    let mut it = Kept1::new(Limits { max_bytes: Some(3_000), ..Limits::default() });
    // Shard 1's second was closed before its first, as far as clocks that jump know: then the first is no younger than that.
    it.clock.go_on(10 * SECOND);
    it.seal(1, 1, 800);
    it.clock.wall.fetch_sub(5 * SECOND, Ordering::SeqCst);
    it.seal(1, 2, 800);
    it.clock.go_on(3 * SECOND);
    it.seal(0, 1, 800);
    it.seal(0, 2, 800);
    assert_eq!(it.keeper.pass(), None);
    assert_eq!(it.there(), [(0, 1), (0, 2), (1, 2)]);
    it.seal(0, 3, 800);
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 1), (0, 2), (0, 3)]);
    it.seal(0, 4, 800);
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 2), (0, 3), (0, 4)]);
}

#[test]
fn without_room_the_oldest_goes_until_there_is() {
    let mut it = Kept1::new(Limits { min_free: Some(u64::MAX), ..Limits::default() });
    (1..4).for_each(|n| it.seal(0, n, 10));
    let id = SegmentId { shard: 0, sequence: 4 };
    std::fs::write(it.dir.path().join("s").join(id.file_name(Kind::Active)), "x\n").unwrap();
    assert_eq!(it.keeper.pass(), Some(it.clock.mono_ns() + LOOK_NS));
    assert_eq!(it.there(), [(0, 4)], "never what is being written");
    assert_eq!(it.kept().deleted["min_free"], 3);
}

/// btrfs says what is free after its next commit, up to half a minute later.
#[test]
fn what_is_deleted_and_does_not_show_yet_is_not_deleted_for_twice() {
    let mut it = Kept1::new(Limits { min_free: Some((1 << 30) + 1_500), ..Limits::default() });
    (1..9).for_each(|n| it.seal(0, n, 1_000));
    it.keeper.pass();
    assert_eq!(it.there().len(), 6, "two make enough");
    it.clock.go_on(20 * SECOND);
    it.keeper.pass();
    assert_eq!(it.there().len(), 6, "it does not show yet");
    // It shows, and somebody else takes as much.
    it.free.fetch_add(2_500, Ordering::SeqCst);
    it.keeper.pass();
    it.free.fetch_sub(2_500, Ordering::SeqCst);
    it.keeper.pass();
    assert_eq!(it.there().len(), 4);
    it.clock.go_on(AWAIT_ROOM_NS);
    it.keeper.pass();
    assert_eq!(it.there().len(), 2, "a snapshot holds it: no longer awaited");
}

#[test]
fn a_clock_that_was_wrong_once_holds_up_nobody() {
    let mut it = Kept1::new(Limits { max_age_ns: Some(100 * SECOND), ..Limits::default() });
    let now = it.clock.wall_ns();
    it.clock.wall.store(5 * SECOND, Ordering::SeqCst); // 1970: not set yet
    it.seal(0, 1, 10);
    it.clock.wall.store(now + 1_000_000 * SECOND, Ordering::SeqCst);
    it.seal(0, 2, 10);
    it.clock.wall.store(now, Ordering::SeqCst);
    it.keeper.pass();
    it.clock.go_on(LATER);
    it.seal(0, 3, 10);
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 1), (0, 2), (0, 3)], "as old as the one behind them");
    it.clock.go_on(100 * SECOND);
    it.keeper.pass();
    assert_eq!(it.there(), []);
}

#[test]
fn a_clock_that_jumps_deletes_nothing() {
    let mut it = Kept1::new(Limits { max_age_ns: Some(7 * 86_400 * SECOND), ..Limits::default() });
    it.seal(0, 1, 10);
    it.clock.go_on(LATER);
    it.keeper.pass();
    it.clock.wall.fetch_add(3_650 * 86_400 * SECOND, Ordering::SeqCst);
    let next = it.keeper.pass();
    assert_eq!(it.there(), [(0, 1)]);
    assert_eq!(next, Some(it.clock.mono_ns() + DISTRUST_NS), "looked at again when the clock may be believed");
    it.clock.wall.fetch_sub(3_650 * 86_400 * SECOND, Ordering::SeqCst);
    it.clock.go_on(2 * SECOND);
    it.keeper.pass();
    it.clock.go_on(LATER);
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 1)], "it was set right");
    it.clock.go_on(7 * 86_400 * SECOND);
    it.keeper.pass();
    it.clock.go_on(LATER);
    it.keeper.pass();
    assert_eq!(it.there(), []);
}

#[test]
fn a_segment_without_a_trail_is_as_old_as_the_one_behind_it() {
    let mut it = Kept1::new(Limits { max_age_ns: Some(100 * SECOND), ..Limits::default() });
    (1..4).for_each(|n| it.seal(0, n, 10));
    std::fs::remove_file(it.dir.path().join("s/000-0000000001.trail")).unwrap();
    std::fs::write(it.dir.path().join("s/000-0000000002.trail"), "nonsense").unwrap();
    it.clock.go_on(LATER);
    it.keeper.pass();
    assert_eq!(it.there(), []);
}

#[test]
fn what_a_crash_left_half_deleted_goes_at_the_next_look() {
    let mut it = Kept1::new(Limits::default());
    (1..4).for_each(|n| it.seal(0, n, 10));
    let note = |text: &str| {
        let path = retired::mark_path(it.dir.path(), "s", 0);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    note("1\nretiring 1-1\n");
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 2), (0, 3)]);
    assert_eq!(it.kept().deleted["unfinished"], 1);
}

#[test]
fn what_was_put_back_from_a_backup_stays() {
    let mut it = Kept1::new(Limits::default());
    (1..6).for_each(|n| it.seal(0, n, 10));
    let path = retired::mark_path(it.dir.path(), "s", 0);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, "4\n").unwrap();
    it.keeper.pass();
    assert_eq!(it.there().len(), 5, "nothing is noted as going");
    assert!(it.kept().deleted.is_empty());
}

#[test]
fn one_file_that_cannot_be_removed_does_not_keep_the_others() {
    let mut it = Kept1::new(Limits { max_bytes: Some(700), ..Limits::default() });
    (1..2_001).for_each(|n| it.seal(0, n, 10));
    it.stuck.lock().unwrap().push("000-0000000003.log".into());
    it.keeper.pass();
    let there = it.there();
    assert_eq!(there[0], (0, 3));
    assert!(there.len() == 5 && there.last() == Some(&(0, 2_000)), "{there:?}");
    assert_eq!(it.kept().deleted["max_bytes"] + there.len() as u64, 2_000);
    assert_eq!(it.kept().failures, 1);
    let next = it.keeper.pass();
    assert_eq!((it.kept().failures, next), (1, Some(it.clock.mono_ns() + AGAIN_NS)), "tried again later");
    it.clock.go_on(AGAIN_NS);
    it.seal(0, 2_001, 10);
    let next = it.keeper.pass();
    assert_eq!((it.kept().failures, next), (2, Some(it.clock.mono_ns() + AGAIN_NS)));
    it.stuck.lock().unwrap().clear();
    it.clock.go_on(AGAIN_NS);
    it.seal(0, 2_002, 10);
    assert_eq!(it.keeper.pass(), None);
    assert!(!it.there().contains(&(0, 3)), "{:?}", it.there());
}

#[test]
fn many_deletions_list_the_directory_no_more_often_than_few() {
    let lists = |segments: u64| {
        let mut it = Kept1::new(Limits { max_bytes: Some(20), ..Limits::default() });
        for sequence in 1..=segments {
            let id = SegmentId { shard: 0, sequence };
            std::fs::write(it.dir.path().join("s").join(id.file_name(Kind::Sealed)), "nine more\n").unwrap();
        }
        it.keeper.pass();
        assert_eq!(it.kept().deleted["max_bytes"], segments - 2);
        it.listed.load(Ordering::SeqCst)
    };
    assert_eq!(lists(2 * TURN as u64 + 10), lists(3));
}

#[test]
fn directories_are_not_listed_while_all_is_well() {
    let mut it = Kept1::new(Limits { max_bytes: Some(3_000), max_age_ns: Some(LATER), ..Limits::default() });
    it.seal(0, 1, 800);
    it.keeper.pass();
    let listed = it.listed.load(Ordering::SeqCst);
    for sequence in 2..100 {
        it.clock.go_on(SECOND);
        it.seal(0, sequence, 800);
        it.keeper.pass();
    }
    assert_eq!(it.there(), [(0, 97), (0, 98), (0, 99)]);
    assert_eq!((it.kept().deleted["max_bytes"], it.kept().segments), (96, 3));
    assert_eq!(it.listed.load(Ordering::SeqCst), listed);
}

#[test]
fn what_others_have_changed_is_seen_after_an_hour_or_a_reload() {
    let mut it = Kept1::new(Limits { max_bytes: Some(1 << 20), ..Limits::default() });
    (1..5).for_each(|n| it.seal(0, n, 10));
    it.keeper.pass();
    let remove = |it: &Kept1, n: u64| {
        std::fs::remove_file(it.dir.path().join("s").join(SegmentId { shard: 0, sequence: n }.file_name(Kind::Sealed)))
            .unwrap();
    };
    remove(&it, 1);
    it.clock.go_on(READ_AGAIN_NS);
    it.keeper.pass();
    assert_eq!(it.kept().segments, 3);
    remove(&it, 2);
    it.keeper.pass();
    assert_eq!(it.kept().segments, 3);
    it.keeper.events.read_again();
    it.keeper.pass();
    assert_eq!(it.kept().segments, 2);
}

/// Deletion of what somebody has deleted by hand is no failure, and is not counted as ours.
#[test]
fn what_is_gone_already_is_not_counted_as_deleted() {
    let mut it = Kept1::new(Limits { max_bytes: Some(3_000), ..Limits::default() });
    (1..5).for_each(|n| it.seal(0, n, 200));
    it.keeper.pass();
    assert_eq!(it.there().len(), 4);
    let name = SegmentId { shard: 0, sequence: 1 };
    for kind in [Kind::Sealed, Kind::Trail] {
        std::fs::remove_file(it.dir.path().join("s").join(name.file_name(kind))).unwrap();
    }
    (5..7).for_each(|n| it.seal(0, n, 1_000));
    it.keeper.pass();
    let there = it.there();
    assert!(there[0].1 > 2, "{there:?}");
    assert_eq!((it.kept().failures, it.kept().deleted["max_bytes"]), (0, 6 - 1 - there.len() as u64));
}

/// The clock of a test, for a reader.
struct Shared(Arc<Times>);

impl Clock for Shared {
    fn mono_ns(&self) -> u64 {
        self.0.mono_ns()
    }
    fn wall_ns(&self) -> u64 {
        self.0.wall_ns()
    }
    fn boot_id(&self) -> BootId {
        self.0.boot_id()
    }
}

fn hold(it: &Kept1, sequence: u64) -> holds::Hold {
    let first = SegmentId { shard: 0, sequence };
    let clock = Box::new(Shared(Arc::clone(&it.clock)));
    holds::Hold::take(&it.dir.path().join(STATE_DIR), "cat", clock, [("s".to_string(), first)]).unwrap()
}

#[test]
fn what_a_reader_holds_stays_until_it_has_read_it() {
    let mut it = Kept1::new(Limits { max_bytes: Some(700), ..Limits::default() });
    let mut reader = hold(&it, 3);
    (1..7).for_each(|n| it.seal(0, n, 500));
    let next = it.keeper.pass();
    assert_eq!(it.there()[0], (0, 3), "what it does not need goes");
    assert_eq!(next, Some(it.clock.mono_ns() + HELD_NS), "looked at again soon");
    reader.is_at("s", SegmentId { shard: 0, sequence: 5 }).unwrap();
    it.keeper.pass();
    assert_eq!(it.there()[0], (0, 5));
    drop(reader);
    assert_eq!(it.keeper.pass(), None);
    assert_eq!(it.there(), [(0, 6)]);
}

#[test]
fn a_full_disk_counts_for_more_than_a_reader() {
    let mut it = Kept1::new(Limits { min_free: Some((1 << 30) + 900), max_bytes: Some(700), ..Limits::default() });
    let _reader = hold(&it, 1);
    (1..7).for_each(|n| it.seal(0, n, 500));
    it.keeper.pass();
    assert_eq!(it.there()[0], (0, 3), "two make enough");
    assert_eq!(it.kept().deleted["min_free"], 2);
    assert!(!it.kept().deleted.contains_key("max_bytes"));
}

/// The note of a deletion cannot be written: nothing is deleted, and all of it is chosen again.
#[test]
fn what_could_not_be_noted_is_in_the_catalogue_again() {
    let mut it = Kept1::new(Limits { max_bytes: Some(700), ..Limits::default() });
    (1..7).for_each(|n| it.seal(0, n, 500));
    let notes = it.dir.path().join(STATE_DIR).join("retired");
    std::fs::create_dir_all(notes.parent().unwrap()).unwrap();
    std::fs::write(&notes, "in the way").unwrap();
    it.keeper.pass();
    assert_eq!((it.there().len(), it.kept().segments, it.kept().failures), (6, 6, 1));
    std::fs::remove_file(&notes).unwrap();
    it.clock.go_on(AGAIN_NS);
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 6)]);
}

#[test]
fn of_several_streams_the_oldest_goes_first_for_room() {
    let mut it = Kept1::new(Limits { min_free: Some((1 << 30) + 1_500), ..Limits::default() });
    let shelf = |name: &str| Shelf { dir: it.dir.path().join(name), home: None, compress: None };
    std::fs::create_dir_all(it.dir.path().join("t")).unwrap();
    let limits = it.keeper.streams.read().unwrap()[0].limits;
    let other = KeptStream { name: "t".into(), shelf: shelf("t"), limits, targets: Vec::new() };
    it.keeper.streams.write().unwrap().push(other);
    // In turn, each younger than the one before.
    for n in 1..4 {
        it.seal(0, n, 500);
        let name = SegmentId { shard: 0, sequence: n }.file_name(Kind::Sealed);
        let (from, to) = (it.dir.path().join("s"), it.dir.path().join("t"));
        std::fs::copy(from.join(&name), to.join(&name)).unwrap();
        let trail = SegmentId { shard: 0, sequence: n }.file_name(Kind::Trail);
        std::fs::copy(from.join(&trail), to.join(&trail)).unwrap();
        it.clock.go_on(SECOND);
    }
    it.keeper.pass();
    let left = |name: &str| crate::log::cat::segments(&it.dir.path().join(name)).unwrap().len();
    assert_eq!((left("s"), left("t")), (1, 2), "three of about 600 bytes, the older ones first");
}
