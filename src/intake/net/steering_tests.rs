//! Busy senders at the sockets of a group.

use super::*;
use proptest::prelude::*;
use std::io::Read;

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

/// Sixteen of them are in the table at any time, and each would seem to have a sixteenth of all.
#[test]
fn of_many_that_send_little_nobody_is_busy() {
    let (mut at, _sockets) = places(&[0, 0]);
    let all: Vec<u16> = (0..1000).collect();
    for time in 0..10 {
        at[0].since_ns = time * WINDOW_NS;
        for ports in all.chunks(2) {
            assert_eq!(batch(&mut at[0], ports, true, time * WINDOW_NS + 1), None);
        }
        assert_eq!(batch(&mut at[0], &[1], true, (time + 1) * WINDOW_NS), None, "moving one of them changes nothing");
    }
}

/// The kernel has room for so many. Whoever is heard keeps the place.
#[test]
fn who_is_steered_and_still_busy_is_not_forgotten_for_another() {
    let (at, _sockets) = places(&[0, 0]);
    let (full, at_zero) = (Arc::clone(&at[0].group), MOST_STEERED as u16);
    let busy = |ports: &[u16]| {
        let heard = |port: &u16| Heard { sender: sender(*port), count: 100, before: 0 };
        Busy { senders: ports.iter().map(heard).collect() }
    };
    let load = |at_ns: u64, datagrams: u64| Load { shard: Some(0), datagrams, at_ns };
    let steered = |port: u16| Steered { sender: sender(port), socket: 1, since_ns: 0, heard_ns: 0 };
    full.state.lock().unwrap().steered = (0..MOST_STEERED as u16).map(steered).collect();
    // All but the third are heard at their socket.
    let heard: Vec<u16> = (0..MOST_STEERED as u16).filter(|port| *port != 3).collect();
    full.settle(1, load(STAY_NS, 10), &busy(&heard), false);
    let moved = full.settle(0, load(STAY_NS, 200), &busy(&[at_zero, at_zero + 1]), true);
    assert!(moved.is_some(), "the silent one makes room");
    let names = || full.state.lock().unwrap().steered.iter().map(|one| one.sender).collect::<Vec<_>>();
    assert!(
        !names().contains(&sender(3)) && heard.iter().all(|port| names().contains(&sender(*port))),
        "{:?}",
        names()
    );
    // Now all are busy: the next has to stay where it is.
    let before = names();
    let later = STAY_NS + 2 * SETTLE_NS;
    full.settle(1, load(later, 10), &busy(&heard), false);
    assert_eq!(full.settle(0, load(later, 200), &busy(&[at_zero + 2, at_zero + 3]), true), None);
    assert_eq!(names(), before);
}

/// What is bound is a group in the order of its places, though the first is bound before it is one.
#[test]
fn each_socket_has_the_index_of_its_place() {
    let (_at, sockets) = places(&[0, 0, 0, 0]);
    let to = sockets[0].local_addr().unwrap().as_socket().unwrap();
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for index in [2, 0, 3, 1] {
        sys::steer(sockets[1].as_fd(), &[(sender.local_addr().unwrap(), index)]).unwrap();
        sender.send_to(b"x", to).unwrap();
        let got: Vec<bool> = sockets.iter().map(|socket| (&**socket).read(&mut [0; 8]).is_ok()).collect();
        assert_eq!(got.iter().position(|got| *got), Some(index as usize), "{got:?}");
    }
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
            let known = busy.senders.iter().find(|one| one.sender == sender(port));
            prop_assert!(known.is_some_and(|one| one.count >= 2000), "{known:?}");
            let share = busy.shares().find(|(who, _)| *who == sender(port)).map(|(_, share)| share);
            prop_assert_eq!(share, Some(2000), "it was never out of the table");
        }
    }

    #[test]
    fn nobody_is_said_to_have_sent_more_than_it_has(ports in proptest::collection::vec(0_u16..60, 1..500)) {
        let mut busy = Busy::default();
        ports.iter().for_each(|port| busy.add(sender(*port), 1));
        for (who, share) in busy.shares() {
            prop_assert!(share <= ports.iter().filter(|port| sender(**port) == who).count() as u64, "{who}: {share}");
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
            let heard = |s: &(SocketAddr, u64, usize)| Heard { sender: s.0, count: s.1, before: 0 };
            let busy = Busy { senders: of.iter().filter(|s| s.2 == from).map(heard).collect() };
            let Some((to, who)) = choose(&state, from, state.loads[from], &busy) else { break };
            of.iter_mut().filter(|s| s.0 == who).for_each(|s| s.2 = to);
            let most = (0..4).map(|socket| sum(&of, socket)).max().unwrap();
            prop_assert!(most <= loads[from], "it never gets worse");
            moves += 1;
            prop_assert!(moves < 100, "it goes on for ever: {of:?}");
        }
    }
}
