//! Busy senders at the sockets of a group.

use super::*;
use proptest::prelude::*;

fn sender(port: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], port))
}

/// A batch of one datagram from each of these.
fn batch(place: &mut Place, ports: &[u16], more: bool, now_ns: u64) -> Option<(SocketAddr, usize)> {
    place.received(ports.len(), |i| ports.get(i).map(|port| sender(*port)), more, now_ns)
}

/// A place at each socket of a group, of reactors of these shards; and what keeps the sockets open.
fn places(shards: &[u16]) -> (Vec<Place>, Vec<Arc<Socket>>) {
    let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let (sockets, _) = crate::intake::net::listen::bind_udp(address, shards.len(), 1 << 16).unwrap();
    let sockets: Vec<Arc<Socket>> = sockets.into_iter().map(Arc::new).collect();
    let group = Group::new(&sockets[0], shards.len());
    let place = |(socket, shard): (usize, &u16)| Place::new(Member(Arc::clone(&group), socket), *shard, 0);
    (shards.iter().enumerate().map(place).collect(), sockets)
}

/// One window of these batches at a place. Says who was given away.
fn window(place: &mut Place, ports: &[u16], is_full: bool, from_ns: u64) -> Option<(SocketAddr, usize)> {
    place.since_ns = from_ns;
    for _ in 0..100 {
        assert_eq!(batch(place, ports, true, from_ns + 1), None);
    }
    batch(place, ports, is_full, from_ns + WINDOW_NS)
}

const LATER: u64 = 100 * WINDOW_NS;

#[test]
fn one_of_two_busy_senders_goes_to_the_socket_that_has_none() {
    let (mut places, _sockets) = places(&[0, 0]);
    // The first window begins with an empty queue.
    assert_eq!(window(&mut places[0], &[1, 2], true, 0), None);
    let moved = window(&mut places[0], &[1, 2], true, WINDOW_NS);
    assert!(moved.is_some_and(|(who, to)| [sender(1), sender(2)].contains(&who) && to == 1), "{moved:?}");
    assert_eq!(window(&mut places[0], &[1, 2], true, 2 * WINDOW_NS), None, "what was done has to show first");
}

#[test]
fn nobody_is_moved_where_it_would_not_help_or_is_not_needed() {
    let (mut at, _sockets) = places(&[0, 0]);
    for time in 0..10 {
        assert_eq!(window(&mut at[0], &[1, 2], false, time * WINDOW_NS), None, "its queue gets empty");
    }
    let (mut at, _sockets) = places(&[0, 0]);
    for time in 0..10 {
        assert_eq!(window(&mut at[0], &[1], true, time * WINDOW_NS), None, "one alone has nowhere better to be");
    }
    let (mut at, _sockets) = places(&[0, 1]);
    for time in 0..10 {
        assert_eq!(window(&mut at[0], &[1, 2], true, time * WINDOW_NS), None, "the other is of another shard");
    }
    let (mut at, _sockets) = places(&[0, 0]);
    for time in 0..10 {
        window(&mut at[1], &[3, 4], false, time * WINDOW_NS);
        assert_eq!(window(&mut at[0], &[1, 2], true, time * WINDOW_NS), None, "the other has as much");
    }
}

#[test]
fn what_the_kernel_drops_is_too_much_also_where_the_queue_gets_empty() {
    let (mut at, _sockets) = places(&[0, 0]);
    window(&mut at[0], &[1, 2], false, LATER);
    at[0].lost(1);
    assert!(window(&mut at[0], &[1, 2], false, LATER + WINDOW_NS).is_some());
}

#[test]
fn who_was_moved_stays_for_a_while() {
    let (mut at, _sockets) = places(&[0, 0, 0]);
    window(&mut at[0], &[1, 2], true, 0);
    let (moved, to) = window(&mut at[0], &[1, 2], true, WINDOW_NS).unwrap();
    // Now it is at a socket with another busy one, and may not move from there at once.
    let later = WINDOW_NS + 2 * SETTLE_NS;
    let ports = [moved.port(), 9];
    window(&mut at[to], &ports, true, later);
    let second = window(&mut at[to], &ports, true, later + WINDOW_NS);
    assert!(second.is_some_and(|(who, _)| who == sender(9)), "{second:?}");
}

#[test]
fn a_window_that_was_mostly_quiet_says_nothing() {
    let (mut at, _sockets) = places(&[0, 0]);
    window(&mut at[0], &[1, 2], true, 0);
    at[0].lost(1);
    assert_eq!(batch(&mut at[0], &[1, 2], true, LATER), None);
}

proptest! {
    #[test]
    fn heavy_senders_are_among_those_who_are_known(heavy in 1_u16..4, light in 0_u16..200) {
        let mut busy = Busy::default();
        for round in 0..200_u64 {
            (0..heavy).for_each(|port| busy.add(sender(port), 10));
            if light > 0 {
                busy.add(sender(1000 + (round % u64::from(light)) as u16), 1);
            }
        }
        prop_assert!(busy.senders.len() <= MOST_STEERED);
        for port in 0..heavy {
            let count = busy.senders.iter().find(|(who, _)| *who == sender(port)).map(|(_, count)| *count);
            prop_assert!(count.is_some_and(|count| count >= 2000), "{count:?}");
        }
    }

    #[test]
    fn moves_come_to_an_end(shares in proptest::collection::vec((1_u64..1000, 0_usize..4), 1..12)) {
        // Each window, the fullest socket gives one away, if one fits.
        let mut of: Vec<(SocketAddr, u64, usize)> =
            shares.iter().enumerate().map(|(i, (share, socket))| (sender(i as u16), *share, *socket)).collect();
        let sum = |of: &[(SocketAddr, u64, usize)], socket: usize| of.iter().filter(|s| s.2 == socket).map(|s| s.1).sum::<u64>();
        let mut moves = 0;
        loop {
            let loads: Vec<u64> = (0..4).map(|socket| sum(&of, socket)).collect();
            let from = (0..4).max_by_key(|i| loads[*i]).unwrap();
            let state = State {
                loads: loads.iter().map(|datagrams| Load { shard: Some(0), datagrams: *datagrams, at_ns: LATER }).collect(),
                ..State::default()
            };
            let busy = Busy { senders: of.iter().filter(|s| s.2 == from).map(|s| (s.0, s.1)).collect() };
            let Some((to, who)) = choose(&state, from, state.loads[from], &busy) else { break };
            of.iter_mut().filter(|s| s.0 == who).for_each(|s| s.2 = to);
            let most = (0..4).map(|socket| sum(&of, socket)).max().unwrap();
            prop_assert!(most <= loads[from], "it never gets worse");
            moves += 1;
            prop_assert!(moves < 100, "it goes on for ever: {of:?}");
        }
    }
}
