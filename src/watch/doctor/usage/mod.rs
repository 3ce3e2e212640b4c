//! `--use`: utilisation, saturation and errors of each resource (the USE method). It reads `/proc` twice, a second apart. If a
//! server runs, it also scrapes its metrics twice.

mod machine;
mod server;

use super::Host;
use super::mounts::{disks, mount_of};
use crate::host::topology::Tree;
use crate::watch::scrape::{Scrape, Window, fetch, printable};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// One resource. Field names are those of `--json` and must not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// `cpu`, `disk vda`, `logweir buffer`
    pub resource: String,
    /// How busy it is.
    pub utilisation: String,
    /// Who waits for it.
    pub saturation: String,
    /// What went wrong.
    pub errors: String,
    /// Something about it needs attention.
    pub attention: bool,
}

impl Row {
    fn new(
        resource: impl Into<String>,
        utilisation: String,
        saturation: String,
        errors: String,
        attention: bool,
    ) -> Row {
        Row { resource: resource.into(), utilisation, saturation, errors, attention }
    }
}

/// What is read at each look.
const FILES: [&str; 10] = [
    "proc/stat",
    "proc/meminfo",
    "proc/vmstat",
    "proc/diskstats",
    "proc/net/dev",
    "proc/net/snmp",
    "proc/net/netstat",
    "proc/pressure/cpu",
    "proc/pressure/memory",
    "proc/pressure/io",
];

/// One look.
#[derive(Debug, Clone, Default)]
pub struct Look(HashMap<&'static str, String>);

impl Look {
    /// Reads what is there.
    #[must_use]
    pub fn take(tree: &dyn Tree) -> Look {
        Look(FILES.iter().filter_map(|path| Some((*path, tree.read(path)?))).collect())
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }
}

/// Two looks.
pub struct Pair<'a> {
    /// The earlier.
    pub before: &'a Look,
    /// The later.
    pub after: &'a Look,
    /// Between them.
    pub seconds: f64,
}

/// Time between two looks.
const BETWEEN: Duration = Duration::from_secs(1);
/// How long an admin address may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Reads `/proc` twice, and prints the resources.
#[must_use]
pub fn observe(host: &dyn Host, data_dir: &Path, admin: Option<SocketAddr>) -> Vec<Row> {
    let scrape = || Some((Scrape::parse(&fetch(admin?, "/metrics", PATIENCE).ok()?.body), Instant::now()));
    let first = scrape();
    let before = Look::take(&super::machine::Files(host));
    let start = Instant::now();
    while start.elapsed() < BETWEEN {
        std::thread::park_timeout(BETWEEN - start.elapsed().min(BETWEEN));
    }
    let after = Look::take(&super::machine::Files(host));
    let pair = Pair { before: &before, after: &after, seconds: start.elapsed().as_secs_f64() };
    let window = first.zip(scrape()).map(|((before, then), (after, now))| {
        let seconds = now.duration_since(then).as_secs_f64();
        Window { before, after, seconds }
    });
    let of_data = mount_of(host, data_dir).map(|m| disks(host, &m)).unwrap_or_default();
    let names: Vec<&str> = of_data.iter().map(|d| d.name.as_str()).collect();
    rows(&pair, &names, window.as_ref().filter(|w| w.after.has("logweir_ready")), admin)
}

/// The rows for two looks and two scrapes.
#[must_use]
pub fn rows(pair: &Pair<'_>, disks: &[&str], server: Option<&Window>, admin: Option<SocketAddr>) -> Vec<Row> {
    let mut rows = vec![machine::cpu(pair), machine::memory(pair)];
    rows.extend(disks.iter().map(|name| machine::disk(pair, name)));
    rows.push(machine::network(pair));
    rows.push(machine::accept_queue(pair));
    match (server, admin) {
        (Some(window), _) => rows.extend(server::rows(window)),
        (None, Some(admin)) => {
            let nobody = format!("nobody answers on http://{admin}/metrics");
            rows.push(Row::new("logweir", nobody, UNKNOWN.into(), UNKNOWN.into(), false));
        }
        (None, None) => {}
    }
    rows
}

const UNKNOWN: &str = "cannot tell";

/// Joins the parts that are known.
fn known(parts: &[Option<String>]) -> String {
    let found: Vec<&str> = parts.iter().flatten().map(String::as_str).collect();
    if found.is_empty() { UNKNOWN.into() } else { found.join(", ") }
}

/// In words, for people.
#[must_use]
pub fn text(rows: &[Row]) -> String {
    let mut out = String::from("\nutilisation, saturation, errors (a second of this machine; ! deserves a look)\n");
    for row in rows {
        let mark = if row.attention { '!' } else { ' ' };
        let fields = [("utilisation", &row.utilisation), ("saturation", &row.saturation), ("errors", &row.errors)];
        for (i, (name, text)) in fields.iter().enumerate() {
            let (mark, resource) = if i == 0 { (mark, printable(&row.resource)) } else { (' ', String::new()) };
            // Writing to a String cannot fail.
            let _ = writeln!(out, "{mark} {resource:<20} {name:<12} {}", printable(text));
        }
    }
    out
}
