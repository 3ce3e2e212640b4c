use super::*;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Waits for one completion.
fn next(ring: &mut Ring) -> Done {
    for _ in 0..100 {
        if let Some(done) = ring.next_done() {
            return done;
        }
        ring.wait(Some(Duration::from_millis(100)), false).unwrap();
    }
    panic!("no completion");
}

#[test]
fn buffers_hold_what_came_and_are_used_again() {
    let mut ring = Ring::new(2, 64).unwrap();
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    ring.recv_multi(ours.as_fd(), 5);
    for round in 0..10u8 {
        theirs.write_all(&[round; 40]).unwrap();
        let done = next(&mut ring);
        assert_eq!((done.op, done.index, done.result, done.more), (Op::Recv, 5, 40, true));
        let id = done.buffer.unwrap();
        assert_eq!(ring.buffer(id, 40), &[round; 40]);
        ring.give_back(id);
    }
    // With none given back the third is told so, and the operation ends.
    let mut held = Vec::new();
    for round in 0..3u8 {
        theirs.write_all(&[round; 64]).unwrap();
        let done = next(&mut ring);
        held.extend(done.buffer);
        assert_eq!(done.result, if round < 2 { 64 } else { -libc::ENOBUFS });
        assert_eq!(done.more, round < 2);
    }
    // What we hold stays as it is, whatever comes in.
    held.iter().zip(0..).for_each(|(id, round)| assert_eq!(ring.buffer(*id, 64), &[round; 64]));
}

#[test]
#[should_panic(expected = "not ours")]
fn a_buffer_that_was_given_back_is_not_read() {
    let mut ring = Ring::new(2, 64).unwrap();
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    ring.recv_multi(ours.as_fd(), 0);
    theirs.write_all(b"x").unwrap();
    let id = next(&mut ring).buffer.unwrap();
    ring.give_back(id);
    let _ = ring.buffer(id, 1);
}

#[test]
fn a_send_is_whole_and_gives_its_bytes_back() {
    let mut ring = Ring::new(2, 64).unwrap();
    let (mut theirs, ours) = UnixStream::pair().unwrap();
    let bytes = vec![7; 4 << 20];
    let place = bytes.as_ptr();
    ring.send(ours.as_fd(), bytes, 1000, 9);
    let reader = std::thread::spawn(move || {
        let mut all = vec![0; (4 << 20) - 1000];
        theirs.read_exact(&mut all).unwrap();
        all.iter().all(|b| *b == 7)
    });
    let done = next(&mut ring);
    assert_eq!((done.op, done.index, done.result), (Op::Send, 9, (4 << 20) - 1000));
    let (back, is_whole) = done.sent.unwrap();
    assert!(is_whole && back.as_ptr() == place);
    assert!(reader.join().unwrap());
}

#[test]
fn what_is_cancelled_completes_once() {
    let mut ring = Ring::new(2, 64).unwrap();
    let (_theirs, ours) = UnixStream::pair().unwrap();
    ring.recv_multi(ours.as_fd(), 1);
    ring.wait(Some(Duration::ZERO), false).unwrap();
    ring.cancel(Op::Recv, 1);
    let mut seen = [next(&mut ring), next(&mut ring)].map(|d| (d.op, d.result));
    seen.sort_by_key(|(op, _)| *op == Op::Cancel);
    assert_eq!(seen, [(Op::Recv, -libc::ECANCELED), (Op::Cancel, 0)]);
    assert_eq!(ring.under_way, 0);
}

#[test]
fn a_ring_ends_with_everything_under_way() {
    // Sends that nobody reads, receives that nobody feeds, a waker: the drop cancels them and says if one is left.
    let pairs: Vec<_> = (0..50).map(|_| UnixStream::pair().unwrap()).collect();
    let mut ring = Ring::new(4, 4096).unwrap();
    for ((_, ours), i) in pairs.iter().zip(0..) {
        ring.recv_multi(ours.as_fd(), i);
        ring.send(ours.as_fd(), vec![1; 1 << 20], 0, i);
    }
    ring.wait(Some(Duration::ZERO), false).unwrap();
    assert_eq!(ring.under_way, 100);
    ring.cancel_all();
    assert_eq!(ring.under_way, 0);
}

#[test]
fn more_operations_than_the_queue_holds_are_all_done() {
    let mut ring = Ring::new(2, 64).unwrap();
    let (_theirs, ours) = UnixStream::pair().unwrap();
    for i in 0..2000 {
        ring.poll_multi(ours.as_fd(), libc::POLLOUT as u32, i);
    }
    let mut seen = vec![false; 2000];
    while seen.contains(&false) {
        seen[next(&mut ring).index as usize] = true;
    }
    ring.cancel_all();
    assert_eq!(ring.under_way, 0);
}

#[test]
fn a_write_is_in_the_file_when_it_completes_and_gives_its_memory_back() {
    let mut ring = Ring::new(2, 64).unwrap();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[b'.'; 8192]).unwrap();
    let mut memory = crate::host::sys::pieces(2, 4096, false, None).unwrap();
    let (mut first, mut second) = (memory.remove(0), memory.remove(0));
    first.fill(b'a');
    second.fill(b'b');
    let place = first.as_ptr();
    ring.write(file.as_fd(), first, 4096, 4096, 0);
    ring.write(file.as_fd(), second, 100, 0, 1);
    let mut done = [next(&mut ring), next(&mut ring)];
    done.sort_by_key(|done| done.index);
    let [first, second] = done;
    assert_eq!((first.op, first.result, second.op, second.result), (Op::Write, 4096, Op::Write, 100));
    assert_eq!(first.written.unwrap().as_ptr(), place);
    let mut text = Vec::new();
    std::io::Seek::rewind(&mut file).unwrap();
    file.read_to_end(&mut text).unwrap();
    assert!(text[..100].iter().all(|b| *b == b'b') && text[100..4096].iter().all(|b| *b == b'.'));
    assert!(text[4096..].iter().all(|b| *b == b'a') && text.len() == 8192);
    // What fails gives its memory back too; and a ring may end with writes under way.
    let (pipe, _end) = nix::unistd::pipe().unwrap();
    ring.write(pipe.as_fd(), second.written.unwrap(), 10, 0, 1);
    let failed = next(&mut ring);
    assert!(failed.result < 0 && failed.written.is_some(), "{failed:?}");
    ring.write(file.as_fd(), failed.written.unwrap(), 10, 0, 1);
}
