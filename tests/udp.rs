//! UDP: each datagram is a record (`syslog`) or some lines (`lines`), whoever sends it, and what is lost is counted, by the kernel or by us.

mod common;

use common::running::Running;
use common::{Server, await_that, lines_of, scratch};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

/// A server with one listener, on a shard with two reactors.
fn start(dir: &std::path::Path, listener: &str) -> Server {
    let text = format!("[placement]\nshards = 1\nreactors_per_shard = 2\n[listener.udp]\n{listener}");
    Server::with_config(&dir.join("data"), &text)
}

fn senders(to: SocketAddr, count: usize) -> Vec<UdpSocket> {
    let one = |_| {
        let socket = UdpSocket::bind(if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
        socket.connect(to).unwrap();
        socket
    };
    (0..count).map(one).collect()
}

fn send_many(sender: &UdpSocket, count: usize) {
    (0..count).for_each(|_| assert_eq!(sender.send(&[b'x'; 1000]).unwrap(), 1000));
}

fn received(server: &Server) -> f64 {
    server.metrics().sum("logweir_received_lines_total", "")
}

#[test]
fn every_sender_is_heard_whichever_reactor_has_it() {
    for (host, protocol) in [("127.0.0.1", "syslog"), ("[::1]", "syslog"), ("127.0.0.1", "lines")] {
        let dir = scratch();
        let mut server = start(dir.path(), &format!("protocol = \"{protocol}\"\naddress = \"udp://{host}:0\"\n"));
        let mut sent = BTreeSet::new();
        for (number, socket) in senders(server.address("udp"), 16).iter().enumerate() {
            for i in 0..20 {
                let text = format!("<13>Nov 27 10:00:00 host app: {number} {i}");
                socket.send(text.as_bytes()).unwrap();
                sent.insert(text.into_bytes());
            }
        }
        await_that("all datagrams", || received(&server) == 320.0);
        assert!(server.stop().success());
        let out = server.cat();
        let found: BTreeSet<Vec<u8>> = lines_of(&out).into_iter().map(<[u8]>::to_vec).collect();
        assert!(found == sent && lines_of(&out).len() == 320, "{protocol} on {host}");
    }
}

/// One that is longer than a line may be is cut and marked; one of the greatest length there is comes whole.
#[test]
fn datagrams_of_any_length_are_one_record_each() {
    let dir = scratch();
    let listener = "protocol = \"syslog\"\naddress = \"udp://127.0.0.1:0\"\nformat = \"json\"\n";
    let mut server = start(dir.path(), listener);
    let sender = senders(server.address("udp"), 1).remove(0);
    let long = [&b"<13>"[..], &vec![b'x'; 65_507 - 4]].concat();
    for datagram in [&b""[..], b"\n", b"<13>a\nb\n", &long, b"<13>last\0"] {
        sender.send(datagram).unwrap();
    }
    await_that("three messages", || received(&server) == 3.0);
    assert!(server.stop().success());
    let out = server.cat();
    let messages: Vec<serde_json::Value> = lines_of(&out).iter().map(|l| serde_json::from_slice(l).unwrap()).collect();
    let texts: Vec<&str> = messages.iter().map(|m| m["msg"].as_str().unwrap()).collect();
    assert_eq!((texts[0], texts[1].len(), texts[2]), ("a\nb", 65_503, "last"));
    assert_eq!(messages[0]["peer"], sender.local_addr().unwrap().to_string());
}

/// Somebody goes on sending to an address that a reload gives up, without a pause: it is let go all the same.
#[test]
fn a_reload_lets_the_old_address_go_though_somebody_sends_to_it() {
    let dir = scratch();
    let free = || UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (old, new) = (free(), free());
    let config = |at: SocketAddr| {
        format!("[listener.udp]\nprotocol = \"syslog\"\naddress = \"udp://{at}\"\nformat = \"json\"\n")
    };
    let data = dir.path().join("data");
    let mut server = Server::with_config(&data, &config(old));
    let senders = senders(old, 6);
    std::thread::scope(|scope| {
        // They end when the kernel says that nobody is there any more. So many send more than one server takes.
        let all = senders.iter().map(|s| scope.spawn(|| while s.send(b"<13>to the old address").is_ok() {}));
        let all: Vec<_> = all.collect();
        await_that("some datagrams", || received(&server) > 10.0);
        std::fs::write(data.with_extension("toml"), config(new)).unwrap();
        server.signal(nix::sys::signal::Signal::SIGHUP);
        await_that("the old address is let go", || all.iter().all(|sending| sending.is_finished()));
    });
    let before = received(&server);
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"<13>new", new).unwrap();
    await_that("the new address", || received(&server) == before + 1.0);
    assert!(server.stop().success());
}

/// An address whose listener is taken away is nobody's, also where another listener had it before. The next may have it.
#[test]
fn an_address_that_a_reload_takes_away_is_free() {
    for engine in ["epoll", "io_uring"] {
        let dir = scratch();
        let at = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = |listeners: &str| {
            format!(
                "engine = \"{engine}\"\n[placement]\nshards = 1\nreactors_per_shard = 2\n\
             [listener.stays]\nprotocol = \"syslog\"\naddress = \"udp://127.0.0.1:0\"\n{listeners}"
            )
        };
        let with =
            |name: &str| config(&format!("[listener.{name}]\nprotocol = \"syslog\"\naddress = \"udp://{at}\"\n"));
        let data = dir.path().join("data");
        let mut server = Server::with_config(&data, &with("first"));
        let reload = |text: String| {
            std::fs::write(data.with_extension("toml"), text).unwrap();
            server.signal(nix::sys::signal::Signal::SIGHUP);
        };
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        let is_heard = |name: &str| {
            // Until it is there nobody is, so this may fail.
            let _ = sender.send_to(b"<13>is there anybody?", at);
            server.metrics().sum("logweir_received_lines_total", &format!("listener=\"{name}\"")) > 0.0
        };
        await_that("the first", || is_heard("first"));
        reload(with("second"));
        await_that("the second", || is_heard("second"));
        reload(config(""));
        await_that("the address to be free", || UdpSocket::bind(at).is_ok());
        reload(with("third"));
        await_that("the third", || is_heard("third"));
        assert!(server.stop().success());
    }
}

/// A reload gives the address to a listener of another name, while the queues overflow: what was lost is counted by one of the two.
#[test]
fn what_is_lost_while_the_socket_changes_hands_is_counted_once() {
    let dir = scratch();
    let at = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = |name: &str| {
        format!(
            "[placement]\nshards = 1\nreactors_per_shard = 2\n[listener.{name}]\nprotocol = \"syslog\"\n\
             address = \"udp://{at}\"\nreceive_buffer = \"64KiB\"\n"
        )
    };
    let data = dir.path().join("data");
    let server = Server::with_config(&data, &config("u0"));
    let lost = |server: &Server| server.metrics().sum("logweir_lost_datagrams_total", "");
    let (senders, is_over) = (senders(at, 6), AtomicBool::new(false));
    let sent: usize = std::thread::scope(|scope| {
        let send = |sender: &UdpSocket| {
            let sending = std::iter::from_fn(|| (!is_over.load(Ordering::Relaxed)).then(|| sender.send(&[b'x'; 200])));
            sending.filter(Result::is_ok).count()
        };
        let sending: Vec<_> = senders.iter().map(|sender| scope.spawn(move || send(sender))).collect();
        for i in 1..6 {
            let before = lost(&server);
            await_that("more is lost", || lost(&server) > before);
            std::fs::write(data.with_extension("toml"), config(&format!("u{i}"))).unwrap();
            server.signal(nix::sys::signal::Signal::SIGHUP);
            await_that("the next listener", || {
                server.metrics().sum("logweir_received_lines_total", &format!("listener=\"u{i}\"")) > 0.0
            });
        }
        is_over.store(true, Ordering::Relaxed);
        sending.into_iter().map(|sending| sending.join().unwrap()).sum()
    });
    let (mut accounts, mut last) = ((0.0, 0.0), (0.0, -1.0));
    await_that("the account to stand still", || {
        let metrics = server.metrics();
        last = std::mem::replace(&mut accounts, (metrics.sum("logweir_received_lines_total", ""), lost(&server)));
        accounts.0 + accounts.1 >= sent as f64 && accounts == last
    });
    assert_eq!(accounts.0 + accounts.1, sent as f64, "{accounts:?}");
}

/// sent = received + lost before reception. What was received and dropped for want of a buffer is counted among the received.
#[test]
fn what_does_not_fit_into_the_queue_is_counted_exactly() {
    let dir = scratch();
    let listener = "protocol = \"syslog\"\naddress = \"udp://127.0.0.1:0\"\nreceive_buffer = \"64KiB\"\n";
    let mut server = start(dir.path(), listener);
    let to = server.address("udp");
    // A process that is stopped reads nothing: so the queue is certainly full.
    server.signal(nix::sys::signal::Signal::SIGSTOP);
    const SENT: u64 = 5000;
    let sender = senders(to, 1).remove(0);
    for i in 0..SENT {
        sender.send(format!("<13>number {i} {}", "x".repeat(200)).as_bytes()).unwrap();
    }
    server.signal(nix::sys::signal::Signal::SIGCONT);
    let accounts = |server: &Server| {
        let metrics = server.metrics();
        (metrics.sum("logweir_received_lines_total", "") as u64, metrics.sum("logweir_lost_datagrams_total", "") as u64)
    };
    await_that("the account to balance", || {
        let (received, lost) = accounts(&server);
        assert!(received + lost <= SENT);
        received + lost == SENT
    });
    let (received, lost) = accounts(&server);
    assert!(lost > 0 && received > 0, "{received} received, {lost} lost");
    assert!(server.stop().success());
    let out = server.cat();
    let mut numbers: Vec<u64> = Vec::new();
    for line in lines_of(&out) {
        let text = String::from_utf8(line.to_vec()).unwrap();
        numbers.push(text.split(' ').nth(1).unwrap().parse().unwrap());
    }
    assert_eq!(numbers.len() as u64, received);
    assert!(numbers.windows(2).all(|w| w[0] < w[1]), "in the order sent");
}

/// With `block` and all buffers full nobody reads the socket. What the kernel drops meanwhile is counted meanwhile.
#[test]
fn what_is_lost_while_every_buffer_is_full_is_counted() {
    let dir = scratch();
    let config = "[buffer]\nmemory = \"4MiB\"\n[listener.udp]\nprotocol = \"syslog\"\naddress = \"udp://127.0.0.1:0\"\n\
                  receive_buffer = \"64KiB\"\nwhen_full = \"block\"\n";
    let mut server = Running::start(dir.path(), config);
    let sender = senders(server.address("udp"), 1).remove(0);
    server.faults.shut_gate();
    let mut sent = 0;
    await_that("buffers are full", || {
        send_many(&sender, 100);
        sent += 100;
        server.count("logweir_backpressure_events_total", "") > 0.0
    });
    let lost = server.count("logweir_lost_datagrams_total", "");
    send_many(&sender, 1000);
    sent += 1000;
    await_that("the count of those lost", || server.count("logweir_lost_datagrams_total", "") > lost);
    server.faults.open_gate();
    await_that("the account to balance", || {
        let (received, lost) = ("logweir_received_lines_total", "logweir_lost_datagrams_total");
        server.count(received, "") + server.count(lost, "") == f64::from(sent)
    });
    assert!(server.stop());
}

/// A socket takes datagrams as soon as it is bound, and its queue may be full before a reactor looks at it. The first that it gets is
/// received, since its queue is empty then: each from that one on is received or counted. What came before went to the socket with which the
/// server tries whether it can bind, or to nobody.
#[test]
fn what_is_lost_before_the_first_look_is_counted() {
    let dir = scratch();
    // Nobody else may get datagrams of this test for a moment: another address has the same free ports.
    let host = std::net::Ipv4Addr::from(0x7f55_0000 | std::process::id() & 0xffff);
    let at = UdpSocket::bind((host, 0)).unwrap().local_addr().unwrap();
    let listener =
        format!("protocol = \"syslog\"\naddress = \"udp://{at}\"\nreceive_buffer = \"64KiB\"\nwhen_full = \"block\"\n");
    let (sender, is_over) = (senders(at, 1).remove(0), AtomicBool::new(false));
    let (sent, server) = std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let bound = format!(":{:04X} ", at.port());
            await_that("a socket", || std::fs::read_to_string("/proc/net/udp").unwrap().contains(&bound));
            let mut sent = 0u64;
            // At least one when the server is there: on a busy machine this thread may come late.
            loop {
                let is_last = is_over.load(Ordering::Relaxed);
                // An error is of the one before, which nobody was there for.
                let is_sent = sender.send(format!("{sent:0200}").as_bytes()).is_ok();
                sent += u64::from(is_sent);
                if is_last && is_sent {
                    return sent;
                }
            }
        });
        let server = start(dir.path(), &listener);
        is_over.store(true, Ordering::Relaxed);
        (sending.join().unwrap(), server)
    });
    let number = |line: &&[u8]| std::str::from_utf8(line).unwrap().parse::<u64>().unwrap();
    await_that("the account to balance", || {
        let Some(first) = lines_of(&server.cat()).iter().map(number).min() else { return false };
        let metrics = server.metrics();
        let lost = metrics.sum("logweir_lost_datagrams_total", "");
        metrics.sum("logweir_received_lines_total", "") + lost == (sent - first) as f64
    });
}

/// The end of the server is not put off by somebody who does not pause.
#[test]
fn a_sender_that_does_not_pause_does_not_keep_the_server() {
    let dir = scratch();
    let config = "shutdown_timeout = \"1h\"\n[listener.udp]\nprotocol = \"syslog\"\naddress = \"udp://127.0.0.1:0\"\nformat = \"json\"\n";
    let mut server = Server::with_config(&dir.path().join("data"), config);
    let senders = senders(server.address("udp"), 6);
    std::thread::scope(|scope| {
        senders.iter().for_each(|s| drop(scope.spawn(|| while s.send(b"<13>again and again").is_ok() {})));
        await_that("some datagrams", || received(&server) > 10.0);
        server.signal(nix::sys::signal::Signal::SIGTERM);
        await_that("the end", || server.is_gone());
    });
}

/// sent = kept + dropped by the kernel + dropped by us, with numbers that say which.
#[test]
fn the_account_balances_with_what_the_kernel_and_the_server_have_dropped() {
    for engine in ["epoll", "io_uring"] {
        let dir = scratch();
        let config = format!(
            "engine = \"{engine}\"\n[buffer]\nmemory = \"4MiB\"\n[listener.udp]\nprotocol = \"syslog\"\n\
             address = \"udp://127.0.0.1:0\"\nreceive_buffer = \"64KiB\"\n"
        );
        let mut server = Running::start(dir.path(), &config);
        server.faults.shut_gate();
        // Few of these fit into the queue, less than come at once.
        const SENT: usize = 8000;
        let (to, sent) = (server.address("udp").to_string(), SENT.to_string());
        let args = ["bench", "send", "--udp", &to, "-n", &sent, "-c", "4", "-b", "8000", "--sequence"];
        let out = common::logweir(&args);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let count = |name: &str| server.count(name, "") as usize;
        await_that("everything received or lost", || {
            count("logweir_received_lines_total") + count("logweir_lost_datagrams_total") == SENT
        });
        server.faults.open_gate();
        let (lost, dropped) = (count("logweir_lost_datagrams_total"), count("logweir_dropped_lines_total"));
        assert!(lost > 0 && dropped > 0, "{engine}: {lost} lost, {dropped} dropped");
        assert!(server.stop());
        let mut last = BTreeMap::new();
        let lines = server.lines();
        for line in &lines {
            let (sender, number) = logweir::bench::lines::parse_numbered(line).expect("a line as it was sent");
            let before = last.insert(sender, number);
            assert!(before.is_none_or(|before| before < number), "{engine}: each once and in order");
        }
        assert_eq!(lines.len() + lost + dropped, SENT, "{engine}");
    }
}

/// Bytes that each of two reactors has received.
fn bytes_of(server: &Server) -> [u64; 2] {
    [0, 1].map(|reactor| {
        server.metrics().sum("logweir_reactor_received_bytes_total", &format!("reactor=\"{reactor}\"")) as u64
    })
}

/// Two senders that the kernel's hash puts on one reactor.
fn two_on_one(server: &Server) -> (Vec<UdpSocket>, usize) {
    let mut of: [Vec<UdpSocket>; 2] = [Vec::new(), Vec::new()];
    let mut before = bytes_of(server);
    loop {
        let sender = senders(server.address("udp"), 1).remove(0);
        sender.send(b"who has me?").unwrap();
        await_that("one to have it", || bytes_of(server) != before);
        let after = bytes_of(server);
        let reactor = usize::from(after[1] > before[1]);
        of[reactor].push(sender);
        if of[reactor].len() == 2 {
            return (std::mem::take(&mut of[reactor]), reactor);
        }
        before = after;
    }
}

/// Tells the senders that it is over, also where a wait has failed: who waits for them would wait for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Both busy senders at one reactor are too much for it (its queue is short): one of them goes to the other, where all of its datagrams come
/// from then on; and the account holds.
#[test]
fn of_two_busy_senders_at_one_reactor_one_goes_to_the_other() {
    for engine in ["epoll", "io_uring"] {
        let dir = scratch();
        let text = format!(
            "engine = \"{engine}\"\n[placement]\nshards = 1\nreactors_per_shard = 2\n\
             [listener.udp]\nprotocol = \"syslog\"\naddress = \"udp://127.0.0.1:0\"\nreceive_buffer = \"64KiB\"\n"
        );
        let mut server = Server::with_config(&dir.path().join("data"), &text);
        let (senders, theirs) = two_on_one(&server);
        let probes = received(&server) as usize;
        let moved = |server: &Server| server.metrics().sum("logweir_senders_moved_total", "");
        let sent = std::sync::atomic::AtomicUsize::new(0);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (name, sender) in senders.iter().enumerate() {
                let (sent, is_over) = (&sent, &is_over);
                scope.spawn(move || {
                    for number in 0_u64.. {
                        if is_over.load(Ordering::SeqCst) {
                            return;
                        }
                        sender.send(format!("<13>{name} {number} {}", "x".repeat(100)).as_bytes()).unwrap();
                        sent.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            let over = Over(&is_over);
            await_that("one to be moved", || moved(&server) >= 1.0);
            let at_the_move = bytes_of(&server);
            // Both are heard at the same time, each by another.
            await_that("both reactors to receive", || {
                bytes_of(&server).iter().zip(at_the_move).all(|(now, then)| *now > then + 1_000_000)
            });
            drop(over);
        });
        let sent = sent.into_inner() + probes;
        let count = |server: &Server, name: &str| server.metrics().sum(name, "") as usize;
        await_that("the account to balance", || {
            count(&server, "logweir_received_lines_total") + count(&server, "logweir_lost_datagrams_total") == sent
        });
        // Now each is at its own reactor, and all of it comes there in order.
        let before = bytes_of(&server);
        for (name, sender) in senders.iter().enumerate() {
            let more = received(&server) + 10.0;
            (0..10).for_each(|number| {
                sender.send(format!("<13>again-{name} {number}").as_bytes()).unwrap();
            });
            await_that("it to arrive", || received(&server) == more);
        }
        let after = bytes_of(&server);
        assert!(after[0] > before[0] && after[1] > before[1], "{engine}: {before:?} {after:?}, first at {theirs}");
        assert!(server.stop().success());
        let out = server.cat();
        for name in 0..2 {
            let start = format!("<13>again-{name} ");
            let of =
                lines_of(&out).into_iter().filter_map(|line| line.strip_prefix(start.as_bytes()).map(<[u8]>::to_vec));
            let expected: Vec<Vec<u8>> = (0..10).map(|number| number.to_string().into_bytes()).collect();
            assert_eq!(of.collect::<Vec<_>>(), expected, "{engine}: sender {name}");
        }
    }
}

/// The null sink for datagrams, which shows what a bare loop can do.
#[test]
fn the_null_sink_takes_datagrams() {
    let dir = scratch();
    let mut sink = std::process::Command::new(common::BINARY)
        .args(["bench", "null-sink", "--udp", "127.0.0.1:0", "--dir"])
        .arg(dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(sink.stdout.take().unwrap()).lines().map(Result::unwrap);
    let to = said.next().unwrap().rsplit("://").next().unwrap().to_string();
    let start = std::time::Instant::now();
    let out = common::logweir(&["bench", "send", "--udp", &to, "-n", "1000", "--rate", "10000", "-b", "100"]);
    assert!(out.status.success() && start.elapsed().as_millis() >= 90, "at its pace: {out:?}");
    // Cut up by the kernel.
    let out =
        common::logweir(&["bench", "send", "--udp", &to, "-n", "1000", "--segments", "-b", "100", "--rate", "50000"]);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(said.next().unwrap(), "null sink datagrams=2000 newlines=2000 bytes=200000 lost=0");
    assert!(sink.wait().unwrap().success());
    assert_eq!(std::fs::metadata(dir.path().join("null-sink.log")).unwrap().len(), 200_000);
    // Its end is noticed.
    let out = common::logweir(&["bench", "send", "--udp", &to, "-n", "1000"]);
    assert!(!out.status.success() && String::from_utf8_lossy(&out.stderr).contains("nobody listens there"));
}

/// A socket that has no line to send sends no datagram, also where the kernel cuts them.
#[test]
fn fewer_lines_than_sockets_send_no_empty_datagrams() {
    let at = UdpSocket::bind("127.0.0.1:0").unwrap();
    at.set_nonblocking(true).unwrap();
    let to = at.local_addr().unwrap().to_string();
    for more in [&["-c", "5"][..], &["-c", "5", "-t", "2", "--segments"], &["-c", "1", "-t", "3", "--segments"]] {
        let args = ["bench", "send", "--udp", &to, "-n", "2", "-b", "100"];
        let out = common::logweir(&[&args[..], more].concat());
        assert!(out.status.success(), "{out:?}");
        let mut lengths = Vec::new();
        while let Ok(len) = at.recv(&mut [0; 1000]) {
            lengths.push(len);
        }
        assert_eq!(lengths, [100, 100], "{more:?}");
    }
}

#[test]
fn a_group_is_joined() {
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    if let Err(error) = probe.join_multicast_v4(&[239, 255, 42, 17].into(), &[0, 0, 0, 0].into()) {
        return common::skipped("a_group_is_joined", &format!("no device for groups: {error}"));
    }
    let dir = scratch();
    let mut server = start(dir.path(), "protocol = \"syslog\"\naddress = \"udp://239.255.42.17:0\"\n");
    // Not from the loopback device, which carries no groups everywhere.
    let sender = UdpSocket::bind("0.0.0.0:0").unwrap();
    let to = server.address("udp");
    if let Err(error) = sender.send_to(b"<13>to all", to) {
        return common::skipped("a_group_is_joined", &format!("no way to {to}: {error}"));
    }
    if !common::is_awaited(|| received(&server) >= 1.0) {
        return common::skipped("a_group_is_joined", "what is sent to a group does not come back here");
    }
    assert!(server.stop().success());
    assert_eq!(server.cat(), b"<13>to all\n");
}

#[test]
fn what_makes_no_sense_over_udp_is_refused() {
    let dir = scratch();
    for (keys, expected) in [
        ("protocol = \"http\"\naddress = \"udp://127.0.0.1:0\"", "http needs tcp://"),
        ("reply = \"count\"\naddress = \"udp://127.0.0.1:0\"", "nothing can be sent back over udp://127.0.0.1:0"),
        ("tls_cert = \"x\"\ntls_key = \"y\"\naddress = \"udp://127.0.0.1:0\"", "TLS needs tcp:// or unix://"),
        ("proxy_protocol = \"required\"\naddress = \"udp://127.0.0.1:0\"", "a PROXY header needs tcp:// or unix://"),
        ("receive_buffer = \"1MiB\"\naddress = \"tcp://127.0.0.1:0\"", "this belongs to udp:// addresses"),
        ("address = \"udp://localhost\"", "is not udp://IP:PORT"),
    ] {
        let file = dir.path().join("c.toml");
        std::fs::write(&file, format!("[listener.u]\n{keys}\n")).unwrap();
        let out = common::logweir(&["check", "--config-only", "--config", file.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
        assert!(out.status.code() == Some(78) && said.contains(expected), "{keys}: {said}");
    }
}
