//! Checks the data directory's file system: its kind, how it is mounted, and whether `RWF_DONTCACHE` works on it.

use super::mounts::Mount;
use super::{Check, Host, Status, Subject};
use crate::settings::units::Size;
use std::path::Path;

pub fn checks(host: &dyn Host, subject: &Subject, mount: Option<&Mount>) -> Vec<Check> {
    let mut checks = match mount {
        Some(mount) => vec![kind(mount, subject.sealed_dir.is_some()), options(mount)],
        None => ["file_system", "mount_options"]
            .map(|name| Check::unknown(name, "/proc/self/mountinfo", "ext4 or xfs, with barriers"))
            .into(),
    };
    checks.push(dont_cache(host, subject));
    checks.extend(subject.sealed_dir.as_deref().map(|dir| sealed_dir(host, dir)));
    checks
}

fn judge(mount: &Mount, moves_on: bool) -> (Status, &'static str) {
    match mount.kind.as_str() {
        "ext4" | "xfs" => (Status::Ok, "what logweir is tested on, with power cuts"),
        "btrfs" | "bcachefs" | "zfs" => (
            Status::Advice,
            "copy on write: space reserved ahead does not hold, so a full disk may show in the middle of a line (which is cut \
             back), small synced appends fragment the file, and each sync costs more",
        ),
        "tmpfs" | "ramfs" if moves_on => (
            Status::Advice,
            "files in memory: \"durable\" does not outlive a power cut until a segment has moved to sealed_dir, and what is \
             written takes memory until then",
        ),
        "tmpfs" | "ramfs" => (
            Status::Problem,
            "files in memory: \"durable\" means nothing here, and the lines take memory from everybody",
        ),
        "overlay" if mount.option("volatile").is_some() => {
            (Status::Problem, "an overlay mounted volatile ignores fsync: \"durable\" means nothing here")
        }
        "overlay" | "overlayfs" | "aufs" => (
            Status::Advice,
            "a container's own layer: the lines are gone with the container, and the first write to a file copies it. Mount a \
             volume there",
        ),
        "nfs" | "nfs4" if mount.option("soft").is_some() => (
            Status::Problem,
            "NFS mounted soft: a server that is slow for a while turns into failed syncs, and those stop intake",
        ),
        "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "9p" | "virtiofs" => (
            Status::Advice,
            "a remote file system: what a sync is worth is decided at the other end, appends from two machines overwrite each \
             other, and there is no reserve, no RWF_DONTCACHE and often no lock",
        ),
        k if k.starts_with("fuse") => {
            (Status::Advice, "a file system in user space: what a sync is worth is decided by its program")
        }
        _ => (Status::Advice, "not tested; ext4 and xfs are"),
    }
}

fn shown(mount: &Mount) -> String {
    format!("{} on {} (mounted at {})", mount.kind, mount.source, mount.point.display())
}

fn kind(mount: &Mount, moves_on: bool) -> Check {
    let (status, why) = judge(mount, moves_on);
    Check::new("file_system", status, shown(mount), "ext4 or xfs on a local disk")
        .because(why)
        .change("logweir serve --data-dir DIR  # a directory on a local ext4 or xfs file system")
}

/// Where sealed segments move to.
fn sealed_dir(host: &dyn Host, dir: &Path) -> Check {
    let recommended = "another disk, on ext4 or xfs, with room";
    let Some(mount) = super::mounts::mount_of(host, dir) else {
        return Check::unknown("sealed_dir", "/proc/self/mountinfo", recommended);
    };
    let room = host.space(&host.existing(dir));
    let free = room.map_or("room unknown".to_string(), |s| format!("{} free of {}", Size(s.free), Size(s.total)));
    let is_short = room.is_some_and(|s| s.free < s.total / 10);
    let (status, why) = match judge(&mount, false) {
        _ if mount.option("ro").is_some() => (Status::Problem, "mounted read-only: segments pile up in data_dir"),
        (Status::Ok, _) if is_short => {
            (Status::Advice, "less than a tenth is free; when it is full, segments pile up in data_dir")
        }
        (Status::Ok, _) => (Status::Ok, "sealed segments move there"),
        other => other,
    };
    Check::new("sealed_dir", status, format!("{}, {free}", shown(&mount)), recommended)
        .because(why)
        .change("logweir serve --set storage.sealed_dir=DIR  # an absolute path on a local disk with room")
}

fn options(mount: &Mount) -> Check {
    let value = |name: &str| mount.option(name);
    let has = |name: &str| value(name).is_some();
    let journalled = matches!(mount.kind.as_str(), "ext3" | "ext4");
    let remount = |option: &str| format!("mount -o remount,{option} {}  # and in /etc/fstab", mount.point.display());
    let (status, why, command) = if has("ro") {
        (Status::Problem, "mounted read-only: nothing can be written", Some(remount("rw")))
    } else if has("nobarrier") || value("barrier") == Some("0") {
        (
            Status::Problem,
            "without barriers a sync returns while the line is in the volatile cache of the disk: \"durable\" does not survive a \
             power cut",
            Some(remount("barrier=1")),
        )
    } else if journalled && value("data") == Some("journal") {
        (
            Status::Advice,
            "data=journal writes every line twice, and O_DIRECT does not work",
            Some(
                "tune2fs -o ^journal_data DEVICE  # then mount with data=ordered (it cannot be changed by a remount)"
                    .into(),
            ),
        )
    } else if journalled && value("data") == Some("writeback") {
        (
            Status::Advice,
            "data=writeback: after a power cut the unsynced end of a file may hold what was deleted long ago; recovery moves it \
             aside by its checksums, but it was readable",
            Some("mount with data=ordered (it cannot be changed by a remount)".into()),
        )
    } else if has("sync") || has("dirsync") {
        (
            Status::Advice,
            "every write waits for the disk, not only those that somebody waits for",
            Some(remount("async")),
        )
    } else if has("strictatime") {
        (Status::Advice, "each read of a file (tail, cat) writes its inode", Some(remount("relatime")))
    } else {
        (Status::Ok, "barriers are on and reading writes nothing, or once a day (relatime, noatime)", None)
    };
    let check =
        Check::new("mount_options", status, mount.options.join(","), "barriers, data=ordered, relatime or noatime");
    let check = check.because(why);
    match command {
        Some(command) => check.change(command),
        None => check,
    }
}

fn dont_cache(host: &dyn Host, subject: &Subject) -> Check {
    let recommended = "works (Linux 6.14, ext4 or xfs)";
    if !subject.streams.iter().any(|s| s.wants_dont_cache) {
        return Check::new("dontcache", Status::Ok, "not used", "any")
            .because("every stream has storage.io set to something else");
    }
    let dir = host.existing(&subject.data_dir);
    let (status, present) = match host.dont_cache(&dir) {
        Some(true) => (Status::Ok, "works here (tried)".to_string()),
        Some(false) => (Status::Advice, "refused by kernel or file system (tried)".to_string()),
        None => (Status::Unknown, format!("cannot tell: no nameless file can be written in {}", dir.display())),
    };
    Check::new("dontcache", status, present, recommended).because(
        "RWF_DONTCACHE writes large batches through the page cache without leaving them in it: faster by 10 to 50 %, and it \
         leaves the page cache to others. Without it logweir appends as usual",
    )
    .change("uname -r  # a kernel from 6.14 on; or --set storage.io=append, which is what happens anyway")
}
