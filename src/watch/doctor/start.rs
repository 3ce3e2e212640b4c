//! Checks whether a server could start here now: ports, sockets, directories, certificates.

use super::{Check, Status};

/// Makes the check from what was refused when it was tried. `runs`: a server has the data directory, and probably the ports too.
#[must_use]
pub fn start(runs: bool, refused: &[String]) -> Check {
    let recommended = "addresses that are free, directories that can be written to, certificates that can be read";
    if runs {
        let present = "not tried: a server runs on this data directory, and has what it listens on";
        return Check::new("start", Status::Unknown, present, recommended);
    }
    if refused.is_empty() {
        return Check::new("start", Status::Ok, "a server could start", recommended);
    }
    Check::new("start", Status::Problem, refused.join("; "), recommended)
        .because("a server with this configuration, started here and now as this user, would end at once")
}
