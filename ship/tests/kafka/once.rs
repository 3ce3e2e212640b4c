//! Each line once: through restarts, kills of everybody, and beside a zombie.

use crate::brokers::{PATIENCE, await_that, brokers, new_brokers, skipped};
use crate::node::{Node, check, kill};
use nix::sys::signal::Signal;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn each_line_arrives_once_in_order_through_rotation_and_restarts() {
    let Some(brokers) = brokers("each_line_arrives_once_in_order_through_rotation_and_restarts") else { return };
    let node = Node::new(&brokers, "restarts", "key = \"source\"\nheaders = true");
    let server = node.serve();
    server.send("a", "one", 0..200_000);
    server.send("b", "two", 0..100);
    server.stop();
    node.ship();
    check(&node.arrived("a"), &[("one", 200_000)]);
    let two = node.arrived("b");
    check(&two, &[("two", 100)]);
    assert!(two.iter().all(|one| one.partition == two[0].partition), "order is kept by one partition");
    let key = two[0].key.clone().unwrap();
    assert!(key.ends_with("/b/0"), "{key}");
    let names: Vec<&str> = two[0].headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["logweir.node", "logweir.stream", "logweir.shard"]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    assert!(two.iter().all(|one| (now - one.time.unwrap()).abs() < PATIENCE.as_millis() as i64), "{:?}", two[0].time);
    node.ship(); // nothing is new
    let server = node.serve();
    server.send("b", "two", 100..200);
    server.stop();
    node.ship();
    check(&node.arrived("b"), &[("two", 200)]);
    check(&node.arrived("a"), &[("one", 200_000)]);
}

#[test]
fn it_follows_a_server_and_loses_nothing_when_either_is_killed() {
    let Some(brokers) = brokers("it_follows_a_server_and_loses_nothing_when_either_is_killed") else { return };
    let node = Node::new(&brokers, "kills", "");
    let mut sent = 0;
    for round in 0..4_u64 {
        let mut server = node.serve();
        let mut shipper = node.shipper().spawn().unwrap();
        for _ in 0..10 {
            server.send("a", "one", sent..sent + 2_000);
            sent += 2_000;
        }
        if round % 2 == 0 {
            // Wherever it is now: before, in, or behind a transaction.
            std::thread::park_timeout(Duration::from_millis(300 * round));
            shipper.kill().unwrap();
        } else {
            await_that("lines to arrive", || !node.arrived("a").is_empty());
        }
        // What is synced is there after a kill as after an orderly end.
        std::thread::park_timeout(Duration::from_millis(100));
        server.signal(Signal::SIGKILL);
        let _ = shipper.kill();
        shipper.wait().unwrap();
    }
    node.serve().stop(); // recovers what the kill has left
    node.ship();
    check(&node.arrived("a"), &[("one", sent)]);
}

#[test]
fn a_zombie_is_fenced_and_says_so() {
    let Some(brokers) = brokers("a_zombie_is_fenced_and_says_so") else { return };
    let node = Node::new(&brokers, "zombie", "");
    let server = node.serve();
    server.send("a", "one", 0..1_000);
    let zombie = node.shipper().stderr(Stdio::piped()).spawn().unwrap();
    await_that("lines to arrive", || node.arrived("a").len() == 1_000);
    // The same node on another machine: a copy of its files.
    let copy = Node { dir: tempfile::tempdir().unwrap(), brokers: node.brokers.clone(), topic: node.topic.clone() };
    assert!(Command::new("cp").arg("-r").args([node.data(), copy.data()]).status().unwrap().success());
    copy.configure("");
    copy.ship();
    server.send("a", "one", 1_000..2_000);
    let ended = zombie.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(said.contains("another shipper of this target and node"), "{said}");
    server.stop();
    node.ship();
    check(&node.arrived("a"), &[("one", 2_000)]);
}

#[test]
fn a_target_that_has_forgotten_its_positions_is_not_shipped_to() {
    let Some(brokers) = brokers("a_target_that_has_forgotten_its_positions_is_not_shipped_to") else { return };
    let node = Node::new(&brokers, "forgotten", "");
    let server = node.serve();
    server.send("a", "one", 0..10);
    server.stop();
    node.ship();
    let text = std::fs::read_to_string(node.config()).unwrap();
    std::fs::write(node.config(), text.replace("forgotten.positions", "forgotten.others")).unwrap();
    let (status, said) = node.ship_fails();
    assert_eq!(status.code(), Some(4), "{said}");
    assert!(said.contains("no positions of this node") && said.contains("Delete the note"), "{said}");
    check(&node.arrived("a"), &[("one", 10)]);
}

#[test]
fn only_one_shipper_of_a_target_runs() {
    let Some(brokers) = brokers("only_one_shipper_of_a_target_runs") else { return };
    let node = Node::new(&brokers, "one", "");
    let server = node.serve();
    server.send("a", "one", 0..10);
    let mut shipper = node.shipper().spawn().unwrap();
    await_that("lines to arrive", || node.arrived("a").len() == 10);
    let (status, said) = node.ship_fails();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("another shipper of k runs"), "{said}");
    kill(shipper.id() as i32, Signal::SIGTERM);
    assert!(shipper.wait().unwrap().success(), "SIGTERM ends it in order");
    server.stop();
}

#[test]
fn at_least_once_loses_nothing_and_needs_no_transactions() {
    let Some(brokers) = brokers("at_least_once_loses_nothing_and_needs_no_transactions") else { return };
    let node = Node::new(&brokers, "least", "delivery = \"at_least_once\"\npartition = \"spread\"");
    let server = node.serve();
    server.send("a", "one", 0..50_000);
    server.stop();
    node.ship();
    let arrived = node.arrived("a");
    let mut numbers: Vec<u64> =
        arrived.iter().map(|one| one.line.split_once(' ').unwrap().1.parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..50_000).collect::<Vec<_>>());
    let mut partitions: Vec<i32> = arrived.iter().map(|one| one.partition).collect();
    partitions.sort_unstable();
    partitions.dedup();
    assert!(partitions.len() > 1, "spread over the partitions");
}

#[test]
fn at_least_once_loses_nothing_when_the_shipper_and_the_broker_are_killed() {
    // Its own: the others' go on.
    let brokers = match new_brokers(1) {
        Ok(brokers) => brokers,
        Err(why) => return skipped("at_least_once_loses_nothing_when_the_shipper_and_the_broker_are_killed", &why),
    };
    let node = Node::new(&brokers, "lost", "delivery = \"at_least_once\"");
    let server = node.serve();
    let mut sent = 0;
    for _ in 0..3 {
        let mut shipper = node.shipper().spawn().unwrap();
        let before = node.arrived("a").len();
        server.send("a", "one", sent..sent + 100_000);
        await_that("lines to arrive", || node.arrived("a").len() > before);
        // With lines under way, in rounds that have and that have not arrived.
        brokers.kill();
        server.send("a", "one", sent + 100_000..sent + 110_000);
        sent += 110_000;
        shipper.kill().unwrap();
        shipper.wait().unwrap();
        brokers.start().unwrap();
    }
    server.stop();
    node.ship();
    let numbers: Vec<u64> = node.arrived("a").iter().map(|one| one.line[4..].parse().unwrap()).collect();
    let mut there = numbers.clone();
    there.sort_unstable();
    there.dedup();
    assert_eq!(there.len() as u64, sent, "lost");
    assert!(
        numbers.windows(2).all(|two| two[1] <= two[0] + 1),
        "what comes again comes from where it begins, in order"
    );
    assert!(node.dir.path().join("data/.logweir/ship/k").exists());
}

#[test]
fn brokers_that_die_and_come_back_have_each_line_once() {
    // Its own: the others' go on.
    let brokers = match new_brokers(1) {
        Ok(brokers) => brokers,
        Err(why) => return skipped("brokers_that_die_and_come_back_have_each_line_once", &why),
    };
    let node = Node::new(&brokers, "dead", "");
    let server = node.serve();
    let mut shipper = node.shipper().spawn().unwrap();
    server.send("a", "one", 0..5_000);
    await_that("lines to arrive", || !node.arrived("a").is_empty());
    server.send("a", "one", 5_000..100_000);
    brokers.kill();
    server.send("a", "one", 100_000..110_000);
    brokers.start().unwrap();
    await_that("the rest to arrive", || node.arrived("a").len() >= 110_000);
    kill(shipper.id() as i32, Signal::SIGTERM);
    assert!(shipper.wait().unwrap().success());
    server.stop();
    node.ship();
    check(&node.arrived("a"), &[("one", 110_000)]);
}

/// What was there before is not shipped. It has no positions of its own accord: they are the target's before they are noted.
#[test]
fn a_target_that_begins_now_gets_what_comes_from_then_on_also_after_a_restart() {
    let Some(brokers) = brokers("a_target_that_begins_now_gets_what_comes_from_then_on_also_after_a_restart") else {
        return;
    };
    let node = Node::new(&brokers, "now", "start = \"now\"");
    let server = node.serve();
    server.send("a", "before", 0..100);
    server.stop();
    node.ship();
    node.ship(); // begins anew before there was anything to ship
    let server = node.serve();
    server.send("a", "one", 0..100);
    server.stop();
    node.ship();
    check(&node.arrived("a"), &[("one", 100)]);
}

/// The shipper is stopped while the stream begins, so that it sees lines in it when it first sees it.
#[test]
fn a_stream_that_begins_later_is_shipped_from_its_first_line() {
    let Some(brokers) = brokers("a_stream_that_begins_later_is_shipped_from_its_first_line") else { return };
    let node = Node::new(&brokers, "later", "start = \"now\"");
    let server = node.serve();
    server.send("a", "before", 0..100);
    let mut shipper = node.shipper().spawn().unwrap();
    await_that("it to begin", || node.data().join(".logweir/ship/k").exists());
    kill(shipper.id() as i32, Signal::SIGSTOP);
    server.stop();
    let another = "[listener.c]\naddress = \"tcp://127.0.0.1:0\"\nstream = \"c\"\n[stream.c]";
    node.configure_with(&node.brokers, "start = \"now\"", another);
    let server = node.serve();
    server.send("c", "one", 0..100);
    server.stop();
    kill(shipper.id() as i32, Signal::SIGCONT);
    await_that("lines to arrive", || !node.arrived("c").is_empty());
    kill(shipper.id() as i32, Signal::SIGTERM);
    assert!(shipper.wait().unwrap().success());
    node.ship();
    check(&node.arrived("c"), &[("one", 100)]);
}

#[test]
fn it_ends_when_it_is_told_to_though_there_is_more_to_ship() {
    let Some(brokers) = brokers("it_ends_when_it_is_told_to_though_there_is_more_to_ship") else { return };
    let node = Node::new(&brokers, "ends", "");
    let server = node.serve();
    server.send("a", "one", 0..1_000);
    server.stop();
    let mut shipper = node.shipper().stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(shipper.stderr.take().unwrap()).lines().map(Result::unwrap);
    // It takes a while to connect: the signal is there before the first line is shipped.
    assert!(said.any(|line| line.contains("shipper starts")));
    kill(shipper.id() as i32, Signal::SIGTERM);
    said.for_each(drop);
    assert!(shipper.wait().unwrap().success());
    node.ship();
    check(&node.arrived("a"), &[("one", 1_000)]);
    let note = std::fs::read_to_string(node.data().join(".logweir/ship/k.status")).unwrap();
    assert!(note.contains("lines 1000\n"), "the second shipped them all: {note}");
}

/// Calls at which the shipper is killed: sending, and each step of noting.
const CALLS: [&str; 6] =
    ["sendmsg", "rename,renameat2,renameat", "fsync,fdatasync", "openat", "write,writev", "pread64"];

/// How many kills there are here; `tests/ship/run` has more of them.
fn kills() -> u64 {
    std::env::var("LOGWEIR_SHIP_KILLS").map_or(12, |text| text.parse().expect("LOGWEIR_SHIP_KILLS: a number"))
}

#[test]
fn a_kill_at_whatever_call_loses_and_repeats_nothing() {
    let name = "a_kill_at_whatever_call_loses_and_repeats_nothing";
    if !Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success()) {
        return skipped(name, "no strace");
    }
    let Some(brokers) = brokers(name) else { return };
    let node = Node::new(&brokers, "calls", "");
    let server = node.serve();
    let (mut sent, mut killed) = (0, 0);
    for round in 0..kills() {
        server.send("a", "one", sent..sent + 500);
        sent += 500;
        let calls = CALLS[(round % CALLS.len() as u64) as usize];
        // A run has a few hundred of the first, and fewer of the others.
        let when = 1 + (round / CALLS.len() as u64 * 7) % 60;
        let shipper = node.shipper();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
        command.arg(format!("inject={calls}:signal=SIGKILL:when={when}"));
        // Not confined, so that every call is counted from the first on.
        command.arg(shipper.get_program()).args(shipper.get_args()).args(["--once", "--no-sandbox"]);
        killed += u64::from(!command.stdin(Stdio::null()).status().unwrap().success());
    }
    assert!(killed * 3 >= kills(), "only {killed} of {} runs were killed", kills());
    server.stop();
    node.ship();
    check(&node.arrived("a"), &[("one", sent)]);
}
