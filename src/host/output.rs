//! Prints the output of commands. Standard output may be closed, full, or not read by anybody; none of that is a bug, and none
//! of it causes a panic.

use crate::host::mutants::mutant;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

/// The first error of standard output.
static FAILED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Prints a line to standard output. After a failure it prints nothing more, and [`exit`] reports it.
pub fn say_line(line: Arguments<'_>) {
    write(format!("{line}\n").as_bytes());
}

/// As [`say_line`], with bytes as they are.
pub fn write(bytes: &[u8]) {
    let mut failed = FAILED.lock().unwrap_or_else(PoisonError::into_inner);
    if failed.is_none() {
        let mut out = io::stdout().lock();
        *failed = out.write_all(bytes).and_then(|()| out.flush()).err();
        assert!(failed.is_none() || !mutant!("output_panics"), "cannot print");
    }
}

/// Prints a line to standard error, and ignores errors.
pub fn complain_line(line: Arguments<'_>) {
    let _ = io::stderr().write_all(format!("logweir: {line}\n").as_bytes());
}

/// True where nobody can read standard output any more: the other end of the pipe or socket is closed, or the terminal is gone.
#[must_use]
pub fn reader_is_gone() -> bool {
    let out = io::stdout();
    let mut end = [PollFd::new(out.as_fd(), PollFlags::empty())]; // errors and hang-ups are told of in any case (poll(2))
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP | PollFlags::POLLNVAL;
    let told = poll(&mut end, PollTimeout::ZERO).is_ok_and(|n| n > 0);
    told && end[0].revents().is_some_and(|found| found.intersects(gone))
}

/// The exit code of a command that has ended with `code`, or another one if the command could not print. A reader that has closed its
/// end (`logweir check | head -1`) is no error.
#[must_use]
pub fn exit(code: ExitCode, could_not_print: ExitCode) -> ExitCode {
    match FAILED.lock().unwrap_or_else(PoisonError::into_inner).take() {
        None => code,
        Some(error) if error.kind() == ErrorKind::BrokenPipe => code,
        Some(error) => {
            complain_line(format_args!("cannot write to standard output: {error}"));
            could_not_print
        }
    }
}

/// [`say_line`], as `println!` is used.
macro_rules! say {
    ($($words:tt)*) => { $crate::host::output::say_line(format_args!($($words)*)) };
}
/// [`complain_line`], as `eprintln!` is used. The program's name comes first.
macro_rules! complain {
    ($($words:tt)*) => { $crate::host::output::complain_line(format_args!($($words)*)) };
}
pub(crate) use {complain, say};
