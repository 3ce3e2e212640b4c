//! Clients that break off, hang or say nothing.

use crate::common::ledger::{self, Memory, Watch, row, times};
use crate::common::{Server, await_that, scratch};
use crate::load::{accounts, config, mixed, under_load};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// From one of many addresses of this machine, so that ports do not run out.
fn connect_from(last: u32, to: SocketAddr) -> TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let from = Ipv4Addr::from(0x7f00_0100 + last % 250 + 1);
    socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// Resets in the middle of lines and bodies, lines that come a byte at a time, peers that fall silent in the middle: none of it
/// becomes a line, and every descriptor comes back.
#[test]
fn fragments_never_become_lines_and_descriptors_come_back() {
    let dir = scratch();
    let (data, path) = (dir.path().join("data"), dir.path().join("logweir.toml"));
    for engine in crate::load::ENGINES {
        let mut text = config(engine, "auto", "durable", "segment_size = \"2MiB\"\n");
        for (old, new) in [
            ("max_connections = 64", "max_connections = 600"),
            ("reply = \"count\"\n", "reply = \"count\"\nline_timeout = \"700ms\"\n"),
            ("[listener.plain]\n", "[listener.plain]\nline_timeout = \"700ms\"\n"),
            ("protocol = \"http\"\n", "protocol = \"http\"\nbody_timeout = \"700ms\"\n"),
        ] {
            assert!(text.contains(old));
            text = text.replace(old, new);
        }
        std::fs::write(&path, text).unwrap();
        let clients = mixed(900);
        let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
        let watch = Watch::over(server.admin.unwrap(), server.pid());
        let rounds = times("LOGWEIR_FRAGMENTS", 60);
        let before = under_load(&mut server, &clients, |server| {
            await_that("a beginning", || accounts(&clients).all(|a| a.acked() > 50));
            let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
            let baseline = descriptors();
            let mut silent = Vec::new();
            for round in 0..rounds {
                let listener = ["lines", "web", "plain"][round as usize % 3];
                let mut stream = connect_from(round as u32, server.address(listener));
                if listener == "web" {
                    let _ = stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n");
                }
                let _ = stream.write_all(b"c=77777 n=0000000000 crc=00000000 the beginning of a line that never ends");
                match round / 3 % 3 {
                    0 => {
                        // RST: whatever of it was not read yet is gone too.
                        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                        drop(stream);
                    }
                    // Peers that are gone without a word, as far as the server can tell.
                    1 => silent.push(stream),
                    // And some that send a byte now and then.
                    _ => {
                        let slow = stream.try_clone().unwrap();
                        silent.push(stream);
                        std::thread::spawn(move || {
                            while (&slow).write_all(b"x").is_ok() {
                                ledger::pass(Duration::from_millis(50));
                            }
                        });
                    }
                }
            }
            for mut stream in silent {
                stream.set_read_timeout(Some(crate::common::PATIENCE)).unwrap();
                // 408 for HTTP, and the end for all of them.
                let mut rest = Vec::new();
                if let Err(e) = stream.read_to_end(&mut rest) {
                    assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset, "ended by the deadline");
                }
            }
            await_that("the descriptors", || descriptors() <= baseline);
            ledger::acked_now(accounts(&clients))
        });
        let watched = watch.end();
        let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
        assert!(server.stop().success());
        let found = ledger::check(&data, accounts(&clients), &before);
        found.must_be_clean(engine);
        ledger::clear(&data);
        let note = format!("RST, silence, a byte at a time; {} scrapes balance", watched.scrapes);
        row("fragments", &format!("{rounds} peers, {engine}"), 1, &found, None, &note);
    }
}

/// In a process of its own: opens so many connections, says so, and holds them until its input ends.
#[test]
fn holds_connections_for_another_test() {
    let Ok(what) = std::env::var("LOGWEIR_HOLD") else { return };
    let words: Vec<&str> = what.split(' ').collect();
    let (to, many, first): (SocketAddr, u32, u32) =
        (words[0].parse().unwrap(), words[1].parse().unwrap(), words[2].parse().unwrap());
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let held: Vec<TcpStream> = (0..many).map(|i| connect_from(first + i, to)).collect();
    println!("\nHOLDING {}", held.len());
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

fn holder(to: SocketAddr, many: u32, first: u32) -> Child {
    let name = "clients::holds_connections_for_another_test";
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("LOGWEIR_HOLD", format!("{to} {many} {first}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// As many idle connections as asked for, beside busy ones; what each of them takes.
#[test]
fn idle_connections_take_little_and_disturb_nobody() {
    let dir = scratch();
    let (data, path) = (dir.path().join("data"), dir.path().join("logweir.toml"));
    let many = times("LOGWEIR_IDLE", 600);
    for engine in crate::load::ENGINES {
        let text = config(engine, "auto", "durable", "segment_size = \"16MiB\"\n");
        std::fs::write(&path, text.replace("max_connections = 64", &format!("max_connections = {}", many + 100)))
            .unwrap();
        let clients = mixed(900);
        let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
        let cap = ledger::memory_cap(&server.introduction);
        let watch = Watch::over(server.admin.unwrap(), server.pid());
        let address = server.address("plain");
        let mut note = String::new();
        let before = under_load(&mut server, &clients, |server| {
            await_that("a beginning", || accounts(&clients).all(|a| a.acked() > 500));
            let memory = Memory::of(server.pid()).unwrap().own_kib;
            let mut holders: Vec<Child> = Vec::new();
            let (mut left, mut first) = (many as u32, 0);
            while left > 0 {
                let these = left.min(4500);
                holders.push(holder(address, these, first));
                (left, first) = (left - these, first + these);
            }
            for holder in &mut holders {
                let lines = BufReader::new(holder.stdout.as_mut().unwrap()).lines();
                assert!(lines.map_while(Result::ok).any(|l| l.starts_with("HOLDING")), "a holder ended");
            }
            await_that("all inside", || {
                server.metrics().sum("logweir_connections", "") >= (many as usize + clients.len()) as f64
            });
            let now = ledger::acked_now(accounts(&clients));
            await_that("the busy ones go on", || accounts(&clients).all(|a| a.acked() > now[&a.connection] + 1000));
            let with = Memory::of(server.pid()).unwrap().own_kib;
            note = format!("{} bytes of memory for each idle connection", (with.saturating_sub(memory) << 10) / many);
            for holder in &mut holders {
                drop(holder.stdin.take());
                holder.wait().unwrap();
            }
            await_that("all gone", || server.metrics().sum("logweir_connections", "") <= clients.len() as f64);
            ledger::acked_now(accounts(&clients))
        });
        let memory = watch.end().memory;
        assert!(memory.own_kib << 10 <= cap, "{memory:?} of {cap}");
        let mut server = Server::start(&data, &["--config", path.to_str().unwrap()]);
        assert!(server.stop().success());
        let found = ledger::check(&data, accounts(&clients), &before);
        found.must_be_clean(engine);
        ledger::clear(&data);
        let who = format!("{many} beside {} busy ones, {engine}", clients.len());
        row("idle connections", &who, 1, &found, Some((memory, cap)), &note);
    }
}
