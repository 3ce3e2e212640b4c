//! Reads the use of CPU, memory, disk and network from `/proc`.

use super::{Look, Pair, Row, known};
use crate::watch::scrape::{short_bytes, short_time};

/// Figures of a line that begins with a word.
fn line<'a>(text: &'a str, first: &str) -> Option<Vec<&'a str>> {
    let mut fields =
        text.lines().map(str::split_whitespace).find_map(|mut f| (f.next() == Some(first)).then_some(f))?;
    Some(fields.by_ref().collect())
}

fn figure(look: &Look, path: &str, name: &str) -> Option<f64> {
    let text = look.text(path)?;
    line(text, name).or_else(|| line(text, &format!("{name}:")))?.first()?.parse().ok()
}

impl Pair<'_> {
    /// By how much a figure grew, if it is there.
    fn grown(&self, path: &str, name: &str) -> Option<f64> {
        Some((figure(self.after, path, name)? - figure(self.before, path, name).unwrap_or(0.0)).max(0.0))
    }

    /// Share of the last ten seconds in which some task waited for a resource (pressure stall information).
    fn pressure(&self, resource: &str) -> Option<f64> {
        let text = self.after.text(&format!("proc/pressure/{resource}"))?;
        let some = line(text, "some")?;
        some.iter().find_map(|f| f.strip_prefix("avg10="))?.parse().ok()
    }
}

fn pressed(pressure: Option<f64>) -> Option<String> {
    pressure.map(|p| format!("tasks wait {p:.1} % of the time"))
}

/// Pressure above this needs attention, in per cent of the time.
const PRESSURE: f64 = 20.0;

pub fn cpu(pair: &Pair<'_>) -> Row {
    let times = |look: &Look| -> Option<Vec<f64>> {
        Some(line(look.text("proc/stat")?, "cpu")?.iter().take(8).filter_map(|f| f.parse().ok()).collect())
    };
    let shares =
        times(pair.before).zip(times(pair.after)).filter(|(b, a)| b.len() >= 5 && a.len() == b.len()).map(|(b, a)| {
            let spent: Vec<f64> = a.iter().zip(&b).map(|(a, b)| (a - b).max(0.0)).collect();
            let total = spent.iter().sum::<f64>().max(1.0);
            let share = |i: usize| spent.get(i).copied().unwrap_or(0.0) / total * 100.0;
            (100.0 - share(3) - share(4), share(2) + share(5) + share(6), share(4), share(7))
        });
    let stolen = shares.map_or(0.0, |s| s.3);
    let busy = shares
        .map(|(busy, kernel, wait, _)| format!("{busy:.0} % busy ({kernel:.0} % kernel), {wait:.0} % waits for disks"));
    let running = figure(pair.after, "proc/stat", "procs_running").map(|n| format!("{n:.0} tasks want to run"));
    let pressure = pair.pressure("cpu");
    Row::new(
        "cpu",
        known(&[busy]),
        known(&[running, pressed(pressure)]),
        known(&[shares.map(|s| format!("{:.1} % taken by the hypervisor", s.3))]),
        stolen > 5.0 || pressure.is_some_and(|p| p > PRESSURE),
    )
}

pub fn memory(pair: &Pair<'_>) -> Row {
    let of = |name: &str| crate::watch::doctor::memory_figure(pair.after.text("proc/meminfo")?, name).map(|n| n as f64);
    let used = of("MemTotal").zip(of("MemAvailable")).map(|(total, free)| (1.0 - free / total.max(1.0)) * 100.0);
    let dirty = of("Dirty").map(|n| format!("{} dirty", short_bytes(n)));
    let writeback = of("Writeback").map(|n| format!("{} on their way to disk", short_bytes(n)));
    let stalls = pair.grown("proc/vmstat", "allocstall_normal").or(pair.grown("proc/vmstat", "allocstall"));
    let swapped = pair.grown("proc/vmstat", "pswpout");
    let killed = pair.grown("proc/vmstat", "oom_kill");
    let kills = figure(pair.after, "proc/vmstat", "oom_kill");
    let pressure = pair.pressure("memory");
    Row::new(
        "memory",
        known(&[used.map(|u| format!("{u:.0} % in use")), dirty, writeback]),
        known(&[
            pressed(pressure),
            stalls.map(|n| format!("{n:.0} allocations waited")),
            swapped.map(|n| format!("{n:.0} pages swapped out")),
        ]),
        known(&[kills.map(|n| format!("{n:.0} processes killed for want of memory since boot"))]),
        pressure.is_some_and(|p| p > PRESSURE) || swapped.unwrap_or(0.0) + killed.unwrap_or(0.0) > 0.0,
    )
}

/// `/proc/diskstats` (Documentation/admin-guide/iostats.rst): counts behind the device's name.
pub fn disk(pair: &Pair<'_>, name: &str) -> Row {
    let figures = |look: &Look| -> Option<Vec<f64>> {
        let text = look.text("proc/diskstats")?;
        let fields =
            text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).find(|f| f.get(2) == Some(&name))?;
        Some(fields[3..].iter().filter_map(|f| f.parse().ok()).collect())
    };
    let grown = figures(pair.before).zip(figures(pair.after)).filter(|(b, a)| b.len() >= 11 && a.len() >= b.len());
    let grown: Option<Vec<f64>> = grown.map(|(b, a)| b.iter().zip(&a).map(|(b, a)| (a - b).max(0.0)).collect());
    let milliseconds = (pair.seconds * 1000.0).max(1.0);
    let mean = |sum: f64, n: f64| if n > 0.0 { short_time(sum / n / 1e3) } else { "-".into() };
    let utilisation = grown.as_ref().map(|g| {
        let busy = (g[9] / milliseconds * 100.0).min(100.0);
        let rate = |sectors: f64| short_bytes(sectors * 512.0 / pair.seconds.max(1e-9));
        format!("{busy:.0} % busy, {}/s written, {}/s read", rate(g[6]), rate(g[2]))
    });
    let queue = grown.as_ref().map(|g| {
        let flush = g.get(15).zip(g.get(16)).map(|(n, ms)| format!(", flush {}", mean(*ms, *n))).unwrap_or_default();
        format!("{:.1} requests under way, write {}{flush}", g[10] / milliseconds, mean(g[7], g[4]))
    });
    let long = grown.as_ref().is_some_and(|g| g[10] / milliseconds > 16.0);
    let pressure = pair.pressure("io");
    Row::new(
        format!("disk {name}"),
        known(&[utilisation]),
        known(&[queue, pressed(pressure)]),
        "see dmesg; failed syncs of logweir are below".into(),
        long || pressure.is_some_and(|p| p > PRESSURE),
    )
}

/// All interfaces together but the loopback, which has a row of its own.
pub fn network(pair: &Pair<'_>) -> Row {
    let sums = |look: &Look, loopback: bool| -> Option<Vec<f64>> {
        let mut sums = vec![0.0; 16];
        for (name, rest) in look.text("proc/net/dev")?.lines().filter_map(|l| l.split_once(':')) {
            if (name.trim() == "lo") == loopback {
                let figures = rest.split_whitespace().map(|f| f.parse().unwrap_or(0.0));
                sums.iter_mut().zip(figures).for_each(|(sum, n): (&mut f64, f64)| *sum += n);
            }
        }
        Some(sums)
    };
    let grown = |loopback| {
        let both = sums(pair.before, loopback).zip(sums(pair.after, loopback));
        both.map(|(b, a)| a.iter().zip(&b).map(|(a, b): (&f64, &f64)| (a - b).max(0.0)).collect::<Vec<f64>>())
    };
    let rate = |n: f64| short_bytes(n / pair.seconds.max(1e-9));
    let utilisation = grown(false).map(|g| format!("{}/s in, {}/s out", rate(g[0]), rate(g[8])));
    let local = grown(true).map(|g| format!("{}/s on the loopback", rate(g[0])));
    let dropped = grown(false).map(|g| g[3] + g[11]);
    let errors = grown(false).map(|g| g[2] + g[10]);
    let sent_again = pair.table("proc/net/snmp", "Tcp", "RetransSegs");
    let lost = pair.table("proc/net/snmp", "Udp", "RcvbufErrors");
    Row::new(
        "network",
        known(&[utilisation, local]),
        known(&[
            dropped.map(|n| format!("{n:.0} packets dropped")),
            lost.map(|n| format!("{n:.0} datagrams found the buffer full")),
        ]),
        known(&[
            errors.map(|n| format!("{n:.0} bad packets")),
            sent_again.map(|n| format!("{n:.0} TCP segments sent again")),
        ]),
        dropped.unwrap_or(0.0) + errors.unwrap_or(0.0) + lost.unwrap_or(0.0) > 0.0,
    )
}

pub fn accept_queue(pair: &Pair<'_>) -> Row {
    let overflows = pair.table("proc/net/netstat", "TcpExt", "ListenOverflows");
    let drops = pair.table("proc/net/netstat", "TcpExt", "ListenDrops");
    let open = figure_of_table(pair.after, "proc/net/snmp", "Tcp", "CurrEstab");
    let opened = pair.table("proc/net/snmp", "Tcp", "PassiveOpens");
    let squeezed = pair.table("proc/net/netstat", "TcpExt", "TCPRcvQDrop");
    Row::new(
        "connections",
        known(&[open.map(|n| format!("{n:.0} open on this machine")), opened.map(|n| format!("{n:.0} accepted"))]),
        known(&[overflows.map(|n| format!("{n:.0} found the accept queue full"))]),
        known(&[
            drops.map(|n| format!("{n:.0} dropped before accept")),
            squeezed.map(|n| format!("{n:.0} segments found no memory")),
        ]),
        overflows.unwrap_or(0.0) + drops.unwrap_or(0.0) > 0.0,
    )
}

/// `/proc/net/snmp` and `netstat`: a line of names, then a line of figures, both after `Table:`.
fn figure_of_table(look: &Look, path: &str, table: &str, name: &str) -> Option<f64> {
    let mut lines = look.text(path)?.lines().filter_map(|l| l.strip_prefix(table)?.strip_prefix(':'));
    let (names, figures) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|n| n == name)?;
    figures.split_whitespace().nth(at)?.parse().ok()
}

impl Pair<'_> {
    fn table(&self, path: &str, table: &str, name: &str) -> Option<f64> {
        let of = |look| figure_of_table(look, path, table, name);
        Some((of(self.after)? - of(self.before).unwrap_or(0.0)).max(0.0))
    }
}
