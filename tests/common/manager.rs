//! A service manager of a few lines: hears sd_notify(3), keeps descriptors, starts a program with them.

use super::{BINARY, Server, await_that};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// What the program has said, and the descriptors that it wants kept.
#[derive(Default)]
struct Heard {
    said: Vec<String>,
    kept: Vec<(String, OwnedFd)>,
}

pub struct Manager {
    socket: PathBuf,
    heard: Arc<Mutex<Heard>>,
}

impl Manager {
    pub fn new(dir: &Path) -> Manager {
        let socket = dir.join("notify");
        let receiver = UnixDatagram::bind(&socket).unwrap();
        let heard = Arc::new(Mutex::new(Heard::default()));
        let to = Arc::clone(&heard);
        std::thread::spawn(move || {
            loop {
                hear(&receiver, &to);
            }
        });
        Manager { socket, heard }
    }

    /// Where a program says it: the value of `NOTIFY_SOCKET`.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What was said so far, one state a line.
    pub fn said(&self) -> Vec<String> {
        self.heard.lock().unwrap().said.clone()
    }

    pub fn count(&self, state: &str) -> usize {
        self.said().iter().filter(|s| *s == state).count()
    }

    /// Names of what is kept, sorted.
    pub fn kept(&self) -> Vec<String> {
        let mut names: Vec<String> = self.heard.lock().unwrap().kept.iter().map(|(n, _)| n.clone()).collect();
        names.sort();
        names
    }

    /// Awaits that a state was said more often than before.
    pub fn await_more(&self, state: &str, than: usize) {
        await_that(state, || self.count(state) > than);
    }

    /// Starts a server with these sockets and those that are kept, and more in its environment.
    pub fn start(
        &self,
        data_dir: &Path,
        args: &[&str],
        sockets: &[(&str, OwnedFd)],
        environment: &[(&str, &str)],
    ) -> Server {
        self.launch(self.command(sockets, environment), data_dir, args)
    }

    /// As [`Manager::start`], with what it logs in a file.
    pub fn start_logged(
        &self,
        data_dir: &Path,
        args: &[&str],
        sockets: &[(&str, OwnedFd)],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Server {
        let mut command = self.command(sockets, environment);
        command.stderr(std::fs::File::create(log).unwrap());
        self.launch(command, data_dir, args)
    }

    fn launch(&self, mut command: Command, data_dir: &Path, args: &[&str]) -> Server {
        command.args(["serve", "--admin", "127.0.0.1:0", "--data-dir"]).arg(data_dir).args(args);
        match Server::launch(command.stdin(Stdio::null()), data_dir) {
            Ok(server) => server,
            Err((status, said)) => panic!("the server did not start, {status}: {said}"),
        }
    }

    fn command(&self, sockets: &[(&str, OwnedFd)], environment: &[(&str, &str)]) -> Command {
        let mut all: Vec<(String, OwnedFd)> =
            sockets.iter().map(|(name, fd)| ((*name).to_string(), fd.try_clone().unwrap())).collect();
        let heard = self.heard.lock().unwrap();
        all.extend(heard.kept.iter().map(|(name, fd)| (name.clone(), fd.try_clone().unwrap())));
        // LISTEN_PID is known in the child only.
        let mut command = Command::new("sh");
        command.args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\"", BINARY]).env("NOTIFY_SOCKET", &self.socket);
        command.envs(environment.iter().copied());
        if !all.is_empty() {
            let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
            command.env("LISTEN_FDS", all.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        // SAFETY: between fork and exec only dup2 and close, which are async-signal-safe. High numbers first: a descriptor may
        // be where another is to go.
        unsafe {
            command.pre_exec(move || {
                for (i, (_, fd)) in all.iter().enumerate() {
                    check(libc::dup2(fd.as_raw_fd(), 500 + i as i32))?;
                }
                for i in 0..all.len() as i32 {
                    check(libc::dup2(500 + i, 3 + i))?;
                    check(libc::close(500 + i))?;
                }
                Ok(())
            });
        }
        command
    }
}

fn check(result: i32) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn hear(receiver: &UnixDatagram, to: &Mutex<Heard>) {
    let mut bytes = [0; 8192];
    let mut space = nix::cmsg_space!([i32; 16]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let message =
        recvmsg::<()>(receiver.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC).unwrap();
    let mut descriptors = Vec::new();
    for control in message.cmsgs().unwrap() {
        if let ControlMessageOwned::ScmRights(fds) = control {
            // SAFETY: they were just made for this process by recvmsg.
            descriptors.extend(fds.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let len = message.bytes;
    let text = String::from_utf8(bytes[..len].to_vec()).unwrap();
    let mut heard = to.lock().unwrap();
    let name = text.lines().find_map(|l| l.strip_prefix("FDNAME=")).unwrap_or("stored").to_string();
    if text.lines().any(|l| l == "FDSTOREREMOVE=1") {
        heard.kept.retain(|(other, _)| *other != name);
    }
    heard.kept.extend(descriptors.into_iter().map(|fd| (name.clone(), fd)));
    heard.said.extend(text.lines().map(str::to_string));
}
