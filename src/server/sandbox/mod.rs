//! The sandbox: the server gives up all file paths but those configured (Landlock), new privileges, and system calls that it
//! does not use (seccomp). So a security hole in the server is worth less to an attacker.
//!
//! It is never a reason not to start: the server leaves out what the kernel does not have, and says so.

mod calls;
mod paths;

pub use calls::{confine_calls, confine_shipper_calls};
pub use paths::{Paths, certificate_files};

/// What the sandbox confines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The directories in which files can be reached. `None`: everywhere.
    pub paths: Option<Paths>,
    /// System calls are filtered.
    pub calls: bool,
}

impl std::fmt::Display for Confinement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.paths, self.calls) {
            (Some(_), true) => {
                f.write_str("configured paths only (Landlock), no new privileges, system calls filtered (seccomp)")
            }
            (Some(_), false) => f.write_str("configured paths only (Landlock), no new privileges"),
            (None, true) => {
                f.write_str("no new privileges, system calls filtered (seccomp); this kernel has no Landlock")
            }
            (None, false) => f.write_str("none"),
        }
    }
}
