//! Who is at the other end of a connection, and which listener took it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A listener's index in the configuration.
pub type ListenerId = u16;

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Ip(SocketAddr),
    /// A process on this machine, over a Unix socket or standard input.
    Local,
}

impl Peer {
    /// The address for per-address limits.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Peer::Ip(address) => Some(address.ip()),
            Peer::Local => None,
        }
    }
}

/// A client as limits and shares count it: an IPv4 address, or the network of an IPv6 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    /// `ipv6_prefix`: so many bits of an IPv6 address are one client's; a subscriber or a virtual machine commonly has 64 of them
    /// to choose the rest of (RFC 6177). IPv4 addresses mapped to IPv6 (RFC 4291 section 2.5.5.2) count as IPv4.
    #[must_use]
    pub fn of(address: IpAddr, ipv6_prefix: u8) -> Client {
        Client(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let rest = 128_u32.saturating_sub(ipv6_prefix.into());
                let mask = u128::MAX.checked_shl(rest).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
            v4 => v4,
        })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // IPv4 over an IPv6 socket (`[::]`), or so in a PROXY header: people know it as IPv4 (RFC 4291 section 2.5.5.2).
            Peer::Ip(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f),
            Peer::Local => f.write_str("local"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_written_as_ipv4() {
        let shown = |text: &str| Peer::Ip(text.parse().unwrap()).to_string();
        assert_eq!(shown("[::ffff:192.0.2.1]:5170"), "192.0.2.1:5170");
        assert_eq!(shown("192.0.2.1:5170"), "192.0.2.1:5170");
        assert_eq!(shown("[2001:db8::1]:5170"), "[2001:db8::1]:5170");
    }

    #[test]
    fn a_network_of_ipv6_is_one_client_and_an_address_of_ipv4_is() {
        let client = |text: &str, prefix| Client::of(text.parse().unwrap(), prefix);
        assert_eq!(client("2001:db8:0:1::1", 64), client("2001:db8:0:1:ffff::2", 64));
        assert_ne!(client("2001:db8:0:1::1", 64), client("2001:db8:0:2::1", 64));
        assert_eq!(client("2001:db8:0:1::1", 56), client("2001:db8:0:2::1", 56));
        assert_ne!(client("2001:db8::1", 128), client("2001:db8::2", 128));
        assert_eq!(client("::1", 0), client("ffff::", 0));
        assert_ne!(client("192.0.2.1", 64), client("192.0.2.2", 64));
        assert_eq!(client("::ffff:192.0.2.1", 64), client("192.0.2.1", 64));
        assert_ne!(client("::ffff:192.0.2.1", 64), client("::ffff:192.0.2.2", 64));
    }
}
