//! Checks the disks beneath the data directory: their scheduler, and whether they keep what they are told to flush.

use super::mounts::{Disk, Mount, disks};
use super::{Check, Host, Status, chosen};

pub fn checks(host: &dyn Host, mount: Option<&Mount>) -> Vec<Check> {
    let found = mount.map(|m| disks(host, m)).unwrap_or_default();
    if found.is_empty() {
        let device = mount.map_or("/proc/self/mountinfo".to_string(), |m| format!("the disk beneath {}", m.source));
        return vec![
            Check::unknown("io_scheduler", &device, "none or mq-deadline"),
            Check::unknown("write_cache", &device, "a cache that flushes, or none"),
        ];
    }
    found.iter().flat_map(|disk| [scheduler(host, disk), write_cache(host, disk)]).collect()
}

fn scheduler(host: &dyn Host, disk: &Disk) -> Check {
    let text = host.read(&format!("{}/queue/scheduler", disk.path)).unwrap_or_default();
    let present = chosen(&text).unwrap_or(text.trim());
    let turns = host.read(&format!("{}/queue/rotational", disk.path)).is_some_and(|t| t.trim() == "1");
    let wanted = if turns { "mq-deadline" } else { "none" };
    let (status, why) = match (present, turns) {
        // Virtual disks say that they turn, whatever they are.
        ("none", true) if !disk.name.starts_with("vd") && !disk.name.starts_with("xvd") => {
            (Status::Advice, "a rotating disk needs its requests sorted")
        }
        ("none" | "mq-deadline" | "kyber" | "deadline" | "noop", _) => {
            (Status::Ok, "logweir makes few large writes and syncs; sorting them gains nothing")
        }
        _ => (
            Status::Advice,
            "a scheduler that shares the disk out by process costs CPU time and puts syncs behind the reads of others",
        ),
    };
    let rule = format!("ACTION==\"add|change\", KERNEL==\"{0}\", ATTR{{queue/scheduler}}=\"{wanted}\"", disk.name);
    Check::new("io_scheduler", status, format!("{}: {present}", disk.name), format!("{wanted} or mq-deadline"))
        .because(why)
        .change(format!(
            "echo {wanted} > /sys/block/{}/queue/scheduler && echo '{rule}' > /etc/udev/rules.d/60-logweir.rules",
            disk.name
        ))
}

fn write_cache(host: &dyn Host, disk: &Disk) -> Check {
    let recommended = "write back (a sync flushes it), or a device without a volatile cache";
    let Some(text) = host.read(&format!("{}/queue/write_cache", disk.path)) else {
        return Check::unknown("write_cache", &format!("/sys/block/{}/queue/write_cache", disk.name), recommended);
    };
    let fua = match host.read(&format!("{}/queue/fua", disk.path)).as_deref().map(str::trim) {
        Some("1") => ", FUA",
        Some("0") => ", no FUA",
        _ => "",
    };
    let virtual_disk = ["vd", "xvd", "nbd"].iter().any(|prefix| disk.name.starts_with(prefix));
    let (status, why) = match (text.trim(), virtual_disk) {
        ("write back", _) => {
            (Status::Ok, "a sync sends a flush to the device, and \"durable\" is worth what the device makes of it")
        }
        (_, true) => (
            Status::Advice,
            "the kernel sends no flush to this virtual disk: whether a power cut of the host loses synced lines is decided by \
             the hypervisor (a cache that ignores flushes loses them)",
        ),
        _ => (
            Status::Advice,
            "the kernel sends no flush: right for a disk without a volatile cache (or with a battery), wrong where somebody \
             wrote \"write through\" here to make it faster",
        ),
    };
    Check::new("write_cache", status, format!("{}: {}{fua}", disk.name, text.trim()), recommended).because(why).change(
        format!("echo 'write back' > /sys/block/{}/queue/write_cache  # if the device has a volatile cache", disk.name),
    )
}
