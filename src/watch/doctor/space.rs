//! Checks the room for the lines and for their files.

use super::{Check, Host, Retention, Space, Status, Subject};
use crate::settings::units::{Size, Time};

pub fn checks(host: &dyn Host, subject: &Subject) -> Vec<Check> {
    let dir = host.existing(&subject.data_dir);
    match host.space(&dir) {
        Some(space) => {
            // Nearly all of what is kept stands where sealed segments go.
            let kept = subject.sealed_dir.as_ref().and_then(|dir| host.space(&host.existing(dir))).unwrap_or(space);
            vec![room(subject, space), retention(subject, kept), inodes(space)]
        }
        None => ["free_space", "retention", "inodes"]
            .map(|name| Check::unknown(name, &dir.display().to_string(), "room for segments"))
            .into(),
    }
}

/// Files that are open at once, for each shard: active, its spare, and one that is being sealed.
const OPEN_SEGMENTS: u64 = 3;

fn room(subject: &Subject, space: Space) -> Check {
    let open = OPEN_SEGMENTS.saturating_mul(subject.shards as u64);
    let of = |s: &super::StreamNeeds| s.segment_bytes.max(s.reserve_step).saturating_mul(open);
    let needed = subject.streams.iter().map(of).fold(0, u64::saturating_add);
    let share = space.free as f64 / space.total.max(1) as f64;
    let status = if space.free < needed {
        Status::Problem
    } else {
        super::advice_if(space.free < needed.saturating_mul(4) || share < 0.1)
    };
    let present = format!("{} free of {} ({:.0} %)", Size(space.free), Size(space.total), share * 100.0);
    Check::new("free_space", status, present, format!("{} at least, four times that for a calm night", Size(needed)))
        .because(format!(
            "{} stream(s) on {} shard(s) have up to {OPEN_SEGMENTS} segments each open at once; when the disk is full, intake \
             waits or drops (when_full)",
            subject.streams.len(),
            subject.shards
        ))
        .change("logweir serve --data-dir DIR  # elsewhere, or smaller: --set storage.segment_size=64MiB, or delete old *.log files")
}

/// Compares retention with the size of the file system.
fn retention(subject: &Subject, space: Space) -> Check {
    let command = "logweir serve --set retention.max_bytes=100GiB --set retention.min_free=10GiB";
    let recommended = "max_bytes or min_free for every stream, within what the file system holds";
    let unbounded: Vec<&str> = subject.streams.iter().filter(|s| !s.is_bounded()).map(|s| s.name.as_str()).collect();
    let sum: u64 = subject.streams.iter().filter_map(|s| s.retention.max_bytes).fold(0, u64::saturating_add);
    let least_free = subject.streams.iter().filter_map(|s| s.retention.min_free).max();
    let (status, why) = if let Some(least) = least_free.filter(|l| *l >= space.total) {
        (
            Status::Problem,
            format!("min_free = {} is more than the file system holds: everything sealed is deleted", Size(least)),
        )
    } else if let Some(least) = least_free.filter(|l| *l > space.free) {
        let why =
            format!("less than min_free = {} is free already: the oldest segments are deleted at once", Size(least));
        (Status::Advice, why)
    } else if sum > space.total {
        (
            Status::Problem,
            format!("max_bytes of all streams is {}, more than the file system holds: it fills up first", Size(sum)),
        )
    } else if !unbounded.is_empty() {
        let why = format!(
            "nothing bounds {}: the disk fills up one day, and then intake waits or drops",
            unbounded.join(", ")
        );
        (Status::Advice, why)
    } else {
        (Status::Ok, "what is kept fits".to_string())
    };
    let present: Vec<String> = subject.streams.iter().map(|s| format!("{}: {}", s.name, shown(&s.retention))).collect();
    Check::new("retention", status, present.join("; "), recommended).because(why).change(command)
}

fn shown(kept: &Retention) -> String {
    let parts = [
        kept.max_age.map(|t| format!("max_age {}", Time(t))),
        kept.max_bytes.map(|n| format!("max_bytes {}", Size(n))),
        kept.min_free.map(|n| format!("min_free {}", Size(n))),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { "nothing is deleted".into() } else { parts.join(", ") }
}

fn inodes(space: Space) -> Check {
    if space.inodes == 0 {
        return Check::new("inodes", Status::Ok, "made as needed", "any");
    }
    let status = match space.inodes_free {
        ..100 => Status::Problem,
        100..10_000 => Status::Advice,
        _ => Status::Ok,
    };
    Check::new("inodes", status, format!("{} free of {}", space.inodes_free, space.inodes), "10000 or more")
        .because("each segment is two files; without inodes no new file can be made, even if there are free bytes")
        .change("df -i  # then find what has so many files, or use fewer and larger segments (storage.segment_size)")
}
