use super::*;
use crate::log::real_disk::RealDisk;
use crate::log::trail::{Header, Record, What};
use proptest::prelude::*;

const IN_2033_NS: u64 = 2_000_000_000_000_000_000;

fn id(shard: u16, sequence: u64) -> SegmentId {
    SegmentId { shard, sequence }
}

/// Writes a trail whose last line came at that second.
fn trail(dir: &Path, id: SegmentId, second: u64) {
    let wall_ns = IN_2033_NS + second * 1_000_000_000;
    let header = Header { boot: [1; 16], node: [0; 16], mount: 1, id, previous: 0, wall_ns: 0 };
    let record = Record { what: What::Write, offset: 0, len: 1, lines: 1, crc: 0, wall_ns, mono_ns: 0 };
    std::fs::write(dir.join(id.file_name(Kind::Trail)), header.encode_whole([record].iter())).unwrap();
}

/// What happens to a segment.
#[derive(Debug, Clone)]
enum Step {
    Make(SegmentId, usize),
    Grow(SegmentId, usize),
    Seal(SegmentId, u64),
    Compress(SegmentId),
    Delete(SegmentId),
    LoseTrail(SegmentId),
    Stick(SegmentId),
    TryAgain(SegmentId),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let any_id = (0..3u16, 1..6u64).prop_map(|(shard, sequence)| id(shard, sequence));
    let step = prop_oneof![
        3 => (any_id.clone(), 1..50usize).prop_map(|(id, n)| Step::Make(id, n)),
        1 => (any_id.clone(), 1..50usize).prop_map(|(id, n)| Step::Grow(id, n)),
        4 => (any_id.clone(), 0..100u64).prop_map(|(id, at)| Step::Seal(id, at)),
        1 => any_id.clone().prop_map(Step::Compress),
        1 => any_id.clone().prop_map(Step::Delete),
        1 => any_id.clone().prop_map(Step::LoseTrail),
        1 => any_id.clone().prop_map(Step::Stick),
        1 => any_id.prop_map(Step::TryAgain),
    ];
    prop::collection::vec(step, 1..40)
}

/// Does a step to the files. False: nothing to do it to.
fn apply(dir: &Path, step: &Step) -> bool {
    let file = |id: &SegmentId, kind| dir.join(id.file_name(kind));
    let finished = |id: &SegmentId| file(id, Kind::Sealed).exists() || file(id, Kind::Compressed).exists();
    match step {
        Step::Make(id, n) => {
            !finished(id) && {
                std::fs::write(file(id, Kind::Active), vec![b'x'; *n]).unwrap();
                trail(dir, *id, 0);
                true
            }
        }
        Step::Grow(id, n) => {
            file(id, Kind::Active).exists() && {
                std::fs::write(file(id, Kind::Active), vec![b'x'; 100 + n]).unwrap();
                true
            }
        }
        Step::Seal(id, at) => {
            file(id, Kind::Active).exists() && {
                trail(dir, *id, *at);
                std::fs::rename(file(id, Kind::Active), file(id, Kind::Sealed)).unwrap();
                true
            }
        }
        Step::Compress(id) => {
            file(id, Kind::Sealed).exists() && {
                std::fs::write(file(id, Kind::Compressed), "z").unwrap();
                std::fs::remove_file(file(id, Kind::Sealed)).unwrap();
                true
            }
        }
        Step::Delete(id) => {
            finished(id) && {
                KINDS.into_iter().for_each(|kind| drop(std::fs::remove_file(file(id, kind))));
                true
            }
        }
        Step::LoseTrail(id) => finished(id) && std::fs::remove_file(file(id, Kind::Trail)).is_ok(),
        Step::Stick(_) | Step::TryAgain(_) => true,
    }
}

/// The times of a catalogue that was told of each change are those at which it was told: a later change of a neighbour can only have made
/// a segment older. So times are compared where every segment has its own trail.
fn same(told: &Catalogue, read: &Catalogue, times: bool) {
    assert_eq!(told.finished.keys().collect::<Vec<_>>(), read.finished.keys().collect::<Vec<_>>());
    assert_eq!((told.finished_bytes, &told.active), (read.finished_bytes, &read.active));
    assert_eq!((told.bytes(), told.segments()), (read.bytes(), read.segments()));
    if times {
        assert_eq!(told.finished, read.finished);
    }
    for catalogue in [told, read] {
        let mut behind: Option<Finished> = None;
        for one in catalogue.finished.values().rev() {
            let next = behind.filter(|next| next.id.shard == one.id.shard);
            let is_younger = one.closed_ns.zip(next.and_then(|n| n.closed_ns)).is_some_and(|(own, next)| own > next);
            assert!(!is_younger, "{one:?} {next:?}");
            behind = Some(*one);
        }
    }
}

proptest! {
    #[test]
    fn one_that_is_told_of_each_change_is_what_is_read(steps in steps()) {
        let (dir, disk) = (tempfile::tempdir().unwrap(), RealDisk::new());
        let mut told = Catalogue::read(&disk, dir.path()).unwrap();
        let mut only_grows = true;
        for step in steps {
            if !apply(dir.path(), &step) {
                continue;
            }
            match &step {
                Step::Grow(..) => told.look_at_active(&disk),
                Step::Stick(id) => {
                    if let Some(one) = told.take(*id) {
                        told.is_stuck(one);
                    } else {
                        told.look(&disk, *id);
                    }
                }
                Step::TryAgain(id) => told.try_again(*id),
                Step::Make(id, _) | Step::Seal(id, _) | Step::Compress(id) | Step::Delete(id) | Step::LoseTrail(id) => {
                    told.look(&disk, *id);
                }
            }
            only_grows &= matches!(step, Step::Make(..) | Step::Grow(..) | Step::Seal(..));
            let stuck: Vec<SegmentId> = told.stuck.keys().copied().collect();
            let bytes = told.bytes();
            stuck.iter().for_each(|id| told.try_again(*id));
            prop_assert_eq!(told.bytes(), bytes);
            same(&told, &Catalogue::read(&disk, dir.path()).unwrap(), only_grows);
            for id in stuck {
                let one = told.take(id).unwrap();
                told.is_stuck(one);
            }
        }
    }
}

#[test]
fn the_oldest_is_the_first_of_a_shard_that_may_go() {
    let (dir, disk) = (tempfile::tempdir().unwrap(), RealDisk::new());
    for (shard, sequence, second) in [(0, 4, 30), (0, 5, 40), (2, 1, 10), (2, 2, 50)] {
        std::fs::write(dir.path().join(id(shard, sequence).file_name(Kind::Sealed)), "x\n").unwrap();
        trail(dir.path(), id(shard, sequence), second);
    }
    let mut catalogue = Catalogue::read(&disk, dir.path()).unwrap();
    let oldest = |catalogue: &Catalogue, staying: &[(u16, u64)]| {
        catalogue.oldest(&staying.iter().copied().collect()).map(|one| one.id)
    };
    assert_eq!(oldest(&catalogue, &[]), Some(id(2, 1)));
    assert_eq!(oldest(&catalogue, &[(2, 2)]), Some(id(2, 1)));
    assert_eq!(oldest(&catalogue, &[(2, 1)]), Some(id(0, 4)), "nothing behind what stays goes");
    assert_eq!(oldest(&catalogue, &[(2, 1), (0, 1)]), None);
    assert_eq!(catalogue.last_of_shards(), [id(2, 2), id(0, 5)]);
    let one = catalogue.take(id(2, 1)).unwrap();
    assert_eq!(oldest(&catalogue, &[]), Some(id(0, 4)));
    catalogue.is_stuck(one);
    assert_eq!((oldest(&catalogue, &[]), catalogue.segments()), (Some(id(0, 4)), 4), "it is there, and not chosen");
}
