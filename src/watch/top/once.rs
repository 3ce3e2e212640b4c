//! `--once`: prints the same figures as plain text, for scripts.

use crate::watch::scrape::view::{Latency, TargetRow};
use crate::watch::scrape::{About, View, printable, short, short_bytes, short_share, short_time};
use std::fmt::Write;

pub(super) fn time(seconds: Option<f64>) -> String {
    seconds.map_or("-".into(), short_time)
}

fn latency(name: &str, of: Latency) -> String {
    format!("{name:<13} p50 {}, p99 {}\n", time(of.p50), time(of.p99))
}

/// Reasons with their counts.
pub(super) fn reasons(counts: &[(String, f64)]) -> String {
    let parts: Vec<String> = counts.iter().map(|(reason, n)| format!("{} {}", short(*n), printable(reason))).collect();
    if parts.is_empty() { "none".into() } else { parts.join(", ") }
}

/// Which server, as far as it says so.
fn about(about: &About) -> String {
    let parts = [("host", &about.host), ("version", &about.version), ("data", &about.data_dir)];
    let said = parts.iter().filter_map(|(name, value)| Some((*name, printable(value.as_ref()?))));
    let uptime = about.uptime_text().map(|text| ("uptime", text.trim_start_matches("up ").to_string()));
    said.chain(uptime).map(|(name, value)| format!("{name:<13} {value}\n")).collect()
}

/// How shipping to a target stands, in words.
pub(super) fn shipping(target: &TargetRow) -> String {
    let name = printable(&target.name);
    let up = if target.is_up { "" } else { " DOES NOT RUN," };
    let lost = if target.lost > 0.0 { format!("; {} lost before", short(target.lost)) } else { String::new() };
    let age = if target.age > 0.0 { format!(", the oldest {} old", short_time(target.age)) } else { String::new() };
    format!("{name}:{up} {} lines/s, {} lines behind{age}{lost}", short(target.lines), short(target.behind))
}

/// One frame.
#[must_use]
pub fn plain(admin: &str, view: &View, why: Option<&str>) -> String {
    let ready =
        if view.is_ready { "ready".to_string() } else { format!("NOT READY: {}", printable(why.unwrap_or("?"))) };
    let mut out = format!("logweir at {admin}: {ready}, engine {}\n", printable(&view.engine));
    out += &about(&view.about);
    let t = &view.terms;
    // Writing to a String cannot fail.
    let _ = writeln!(out, "lines/s       {}", short(view.lines));
    let _ = writeln!(out, "bytes/s       {}", short_bytes(view.bytes));
    let _ = writeln!(out, "buffer        {}", short_share(view.buffer, 1));
    let _ = writeln!(out, "backpressure  {} of the time, {}/s", short_share(view.backpressure, 1), short(view.pauses));
    let _ = writeln!(out, "disk free     {}", view.room_text());
    let _ = writeln!(out, "connections   {}, {} accepted/s", short(view.connections), short(view.accepted));
    out += &latency("write", view.write);
    out += &latency("sync", view.sync);
    out += &latency("ack", view.ack);
    let _ = writeln!(out, "dropped       {}/s; since the start: {}", short(view.drops), reasons(&view.dropped));
    let (losses, lost) = (short(view.lost.a_second), short(view.lost.all));
    let _ = writeln!(out, "lost          {losses}/s; since the start: {lost} datagrams before reception");
    let _ = writeln!(out, "refused       {}", reasons(&view.refused));
    for target in &view.targets {
        let _ = writeln!(out, "shipping      {}", shipping(target));
    }
    let _ = writeln!(
        out,
        "account       received {} = durable {} + written {} + in flight {} + dropped {} + at risk {}; left over {}",
        t.received, t.durable, t.written, t.in_flight, t.dropped, t.at_risk, t.unaccounted
    );
    let _ = writeln!(
        out,
        "{:<20} {:>10} {:>10} {:>14} {:>14} {:>10}",
        "listener", "lines/s", "bytes/s", "received", "durable", "dropped"
    );
    for l in &view.listeners {
        let _ = writeln!(
            out,
            "{:<20} {:>10} {:>10} {:>14} {:>14} {:>10}",
            printable(&l.name),
            short(l.lines),
            short_bytes(l.bytes),
            l.received,
            l.durable,
            l.dropped
        );
    }
    let _ = writeln!(
        out,
        "{:<8} {:>11} {:>8} {:>10} {:>10} {:>10} {:>10}",
        "shard", "connections", "buffer", "written/s", "syncs/s", "sync p50", "sync p99"
    );
    for s in &view.shards {
        let _ = writeln!(
            out,
            "{:<8} {:>11} {:>6.1} % {:>10} {:>10} {:>10} {:>10}{}",
            printable(&s.name),
            short(s.connections),
            s.buffer * 100.0,
            short_bytes(s.appended),
            short(s.syncs),
            time(s.sync.p50),
            time(s.sync.p99),
            if s.is_full { "  DISK FULL" } else { "" }
        );
    }
    out
}
