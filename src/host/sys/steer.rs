//! Steers senders of datagrams to sockets of a group (`SO_REUSEPORT`), with a classic BPF program that the kernel runs for each datagram.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_LSH, BPF_MEM, BPF_MISC,
    BPF_RET, BPF_RSH, BPF_ST, BPF_TAX, BPF_W, sock_filter, sock_fprog,
};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};

/// Senders that a program knows at most: it has up to 11 instructions for each, and a jump goes past 255 at most.
pub const MOST_STEERED: usize = 16;

/// The headers begin here; data at 0 is behind them (`SKF_NET_OFF`, linux/filter.h).
const HEADERS: u32 = libc::SKF_NET_OFF as u32;
/// No socket has this index: the kernel then takes its hash.
const NOBODY: u32 = u32::MAX;
/// `IPPROTO_UDP` as the next header.
const UDP: u32 = libc::IPPROTO_UDP as u32;

fn step(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Goes on with the next if the accumulator is `k`, else so many instructions further.
fn unless(k: u32, further: usize) -> sock_filter {
    sock_filter { jf: further as u8, ..step(BPF_JMP | BPF_JEQ | BPF_K, k) }
}

/// The program: senders that are named go to the socket that is named with them, all others where the hash says. A load behind the end
/// of a packet would answer 0, which is the first socket, so the version comes first.
#[must_use]
pub fn program(steered: &[(SocketAddr, u32)]) -> Vec<sock_filter> {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for (sender, socket) in steered.iter().take(MOST_STEERED) {
        let port = u32::from(sender.port());
        // A socket of both families is told of senders with IPv4 in the manner of IPv6.
        match sender.ip().to_canonical() {
            IpAddr::V4(ip) => v4.extend([
                step(BPF_LD | BPF_MEM, 0),
                unless(ip.to_bits(), 3),
                step(BPF_LD | BPF_MEM, 4),
                unless(port, 1),
                step(BPF_RET | BPF_K, *socket),
            ]),
            IpAddr::V6(ip) => {
                let words = [0, 1, 2, 3].map(|word| (ip.to_bits() >> (96 - 32 * word)) as u32);
                for (place, word) in words.into_iter().enumerate() {
                    v6.extend([step(BPF_LD | BPF_MEM, place as u32), unless(word, 9 - 2 * place)]);
                }
                v6.extend([step(BPF_LD | BPF_MEM, 4), unless(port, 1), step(BPF_RET | BPF_K, *socket)]);
            }
        }
    }
    let load = |size: u32, at: u32| step(BPF_LD | BPF_ABS | size, HEADERS.wrapping_add(at));
    let nobody = step(BPF_RET | BPF_K, NOBODY);
    let is_v4 = [
        // The port is behind as many bytes as the header says.
        load(BPF_B, 0),
        step(BPF_ALU | BPF_AND | BPF_K, 0xf),
        step(BPF_ALU | BPF_LSH | BPF_K, 2),
        step(BPF_MISC | BPF_TAX, 0),
        step(BPF_LD | BPF_IND | BPF_H, HEADERS),
        step(BPF_ST, 4),
        load(BPF_W, 12),
        step(BPF_ST, 0),
    ];
    let mut all = vec![load(BPF_B, 0), step(BPF_ALU | BPF_RSH | BPF_K, 4), unless(4, is_v4.len() + v4.len() + 1)];
    all.extend(is_v4);
    all.extend(v4);
    all.push(nobody);
    // Nothing but IPv6 without headers in between.
    all.extend([load(BPF_B, 6), unless(UDP, 10 + v6.len())]);
    for word in 0..4 {
        all.extend([load(BPF_W, 8 + 4 * word), step(BPF_ST, word)]);
    }
    all.extend([load(BPF_H, 40), step(BPF_ST, 4)]);
    all.extend(v6);
    all.push(nobody);
    all
}

/// Gives the group of a socket a program, in place of the one that it has: from the next datagram on.
///
/// # Errors
/// The kernel is older than 4.5, or the socket shares its address with nobody.
pub fn steer(socket: BorrowedFd<'_>, steered: &[(SocketAddr, u32)]) -> io::Result<()> {
    let mut program = program(steered);
    let filter = sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &filter)
}

/// Takes the program away that a group may have: another process gave it one.
pub fn steer_no_more(socket: BorrowedFd<'_>) {
    let taken = set(socket, libc::SO_DETACH_REUSEPORT_BPF, &0);
    if taken.is_err_and(|error| error.raw_os_error() == Some(libc::ENOPROTOOPT)) {
        let _ = steer(socket, &[]); // older than 5.3: one that names nobody does as well
    }
}

fn set<T>(socket: BorrowedFd<'_>, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call. The kernel reads `size_of::<T>()` bytes of `value`, which lives as long,
    // and of a program the instructions that it points at: `steer` keeps them until the call is over. The kernel makes its own copy.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    /// Sockets on one address, in the order of their indexes.
    fn group(address: &str, many: usize) -> Vec<UdpSocket> {
        let mut address: SocketAddr = address.parse().unwrap();
        let mut sockets = Vec::new();
        for _ in 0..many {
            let domain = socket2::Domain::for_address(address);
            let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None).unwrap();
            if domain == socket2::Domain::IPV6 {
                socket.set_only_v6(false).unwrap();
            }
            socket.set_reuse_port(true).unwrap();
            socket.bind(&address.into()).unwrap();
            socket.set_nonblocking(true).unwrap();
            address = socket.local_addr().unwrap().as_socket().unwrap();
            sockets.push(UdpSocket::from(socket));
        }
        sockets
    }

    /// Which socket a datagram of this sender comes to.
    fn comes_to(sockets: &[UdpSocket], sender: &UdpSocket, to: SocketAddr) -> usize {
        sender.send_to(b"x", to).unwrap();
        let has_one = |socket: &UdpSocket| socket.recv(&mut [0; 8]).is_ok();
        // On the loopback it is there when the call is over.
        sockets.iter().position(has_one).unwrap()
    }

    fn every_sender_is_steered(
        sockets: &[UdpSocket],
        from: &str,
        to: SocketAddr,
        seen_as: impl Fn(SocketAddr) -> SocketAddr,
    ) {
        let senders: Vec<UdpSocket> = (0..MOST_STEERED + 4).map(|_| UdpSocket::bind(from).unwrap()).collect();
        let by_hash: Vec<usize> = senders.iter().map(|sender| comes_to(sockets, sender, to)).collect();
        assert!((0..2).all(|socket| by_hash.contains(&socket)), "the hash spreads them: {by_hash:?}");
        // Each of them elsewhere than the hash says; the last four are not named.
        let elsewhere = |i: usize| (by_hash[i] + 1) % sockets.len();
        let name = |i: usize| (seen_as(senders[i].local_addr().unwrap()), elsewhere(i) as u32);
        let steered: Vec<(SocketAddr, u32)> = (0..MOST_STEERED).map(name).collect();
        steer(sockets[1].as_fd(), &steered).unwrap();
        for (i, sender) in senders.iter().enumerate() {
            let expected = if i < MOST_STEERED { elsewhere(i) } else { by_hash[i] };
            assert_eq!(comes_to(sockets, sender, to), expected, "sender {i}");
        }
        steer(sockets[0].as_fd(), &[]).unwrap();
        for (sender, socket) in senders.iter().zip(&by_hash) {
            assert_eq!(comes_to(sockets, sender, to), *socket, "nobody is named");
        }
        steer(sockets[0].as_fd(), &steered).unwrap();
        steer_no_more(sockets[0].as_fd());
        for (sender, socket) in senders.iter().zip(by_hash) {
            assert_eq!(comes_to(sockets, sender, to), socket, "as before");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs real sockets")]
    fn senders_with_ipv4_are_steered_and_others_go_by_the_hash() {
        let sockets = group("127.0.0.1:0", 3);
        let to = sockets[0].local_addr().unwrap();
        every_sender_is_steered(&sockets, "127.0.0.1:0", to, |sender| sender);
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs real sockets")]
    fn senders_with_ipv6_are_steered_and_others_go_by_the_hash() {
        let Ok(_) = UdpSocket::bind("[::1]:0") else { return eprintln!("SKIPPED senders_with_ipv6: no IPv6 here") };
        let sockets = group("[::1]:0", 3);
        let to = sockets[0].local_addr().unwrap();
        every_sender_is_steered(&sockets, "[::1]:0", to, |sender| sender);
    }

    #[test]
    #[cfg_attr(miri, ignore = "needs real sockets")]
    fn senders_with_ipv4_at_a_socket_of_both_families_are_steered() {
        let Ok(_) = UdpSocket::bind("[::1]:0") else { return eprintln!("SKIPPED senders_of_both: no IPv6 here") };
        let sockets = group("[::]:0", 2);
        let port = sockets[0].local_addr().unwrap().port();
        let mapped = |sender: SocketAddr| match sender.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), sender.port()),
            IpAddr::V6(_) => sender,
        };
        every_sender_is_steered(&sockets, "127.0.0.1:0", SocketAddr::from(([127, 0, 0, 1], port)), mapped);
        every_sender_is_steered(&sockets, "[::1]:0", SocketAddr::new("::1".parse().unwrap(), port), mapped);
    }

    #[test]
    fn a_program_has_no_more_instructions_than_a_jump_passes() {
        let sender = |text: &str| (text.parse().unwrap(), 1);
        let (v4, v6) = (vec![sender("10.0.0.1:514"); 40], vec![sender("[2001:db8::1]:514"); 40]);
        assert_eq!((program(&v4).len(), program(&v6).len()), (25 + 5 * 16, 25 + 11 * 16));
        assert!(program(&v6).iter().all(|one| usize::from(one.jf) < 255));
        assert_eq!(program(&[]).len(), 25);
    }
}
