//! `logweir check`

use super::{ConfigArgs, bad_configuration};
use crate::config::units::{Size, Time};
use std::process::ExitCode;

/// Checks and explains.
pub fn run(args: &ConfigArgs) -> ExitCode {
    let options = match args.load() {
        Ok(options) => options,
        Err(error) => return bad_configuration(&error),
    };
    println!("The configuration is fine. A server would");
    for l in &options.listeners {
        let lines = &l.lines;
        let reply = if lines.reply_count { ", replying with counts" } else { "" };
        println!(
            "  listen on {} ({}): lines up to {} into stream {}, when full {}{reply}",
            l.address,
            l.name,
            Size(lines.max_line_bytes as u64),
            options.streams[usize::from(l.stream)].name,
            l.when_full
        );
    }
    for s in &options.streams {
        println!(
            "  write stream {} to {}: segments of {} or {}, synced every {} or {}",
            s.name,
            options.data_dir.join(&s.name).display(),
            Size(s.segment_bytes),
            Time(s.segment_age),
            Time(s.sync_interval),
            Size(s.sync_bytes)
        );
    }
    let placement = &options.placement;
    println!(
        "  run {} shard(s): {} reactor(s), one writer, one steward each; engine {}",
        placement.shards, placement.reactors_per_shard, options.engine
    );
    println!("  place them: {}", placement.plan);
    println!("  use for lines, of {}: {}", Size(options.buffer_bytes), options.memory);
    println!(
        "  and for up to {} connections: {}",
        options.max_connections,
        Size((options.max_connections * crate::reactor::BYTES_PER_CONNECTION) as u64)
    );
    match options.admin {
        Some(address) => println!("  answer /metrics, /healthz and /readyz on http://{address}"),
        None => println!("  have no admin address"),
    }
    ExitCode::SUCCESS
}
