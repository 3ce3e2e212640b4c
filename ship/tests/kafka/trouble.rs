//! What goes wrong around a shipper: credentials, topics, retention, other nodes; and segments that change under its hands.

use crate::brokers::{PATIENCE, await_that, brokers};
use crate::node::{Node, check, kill};
use nix::sys::signal::Signal;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::io::{BufRead, BufReader};
use std::process::Stdio;

#[test]
fn wrong_credentials_are_named_and_right_ones_taken_without_a_restart() {
    let Some(brokers) = brokers("wrong_credentials_are_named_and_right_ones_taken_without_a_restart") else { return };
    let node = Node::new(&brokers, "secured", "");
    let password = node.dir.path().join("password");
    std::fs::write(&password, "guess\n").unwrap();
    let keys = format!(
        "tls = true\ntls_ca = \"{}/ca.pem\"\nsasl_mechanism = \"PLAIN\"\nsasl_username = \"ship\"\nsasl_password_file = \"{}\"",
        brokers.dir.path().display(),
        password.display()
    );
    node.configure_with(&brokers.secured, &keys, "");
    let server = node.serve();
    server.send("a", "one", 0..100);
    let mut shipper = node.shipper().stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(shipper.stderr.take().unwrap());
    let mut lines = said.lines().map(Result::unwrap);
    let named = lines.find(|line| line.contains("not shipping")).unwrap();
    assert!(named.to_lowercase().contains("authentication"), "{named}");
    std::fs::write(&password, "secret\n").unwrap();
    await_that("lines to arrive", || node.arrived("a").len() == 100);
    kill(shipper.id() as i32, Signal::SIGTERM);
    drop(lines);
    shipper.wait().unwrap();
    server.stop();
    check(&node.arrived("a"), &[("one", 100)]);
}

#[test]
fn a_topic_that_is_deleted_is_gone_on_with() {
    let Some(brokers) = brokers("a_topic_that_is_deleted_is_gone_on_with") else { return };
    let node = Node::new(&brokers, "deleted", "");
    let server = node.serve();
    let mut shipper = node.shipper().spawn().unwrap();
    server.send("a", "one", 0..1_000);
    await_that("lines to arrive", || node.arrived("a").len() == 1_000);
    let mut config = ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> =
        config.set("bootstrap.servers", &brokers.addresses).create().unwrap();
    // The client asks by itself; whoever waits for the answer only hears of it.
    let _answer = admin.delete_topics(&["deleted.a"], &AdminOptions::new());
    let mut sent = 1_000;
    // Brokers forget a topic little by little: some lines may still go to the old one.
    await_that("lines to go to a new one", || {
        server.send("a", "one", sent..sent + 10);
        sent += 10;
        let there = node.arrived("a");
        there.last().is_some_and(|last| there[0].line != "one 0" && last.line == format!("one {}", sent - 1))
    });
    kill(shipper.id() as i32, Signal::SIGTERM);
    shipper.wait().unwrap();
    server.stop();
    let there = node.arrived("a");
    let numbers: Vec<u64> = there.iter().map(|one| one.line[4..].parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{numbers:?}");
}

#[test]
fn what_retention_took_before_is_counted_and_the_shipper_goes_on_behind_it() {
    let Some(brokers) = brokers("what_retention_took_before_is_counted_and_the_shipper_goes_on_behind_it") else {
        return;
    };
    let node = Node::new(&brokers, "retention", "");
    node.configure_with(&brokers.addresses, "hold = false", "[retention]\nmax_bytes = \"4MiB\"");
    let server = node.serve();
    server.send("a", "one", 0..10);
    node.ship();
    // Nobody ships meanwhile, and most of it goes.
    server.send("a", "one", 10..1_000_000);
    await_that("retention to take something", || {
        server.metric("logweir_ship_lost_before_shipping_lines_total", "k").is_some_and(|lost| lost > 0.0)
    });
    node.ship();
    let there = node.arrived("a");
    let numbers: Vec<u64> = there.iter().map(|one| one.line[4..].parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|two| two[1] > two[0]), "double or out of order");
    await_that("all that is missing to be counted", || {
        let lost = server.metric("logweir_ship_lost_before_shipping_lines_total", "k").unwrap();
        // Of the segment that the target was in, its lines may have been there already.
        (lost - (1_000_000 - numbers.len()) as f64).abs() <= 10.0
    });
    server.stop();
}

#[test]
fn segments_that_are_compressed_and_moved_under_its_hands_arrive_once() {
    let Some(brokers) = brokers("segments_that_are_compressed_and_moved_under_its_hands_arrive_once") else { return };
    let node = Node::new(&brokers, "moved", "");
    let sealed = node.dir.path().join("sealed");
    let config = std::fs::read_to_string(node.config()).unwrap();
    let more = format!("[storage]\ncompress = \"zstd\"\nsealed_dir = \"{}\"", sealed.display());
    let config = config.replace("[storage]", &more);
    std::fs::write(node.config(), config).unwrap();
    let server = node.serve();
    let mut shipper = node.shipper().spawn().unwrap();
    for part in 0..20 {
        server.send("a", "one", part * 50_000..(part + 1) * 50_000);
    }
    await_that("lines to arrive", || node.arrived("a").len() == 1_000_000);
    kill(shipper.id() as i32, Signal::SIGTERM);
    shipper.wait().unwrap();
    server.stop();
    assert!(std::fs::read_dir(sealed.join("a")).unwrap().count() > 3, "they were moved");
    check(&node.arrived("a"), &[("one", 1_000_000)]);
}

#[test]
fn two_targets_on_one_cluster_have_each_line_once_each() {
    let Some(brokers) = brokers("two_targets_on_one_cluster_have_each_line_once_each") else { return };
    let node = Node::new(&brokers, "two", "");
    node.configure(&format!(
        "[ship.other]\nto = \"kafka://{}\"\ntopic = \"two.other.{{stream}}\"\npositions_topic = \"two.positions\"\nstreams = [\"a\"]",
        brokers.addresses
    ));
    let server = node.serve();
    server.send("a", "one", 0..20_000);
    server.send("b", "two", 0..20);
    server.stop();
    node.ship();
    assert!(node.shipper_of("other").arg("--once").status().unwrap().success());
    assert!(node.shipper_of("--once").status().unwrap().success(), "all of them, which have everything");
    check(&node.arrived("a"), &[("one", 20_000)]);
    check(&node.arrived("b"), &[("two", 20)]);
    check(&node.arrived("other.a"), &[("one", 20_000)]);
}

#[test]
fn an_open_transaction_of_another_node_is_waited_for() {
    let Some(brokers) = brokers("an_open_transaction_of_another_node_is_waited_for") else { return };
    let node = Node::new(&brokers, "open", "");
    let server = node.serve();
    server.send("a", "one", 0..10);
    node.ship();
    // Somebody who has died in the middle of it; the brokers end it after ten seconds.
    let other: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &brokers.addresses)
        .set("transactional.id", "another")
        .set("transaction.timeout.ms", "10000")
        .create()
        .unwrap();
    other.init_transactions(PATIENCE).unwrap();
    other.begin_transaction().unwrap();
    for partition in 0..16 {
        let record = BaseRecord::to("open.positions").partition(partition).key("k/another/a/0").payload("7 7");
        other.send::<str, str>(record).map_err(|(error, _)| error).unwrap();
    }
    other.flush(PATIENCE).unwrap();
    server.send("a", "one", 10..20);
    server.stop();
    node.ship();
    check(&node.arrived("a"), &[("one", 20)]);
}
