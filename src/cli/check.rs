//! `logweir check`

use super::{ConfigArgs, bad_configuration};
use crate::config::Options;
use crate::config::checked::StreamSettings;
use crate::host::output::{complain, say};
use crate::intake::listener::ListenerOptions;
use crate::log::seekable::MEMORY;
use crate::pipeline::chunk::Class;
use crate::settings::units::{Size, Time};
use std::process::ExitCode;

/// Checks and explains.
pub fn run(args: &ConfigArgs) -> ExitCode {
    let options = match args.load() {
        Ok(options) => options,
        Err(error) => return bad_configuration(&error),
    };
    if let Err(error) = crate::server::Certificates::load(&options.listeners) {
        complain!("{error}");
        return ExitCode::from(super::BAD_CONFIGURATION);
    }
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
        say!("    and of what is sealed {}", kept(s, &options));
    }
    let placement = &options.placement;
    say!(
        "  run {} shard(s): {} reactor(s), one writer, one steward each; engine {}",
        placement.shards,
        placement.reactors_per_shard,
        options.engine
    );
    say!("  place them: {}", placement.plan);
    say!("  use for lines, of {}: {}", Size(options.buffer_bytes), options.memory);
    say!(
        "  and for up to {} connections: {}",
        options.max_connections,
        Size((options.max_connections * crate::intake::reactor::bytes_per_connection(&options.listeners)) as u64)
    );
    match options.admin {
        Some(address) => say!("  answer /metrics, /healthz and /readyz on http://{address}"),
        None => say!("  have no admin address"),
    }
    ExitCode::SUCCESS
}

/// What becomes of a stream's sealed segments.
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

/// What a listener does beside taking lines.
fn describe(l: &ListenerOptions) -> String {
    let mut text = l.protocol.describe();
    if l.class == Class::Lossy {
        text += ", promising nothing about lines that were received: they may be dropped before they are written";
    }
    if l.proxy {
        text += ", behind a PROXY header";
    }
    match &l.tls {
        Some(tls) if tls.client_ca.is_some() => text += ", with TLS, from clients with a certificate",
        Some(_) => text += ", with TLS",
        None => {}
    }
    text
}
