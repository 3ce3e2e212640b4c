use super::*;
use crate::pipeline::chunk::ConnId;

struct Nowhere;

impl FixedFile for Nowhere {
    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
        Ok(())
    }
}

fn log(blocks: u64, direct_ns: u64) -> CommitLog {
    let names = StreamNames::new(1);
    names.admit(0, "s");
    let place = Place {
        file: Arc::new(Nowhere),
        bytes: blocks * BLOCK as u64,
        generation: 1,
        reactor: 0,
        shard: 0,
        names: Arc::new(names),
        progress: Arc::default(),
        direct_ns,
    };
    CommitLog::new(place).unwrap()
}

/// One line of a client that waits, in a chunk of its own.
fn offer(log: &mut CommitLog, number: u64, now_ns: u64) -> Offer {
    let mut chunk = Chunk::new(BLOCK).unwrap();
    chunk.free()[..2].copy_from_slice(b"x\n");
    let ticket = Ticket { conn: ConnId { index: 0, generation: 0 }, frame: number as u32 };
    chunk.commit(0, 0, Some(ticket), 2, 1, now_ns);
    log.offer(&mut chunk, number, Stamp { mono_ns: now_ns, wall_ns: 0 })
}

fn written(write: CommitWrite) -> Committed {
    Committed { slot: write.slot, memory: write.memory, result: Ok(()) }
}

/// So many lines, one after the other, each looked at so long after its submission. True if the log is in use then.
fn goes_on(writes: u64, took_ns: u64) -> bool {
    let (mut log, cells, mut now) = (log(64, 120_000), CommitCells::default(), 0);
    for number in 1..=writes {
        let Offer::Write(write) = offer(&mut log, number, now) else { return false };
        now += took_ns;
        log.completed(written(write), now, &cells);
        assert_eq!(log.next_told().map(|told| (told.is_durable, told.waiters.len())), Some((true, 1)));
        log.returned(number, false, now);
    }
    true
}

#[test]
fn a_reactor_that_looks_late_gives_no_log_up_but_a_slow_device_does() {
    assert!(goes_on(5000, 3_000_000), "a turn may take milliseconds");
    assert!(!goes_on(5000, 100_000_000));
}

#[test]
fn nobody_is_told_of_what_lies_behind_a_write_that_is_not_over() {
    let (mut log, cells) = (log(64, 0), CommitCells::default());
    let (Offer::Write(first), Offer::Write(second)) = (offer(&mut log, 1, 1), offer(&mut log, 1, 2)) else {
        panic!("there is room")
    };
    assert!(matches!(offer(&mut log, 1, 3), Offer::Wait), "no more writes at once");
    log.completed(written(second), 4, &cells);
    assert!(log.next_told().is_none());
    log.completed(written(first), 5, &cells);
    assert_eq!(
        (log.next_told().unwrap().waiters[0].received_ns, log.next_told().unwrap().waiters[0].received_ns),
        (1, 2)
    );
    assert!(log.next_told().is_none() && !log.has_told());
    log.free(6);
    assert!(log.has_told());
}

#[test]
fn a_full_log_says_at_once_what_is_free_and_goes_on() {
    let (mut log, cells) = (log(8, 0), CommitCells::default());
    let mut number = 0;
    while let Offer::Write(write) = offer(&mut log, number + 1, 1) {
        number += 1;
        log.completed(written(write), 2, &cells);
        while log.next_told().is_some() {}
    }
    assert_eq!(number, 7, "one block stays for the record that says what is free");
    assert!(log.wants_sync(3) && !log.wants_sync(3), "the writer is asked once");
    for chunk in (1..=number).rev() {
        assert!(log.mark(Stamp { mono_ns: 4, wall_ns: 0 }).is_none(), "what the oldest brought is not synced yet");
        log.returned(chunk, false, 4);
        assert!(matches!(offer(&mut log, number + 1, 4), Offer::Direct), "nothing says so durably yet");
    }
    let mark = log.mark(Stamp { mono_ns: 5, wall_ns: 0 }).unwrap();
    assert!(
        matches!(offer(&mut log, number + 1, 5), Offer::Direct) && log.mark(Stamp { mono_ns: 5, wall_ns: 0 }).is_none()
    );
    log.completed(written(mark), 6, &cells);
    assert!(matches!(offer(&mut log, number + 1, 7), Offer::Write(_)));
}

#[test]
fn who_waits_for_a_write_that_failed_is_told_when_the_segment_is_synced_or_not() {
    for failed in [false, true] {
        let (mut log, cells) = (log(64, 0), CommitCells::default());
        let Offer::Write(write) = offer(&mut log, 1, 1) else { panic!("there is room") };
        let result = Err(io::Error::from_raw_os_error(libc::EIO));
        log.completed(Committed { slot: write.slot, memory: write.memory, result }, 2, &cells);
        assert!(log.next_told().is_none() && log.wants_sync(3));
        assert!(matches!(offer(&mut log, 2, 3), Offer::Direct), "it is given up");
        log.returned(1, failed, 4);
        assert_eq!(log.next_told().map(|told| told.is_durable), Some(!failed));
    }
}

/// What the log does with a group of so many clients that bring so much each.
fn offer_group(log: &mut CommitLog, clients: u32, bytes: usize, now_ns: u64) -> Offer {
    let mut chunk = Chunk::new(1 << 20).unwrap();
    for index in 0..clients {
        chunk.free()[..bytes].fill(b'\n');
        let ticket = Ticket { conn: ConnId { index, generation: 0 }, frame: 0 };
        chunk.commit(0, 0, Some(ticket), bytes, 1, now_ns);
    }
    log.offer(&mut chunk, now_ns, Stamp { mono_ns: now_ns, wall_ns: 0 })
}

#[test]
fn several_clients_that_bring_much_go_the_direct_way_for_a_while() {
    let mut log = log(4096, 0);
    let cells = CommitCells::default();
    for (clients, bytes) in [(1, 60_000), (60, 200)] {
        let Offer::Write(write) = offer_group(&mut log, clients, bytes, 1) else { panic!("{clients} of {bytes}") };
        log.completed(written(write), 1, &cells);
    }
    assert!(matches!(offer_group(&mut log, 2, 2 * BULK_BYTES, 2), Offer::Direct));
    assert!(matches!(offer_group(&mut log, 1, 200, BULK_NS), Offer::Direct), "not in turn with the log");
    assert!(matches!(offer_group(&mut log, 1, 200, BULK_NS + 2), Offer::Write(_)));
}
