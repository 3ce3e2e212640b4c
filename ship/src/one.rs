//! Runs the shipper of one target, in a sandbox.

use crate::beat::Beat;
use crate::run::{self, ShipError, Signals};
use logweir::config::Options;
use logweir::config::ship::ShipTarget;
use logweir::log::data_dir::{self, STATE_DIR};
use logweir::log::real_disk::RealDisk;
use logweir::server::sandbox::{self, Confinement, Paths};
use logweir::settings::units::Size;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Milliseconds between looks for the first start of a server: its directory need not be there, so nothing tells of it.
const FIRST_START: u16 = 250;

/// Why a shipper does not run, or ends.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has the lock.
    #[error("another shipper of {target} runs (it holds the lock on {file})")]
    Locked {
        /// Of which target.
        target: String,
        /// The file.
        file: String,
    },
    /// Nothing to ship, ever, until a server has started.
    #[error("no logweir server has run with the data directory {dir} yet: start it first, or correct `data_dir`")]
    NoServer {
        /// The data directory.
        dir: String,
    },
    /// The system refused something.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The data directory.
    #[error(transparent)]
    Log(#[from] logweir::log::LogError),
    /// Shipping.
    #[error(transparent)]
    Ship(#[from] ShipError),
}

/// How a shipper is to run.
pub struct How<'a> {
    /// The configuration file.
    pub config: Option<&'a Path>,
    /// End when everything durable has been shipped.
    pub once: bool,
    /// End when standard input does: whoever started this has gone.
    pub until_stdin_ends: bool,
    pub is_confined: bool,
}

/// Ships until a signal, or an error that trying again does not mend.
///
/// # Errors
/// See [`Error`].
pub fn ship(options: &Options, target: &ShipTarget, how: &How<'_>) -> Result<(), Error> {
    let (end, ending) = UnixStream::pair()?;
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::low_level::pipe::register(signal, ending.try_clone()?)?;
    }
    let Some(node) = await_node(options, how, end.as_fd())? else { return Ok(()) };
    let _lock = lock(&options.data_dir, &target.name)?;
    let mut confinement = Confinement::default();
    if how.is_confined {
        confinement = confine(options, target, how.config);
    }
    if how.until_stdin_ends {
        let ending = ending.try_clone()?;
        std::thread::Builder::new().name("stdin".into()).spawn(move || {
            let mut stdin = std::io::stdin();
            while !matches!(stdin.read(&mut [0; 64]), Ok(0) | Err(_)) {}
            let _ = ending.shutdown(std::net::Shutdown::Both);
        })?;
    }
    let memory = Size(crate::kafka::memory(target) + run::MEMORY);
    tracing::info!(target_name = target.name, %memory, sandbox = %confinement, "shipper starts; it uses this much memory at most");
    let beat = Beat::start(&options.data_dir, &target.name)?;
    Ok(run::run(&options.data_dir, &node, target, &beat, &Signals { end: end.as_fd(), once: how.once })?)
}

/// The node's number, as 32 hexadecimal digits. `None`: no server has started yet. The server makes it, and nobody else:
/// positions are noted under it, and under another one everything would be shipped again.
///
/// # Errors
/// The data directory cannot be read.
pub fn node(options: &Options) -> Result<Option<String>, Error> {
    let node = data_dir::node_id(&RealDisk::new(), &options.data_dir)?;
    Ok(node.map(|node| node.iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// Waits for the first start of a server, which may have begun at the same time as this. `None`: told to end meanwhile.
fn await_node(options: &Options, how: &How<'_>, end: BorrowedFd<'_>) -> Result<Option<String>, Error> {
    let dir = options.data_dir.display().to_string();
    let mut is_first = true;
    loop {
        match node(options)? {
            Some(node) => return Ok(Some(node)),
            None if how.once => return Err(Error::NoServer { dir }),
            None => {}
        }
        if std::mem::take(&mut is_first) {
            tracing::info!(dir, "no server has run with this data directory yet; waiting for it");
        }
        // Standard input is looked at here: a thread that does it would not be confined later.
        let stdin = std::io::stdin();
        let mut all = vec![PollFd::new(end, PollFlags::POLLIN)];
        if how.until_stdin_ends {
            all.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut all, FIRST_START) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) if all[0].any() == Some(true) => return Ok(None),
            Ok(_) => {
                if std::io::stdin().read(&mut [0; 64])? == 0 {
                    return Ok(None);
                }
            }
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
    }
}

/// Before there are other threads: they inherit it.
fn confine(options: &Options, target: &ShipTarget, config: Option<&Path>) -> Confinement {
    let mut confinement = Confinement::default();
    let paths = Paths::of_shipper(options, target, config);
    match paths.confine() {
        Ok(true) => confinement.paths = Some(paths),
        Ok(false) => {}
        Err(error) => tracing::warn!(error, "the sandbox does not confine paths"),
    }
    match sandbox::confine_shipper_calls() {
        Ok(()) => confinement.calls = true,
        Err(error) => tracing::warn!(error, "the sandbox does not filter system calls"),
    }
    confinement
}

/// One shipper for each target.
fn lock(dir: &Path, target: &str) -> Result<File, Error> {
    let dir = dir.join(STATE_DIR).join("ship");
    std::fs::create_dir_all(&dir)?;
    let path = dir.join(format!("{target}.lock"));
    let file = File::create(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(Error::Locked { target: target.into(), file: path.display().to_string() })
        }
        Err(std::fs::TryLockError::Error(error)) => Err(error.into()),
    }
}
