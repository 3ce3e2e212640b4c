//! HTTP when the disk is slow, full or broken: what was taken is acknowledged or refused, never forgotten.

mod common;

use common::faulty_disk::Call;
use common::http::{Client, request};
use common::running::Running;
use common::{await_that, scratch};
use std::time::Duration;

const WEB: &str = "[buffer]\nmemory = \"4MiB\"\n[listener.web]\nprotocol = \"http\"\naddress = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"4KiB\"\n";

fn body(lines: usize) -> String {
    format!("{}\n", "x".repeat(999)).repeat(lines)
}

/// Sends requests, each on a connection of its own, until one is refused; those without an answer so far come back too.
fn until_refused(server: &Running) -> (Vec<Client>, common::http::Answer) {
    let mut waiting: Vec<Client> = Vec::new();
    let mut refused = None;
    await_that("a request is refused", || {
        let mut client = Client::to(server.address("web"));
        client.stream.set_nonblocking(false).unwrap();
        client.stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        client.send(request("/", "", &body(100)).as_bytes());
        match client.answer() {
            Some(answer) => {
                assert_ne!(answer.status, 204, "nothing can be durable");
                refused = Some(answer);
            }
            None => waiting.push(client),
        }
        refused.is_some()
    });
    (waiting, refused.unwrap())
}

/// What was taken is acknowledged once there is a disk again, all of it.
fn all_are_answered(waiting: &mut [Client]) -> (usize, usize) {
    let (mut taken, mut refused) = (0, 0);
    for client in waiting {
        client.stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
        match client.answer().expect("an answer").status {
            204 => taken += 1,
            429 | 503 => refused += 1,
            other => panic!("{other}"),
        }
    }
    (taken, refused)
}

#[test]
fn block_refuses_what_has_waited_too_long() {
    let dir = scratch();
    let mut server = Running::start(dir.path(), &format!("{WEB}queue_timeout = \"200ms\"\n"));
    // One that is in the middle of a request waits, and hides nobody behind it.
    let mut begun = Client::to(server.address("web"));
    begun.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf\n");
    await_that("it has begun", || server.count("logweir_received_lines_total", "") == 1.0);
    server.faults.shut_gate();
    let (mut waiting, refused) = until_refused(&server);
    begun.send(b"done\n");
    let mut late = Client::to(server.address("web"));
    assert_eq!(late.post("/", "", "late\n").status, 429);
    assert_eq!(refused.status, 429, "{refused:?}");
    assert!(refused.head.contains("Retry-After: 1\r\n") && refused.body.contains("overloaded"), "{refused:?}");
    assert!(!refused.head.contains("Connection: close"), "the connection can go on");
    server.faults.open_gate();
    assert_eq!(begun.answer().unwrap().status, 204);
    let (taken, _) = all_are_answered(&mut waiting);
    assert!(taken > 3, "{taken}");
    assert_eq!(server.count("logweir_dropped_lines_total", ""), 0.0, "what is refused was never received");
    assert_eq!(Client::to(server.address("web")).post("/", "", "after\n").status, 204);
    assert!(server.stop());
    assert!(server.lines().len() >= taken * 100);
}

#[test]
fn drop_newest_refuses_at_once() {
    let dir = scratch();
    let mut server = Running::start(dir.path(), &format!("{WEB}queue_timeout = \"1h\"\nwhen_full = \"drop_newest\"\n"));
    server.faults.shut_gate();
    let (mut waiting, refused) = until_refused(&server);
    assert_eq!(refused.status, 429, "{refused:?}");
    server.faults.open_gate();
    let (taken, _) = all_are_answered(&mut waiting);
    assert!(server.stop());
    assert!(server.lines().len() >= taken * 100);
}

#[test]
fn a_full_disk_refuses_and_what_was_taken_waits_for_room() {
    let dir = scratch();
    let mut server = Running::start(dir.path(), &format!("{WEB}queue_timeout = \"1h\"\n"));
    server.faults.fail(Call::Append, libc::ENOSPC, u64::MAX);
    let mut first = Client::to(server.address("web"));
    first.send(request("/", "", "first\n").as_bytes());
    await_that("the disk is found full", || server.count("logweir_disk_full", "") == 1.0);
    let mut client = Client::to(server.address("web"));
    for _ in 0..3 {
        let answer = client.post("/", "", &body(300));
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.head.contains("Retry-After: 10\r\n") && answer.body.contains("disk_full"), "{answer:?}");
    }
    // One whose head comes in two parts, the first of them with what is left of a refused body.
    let (head, rest) = ("POST / HTTP/1.1\r\nHo", "st: x\r\nContent-Length: 5\r\n\r\nlate\n");
    client.send([request("/", "", &body(300)).as_bytes(), head.as_bytes()].concat().as_slice());
    assert_eq!(client.answer().unwrap().status, 503);
    client.send(rest.as_bytes());
    assert_eq!(client.answer().unwrap().status, 503);
    client.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.answer().unwrap().body, "disk full\n");
    server.faults.heal();
    assert_eq!(first.answer().unwrap().status, 204, "what was taken before is durable when there is room");
    await_that("requests are taken again", || client.post("/", "", "after\n").status == 204);
    assert!(server.stop());
    assert_eq!(server.lines(), [&b"first"[..], b"after"]);
}

#[test]
fn a_broken_disk_is_told_to_everybody() {
    let dir = scratch();
    let mut server = Running::start(dir.path(), WEB);
    let mut client = Client::to(server.address("web"));
    assert_eq!(client.post("/", "", "good\n").status, 204);
    let mut begun = Client::to(server.address("web"));
    begun.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf\n");
    server.faults.fail(Call::SyncData, libc::EIO, u64::MAX);
    let answer = client.post("/", "", "lost?\n");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.body.contains("disk_failed"), "{answer:?}");
    let mut late = Client::to(server.address("web"));
    let answer = late.post("/", "", "late\n");
    assert_eq!(answer.status, 503, "{answer:?}");
    late.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(late.answer().unwrap().status, 503);
    begun.send(b"more\n");
    assert_eq!(begun.answer().unwrap().status, 503);
    server.scrape();
    assert!(!server.stop());
}

#[test]
fn written_is_acknowledged_while_the_sync_still_runs() {
    let dir = scratch();
    let server = Running::start(dir.path(), WEB);
    let [mut received, mut written, mut durable] = [(); 3].map(|()| Client::to(server.address("web")));
    server.faults.shut_sync_gate();
    assert_eq!(received.post("/?ack=received", "", "a\n").status, 204);
    server.faults.open_gate();
    await_that("the first is durable", || server.count("logweir_durable_lines_total", "") == 1.0);
    server.faults.shut_sync_gate();
    assert_eq!(written.post("/?ack=written", "", "b\n").status, 204);
    durable.send(request("/", "", "c\n").as_bytes());
    durable.stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(durable.answer().is_none(), "not durable yet");
    assert_eq!(server.count("logweir_durable_lines_total", ""), 1.0);
    server.faults.open_gate();
    durable.stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    assert_eq!(durable.answer().unwrap().status, 204);
}
