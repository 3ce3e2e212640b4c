//! `logweir ship`: becomes `logweir-ship`, a program of its own, so that the libraries of its targets are no part of the server.

use super::complain;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const PROGRAM: &str = "logweir-ship";

/// Does not come back, if the program is there: beside this one, or in PATH.
pub fn run(args: &[OsString]) -> ExitCode {
    let beside = std::env::current_exe().ok().map(|own| own.with_file_name(PROGRAM)).filter(|path| path.exists());
    let program = beside.unwrap_or_else(|| PathBuf::from(PROGRAM));
    let error = Command::new(&program).args(args).exec();
    let hint = match error.kind() {
        io::ErrorKind::NotFound => {
            ": it is neither beside this program nor in PATH (from the sources: cargo build --release -p logweir-ship)"
        }
        _ => "",
    };
    complain!("cannot run {}: {error}{hint}", program.display());
    ExitCode::FAILURE
}
