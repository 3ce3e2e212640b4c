//! Landlock: the files that the server may reach (landlock(7), since Linux 5.13).

use crate::config::Options;
use crate::config::ship::ShipTarget;
use crate::host::address::Address;
use crate::intake::listener::ListenerOptions;
use crate::log::data_dir::STATE_DIR;
use crate::log::disk::Disk;
use crate::log::names::is_stream_name;
use crate::log::real_disk::RealDisk;
use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus,
};
use std::path::{Path, PathBuf};

/// The newest version of Landlock whose rights are known here; an older kernel enforces what it knows.
const NEWEST: ABI = ABI::V5;

/// Files of the system that looking up names and checking certificates need.
const SYSTEM: [&str; 14] = [
    "/proc",
    "/sys",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/ssl",
    "/etc/pki",
    "/usr/share/ca-certificates",
    "/usr/lib",
    "/lib",
    "/etc/ld.so.cache",
];

/// The directories that stay within reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    /// Sockets can be made and removed there, and nothing else.
    sockets: Vec<PathBuf>,
}

impl Paths {
    /// The directories that a configuration names. Data directories are made (durably), because Landlock can only allow what exists.
    #[must_use]
    pub fn of(options: &Options, config: Option<&Path>) -> Paths {
        let (mut paths, disk) = (Paths::default(), RealDisk::for_others(options.files));
        // Topology, memory, boot id; and how the machine is limited, which a reload reads again.
        paths.read.extend(["/proc", "/sys"].map(PathBuf::from));
        let names_somebody = |l: &ListenerOptions| l.socket.owner.is_some() || l.socket.group.is_some();
        if options.files.group.is_some() || options.listeners.iter().any(names_somebody) {
            // Users and groups have names, which a reload looks up again.
            paths.read.extend(["/etc/passwd", "/etc/group", "/etc/nsswitch.conf"].map(PathBuf::from));
        }
        paths.read.extend(config.iter().flat_map(|file| directories(file)));
        for dir in options.sealed_dir.iter().chain([&options.data_dir]) {
            // Whatever keeps it from being made says the server itself, with the reason.
            let _ = disk.create_dir_all(dir);
            paths.write.extend(std::fs::canonicalize(dir));
            // A stream's directory may be a symlink to another disk.
            // Also one that is in the configuration no more: recovery looks at all.
            let streams =
                crate::host::sys::names(dir).unwrap_or_default().into_iter().filter(|name| is_stream_name(name));
            paths.write.extend(streams.filter_map(|s| std::fs::canonicalize(dir.join(s)).ok()));
        }
        for listener in &options.listeners {
            for file in certificate_files(listener) {
                paths.read.extend(directories(file));
            }
            if let Address::Unix(path) | Address::UnixDatagram(path) = &listener.address {
                paths.sockets.extend(directory(path));
            }
        }
        paths
    }

    /// What a shipper of this target needs: it reads the files of the server, and writes its own notes only. Names are looked up, and
    /// certificates checked, with files of the system.
    #[must_use]
    pub fn of_shipper(options: &Options, target: &ShipTarget, config: Option<&Path>) -> Paths {
        let mut paths = Paths::default();
        paths.read.extend(SYSTEM.map(PathBuf::from));
        paths.read.extend(config.iter().flat_map(|file| directories(file)));
        for dir in options.sealed_dir.iter().chain([&options.data_dir]) {
            paths.read.extend(std::fs::canonicalize(dir));
            let streams =
                crate::host::sys::names(dir).unwrap_or_default().into_iter().filter(|name| is_stream_name(name));
            paths.read.extend(streams.filter_map(|s| std::fs::canonicalize(dir.join(s)).ok()));
        }
        for file in target.files() {
            paths.read.extend(directories(file));
        }
        paths.write.extend(std::fs::canonicalize(options.data_dir.join(STATE_DIR).join("ship")));
        paths
    }

    /// Confines this thread, and all threads that it starts, to these directories. Returns false if the kernel cannot do that.
    ///
    /// # Errors
    /// In words. Nothing is confined then.
    pub fn confine(&self) -> Result<bool, String> {
        let text = |error: landlock::RulesetError| error.to_string();
        let everything = AccessFs::from_all(NEWEST);
        let ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
        let mut ruleset = ruleset.handle_access(everything).map_err(text)?.create().map_err(text)?;
        let reading = AccessFs::ReadFile | AccessFs::ReadDir;
        let sockets = AccessFs::MakeSock | AccessFs::RemoveFile;
        let rules = self.read.iter().map(|p| (p, reading)).chain(self.write.iter().map(|p| (p, everything)));
        let rules = rules.chain(self.sockets.iter().map(|p| (p, sockets)));
        for (path, access) in rules {
            if let Ok(fd) = PathFd::new(path) {
                ruleset = ruleset.add_rule(PathBeneath::new(fd, access)).map_err(text)?;
            }
        }
        // Descriptors that are kept for when the table is full.
        if let Ok(null) = PathFd::new("/dev/null") {
            ruleset = ruleset.add_rule(PathBeneath::new(null, AccessFs::from_file(NEWEST))).map_err(text)?;
        }
        let status = ruleset.restrict_self().map_err(text)?;
        Ok(status.ruleset != RulesetStatus::NotEnforced)
    }

    /// True if a file can be read.
    #[must_use]
    pub fn can_read(&self, file: &Path) -> bool {
        let allowed = |dir: &PathBuf| self.read.iter().chain(&self.write).any(|allowed| dir.starts_with(allowed));
        // What counts is where it is in the end; of one that is not there, where it would be.
        directories(file).last().is_some_and(allowed)
    }

    /// True if a socket can be made.
    #[must_use]
    pub fn can_make(&self, socket: &Path) -> bool {
        directory(socket)
            .is_some_and(|dir| self.write.iter().chain(&self.sockets).any(|allowed| dir.starts_with(allowed)))
    }
}

/// The files of a listener's TLS.
pub fn certificate_files(listener: &ListenerOptions) -> impl Iterator<Item = &Path> {
    let files = listener
        .tls
        .iter()
        .flat_map(|tls| [Some(&tls.cert), Some(&tls.key), tls.client_ca.as_ref(), tls.client_crl.as_ref()]);
    files.flatten().map(PathBuf::as_path)
}

/// The directory of a file, and that of what it points at, if it is a symlink: certbot keeps certificates elsewhere.
fn directories(file: &Path) -> Vec<PathBuf> {
    let target = std::fs::canonicalize(file).ok().and_then(|file| Some(file.parent()?.to_path_buf()));
    directory(file).into_iter().chain(target).collect()
}

/// The directory of a file, without symlinks, so that a file that replaces it is found there too.
fn directory(file: &Path) -> Option<PathBuf> {
    let dir = match file.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    std::fs::canonicalize(dir).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, load_text};

    #[test]
    fn a_thread_that_is_confined_reaches_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let elsewhere = dir.path().join("elsewhere");
        let run = dir.path().join("run");
        for name in ["run", "live", "archive"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("archive/cert1.pem"), "x").unwrap();
        std::os::unix::fs::symlink("../archive/cert1.pem", dir.path().join("live/cert.pem")).unwrap();
        std::fs::write(&elsewhere, "x").unwrap();
        let live = dir.path().join("live").display().to_string();
        let text = format!(
            "data_dir = \"{}\"\n[listener.l]\naddress = \"unix://{}/s\"\ntls_cert = \"{live}/cert.pem\"\ntls_key = \"{live}/cert.pem\"",
            data.display(),
            run.display()
        );
        let options = load_text(&text, "t.toml", &Overrides::default(), |_| None).unwrap();
        let paths = Paths::of(&options, None);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if !paths.confine().unwrap() {
                    return eprintln!("SKIPPED a_thread_that_is_confined: no Landlock here");
                }
                let denied = |result: std::io::Result<Vec<u8>>| {
                    assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
                };
                denied(std::fs::read(&elsewhere));
                denied(std::fs::write(dir.path().join("new"), "x").map(|()| Vec::new()));
                std::fs::write(data.join("file"), "x").unwrap();
                std::fs::rename(data.join("file"), data.join("other")).unwrap();
                std::os::unix::fs::symlink("other", data.join("link")).unwrap();
                std::os::unix::net::UnixListener::bind(run.join("s")).unwrap();
                std::fs::remove_file(run.join("s")).unwrap();
                denied(std::fs::write(run.join("file"), "x").map(|()| Vec::new()));
                std::fs::create_dir(data.join("stream")).unwrap();
                std::fs::read("/proc/self/status").unwrap();
                denied(std::fs::read("/etc/passwd"));
                // certbot's way: a symlink into another directory.
                std::fs::read(dir.path().join("live/cert.pem")).unwrap();
                assert!(paths.can_read(&dir.path().join("live/cert.pem")));
                // What a reload is asked about beforehand.
                assert!(
                    paths.can_make(&run.join("t"))
                        && paths.can_make(&data.join("t"))
                        && !paths.can_make(&dir.path().join("t"))
                );
                assert!(paths.can_read(Path::new("/proc/x")) && !paths.can_read(Path::new("/etc/ssl/c.pem")));
            });
        });
        assert!(std::fs::read(&elsewhere).is_ok(), "the others are free");
    }
}
