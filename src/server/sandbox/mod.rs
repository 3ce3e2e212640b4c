//! What the server takes away from itself: file paths beyond those configured (Landlock), new privileges, and system calls that it
//! has no use for (seccomp). A hole in it is then worth less to whoever finds it.
//!
//! Never a reason not to start: what the kernel does not have is left out, and said.

mod calls;
mod paths;

pub use calls::confine_calls;
pub use paths::{Paths, certificate_files};

/// What is in force, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// Beneath these directories files can be reached; `None`: anywhere.
    pub paths: Option<Paths>,
    /// Calls are filtered.
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
