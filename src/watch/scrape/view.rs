//! A server at a glance: the figures that a person wants, computed from two scrapes.

use super::about::About;
use super::window::Window;

/// Median and 99th percentile, in seconds; `None`: nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Latency {
    /// Median.
    pub p50: Option<f64>,
    /// 99th percentile.
    pub p99: Option<f64>,
}

/// One listener.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ListenerRow {
    /// Its name.
    pub name: String,
    /// Lines received a second.
    pub lines: f64,
    /// Their bytes a second.
    pub bytes: f64,
    /// Lines received in all.
    pub received: f64,
    /// Lines durable in all.
    pub durable: f64,
    /// Lines in chunks now.
    pub in_flight: f64,
    /// Lines dropped in all.
    pub dropped: f64,
    /// Lines dropped a second.
    pub drops: f64,
    /// Lines at risk in all.
    pub at_risk: f64,
}

/// One shard.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ShardRow {
    /// Its number.
    pub name: String,
    /// Connections open.
    pub connections: f64,
    /// Share of its chunks in use.
    pub buffer: f64,
    /// Bytes appended a second.
    pub appended: f64,
    /// Syncs a second.
    pub syncs: f64,
    /// Time of an append.
    pub write: Latency,
    /// Time of a sync.
    pub sync: Latency,
    /// Share of the time in which reading stopped for want of a chunk.
    pub backpressure: f64,
    /// A writer waits for room.
    pub is_full: bool,
}

/// What was lost before it was received.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Lost {
    /// In all.
    pub all: f64,
    /// A second.
    pub a_second: f64,
}

/// One target of shipping.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TargetRow {
    /// Its name.
    pub name: String,
    /// Its shipper runs.
    pub is_up: bool,
    /// Lines shipped a second.
    pub lines: f64,
    /// Lines that it has not got.
    pub behind: f64,
    /// The age of the oldest of them, in seconds.
    pub age: f64,
    /// Lines deleted before it had them, since the server's start.
    pub lost: f64,
}

/// The terms of the account, in lines.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Terms {
    /// Received.
    pub received: f64,
    /// Durable.
    pub durable: f64,
    /// Written, not yet durable.
    pub written: f64,
    /// In flight.
    pub in_flight: f64,
    /// Dropped.
    pub dropped: f64,
    /// At risk.
    pub at_risk: f64,
    /// Unaccounted: received less all other terms. It should be 0.
    pub unaccounted: f64,
}

/// The whole view.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct View {
    /// Which server this is.
    pub about: About,
    /// Takes lines.
    pub is_ready: bool,
    /// The disk has failed for the second time.
    pub has_stopped: bool,
    /// Which engine.
    pub engine: String,
    /// Lines received a second.
    pub lines: f64,
    /// Their bytes a second.
    pub bytes: f64,
    /// The fullest shard's share of chunks in use.
    pub buffer: f64,
    /// Bytes free in the file system of the data directory, and its size; `None`: the server does not say.
    pub room: Option<(f64, f64)>,
    /// Connections open.
    pub connections: f64,
    /// Connections accepted a second.
    pub accepted: f64,
    /// Time of an append.
    pub write: Latency,
    /// Time of a sync.
    pub sync: Latency,
    /// From receiving to acknowledging.
    pub ack: Latency,
    /// Share of the time in which some shard did not read for want of a chunk; summed over shards.
    pub backpressure: f64,
    /// Times that reading stopped, a second.
    pub pauses: f64,
    /// Lines dropped a second.
    pub drops: f64,
    /// Lines dropped in all, by reason, only those that happened.
    pub dropped: Vec<(String, f64)>,
    /// Datagrams that the kernel dropped before they were received.
    pub lost: Lost,
    /// Connections refused in all, by reason, only those that happened.
    pub refused: Vec<(String, f64)>,
    /// Failed syncs and appends, in all.
    pub failures: f64,
    /// The account.
    pub terms: Terms,
    /// By listener.
    pub listeners: Vec<ListenerRow>,
    /// By shard.
    pub shards: Vec<ShardRow>,
    /// By target of shipping.
    pub targets: Vec<TargetRow>,
}

fn latency(w: &Window, name: &str, filter: &[(&str, &str)]) -> Latency {
    Latency { p50: w.quantile(name, filter, 0.5), p99: w.quantile(name, filter, 0.99) }
}

impl View {
    /// Computes the view from two scrapes.
    #[must_use]
    pub fn new(w: &Window) -> View {
        let now = &w.after;
        let reasons = |name: &str| {
            let all = now.values(name, "reason").into_iter();
            let counted = all.map(|reason| (reason.clone(), now.sum(name, &[("reason", &reason)])));
            counted.filter(|(_, n)| *n > 0.0).collect::<Vec<_>>()
        };
        View {
            about: About::new(now),
            is_ready: now.sum("logweir_ready", &[]) > 0.0,
            has_stopped: now.sum("logweir_intake_stopped", &[]) > 0.0,
            engine: now.label("logweir_engine_info", "engine").unwrap_or("").to_string(),
            lines: w.rate("logweir_received_lines_total", &[]),
            bytes: w.rate("logweir_received_bytes_total", &[]),
            buffer: now.max("logweir_buffer_utilisation", &[]).unwrap_or(0.0),
            room: now.max("logweir_data_free_bytes", &[]).zip(now.max("logweir_data_size_bytes", &[])),
            connections: now.sum("logweir_connections", &[]),
            accepted: w.rate("logweir_connections_accepted_total", &[]),
            write: latency(w, "logweir_write_seconds", &[]),
            sync: latency(w, "logweir_sync_seconds", &[]),
            ack: latency(w, "logweir_ack_seconds", &[]),
            backpressure: w.rate("logweir_backpressure_seconds_total", &[]),
            pauses: w.rate("logweir_backpressure_events_total", &[]),
            drops: w.rate("logweir_dropped_lines_total", &[]),
            dropped: reasons("logweir_dropped_lines_total"),
            lost: Lost {
                all: now.sum("logweir_lost_datagrams_total", &[]),
                a_second: w.rate("logweir_lost_datagrams_total", &[]),
            },
            refused: reasons("logweir_connections_refused_total"),
            failures: now.sum("logweir_sync_failures_total", &[]) + now.sum("logweir_write_failures_total", &[]),
            terms: Terms {
                received: now.sum("logweir_received_lines_total", &[]),
                durable: now.sum("logweir_durable_lines_total", &[]),
                written: now.sum("logweir_written_lines", &[]),
                in_flight: now.sum("logweir_in_flight_lines", &[]),
                dropped: now.sum("logweir_dropped_lines_total", &[]),
                at_risk: now.sum("logweir_at_risk_lines_total", &[]),
                unaccounted: now.sum("logweir_unaccounted_lines", &[]),
            },
            listeners: now.values("logweir_received_lines_total", "listener").iter().map(|l| listener(w, l)).collect(),
            shards: now.values("logweir_buffer_utilisation", "shard").iter().map(|s| shard(w, s)).collect(),
            targets: now.values("logweir_ship_up", "target").iter().map(|t| target(w, t)).collect(),
        }
    }
}

impl View {
    /// Free room in words: `65.3 GB (26 %)`.
    #[must_use]
    pub fn room_text(&self) -> String {
        let Some((free, size)) = self.room else { return "-".into() };
        format!("{} ({:.0} %)", super::short_bytes(free), free / size.max(1.0) * 100.0)
    }
}

fn target(w: &Window, name: &str) -> TargetRow {
    let filter = &[("target", name)];
    TargetRow {
        name: name.to_string(),
        is_up: w.after.sum("logweir_ship_up", filter) > 0.0,
        lines: w.rate("logweir_ship_lines_total", filter),
        behind: w.after.sum("logweir_ship_lag_lines", filter),
        age: w.after.sum("logweir_ship_lag_seconds", filter),
        lost: w.after.sum("logweir_ship_lost_before_shipping_lines_total", filter),
    }
}

fn listener(w: &Window, name: &str) -> ListenerRow {
    let filter = &[("listener", name)];
    ListenerRow {
        name: name.to_string(),
        lines: w.rate("logweir_received_lines_total", filter),
        bytes: w.rate("logweir_received_bytes_total", filter),
        received: w.after.sum("logweir_received_lines_total", filter),
        durable: w.after.sum("logweir_durable_lines_total", filter),
        in_flight: w.after.sum("logweir_in_flight_lines", filter),
        dropped: w.after.sum("logweir_dropped_lines_total", filter),
        drops: w.rate("logweir_dropped_lines_total", filter),
        at_risk: w.after.sum("logweir_at_risk_lines_total", filter),
    }
}

fn shard(w: &Window, name: &str) -> ShardRow {
    let filter = &[("shard", name)];
    ShardRow {
        name: name.to_string(),
        connections: w.after.sum("logweir_connections", filter),
        buffer: w.after.sum("logweir_buffer_utilisation", filter),
        appended: w.rate("logweir_appended_bytes_total", filter),
        syncs: w.rate("logweir_syncs_total", filter),
        write: latency(w, "logweir_write_seconds", filter),
        sync: latency(w, "logweir_sync_seconds", filter),
        backpressure: w.rate("logweir_backpressure_seconds_total", filter),
        is_full: w.after.sum("logweir_disk_full", filter) > 0.0,
    }
}
