//! Checks the limits of the process: descriptors, and memory that may be locked.

use super::{Check, Host, Status, Subject};
use crate::config::raw::EngineChoice;
use crate::settings::units::Size;

pub fn checks(host: &dyn Host, subject: &Subject) -> Vec<Check> {
    vec![nofile(host, subject), memlock(host, subject)]
}

/// Soft and hard limit from `/proc/self/limits`; `unlimited` is the greatest number.
fn limit(host: &dyn Host, name: &str) -> Option<(u64, u64)> {
    let text = host.read("proc/self/limits")?;
    let rest = text.lines().find_map(|l| l.strip_prefix(name))?;
    let mut values = rest.split_whitespace().map(|w| if w == "unlimited" { Some(u64::MAX) } else { w.parse().ok() });
    Some((values.next()??, values.next()??))
}

fn nofile(host: &dyn Host, subject: &Subject) -> Check {
    let needed = subject.descriptors();
    let recommended = format!("a hard limit of {needed} at least");
    let Some((soft, hard)) = limit(host, "Max open files") else {
        return Check::unknown("nofile", "/proc/self/limits", recommended);
    };
    let status = if hard < needed { Status::Problem } else { Status::Ok };
    Check::new("nofile", status, format!("soft {soft}, hard {hard}"), recommended)
        .because(format!(
            "limits.max_connections = {} {} listener(s) and {} stream(s) take that many descriptors; with fewer, fewer connections are \
             taken. logweir raises the soft limit to the hard one itself",
            subject.max_connections,
            subject.listeners,
            subject.streams.len()
        ))
        .change(format!("systemctl edit logweir  # [Service] LimitNOFILE={needed}; in a shell: ulimit -Hn {needed}"))
}

/// Memory that rings may lock: what Debian gives, and more than a few rings take.
const MEMLOCK: u64 = 8 << 20;

fn memlock(host: &dyn Host, subject: &Subject) -> Check {
    let needed = MEMLOCK.max((subject.shards * subject.reactors_per_shard) as u64 * (1 << 20));
    let recommended = format!("{} at least", Size(needed));
    let Some((soft, _)) = limit(host, "Max locked memory") else {
        return Check::unknown("memlock", "/proc/self/limits", recommended);
    };
    let present = if soft == u64::MAX { "unlimited".to_string() } else { Size(soft).to_string() };
    let status = match subject.engine {
        EngineChoice::Epoll => Status::Ok,
        EngineChoice::Auto | EngineChoice::IoUring => super::advice_if(soft < needed),
    };
    Check::new("memlock", status, present, recommended)
        .because("the buffers of io_uring count as locked memory; where they do not fit, engine = \"auto\" takes epoll")
        .change("systemctl edit logweir  # [Service] LimitMEMLOCK=infinity")
}
