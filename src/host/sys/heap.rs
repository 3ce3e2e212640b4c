//! Keeps large allocations out of the heap.

/// Allocations of 1 MiB and more get pages of their own from here on, which go back to the kernel when they are freed. By default glibc
/// raises this limit, up to 32 MiB, whenever a larger one is freed (mallopt(3), `M_MMAP_THRESHOLD`): documents of many MiB then lie in
/// the heap, are copied as they grow, and leave holes. Other C libraries have no such limit.
pub fn keep_large_apart() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: it takes two numbers, and changes a setting of the allocator, which has locks of its own.
        let is_set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20) };
        if is_set == 0 {
            tracing::debug!("large allocations stay in the heap");
        }
    }
}

#[cfg(test)]
mod tests {
    /// Bytes that this process has in memory.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
    }

    #[test]
    fn what_is_freed_goes_back_to_the_kernel() {
        super::keep_large_apart();
        // Other tests run beside this one, so it is tried until they let one see it.
        let sees = (0..50).any(|_| {
            let small: Vec<Vec<u8>> = (0..8).map(|_| vec![1; 24 << 20]).collect();
            let with = resident();
            drop(small);
            resident() + (150 << 20) < with
        });
        assert!(sees || cfg!(not(target_env = "gnu")) || cfg!(miri));
    }
}
