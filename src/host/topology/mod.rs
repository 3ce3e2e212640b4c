//! The CPUs of this machine: nodes, cores and hardware threads, which of them this process may use, and how much CPU time.
//!
//! Everything is read from `/sys` and `/proc` through [`Tree`], so that tests can use recorded machines.

mod cgroup;
mod plan;

pub use plan::{Pinning, Plan, ShardPlan, Wanted};

use std::collections::BTreeMap;

/// Files by their path without the leading slash.
pub trait Tree {
    /// The text of a file, or `None`: it is not there or not readable.
    fn read(&self, path: &str) -> Option<String>;
}

/// This machine's.
#[derive(Debug, Clone, Copy, Default)]
pub struct Live;

impl Tree for Live {
    fn read(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(format!("/{path}")).ok()
    }
}

/// A NUMA node with hardware threads that we may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: usize,
    /// Its cores, each with its hardware threads (SMT siblings), only those that are online and allowed.
    pub cores: Vec<Vec<usize>>,
}

impl Node {
    /// All hardware threads: the first of each core, then the second, and so on.
    #[must_use]
    pub fn cpus(&self) -> Vec<usize> {
        let most = self.cores.iter().map(Vec::len).max().unwrap_or(0);
        (0..most).flat_map(|i| self.cores.iter().filter_map(move |c| c.get(i).copied())).collect()
    }
}

/// What we may use.
#[derive(Debug, Clone, PartialEq)]
pub struct Machine {
    /// At least one, sorted by number.
    pub nodes: Vec<Node>,
    /// CPUs' worth of time that the control group allows, if it limits it.
    pub quota: Option<f64>,
}

impl Machine {
    /// Reads a machine. What cannot be read is taken for the simplest: one node, a core for each CPU, no limit.
    #[must_use]
    pub fn read(tree: &dyn Tree) -> Machine {
        let system = "sys/devices/system";
        let list = |path: &str| tree.read(path).map(|text| parse_list(&text));
        let status = tree.read("proc/self/status").unwrap_or_default();
        let allowed = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:")).map(parse_list);
        let online = list(&format!("{system}/cpu/online")).filter(|l| !l.is_empty());
        let fallback = || (0..std::thread::available_parallelism().map_or(1, usize::from)).collect();
        let mut cpus = online.or_else(|| allowed.clone()).unwrap_or_else(fallback);
        if let Some(allowed) = &allowed {
            cpus.retain(|cpu| allowed.contains(cpu));
        }
        let mut node_of = BTreeMap::new();
        for node in list(&format!("{system}/node/online")).unwrap_or_default() {
            for cpu in list(&format!("{system}/node/node{node}/cpulist")).unwrap_or_default() {
                node_of.insert(cpu, node);
            }
        }
        let mut nodes: BTreeMap<usize, BTreeMap<usize, Vec<usize>>> = BTreeMap::new();
        for cpu in cpus {
            let topology = format!("{system}/cpu/cpu{cpu}/topology");
            // core_cpus_list since Linux 5.4, thread_siblings_list before.
            let siblings = list(&format!("{topology}/core_cpus_list"))
                .or_else(|| list(&format!("{topology}/thread_siblings_list")))
                .and_then(|l| l.first().copied())
                .unwrap_or(cpu);
            let node = node_of.get(&cpu).copied().unwrap_or(0);
            nodes.entry(node).or_default().entry(siblings).or_default().push(cpu);
        }
        if nodes.is_empty() {
            nodes.entry(0).or_default().entry(0).or_default().push(0);
        }
        let nodes = nodes.into_iter().map(|(id, cores)| Node { id, cores: cores.into_values().collect() }).collect();
        Machine { nodes, quota: cgroup::quota(tree) }
    }

    /// Hardware threads that we may use.
    #[must_use]
    pub fn cpus(&self) -> usize {
        self.nodes.iter().flat_map(|n| &n.cores).map(Vec::len).sum()
    }

    /// How many threads could be busy at once: the hardware threads, or what the quota is worth if that is less.
    #[must_use]
    pub fn worth(&self) -> usize {
        let quota = self.quota.map_or(usize::MAX, |q| q.ceil() as usize);
        self.cpus().min(quota).max(1)
    }

    /// True where the quota is less than the hardware threads: they are shared with others.
    #[must_use]
    pub fn is_rationed(&self) -> bool {
        self.worth() < self.cpus()
    }
}

/// Reads a list such as `0-3,8,10-11` (cpuset(7)). What is not understood is left out.
#[must_use]
pub fn parse_list(text: &str) -> Vec<usize> {
    /// Far above any machine: a broken file must not fill the memory.
    const MOST: usize = 1 << 16;
    let mut list = Vec::new();
    for part in text.trim().split(',').filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse::<usize>())
            && last < MOST
        {
            list.extend(first..=last);
        }
    }
    list
}

/// Writes a list as short as it can be read.
#[must_use]
pub fn show_list(cpus: &[usize]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for cpu in sorted {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let show = |(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    parts.iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_shown() {
        assert_eq!(parse_list("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(parse_list(" \n"), Vec::<usize>::new());
        assert_eq!(parse_list("x,3-1,5,1-99999999999"), [5]);
        assert_eq!(show_list(&[11, 0, 1, 2, 8, 10, 3]), "0-3,8,10-11");
    }

    #[test]
    fn a_machine_that_tells_nothing_has_one_node() {
        struct Nothing;
        impl Tree for Nothing {
            fn read(&self, _: &str) -> Option<String> {
                None
            }
        }
        let machine = Machine::read(&Nothing);
        assert_eq!(machine.nodes.len(), 1);
        assert!(machine.worth() >= 1);
        assert!(Machine::read(&Live).worth() >= 1);
    }
}
