//! Under a service manager: what it is told, the watchdog, sockets that it passes, and a restart that refuses nobody.

mod common;

use common::manager::Manager;
use common::{Server, await_that, lines_of, scratch, send_all};
use nix::sys::signal::Signal;
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[test]
fn the_manager_hears_of_start_reload_and_end() {
    let dir = scratch();
    let manager = Manager::new(dir.path());
    let mut server = manager.start(&dir.path().join("data"), &["--listen", "tcp://127.0.0.1:0"], &[], &[]);
    manager.await_more("READY=1", 0);
    let said = manager.said();
    let at =
        |state: &str| said.iter().position(|s| s.starts_with(state)).unwrap_or_else(|| panic!("{state}: {said:?}"));
    assert!(at("STATUS=recovering") < at("READY=1"), "{said:?}");
    server.signal(Signal::SIGHUP);
    manager.await_more("READY=1", 1);
    let said = manager.said();
    let reloading = said.iter().position(|s| s == "RELOADING=1").unwrap();
    assert!(said[reloading + 1].starts_with("MONOTONIC_USEC="), "{said:?}");
    assert!(server.stop().success());
    await_that("STOPPING=1", || manager.count("STOPPING=1") == 1);
}

/// Sends a line and waits for its count.
fn counted(stream: &TcpStream, line: &str) -> bool {
    let mut answer = String::new();
    (&*stream).write_all(line.as_bytes()).is_ok()
        && BufReader::new(stream).read_line(&mut answer).is_ok_and(|_| answer == "1\n")
}

#[test]
fn the_watchdog_is_fed_while_every_thread_answers() {
    let dir = scratch();
    let manager = Manager::new(dir.path());
    let environment = [("WATCHDOG_USEC", "200000")];
    let server = manager.start(&dir.path().join("data"), &["--listen", "tcp://127.0.0.1:0"], &[], &environment);
    // Idle, at work, and idle again: sleeping threads are woken to answer.
    let fed = || manager.count("WATCHDOG=1");
    await_that("idle", || fed() > 5);
    let before = fed();
    while fed() < before + 5 {
        send_all(server.address("lines"), b"a line\n");
    }
    await_that("idle again", || fed() > before + 10);
    let status = manager.said().into_iter().rfind(|s| s.starts_with("STATUS=")).unwrap();
    assert!(status.contains("lines received"), "{status}");
}

#[test]
fn sockets_from_the_manager_are_served_by_name_or_address() {
    let dir = scratch();
    let manager = Manager::new(dir.path());
    let (by_name, by_address) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (first, second) = (by_name.local_addr().unwrap(), by_address.local_addr().unwrap());
    let (stream, datagram) = (dir.path().join("stream"), dir.path().join("datagram"));
    let sockets = [
        ("named", by_name.into()),
        ("logweir.socket", by_address.into()),
        ("logweir.socket", UnixListener::bind(&stream).unwrap().into()),
        ("logweir.socket", UnixDatagram::bind(&datagram).unwrap().into()),
    ];
    let config = format!(
        "[listener.named]\naddress = \"tcp://127.0.0.1:1\"\n[listener.b]\naddress = \"tcp://{second}\"\n\
         [listener.c]\naddress = \"unix://{}\"\n[listener.d]\naddress = \"unixgram://{}\"\n",
        stream.display(),
        datagram.display()
    );
    let file = dir.path().join("logweir.toml");
    std::fs::write(&file, config).unwrap();
    let mut server = manager.start(&dir.path().join("data"), &["--config", file.to_str().unwrap()], &sockets, &[]);
    assert_eq!(server.address("named"), first, "privileged ports come this way");
    send_all(first, b"by name\n");
    send_all(second, b"by address\n");
    UnixStream::connect(&stream).unwrap().write_all(b"by stream\n").unwrap();
    UnixDatagram::unbound().unwrap().send_to(b"by datagram\n", &datagram).unwrap();
    await_that("four lines", || lines_of(&server.cat()).len() == 4);
    assert!(server.stop().success());
    assert!(stream.exists() && datagram.exists(), "the manager's files are the manager's");
}

/// A counting client: one connection for each line, until told to stop. Lines that were acknowledged, and refusals.
fn counting_client(
    name: usize,
    address: SocketAddr,
    stop: &AtomicBool,
    acked: &Mutex<HashSet<String>>,
) -> (usize, usize) {
    let (mut refused, mut unanswered) = (0, 0);
    for number in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let line = format!("{name}-{number}");
        match TcpStream::connect(address) {
            Err(_) => refused += 1,
            Ok(stream) if counted(&stream, &format!("{line}\n")) => {
                acked.lock().unwrap().insert(line);
            }
            Ok(_) => unanswered += 1, // to be sent again, as any client with acknowledgements does
        }
    }
    (refused, unanswered)
}

fn restart_under_load(engine: &str) {
    const RESTARTS: usize = 5;
    let dir = scratch();
    let manager = Manager::new(dir.path());
    let file = dir.path().join("logweir.toml");
    let config =
        "[placement]\nreactors_per_shard = 2\n[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\n";
    std::fs::write(&file, config).unwrap();
    let set = format!("engine=\"{engine}\"");
    let args = ["--config", file.to_str().unwrap(), "--set", &set];
    let data = dir.path().join("data");
    let start = |data: &Path| manager.start(data, &args, &[], &[]);
    let mut server = start(&data);
    await_that("both reactors' sockets and the admin's are kept", || manager.kept() == ["@@admin", "@lines", "@lines"]);
    let (address, admin) = (server.address("lines"), server.admin);
    let (stop, acked, probes) = (AtomicBool::new(false), Mutex::new(HashSet::new()), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|n| {
                scope.spawn({
                    let (stop, acked) = (&stop, &acked);
                    move || counting_client(n, address, stop, acked)
                })
            })
            .collect();
        let prober = scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                let stream = TcpStream::connect(admin.unwrap()).expect("probes are not refused either");
                probes.fetch_add(1, Ordering::SeqCst);
                drop(stream);
                std::thread::park_timeout(std::time::Duration::from_millis(1));
            }
        });
        for _ in 0..RESTARTS {
            let before = acked.lock().unwrap().len();
            await_that("progress", || acked.lock().unwrap().len() > before + 50);
            assert!(server.stop().success(), "everything that was received is durable");
            server = start(&data);
            assert_eq!(server.address("lines"), address);
        }
        let before = acked.lock().unwrap().len();
        await_that("progress", || acked.lock().unwrap().len() > before + 50);
        stop.store(true, Ordering::SeqCst);
        prober.join().unwrap();
        let counts: Vec<(usize, usize)> = clients.into_iter().map(|c| c.join().unwrap()).collect();
        let (refused, unanswered) = counts.iter().fold((0, 0), |(r, u), (a, b)| (r + a, u + b));
        assert_eq!(refused, 0, "of {} connections", acked.lock().unwrap().len());
        println!("{engine}: {} acknowledged, {unanswered} to be sent again, 0 refused", acked.lock().unwrap().len());
    });
    assert!(server.stop().success());
    let text = String::from_utf8(common::cat(&data)).unwrap();
    let there: HashSet<&str> = text.lines().collect();
    let lost: Vec<String> = acked.into_inner().unwrap().into_iter().filter(|l| !there.contains(l.as_str())).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

#[test]
fn a_restart_under_load_refuses_nobody_epoll() {
    restart_under_load("epoll");
}

#[test]
fn a_restart_under_load_refuses_nobody_io_uring() {
    restart_under_load("auto");
}

#[test]
fn a_listener_that_a_reload_removes_is_kept_no_more() {
    let dir = scratch();
    let manager = Manager::new(dir.path());
    let file = dir.path().join("logweir.toml");
    let one = "[listener.a]\naddress = \"tcp://127.0.0.1:0\"\n";
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    std::fs::write(
        &file,
        format!("[placement]\nreactors_per_shard = 1\n{one}[listener.b]\naddress = \"tcp://{port}\"\n"),
    )
    .unwrap();
    let server: Server = manager.start(&dir.path().join("data"), &["--config", file.to_str().unwrap()], &[], &[]);
    await_that("three", || manager.kept() == ["@@admin", "@a", "@b"]);
    std::fs::write(&file, format!("[placement]\nreactors_per_shard = 1\n{one}")).unwrap();
    server.signal(Signal::SIGHUP);
    await_that("two", || manager.kept() == ["@@admin", "@a"]);
    await_that("nobody listens", || TcpStream::connect(port).is_err());
}

#[test]
fn a_restart_takes_a_new_address_over_and_lets_the_old_one_go() {
    let dir = scratch();
    let manager = Manager::new(dir.path());
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (old, new) = (free(), free());
    let start = |address: SocketAddr| {
        let listen = format!("tcp://{address}");
        manager.start(
            &dir.path().join("data"),
            &["--listen", &listen, "--set", "placement.reactors_per_shard=1"],
            &[],
            &[],
        )
    };
    let mut server = start(old);
    await_that("kept", || manager.kept() == ["@@admin", "@lines"]);
    assert!(server.stop().success());
    let server = start(new);
    assert_eq!(server.address("lines"), new);
    await_that("the new one is kept, the old one is not", || manager.kept() == ["@@admin", "@lines"]);
    await_that("nobody listens at the old one", || TcpStream::connect(old).is_err());
    send_all(new, b"a line\n");
    await_that("the line", || server.cat() == b"a line\n");
}

#[test]
fn a_kept_socket_file_goes_with_its_listener() {
    let dir = scratch();
    let manager = Manager::new(dir.path());
    let (data, file, path) = (dir.path().join("data"), dir.path().join("logweir.toml"), dir.path().join("data/u.sock"));
    let tcp = "[listener.t]\naddress = \"tcp://127.0.0.1:0\"\n";
    let unix =
        |mode: &str| format!("{tcp}[listener.u]\naddress = \"unix://{}\"\nsocket_mode = \"{mode}\"\n", path.display());
    let start = || manager.start(&data, &["--config", file.to_str().unwrap()], &[], &[]);
    std::fs::write(&file, unix("0600")).unwrap();
    let mut server = start();
    await_that("kept", || manager.kept().contains(&"@u".to_string()));
    assert!(server.stop().success());
    assert!(path.exists(), "whoever connects now waits in the queue");
    std::fs::write(&file, unix("0666")).unwrap();
    let server = start();
    let mode = |m: std::fs::Metadata| std::os::unix::fs::PermissionsExt::mode(&m.permissions()) & 0o777;
    assert_eq!(mode(std::fs::metadata(&path).unwrap()), 0o666);
    UnixStream::connect(&path).unwrap().write_all(b"after the restart\n").unwrap();
    await_that("the line", || server.cat() == b"after the restart\n");
    std::fs::write(&file, unix("0640")).unwrap();
    server.signal(Signal::SIGHUP);
    await_that("its mode", || mode(std::fs::metadata(&path).unwrap()) == 0o640);
    std::fs::write(&file, tcp).unwrap();
    server.signal(Signal::SIGHUP);
    await_that("the file to go", || !path.exists());
    await_that("nor is it kept", || !manager.kept().contains(&"@u".to_string()));
}

/// The kernel takes the rings of a killed process down a little later than the process, and their sockets listen until then.
#[test]
fn a_killed_server_starts_again_at_once_on_the_same_addresses() {
    let dir = scratch();
    let (data, socket, gram) = (dir.path().join("data"), dir.path().join("s"), dir.path().join("g"));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "[listener.tcp]\naddress = \"tcp://127.0.0.1:{port}\"\n[listener.udp]\naddress = \"udp://127.0.0.1:{port}\"\n\
         [listener.unix]\naddress = \"unix://{}\"\n[listener.gram]\naddress = \"unixgram://{}\"\n",
        socket.display(),
        gram.display()
    );
    let mut server = Server::with_config(&data, &config);
    for _ in 0..5 {
        let clients: Vec<TcpStream> = (0..50).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
        let _local = UnixStream::connect(&socket).unwrap();
        server.kill();
        server = Server::with_config(&data, &config);
        drop(clients);
    }
    assert!(server.stop().success());
}
