//! What the server takes away from itself, as the kernel shows it, and what a reload then says.

mod common;

use common::{Server, await_that, lines_of, scratch, send_all};
use nix::sys::signal::Signal;
use std::process::Stdio;

/// The value of a key in every thread's status.
fn of_threads(server: &Server, key: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid())).unwrap();
    let value = |task: std::fs::DirEntry| {
        // A thread that ends meanwhile is none.
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let line = status.lines().find(|l| l.split(':').next() == Some(key))?;
        Some(line.split_whitespace().nth(1)?.to_string())
    };
    tasks.filter_map(|task| value(task.ok()?)).collect()
}

#[test]
fn every_thread_is_confined_with_both_engines() {
    for engine in ["epoll", "auto"] {
        let dir = scratch();
        let set = format!("engine=\"{engine}\"");
        let mut server = Server::start(&dir.path().join("data"), &["--set", &set]);
        assert!(server.introduction.contains("system calls filtered (seccomp)"), "{}", server.introduction);
        assert!(of_threads(&server, "Seccomp").iter().all(|v| v == "2"), "{:?}", of_threads(&server, "Seccomp"));
        assert!(of_threads(&server, "NoNewPrivs").iter().all(|v| v == "1"));
        assert!(of_threads(&server, "Seccomp").len() >= 5);
        send_all(server.address("lines"), b"a line\n");
        await_that("the line", || lines_of(&server.cat()).len() == 1);
        assert!(server.stop().success());
    }
}

#[test]
fn it_can_be_left_out() {
    let dir = scratch();
    for change in ["--no-sandbox", "LOGWEIR_NO_SANDBOX"] {
        let args: &[&str] = if change.starts_with("--") { &[change] } else { &[] };
        let server = Server::start_with(&dir.path().join("data"), args, Stdio::null(), |command| {
            command.env("LOGWEIR_NO_SANDBOX", if args.is_empty() { "1" } else { "" });
        });
        assert!(server.introduction.contains("sandbox      none"), "{}", server.introduction);
        assert!(of_threads(&server, "Seccomp").iter().all(|v| v == "0"));
    }
}

#[test]
fn pinned_threads_and_file_modes_work_confined() {
    let dir = scratch();
    for io in ["append", "dontcache", "direct"] {
        let set = [format!("storage.io=\"{io}\""), "placement.pin=[0, 1]".to_string()];
        let server = Server::start(&dir.path().join(io), &["--set", &set[0], "--set", &set[1]]);
        // Each thread sees to it itself, at its start.
        await_that("pinned threads", || {
            let allowed = of_threads(&server, "Cpus_allowed_list");
            ["0", "1"].iter().all(|cpu| allowed.iter().any(|list| list == cpu))
        });
        send_all(server.address("lines"), &b"x\n".repeat(100_000));
        await_that("the lines", || server.cat().len() == 200_000);
    }
}

#[test]
fn a_reload_that_needs_other_paths_says_that_a_restart_is_needed() {
    let dir = scratch();
    let (config, log, elsewhere) = (dir.path().join("etc"), dir.path().join("log"), scratch());
    std::fs::create_dir(&config).unwrap();
    let file = config.join("logweir.toml");
    let lines = "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\n";
    std::fs::write(&file, lines).unwrap();
    let server =
        Server::start_with(&dir.path().join("data"), &["--config", file.to_str().unwrap()], Stdio::null(), |command| {
            command.stderr(std::fs::File::create(&log).unwrap());
        });
    if !server.introduction.contains("Landlock)") {
        return common::skipped("a_reload_that_needs_other_paths", "no Landlock here");
    }
    let reload = |text: &str, what: &str| {
        std::fs::write(&file, text).unwrap();
        server.signal(Signal::SIGHUP);
        await_that(what, || std::fs::read_to_string(&log).unwrap().contains(what));
    };
    let unix = format!("{lines}[listener.u]\naddress = \"unix://{}/s\"\n", elsewhere.path().display());
    reload(&unix, "listener.u (its socket is in a directory that was not configured at the start)");
    let tls = format!("{lines}tls_cert = \"{0}/c.pem\"\ntls_key = \"{0}/k.pem\"\n", elsewhere.path().display());
    reload(&tls, "listener.lines (its certificate is in a directory that was not configured at the start)");
    // Without being asked beforehand, the kernel refuses: a stream's directory that leads elsewhere.
    std::os::unix::fs::symlink(elsewhere.path(), server.data_dir.join("away")).unwrap();
    let away = format!("{lines}[listener.b]\naddress = \"tcp://127.0.0.1:0\"\nstream = \"away\"\n");
    reload(&away, "Permission denied");
    assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    send_all(server.address("lines"), b"a line\n");
    await_that("the line", || {
        common::logweir(&["cat", "-s", "default", "-d", server.data_dir.to_str().unwrap()]).stdout == b"a line\n"
    });
}
