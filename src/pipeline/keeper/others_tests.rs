//! What others do in the directories meanwhile: readers that hold, people who delete, streams that fail.

use super::*;

/// Two shards of a stream, and a reader that goes through the second one still.
#[test]
fn nothing_younger_goes_because_something_older_is_held() {
    let mut it = Kept1::new(Limits { max_bytes: Some(1_400), ..Limits::default() });
    let first = SegmentId { shard: 1, sequence: 1 };
    let clock = Box::new(Shared(Arc::clone(&it.clock)));
    let reader = holds::Hold::take(&it.dir.path().join(STATE_DIR), "cat", clock, [("s".to_string(), first)]).unwrap();
    it.seal(1, 1, 500);
    it.clock.go_on(SECOND);
    (1..4).for_each(|n| it.seal(0, n, 500));
    it.keeper.pass();
    assert_eq!(it.there().len(), 4, "not those of shard 0 either");
    drop(reader);
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 2), (0, 3)]);
}

/// Somebody has deleted the newest by hand, to get room: what is left is less than it may be.
#[test]
fn what_others_have_deleted_does_not_count_for_what_is_too_much() {
    let mut it = Kept1::new(Limits { max_bytes: Some(6_000), ..Limits::default() });
    (1..8).for_each(|n| it.seal(0, n, 600));
    it.keeper.pass();
    assert_eq!(it.there().len(), 7);
    for n in 3..8 {
        let id = SegmentId { shard: 0, sequence: n };
        for kind in [Kind::Sealed, Kind::Trail] {
            std::fs::remove_file(it.dir.path().join("s").join(id.file_name(kind))).unwrap();
        }
    }
    it.clock.go_on(TRUSTED_NS);
    (8..11).for_each(|n| it.seal(0, n, 600));
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 1), (0, 2), (0, 8), (0, 9), (0, 10)]);
}

#[test]
fn what_others_have_deleted_is_no_room_that_will_come() {
    let mut it = Kept1::new(Limits { min_free: Some((1 << 30) - 1), ..Limits::default() });
    (1..7).for_each(|n| it.seal(0, n, 600));
    it.keeper.pass();
    for n in 1..4 {
        let id = SegmentId { shard: 0, sequence: n };
        for kind in [Kind::Sealed, Kind::Trail] {
            std::fs::remove_file(it.dir.path().join("s").join(id.file_name(kind))).unwrap();
        }
    }
    it.free.store((1 << 30) - 1_300, Ordering::SeqCst);
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 6)], "two make enough");
}

/// The note of one stream cannot be written: the other's segments go all the same, and none is forgotten.
#[test]
fn one_stream_that_cannot_be_deleted_from_does_not_keep_the_others() {
    let mut it = Kept1::new(Limits { min_free: Some((1 << 30) + 2_000), ..Limits::default() });
    let shelf = Shelf { dir: it.dir.path().join("t"), home: None, compress: None };
    let limits = it.keeper.streams.read().unwrap()[0].limits;
    it.keeper.streams.write().unwrap().push(KeptStream { name: "t".into(), shelf, limits, targets: Vec::new() });
    std::fs::create_dir_all(it.dir.path().join("t")).unwrap();
    for n in 1..4 {
        it.seal(0, n, 500);
        for kind in [Kind::Sealed, Kind::Trail] {
            let name = SegmentId { shard: 0, sequence: n }.file_name(kind);
            std::fs::copy(it.dir.path().join("s").join(&name), it.dir.path().join("t").join(&name)).unwrap();
        }
        it.clock.go_on(SECOND);
    }
    // A directory stands where the note of the first is to be.
    std::fs::create_dir_all(retired::mark_path(it.dir.path(), "s", 0)).unwrap();
    it.keeper.pass();
    let left = |name: &str| crate::log::cat::segments(&it.dir.path().join(name)).unwrap().len();
    assert_eq!(left("s"), 3);
    assert!(left("t") < 3, "{}", left("t"));
    assert_eq!(it.kept().segments, 3, "they are known still");
    std::fs::remove_dir(retired::mark_path(it.dir.path(), "s", 0)).unwrap();
    it.clock.go_on(AWAIT_ROOM_NS);
    it.keeper.pass();
    assert!(left("s") < 3, "{}", left("s"));
}
