//! The metrics of shipping, by target, as text: a target that is taken out of the configuration is gone from it. The server counts what
//! is behind and what was lost; the rest its shipper says.

use crate::pipeline::keeper::{KeptCounts, TargetState};
use std::fmt::Write;
use std::sync::PoisonError;

/// A metric: name, type, help, and its value for a target.
type Family = (&'static str, &'static str, &'static str, fn(&TargetState) -> f64);

const FAMILIES: [Family; 12] = [
    ("logweir_ship_up", "gauge", "1 while the shipper of a target runs: it has said so in the last 30 seconds.", |t| {
        f64::from(u8::from(t.is_up))
    }),
    ("logweir_ship_lag_lines", "gauge", "Lines that were written and that a target has not got.", |t| {
        t.behind.lines as f64
    }),
    ("logweir_ship_lag_bytes", "gauge", "Bytes of text that were written and that a target has not got.", |t| {
        t.behind.bytes as f64
    }),
    ("logweir_ship_lag_seconds", "gauge", "Age of the oldest line that a target has not got.", |t| {
        t.age_ns as f64 / 1e9
    }),
    (
        "logweir_ship_holds_retention",
        "gauge",
        "1 while retention would delete something that a target has not got.",
        |t| f64::from(u8::from(t.is_holding)),
    ),
    ("logweir_ship_lines_total", "counter", "Lines that a target has, since its shipper was started.", |t| {
        t.status.as_ref().map_or(0, |said| said.lines) as f64
    }),
    ("logweir_ship_bytes_total", "counter", "Bytes of the lines that a target has.", |t| {
        t.status.as_ref().map_or(0, |said| said.bytes) as f64
    }),
    ("logweir_ship_transactions_total", "counter", "Transactions that carried lines to a target.", |t| {
        t.status.as_ref().map_or(0, |said| said.transactions) as f64
    }),
    ("logweir_ship_retries_total", "counter", "Times that a shipper began anew behind the last position.", |t| {
        t.status.as_ref().map_or(0, |said| said.retries) as f64
    }),
    ("logweir_ship_errors_total", "counter", "Errors of a target or its client.", |t| {
        t.status.as_ref().map_or(0, |said| said.errors) as f64
    }),
    (
        "logweir_ship_lost_before_shipping_lines_total",
        "counter",
        "Lines that were deleted before a target had them, as far as trails say.",
        |t| t.lost.0 as f64,
    ),
    (
        "logweir_ship_lost_before_shipping_bytes_total",
        "counter",
        "Bytes of segment files that were deleted before a target had them.",
        |t| t.lost.1 as f64,
    ),
];

/// Adds all targets of the configuration.
pub fn write(text: &mut String, told: &KeptCounts) {
    let targets = told.targets.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for (name, kind, help, value) in FAMILIES {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (target, state) in &targets {
            let _ = writeln!(text, "{name}{{target=\"{target}\"}} {}", value(state));
        }
    }
}
