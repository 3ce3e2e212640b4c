//! Places memory on a NUMA node (mbind(2), set_mempolicy(2)). libc wraps these calls only in libnuma.

use std::sync::Once;

/// `MPOL_DEFAULT`, `MPOL_PREFERRED` (`include/uapi/linux/mempolicy.h`). Not `MPOL_BIND`: on a full node that calls the OOM
/// killer, though others have room.
const DEFAULT: libc::c_int = 0;
const PREFERRED: libc::c_int = 1;
/// Nodes that a mask can name: more than any kernel is built for (`CONFIG_NODES_SHIFT` is at most 10).
const NODES: usize = 1024;
const BITS: usize = libc::c_ulong::BITS as usize;

fn mask(node: usize) -> Option<[libc::c_ulong; NODES / BITS]> {
    let mut mask = [0; NODES / BITS];
    *mask.get_mut(node / BITS)? |= 1 << (node % BITS);
    Some(mask)
}

/// Takes the pages of a mapping from `node` as long as it has room, whichever thread touches them first. Logs one warning if that
/// fails.
pub(super) fn bind(start: *mut u8, len: usize, node: usize) {
    let Some(mask) = mask(node) else { return };
    // SAFETY: the kernel reads `mask`, which has NODES bits, and only notes a policy for the address range; it refuses ranges
    // that are not mapped.
    let rc = unsafe { libc::syscall(libc::SYS_mbind, start, len, PREFERRED, mask.as_ptr(), NODES, 0) };
    report(rc, node);
}

/// Takes the memory that this thread touches first from `node` as long as it has room. `None`: the kernel decides.
pub fn prefer_node(node: Option<usize>) {
    let (mode, mask) = match node.and_then(|n| Some((n, mask(n)?))) {
        Some((_, mask)) => (PREFERRED, mask),
        None => (DEFAULT, [0; NODES / BITS]),
    };
    let (pointer, bits) = if mode == DEFAULT { (std::ptr::null(), 0) } else { (mask.as_ptr(), NODES) };
    // SAFETY: the kernel reads `mask`, which has NODES bits and lives through the call, or nothing.
    let rc = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) };
    report(rc, node.unwrap_or(0));
}

fn report(rc: libc::c_long, node: usize) {
    static ONCE: Once = Once::new();
    if rc != 0 {
        let error = std::io::Error::last_os_error();
        ONCE.call_once(|| tracing::warn!(node, %error, "cannot choose the NUMA node of memory; the kernel chooses it"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_node_zero_can_be_had_and_used() {
        let mut piece = super::super::arena::pieces(1, 1 << 16, false, Some(0)).unwrap().remove(0);
        piece.fill(3);
        prefer_node(Some(0));
        let touched = vec![1u8; 1 << 20];
        prefer_node(None);
        assert_eq!(touched.len() + usize::from(piece[9]), (1 << 20) + 3);
        assert!(mask(NODES).is_none());
    }
}
