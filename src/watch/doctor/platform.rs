//! Checks the kernel: its version, io_uring, clocks.

use super::{Check, Host, Status, Subject, advice_if, number};
use crate::config::raw::EngineChoice;

/// Kernel versions, and what each of them brings.
const FLOOR: (u32, u32) = (4, 18);
const URING: (u32, u32) = (6, 1);
const DONT_CACHE: (u32, u32) = (6, 14);

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

pub fn kernel(host: &dyn Host) -> Vec<Check> {
    let recommended = "6.14 or later (6.1 for io_uring, 4.18 at least)";
    let Some(text) = host.read("proc/sys/kernel/osrelease") else {
        return vec![Check::unknown("kernel", "/proc/sys/kernel/osrelease", recommended)];
    };
    let (status, why) = match version(&text) {
        None => (Status::Unknown, "a version that is not understood"),
        Some(v) if v < FLOOR => (Status::Problem, "older than the floor; nothing is tested there"),
        Some(v) if v < URING => (Status::Advice, "too old for the io_uring engine; epoll is used"),
        Some(v) if v < DONT_CACHE => (Status::Advice, "too old for RWF_DONTCACHE; batches go through the page cache"),
        Some(_) => (Status::Ok, "has all that logweir uses"),
    };
    let command = "apt install -t stable-backports linux-image-amd64  # or what your distribution offers";
    vec![Check::new("kernel", status, text.trim(), recommended).because(why).change(command)]
}

pub fn checks(host: &dyn Host, subject: &Subject) -> Vec<Check> {
    vec![io_uring(host, subject), clock_source(host), clock(host)]
}

fn io_uring(host: &dyn Host, subject: &Subject) -> Check {
    let setting = match number::<u32>(host, "proc/sys/kernel/io_uring_disabled") {
        Some(0) => ", kernel.io_uring_disabled = 0",
        Some(1) => ", kernel.io_uring_disabled = 1 (for the unprivileged)",
        Some(_) => ", kernel.io_uring_disabled = 2 (for all)",
        None => "",
    };
    if subject.engine == EngineChoice::Epoll {
        return Check::new("io_uring", Status::Ok, format!("not used{setting}"), "any").because("engine = \"epoll\"");
    }
    let (status, present) = match host.io_uring() {
        Ok(()) => (Status::Ok, format!("works (tried){setting}")),
        Err(error) if subject.engine == EngineChoice::IoUring => {
            (Status::Problem, format!("does not work: {error}{setting}"))
        }
        Err(error) => (Status::Advice, format!("does not work: {error}{setting}")),
    };
    let why = match status {
        Status::Problem => "engine = \"io_uring\" refuses to start without it",
        _ => {
            "engine = \"auto\" takes epoll without it: the same promises, about a tenth more CPU with many connections"
        }
    };
    Check::new("io_uring", status, present, "works (Linux 6.1 or later, and permitted)")
        .because(why)
        .change("sysctl -w kernel.io_uring_disabled=0  # in a container: a seccomp profile that allows io_uring_*")
}

const SOURCE: &str = "sys/devices/system/clocksource/clocksource0/current_clocksource";

fn clock_source(host: &dyn Host) -> Check {
    let recommended = "tsc, kvm-clock, arch_sys_counter or another that is read without a system call";
    let Some(text) = host.read(SOURCE) else {
        return Check::unknown("clocksource", &format!("/{SOURCE}"), recommended);
    };
    let slow = matches!(text.trim(), "hpet" | "acpi_pm" | "jiffies" | "pit" | "xen");
    Check::new("clocksource", advice_if(slow), text.trim(), recommended)
        .because("logweir reads the clock for each receive and each append; a slow one costs a microsecond or more each time")
        .change(format!("echo tsc > /{SOURCE}  # if the kernel log does not call it unstable"))
}

fn clock(host: &dyn Host) -> Check {
    let recommended = "synchronised";
    let Some(state) = host.clock() else {
        return Check::unknown("clock_synchronised", "adjtimex(2)", recommended);
    };
    let present = if state.is_synchronised {
        format!("synchronised, estimated error {} us", state.error_us)
    } else {
        "not synchronised".into()
    };
    Check::new("clock_synchronised", advice_if(!state.is_synchronised), present, recommended)
        .because(
            "receive times (format = \"json\", the trail) and segment ages follow the wall clock; durability does not",
        )
        .change("apt install chrony  # or: timedatectl set-ntp true")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_kinds_are_read() {
        assert_eq!(version("6.18.44-fc-v669\n"), Some((6, 18)));
        assert_eq!(version("4.18.0-553.el8.x86_64"), Some((4, 18)));
        assert_eq!(version("6.1"), Some((6, 1)));
        assert_eq!(version("x"), None);
    }
}
