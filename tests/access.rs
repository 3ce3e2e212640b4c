//! Who may read the files and write to the sockets: modes, groups, owners; and sockets that somebody has removed.

mod common;

use common::{BINARY, Server, await_that, scratch, skipped};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, geteuid};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o777
}

fn group(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().gid()
}

/// A group beside our own, by name and number; root may give files to any.
fn another_group() -> Option<(String, u32)> {
    let other = nix::unistd::Group::from_name("daemon").ok()??;
    geteuid().is_root().then_some((other.name, other.gid.as_raw()))
}

#[test]
fn a_socket_has_the_mode_group_and_owner_that_it_should() {
    let test = "a_socket_has_the_mode_group_and_owner_that_it_should";
    let Some((name, number)) = another_group() else { return skipped(test, "root may give files to others") };
    let dir = scratch();
    let (data, stream, gram) = (dir.path().join("data"), dir.path().join("s"), dir.path().join("g"));
    let config = |extra: &str| {
        format!(
            "[listener.s]\naddress = \"unix://{}\"\nsocket_group = \"{name}\"\n{extra}[listener.g]\naddress = \"unixgram://{}\"\n\
             socket_mode = \"0620\"\nsocket_group = \"{number}\"\nsocket_owner = \"{name}\"\n",
            stream.display(),
            gram.display()
        )
    };
    let server = Server::with_config(&data, &config(""));
    assert_eq!((mode(&stream), group(&stream)), (0o660, number));
    assert_eq!((mode(&gram), group(&gram)), (0o620, number));
    let daemon = nix::unistd::User::from_name("daemon").unwrap().unwrap().uid.as_raw();
    assert_eq!(std::fs::metadata(&gram).unwrap().uid(), daemon);
    // Over a reload, by name as well, in the sandbox.
    std::fs::write(
        data.with_extension("toml"),
        config("socket_mode = \"0600\"\n").replace(&format!("\"{number}\""), "\"root\""),
    )
    .unwrap();
    server.signal(Signal::SIGHUP);
    await_that("the new mode", || mode(&stream) == 0o600);
    await_that("the new group", || group(&gram) == 0 && mode(&gram) == 0o620);
    assert_eq!(group(&stream), number);
    let output = common::logweir(&[
        "check",
        "--config-only",
        "--set",
        "listener.s.address=unix:///x/s",
        "--set",
        "listener.s.socket_group=nowhere",
    ]);
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("this host has no group \"nowhere\""), "{said}");
}

/// Everything below the data directory: segments, trails, sealed and compressed ones, state.
fn all_below(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if std::fs::symlink_metadata(&path).unwrap().is_dir() {
            all_below(&path, found);
        }
        found.push(path);
    }
}

#[test]
fn files_and_directories_are_for_others_too() {
    let dir = scratch();
    let data = dir.path().join("data");
    let other = another_group();
    let number = other.as_ref().map_or(Gid::effective().as_raw(), |(_, number)| *number);
    let config = format!(
        "[listener.lines]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\n[storage]\nfile_mode = \"0640\"\nfile_group = \"{number}\"\n\
         compress = \"zstd\"\n"
    );
    let mut server = Server::with_config(&data, &config);
    for round in 1..=3 {
        common::send_all(server.address("lines"), b"a line\n");
        await_that("the line", || server.metrics().sum("logweir_durable_lines_total", "") == f64::from(round));
        server.signal(Signal::SIGUSR1);
        await_that("a rotation", || server.metrics().sum("logweir_rotations_total", "") >= f64::from(round));
    }
    await_that("it is compressed", || server.metrics().sum("logweir_compressed_segments_total", "") >= 3.0);
    let mut found = vec![data.clone()];
    all_below(&data, &mut found);
    assert!(found.len() > 10, "{found:?}");
    for path in found.iter().filter(|path| !path.ends_with("lock")) {
        let expected = if path.is_dir() { 0o750 } else { 0o640 };
        assert_eq!((mode(path), group(path)), (expected, number), "{}", path.display());
    }
    assert!(server.stop().success());
    let output = common::logweir(&["check", "--config-only", "--set", "storage.file_mode=0440"]);
    assert_eq!(output.status.code(), Some(78), "the server could not write to them");
}

#[test]
fn a_socket_file_that_was_removed_is_made_again_at_a_reload() {
    let dir = scratch();
    let (data, stream, gram) = (dir.path().join("data"), dir.path().join("s"), dir.path().join("g"));
    let config = format!(
        "[listener.s]\naddress = \"unix://{}\"\n[listener.g]\naddress = \"unixgram://{}\"\n",
        stream.display(),
        gram.display()
    );
    let mut server = Server::with_config(&data, &config);
    let mut before = UnixStream::connect(&stream).unwrap();
    std::fs::remove_file(&stream).unwrap();
    std::fs::remove_file(&gram).unwrap();
    server.signal(Signal::SIGHUP);
    await_that("both are there again", || stream.exists() && gram.exists());
    before.write_all(b"on the old connection\n").unwrap();
    drop(before);
    await_that("a new connection", || {
        UnixStream::connect(&stream).is_ok_and(|mut new| new.write_all(b"on a new one\n").is_ok())
    });
    let client = UnixDatagram::unbound().unwrap();
    await_that("a datagram", || client.send_to(b"a datagram", &gram).is_ok());
    await_that("all lines", || {
        let mut lines: Vec<String> = String::from_utf8(server.cat()).unwrap().lines().map(String::from).collect();
        lines.sort();
        lines == ["a datagram", "on a new one", "on the old connection"]
    });
    assert!(server.stop().success());
    assert!(!stream.exists() && !gram.exists(), "and removed at the end");
}

/// Whatever sends signals early (a supervisor, logrotate) does not end a server that has just begun.
#[test]
fn a_signal_in_the_first_moments_does_not_end_the_server() {
    for signal in [Signal::SIGHUP, Signal::SIGUSR1] {
        let dir = scratch();
        let mut child = std::process::Command::new(BINARY)
            .args(["serve", "--admin", "off", "--listen", "tcp://127.0.0.1:0", "--data-dir"])
            .arg(dir.path().join("data"))
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        // Once it catches any signal: before that it is the loader's, which nobody can change.
        let catches = || {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let caught = status
                .lines()
                .find_map(|l| l.strip_prefix("SigCgt:\t"))
                .and_then(|mask| u64::from_str_radix(mask, 16).ok());
            caught.is_some_and(|mask| mask & 1 << (signal as i32 - 1) != 0)
        };
        while !catches() {
            assert!(child.try_wait().unwrap().is_none());
            std::thread::yield_now();
        }
        (0..50).for_each(|_| nix::sys::signal::kill(pid, signal).unwrap());
        let mut said = String::new();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        while !said.contains("Read it back") {
            assert!(
                std::io::BufRead::read_line(&mut out, &mut said).unwrap() > 0,
                "{signal}: it ended: {:?}",
                child.wait()
            );
        }
        nix::sys::signal::kill(pid, Signal::SIGTERM).unwrap();
        assert!(child.wait().unwrap().success());
    }
}
