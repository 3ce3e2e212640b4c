//! Which engine a server takes, and why: where io_uring is forbidden, short of memory, or asked for by name.

mod common;

use common::{BINARY, Server, await_that, scratch, send_all};
use seccompiler::{SeccompAction, SeccompFilter};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

/// Runs `body` in a thread in which every process that it starts gets `errno` from the io_uring system calls.
fn without_io_uring<T: Send>(errno: i32, body: impl FnOnce() -> T + Send) -> T {
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let arch = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno as u32), arch).unwrap();
    let program: seccompiler::BpfProgram = filter.try_into().unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            seccompiler::apply_filter(&program).unwrap();
            body()
        });
        thread.join().unwrap()
    })
}

fn takes_lines(server: &Server) {
    send_all(server.address("lines"), b"one\ntwo\n");
    await_that("both lines", || server.cat() == b"one\ntwo\n");
}

#[test]
fn where_io_uring_is_forbidden_auto_takes_epoll_and_says_why() {
    for (errno, reason) in [(libc::EPERM, "not permitted"), (libc::ENOSYS, "kernel too old")] {
        let dir = scratch();
        let data = dir.path().join("data");
        let server = without_io_uring(errno, || Server::start(&data, &["--set", "engine=auto"]));
        assert!(server.introduction.contains("epoll (io_uring does not work here: "), "{}", server.introduction);
        assert_eq!(server.metrics().sum("logweir_engine_info", &format!("engine=\"epoll\",reason=\"{reason}\"")), 1.0);
        takes_lines(&server);
    }
}

#[test]
fn io_uring_by_name_and_forbidden_is_refused_with_the_reason() {
    let dir = scratch();
    let data = dir.path().join("data");
    let output = without_io_uring(libc::EPERM, || {
        let args = ["serve", "--admin", "off", "--listen", "tcp://127.0.0.1:0", "--set", "engine=io_uring"];
        Command::new(BINARY).args(args).arg("--data-dir").arg(&data).output().unwrap()
    });
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("engine = \"io_uring\" does not work here: io_uring_setup"), "{error}");
    assert!(error.contains("Operation not permitted") && error.contains("set engine ="), "{error}");
}

#[test]
fn each_engine_by_name_is_the_one_that_runs() {
    for engine in ["epoll", "io_uring"] {
        let dir = scratch();
        let server = Server::start(&dir.path().join("data"), &["--set", &format!("engine={engine}")]);
        assert!(server.introduction.contains(&format!("engine       {engine}, ")), "{}", server.introduction);
        assert_eq!(server.metrics().sum("logweir_engine_info", &format!("engine=\"{engine}\"")), 1.0);
        takes_lines(&server);
    }
}

/// As a service without privileges and with little lockable memory: none at all, and enough for the probe but not for the rings
/// of 64 reactors. It starts with either engine, and says which.
#[test]
fn a_small_memlock_limit_is_no_reason_not_to_start() {
    for (memlock, reactors) in [("4096", "1"), ("2097152", "64")] {
        let dir = tempfile::tempdir().unwrap(); // every user may enter /tmp
        std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534)).unwrap();
        let data = dir.path().join("data");
        let limit = format!("--memlock={memlock}");
        let unprivileged = [&limit, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
        let binary = dir.path().join("logweir");
        std::fs::copy(BINARY, &binary).unwrap();
        let reactors = format!("placement.reactors_per_shard={reactors}");
        let args = ["--set", "engine=auto", "--set", &reactors, "--set", "buffer.memory=256MiB"];
        let server = Server::start_with(&data, &args, Stdio::null(), |command| {
            let rest: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
            *command = Command::new("prlimit");
            command.args(unprivileged).arg(binary).args(rest);
        });
        let metrics = server.metrics();
        assert_eq!(metrics.sum("logweir_engine_info", ""), 1.0);
        let is_ring = metrics.sum("logweir_engine_info", "engine=\"io_uring\"") == 1.0;
        assert_eq!(is_ring, server.introduction.contains("engine       io_uring"), "{}", server.introduction);
        assert!(is_ring || server.introduction.contains("io_uring does not work here"), "{}", server.introduction);
        takes_lines(&server);
    }
}

/// More than a multishot receive brings at once lies unread in the sockets when SIGTERM comes. Over Unix sockets: what was
/// written to one is in the receiver's queue.
#[test]
fn what_lies_in_the_sockets_at_sigterm_is_taken_in() {
    let line = [vec![b'x'; 31_999], vec![b'\n']].concat();
    for engine in ["epoll", "io_uring"] {
        for round in 0..10 {
            let dir = scratch();
            let (data, path) = (dir.path().join("data"), dir.path().join("s"));
            let listen = format!("unix://{}", path.display());
            let mut server = Server::start(&data, &["--listen", &listen, "--set", &format!("engine={engine}")]);
            let mut clients: Vec<_> = (0..8).map(|_| UnixStream::connect(&path).unwrap()).collect();
            await_that("all inside", || server.metrics().sum("logweir_connections", "") == 8.0);
            // Stopped, the server reads nothing: everything waits in the kernel.
            server.signal(nix::sys::signal::Signal::SIGSTOP);
            for client in &mut clients {
                client.set_nonblocking(true).unwrap();
                (0..5).for_each(|_| assert_eq!(client.write(&line).unwrap(), line.len()));
            }
            server.signal(nix::sys::signal::Signal::SIGTERM);
            server.signal(nix::sys::signal::Signal::SIGCONT);
            assert!(server.wait().success());
            assert_eq!(common::cat(&data).len(), 8 * 5 * line.len(), "{engine}, round {round}");
        }
    }
}
