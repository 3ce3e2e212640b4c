//! A disk that is slowed, filled or broken by the test, beneath a whole server in this process: real sockets, real files.

mod common;

use common::faulty_disk::{Call, Faults, FaultyDisk};
use common::running::Running;
use common::{await_that, scratch};
use logweir::pipeline::control::Notice;
use logweir::server::StartError;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

fn listener(name: &str, more: &str) -> String {
    format!("[listener.{name}]\naddress = \"tcp://127.0.0.1:0\"\nmax_line_bytes = \"16KiB\"\n{more}\n")
}

const SMALL: &str = "[buffer]\nmemory = \"4MiB\"\n";

/// Writes numbered lines without blocking for ever: stops when the socket takes no more. Returns how many lines it began.
fn fill(stream: &TcpStream, tag: &str, most: usize) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    while sent < most {
        let line = format!("{tag} {sent:08} {}\n", "x".repeat(980));
        match (&*stream).write(line.as_bytes()) {
            Ok(n) if n == line.len() => sent += 1,
            Ok(n) => {
                // The rest of this line, so that it is whole.
                stream.set_nonblocking(false).unwrap();
                (&*stream).write_all(&line.as_bytes()[n..]).unwrap();
                return sent + 1;
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(e) => panic!("{e}"),
        }
    }
    sent
}

#[test]
fn block_stops_reading_and_loses_nothing() {
    let dir = scratch();
    let mut server = Running::start(dir.path(), &[SMALL, &listener("a", "")].concat());
    server.faults.shut_gate();
    let stream = server.connect("a");
    // Until TCP pushes back: everything in between is full then.
    let mut sent = 0;
    await_that("backpressure", || {
        sent += fill_once(&stream, sent);
        server.count("logweir_backpressure_events_total", "") >= 1.0
    });
    assert!(server.count("logweir_buffer_utilisation", "") > 0.9);
    assert!(server.count("logweir_in_flight_bytes", "") <= (4 << 20) as f64);
    server.faults.open_gate();
    stream.set_nonblocking(false).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    await_that("all lines", || server.count("logweir_durable_lines_total", "") == sent as f64);
    assert!(server.count("logweir_backpressure_seconds_total", "") > 0.0);
    assert!(server.stop());
    let lines = server.lines();
    assert_eq!(lines.len(), sent);
    assert!(lines.iter().enumerate().all(|(i, l)| l.starts_with(format!("a {i:08} ").as_bytes())));
}

/// The admin address, HTTP listeners, the gauge and the service manager's status ask one function.
#[test]
fn readiness_is_one_answer_whoever_is_asked() {
    let dir = scratch();
    let config = [SMALL, &listener("a", ""), &listener("web", "protocol = \"http\"")].concat();
    let mut server = Running::start_with_admin(dir.path(), &config);
    let (admin, web) = (server.admin.unwrap(), server.address("web"));
    let say = |why: &str, status: u16| {
        await_that(why, || common::http_get(admin, "/readyz") == (status, format!("{why}\n")));
        await_that(why, || {
            let mut client = common::http::Client::to(web);
            client.send(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
            let answer = client.answer().unwrap();
            (answer.status, answer.body) == (status, format!("{why}\n"))
        });
        assert_eq!(server.count("logweir_ready", ""), f64::from(u8::from(status == 200)));
    };
    say("ready", 200);
    server.faults.fail(Call::Append, libc::ENOSPC, u64::MAX);
    common::send_all(server.address("a"), b"one\n");
    say("disk full", 503);
    assert_eq!(common::http_get(admin, "/healthz").0, 200);
    server.faults.heal();
    say("ready", 200);
    assert!(server.stop());
    assert_eq!(server.lines(), [b"one"]);
}

/// A few more lines, as far as the socket takes them.
fn fill_once(stream: &TcpStream, from: usize) -> usize {
    stream.set_nonblocking(true).unwrap();
    let mut sent = 0;
    for _ in 0..100 {
        let line = format!("a {:08} {}\n", from + sent, "x".repeat(980));
        match (&*stream).write(line.as_bytes()) {
            Ok(n) if n == line.len() => sent += 1,
            Ok(mut n) => {
                while n < line.len() {
                    match (&*stream).write(&line.as_bytes()[n..]) {
                        Ok(m) => n += m,
                        Err(_) => std::thread::park_timeout(std::time::Duration::from_millis(1)),
                    }
                }
                return sent + 1;
            }
            Err(_) => break,
        }
    }
    sent
}

#[test]
fn drop_newest_keeps_what_came_first_and_counts_the_rest() {
    let dir = scratch();
    let config = [SMALL, &listener("a", "when_full = \"drop_newest\"")].concat();
    let mut server = Running::start(dir.path(), &config);
    server.faults.shut_gate();
    let mut stream = server.connect("a");
    let sent = 20_000;
    for i in 0..sent {
        stream.write_all(format!("a {i:08} {}\n", "x".repeat(980)).as_bytes()).unwrap(); // it never pushes back
    }
    drop(stream);
    await_that("all read", || server.count("logweir_received_lines_total", "") == f64::from(sent));
    let dropped = server.count("logweir_dropped_lines_total", "buffer_full");
    assert!(dropped > 10_000.0, "{dropped}");
    assert_eq!(server.count("logweir_dropped_bytes_total", "buffer_full"), dropped * 992.0);
    server.faults.open_gate();
    assert!(server.stop());
    let lines = server.lines();
    assert_eq!(lines.len() as f64, f64::from(sent) - dropped);
    assert!(lines[1000].starts_with(b"a 00001000 "), "what came first stays");
    assert!(lines.is_sorted());
    server.scrape();
}

/// A rest that waits for a chunk holds up those who would leave another one, and nobody else.
#[test]
fn drop_newest_does_not_wait_for_what_another_listener_of_its_lane_has_left() {
    let dir = scratch();
    let json = "format = \"json\"";
    // Chunks are full when they are pushed: in the middle of a receive, which leaves a rest.
    let buffer = "[buffer]\nmemory = \"4MiB\"\nlinger = \"1s\"\n";
    let newest = listener("newest", &format!("{json}\nwhen_full = \"drop_newest\""));
    let config = [buffer, &listener("waits", json), &newest];
    let mut server = Running::start(dir.path(), &config.concat());
    server.faults.shut_gate();
    let waits = server.connect("waits");
    let mut held = 0;
    await_that("backpressure", || {
        held += fill_once(&waits, held);
        server.count("logweir_backpressure_events_total", "") >= 1.0
    });
    let mut newest = server.connect("newest");
    newest.set_write_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    let sent = 20_000;
    for i in 0..sent {
        newest.write_all(format!("n {i:08} {}\n", "x".repeat(980)).as_bytes()).expect("it never pushes back");
    }
    await_that("what is dropped", || server.count("logweir_dropped_lines_total", "buffer_full") > 10_000.0);
    server.faults.open_gate();
    waits.set_nonblocking(false).unwrap();
    drop((waits, newest));
    assert!(server.stop());
    let lines = server.lines();
    let of = |msg: &[u8]| lines.iter().filter(|l| l.windows(msg.len()).any(|w| w == msg)).count();
    assert_eq!(of(b"\"msg\":\"a "), held, "who waits loses nothing");
    let dropped = server.count("logweir_dropped_lines_total", "buffer_full");
    assert_eq!((of(b"\"msg\":\"n ") as f64) + dropped, f64::from(sent));
}

#[test]
fn drop_oldest_keeps_what_came_last_and_counts_the_rest() {
    let dir = scratch();
    let config = [SMALL, &listener("a", "when_full = \"drop_oldest\"")].concat();
    let mut server = Running::start(dir.path(), &config);
    server.faults.shut_gate();
    let mut stream = server.connect("a");
    let sent = 20_000;
    for i in 0..sent {
        stream.write_all(format!("a {i:08} {}\n", "x".repeat(980)).as_bytes()).unwrap();
    }
    drop(stream);
    await_that("all read", || server.count("logweir_received_lines_total", "") == f64::from(sent));
    let dropped = server.count("logweir_dropped_lines_total", "evicted");
    assert!(dropped > 10_000.0, "{dropped}");
    server.faults.open_gate();
    assert!(server.stop());
    let lines = server.lines();
    assert_eq!(lines.len() as f64, f64::from(sent) - dropped);
    assert!(lines.last().unwrap().starts_with(b"a 00019999 "), "what came last stays");
    assert!(lines.is_sorted());
    server.scrape();
}

#[test]
fn classes_and_listeners_do_not_starve_each_other() {
    let dir = scratch();
    let config = [
        "[buffer]\nmemory = \"8MiB\"\n",
        &listener("block", "stream = \"one\""),
        &listener("newest", "stream = \"two\"\nwhen_full = \"drop_newest\""),
        &listener("oldest", "stream = \"three\"\nwhen_full = \"drop_oldest\""),
        &listener("waits", "stream = \"one\"\nreply = \"count\""),
    ]
    .concat();
    let mut server = Running::start(dir.path(), &config);
    server.faults.shut_gate();
    // A crowd on three listeners against a disk that takes an append now and then ...
    let crowd: Vec<_> = ["block", "newest", "oldest"]
        .iter()
        .flat_map(|name| (0..8).map(|_| (server.connect(name), (*name).to_string())).collect::<Vec<_>>())
        .collect();
    for (stream, name) in &crowd {
        fill(stream, name, 3000);
    }
    // ... and one that waits for its acknowledgement gets it all the same.
    let mut client = server.connect("waits");
    let mut replies = BufReader::new(client.try_clone().unwrap()).lines();
    client.write_all(b"count me\n").unwrap();
    let faults = Arc::clone(&server.faults);
    let waiter = std::thread::spawn(move || replies.next().unwrap().unwrap());
    await_that("the acknowledgement", || {
        faults.let_through(1);
        waiter.is_finished()
    });
    assert_eq!(waiter.join().unwrap(), "1");
    server.faults.open_gate();
    drop(crowd);
    drop(client);
    assert!(server.stop());
    server.scrape();
}

#[test]
fn a_full_disk_stops_intake_until_there_is_room_and_no_line_is_split() {
    let dir = scratch();
    let config = [SMALL, &listener("a", "reply = \"count\"")].concat();
    let mut server = Running::start(dir.path(), &config);
    let mut client = server.connect("a");
    let mut replies = BufReader::new(client.try_clone().unwrap()).lines();
    client.write_all(b"before\n").unwrap();
    assert_eq!(replies.next().unwrap().unwrap(), "1");
    server.faults.fail(Call::Append, libc::ENOSPC, u64::MAX); // half of the bytes get there each time
    client.write_all(b"while full\n").unwrap();
    await_that("the disk to be full", || server.count("logweir_disk_full", "") == 1.0);
    assert_eq!(server.lines(), [b"before"]);
    server.faults.heal();
    assert_eq!(replies.next().unwrap().unwrap(), "2", "intake resumes alone");
    assert_eq!(server.count("logweir_disk_full", ""), 0.0);
    drop((client, replies));
    assert!(server.stop());
    assert_eq!(server.lines(), [b"before".to_vec(), b"while full".to_vec()]);
}

/// Recovery has to write: the half line goes to `.torn`.
fn left_by_a_crash(data: &Path) {
    std::fs::create_dir_all(data.join("default")).unwrap();
    std::fs::write(data.join("default/000-0000000001.log.active"), "whole\nhal").unwrap();
}

/// A start that finds no room at a kind of call, its signals, and its end.
struct Waiting {
    faults: Arc<Faults>,
    signals: Sender<Notice>,
    admin: SocketAddr,
    start: JoinHandle<Result<Running, StartError>>,
}

fn start_without_room(data: &Path, call: Call) -> Waiting {
    let disk = FaultyDisk::new();
    let faults = Arc::clone(&disk.faults);
    faults.fail(call, libc::ENOSPC, u64::MAX);
    let (signals, receiver) = channel();
    let channel = (signals.clone(), receiver);
    let admin = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let data = data.to_path_buf();
    let start = move || Running::start_on_disk(&data, &listener("a", ""), &admin.to_string(), disk, channel);
    let start = std::thread::spawn(start);
    await_that("a second try", || faults.failed.load(Ordering::SeqCst) >= 2);
    Waiting { faults, signals, admin, start }
}

fn readiness(admin: SocketAddr) -> String {
    let mut probe = TcpStream::connect(admin).unwrap();
    probe.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    probe.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_start_waits_for_room_and_loses_nothing() {
    let dir = scratch();
    left_by_a_crash(dir.path());
    // The last step of the recovery, so that everything before it is done again.
    let Waiting { faults, signals, admin, start } = start_without_room(dir.path(), Call::Rename);
    let answer = readiness(admin);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("disk full"), "{answer}");
    signals.send(Notice::Signal(signal_hook::consts::SIGHUP)).unwrap();
    assert!(!start.is_finished());
    faults.heal();
    let mut server = start.join().unwrap().unwrap();
    server.connect("a").write_all(b"next\n").unwrap();
    await_that("the line", || server.lines() == [b"whole".to_vec(), b"next".to_vec()]);
    assert_eq!(std::fs::read(dir.path().join("default/000-0000000001.torn")).unwrap(), b"hal");
    assert_eq!(server.count("logweir_ready", ""), 1.0);
    assert_eq!(server.count("logweir_recovered_lines", ""), 1.0);
    assert!(server.stop());
}

#[test]
fn a_start_that_waits_for_room_leaves_no_files_behind() {
    for call in [Call::Reserve, Call::SyncDir, Call::Point] {
        let dir = scratch();
        let Waiting { faults, start, .. } = start_without_room(dir.path(), call);
        faults.heal();
        let mut server = start.join().unwrap().unwrap();
        let names = std::fs::read_dir(dir.path().join("default")).unwrap();
        let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        // The next segment may be there already.
        let active = names.iter().filter(|name| name.ends_with(".active")).count();
        assert!((1..=2).contains(&active) && !names.iter().any(|name| name.ends_with(".tmp")), "{call:?}: {names:?}");
        assert!(server.stop());
    }
}

#[test]
fn a_signal_ends_a_start_that_waits_for_room() {
    let dir = scratch();
    left_by_a_crash(dir.path());
    let Waiting { signals, start, .. } = start_without_room(dir.path(), Call::Rename);
    signals.send(Notice::Signal(signal_hook::consts::SIGTERM)).unwrap();
    let error = start.join().unwrap().err().unwrap();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(dir.path().join("default/000-0000000001.log.active").exists(), "for the next start");
}

#[test]
fn a_failed_sync_moves_what_is_held_to_a_new_segment_and_the_second_stops_intake() {
    let dir = scratch();
    let config = [SMALL, &listener("a", "reply = \"count\""), &listener("plain", "")].concat();
    let mut server = Running::start(dir.path(), &config);
    let mut client = server.connect("a");
    let mut replies = BufReader::new(client.try_clone().unwrap()).lines();
    client.write_all(b"one\n").unwrap();
    assert_eq!(replies.next().unwrap().unwrap(), "1");
    server.faults.fail(Call::SyncData, libc::EIO, 1);
    client.write_all(b"two\n").unwrap();
    assert_eq!(replies.next().unwrap().unwrap(), "2", "acknowledged only from the new segment");
    assert_eq!(server.count("logweir_at_risk_lines_total", ""), 0.0);
    assert_eq!(server.count("logweir_sync_failures_total", ""), 1.0);
    // What nobody held is at risk, and exactly that; the second failure ends it.
    server.faults.fail(Call::SyncData, libc::EIO, u64::MAX);
    let mut plain = server.connect("plain");
    plain.write_all(b"three\nfour\n").unwrap();
    await_that("intake to stop", || server.count("logweir_intake_stopped", "") == 1.0);
    assert_eq!(server.count("logweir_at_risk_lines_total", ""), 2.0);
    assert_eq!(server.count("logweir_ready", ""), 0.0);
    assert!(replies.next().is_none_or(|r| r.is_err()), "no false acknowledgement, a closed connection");
    let mut refused = server.connect("a");
    let _ = refused.write_all(b"five\n");
    assert!(!matches!(refused.read(&mut [0; 8]), Ok(n) if n > 0), "refused");
    assert!(!server.stop(), "not a clean end");
    assert!(!server.faults.synced_after_failure.load(Ordering::SeqCst), "no second sync of a failed file");
}

#[test]
fn a_vanished_directory_loses_nothing_that_is_awaited() {
    let dir = scratch();
    let config = [SMALL, &listener("a", "reply = \"count\"")].concat();
    let mut server = Running::start(dir.path(), &config);
    let mut client = server.connect("a");
    let mut replies = BufReader::new(client.try_clone().unwrap()).lines();
    client.write_all(b"one\n").unwrap();
    assert_eq!(replies.next().unwrap().unwrap(), "1");
    // Somebody deletes the stream's directory under us, the prepared segment too.
    let stream = dir.path().join("default");
    await_that("the deletion", || std::fs::remove_dir_all(&stream).is_ok() || !stream.exists());
    client.write_all(b"two\n").unwrap();
    assert_eq!(replies.next().unwrap().unwrap(), "2", "acknowledged from a new segment in a new directory");
    assert_eq!(server.lines(), [b"two"], "what was deleted is gone, what was acknowledged since is there");
    assert_eq!(server.count("logweir_sync_failures_total", ""), 1.0);
    drop((client, replies));
    assert!(server.stop());
}

#[test]
fn rotation_goes_on_trying_when_no_segment_can_be_made() {
    let dir = scratch();
    let config = [SMALL, "[storage]\nsegment_size = \"64KiB\"\n", &listener("a", "")].concat();
    let mut server = Running::start(dir.path(), &config);
    server.faults.fail(Call::Create, libc::EROFS, u64::MAX);
    let stream = server.connect("a");
    let sent = fill(&stream, "a", 400);
    stream.set_nonblocking(false).unwrap();
    await_that("all written", || server.count("logweir_durable_lines_total", "") == sent as f64);
    server.faults.heal();
    let more = fill(&stream, "a", 1);
    await_that("a rotation", || server.count("logweir_rotations_total", "") >= 1.0);
    drop(stream);
    assert!(server.stop());
    assert_eq!(server.lines().len(), sent + more);
}

#[test]
fn an_end_that_the_disk_does_not_allow_is_not_called_clean() {
    let dir = scratch();
    let config = ["shutdown_timeout = \"300ms\"\n", SMALL, &listener("a", "")].concat();
    let mut server = Running::start(dir.path(), &config);
    server.faults.fail(Call::Append, libc::ENOSPC, u64::MAX);
    common::send_all(server.address("a"), b"never written\n");
    await_that("the disk to be full", || server.count("logweir_disk_full", "") == 1.0);
    assert!(!server.stop());
    assert_eq!(server.count("logweir_dropped_lines_total", "shutdown"), 1.0);
}

/// What becomes of a receive may need more chunks than there are: the rest waits, goes first when there is one, and keeps its order.
#[test]
fn json_that_finds_no_chunk_goes_on_in_order_once_there_is_one() {
    const LINES: usize = 30_000;
    let dir = scratch();
    let config = "[buffer]\nmemory = \"6MiB\"\n[placement]\nshards = 1\nreactors_per_shard = 1\n[stream.default]\nformat = \"json\"\n\
        [listener.counts]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\nmax_line_bytes = \"16KiB\"\n\
        [listener.drops]\naddress = \"tcp://127.0.0.1:0\"\nwhen_full = \"drop_newest\"\nmax_line_bytes = \"16KiB\"\n";
    let mut server = Running::start(dir.path(), config);
    // Long lines, then short ones of which much more becomes than of those before.
    let text = |client: usize| {
        let line =
            |i: usize| format!("{client} {i} {}\n", "x".repeat(if (i / 1000).is_multiple_of(2) { 2000 } else { 0 }));
        (0..LINES).map(line).collect::<String>()
    };
    std::thread::scope(|scope| {
        let counting: Vec<_> = (0..4)
            .map(|client| {
                let (mut stream, text) = (server.connect("counts"), text(client));
                scope.spawn(move || {
                    let answers = BufReader::new(stream.try_clone().unwrap());
                    let sender = std::thread::spawn(move || stream.write_all(text.as_bytes()).map(|()| stream));
                    let mut last = 0;
                    for answer in answers.lines() {
                        last = answer.unwrap().parse().unwrap();
                        if last == LINES {
                            break;
                        }
                    }
                    drop(sender.join().unwrap().unwrap());
                    last
                })
            })
            .collect();
        let dropping = scope.spawn(|| {
            let mut stream = server.connect("drops");
            stream.write_all(text(9).as_bytes()).unwrap();
        });
        for _ in 0..10 {
            server.faults.shut_gate();
            let is_over = || counting.iter().all(std::thread::ScopedJoinHandle::is_finished);
            await_that("no chunk to be free", || is_over() || server.count("logweir_buffer_utilisation", "") == 1.0);
            server.faults.open_gate();
        }
        dropping.join().unwrap();
        assert!(counting.into_iter().all(|c| c.join().unwrap() == LINES), "each has heard of all its lines");
    });
    assert!(server.stop(), "a clean end");
    let mut next = [0; 10];
    for line in server.lines() {
        let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
        let mut words = value["msg"].as_str().unwrap().split(' ').map(|w| w.parse::<usize>().unwrap_or(0));
        let (client, i) = (words.next().unwrap(), words.next().unwrap());
        assert!(i == next[client] || (client == 9 && i > next[client]), "line {i} of {client}, not {}", next[client]);
        next[client] = i + 1;
    }
    assert_eq!(next[..4], [LINES; 4]);
}
