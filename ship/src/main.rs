//! `logweir-ship`: ships what a logweir server has made durable to another engine. It reads the server's configuration and its files, and
//! never asks the server.

mod beat;
mod check;
mod kafka;
mod one;
mod run;
mod supervise;
mod watch;

use clap::Parser;
use kafka::TargetError;
use logweir::cli::ConfigArgs;
use logweir::config::ship::ShipTarget;
use logweir::config::{ConfigErrors, Options};
use run::ShipError;
use std::io::{IsTerminal, Write};
use std::process::{Command, ExitCode};
use supervise::{FENCED, NEEDS_YOU};

/// Ships durable lines to the targets of a configuration ([ship.NAME]): to all of them, each with a process of its own, or to one.
#[derive(Debug, Parser)]
#[command(name = "logweir-ship", version)]
struct Args {
    #[command(flatten)]
    config: ConfigArgs,
    /// End once everything that is durable now has been shipped.
    #[arg(long)]
    once: bool,
    /// Try everything, and ship nothing: brokers, topics, permissions, clocks.
    #[arg(long, conflicts_with = "once")]
    check: bool,
    /// Leave the sandbox (Landlock and seccomp) out.
    #[arg(long, env = "LOGWEIR_NO_SANDBOX", value_parser = clap::builder::FalseyValueParser::new())]
    no_sandbox: bool,
    /// End when standard input does: whoever started this has gone. Any byte there means: read the configuration again.
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
    /// The target; without it, all.
    target: Option<String>,
}

/// Exit code for a configuration that cannot be used (sysexits.h).
const BAD_CONFIGURATION: u8 = 78;

fn main() -> ExitCode {
    let args = Args::parse();
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(is_terminal).init();
    match dispatch(&args) {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "logweir-ship: {error}");
            exit_code(&*error)
        }
    }
}

fn exit_code(error: &(dyn std::error::Error + 'static)) -> ExitCode {
    if error.is::<ConfigErrors>() {
        return ExitCode::from(BAD_CONFIGURATION);
    }
    match error.downcast_ref::<one::Error>() {
        Some(one::Error::Ship(ShipError::Target(TargetError::Fenced))) => ExitCode::from(FENCED),
        Some(one::Error::Ship(ShipError::Forgotten(_) | ShipError::Target(TargetError::NoPosition { .. }))) => {
            ExitCode::from(NEEDS_YOU)
        }
        _ => ExitCode::FAILURE,
    }
}

fn dispatch(args: &Args) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if args.target.is_none() && !args.once && !args.check {
        return supervise(args);
    }
    let options = args.config.load()?;
    let targets = chosen(&options, args.target.as_deref())?;
    if args.check {
        return Ok(check::all(&options, &targets));
    }
    if let [target] = targets[..] {
        let (config, is_confined) = (args.config.file(), !args.no_sandbox);
        let (once, until_stdin_ends) = (args.once, args.until_stdin_ends);
        one::ship(&options, target, &one::How { config, once, until_stdin_ends, is_confined })?;
        return Ok(ExitCode::SUCCESS);
    }
    // Each confined to what it needs, so each has a process of its own; one that fails does not keep the others.
    let mut is_clean = true;
    for target in targets {
        is_clean &= command(args, "--once", &target.name)?.status()?.success();
    }
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The command that ships to one target, configured like this one.
fn command(args: &Args, flag: &str, target: &str) -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(args.config.arguments()).args(args.no_sandbox.then_some("--no-sandbox")).args([flag, target]);
    Ok(command)
}

fn chosen<'a>(options: &'a Options, name: Option<&str>) -> Result<Vec<&'a ShipTarget>, String> {
    let all = &options.ship;
    let found: Vec<&ShipTarget> = all.iter().filter(|target| name.is_none_or(|name| target.name == name)).collect();
    match (found.is_empty(), name) {
        (false, _) => Ok(found),
        (true, Some(name)) if !all.is_empty() => {
            let names = all.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", ");
            Err(format!("there is no [ship.{name}]; there are: {names}"))
        }
        (true, _) => Err("the configuration has no [ship.NAME]".into()),
    }
}

fn supervise(args: &Args) -> Result<ExitCode, Box<dyn std::error::Error>> {
    args.config.load()?;
    let around = supervise::Around {
        read: &|| args.config.load().map(|options| options.ship).map_err(|error| error.to_string()),
        command: &|target| command(args, "--until-stdin-ends", target),
        has_stdin: args.until_stdin_ends,
    };
    supervise::run(&around)
}
