//! `logweir ship --check`: tries everything that shipping needs, and ships nothing.

use crate::kafka::probe::{Finding, probe};
use crate::one;
use logweir::config::Options;
use logweir::config::ship::ShipTarget;
use logweir::log::data_dir::{STATE_DIR, can_write};
use std::io::Write;
use std::process::ExitCode;

/// Tries all targets and says what it found. It fails if something keeps one from being shipped to.
pub fn all(options: &Options, targets: &[&ShipTarget]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    let mut is_fine = true;
    for target in targets {
        let mut findings = files(options, target);
        let streams: Vec<&str> =
            options.streams.iter().map(|stream| stream.name.as_str()).filter(|name| target.takes(name)).collect();
        let node = one::node(options);
        match &node {
            Ok(Some(_)) => {}
            Ok(None) => {
                findings.push(Finding::Wrong("no server has run with this data directory yet: start it first".into()))
            }
            Err(error) => findings.push(Finding::Wrong(error.to_string())),
        }
        findings.extend(probe(target, &node.ok().flatten().unwrap_or_default(), &streams));
        is_fine &= !findings.iter().any(|finding| matches!(finding, Finding::Wrong(_)));
        let _ = writeln!(out, "ship.{}: kafka://{}", target.name, target.brokers);
        for finding in findings {
            let (mark, text) = match finding {
                Finding::Good(text) => ("ok    ", text),
                Finding::Odd(text) => ("look  ", text),
                Finding::Wrong(text) => ("WRONG ", text),
            };
            let _ = writeln!(out, "  {mark} {text}");
        }
    }
    if is_fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The files of this machine: whether they can be read, and the notes written.
fn files(options: &Options, target: &ShipTarget) -> Vec<Finding> {
    let mut findings = Vec::new();
    let dir = &options.data_dir;
    findings.push(match std::fs::read_dir(dir) {
        Ok(_) => Finding::Good(format!("{} can be read", dir.display())),
        Err(error) => Finding::Wrong(format!("{} cannot be read: {error}", dir.display())),
    });
    // It makes nothing: a directory that somebody else makes here, root for example, is one that the server cannot use.
    let state = dir.join(STATE_DIR);
    let notes = Some(state.join("ship")).filter(|notes| notes.is_dir()).unwrap_or(state);
    findings.push(match can_write(&notes) {
        Ok(()) => Finding::Good(format!("{} can be written to", notes.display())),
        Err(error) => Finding::Wrong(format!("{} cannot be written to: {error}", notes.display())),
    });
    for file in target.files() {
        findings.push(match std::fs::read(file) {
            Ok(_) => Finding::Good(format!("{} can be read", file.display())),
            Err(error) => Finding::Wrong(format!("{} cannot be read: {error}", file.display())),
        });
    }
    findings
}
