//! Makes the sockets that listen on an address.

use crate::host::address::Address;
use crate::host::mutants::mutant;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// How long an address may be taken by a server that has been killed: the kernel takes its rings down some milliseconds after its end, and
/// their sockets listen until then (`io_ring_exit_work`, Linux 6.1).
const PATIENCE: Duration = Duration::from_secs(1);
const AGAIN: Duration = Duration::from_millis(5);

/// How long to wait for addresses that are taken, all of them together.
#[derive(Debug)]
pub struct Patience {
    left: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience { left: PATIENCE }
    }
}

impl Patience {
    /// Binds, and tries again where the address is taken, for as long as there is patience left.
    ///
    /// # Errors
    /// As `bind`.
    pub fn bind<T>(&mut self, mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        loop {
            match bind() {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && !self.left.is_zero() => {
                    std::thread::park_timeout(AGAIN);
                    self.left = self.left.saturating_sub(AGAIN);
                }
                other => return other,
            }
        }
    }
}

/// One TCP socket per reactor on the same address, and the address with its real port.
///
/// With one reactor the socket is an ordinary one. With more, `SO_REUSEPORT` would also let a second server of the same
/// user in silently, so a plain bind is tried first, which the kernel refuses while anybody listens there.
///
/// # Errors
/// The address is taken, not of this host, or not allowed.
pub fn bind_tcp(address: SocketAddr, sockets: usize) -> io::Result<(Vec<Socket>, SocketAddr)> {
    let make = |address: SocketAddr, share: bool| -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(share)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    let first = make(address, false)?;
    let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    let made = if sockets <= 1 {
        vec![first]
    } else {
        drop(first);
        (0..sockets).map(|_| make(address, true)).collect::<io::Result<_>>()?
    };
    made.iter().try_for_each(|s| s.listen(BACKLOG))?;
    Ok((made, address))
}

/// Bytes that may wait in the queue of a UDP socket, as far as the system allows.
pub const UDP_QUEUE: usize = 16 << 20;

/// One UDP socket per reactor on the same address, and the address with its real port. The kernel gives all datagrams of a sender to the
/// same one. A group's address is joined.
///
/// # Errors
/// As [`bind_tcp`]; or there is no such group.
pub fn bind_udp(address: SocketAddr, sockets: usize, queue: usize) -> io::Result<(Vec<Socket>, SocketAddr)> {
    let make = |address: SocketAddr, share: bool| -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, None)?;
        socket.set_reuse_port(share)?;
        // A group may have members in other processes of this host.
        socket.set_reuse_address(address.ip().is_multicast())?;
        socket.bind(&address.into())?;
        match address {
            SocketAddr::V4(v4) if v4.ip().is_multicast() => {
                socket.join_multicast_v4(v4.ip(), &Ipv4Addr::UNSPECIFIED)?
            }
            SocketAddr::V6(v6) if v6.ip().is_multicast() => socket.join_multicast_v6(v6.ip(), v6.scope_id())?,
            _ => {}
        }
        lengthen(&socket, queue);
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let first = make(address, false)?;
    let address = first.local_addr()?.as_socket().ok_or(io::ErrorKind::Unsupported)?;
    // The kernel gives a copy of what comes for a group to each socket, so there is one.
    if sockets <= 1 || address.ip().is_multicast() {
        return Ok((vec![first], address));
    }
    // The first keeps what has come already: only from now on others may share its address.
    first.set_reuse_port(true)?;
    let others = (1..sockets).map(|_| make(address, true));
    let made = std::iter::once(Ok(first)).chain(others).collect::<io::Result<_>>()?;
    Ok((made, address))
}

/// Gives a socket a queue of so many bytes, or as many as `net.core.rmem_max` allows. The kernel takes twice of it, for what it keeps
/// beside each datagram (socket(7)).
pub fn lengthen(socket: &Socket, bytes: usize) {
    use nix::sys::socket::{setsockopt, sockopt};
    // Only root may have more than rmem_max.
    if setsockopt(socket, sockopt::RcvBufForce, &bytes).is_err() {
        let _ = socket.set_recv_buffer_size(bytes);
    }
}

/// A socket that is bound to an address, as a first one of [`bind_tcp`] is, and does not listen.
///
/// # Errors
/// As [`bind_tcp`].
pub fn bind_only(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    socket.set_reuse_address(kind == Type::STREAM || address.ip().is_multicast())?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// A socket file that this process has made and that nobody has replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

impl SocketFile {
    /// The socket file at a path.
    ///
    /// # Errors
    /// There is no file.
    pub fn at(path: &Path) -> io::Result<SocketFile> {
        let meta = std::fs::symlink_metadata(path)?;
        Ok(SocketFile { path: path.to_path_buf(), id: (meta.dev(), meta.ino()) })
    }

    /// True while the file has its name.
    #[must_use]
    pub fn is_there(&self) -> bool {
        SocketFile::at(&self.path).is_ok_and(|now| now == *self)
    }

    /// Removes it, unless another file has its name now.
    pub fn remove(&self) {
        if self.is_there() {
            let _ = std::fs::remove_file(&self.path); // its directory may be read-only by now; it is dead either way
        }
    }
}

/// Removes a socket file that no socket uses.
fn make_way(path: &Path) -> io::Result<()> {
    if is_dead(path)? { std::fs::remove_file(path) } else { Ok(()) }
}

/// Checks that a path is free for a socket, or has only a socket file that no socket uses.
///
/// # Errors
/// Something else is there.
pub fn is_free(path: &Path) -> io::Result<()> {
    is_dead(path).map(drop)
}

/// True for a socket file that no socket uses: the kernel refuses connections because no socket has that name. False: there is no file.
/// Anything else belongs to somebody, whatever its type, and is an error.
fn is_dead(path: &Path) -> io::Result<bool> {
    let address = &SockAddr::unix(path)?;
    let taken = |kind, what: &str| Err(io::Error::new(kind, format!("{what}; choose another path, or remove it")));
    let meta = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        meta => meta?,
    };
    if !meta.file_type().is_socket() {
        return taken(io::ErrorKind::AlreadyExists, "there is a file of that name that is not a socket");
    }
    let probe = |of: Type| {
        let probe = Socket::new(Domain::UNIX, of, None)?;
        probe.set_nonblocking(true)?; // a full queue is no reason to wait
        probe.connect(address)
    };
    // A stream socket that is bound and does not listen yet refuses those of its type, but is of another one than the second.
    let refused =
        |result: &io::Result<()>| result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    let first = probe(Type::STREAM);
    match if refused(&first) { probe(Type::DGRAM) } else { first } {
        Err(e) if e.kind() == io::ErrorKind::ConnectionRefused || mutant!("living_socket_removed") => Ok(true),
        Ok(()) => taken(io::ErrorKind::AddrInUse, "another process serves this socket"),
        Err(e) if e.raw_os_error() == Some(libc::EPROTOTYPE) => {
            taken(io::ErrorKind::AddrInUse, "another process has a socket of another type there")
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
            taken(io::ErrorKind::AddrInUse, "another process serves this socket, and its queue is full")
        }
        Err(e) => taken(e.kind(), &format!("there is a socket that cannot be proven dead ({e})")),
    }
}

/// Who may use a socket file.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// Its mode.
    pub mode: u32,
    /// Its owner; `None`: this user.
    pub owner: Option<u32>,
    /// Its group; `None`: this user's.
    pub group: Option<u32>,
}

/// A Unix socket of the given type, with the file's mode, owner and group. A socket file that nobody serves any more is replaced.
///
/// # Errors
/// The path is taken by something else or by a running server, or cannot be made.
pub fn bind_unix(path: &Path, kind: super::Kind, access: Access) -> io::Result<Socket> {
    let of = match kind {
        super::Kind::Stream => Type::STREAM,
        super::Kind::Datagram | super::Kind::Udp => Type::DGRAM,
    };
    let address = SockAddr::unix(path)?;
    make_way(path)?;
    let socket = Socket::new(Domain::UNIX, of, None)?;
    socket.bind(&address)?;
    if let Err(error) = give_file(path, access) {
        let _ = std::fs::remove_file(path); // nobody is to use it as it is
        return Err(error);
    }
    if kind == super::Kind::Stream {
        socket.listen(BACKLOG)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn give_file(path: &Path, access: Access) -> io::Result<()> {
    let Access { mode, owner, group } = access;
    if owner.is_some() || group.is_some() {
        std::os::unix::fs::chown(path, owner, group).map_err(|error| {
            let advice = "socket_owner needs root, socket_group a group that this user is in";
            io::Error::new(error.kind(), format!("owner or group cannot be set ({error}): {advice}"))
        })?;
    }
    // Behind chown(2), which takes some bits away.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

/// Gives the file of a Unix socket its mode, owner and group; other addresses have none.
///
/// # Errors
/// The file is not there, or this user may not change it.
pub fn give(address: &Address, access: Access) -> io::Result<()> {
    match address {
        Address::Unix(path) | Address::UnixDatagram(path) => give_file(path, access),
        Address::Tcp(_) | Address::Udp(_) | Address::Stdin => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONLY_US: Access = Access { mode: 0o600, owner: None, group: None };

    #[test]
    fn addresses_are_read_and_shown_alike() {
        for text in [
            "tcp://127.0.0.1:5170",
            "tcp://[::1]:1",
            "unix:///run/x",
            "unixgram://a",
            "stdin:",
            "udp://[fe80::1%2]:514",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for bad in [
            "unix://@name",
            "unixgram://@name",
            "",
            "5170",
            "tcp://",
            "tcp://host",
            "unix://",
            "http://x",
            "udp://127.0.0.1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        assert!(format!("unix://{}", "a".repeat(108)).parse::<Address>().is_err());
    }

    #[test]
    fn a_taken_port_is_refused_even_by_a_sharing_server() {
        let any = "127.0.0.1:0".parse().unwrap();
        let (_held, address) = bind_tcp(any, 2).unwrap();
        assert_eq!(bind_tcp(address, 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_dead_socket_file_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(bind_unix(&path, crate::intake::net::Kind::Stream, ONLY_US).unwrap());
        let _living = bind_unix(&path, crate::intake::net::Kind::Stream, ONLY_US).unwrap();
        assert_eq!(
            bind_unix(&path, crate::intake::net::Kind::Stream, ONLY_US).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        let gram = dir.path().join("g");
        let held = std::os::unix::net::UnixDatagram::bind(&gram).unwrap();
        for kind in [crate::intake::net::Kind::Stream, crate::intake::net::Kind::Datagram] {
            assert_eq!(bind_unix(&gram, kind, ONLY_US).unwrap_err().kind(), io::ErrorKind::AddrInUse, "{kind:?}");
        }
        assert!(held.local_addr().unwrap().as_pathname().is_some_and(Path::exists), "it is still there");
        drop(held);
        drop(bind_unix(&gram, crate::intake::net::Kind::Stream, ONLY_US).unwrap());
        // A queue that is full, and a link to a socket that lives.
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let full = dir.path().join("full");
        listener.bind(&SockAddr::unix(&full).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(&full).unwrap();
        assert!(bind_unix(&full, crate::intake::net::Kind::Stream, ONLY_US).is_err());
        std::os::unix::fs::symlink(&full, dir.path().join("link")).unwrap();
        assert!(bind_unix(&dir.path().join("link"), crate::intake::net::Kind::Stream, ONLY_US).is_err());
        let early = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        early.bind(&SockAddr::unix(dir.path().join("early")).unwrap()).unwrap();
        assert!(
            bind_unix(&dir.path().join("early"), crate::intake::net::Kind::Stream, ONLY_US).is_err(),
            "bound, not listening yet"
        );
        assert!(full.exists() && dir.path().join("link").exists());
        std::fs::write(dir.path().join("f"), "x").unwrap();
        assert!(bind_unix(&dir.path().join("f"), crate::intake::net::Kind::Stream, ONLY_US).is_err());
    }

    #[test]
    fn a_socket_file_that_is_another_ones_by_now_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let _ours = bind_unix(&path, crate::intake::net::Kind::Stream, ONLY_US).unwrap();
        let file = SocketFile::at(&path).unwrap();
        std::fs::rename(&path, dir.path().join("moved")).unwrap();
        let _theirs = bind_unix(&path, crate::intake::net::Kind::Stream, ONLY_US).unwrap();
        file.remove();
        assert!(path.exists(), "it is theirs");
        SocketFile::at(&path).unwrap().remove();
        assert!(!path.exists());
    }
}
