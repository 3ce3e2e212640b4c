//! The process metrics that Prometheus' own clients have, under the same names: CPU time, memory, descriptors, threads, start.
//! They come from `/proc/self` (proc(5)); what cannot be read is left out.

use nix::unistd::{SysconfVar, sysconf};
use std::fmt::Write;

/// Adds the metrics to the text of a scrape.
pub fn write(text: &mut String) {
    let mut add = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
    };
    let stat = std::fs::read_to_string("/proc/self/stat").ok();
    // Behind the name, which may hold anything, in parentheses; the first is field 3.
    let fields: Vec<&str> = stat
        .as_deref()
        .and_then(|s| s.rsplit_once(')'))
        .map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let system = |what: SysconfVar| sysconf(what).ok().flatten().map(|value| value as f64);
    let ticks = system(SysconfVar::CLK_TCK).filter(|ticks| *ticks > 0.0);
    let cpu = || Some((field(14)? + field(15)?) / ticks?);
    add("process_cpu_seconds_total", "counter", "CPU time of the process, user and system, in seconds.", cpu());
    let resident = || Some(field(24)? * system(SysconfVar::PAGE_SIZE)?);
    add("process_resident_memory_bytes", "gauge", "Resident memory of the process, in bytes.", resident());
    add("process_virtual_memory_bytes", "gauge", "Virtual memory of the process, in bytes.", field(23));
    add("process_threads", "gauge", "Threads of the process.", field(20));
    let start = || Some(booted()? + field(22)? / ticks?);
    add("process_start_time_seconds", "gauge", "Start of the process, in seconds since 1970.", start());
    let open = std::fs::read_dir("/proc/self/fd").map(|dir| dir.count().saturating_sub(1) as f64).ok();
    add("process_open_fds", "gauge", "Descriptors that the process has open.", open);
    let most = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).ok();
    add("process_max_fds", "gauge", "Descriptors that the process may have open.", most.map(|(soft, _)| soft as f64));
}

/// Start of the machine, in seconds since 1970.
fn booted() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime ")).and_then(|seconds| seconds.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_process_is_described() {
        let mut text = String::new();
        super::write(&mut text);
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name}: {text}")).rsplit(' ').next().unwrap().parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_threads") >= 1.0 && value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - 86_400.0..now + 2.0).contains(&value("process_start_time_seconds")));
        assert!(value("process_cpu_seconds_total") >= 0.0 && value("process_virtual_memory_bytes") > 0.0);
    }
}
