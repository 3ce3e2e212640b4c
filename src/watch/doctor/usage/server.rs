//! The use of logweir's own resources, from its metrics.

use super::Row;
use crate::watch::scrape::view::Latency;
use crate::watch::scrape::{View, Window, short, short_bytes, short_time};

/// A buffer this full is near its end.
const FULL: f64 = 0.7;

fn shown(latency: Latency) -> String {
    let time = |t: Option<f64>| t.map_or("-".into(), short_time);
    format!("p50 {}, p99 {}", time(latency.p50), time(latency.p99))
}

pub fn rows(window: &Window) -> Vec<Row> {
    let view = View::new(window);
    let sum = |name: &str| window.after.sum(name, &[]);
    let all = |reasons: &[(String, f64)]| {
        let parts: Vec<String> = reasons.iter().map(|(reason, n)| format!("{} {reason}", short(*n))).collect();
        if parts.is_empty() { "none".to_string() } else { parts.join(", ") }
    };
    let refused_descriptors = window.after.sum("logweir_connections_refused_total", &[("reason", "descriptors")]);
    let accept_failures = sum("logweir_accept_failures_total");
    let writing: f64 = window.growth("logweir_write_seconds_sum", &[]) + window.growth("logweir_sync_seconds_sum", &[]);
    let writers = view.shards.len().max(1) as f64;
    let share = writing / window.seconds.max(1e-9) / writers * 100.0;
    let is_full = view.shards.iter().any(|s| s.is_full);
    let mut rows = vec![
        Row::new(
            "logweir buffer",
            format!(
                "{:.0} % of the fullest shard's chunks, {} lines/s, {}/s",
                view.buffer * 100.0,
                short(view.lines),
                short_bytes(view.bytes)
            ),
            format!("reading stopped {:.1} % of the time, {} times", view.backpressure * 100.0, short(view.pauses)),
            format!(
                "dropped since the start: {}; lost before reception: {} datagrams; unaccounted: {}",
                all(&view.dropped),
                short(view.lost.all),
                view.terms.unaccounted
            ),
            view.buffer > FULL
                || view.backpressure > 0.05
                || view.drops + view.lost.a_second > 0.0
                || view.terms.unaccounted != 0.0,
        ),
        Row::new(
            "logweir writer",
            format!("{share:.0} % of the time in appends and syncs"),
            format!(
                "append {}; sync {}{}",
                shown(view.write),
                shown(view.sync),
                if is_full { "; the disk is full" } else { "" }
            ),
            format!(
                "{} failed syncs or appends, {} lines at risk{}",
                short(view.failures),
                short(view.terms.at_risk),
                if view.has_stopped { "; intake has stopped" } else { "" }
            ),
            is_full || view.failures > 0.0 || view.has_stopped || view.terms.at_risk > 0.0,
        ),
        Row::new(
            "logweir descriptors",
            format!("{} connections", short(view.connections)),
            format!("refused since the start: {}", all(&view.refused)),
            format!("{} accepts failed for want of descriptors", short(accept_failures)),
            refused_descriptors + accept_failures > 0.0,
        ),
    ];
    rows.extend(commit_log(window, view.shards.len().max(1) as f64));
    rows
}

/// `None`: the server has no commit log, and has given none up.
fn commit_log(window: &Window, shards: f64) -> Option<Row> {
    let sum = |name: &str| window.after.sum(name, &[]);
    let (logs, given_up) = (sum("logweir_commit_logs"), sum("logweir_commit_logs_given_up"));
    let used = sum("logweir_commit_log_utilisation") / shards;
    let time = |q: f64| window.quantile("logweir_commit_seconds", &[], q);
    (logs + given_up > 0.0).then(|| {
        Row::new(
            "logweir commit log",
            format!("{} in use, {:.0} % of their blocks", short(logs), used * 100.0),
            format!("write {}", shown(Latency { p50: time(0.5), p99: time(0.99) })),
            format!("{} given up since the start", short(given_up)),
            given_up > 0.0 || used > FULL,
        )
    })
}
