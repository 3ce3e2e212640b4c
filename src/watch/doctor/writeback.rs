//! Checks when the kernel writes back dirty pages: `vm.dirty_*`.

use super::{Check, Host, Status, number, sysctl, total_memory};
use crate::settings::units::Size;

/// When background writeback begins: an amount that a disk takes in well under a second.
fn background_wanted(memory: u64) -> u64 {
    (memory / 64).clamp(64 << 20, 512 << 20) & !((1 << 20) - 1)
}

/// Where writers are made to wait: four times as much.
fn limit_wanted(memory: u64) -> u64 {
    background_wanted(memory) * 4
}

/// A limit below this makes writers wait all the time.
const LEAST_LIMIT: u64 = 16 << 20;

pub fn checks(host: &dyn Host) -> Vec<Check> {
    vec![background(host), limit(host), interval(host), expire(host)]
}

/// What holds now, in bytes, and how it is set. The `_bytes` of a pair wins when it is not zero.
fn effective(host: &dyn Host, memory: u64, which: &str) -> Option<(u64, String)> {
    let bytes: u64 = number(host, &format!("proc/sys/vm/{which}_bytes"))?;
    if bytes > 0 {
        return Some((bytes, format!("vm.{which}_bytes = {bytes} ({})", Size(bytes))));
    }
    let ratio: u64 = number(host, &format!("proc/sys/vm/{which}_ratio"))?;
    // Of what can be dirtied: free memory and page cache.
    let available = host.read("proc/meminfo").and_then(|t| super::memory_figure(&t, "MemAvailable")).unwrap_or(memory);
    let amount = available / 100 * ratio;
    Some((amount, format!("vm.{which}_ratio = {ratio} % of what is available, now {}", Size(amount))))
}

fn both(memory: u64) -> String {
    let (background, limit) = (background_wanted(memory), limit_wanted(memory));
    sysctl(&[("vm.dirty_background_bytes", background), ("vm.dirty_bytes", limit)])
}

fn background(host: &dyn Host) -> Check {
    let Some(memory) = total_memory(host) else {
        return Check::unknown("dirty_background", "/proc/meminfo", "an amount in bytes");
    };
    let wanted = background_wanted(memory);
    let recommended = format!("vm.dirty_background_bytes = {wanted} ({})", Size(wanted));
    let Some((amount, present)) = effective(host, memory, "dirty_background") else {
        return Check::unknown("dirty_background", "vm.dirty_background_*", recommended);
    };
    Check::new("dirty_background", super::advice_if(amount > 2 * wanted), present, recommended)
        .because(
            "the kernel begins to write back when this much is dirty. logweir syncs its own files often, but the dirty pages of others \
             (and of a busy stream between two syncs) are in the queue of the disk before its syncs",
        )
        .change(both(memory))
}

fn limit(host: &dyn Host) -> Check {
    let Some(memory) = total_memory(host) else {
        return Check::unknown("dirty_limit", "/proc/meminfo", "an amount in bytes");
    };
    let wanted = limit_wanted(memory);
    let recommended = format!("vm.dirty_bytes = {wanted} ({})", Size(wanted));
    let Some((amount, present)) = effective(host, memory, "dirty") else {
        return Check::unknown("dirty_limit", "vm.dirty_*", recommended);
    };
    let status = match amount {
        ..LEAST_LIMIT => Status::Problem,
        _ if amount > 2 * wanted => Status::Advice,
        _ => Status::Ok,
    };
    let why = if status == Status::Problem {
        "every append waits for the disk: the limit is smaller than what one batch dirties"
    } else {
        "above this, whoever writes is made to wait, for seconds where the amount is that of seconds of the disk. A share of a \
         large memory is too much; bytes say what the disk can take"
    };
    Check::new("dirty_limit", status, present, recommended).because(why).change(both(memory))
}

fn interval(host: &dyn Host) -> Check {
    let recommended = "100 to 500 (1 to 5 s)";
    let Some(present) = number::<u64>(host, "proc/sys/vm/dirty_writeback_centisecs") else {
        return Check::unknown("dirty_writeback_centisecs", "vm.dirty_writeback_centisecs", recommended);
    };
    let (status, shown) = match present {
        0 => (Status::Advice, "0: periodic writeback is off".to_string()),
        n => (super::advice_if(n > 1500), format!("{n} ({} s)", n as f64 / 100.0)),
    };
    Check::new("dirty_writeback_centisecs", status, shown, recommended)
        .because("how often the kernel looks for old dirty pages; if it looks rarely, it writes much at once")
        .change(sysctl(&[("vm.dirty_writeback_centisecs", 500)]))
}

fn expire(host: &dyn Host) -> Check {
    let recommended = "3000 (30 s) or less";
    let Some(present) = number::<u64>(host, "proc/sys/vm/dirty_expire_centisecs") else {
        return Check::unknown("dirty_expire_centisecs", "vm.dirty_expire_centisecs", recommended);
    };
    let shown = format!("{present} ({} s)", present as f64 / 100.0);
    Check::new("dirty_expire_centisecs", super::advice_if(present > 6000), shown, recommended)
        .because(
            "pages that are dirty for this long are written back. Lines do not depend on it (storage.sync_interval is for them); the \
             trail, which recovery and verify use, does",
        )
        .change(sysctl(&[("vm.dirty_expire_centisecs", 3000)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_fit_the_machine() {
        assert_eq!(background_wanted(1 << 30), 64 << 20);
        assert_eq!(background_wanted(24 << 30), 384 << 20);
        assert_eq!(background_wanted(1 << 40), 512 << 20);
        assert_eq!(limit_wanted(1 << 40), 2 << 30);
    }
}
