//! What targets of shipping hold.

use super::*;
use crate::log::ship::{Position, note};

fn with_target(limits: Limits, target: TargetHold) -> Kept1 {
    let it = Kept1::new(limits);
    it.keeper.streams.write().unwrap()[0].targets.push(target);
    it
}

fn target() -> TargetHold {
    TargetHold { name: "k".into(), holds: true, begins_now: false, at_most: None }
}

fn has(it: &Kept1, sequence: u64, offset: u64) {
    let positions = note::Positions::from([(("s".into(), 0), Position { sequence, offset })]);
    note::write(&*it.keeper.disk, it.dir.path(), "k", &positions).unwrap();
}

#[test]
fn what_a_target_has_not_got_stays_also_if_it_never_ran() {
    let mut it = with_target(Limits { max_bytes: Some(700), ..Limits::default() }, target());
    (1..7).for_each(|n| it.seal(0, n, 500));
    it.keeper.pass();
    assert_eq!(it.there().len(), 6, "nobody has anything of it");
    has(&it, 3, 17);
    it.keeper.pass();
    assert_eq!(it.there()[0], (0, 3), "it is in the middle of this one");
    has(&it, 7, 0);
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 6)]);
    it.keeper.streams.write().unwrap()[0].targets.clear();
    it.seal(0, 7, 500);
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 7)], "a target that is taken out of the configuration holds nothing");
}

#[test]
fn a_target_that_begins_now_holds_nothing_before_its_shipper_has_run() {
    let mut it =
        with_target(Limits { max_bytes: Some(700), ..Limits::default() }, TargetHold { begins_now: true, ..target() });
    (1..4).for_each(|n| it.seal(0, n, 500));
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 3)]);
    has(&it, 3, 0);
    (4..7).for_each(|n| it.seal(0, n, 500));
    it.keeper.pass();
    assert_eq!(it.there().len(), 4);
}

#[test]
fn a_target_holds_no_more_than_it_may() {
    let limits = Limits { max_bytes: Some(700), ..Limits::default() };
    let mut it = with_target(limits, TargetHold { at_most: Some(2_000), ..target() });
    has(&it, 2, 0);
    (1..9).for_each(|n| it.seal(0, n, 500));
    it.keeper.pass();
    let there = it.there();
    assert!((3..=4).contains(&there.len()) && *there.last().unwrap() == (0, 8), "{there:?}");
}

#[test]
fn a_note_that_nobody_can_read_keeps_everything() {
    let mut it = with_target(Limits { max_bytes: Some(700), ..Limits::default() }, target());
    has(&it, 9, 0);
    std::fs::write(note::path(it.dir.path(), "k"), "no note").unwrap();
    (1..4).for_each(|n| it.seal(0, n, 500));
    it.keeper.pass();
    assert_eq!(it.there().len(), 3);
}

#[test]
fn a_full_disk_counts_for_more_than_a_target() {
    let limits = Limits { min_free: Some((1 << 30) + 900), ..Limits::default() };
    let mut it = with_target(limits, target());
    (1..7).for_each(|n| it.seal(0, n, 500));
    it.keeper.pass();
    assert_eq!(it.there()[0], (0, 3), "two make enough");
}

fn state(it: &Kept1) -> TargetState {
    it.keeper.counts.targets.lock().unwrap()["k"].clone()
}

/// Looks at the targets again, whatever the time.
fn look(it: &mut Kept1) {
    it.clock.go_on(6 * SECOND);
    it.keeper.pass();
}

#[test]
fn what_is_deleted_before_a_target_has_it_is_counted() {
    let limits = Limits { max_bytes: Some(700), ..Limits::default() };
    let mut it = with_target(limits, TargetHold { holds: false, ..target() });
    has(&it, 2, 0);
    (1..7).for_each(|n| it.seal(0, n, 500));
    it.keeper.pass();
    assert_eq!(it.there(), [(0, 6)]);
    look(&mut it);
    let lost = state(&it).lost;
    assert!(lost.1 >= 4 * 500 && lost.1 < 5 * 1000, "2, 3, 4 and 5, and not 1: {lost:?}");
    has(&it, 7, 0);
    it.seal(0, 7, 500);
    look(&mut it);
    assert_eq!(state(&it).lost, lost, "it had 6");
}

#[test]
fn a_target_that_keeps_segments_from_being_deleted_says_so() {
    let mut it = with_target(Limits { max_bytes: Some(700), ..Limits::default() }, target());
    it.seal(0, 1, 500);
    look(&mut it);
    assert!(!state(&it).is_holding, "nothing is to go");
    (2..5).for_each(|n| it.seal(0, n, 500));
    look(&mut it);
    assert!(state(&it).is_holding);
    has(&it, 4, 0);
    look(&mut it);
    look(&mut it);
    assert!(!state(&it).is_holding);
}

#[test]
fn a_shipper_is_up_while_it_says_so() {
    use crate::log::ship::status::{Doing, Status};
    let mut it = with_target(Limits::default(), target());
    look(&mut it);
    assert_eq!((state(&it).is_up, state(&it).status), (false, None));
    let said = Status { doing: Doing::Shipping, at_ns: it.keeper.clock.wall_ns(), lines: 7, ..Status::default() };
    has(&it, 1, 0);
    said.write(it.dir.path(), "k").unwrap();
    look(&mut it);
    assert_eq!((state(&it).is_up, state(&it).status), (true, Some(said)));
    (0..6).for_each(|_| look(&mut it));
    assert!(!state(&it).is_up, "it has been silent for half a minute");
    it.keeper.streams.write().unwrap()[0].targets.clear();
    look(&mut it);
    assert!(it.keeper.counts.targets.lock().unwrap().is_empty());
}
