//! `logweir check`: checks a configuration, and says what a server would do with it.

use super::{BAD_CONFIGURATION, ConfigArgs, bad_configuration, cannot_start, warn_of_near_misses};
use crate::config::Options;
use crate::config::checked::StreamSettings;
use crate::config::commit_log::CommitLogSize;
use crate::host::output::{self, complain, say};
use crate::intake::listener::ListenerOptions;
use crate::intake::reactor;
use crate::log::commit::AUTO_BYTES;
use crate::log::seekable::MEMORY;
use crate::pipeline::chunk::Class;
use crate::server::{self, Certificates, StartError, rehearsal};
use crate::settings::units::{Size, Time};
use clap::Args;
use std::process::ExitCode;

/// What to check.
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Print every key with the value that is in force, as a configuration file.
    #[arg(long)]
    print: bool,
    /// Check only the configuration and its certificates, not ports and directories. Use this for another host, or while a server
    /// runs with this configuration.
    #[arg(long)]
    config_only: bool,
}

/// Checks and explains.
pub fn run(args: &CheckArgs) -> ExitCode {
    let (options, in_force) = match args.config.load_and_list() {
        Ok(loaded) => loaded,
        Err(errors) => return bad_configuration(&errors),
    };
    warn_of_near_misses();
    let refused = match args.config_only {
        true => Certificates::load_each(&options.listeners),
        false => rehearsal::look(&options),
    };
    if let Ok(certificates) = Certificates::load(&options.listeners) {
        for (listener, warning) in certificates.warnings(server::now()) {
            complain!("warning: listener.{listener}: {warning}");
        }
    }
    if args.print {
        say!(
            "# Every key with the value that is in force. A comment says where it is set; without one it is the default."
        );
        output::write(in_force.to_string().as_bytes());
    } else if !refused.iter().any(StartError::is_configuration) {
        explain(&options);
    }
    if refused.is_empty() {
        return ExitCode::SUCCESS;
    }
    let code = cannot_start(&refused);
    complain!(
        "{}",
        match code == ExitCode::from(BAD_CONFIGURATION) {
            true => "a server cannot start with this configuration",
            false => "a server could not start here now (beside one that runs, use --config-only)",
        }
    );
    code
}

/// Says what a server would do.
fn explain(options: &Options) {
    say!("The configuration is fine. A server would");
    for l in &options.listeners {
        let reply = describe(l);
        say!(
            "  listen on {} ({}): lines up to {} into stream {}, when full {}{reply}",
            l.address,
            l.name,
            Size(l.max_line_bytes as u64),
            l.routes.own().name,
            l.when_full
        );
    }
    for s in &options.streams {
        say!(
            "  write stream {} to {}: segments of {} or {}, synced every {} or {}",
            s.name,
            options.data_dir.join(&s.name).display(),
            Size(s.segment_bytes),
            Time(s.segment_age),
            Time(s.sync_interval),
            Size(s.sync_bytes)
        );
        say!("    and of what is sealed {}", kept(s, options));
    }
    let placement = &options.placement;
    say!(
        "  run {} shard(s): {} reactor(s), one writer, one steward each; engine {}",
        placement.shards,
        placement.reactors_per_shard,
        options.engine
    );
    say!("  place them: {}", placement.plan);
    if options.memory.has_commit_log {
        let bytes = match options.commit_log {
            CommitLogSize::Bytes(bytes) => bytes,
            CommitLogSize::Auto | CommitLogSize::Off => AUTO_BYTES,
        };
        let logs = placement.shards * placement.reactors_per_shard;
        let if_it_pays = if options.commit_log == CommitLogSize::Auto { ", if it is quicker than a sync" } else { "" };
        say!("  make small groups durable in {logs} commit log(s) of {}, with io_uring{if_it_pays}", Size(bytes));
    }
    let for_connections = options.max_connections * reactor::bytes_per_connection(&options.listeners);
    let for_all = options.memory.total() + for_connections;
    say!("  use up to {} of memory, and a few MiB for the program:", Size(for_all as u64));
    say!(
        "    {} for lines, of buffer.memory = {}: {}",
        Size(options.memory.total() as u64),
        Size(options.buffer_bytes),
        options.memory
    );
    say!("    {} for {} connections, as far as they come", Size(for_connections as u64), options.max_connections);
    match options.admin {
        Some(address) => say!("  answer /metrics, /healthz and /readyz on http://{address}"),
        None => say!("  have no admin address"),
    }
}

/// What happens to the sealed segments of a stream, in words.
fn kept(stream: &StreamSettings, options: &Options) -> String {
    let mut does: Vec<String> = Vec::new();
    let retention = &stream.retention;
    let mut deletes: Vec<String> = Vec::new();
    deletes.extend(retention.max_age.map(|age| format!("after {}", Time(age))));
    deletes.extend(retention.max_bytes.map(|most| format!("above {} in all", Size(most))));
    deletes.extend(retention.min_free.map(|least| format!("below {} free", Size(least))));
    does.push(match deletes.is_empty() {
        true => "delete nothing".into(),
        false => format!("delete the oldest {}", deletes.join(", ")),
    });
    does.extend(
        stream
            .compress
            .map(|level| format!("compress with zstd, level {level}, in up to {} of memory", Size(MEMORY as u64))),
    );
    does.extend(options.sealed_dir.as_ref().map(|dir| format!("move to {}", dir.join(&stream.name).display())));
    does.join("; ")
}

/// What a listener does besides taking lines, in words.
fn describe(l: &ListenerOptions) -> String {
    let mut text = l.protocol.describe();
    if l.class == Class::Lossy {
        text += ", promising nothing about lines that were received: they may be dropped before they are written";
    }
    if l.proxy {
        text += ", behind a PROXY header";
    }
    match &l.tls {
        Some(tls) if tls.client_ca.is_some() || !tls.client_fingerprints.is_empty() => {
            text += ", with TLS, from clients with a certificate"
        }
        Some(_) => text += ", with TLS",
        None => {}
    }
    text
}
