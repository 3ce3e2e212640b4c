//! Recovery of directories that crashes, failing disks and people have left.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logweir::log::LogError;
use logweir::log::checksum::crc32c;
use logweir::log::names::{Kind, SegmentId};
use logweir::log::recover::{Recovered, recover_dir};
use logweir::log::segment::SECTOR;
use logweir::log::trail::{Trail, What};
use logweir::log::verify;
use logweir_fuzz::bytes::Bytes;
use logweir_fuzz::disk::{MemoryDisk, Names, Stopped};
use logweir_fuzz::memory::{self, Counting};
use logweir_fuzz::segments::{BOOT, MOUNT, STREAM, directory};
use logweir_fuzz::text;
use std::path::{Path, PathBuf};

#[global_allocator]
static MEMORY: Counting = Counting;

fn path(id: SegmentId, kind: Kind) -> PathBuf {
    Path::new(STREAM).join(id.file_name(kind))
}

fn kind_of(path: &Path) -> Option<(SegmentId, Kind)> {
    let name = path.file_name()?.to_str()?;
    // Only what logweir itself would write.
    SegmentId::parse(name).filter(|(id, kind)| id.file_name(*kind) == name)
}

/// What stays, found the obvious way.
struct Judged {
    bytes: usize,
    /// The trail is whole and right as far as it was needed, and says no more than it can prove.
    is_sound: bool,
    /// What it says of ends is at the ends of lines.
    at_lines: bool,
}

fn judge(content: &[u8], trail: &Trail, boot: [u8; 16], mount: u64) -> Judged {
    let suspect = trail.records.iter().any(|r| r.what == What::Suspect);
    let same = trail.header.is_some_and(|h| h.boot == boot && h.mount == mount && mount != 0);
    let mut is_doubtful = suspect || !same;
    let synced = (trail.synced_to() as usize).min(content.len());
    let is_end = |at: usize| at == 0 || content[at - 1] == b'\n';
    let (mut at, mut all_match, mut is_sound, mut at_lines) = (0, true, true, is_end(synced));
    for write in trail.records.iter().filter(|r| r.is_write()) {
        let end = write.offset.saturating_add(write.len);
        if write.offset != at as u64 || end > content.len() as u64 {
            all_match = false;
            break;
        }
        let bytes = &content[at..end as usize];
        let is_right = crc32c(bytes) == write.crc;
        if at as u64 >= trail.synced_to() && !is_right {
            (all_match, is_doubtful) = (false, true);
            break;
        }
        let lines = bytes.iter().filter(|b| **b == b'\n').count();
        is_sound &= is_right && lines == write.lines as usize && bytes.last().is_none_or(|b| *b == b'\n');
        at = end as usize;
        at_lines &= is_end(at);
    }
    is_sound &= trail.synced_to() <= at as u64;
    // A mark that somebody else has changed the file stays, and `verify` goes on to report it.
    is_sound &= trail.records.iter().all(|r| r.what != What::Foreign);
    let sector = SECTOR as usize;
    let holes = (at / sector..content.len() / sector).find(|s| content[(s + 1) * sector - 1] == 0);
    let hole = holes.map(|s| {
        let from = (s * sector).max(at);
        let rest = &content[from..(s + 1) * sector];
        from + rest.len() - rest.iter().rev().take_while(|b| **b == 0).count()
    });
    let until = match (all_match, is_doubtful) {
        (false, true) => at,
        (_, true) => hole.unwrap_or(content.len()),
        (_, false) => content.len(),
    };
    let lines = content[at..until].iter().rposition(|b| *b == b'\n').map_or(at, |i| at + i + 1);
    Judged { bytes: lines.max(synced), is_sound, at_lines }
}

fn is_temp(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".tmp"));
    name.is_some_and(|stem| kind_of(&path.with_file_name(stem)).is_some() || stem.starts_with("current-"))
}

fn one(before: &Names, after: &Names, found: &Recovered, boot: [u8; 16], mount: u64) {
    let content = &before[&path(found.id, Kind::Active)];
    let trail = before.get(&path(found.id, Kind::Trail)).map(|b| Trail::parse(b)).unwrap_or_default();
    let judged = judge(content, &trail, boot, mount);
    assert_eq!(found.bytes as usize, judged.bytes, "of {}", text(content));
    let (kept, rest) = content.split_at(judged.bytes);
    if judged.at_lines {
        assert!(kept.is_empty() || kept.ends_with(b"\n"), "whole lines");
    }
    if judged.is_sound {
        assert_eq!(found.lines, kept.iter().filter(|b| **b == b'\n').count() as u64);
        assert_eq!(found.damage.as_deref().filter(|d| !d.contains("both stay")), None);
    }
    if before.contains_key(&path(found.id, Kind::Sealed)) {
        for kind in [Kind::Active, Kind::Sealed, Kind::Trail, Kind::Torn] {
            let path = path(found.id, kind);
            assert_eq!(before.get(&path), after.get(&path), "there twice: nothing is ours to change");
        }
        return;
    }
    assert_eq!(found.torn_bytes as usize, rest.len());
    assert!(!after.contains_key(&path(found.id, Kind::Active)));
    let sealed = after.get(&path(found.id, Kind::Sealed)).map(Vec::as_slice);
    let stays = |k: &&[u8]| !k.is_empty() || found.damage.is_some();
    assert_eq!(sealed, Some(kept).filter(stays), "what stays is as it was, and damage stays to be seen");
    if !rest.is_empty() {
        assert!(after[&path(found.id, Kind::Torn)] == rest, "what is cut off is kept byte for byte");
    }
    if judged.is_sound && !kept.is_empty() && trail.header.is_some_and(|h| h.id == found.id) {
        let report = verify::stream(&MemoryDisk::with(after, mount), Path::new(""), STREAM).expect("it can be listed");
        let own: Vec<_> = report.problems.iter().filter(|p| p.file.contains(&stem(found.id))).collect();
        assert!(own.is_empty(), "{own:?}");
    }
}

fn stem(id: SegmentId) -> String {
    id.file_name(Kind::Torn).replace("torn", "")
}

/// Files without trails: those may hold a mark more.
fn but_trails(names: Names) -> Names {
    names.into_iter().filter(|(p, _)| !matches!(kind_of(p), Some((_, Kind::Trail)))).collect()
}

fuzz_target!(|data: &[u8]| {
    let [choice, dies_after, rest @ ..] = data else { return };
    let boot = if choice & 1 == 0 { BOOT } else { [9; 16] };
    let mount = [MOUNT, MOUNT, 4, 0][usize::from(choice >> 1 & 3)];
    let clock = Stopped(boot);
    let before = directory(&mut Bytes(rest));
    let recover = |disk: &MemoryDisk, strict| recover_dir(disk, &clock, Path::new(STREAM), strict);

    let disk = MemoryDisk::with(&before, mount);
    let total: usize = before.values().map(Vec::len).sum();
    memory::begin();
    let found = recover(&disk, false).expect("a disk without faults is recovered, whatever is on it");
    let most = memory::most();
    assert!(most <= (5 << 19) + 16 * total, "{most} bytes of memory for files of {total}");
    let after = disk.names();

    let active = before.keys().filter_map(|p| kind_of(p)).filter(|(_, kind)| *kind == Kind::Active);
    let mut ids: Vec<SegmentId> = active.map(|(id, _)| id).collect();
    ids.sort();
    assert_eq!(found.iter().map(|r| r.id).collect::<Vec<_>>(), ids, "each active segment, in order");
    found.iter().for_each(|r| one(&before, &after, r, boot, mount));
    let is_concerned = |path: &Path| kind_of(path).is_some_and(|(id, _)| ids.contains(&id));
    for (path, content) in before.iter().filter(|(p, _)| !is_concerned(p)) {
        let expected = Some(content).filter(|_| !is_temp(path));
        assert_eq!(after.get(path), expected, "{}: nothing to do with it", path.display());
    }
    let is_new = |path: &PathBuf| !before.contains_key(path);
    assert!(after.keys().filter(|p| is_new(p)).all(|p| is_concerned(p)), "no other file comes to be");

    // Twice is the same as once.
    let again = recover(&disk, false).expect("again");
    assert!(again.iter().all(|r| before.contains_key(&path(r.id, Kind::Sealed))), "{again:?}");
    assert_eq!(disk.names(), after, "twice is the same as once");

    // So it is where it was interrupted, or refused, the first time.
    let after = but_trails(after);
    if choice & 8 == 0 {
        let disk = MemoryDisk::with(&before, mount);
        disk.dies_after(u64::from(dies_after % 32));
        let _ = recover(&disk, false);
        disk.lives();
        recover(&disk, false).expect("behind an interrupted one");
        assert_eq!(but_trails(disk.names()), after, "interrupted at change {}", dies_after % 32);
        return;
    }
    let disk = MemoryDisk::with(&before, mount);
    match recover(&disk, true) {
        Ok(strict) => assert_eq!(strict, found),
        Err(LogError::Damage { .. }) => assert!(found.iter().any(|r| r.damage.is_some())),
        Err(error) => panic!("{error}"),
    }
    recover(&disk, false).expect("behind a refused one");
    assert_eq!(but_trails(disk.names()), after, "refused first");
});
