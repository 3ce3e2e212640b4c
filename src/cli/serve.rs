//! `logweir serve`: runs the server.

use super::ship::Beside;
use super::{ConfigArgs, bad_configuration, cannot_start, warn_of_near_misses};
use crate::config::Options;
use crate::config::raw::{LogFormat, LogLevel};
use crate::host::address::Address;
use crate::host::output::complain;
use crate::host::sys::keep_large_apart;
use crate::host::version;
use crate::intake::listener::ListenerOptions;
use crate::pipeline::control::Notice;
use crate::server::sandbox::{self, Confinement, Paths};
use crate::server::service::{self, Manager};
use crate::server::{self, Started, rehearsal};
use crate::settings::units::{Size, Time};
use crate::watch::logging;
use clap::Args;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::channel;

/// The options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Leave the sandbox (Landlock and seccomp) out. Without this flag the server confines itself to the configured paths and to the
    /// system calls that it needs, as far as the kernel can do that.
    #[arg(long, env = "LOGWEIR_NO_SANDBOX", value_parser = clap::builder::FalseyValueParser::new())]
    no_sandbox: bool,
    /// Ship to the targets of the configuration ([ship.NAME]) as well: starts logweir-ship, starts it again if it ends, and ends it with the
    /// server.
    #[arg(long, env = "LOGWEIR_SHIP", value_parser = clap::builder::FalseyValueParser::new())]
    ship: bool,
}

/// Catches the signals that a server understands, from now on.
pub fn signals() -> io::Result<Signals> {
    Signals::new([SIGTERM, SIGINT, SIGUSR1, SIGHUP])
}

/// Runs the server until a signal.
pub fn run(args: &ServeArgs, signals: io::Result<Signals>) -> ExitCode {
    let code = serve(args, signals);
    logging::finish();
    code
}

fn serve(args: &ServeArgs, signals: io::Result<Signals>) -> ExitCode {
    let ServeArgs { config: args, no_sandbox, ship } = args;
    let options = match args.load() {
        Ok(options) => options,
        Err(error) => return bad_configuration(&error),
    };
    warn_of_near_misses();
    keep_large_apart();
    // All that is wrong is said at once, and before the server confines itself: behind that every refusal looks alike. Sockets from a manager
    // are held already, so that addresses cannot be tried.
    let refused = match service::inherits() {
        true => rehearsal::data_directories(&options),
        false => rehearsal::look(&options),
    };
    if !refused.is_empty() {
        return cannot_start(&refused);
    }
    logging::start(options.log);
    // Before another program is started, which must not have them.
    let inherited = match service::inherited() {
        Ok(inherited) => inherited,
        Err(error) => return failed(&format!("sockets from the service manager: {error}")),
    };
    let beside = match ship.then(|| Beside::start(args, !no_sandbox)).transpose() {
        Ok(beside) => beside,
        Err(error) => return failed(&error),
    };
    // Before there are threads: they inherit it.
    let mut confinement = Confinement::default();
    if !no_sandbox {
        confinement.paths = confine_paths(&options, args);
    }
    if let Err(error) = logging::run() {
        return failed(&format!("cannot start a thread for the log: {error}"));
    }
    if let Some(Err(error)) = beside.as_ref().map(Beside::watch) {
        return failed(&format!("cannot start a thread: {error}"));
    }
    let (sender, receiver) = channel();
    let mut signals = match signals {
        Ok(signals) => signals,
        Err(error) => return failed(&format!("cannot take signals: {error}")),
    };
    let to_server = sender.clone();
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if to_server.send(Notice::Signal(signal)).is_err() {
                return;
            }
        }
    });
    let mut server = match server::start(&options, (sender, receiver), Manager::from_environment(), inherited) {
        Ok(server) => server,
        Err(error) => {
            logging::finish(); // what was said before comes first
            return cannot_start(&[error]);
        }
    };
    if !no_sandbox {
        match sandbox::confine_calls(server.started.engine.starts_with("io_uring")) {
            Ok(()) => confinement.calls = true,
            Err(error) => tracing::warn!(error, "the sandbox does not filter system calls"),
        }
    }
    server.confined(confinement.clone());
    if options.log.level >= LogLevel::Info {
        match options.log.format {
            LogFormat::Json => introduce_to_machines(&options, args, &server.started, &confinement),
            _ => say_hello(introduce(&options, &server.started, &confinement)),
        }
    }
    let clean = server.run(|running| {
        beside.iter().for_each(Beside::reload);
        args.load_for(Some(running))
    });
    if let Some(beside) = beside {
        beside.end();
    }
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Confines the files, and logs a warning where that fails.
fn confine_paths(options: &Options, args: &ConfigArgs) -> Option<Paths> {
    let paths = Paths::of(options, args.file());
    match paths.confine() {
        Ok(true) => Some(paths),
        Ok(false) => None,
        Err(error) => {
            tracing::warn!(error, "the sandbox does not confine paths");
            None
        }
    }
}

fn failed(message: &str) -> ExitCode {
    logging::finish(); // what was said before comes first
    complain!("{message}");
    ExitCode::FAILURE
}

/// An address with the scheme that a client would use.
fn shown(address: &str, listener: &ListenerOptions) -> String {
    let scheme = listener.profile().schemes[usize::from(listener.tls.is_some())];
    address.strip_prefix("tcp://").map_or(address.to_string(), |rest| format!("{scheme}://{rest}"))
}

/// Prints the start-up lines, on a thread of its own: a standard output that is closed or not read must not stop the server.
fn say_hello(introduction: String) {
    let hello = move || {
        let mut out = io::stdout().lock();
        let _ = out.write_all(introduction.as_bytes()).and_then(|()| out.flush());
    };
    let _ = std::thread::Builder::new().name("hello".into()).spawn(hello);
}

/// Says the same as events of the log, for logs that are read by machines.
fn introduce_to_machines(options: &Options, args: &ConfigArgs, started: &Started, confinement: &Confinement) {
    for ((name, address), listener) in started.listeners.iter().zip(&options.listeners) {
        tracing::info!(listener = name, address = shown(address, listener), "listening");
    }
    let config = args.file().map_or("built-in defaults".into(), |file| file.display().to_string());
    tracing::info!(
        version = version::VERSION,
        commit = version::COMMIT,
        target = version::TARGET,
        config,
        data_dir = %started.data_dir.display(),
        file_mode = started.io,
        engine = started.engine,
        shards = options.placement.shards,
        reactors_per_shard = options.placement.reactors_per_shard,
        placement = %options.placement.plan,
        memory_for_lines = options.memory.total(),
        memory_for_connections = started.connection_bytes,
        max_connections = started.max_connections,
        sandbox = %confinement,
        admin = started.admin.as_deref().unwrap_or("off"),
        "ready"
    );
}

/// The start-up lines: what a person wants to know first.
fn introduce(options: &Options, started: &Started, confinement: &Confinement) -> String {
    let mut text = format!("logweir {} is ready\n", version::VERSION);
    for ((name, address), listener) in started.listeners.iter().zip(&options.listeners) {
        text += &format!("  lines from   {}  (listener {name})\n", shown(address, listener));
    }
    text += &format!("  written to   {}\n", started.data_dir.display());
    text += &format!("  file mode    {}\n", started.io);
    let placement = &options.placement;
    text += &format!(
        "  engine       {}, {} shard(s) with {} reactor(s) and one writer each\n",
        started.engine, placement.shards, placement.reactors_per_shard
    );
    text += &format!("  placement    {}\n", placement.plan);
    text += &format!(
        "  memory       at most {} for lines, {} for {} connections\n",
        Size(options.memory.total() as u64),
        Size(started.connection_bytes as u64),
        started.max_connections
    );
    text += &format!("  sandbox      {confinement}\n");
    if let Some(admin) = &started.admin {
        text += &format!("  metrics      http://{admin}/metrics, health at /healthz and /readyz\n");
    }
    text += &format!("  Ctrl-C ends  after at most {}\n", Time(options.drain_delay + options.shutdown_timeout));
    if let (Some((_, address)), Some(listener)) = (started.listeners.first(), options.listeners.first()) {
        let data = if options.data_dir.to_str() == Some("./logweir-data") {
            String::new()
        } else {
            format!(" --data-dir {}", options.data_dir.display())
        };
        let is_plain = listener.tls.is_none() && !listener.proxy;
        let address = address.parse().ok().filter(|_| is_plain);
        let send = address.and_then(|address: Address| listener.protocol.first_line(&address));
        if let Some(send) = send {
            text += &format!("A first line:  {send}\n");
        }
        text += &format!("Read it back:  logweir cat{data}\n");
    }
    text
}
