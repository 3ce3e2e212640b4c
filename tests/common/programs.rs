//! Other people's programs: whether they are here, and running them.

use super::PATIENCE;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

/// Where Debian keeps servers, too.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where such a program is.
pub fn find(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').chain(PATH.split(':')).map(|dir| std::path::Path::new(dir).join(name)).find(|p| p.is_file())
}

/// True if there is such a program.
pub fn have(name: &str) -> bool {
    find(name).is_some()
}

/// Standard output of a program that must succeed.
pub fn output(command: &mut Command, stdin: &[u8]) -> Vec<u8> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut pipe = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            let _ = pipe.write_all(stdin); // it may have enough before the end
        });
        child.wait_with_output().unwrap()
    });
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}\n{complaint}", output.status);
    output.stdout
}

/// The same as text.
pub fn run(command: &mut Command, stdin: &[u8]) -> String {
    String::from_utf8_lossy(&output(command, stdin)).into_owned()
}

/// A Python that has some module: the first in `PATH`, or Debian's, for which Debian's packages are.
pub struct Python(&'static str);

impl Python {
    pub fn with(module: &str) -> Option<Python> {
        let has = |name: &&str| {
            let mut command = Command::new(name);
            command.args(["-c", &format!("import {module}")]).stderr(Stdio::null());
            command.status().is_ok_and(|s| s.success())
        };
        ["python3", "/usr/bin/python3"].into_iter().find(has).map(Python)
    }

    /// Runs a script, in which `w` writes bytes to standard output.
    pub fn script(&self, text: &str) -> Command {
        let mut command = Command::new(self.0);
        command.arg("-c").arg(format!("import sys\nw = sys.stdout.buffer.write\n{text}"));
        command
    }
}

/// A server that is told its port; killed when dropped.
pub struct Daemon {
    pub child: Child,
    pub address: SocketAddr,
}

impl Daemon {
    /// Starts it on a free port and waits until that takes connections; `command` gets the port.
    pub fn start(mut command: impl FnMut(u16) -> Command) -> Daemon {
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let mut daemon = Daemon { child: command(port).stdin(Stdio::null()).spawn().unwrap(), address };
            let start = Instant::now();
            // Ends where somebody else took the port first: then another one.
            while daemon.child.try_wait().unwrap().is_none() {
                if TcpStream::connect(address).is_ok() {
                    return daemon;
                }
                assert!(start.elapsed() < PATIENCE, "it takes no connections");
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
        }
        panic!("it does not start");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
