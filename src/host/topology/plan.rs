//! Decides on which CPUs and NUMA node the threads and the memory of each shard are placed.

use super::{Machine, show_list};
use std::fmt;

/// What the configuration asks for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Shards; `None`: as the machine suggests.
    pub shards: Option<usize>,
    /// Reactors in each; `None`: as the machine suggests.
    pub reactors_per_shard: Option<usize>,
    /// Where threads go.
    pub pinning: Pinning,
}

/// `placement.pin`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Pinning {
    /// The threads and memory of a shard on one node; on a machine with one node the kernel places threads best.
    #[default]
    Auto,
    /// The kernel places everything.
    None,
    /// These CPUs in turn: the reactors of a shard, then its writer.
    Cpus(Vec<usize>),
}

/// One shard's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlan {
    /// The node whose memory it uses; `None`: any.
    pub node: Option<usize>,
    /// CPUs on which each reactor may run; empty: any.
    pub reactors: Vec<Vec<usize>>,
    /// CPUs on which its writer and steward may run; empty: any.
    pub writer: Vec<usize>,
}

/// The places of all shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// One for each.
    pub shards: Vec<ShardPlan>,
    /// The machine in words: `2 nodes, 32 CPUs`.
    pub machine: String,
}

/// CPUs for which one shard is enough: its writer keeps up with a disk of 3 GB/s on half of one.
const CPUS_PER_SHARD: usize = 8;
/// A node with fewer CPUs than this gets no shard of its own.
const LEAST_PER_NODE: usize = 4;
/// More reactors than this share one ring for no gain.
const MOST_REACTORS: usize = 4;

impl Plan {
    /// Makes the plan for a machine.
    #[must_use]
    pub fn new(machine: &Machine, wanted: &Wanted) -> Plan {
        let worth = machine.worth();
        let nodes = machine.nodes.len();
        let spread = nodes > 1 && worth / nodes >= LEAST_PER_NODE;
        let suggested = (worth / CPUS_PER_SHARD).max(1);
        let suggested = if spread { suggested.next_multiple_of(nodes) } else { suggested };
        let shards = wanted.shards.unwrap_or(suggested).max(1);
        // Half of the CPUs are for writers, the kernel's network and disk, and the neighbours. Two reactors were no faster
        // than one beside a writer and a generator on two CPUs.
        let reactors = wanted.reactors_per_shard.unwrap_or((worth / shards / 2).clamp(1, MOST_REACTORS)).max(1);
        // Where we have a ration of all CPUs the kernel moves us about anyhow; with fewer shards than nodes, staying on one
        // node would leave the others idle.
        let use_nodes = nodes > 1 && shards >= nodes && !machine.is_rationed();
        let mut turn = 0;
        let place = |shard: usize| match &wanted.pinning {
            Pinning::Auto if use_nodes => {
                let node = &machine.nodes[shard % machine.nodes.len()];
                ShardPlan { node: Some(node.id), reactors: vec![node.cpus(); reactors], writer: node.cpus() }
            }
            Pinning::Auto | Pinning::None => {
                ShardPlan { node: None, reactors: vec![Vec::new(); reactors], writer: Vec::new() }
            }
            Pinning::Cpus(list) => {
                let mut next = || {
                    let cpu = list.get(turn % list.len().max(1)).copied();
                    turn += 1;
                    cpu.into_iter().collect::<Vec<usize>>()
                };
                let reactors: Vec<Vec<usize>> = (0..reactors).map(|_| next()).collect();
                let writer = next();
                let node = machine.node_of(reactors.iter().chain([&writer]).flatten());
                ShardPlan { node: node.filter(|_| machine.nodes.len() > 1), reactors, writer }
            }
        };
        Plan { shards: (0..shards).map(place).collect(), machine: machine.to_string() }
    }

    /// Reactors in each shard.
    #[must_use]
    pub fn reactors_per_shard(&self) -> usize {
        self.shards.first().map_or(1, |s| s.reactors.len())
    }
}

impl Machine {
    /// The one node of all these CPUs.
    fn node_of<'a>(&self, cpus: impl Iterator<Item = &'a usize>) -> Option<usize> {
        let of = |cpu: &usize| self.nodes.iter().find(|n| n.cores.iter().flatten().any(|c| c == cpu)).map(|n| n.id);
        let mut nodes: Vec<Option<usize>> = cpus.map(of).collect();
        nodes.dedup();
        if let [one] = nodes[..] { one } else { None }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let cores = self.nodes.iter().map(|n| n.cores.len()).sum();
        write!(f, "{}, {}", plural(self.nodes.len(), "node"), plural(cores, "core"))?;
        if self.cpus() != cores {
            write!(f, " with {}", plural(self.cpus(), "hardware thread"))?;
        }
        if self.is_rationed() {
            write!(f, ", limited to {} CPUs' worth of time", self.quota.unwrap_or(1.0))?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |s: &ShardPlan| {
            let mut cpus: Vec<usize> = s.reactors.iter().chain([&s.writer]).flatten().copied().collect();
            cpus.sort_unstable();
            cpus.dedup();
            match (s.node, cpus.is_empty()) {
                (Some(node), _) => format!("node {node}, CPUs {}", show_list(&cpus)),
                (None, false) => format!("CPUs {}", show_list(&cpus)),
                (None, true) => String::new(),
            }
        };
        let places: Vec<String> = self.shards.iter().map(place).collect();
        if places.iter().all(String::is_empty) {
            return write!(f, "threads where the kernel puts them ({})", self.machine);
        }
        let list: Vec<String> = places.iter().enumerate().map(|(i, p)| format!("shard {i} on {p}")).collect();
        write!(f, "{} ({})", list.join("; "), self.machine)
    }
}
