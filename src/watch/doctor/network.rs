//! Checks the queues and buffers of sockets.

use super::{Check, Host, Status, Subject, advice_if, number, sysctl};
use crate::settings::units::Size;

/// What our listeners ask for (`net/listen.rs`).
const BACKLOG: u64 = 4096;
/// A receive buffer that holds a second of 100,000 datagrams of 160 bytes, or 13 ms at 10 Gbit/s: what a UDP listener asks for by default.
const DATAGRAM_BUFFER: u64 = 16 << 20;
/// The window for one fat connection: 10 Gbit/s over 5 ms.
const WINDOW: u64 = 6 << 20;
/// Datagrams that may wait at a Unix socket.
const UNIX_QUEUE: u64 = 512;

pub fn checks(host: &dyn Host, subject: &Subject) -> Vec<Check> {
    let mut checks =
        vec![somaxconn(host), syn_backlog(host, subject), rmem_max(host, subject), tcp_rmem(host, subject)];
    if subject.datagrams > 0 {
        checks.push(unix_queue(host));
    }
    checks
}

fn somaxconn(host: &dyn Host) -> Check {
    let recommended = format!("{BACKLOG}, which logweir asks for");
    let Some(present) = number::<u64>(host, "proc/sys/net/core/somaxconn") else {
        return Check::unknown("somaxconn", "net.core.somaxconn", recommended);
    };
    let status = match present {
        ..128 => Status::Problem,
        128..BACKLOG => Status::Advice,
        _ => Status::Ok,
    };
    Check::new("somaxconn", status, present.to_string(), recommended)
        .because("this many connections may wait to be accepted; a full queue drops them, and their clients wait seconds before they try again")
        .change(sysctl(&[("net.core.somaxconn", BACKLOG)]))
}

fn syn_backlog(host: &dyn Host, subject: &Subject) -> Check {
    let recommended = format!("{BACKLOG} or more");
    let Some(present) = number::<u64>(host, "proc/sys/net/ipv4/tcp_max_syn_backlog") else {
        return Check::unknown("tcp_max_syn_backlog", "net.ipv4.tcp_max_syn_backlog", recommended);
    };
    let cookies = number::<u64>(host, "proc/sys/net/ipv4/tcp_syncookies").unwrap_or(0);
    Check::new("tcp_max_syn_backlog", advice_if(subject.has_tcp && present < 1024), present.to_string(), recommended)
        .because(format!(
            "this many connections may be half open; when many clients return at once (after a restart of theirs, or ours), more are dropped{}",
            if cookies > 0 { ", unless SYN cookies (which are on here) save them" } else { "" }
        ))
        .change(sysctl(&[("net.ipv4.tcp_max_syn_backlog", BACKLOG)]))
}

fn rmem_max(host: &dyn Host, subject: &Subject) -> Check {
    let needs = subject.datagrams > 0;
    let recommended =
        if needs { format!("{} for datagrams", Size(DATAGRAM_BUFFER)) } else { "any (no datagram listener)".into() };
    let Some(present) = number::<u64>(host, "proc/sys/net/core/rmem_max") else {
        return Check::unknown("rmem_max", "net.core.rmem_max", recommended);
    };
    Check::new("rmem_max", advice_if(needs && present < DATAGRAM_BUFFER), Size(present).to_string(), recommended)
        .because("datagrams that find the receive buffer full are lost, and their sender does not notice; this is the most that the buffer can be")
        .change(sysctl(&[("net.core.rmem_max", DATAGRAM_BUFFER), ("net.core.rmem_default", DATAGRAM_BUFFER)]))
}

fn tcp_rmem(host: &dyn Host, subject: &Subject) -> Check {
    let recommended = format!("a third value of {WINDOW} or more");
    let text = host.read("proc/sys/net/ipv4/tcp_rmem");
    let values = text.as_deref().map(|t| t.split_whitespace().filter_map(|w| w.parse().ok()).collect::<Vec<u64>>());
    let Some([least, default, most]) = values.as_deref() else {
        return Check::unknown("tcp_rmem", "net.ipv4.tcp_rmem", recommended);
    };
    let path = "/etc/sysctl.d/60-logweir-tcp_rmem.conf";
    Check::new("tcp_rmem", advice_if(subject.has_tcp && *most < 4 << 20), format!("{least} {default} {most}"), recommended)
        .because("the window of one connection: how much a busy sender far away may have under way. With a small window it waits for the network")
        .change(format!(
            "sysctl -w net.ipv4.tcp_rmem='{least} {default} {WINDOW}' && echo 'net.ipv4.tcp_rmem={least} {default} {WINDOW}' > {path}"
        ))
}

fn unix_queue(host: &dyn Host) -> Check {
    let recommended = format!("{UNIX_QUEUE} or more");
    let Some(present) = number::<u64>(host, "proc/sys/net/unix/max_dgram_qlen") else {
        return Check::unknown("max_dgram_qlen", "net.unix.max_dgram_qlen", recommended);
    };
    Check::new("max_dgram_qlen", advice_if(present < UNIX_QUEUE), present.to_string(), recommended)
        .because("this many datagrams may wait at a Unix socket; above that its senders block, or lose datagrams")
        .change(sysctl(&[("net.unix.max_dgram_qlen", UNIX_QUEUE)]))
}
