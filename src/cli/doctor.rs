//! `logweir doctor`: examines the host for a configuration.

use super::{ConfigArgs, bad_configuration};
use crate::host::output::complain;
use crate::server::{StartError, rehearsal};
use crate::watch::doctor::{Host, LiveHost, Status, Subject, examine, probe, report, start, usage};
use clap::Args;
use std::io::{self, Write};
use std::process::ExitCode;

/// Exit code where `doctor` could not look; 1 is for problems.
const COULD_NOT_LOOK: u8 = 2;

/// The options of `doctor`. The configuration says what the host must be able to do.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Measure disk and loopback too. This writes up to 512 MiB to the data directory and removes them again.
    #[arg(long)]
    probe: bool,
    /// Show utilisation, saturation and errors of each resource, and of the server, if its admin address answers.
    #[arg(long = "use")]
    usage: bool,
    /// End with exit code 1 for advice too, not only for problems.
    #[arg(long)]
    strict: bool,
    /// Print JSON for machines.
    #[arg(long)]
    json: bool,
}

/// Examines; fails where something is wrong.
pub fn run(args: &DoctorArgs) -> ExitCode {
    let options = match args.config.load() {
        Ok(options) => options,
        Err(error) => return bad_configuration(&error),
    };
    let subject = Subject::new(&options);
    let host = LiveHost;
    let mut checks = examine(&host, &subject);
    let refused = rehearsal::look(&options);
    let runs = refused.iter().any(StartError::is_in_use);
    checks.insert(0, start(runs, &refused.iter().map(ToString::to_string).collect::<Vec<_>>()));
    let measured = args.probe.then(|| {
        let dir = host.existing(&subject.data_dir);
        probe::probe(&dir, host.space(&dir).map(|s| s.free)).map_err(|e| format!("probe of {}: {e}", dir.display()))
    });
    let (measured, failed) = match measured.transpose() {
        Ok(measured) => (measured, false),
        Err(error) => {
            complain!("{}", crate::watch::scrape::printable(&error));
            (None, true)
        }
    };
    let rows = args.usage.then(|| usage::observe(&host, &subject.data_dir, options.admin));
    let report = report(checks, measured, rows);
    let text = if args.json {
        serde_json::to_string_pretty(&report).map(|t| t + "\n").map_err(io::Error::from)
    } else {
        Ok(report.text())
    };
    match text.and_then(|text| io::stdout().lock().write_all(text.as_bytes())) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain!("{error}");
            ExitCode::from(COULD_NOT_LOOK)
        }
        _ if failed => ExitCode::from(COULD_NOT_LOOK),
        _ => match report.status {
            Status::Problem => ExitCode::FAILURE,
            Status::Advice if args.strict => ExitCode::FAILURE,
            _ => ExitCode::SUCCESS,
        },
    }
}
