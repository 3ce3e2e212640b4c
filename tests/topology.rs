//! Plans for recorded machines: what `/sys` said in virtual machines of several shapes (`.ci/numa --record`), with the
//! limits of containers added.

use logweir::host::topology::{Machine, Pinning, Plan, Tree, Wanted};
use std::collections::HashMap;

struct Recorded(HashMap<String, String>);

impl Recorded {
    /// Files of the format `== path`, then the text.
    fn new(text: &str) -> Recorded {
        let mut files = HashMap::new();
        for part in text.split("== ").filter(|p| !p.is_empty()) {
            let (path, content) = part.split_once('\n').unwrap();
            files.insert(path.to_string(), content.to_string());
        }
        assert!(!files.is_empty(), "an empty recording");
        Recorded(files)
    }

    fn with(mut self, path: &str, text: &str) -> Recorded {
        self.0.insert(path.into(), text.into());
        self
    }

    fn plan(&self) -> Plan {
        Plan::new(&Machine::read(self), &Wanted::default())
    }
}

impl Tree for Recorded {
    fn read(&self, path: &str) -> Option<String> {
        self.0.get(path).cloned()
    }
}

fn one_node() -> Recorded {
    Recorded::new(include_str!("topology/one_node.tree"))
}

fn two_sockets() -> Recorded {
    Recorded::new(include_str!("topology/two_sockets_two_nodes.tree"))
}

/// 64 CPUs in one node, as `/sys` shows them in a container, whatever its quota.
fn sixty_four() -> Recorded {
    let tree = Recorded(HashMap::new()).with("sys/devices/system/cpu/online", "0-63\n");
    let tree = tree.with("sys/devices/system/node/online", "0\n");
    tree.with("sys/devices/system/node/node0/cpulist", "0-63\n").with("proc/self/status", "Cpus_allowed_list:\t0-63\n")
}

#[test]
fn one_node_with_two_threads_a_core() {
    let machine = Machine::read(&one_node());
    assert_eq!((machine.nodes.len(), machine.nodes[0].cores.len(), machine.cpus()), (1, 2, 4));
    assert_eq!(machine.nodes[0].cores, [[0, 1], [2, 3]]);
    assert_eq!(machine.nodes[0].cpus(), [0, 2, 1, 3], "a core each before the second threads");
    let plan = one_node().plan();
    assert_eq!((plan.shards.len(), plan.reactors_per_shard()), (1, 2));
    assert_eq!(plan.to_string(), "threads where the kernel puts them (1 node, 2 cores with 4 hardware threads)");
}

#[test]
fn two_sockets_of_two_nodes_get_a_shard_for_each_node() {
    let plan = two_sockets().plan();
    assert_eq!(plan.machine, "4 nodes, 8 cores with 16 hardware threads");
    let nodes: Vec<_> = plan.shards.iter().map(|s| s.node).collect();
    assert_eq!(nodes, [Some(0), Some(1), Some(2), Some(3)]);
    for (i, shard) in plan.shards.iter().enumerate() {
        let mut cpus = shard.writer.clone();
        cpus.sort_unstable();
        assert_eq!(cpus, (i * 4..i * 4 + 4).collect::<Vec<_>>());
        assert!(shard.reactors.iter().all(|r| *r == shard.writer));
    }
    let text = plan.to_string();
    assert!(text.starts_with("shard 0 on node 0, CPUs 0-3; shard 1 on node 1, CPUs 4-7; "), "{text}");
}

#[test]
fn cpus_that_are_offline_are_not_used() {
    let tree = Recorded::new(include_str!("topology/offline.tree"));
    let machine = Machine::read(&tree);
    assert_eq!(machine.cpus(), 7);
    assert!(!machine.nodes[0].cpus().contains(&2));
}

#[test]
fn a_containers_cpuset_is_all_there_is() {
    let tree = two_sockets().with("proc/self/status", "Cpus_allowed_list:\t5,9-11\n");
    let machine = Machine::read(&tree);
    let nodes: Vec<_> = machine.nodes.iter().map(|n| (n.id, n.cpus().len())).collect();
    assert_eq!(nodes, [(1, 1), (2, 3)]);
    let plan = tree.plan();
    assert_eq!(plan.shards.len(), 1, "four CPUs are one shard's, wherever they are");
    assert_eq!((plan.shards[0].node, plan.shards[0].writer.len()), (None, 0), "one shard uses them all");
}

#[test]
fn a_quota_of_two_cpus_starts_two_cpus_worth_of_threads() {
    let v2 =
        |max: &str| sixty_four().with("proc/self/cgroup", "0::/pod/c1\n").with("sys/fs/cgroup/pod/c1/cpu.max", max);
    for tree in [
        v2("200000 100000\n"),
        v2("max 100000\n").with("sys/fs/cgroup/pod/cpu.max", "100000 50000\n"),
        v2("1600000 100000\n").with("sys/fs/cgroup/cpu.max", "200000 100000\n"),
        sixty_four()
            .with("proc/self/cgroup", "4:memory:/x\n3:cpu,cpuacct:/docker/1\n0::/y\n")
            .with("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "150000\n")
            .with("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n"),
        sixty_four()
            .with("proc/self/cgroup", "1:cpu:/\n")
            .with("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n")
            .with("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
    ] {
        let machine = Machine::read(&tree);
        assert_eq!((machine.cpus(), machine.worth()), (64, 2));
        let plan = tree.plan();
        assert_eq!((plan.shards.len(), plan.reactors_per_shard()), (1, 1));
        assert!(plan.to_string().contains("limited to"), "{plan}");
    }
}

#[test]
fn no_quota_or_a_broken_one_is_no_limit() {
    for max in ["max 100000\n", "", "x y", "0 100000", "-1 100000", "100000 0"] {
        let tree = sixty_four().with("proc/self/cgroup", "0::/\n").with("sys/fs/cgroup/cpu.max", max);
        assert_eq!(Machine::read(&tree).worth(), 64, "{max}");
        assert_eq!(tree.plan().shards.len(), 8);
    }
    let v1 = sixty_four()
        .with("proc/self/cgroup", "1:cpu:/\n")
        .with("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n")
        .with("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    assert_eq!(Machine::read(&v1).worth(), 64);
}

#[test]
fn what_is_asked_for_is_done() {
    let machine = Machine::read(&two_sockets());
    let wanted = |pinning| Wanted { shards: Some(2), reactors_per_shard: Some(3), pinning };
    let plan = Plan::new(&machine, &wanted(Pinning::None));
    assert!(plan.shards.iter().all(|s| s.node.is_none() && s.writer.is_empty() && s.reactors.len() == 3));
    // CPUs in turn: three reactors, a writer, three reactors, a writer.
    let plan = Plan::new(&machine, &wanted(Pinning::Cpus(vec![0, 1, 2, 3, 4])));
    assert_eq!(plan.shards[0].reactors, [[0], [1], [2]]);
    assert_eq!((plan.shards[0].writer.as_slice(), plan.shards[0].node), (&[3][..], Some(0)));
    assert_eq!(plan.shards[1].reactors, [[4], [0], [1]]);
    assert_eq!(plan.shards[1].node, None, "its CPUs are of two nodes");
    let plan = Plan::new(&machine, &Wanted { shards: Some(6), ..Wanted::default() });
    assert_eq!(plan.shards.iter().map(|s| s.node.unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 0, 1]);
}
