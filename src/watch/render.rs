//! Makes the text of `/metrics`: a snapshot of every thread's counts, through the `metrics` facade and the Prometheus exporter.
//!
//! Latencies have our own fixed buckets, added as text, because the histograms of the exporter keep every sample until they are
//! rendered.

use super::{process, server_info, shipping};
use crate::host::version;
use crate::log::disk::Disk;
use crate::log::recover::Recovered;
use crate::metrics::accounting::{Account, Accounting, REASONS, Tally};
use crate::metrics::cells::{BUCKETS_US, Histogram};
use crate::metrics::stats::{REFUSED, STATUSES, UNEXPECTED};
use crate::pipeline::control::Control;
use crate::pipeline::keeper::{Kept, KeptCounts};
use crate::pipeline::shard::Shard;
use metrics::{Unit, counter, describe_counter, describe_gauge, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

/// What recovery found at start, summed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecoverySums {
    /// Segments that a crash had left active.
    pub segments: u64,
    /// Lines kept in them.
    pub lines: u64,
    /// Bytes moved to `.torn`.
    pub torn_bytes: u64,
    /// Segments with damage.
    pub damaged: u64,
}

impl RecoverySums {
    /// Adds the report of one segment.
    pub fn add(&mut self, one: &Recovered) {
        self.segments += 1;
        self.lines += one.lines;
        self.torn_bytes += one.torn_bytes;
        self.damaged += u64::from(one.damage.is_some());
    }
}

/// Tells for each listener when its certificate expires, in seconds since 1970.
pub type Expiry = Box<dyn Fn() -> Vec<(String, i64)> + Send + Sync>;

/// Everything that is shown.
pub struct Metrics {
    /// The lines' account.
    pub accounting: Accounting,
    /// Names of the listeners, by place; a reload may add some.
    listeners: RwLock<Vec<String>>,
    /// The shards.
    pub shards: Vec<Arc<Shard>>,
    /// Readiness.
    pub control: Arc<Control>,
    /// Set when recovery is over.
    pub recovery: OnceLock<RecoverySums>,
    /// Set at the start: what housekeeping has done, and where the files are, as an absolute path.
    pub kept: OnceLock<(KeptCounts, Arc<dyn Disk>, PathBuf)>,
    /// Set when the engine is chosen: its name and the reason.
    pub engine: OnceLock<(&'static str, &'static str)>,
    /// Set at the start: when the certificates of listeners expire, in seconds since 1970.
    pub expiry: OnceLock<Expiry>,
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// One scrape at a time.
    scrape: Mutex<()>,
}

impl Metrics {
    /// Nothing is counted here; this only reads.
    #[must_use]
    pub fn new(accounting: Accounting, listeners: Vec<String>, shards: Vec<Arc<Shard>>, control: Arc<Control>) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        metrics::with_local_recorder(&recorder, describe);
        let (recovery, engine, scrape, kept) = (OnceLock::new(), OnceLock::new(), Mutex::new(()), OnceLock::new());
        let listeners = RwLock::new(listeners);
        let expiry = OnceLock::new();
        Metrics { accounting, listeners, shards, control, recovery, kept, engine, expiry, recorder, handle, scrape }
    }

    /// Names of the listeners, in the order of their accounts.
    #[must_use]
    pub fn listeners(&self) -> Vec<String> {
        self.listeners.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds listeners behind those that there are.
    pub fn add_listeners(&self, names: impl Iterator<Item = String>) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).extend(names);
    }

    /// The text.
    #[must_use]
    pub fn render(&self) -> String {
        let _one_at_a_time = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        let accounts = self.accounting.snapshot();
        metrics::with_local_recorder(&self.recorder, || {
            for (name, account) in self.listeners().iter().zip(&accounts) {
                publish_account(name, account);
            }
            self.shards.iter().for_each(|shard| publish_shard(shard));
            self.publish_server();
        });
        let mut text = self.handle.render();
        self.latencies(&mut text);
        self.backpressure(&mut text);
        process::write(&mut text);
        if let Some((told, _, dir)) = self.kept.get() {
            shipping::write(&mut text, told);
            server_info::write(&mut text, dir);
        }
        text
    }

    fn publish_server(&self) {
        gauge!("logweir_ready").set(f64::from(u8::from(self.control.not_ready().is_none())));
        gauge!("logweir_intake_stopped").set(f64::from(u8::from(self.control.intake_stopped())));
        let build = [("version", version::VERSION), ("commit", version::COMMIT), ("target", version::TARGET)];
        gauge!("logweir_build_info", &build).set(1.0);
        if let Some((engine, reason)) = self.engine.get() {
            gauge!("logweir_engine_info", "engine" => *engine, "reason" => *reason).set(1.0);
        }
        for (listener, until) in self.expiry.get().iter().flat_map(|expiry| expiry()) {
            gauge!("logweir_tls_expiry_timestamp_seconds", "listener" => listener).set(until as f64);
        }
        let (not_read, flood) = crate::watch::logging::dropped();
        counter!("logweir_own_log_lines_dropped_total", "reason" => "not_read").absolute(not_read);
        counter!("logweir_own_log_lines_dropped_total", "reason" => "flood").absolute(flood);
        if let Some((counts, disk, dir)) = self.kept.get() {
            publish_room(&**disk, dir);
            let counts = counts.streams.lock().unwrap_or_else(PoisonError::into_inner);
            counts.iter().for_each(|(stream, kept)| publish_kept(stream, kept));
        }
        if let Some(recovery) = self.recovery.get() {
            gauge!("logweir_recovered_segments").set(recovery.segments as f64);
            gauge!("logweir_recovered_lines").set(recovery.lines as f64);
            gauge!("logweir_recovered_torn_bytes").set(recovery.torn_bytes as f64);
            gauge!("logweir_recovered_damaged_segments").set(recovery.damaged as f64);
        }
    }

    /// The exporter's counters are whole numbers; these are seconds.
    fn backpressure(&self, text: &mut String) {
        let name = "logweir_backpressure_seconds_total";
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "# HELP {name} Time in which reading stopped because no chunk was free.\n# TYPE {name} counter"
        );
        for shard in &self.shards {
            let seconds = shard.reactors.iter().map(|r| r.stats.backpressure_ns.get()).sum::<u64>() as f64 / 1e9;
            let _ = writeln!(text, "{name}{{shard=\"{}\"}} {seconds}", shard.index);
        }
    }

    fn latencies(&self, text: &mut String) {
        let write = self.shards.iter().map(|s| (s.index, &s.writer_stats.write_latency)).collect::<Vec<_>>();
        histogram(text, "logweir_write_seconds", "Time that one write to a segment took.", &write);
        let sync = self.shards.iter().map(|s| (s.index, &s.writer_stats.sync_latency)).collect::<Vec<_>>();
        histogram(text, "logweir_sync_seconds", "Time that one fdatasync of a segment took.", &sync);
        let commits = self
            .shards
            .iter()
            .flat_map(|s| s.reactors.iter().map(|r| (s.index, &r.stats.commit.latency)))
            .collect::<Vec<_>>();
        histogram(text, "logweir_commit_seconds", "Time that one write to a commit log took.", &commits);
        let acks = self
            .shards
            .iter()
            .flat_map(|s| s.reactors.iter().map(|r| (s.index, &r.stats.ack_latency)))
            .collect::<Vec<_>>();
        histogram(text, "logweir_ack_seconds", "Time from receiving a line to its acknowledgement.", &acks);
    }
}

fn describe() {
    let counters = [
        ("logweir_received_lines_total", "Whole lines found in what was received."),
        ("logweir_received_bytes_total", "Bytes of the lines found in what was received, as they stand in the file."),
        ("logweir_durable_lines_total", "Lines that are on disk: the fdatasync behind their write succeeded."),
        ("logweir_durable_bytes_total", "Bytes of the lines that are on disk."),
        ("logweir_dropped_lines_total", "Lines dropped, by reason."),
        ("logweir_dropped_bytes_total", "Bytes of dropped lines, by reason."),
        ("logweir_at_risk_lines_total", "Lines written whose sync failed and that were not held any more."),
        ("logweir_at_risk_bytes_total", "Bytes of lines written whose sync failed and that were not held any more."),
        (
            "logweir_lost_datagrams_total",
            "UDP datagrams that the kernel dropped before they could be received, because the queue of their socket was full.",
        ),
        ("logweir_truncated_lines_total", "Lines cut to max_line_bytes."),
        ("logweir_truncated_bytes_total", "Bytes cut off from lines longer than max_line_bytes."),
        (
            "logweir_replaced_lines_total",
            "Lines in which bytes that are not UTF-8 were replaced by U+FFFD, because they came as JSON or are written as JSON.",
        ),
        ("logweir_network_received_bytes_total", "Bytes received from all sockets, before TLS and decoding."),
        ("logweir_receives_total", "Receive calls that brought bytes."),
        ("logweir_connections_accepted_total", "Connections that a shard has accepted."),
        (
            "logweir_senders_moved_total",
            "Busy senders of datagrams that moved to a reactor of their shard with less to do.",
        ),
        ("logweir_connections_moved_total", "Connections that moved to a reactor of their shard with less to do."),
        ("logweir_reactor_received_bytes_total", "Bytes received by one reactor."),
        ("logweir_connections_refused_total", "Connections refused or closed by the server, by reason."),
        (
            "logweir_unexpected_input_total",
            "Times that a client sent the beginning of another protocol than its listener speaks, by kind.",
        ),
        ("logweir_http_responses_total", "Answers of HTTP listeners, by status."),
        ("logweir_accept_failures_total", "Accepts that failed for want of descriptors."),
        ("logweir_backpressure_events_total", "Times that reading stopped because no chunk was free."),
        ("logweir_partial_line_waits_total", "Times that a connection waited for room for its partial line."),
        (
            "logweir_polled_instead_total",
            "Times that a connection was polled since every buffer for small reads was in use.",
        ),
        ("logweir_commit_log_records_total", "Small groups of lines that became durable in a commit log."),
        ("logweir_commit_log_written_bytes_total", "Bytes written to commit logs, in whole blocks."),
        ("logweir_own_log_lines_dropped_total", "Lines of logweir's own log that were not written, by reason."),
        ("logweir_appends_total", "Writes that appended to a segment."),
        ("logweir_appended_bytes_total", "Bytes appended to segments."),
        ("logweir_syncs_total", "Calls of fdatasync on segments that succeeded."),
        ("logweir_sync_failures_total", "Calls of fdatasync on segments that failed."),
        ("logweir_write_failures_total", "Appends that failed, other than for want of room."),
        ("logweir_rotations_total", "Segments that were ended and replaced by a new one."),
        ("logweir_rotation_failures_total", "Segments that could not be prepared or sealed at the first try."),
        (
            "logweir_foreign_changes_total",
            "Times that somebody else had changed, moved or deleted a segment being written.",
        ),
        ("logweir_disk_full_events_total", "Times that the disk turned out to be full."),
        ("logweir_deleted_segments_total", "Segments that retention has deleted, by reason."),
        ("logweir_deleted_bytes_total", "Bytes of segment files that retention has deleted."),
        ("logweir_compressed_segments_total", "Sealed segments compressed."),
        ("logweir_compressed_text_bytes_total", "Bytes of compressed segments before compression."),
        ("logweir_compressed_file_bytes_total", "Bytes of compressed segments after compression."),
        ("logweir_moved_bytes_total", "Bytes moved to sealed_dir."),
        ("logweir_housekeeping_failures_total", "Times that deleting, compressing or moving failed; tried again."),
    ];
    counters.iter().for_each(|(name, text)| describe_counter!(*name, *text));
    let gauges = [
        ("logweir_build_info", "Always 1: version and commit of the program, and what it was built for."),
        ("logweir_written_lines", "Lines written and not synced yet."),
        ("logweir_written_bytes", "Bytes of lines written and not synced yet."),
        ("logweir_in_flight_lines", "Lines received and not written yet."),
        ("logweir_in_flight_bytes", "Bytes of lines received and not written yet."),
        (
            "logweir_unaccounted_lines",
            "Lines received less those durable, written, in flight, dropped and at risk: 0, or a bug.",
        ),
        ("logweir_unaccounted_bytes", "Bytes of the lines that are unaccounted for: 0, or a bug."),
        ("logweir_connections", "Connections that a shard has open."),
        ("logweir_reactor_connections", "Connections open at one reactor."),
        ("logweir_buffer_utilisation", "Share of a shard's chunks that are in use, 0 to 1."),
        ("logweir_buffer_bytes", "Bytes of all chunks of a shard, in use or not."),
        ("logweir_partial_line_bytes", "Memory held for lines that have not ended yet, in bytes."),
        ("logweir_ring_chunks", "Chunks that wait in the rings of a shard."),
        ("logweir_commit_logs", "Commit logs that small groups of lines go to, one for each reactor at most."),
        ("logweir_commit_logs_given_up", "Commit logs that were given up, because a write failed or took too long."),
        ("logweir_commit_log_utilisation", "Share of a shard's commit logs that segments lack still, 0 to 1."),
        ("logweir_disk_full", "1 while a writer waits for room on a full disk."),
        ("logweir_stored_bytes", "Bytes of the files of a stream, as of the last segment that was sealed."),
        ("logweir_stored_segments", "Sealed segments of a stream."),
        ("logweir_data_free_bytes", "Bytes free for the server in the file system of data_dir."),
        ("logweir_data_size_bytes", "Size of the file system of data_dir, in bytes."),
        ("logweir_ready", "1 while the server takes lines."),
        ("logweir_intake_stopped", "1 once a second failure of the disk has stopped intake."),
        (
            "logweir_tls_expiry_timestamp_seconds",
            "When the first certificate or revocation list of a listener expires, in seconds since 1970.",
        ),
        ("logweir_engine_info", "Always 1: the engine that runs, and why this one."),
        ("logweir_recovered_segments", "Segments that the last run had left active, found at the start."),
        ("logweir_recovered_lines", "Lines kept in the segments that the last run had left active."),
        (
            "logweir_recovered_torn_bytes",
            "Bytes behind the last whole line of a segment, moved to .torn files at the start.",
        ),
        ("logweir_recovered_damaged_segments", "Segments whose durable bytes did not match at start."),
    ];
    gauges.iter().for_each(|(name, text)| describe_gauge!(*name, Unit::Count, *text));
}

fn publish_account(listener: &str, account: &Account) {
    let name = listener.to_string();
    let count = |lines: &'static str, bytes: &'static str, tally: Tally| {
        counter!(lines, "listener" => name.clone()).absolute(tally.lines);
        counter!(bytes, "listener" => name.clone()).absolute(tally.bytes);
    };
    let level = |lines: &'static str, bytes: &'static str, tally: Tally| {
        gauge!(lines, "listener" => name.clone()).set(tally.lines as i64 as f64);
        gauge!(bytes, "listener" => name.clone()).set(tally.bytes as i64 as f64);
    };
    count("logweir_received_lines_total", "logweir_received_bytes_total", account.received);
    count("logweir_durable_lines_total", "logweir_durable_bytes_total", account.durable);
    count("logweir_at_risk_lines_total", "logweir_at_risk_bytes_total", account.at_risk);
    level("logweir_written_lines", "logweir_written_bytes", account.written);
    level("logweir_in_flight_lines", "logweir_in_flight_bytes", account.in_flight);
    level("logweir_unaccounted_lines", "logweir_unaccounted_bytes", account.residual());
    for ((_, reason), tally) in REASONS.iter().zip(account.dropped) {
        counter!("logweir_dropped_lines_total", "listener" => name.clone(), "reason" => *reason).absolute(tally.lines);
        counter!("logweir_dropped_bytes_total", "listener" => name.clone(), "reason" => *reason).absolute(tally.bytes);
    }
}

fn publish_shard(shard: &Shard) {
    let index = shard.index.to_string();
    let sum = |f: &dyn Fn(&crate::metrics::stats::ReactorCells) -> u64| {
        shard.reactors.iter().map(|r| f(&r.stats)).sum::<u64>()
    };
    let count = |name: &'static str, value: u64| counter!(name, "shard" => index.clone()).absolute(value);
    count("logweir_network_received_bytes_total", sum(&|r| r.network_bytes.get()));
    count("logweir_receives_total", sum(&|r| r.receives.get()));
    count("logweir_lost_datagrams_total", sum(&|r| r.lost_datagrams.get()));
    count("logweir_truncated_lines_total", sum(&|r| r.truncated_lines.get()));
    count("logweir_truncated_bytes_total", sum(&|r| r.truncated_bytes.get()));
    count("logweir_replaced_lines_total", sum(&|r| r.replaced_lines.get()));
    count("logweir_connections_accepted_total", sum(&|r| r.accepted.get()));
    count("logweir_senders_moved_total", sum(&|r| r.steered.get()));
    count("logweir_connections_moved_total", sum(&|r| r.moved.get()));
    for (number, port) in shard.reactors.iter().enumerate() {
        let labels = [("shard", index.clone()), ("reactor", number.to_string())];
        gauge!("logweir_reactor_connections", &labels).set(port.stats.open.get() as f64);
        counter!("logweir_reactor_received_bytes_total", &labels).absolute(port.stats.network_bytes.get());
    }
    count("logweir_accept_failures_total", sum(&|r| r.accept_failures.get()));
    count("logweir_backpressure_events_total", sum(&|r| r.backpressure_events.get()));
    count("logweir_partial_line_waits_total", sum(&|r| r.tail_waits.get()));
    count("logweir_polled_instead_total", sum(&|r| r.polled_instead.get()));
    count("logweir_commit_log_records_total", sum(&|r| r.commit.records.get()));
    count("logweir_commit_log_written_bytes_total", sum(&|r| r.commit.bytes.get()));
    for (refused, reason) in REFUSED {
        let value = sum(&|r| r.refused[refused as usize].get());
        counter!("logweir_connections_refused_total", "shard" => index.clone(), "reason" => reason).absolute(value);
    }
    for (kind, label, _) in UNEXPECTED {
        let value = sum(&|r| r.unexpected[kind as usize].get());
        counter!("logweir_unexpected_input_total", "shard" => index.clone(), "kind" => label).absolute(value);
    }
    for (place, status) in STATUSES.iter().enumerate() {
        let value = sum(&|r| r.answers.iter().nth(place).map_or(0, |(_, n)| n));
        if value > 0 {
            let labels = [("shard", index.clone()), ("status", status.to_string())];
            counter!("logweir_http_responses_total", &labels).absolute(value);
        }
    }
    let writer = &shard.writer_stats;
    count("logweir_appends_total", writer.appends.get());
    count("logweir_appended_bytes_total", writer.append_bytes.get());
    count("logweir_syncs_total", writer.syncs.get());
    count("logweir_sync_failures_total", writer.sync_failures.get());
    count("logweir_write_failures_total", writer.write_failures.get());
    count("logweir_rotations_total", writer.rotations.get());
    count("logweir_rotation_failures_total", writer.rotation_failures.get());
    count("logweir_foreign_changes_total", writer.foreign_changes.get());
    count("logweir_disk_full_events_total", writer.full_events.get());

    let level = |name: &'static str, value: f64| gauge!(name, "shard" => index.clone()).set(value);
    level("logweir_connections", sum(&|r| r.open.get()) as f64);
    level("logweir_partial_line_bytes", sum(&|r| r.tail_bytes.get()) as f64);
    level("logweir_commit_logs", sum(&|r| r.commit.in_use.get()) as f64);
    level("logweir_commit_logs_given_up", sum(&|r| r.commit.given_up.get()) as f64);
    let used = sum(&|r| r.commit.used.get()) as f64;
    level("logweir_commit_log_utilisation", used / (sum(&|r| r.commit.blocks.get()) as f64).max(1.0));
    level("logweir_disk_full", writer.full.get() as f64);
    level("logweir_buffer_bytes", shard.capacity_bytes() as f64);
    level("logweir_ring_chunks", shard.channels.iter().map(|c| c.ring.len()).sum::<usize>() as f64);
    let chunks: usize = shard.channels.iter().map(|c| c.pool.chunks()).sum();
    let free: usize = shard.channels.iter().map(|c| c.pool.free()).sum();
    level("logweir_buffer_utilisation", 1.0 - free.min(chunks) as f64 / chunks.max(1) as f64);
}

fn publish_room(disk: &dyn Disk, dir: &Path) {
    if let Ok(free) = disk.free_bytes(dir) {
        gauge!("logweir_data_free_bytes").set(free as f64);
    }
    if let Ok(size) = disk.size_bytes(dir) {
        gauge!("logweir_data_size_bytes").set(size as f64);
    }
}

fn publish_kept(stream: &str, kept: &Kept) {
    let name = stream.to_string();
    let count = |metric: &'static str, value: u64| counter!(metric, "stream" => name.clone()).absolute(value);
    for why in ["max_age", "max_bytes", "min_free"] {
        let value = kept.deleted.get(why).copied().unwrap_or(0);
        counter!("logweir_deleted_segments_total", "stream" => name.clone(), "reason" => why).absolute(value);
    }
    count("logweir_deleted_bytes_total", kept.deleted_bytes);
    count("logweir_compressed_segments_total", kept.compressed);
    count("logweir_compressed_text_bytes_total", kept.text_bytes);
    count("logweir_compressed_file_bytes_total", kept.packed_bytes);
    count("logweir_moved_bytes_total", kept.moved_bytes);
    count("logweir_housekeeping_failures_total", kept.failures);
    gauge!("logweir_stored_bytes", "stream" => name.clone()).set(kept.bytes as f64);
    gauge!("logweir_stored_segments", "stream" => name.clone()).set(kept.segments as f64);
}

/// One histogram in the Prometheus text format; histograms of the same shard are added up.
fn histogram(text: &mut String, name: &str, help: &str, parts: &[(u16, &Histogram)]) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
    let mut shards: Vec<u16> = parts.iter().map(|(shard, _)| *shard).collect();
    shards.dedup();
    for shard in shards {
        let mut counts = [0; BUCKETS_US.len() + 1];
        let mut sum = 0.0;
        for (_, part) in parts.iter().filter(|(s, _)| *s == shard) {
            let (buckets, seconds) = part.read();
            counts.iter_mut().zip(buckets).for_each(|(a, b)| *a += b);
            sum += seconds;
        }
        let mut cumulative = 0;
        for (bound, count) in BUCKETS_US.iter().zip(counts) {
            cumulative += count;
            let le = *bound as f64 / 1e6;
            let _ = writeln!(text, "{name}_bucket{{shard=\"{shard}\",le=\"{le}\"}} {cumulative}");
        }
        cumulative += counts[BUCKETS_US.len()];
        let _ = writeln!(text, "{name}_bucket{{shard=\"{shard}\",le=\"+Inf\"}} {cumulative}");
        let _ = writeln!(text, "{name}_sum{{shard=\"{shard}\"}} {sum}\n{name}_count{{shard=\"{shard}\"}} {cumulative}");
    }
}
