//! Compares what the control groups allow with what the configuration needs: memory and CPU time.

use super::machine::Files;
use super::{Check, Host, Status, Subject, total_memory};
use crate::host::topology::Machine;
use crate::settings::units::Size;

pub fn checks(host: &dyn Host, subject: &Subject) -> Vec<Check> {
    vec![memory(host, subject), cpu(host, subject), throttled(host)]
}

/// `memory.max` and `memory.limit_in_bytes` that are no limit are missing, `max`, or near the greatest number.
const NO_LIMIT: u64 = 1 << 60;

/// Directories of our group and all above it, under each place where its hierarchy may be mounted. For version 1, `controller`
/// names the hierarchy; a container often sees only its own group, as the root.
fn directories(host: &dyn Host, controller: &str) -> Vec<String> {
    let groups = host.read("proc/self/cgroup").unwrap_or_default();
    let mut found = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let roots: Vec<String> = if controllers.is_empty() {
            vec!["sys/fs/cgroup".into(), "sys/fs/cgroup/unified".into()]
        } else if controllers.split(',').any(|c| c == controller) {
            vec![format!("sys/fs/cgroup/{controllers}"), format!("sys/fs/cgroup/{controller}")]
        } else {
            continue;
        };
        let mut path = path.trim_end_matches('/');
        loop {
            found.extend(roots.iter().map(|root| format!("{root}{path}")));
            let Some(slash) = path.rfind('/') else { break };
            path = &path[..slash];
        }
    }
    found
}

fn memory_limit(host: &dyn Host) -> Option<u64> {
    let read = |dir: &String| {
        let texts = ["memory.max", "memory.limit_in_bytes"].map(|file| host.read(&format!("{dir}/{file}")));
        texts.into_iter().flatten().filter_map(|t| t.trim().parse::<u64>().ok()).filter(|n| *n < NO_LIMIT).min()
    };
    directories(host, "memory").iter().filter_map(read).min()
}

fn memory(host: &dyn Host, subject: &Subject) -> Check {
    let needed = subject.memory_bytes();
    let recommended = format!("{} for logweir, and as much again for the page cache", Size(needed));
    let (limit, whose) = match (memory_limit(host), total_memory(host)) {
        (Some(limit), Some(total)) if total < limit => (total, "the machine has"),
        (Some(limit), _) => (limit, "the control group allows"),
        (None, Some(total)) => (total, "the machine has"),
        (None, None) => return Check::unknown("memory", "/proc/meminfo", recommended),
    };
    let status = if limit < needed { Status::Problem } else { super::advice_if(limit < 2 * needed) };
    Check::new("memory", status, format!("{whose} {}", Size(limit)), recommended)
        .because(format!(
            "buffer.memory is {}, {} connections take {} each at most. Above the limit the kernel kills the process; near it, the \
             kernel writes dirty pages back one by one",
            Size(subject.buffer_bytes),
            subject.max_connections,
            Size(subject.connection_bytes as u64)
        ))
        .change("logweir serve --set buffer.memory=16MiB --set limits.max_connections=1000  # or raise the limit (MemoryMax=)")
}

fn cpu(host: &dyn Host, subject: &Subject) -> Check {
    let machine = Machine::read(&Files(host));
    let threads = subject.busy_threads();
    let present = match machine.quota {
        Some(quota) => format!("{quota:.2} CPUs' worth of time on {} CPUs", machine.cpus()),
        None => format!("{} CPUs, no quota", machine.cpus()),
    };
    let quota = machine.quota.unwrap_or(f64::INFINITY);
    let (status, why) = if quota < 1.0 {
        let why = "less than one CPU: all threads stand still for the rest of each period (100 ms) when it is used up, and so do \
                   acknowledgements";
        (Status::Advice, why.to_string())
    } else if threads as f64 > 4.0 * quota.min(machine.cpus() as f64) {
        (Status::Advice, format!("{threads} threads that carry lines share it: more than four for each CPU"))
    } else {
        (Status::Ok, format!("{threads} threads carry lines ({} shard(s))", subject.shards))
    };
    Check::new("cpu_quota", status, present, "one CPU or more, and at most four busy threads for each")
        .because(why)
        .change("logweir serve --set placement.shards=1 --set placement.reactors_per_shard=1  # or raise the quota (CPUQuota=)")
}

fn throttled(host: &dyn Host) -> Check {
    let stat = directories(host, "cpu").into_iter().find_map(|dir| host.read(&format!("{dir}/cpu.stat")));
    let Some(text) = stat else {
        return Check::unknown("cpu_throttled", "cpu.stat of the control group", "0");
    };
    let figure = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.trim().parse::<u64>().ok());
    // Without a quota there are no such lines.
    let (periods, throttled) = (figure("nr_periods ").unwrap_or(0), figure("nr_throttled ").unwrap_or(0));
    Check::new("cpu_throttled", super::advice_if(throttled > 0), format!("{throttled} of {periods} periods"), "0")
        .because("in these periods our control group had used up its quota, and everything in it stood still")
        .change("systemctl set-property logweir CPUQuota=  # or raise it: cpu.max, CPU limit of the container")
}
