//! `logweir ship` becomes `logweir-ship`, and `serve --ship` starts it: a program of its own, so that the libraries of its targets are no part
//! of the server.

use super::{ConfigArgs, complain};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const PROGRAM: &str = "logweir-ship";

/// How long the shippers may take to end behind the server.
const ENDING: Duration = Duration::from_secs(25);

/// The program: beside this one, or in PATH.
fn program() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM)).filter(|path| path.exists());
    beside.unwrap_or_else(|| PathBuf::from(PROGRAM))
}

/// What to say if it cannot be run.
fn cannot_run(error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            ": it is neither beside this program nor in PATH (from the sources: cargo build --release -p logweir-ship)"
        }
        _ => "",
    };
    format!("cannot run {}: {error}{hint}", program().display())
}

/// Does not come back, if the program is there.
pub fn run(args: &[OsString]) -> ExitCode {
    let error = Command::new(program()).args(args).exec();
    complain!("{}", cannot_run(&error));
    ExitCode::FAILURE
}

/// Shippers beside a server: one process that looks after one for each target. It is told to read the configuration again, or that the
/// server ends, through its standard input: the sandbox of the server can neither start processes nor send signals.
pub struct Beside {
    input: UnixStream,
    is_ending: Arc<AtomicBool>,
}

impl Beside {
    /// Starts it, before the server confines itself.
    ///
    /// # Errors
    /// In words.
    pub fn start(config: &ConfigArgs, is_confined: bool) -> Result<Beside, String> {
        let (input, theirs) = UnixStream::pair().map_err(|error| format!("cannot make a socket: {error}"))?;
        let mut command = Command::new(program());
        command.args(config.arguments()).arg("--until-stdin-ends").args((!is_confined).then_some("--no-sandbox"));
        // What the service manager told the server is not for them.
        ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]
            .iter()
            .for_each(|name| {
                command.env_remove(name);
            });
        // Ctrl-C is for the server, which ends it.
        command.stdin(Stdio::from(OwnedFd::from(theirs))).process_group(0);
        command.spawn().map_err(|error| cannot_run(&error))?;
        Ok(Beside { input, is_ending: Arc::default() })
    }

    /// Says it in the log if the shippers end before the server does.
    ///
    /// # Errors
    /// No thread.
    pub fn watch(&self) -> io::Result<()> {
        let (mut input, is_ending) = (self.input.try_clone()?, Arc::clone(&self.is_ending));
        let body = move || {
            // Nothing ever comes: it ends when they do.
            while !matches!(input.read(&mut [0; 1]), Ok(0) | Err(_)) {}
            if !is_ending.load(Ordering::SeqCst) {
                tracing::error!("the shippers have ended, and nothing is shipped any more: restart the server");
            }
        };
        std::thread::Builder::new().name("shippers".into()).spawn(body).map(drop)
    }

    /// Tells them to read the configuration again.
    pub fn reload(&self) {
        let _ = (&self.input).write_all(b"r"); // who has ended is past that
    }

    /// Tells them to end, and waits until they have.
    pub fn end(self) {
        self.is_ending.store(true, Ordering::SeqCst);
        let _ = self.input.shutdown(Shutdown::Write);
        let _ = self.input.set_read_timeout(Some(ENDING));
        // A signal interrupts a wait with a limit (signal(7)).
        let is_interrupted =
            |read: io::Result<usize>| read.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted);
        while is_interrupted((&self.input).read(&mut [0; 1])) {}
    }
}
