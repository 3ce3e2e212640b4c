//! Three brokers, of which those are killed that count: the leader of the lines, the coordinator of the transactions, and all.

use crate::brokers::{PATIENCE, await_that, new_brokers, skipped};
use crate::node::{Node, check, kill};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

/// Which broker leads the partition that the lines of a stream are in.
fn leader(brokers: &str, topic: &str, partition: i32) -> i32 {
    let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
    metadata.topics()[0].partitions().iter().find(|one| one.id() == partition).unwrap().leader()
}

#[test]
fn brokers_that_lead_are_killed_and_each_line_arrives_once() {
    let brokers = match new_brokers(3) {
        Ok(brokers) => brokers,
        Err(why) => return skipped("brokers_that_lead_are_killed_and_each_line_arrives_once", &why),
    };
    let node = Node::new(&brokers, "cluster", "");
    let server = node.serve();
    let mut shipper = node.shipper().spawn().unwrap();
    let mut sent = 0;
    for of_positions in [false, true] {
        server.send("a", "one", sent..sent + 20_000);
        sent += 20_000;
        await_that("lines to arrive", || node.arrived("a").len() as u64 == sent);
        // The topic of positions is written in each transaction; its leader counts as much as that of the lines.
        let partition = node.arrived("a")[0].partition;
        let victim = match of_positions {
            false => leader(&brokers.addresses, "cluster.a", partition),
            true => leader(&brokers.addresses, "__transaction_state", 0),
        };
        server.send("a", "one", sent..sent + 20_000);
        brokers.kill_one(victim);
        server.send("a", "one", sent + 20_000..sent + 40_000);
        sent += 40_000;
        await_that("the others to take over", || node.arrived("a").len() as u64 == sent);
        brokers.kill();
        server.send("a", "one", sent..sent + 1_000);
        sent += 1_000;
        brokers.start().unwrap();
        await_that("all to come back", || node.arrived("a").len() as u64 == sent);
    }
    kill(shipper.id() as i32, nix::sys::signal::Signal::SIGTERM);
    assert!(shipper.wait().unwrap().success());
    server.stop();
    check(&node.arrived("a"), &[("one", sent)]);
}
