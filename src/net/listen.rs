//! Addresses, and making the sockets that listen on them.

use socket2::{Domain, SockAddr, Socket, Type};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Connections that may wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `tcp://HOST:PORT`; port 0 takes a free one.
    Tcp(SocketAddr),
    /// `unix:///path` or `unix://relative/path`: a stream socket.
    Unix(PathBuf),
    /// `unixgram://PATH`: a datagram socket.
    UnixDatagram(PathBuf),
    /// `stdin:`
    Stdin,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "tcp://{address}"),
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::UnixDatagram(path) => write!(f, "unixgram://{}", path.display()),
            Address::Stdin => f.write_str("stdin:"),
        }
    }
}

/// Longest path of a Unix socket, in bytes (`sun_path`, unix(7), less the final NUL).
const UNIX_PATH_MAX: usize = 107;

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = |p: &str| match p.len() {
            0 => Err(format!("\"{text}\" names no path")),
            n if n > UNIX_PATH_MAX => {
                Err(format!("the path of a Unix socket has at most {UNIX_PATH_MAX} bytes, this has {n}"))
            }
            _ => Ok(PathBuf::from(p)),
        };
        if text == "stdin:" || text == "stdin://" {
            return Ok(Address::Stdin);
        }
        match text.split_once("://") {
            Some(("tcp", rest)) => {
                let rest = rest.replace("localhost:", "127.0.0.1:");
                rest.parse().map(Address::Tcp).map_err(|_| {
                    format!("\"{text}\" is not tcp://IP:PORT (such as tcp://127.0.0.1:5170 or tcp://[::]:5170)")
                })
            }
            Some(("unix", rest)) => path(rest).map(Address::Unix),
            Some(("unixgram", rest)) => path(rest).map(Address::UnixDatagram),
            Some(("udp", _)) => Err("udp:// is not an address of the lines protocol; use tcp:// or unixgram://".into()),
            _ => Err(format!(
                "\"{text}\" is not an address: expected tcp://IP:PORT, unix://PATH, unixgram://PATH or stdin:"
            )),
        }
    }
}

/// One TCP socket per reactor on the same address, and the address with its real port.
///
/// With one reactor the socket is an ordinary one. With more, `SO_REUSEPORT` would also let a second server of the same
/// user in silently, so a plain bind is tried first, which the kernel refuses while anybody listens there.
///
/// # Errors
/// The address is taken, not ours, or not allowed.
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

/// A Unix socket of the given type, with the file's mode. A socket file that nobody serves any more is replaced.
///
/// # Errors
/// The path is taken by something else or by a running server, or cannot be made.
pub fn bind_unix(path: &Path, kind: super::Kind, mode: u32) -> io::Result<Socket> {
    let of = match kind {
        super::Kind::Stream => Type::STREAM,
        super::Kind::Datagram => Type::DGRAM,
    };
    let address = SockAddr::unix(path)?;
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.file_type().is_socket() => {
            if Socket::new(Domain::UNIX, of, None)?.connect(&address).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process serves this socket"));
            }
            std::fs::remove_file(path)?;
        }
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file of that name that is not a socket",
            ));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let socket = Socket::new(Domain::UNIX, of, None)?;
    socket.bind(&address)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    if kind == super::Kind::Stream {
        socket.listen(BACKLOG)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Gives the file of a Unix socket its mode; other addresses have none.
///
/// # Errors
/// The file is not there, or not ours.
pub fn set_mode(address: &Address, mode: u32) -> io::Result<()> {
    match address {
        Address::Unix(path) | Address::UnixDatagram(path) => {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        }
        Address::Tcp(_) | Address::Stdin => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown_alike() {
        for text in ["tcp://127.0.0.1:5170", "tcp://[::1]:1", "unix:///run/x", "unixgram://a", "stdin:"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for bad in ["", "5170", "tcp://", "tcp://host", "unix://", "http://x", "udp://127.0.0.1:1"] {
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
        drop(bind_unix(&path, crate::net::Kind::Stream, 0o600).unwrap());
        let _living = bind_unix(&path, crate::net::Kind::Stream, 0o600).unwrap();
        assert_eq!(bind_unix(&path, crate::net::Kind::Stream, 0o600).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        std::fs::write(dir.path().join("f"), "x").unwrap();
        assert!(bind_unix(&dir.path().join("f"), crate::net::Kind::Stream, 0o600).is_err());
    }
}
