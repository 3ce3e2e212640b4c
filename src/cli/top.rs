//! `logweir top`: shows a running server in the terminal.

use crate::host::output::complain;
use crate::settings::units::Time;
use crate::watch::scrape::printable;
use crate::watch::top::{State, ask, plain, run as show};
use clap::Args;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// The options of `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The admin address of the server.
    #[arg(long, env = "LOGWEIR_ADMIN", value_name = "IP:PORT", default_value = "127.0.0.1:9610", value_parser = address)]
    admin: SocketAddr,
    /// Time between two scrapes.
    #[arg(short, long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Print the figures of one interval as plain text, and end. Exit code 1: no answer.
    #[arg(long)]
    once: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim_start_matches("http://").trim_end_matches('/').replace("localhost:", "127.0.0.1:");
    text.parse().map_err(|_| "expected IP:PORT such as 127.0.0.1:9610".into())
}

fn interval(text: &str) -> Result<Duration, String> {
    let Time(interval) = Time::parse(text)?;
    if interval < Duration::from_millis(100) || interval > Duration::from_secs(3600) {
        return Err("expected 100ms to 1h".into());
    }
    Ok(interval)
}

/// Shows it.
pub fn run(args: &TopArgs) -> ExitCode {
    let result = if args.once { once(args) } else { show(args.admin, args.interval) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            complain!("{}", printable(&error.to_string()));
            ExitCode::FAILURE
        }
    }
}

fn once(args: &TopArgs) -> io::Result<()> {
    let mut state = State::new(args.admin.to_string());
    let start = Instant::now();
    for look in 0..2 {
        while look == 1 && start.elapsed() < args.interval {
            std::thread::park_timeout(args.interval - start.elapsed().min(args.interval));
        }
        state.take(ask(args.admin));
        if let Some((error, _)) = &state.gone {
            return Err(io::Error::other(format!("no answer from http://{}/metrics: {error}", args.admin)));
        }
    }
    let Some(view) = &state.view else { return Ok(()) };
    io::stdout().lock().write_all(plain(&state.admin, view, state.why.as_deref()).as_bytes())
}
