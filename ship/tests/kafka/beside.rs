//! Shippers beside a server: started by it, looked after, shown by it, and told of a new configuration.

use crate::brokers::{await_that, brokers};
use crate::node::{Node, check, kill};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// What the shipper may use in all: the issue of its making has this number.
const MEMORY: u64 = 96 << 20;

#[test]
fn a_server_starts_its_shippers_starts_them_again_and_shows_how_far_they_are() {
    let Some(brokers) = brokers("a_server_starts_its_shippers_starts_them_again_and_shows_how_far_they_are") else {
        return;
    };
    let node = Node::new(&brokers, "beside", "");
    let server = node.serve_with(&["--ship"]);
    server.send("a", "one", 0..300_000);
    await_that("lines to arrive", || node.arrived("a").len() == 300_000);
    let metric = |name: &str| server.metric(name, "k").unwrap();
    await_that("the metrics to say so", || {
        metric("logweir_ship_up") == 1.0
            && metric("logweir_ship_lines_total") == 300_000.0
            && metric("logweir_ship_lag_lines") == 0.0
    });
    assert!(metric("logweir_ship_transactions_total") >= 1.0);
    assert_eq!([metric("logweir_ship_lag_bytes"), metric("logweir_ship_lag_seconds")], [0.0, 0.0]);
    let shipper = node.processes(Some("k"));
    assert_eq!(shipper.len(), 1);
    let status = std::fs::read_to_string(format!("/proc/{}/status", shipper[0])).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10;
    assert!(peak <= MEMORY, "{peak}");
    kill(shipper[0], Signal::SIGKILL);
    server.send("a", "one", 300_000..301_000);
    await_that("another to go on", || node.arrived("a").len() == 301_000);
    server.stop();
    assert!(node.processes(Some("k")).is_empty() && node.processes(None).is_empty(), "they end with the server");
    check(&node.arrived("a"), &[("one", 301_000)]);
}

#[test]
fn shippers_end_when_their_server_is_killed() {
    let Some(brokers) = brokers("shippers_end_when_their_server_is_killed") else { return };
    let node = Node::new(&brokers, "orphans", "");
    let mut server = node.serve_with(&["--ship"]);
    await_that("a shipper", || !node.processes(Some("k")).is_empty());
    server.signal(Signal::SIGKILL);
    await_that("all to end", || node.processes(Some("k")).is_empty() && node.processes(None).is_empty());
    // And when what looks after them is killed.
    let server = node.serve_with(&["--ship"]);
    await_that("a shipper", || !node.processes(Some("k")).is_empty());
    kill(node.processes(None)[0], Signal::SIGKILL);
    await_that("the shipper to end", || node.processes(Some("k")).is_empty());
    server.stop();
}

#[test]
fn a_reload_takes_targets_over() {
    let Some(brokers) = brokers("a_reload_takes_targets_over") else { return };
    let node = Node::new(&brokers, "reload", "");
    let server = node.serve_with(&["--ship"]);
    server.send("a", "one", 0..10);
    await_that("lines to arrive", || node.arrived("a").len() == 10);
    let first = node.processes(Some("k"));
    let other = format!("[ship.other]\nto = \"kafka://{}\"\ntopic = \"reload.other.{{stream}}\"", brokers.addresses);
    node.configure(&other);
    server.reload();
    await_that("the new target to get all", || node.arrived("other.a").len() == 10);
    await_that("it to be shown", || server.metric("logweir_ship_up", "other") == Some(1.0));
    assert_eq!(node.processes(Some("k")), first, "a target that is as it was goes on");
    node.configure(&format!("headers = true\n{}", other.replace("[ship.other]", "[ship.other]\nhold = false")));
    server.reload();
    await_that("what has changed to be replaced", || {
        let now = node.processes(Some("k"));
        now.len() == 1 && now != first
    });
    server.send("a", "one", 10..20);
    await_that("both to go on", || node.arrived("a").len() == 20 && node.arrived("other.a").len() == 20);
    assert!(node.arrived("a").iter().all(|one| (one.headers.len() == 3) == (one.line.len() > "one 9".len())));
    let text = std::fs::read_to_string(node.config()).unwrap();
    std::fs::write(node.config(), text.replace("[ship.k]", "[ship.third]")).unwrap();
    server.reload();
    await_that("what is gone to end", || {
        node.processes(Some("k")).is_empty() && node.processes(Some("third")).len() == 1
    });
    await_that("it to be shown no more", || server.metric("logweir_ship_up", "k").is_none());
    server.stop();
    check(&node.arrived("other.a"), &[("one", 20)]);
}

/// Both would make the node's number, and positions noted under the one that is lost are found by nobody.
#[test]
fn a_shipper_waits_for_the_first_start_of_a_server_and_makes_nothing() {
    let Some(brokers) = brokers("a_shipper_waits_for_the_first_start_of_a_server_and_makes_nothing") else { return };
    let node = Node::new(&brokers, "early", "");
    let output = node.shipper().arg("--once").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no logweir server has run with the data directory"));
    let waits = || {
        let mut child =
            node.shipper().arg("--until-stdin-ends").stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("waiting for it") {
            line.clear();
            assert!(said.read_line(&mut line).unwrap() > 0, "it has ended");
        }
        (child, said)
    };
    let (mut told, _said) = waits();
    kill(told.id() as i32, Signal::SIGTERM);
    assert!(told.wait().unwrap().success());
    let (mut alone, _said) = waits();
    drop(alone.stdin.take());
    assert!(alone.wait().unwrap().success());
    assert!(!node.data().exists());

    let (mut shipper, _said) = waits();
    let server = node.serve();
    let number = || std::fs::read_to_string(node.data().join(".logweir/node")).unwrap();
    let first = number();
    server.send("a", "one", 0..10);
    await_that("lines to arrive", || node.arrived("a").len() == 10);
    drop(shipper.stdin.take());
    assert!(shipper.wait().unwrap().success());
    assert_eq!(number(), first);
    assert!(node.shipper().arg("--once").status().unwrap().success());
    server.stop();
    check(&node.arrived("a"), &[("one", 10)]);
}

#[test]
fn a_check_says_what_is_right_and_what_is_wrong() {
    let Some(brokers) = brokers("a_check_says_what_is_right_and_what_is_wrong") else { return };
    let node = Node::new(&brokers, "check", "");
    let checked = || {
        let output = node.shipper().arg("--check").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, said) = checked();
    assert_eq!(code, Some(1), "nobody has made the data directory: {said}");
    assert!(said.contains("no server has run"), "{said}");
    assert!(!node.data().exists(), "nor does a check: whoever runs it may be another user than the server");
    let server = node.serve();
    server.send("a", "one", 0..10);
    let (code, said) = checked();
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "1 broker(s) answer",
        "topic check.a is not there. It may be made",
        "topic check.positions is not there; the shipper makes it",
        "transactions work",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(node.shipper().arg("--once").status().unwrap().success());
    let (code, said) = checked();
    assert_eq!(code, Some(0), "{said}");
    for part in ["topic check.a: 3 partition(s)", "min.insync.replicas = 1", "clocks: at most"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    check(&node.arrived("a"), &[("one", 10)]);
    node.configure_with("127.0.0.1:1", "", "");
    let (code, said) = checked();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no broker of 127.0.0.1:1 answers"), "{said}");
    server.stop();
}
