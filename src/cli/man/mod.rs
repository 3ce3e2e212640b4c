//! `logweir man`: makes the manual pages from the command line and from the documented configuration.

mod options;
mod roff;

use crate::host::output::{complain, say};
use clap::Command;
use clap_mangen::Man;
use roff::{escaped, prose};
use std::io;
use std::path::Path;
use std::process::ExitCode;

/// Writes all pages into a directory, which is made when missing.
pub fn run(root: Command, dir: &Path) -> ExitCode {
    match write(root, dir) {
        Ok(pages) => {
            say!("{pages} pages in {}", dir.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain!("{}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

fn write(mut root: Command, dir: &Path) -> io::Result<usize> {
    std::fs::create_dir_all(dir)?;
    root = root.disable_help_subcommand(true);
    root.build();
    std::fs::write(dir.join("logweir.toml.5"), options::page())?;
    Ok(1 + write_command(&root, "logweir", dir)?)
}

/// A page for the command and for each beneath it.
fn write_command(command: &Command, name: &str, dir: &Path) -> io::Result<usize> {
    let mut page = Vec::new();
    let source = format!("logweir {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).title(name.to_uppercase()).section("1").source(source).manual("logweir");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().any(|a| !a.is_hide_set()) {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    let mut page = String::from_utf8(page).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    if name == "logweir" {
        page += &around();
    } else {
        page += ".SH \"SEE ALSO\"\n\\fBlogweir\\fR(1), \\fBlogweir.toml\\fR(5)\n";
    }
    std::fs::write(dir.join(format!("{name}.1")), page)?;
    let mut pages = 1;
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        pages += write_command(below, &format!("{name}-{}", below.get_name()), dir)?;
    }
    Ok(pages)
}

/// The sections about the program as a whole: exit codes, signals, environment, files.
fn around() -> String {
    let mut text = String::new();
    for (title, entries) in AROUND {
        text += &format!(".SH \"{title}\"\n");
        for (term, meaning) in *entries {
            text += &format!(".TP\n\\fB{}\\fR\n{}", escaped(term), prose(meaning));
        }
    }
    text += ".SH \"SEE ALSO\"\n\\fBlogweir.toml\\fR(5), \\fBsystemd.service\\fR(5), \\fBsd_notify\\fR(3)\n";
    text
}

const AROUND: &[(&str, &[(&str, &str)])] = &[
    (
        "EXIT STATUS",
        &[
            ("0", "Done; for serve: everything received is durable."),
            (
                "1",
                "For serve: it could not start, or something received is not durable. For check: a server could not start now. For verify: it found damage. For doctor: it found a problem.",
            ),
            ("2", "Wrong usage. For verify and doctor also: it could not look."),
            ("78", "The configuration cannot be used (EX_CONFIG); standard error says where it is wrong."),
        ],
    ),
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "Stop in order: wait for drain_delay, take in what was received, sync, seal. A second signal stops the server at once.",
            ),
            ("SIGHUP", "Read the configuration and the certificates again. Open connections go on."),
            ("SIGUSR1", "Rotate: seal the active segments and begin new ones."),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "LOGWEIR_SECTION__KEY",
                "Sets a key of the configuration, such as LOGWEIR_STORAGE__SYNC_INTERVAL=1s. It comes before the file; --set comes before it.",
            ),
            (
                "LOGWEIR_ENGINE, LOGWEIR_SHUTDOWN_TIMEOUT, LOGWEIR_DRAIN_DELAY",
                "Set the keys of these names, which are in no section.",
            ),
            (
                "LOGWEIR_CONFIG, LOGWEIR_LISTEN, LOGWEIR_DATA_DIR, LOGWEIR_ADMIN, LOGWEIR_NO_SANDBOX, LOGWEIR_SHIP",
                "Stand for the options of the same names.",
            ),
            (
                "NOTIFY_SOCKET, WATCHDOG_USEC, LISTEN_FDS, LISTEN_FDNAMES",
                "Set by the service manager, for readiness, the watchdog, socket activation and sockets that it keeps during a restart.",
            ),
        ],
    ),
    (
        "FILES",
        &[
            (
                "/etc/logweir/logweir.toml",
                "The configuration of logweir.service; logweir@NAME.service reads NAME.toml.",
            ),
            ("/var/lib/logweir", "Its data directory. It has a directory of plain text files for each stream."),
            (
                "NNN-NNNNNNNNNN.log, .log.active, .trail",
                "A sealed segment, a segment that is being written, and the checksums of each.",
            ),
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_page_tells_of_codes_and_signals() {
        let text = around();
        for word in ["EXIT STATUS", "78", "SIGHUP", "NOTIFY_SOCKET", "/var/lib/logweir"] {
            assert!(text.contains(word), "{word}");
        }
    }
}
