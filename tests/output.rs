//! Standard output and error may be closed, full, or not be read by anybody. None of that is a panic, and nobody who serves waits.

mod common;

use common::{BINARY, await_that, cat, scratch};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A pipe that takes nothing more, and the end at which nobody reads.
fn full_pipe() -> (PipeReader, Stdio) {
    let (reader, writer) = std::io::pipe().unwrap();
    let sock = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(sock)).unwrap();
    while (&writer).write(&[b'.'; 4096]).is_ok() {}
    while (&writer).write(b".").is_ok() {}
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty())).unwrap();
    (reader, writer.into())
}

/// A pipe that nobody reads any more.
fn closed_pipe() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

fn full_disk() -> Stdio {
    OpenOptions::new().write(true).open("/dev/full").unwrap().into()
}

/// A server with these ends, killed when dropped, that says it is there by its socket.
struct Served(Child);

impl Served {
    fn start(dir: &Path, out: Stdio, err: Stdio) -> Served {
        let config = format!(
            "[admin]\naddress = \"off\"\n[limits]\nmax_connections = 2\n[listener.lines]\naddress = \"unix://{}\"\nreply = \"count\"\n",
            dir.join("s").display()
        );
        let path = dir.join("c.toml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["serve", "--config"]).arg(&path).arg("--data-dir").arg(dir.join("data"));
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
        let served = Served(child);
        await_that("the socket", || UnixStream::connect(dir.join("s")).is_ok());
        served
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Found from outside: the first line of the log blocked the reactor that said it, or ended the server by a panic.
#[test]
fn a_server_goes_on_whatever_becomes_of_what_it_says() {
    type Ends = fn() -> (Option<PipeReader>, Stdio);
    let full: Ends = || {
        let (reader, writer) = full_pipe();
        (Some(reader), writer)
    };
    let ends: [(&str, Ends); 3] =
        [("not read", full), ("closed", || (None, closed_pipe())), ("disk full", || (None, full_disk()))];
    for (name, end) in ends {
        let dir = scratch();
        let (out_reader, out) = end();
        let (err_reader, err) = end();
        let mut served = Served::start(dir.path(), out, err);
        let mut client = UnixStream::connect(dir.path().join("s")).unwrap();
        client.set_read_timeout(Some(common::PATIENCE)).unwrap();
        let mut answers = BufReader::new(client.try_clone().unwrap());
        let mut ask = |client: &mut UnixStream, count: usize| {
            client.write_all(format!("line {count}\n").as_bytes()).unwrap();
            let mut answer = String::new();
            answers.read_line(&mut answer).unwrap();
            assert_eq!(answer.trim(), count.to_string(), "standard output and error {name}");
        };
        ask(&mut client, 1);
        // The log has something to say of each: refused clients (by reactors), a reload and a rotation.
        let second = UnixStream::connect(dir.path().join("s")).unwrap();
        await_that("a client to be refused", || {
            let mut third = UnixStream::connect(dir.path().join("s")).unwrap();
            third.set_read_timeout(Some(common::PATIENCE)).unwrap();
            matches!(third.read(&mut [0; 1]), Ok(0) | Err(_))
        });
        ask(&mut client, 2);
        served.signal(Signal::SIGHUP);
        served.signal(Signal::SIGUSR1);
        (3..100).for_each(|i| ask(&mut client, i));
        served.signal(Signal::SIGTERM);
        let status = served.0.wait().unwrap();
        assert!(status.success(), "standard output and error {name}: {status}");
        assert_eq!(cat(&dir.path().join("data")).iter().filter(|b| **b == b'\n').count(), 99);
        let left = std::fs::read_dir(dir.path().join("data/default")).unwrap();
        let is_active = |e: &std::fs::DirEntry| e.file_name().to_str().unwrap().ends_with(".active");
        assert_eq!(left.filter(|e| is_active(e.as_ref().unwrap())).count(), 0, "everything is sealed");
        drop((second, out_reader, err_reader));
    }
}

/// What is printed before the end of a command, and with which exit codes.
fn commands(dir: &Path) -> Vec<(Vec<String>, i32)> {
    let data = dir.join("data").display().to_string();
    let man = dir.join("man").display().to_string();
    let words = |text: &str| text.split(' ').map(str::to_string).collect::<Vec<_>>();
    vec![
        (words("check --config-only"), 1),
        (words("completions bash"), 1),
        (words(&format!("man {man}")), 1),
        (words(&format!("cat --data-dir {data}")), 1),
        (words(&format!("cat --json --data-dir {data}")), 1),
        (words(&format!("tail --data-dir {data}")), 1),
        (words(&format!("verify --data-dir {data}")), 2),
        (words(&format!("verify --json --data-dir {data}")), 2),
        (words(&format!("doctor --data-dir {data}")), 2),
        (words(&format!("doctor --json --data-dir {data}")), 2),
        (words(&format!("bench verify --data-dir {data}")), 1),
    ]
}

#[test]
fn commands_do_not_panic_where_they_cannot_print() {
    let dir = scratch();
    let mut server = common::Server::start(&dir.path().join("data"), &[]);
    common::send_all(server.address("lines"), b"one\ntwo\n");
    assert!(server.stop().success());
    for (args, code) in commands(dir.path()) {
        let run = |out: Stdio, err: Stdio| {
            Command::new(BINARY).args(&args).stdin(Stdio::null()).stdout(out).stderr(err).spawn()
        };
        let full = run(full_disk(), Stdio::piped()).unwrap().wait_with_output().unwrap();
        let said = String::from_utf8(full.stderr).unwrap();
        assert_eq!(full.status.code(), Some(code), "{args:?} on a full disk: {said}");
        assert!(said.starts_with("logweir: ") && !said.contains("panicked"), "{args:?}: {said}");
        let closed = run(closed_pipe(), Stdio::piped()).unwrap().wait_with_output().unwrap();
        let said = String::from_utf8(closed.stderr).unwrap();
        assert!(closed.status.code().is_some_and(|c| c < 3), "{args:?}, closed: {}", closed.status);
        assert!(!said.contains("panicked"), "{args:?}: {said}");
        // With nothing to complain to either.
        for err in [full_disk(), closed_pipe()] {
            let both = run(full_disk(), err).unwrap().wait().unwrap();
            assert_eq!(both.code(), Some(code), "{args:?}");
        }
    }
    // What is wrong is told by the exit code alone.
    let wrong = Command::new(BINARY).args(["check", "--set", "a.b=c"]).stdout(full_disk()).stderr(full_disk()).status();
    assert_eq!(wrong.unwrap().code(), Some(78));
}

#[test]
fn tail_ends_when_its_reader_has_gone_though_nothing_more_is_written() {
    let dir = scratch();
    let data = dir.path().join("data");
    let mut server = common::Server::start(&data, &[]);
    common::send_all(server.address("lines"), b"one\n");
    let mut command = Command::new(BINARY);
    command.args(["tail", "-f", "--data-dir"]).arg(&data).stdout(Stdio::piped());
    let mut tail = command.spawn().unwrap();
    let mut out = BufReader::new(tail.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "one\n");
    drop(out);
    assert!(tail.wait().unwrap().success());
    assert!(server.stop().success());
}
