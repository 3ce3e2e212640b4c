//! What the kernel knows of a socket's queue.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Numbers that `SO_MEMINFO` answers with, and the places of two of them (`include/uapi/linux/sock_diag.h`, Linux 4.12).
const NUMBERS: usize = 9;
const HELD: usize = 0;
const DROPS: usize = 8;

/// The queue of a datagram socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// Bytes of memory that it takes at most, with what the kernel keeps beside each datagram.
    pub held: u32,
    /// How many datagrams the kernel has dropped so far because it was full.
    pub dropped: u32,
}

/// What the kernel says of the queue now. It is exact at any time, while `SO_RXQ_OVFL` (socket(7)) speaks only when another datagram is
/// received.
///
/// # Errors
/// It is no socket, or the kernel is older than 4.12.
pub fn queue(socket: BorrowedFd<'_>) -> io::Result<Queue> {
    let mut numbers = [0u32; NUMBERS];
    let mut len = size_of_val(&numbers) as libc::socklen_t;
    // SAFETY: the descriptor is open for the length of the call, and the kernel writes at most `len` bytes to the array, which has as many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            numbers.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    match result {
        0 if len as usize == size_of_val(&numbers) => Ok(Queue { held: numbers[HELD], dropped: numbers[DROPS] }),
        0 => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    #[cfg_attr(miri, ignore = "needs real sockets")]
    fn every_datagram_is_received_or_counted() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_nonblocking(true).unwrap();
        socket2::SockRef::from(&receiver).set_recv_buffer_size(4096).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(queue(receiver.as_fd()).unwrap(), Queue { held: 0, dropped: 0 });
        const SENT: u32 = 500;
        for _ in 0..SENT {
            sender.send_to(&[b'x'; 200], receiver.local_addr().unwrap()).unwrap();
        }
        // Each takes more than its bytes.
        assert!(queue(receiver.as_fd()).unwrap().held > 200);
        let mut received = 0;
        while receiver.recv(&mut [0; 200]).is_ok() {
            received += 1;
        }
        let dropped = queue(receiver.as_fd()).unwrap().dropped;
        assert!(dropped > 0 && received + dropped == SENT, "{received} received, {dropped} dropped");
    }
}
