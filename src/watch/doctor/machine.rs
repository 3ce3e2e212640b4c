//! Checks memory and processors: huge pages, NUMA balancing, governors.

use super::{Check, Host, Status, Subject, advice_if, chosen, number};
use crate::host::topology::Machine;

pub fn checks(host: &dyn Host, subject: &Subject) -> Vec<Check> {
    let nodes = Machine::read(&Files(host)).nodes.len();
    vec![huge_pages(host), defrag(host), numa_balancing(host, subject, nodes), governor(host)]
}

/// The files of a [`Host`], as a [`Tree`].
pub struct Files<'a>(pub &'a dyn Host);

impl crate::host::topology::Tree for Files<'_> {
    fn read(&self, path: &str) -> Option<String> {
        self.0.read(path)
    }
}

const HUGE: &str = "/sys/kernel/mm/transparent_hugepage";

fn huge_pages(host: &dyn Host) -> Check {
    let Some(text) = host.read(&format!("{}/enabled", &HUGE[1..])) else {
        return Check::unknown("transparent_hugepages", &format!("{HUGE}/enabled"), "madvise");
    };
    let present = chosen(&text).unwrap_or(text.trim());
    Check::new("transparent_hugepages", advice_if(present == "always"), present, "madvise (or never)")
        .because("\"always\" backs every small piece of memory by 2 MiB: a process of a few MiB grows to tens")
        .change(format!(
            "echo madvise > {HUGE}/enabled  # for good: transparent_hugepage=madvise on the kernel command line"
        ))
}

fn defrag(host: &dyn Host) -> Check {
    let Some(text) = host.read(&format!("{}/defrag", &HUGE[1..])) else {
        return Check::unknown("hugepage_defrag", &format!("{HUGE}/defrag"), "madvise");
    };
    let present = chosen(&text).unwrap_or(text.trim());
    Check::new("hugepage_defrag", advice_if(present == "always"), present, "madvise, defer or never")
        .because(
            "\"always\" makes a thread that touches memory wait while the kernel moves pages: milliseconds of latency",
        )
        .change(format!("echo madvise > {HUGE}/defrag"))
}

fn numa_balancing(host: &dyn Host, subject: &Subject, nodes: usize) -> Check {
    let recommended = if subject.is_pinned_to_nodes { "0" } else { "any" };
    let Some(present) = number::<u64>(host, "proc/sys/kernel/numa_balancing") else {
        // A kernel for one node may be built without it.
        return match nodes {
            1 => Check::new("numa_balancing", Status::Ok, "one node", "any"),
            _ => Check::unknown("numa_balancing", "kernel.numa_balancing", recommended),
        };
    };
    let shown = format!("{present}, with {nodes} node(s)");
    Check::new("numa_balancing", advice_if(present != 0 && subject.is_pinned_to_nodes), shown, recommended)
        .because("the memory and the threads of each shard are on one node already; sampling for misplaced pages only costs faults")
        .change(super::sysctl(&[("kernel.numa_balancing", 0)]))
}

fn governor(host: &dyn Host) -> Check {
    let system = "sys/devices/system/cpu";
    let of = |cpu: &String| host.read(&format!("{system}/{cpu}/cpufreq/scaling_governor"));
    let is_cpu = |name: &String| {
        name.strip_prefix("cpu").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut found: Vec<String> = host.list(system).iter().filter(|n| is_cpu(n)).filter_map(of).collect();
    found.iter_mut().for_each(|text| *text = text.trim().to_string());
    found.sort();
    found.dedup();
    if found.is_empty() {
        return Check::unknown(
            "cpu_governor",
            "/sys/devices/system/cpu/*/cpufreq (usual in virtual machines)",
            "performance",
        );
    }
    let slow = found.iter().any(|g| matches!(g.as_str(), "powersave" | "conservative" | "ondemand"));
    Check::new("cpu_governor", advice_if(slow), found.join(", "), "performance (or schedutil)")
        .because(
            "a core that sleeps deeply and wakes slowly makes each sync and each answer slower; it costs little throughput",
        )
        .change("cpupower frequency-set -g performance")
}
