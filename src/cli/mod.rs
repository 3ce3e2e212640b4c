//! The command line: commands, options, and exit codes.

mod cat;
mod check;
mod doctor;
mod follow;
mod man;
mod moment;
mod select;
mod serve;
mod ship;
mod tail;
mod top;
mod verify;

use crate::config::{self, ConfigError, ConfigErrors, InForce, Options, Overrides};
use crate::host::output::{self, complain};
use crate::host::version;
use crate::protocol::Protocols;
use crate::server::StartError;
use clap::{Args, CommandFactory, Parser, Subcommand};
use signal_hook::iterator::Signals;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code for a configuration that cannot be used (`EX_CONFIG`, sysexits(3)).
pub const BAD_CONFIGURATION: u8 = 78;

/// Log lines in, durable plain text files out.
#[derive(Debug, Parser)]
#[command(version = version::LONG, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server. Without a configuration it takes lines on tcp://127.0.0.1:5170 and writes to ./logweir-data.
    Serve(serve::ServeArgs),
    /// Check a configuration: say what a server would do with it, and whether it could start here now.
    Check(check::CheckArgs),
    /// Print the lines in a data directory, oldest first. A server may run on it meanwhile.
    Cat(cat::CatArgs),
    /// Print the last lines of each stream, and with -f those that follow. Shards are merged by time.
    Tail(tail::TailArgs),
    /// Compare the files with their checksums, and look for missing files and gaps. Exit code 1: damage. 2: it could not look.
    Verify(verify::VerifyArgs),
    /// Examine this host: what is right, what could be better, and what is wrong for this configuration. Exit code 1: a problem.
    Doctor(doctor::DoctorArgs),
    /// Watch a running server in the terminal.
    Top(top::TopArgs),
    /// Send lines, verify what arrived, or measure what this machine can do.
    Bench(crate::bench::BenchArgs),
    /// Ship what is durable to the targets of the configuration ([ship.NAME]). Another program does it, logweir-ship, which takes the arguments.
    #[command(disable_help_flag = true)]
    Ship {
        /// What logweir-ship is given; --help says what it takes.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages, for packages.
    #[command(hide = true)]
    Man {
        /// The directory for the pages.
        dir: PathBuf,
    },
}

/// Where options come from. Later ones win: defaults, the file, LOGWEIR_SECTION__KEY, --set, the other flags.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// The configuration file (TOML). Without it the server takes the built-in defaults.
    #[arg(short, long, env = "LOGWEIR_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Listen here, instead of on the listeners of the file. Forms: tcp://IP:PORT, udp://IP:PORT, http://IP:PORT,
    /// syslog://IP:PORT, relp://IP:PORT, unix://PATH, unixgram://PATH, stdin: (repeat for several)
    #[arg(short, long, env = "LOGWEIR_LISTEN", value_name = "ADDRESS", value_delimiter = ',')]
    listen: Vec<String>,
    /// The directory for the files.
    #[arg(short, long, env = "LOGWEIR_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The address for metrics and health, or "off".
    #[arg(long, env = "LOGWEIR_ADMIN", value_name = "IP:PORT")]
    admin: Option<String>,
    /// Set one key, such as --set storage.sync_interval=1s. Repeat it for several.
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    /// The configuration file, if there is one.
    #[must_use]
    pub fn file(&self) -> Option<&std::path::Path> {
        self.config.as_deref()
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// It cannot be used: all that is wrong with it.
    pub fn load(&self) -> Result<Options, ConfigErrors> {
        self.load_for(None)
    }

    /// The same as arguments of a program, for one that reads the same configuration.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        let mut add = |flag: &str, value: OsString| all.extend([flag.into(), value]);
        self.config.iter().for_each(|file| add("--config", file.into()));
        self.listen.iter().for_each(|address| add("--listen", address.into()));
        self.data_dir.iter().for_each(|dir| add("--data-dir", dir.into()));
        self.admin.iter().for_each(|address| add("--admin", address.into()));
        self.set.iter().for_each(|text| add("--set", text.into()));
        all
    }

    /// Reads the configuration again, for a server that runs with `running`.
    fn load_for(&self, running: Option<&Options>) -> Result<Options, ConfigErrors> {
        config::load_for(self.config.as_deref(), &self.overrides()?, running)
    }

    /// Reads it, and lists every value that is in force.
    fn load_and_list(&self) -> Result<(Options, InForce), ConfigErrors> {
        config::load_and_list(self.config.as_deref(), &self.overrides()?)
    }

    /// What overrides the file, from the environment and the command line.
    fn overrides(&self) -> Result<Overrides, ConfigErrors> {
        let mut set = config::overrides_from_environment(std::env::vars());
        for text in &self.set {
            let (key, value) = text
                .split_once('=')
                .ok_or_else(|| ConfigError::unplaced("--set", format!("expected SECTION.KEY=VALUE, not \"{text}\"")))?;
            set.push((key.trim().to_string(), value.trim().to_string(), format!("--set {key}")));
        }
        if let Some(dir) = &self.data_dir {
            set.push(("data_dir".into(), format!("'{}'", dir.display()), "--data-dir".into()));
        }
        if let Some(admin) = &self.admin {
            set.push(("admin.address".into(), admin.clone(), "--admin".into()));
        }
        Ok(Overrides { set, listen: self.listen.clone(), ..Overrides::default() })
    }
}

/// Runs the command that the arguments name.
#[must_use]
pub fn main() -> ExitCode {
    // A server takes its signals from the first moment on: by default they would end it, SIGHUP too.
    let signals = std::env::args_os().nth(1).filter(|word| word == "serve").map(|_| serve::signals());
    let command = Cli::parse().command;
    // For `verify` and `doctor`, 1 means something else.
    let could_not_print = match command {
        Command::Verify(_) | Command::Doctor(_) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    };
    output::exit(run(command, signals), could_not_print)
}

fn run(command: Command, signals: Option<io::Result<Signals>>) -> ExitCode {
    match command {
        Command::Serve(args) => serve::run(&args, signals.unwrap_or_else(serve::signals)),
        Command::Check(args) => check::run(&args),
        Command::Cat(args) => cat::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Bench(args) => crate::bench::run(&args),
        Command::Ship { args } => ship::run(&args),
        Command::Completions { shell } => {
            let mut text = Vec::new(); // the generator panics where it cannot write
            clap_complete::generate(shell, &mut Cli::command(), "logweir", &mut text);
            output::write(&text);
            ExitCode::SUCCESS
        }
        Command::Man { dir } => man::run(Cli::command(), &dir),
    }
}

/// Says what is wrong with a configuration: a line for each error.
fn bad_configuration(errors: &ConfigErrors) -> ExitCode {
    errors.iter().for_each(|error| complain!("configuration: {error}"));
    ExitCode::from(BAD_CONFIGURATION)
}

/// Says what keeps a server from starting. The exit code is 78 where only a change of the configuration helps, otherwise 1.
fn cannot_start(errors: &[StartError]) -> ExitCode {
    errors.iter().for_each(|error| complain!("{error}"));
    match errors.iter().any(StartError::is_configuration) {
        true => ExitCode::from(BAD_CONFIGURATION),
        false => ExitCode::FAILURE,
    }
}

/// Warns of environment variables that were probably meant for logweir and do nothing.
fn warn_of_near_misses() {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    for (name, meant) in config::near_misses(names, &config::all_keys(Protocols::default())) {
        complain!("warning: the environment variable {name} does nothing; did you mean {meant}?");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
