//! `logweir doctor`: reads the host and says, check by check, what is right, what could be better and what is wrong. Each check
//! has the present value, the recommended one, why, and the command that changes it.
//!
//! Everything is read through [`Host`], so that tests can use recorded machines, good and bad. What cannot be read (in a
//! container, or on an unusual kernel) is reported as unknown. A missing file never makes `doctor` fail.

mod control_groups;
mod descriptors;
mod file_system;
pub mod host;
mod machine;
mod mounts;
mod network;
mod platform;
pub mod probe;
mod show;
mod space;
mod start;
mod storage;
mod subject;
pub mod usage;
mod writeback;

pub use host::{Host, LiveHost, Space};
pub use show::{Report, report};
pub use start::start;
pub use subject::{Retention, StreamNeeds, Subject};

use serde::Serialize;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Nothing to do.
    Ok,
    /// The value could not be read. That alone is no problem.
    Unknown,
    /// Works, and could be faster or safer.
    Advice,
    /// A promise or a limit of the configuration does not hold here.
    Problem,
}

/// One check. The field names are those of `--json` and must not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, which stays the same: `dirty_background`.
    pub check: &'static str,
    /// Its result.
    pub status: Status,
    /// The present value.
    pub present: String,
    /// The recommended value.
    pub recommended: String,
    /// Why.
    pub why: String,
    /// The command that changes it. `None`: there is nothing to change, or no single command does it.
    pub command: Option<String>,
}

impl Check {
    fn new(check: &'static str, status: Status, present: impl Into<String>, recommended: impl Into<String>) -> Check {
        Check {
            check,
            status,
            present: present.into(),
            recommended: recommended.into(),
            why: String::new(),
            command: None,
        }
    }

    fn unknown(check: &'static str, file: &str, recommended: impl Into<String>) -> Check {
        Check::new(check, Status::Unknown, format!("cannot tell: {file} is not readable here"), recommended)
    }

    fn because(mut self, why: impl Into<String>) -> Check {
        self.why = why.into();
        self
    }

    /// The command, where there is something to change.
    fn change(mut self, command: impl Into<String>) -> Check {
        if self.status > Status::Unknown {
            self.command = Some(command.into());
        }
        self
    }
}

/// `Advice` if the condition holds, else `Ok`.
fn advice_if(is_so: bool) -> Status {
    if is_so { Status::Advice } else { Status::Ok }
}

/// Every check, in the order in which they are shown.
#[must_use]
pub fn examine(host: &dyn Host, subject: &Subject) -> Vec<Check> {
    let mut checks = Vec::new();
    checks.extend(platform::kernel(host));
    checks.extend(descriptors::checks(host, subject));
    checks.extend(control_groups::checks(host, subject));
    checks.extend(network::checks(host, subject));
    checks.extend(writeback::checks(host));
    let mount = mounts::mount_of(host, &subject.data_dir);
    checks.extend(file_system::checks(host, subject, mount.as_ref()));
    checks.extend(space::checks(host, subject));
    checks.extend(storage::checks(host, mount.as_ref()));
    checks.extend(machine::checks(host, subject));
    checks.extend(platform::checks(host, subject));
    checks
}

/// A number in a file.
fn number<T: std::str::FromStr>(host: &dyn Host, path: &str) -> Option<T> {
    host.read(path)?.trim().parse().ok()
}

/// The word in brackets of a choice such as `always [madvise] never`.
fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word)
}

/// Total memory of the machine, in bytes.
fn total_memory(host: &dyn Host) -> Option<u64> {
    memory_figure(&host.read("proc/meminfo")?, "MemTotal")
}

/// One line of `/proc/meminfo`, in bytes.
fn memory_figure(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A command that sets a kernel parameter now and keeps it.
fn sysctl(settings: &[(&str, u64)]) -> String {
    let now: Vec<String> = settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let kept = now.join("\\n");
    format!("sysctl -w {} && printf '{kept}\\n' > /etc/sysctl.d/60-logweir-{}.conf", now.join(" "), settings[0].0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_and_figures_are_read() {
        assert_eq!(chosen("none [mq-deadline] kyber"), Some("mq-deadline"));
        assert_eq!(chosen("none"), None);
        assert_eq!(memory_figure("MemTotal:  2 kB\nMemFree: 1 kB\n", "MemTotal"), Some(2048));
        assert_eq!(memory_figure("MemTotalX: 2 kB\n", "MemTotal"), None);
    }

    #[test]
    fn commands_keep_what_they_set() {
        let command = sysctl(&[("vm.dirty_bytes", 5)]);
        let kept =
            "sysctl -w vm.dirty_bytes=5 && printf 'vm.dirty_bytes=5\\n' > /etc/sysctl.d/60-logweir-vm.dirty_bytes.conf";
        assert_eq!(command, kept);
    }
}
