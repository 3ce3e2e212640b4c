//! The address of a listener, as a configuration writes it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// `tcp://HOST:PORT`; port 0 takes a free one.
    Tcp(SocketAddr),
    /// `unix:///path` or `unix://relative/path`: a stream socket.
    Unix(PathBuf),
    /// `unixgram://PATH`: a datagram socket.
    UnixDatagram(PathBuf),
    /// `udp://HOST:PORT`; a group's address joins the group (multicast), port 0 takes a free one.
    Udp(SocketAddr),
    /// `stdin:`
    Stdin,
}

/// The kinds of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// TCP.
    Tcp,
    /// A Unix stream socket.
    Unix,
    /// A Unix datagram socket.
    UnixDatagram,
    /// UDP.
    Udp,
    /// Standard input.
    Stdin,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Tcp => "tcp://",
            Family::Unix => "unix://",
            Family::UnixDatagram => "unixgram://",
            Family::Udp => "udp://",
            Family::Stdin => "stdin:",
        })
    }
}

impl Address {
    /// Its kind.
    #[must_use]
    pub fn family(&self) -> Family {
        match self {
            Address::Tcp(_) => Family::Tcp,
            Address::Unix(_) => Family::Unix,
            Address::UnixDatagram(_) => Family::UnixDatagram,
            Address::Udp(_) => Family::Udp,
            Address::Stdin => Family::Stdin,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => write!(f, "tcp://{address}"),
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::UnixDatagram(path) => write!(f, "unixgram://{}", path.display()),
            Address::Udp(address) => write!(f, "udp://{address}"),
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
            // unix(7): such names are commonly abstract sockets, which have no file, and so nothing says who may use them.
            _ if p.starts_with('@') => Err(format!(
                "\"{text}\" names an abstract socket, which anybody on this host could use; expected a path (a file of that name is ./{p})"
            )),
            n if n > UNIX_PATH_MAX => {
                Err(format!("the path of a Unix socket has at most {UNIX_PATH_MAX} bytes, this has {n}"))
            }
            _ => Ok(PathBuf::from(p)),
        };
        if text == "stdin:" || text == "stdin://" {
            return Ok(Address::Stdin);
        }
        match text.split_once("://") {
            Some((scheme @ ("tcp" | "udp"), rest)) => {
                let rest = rest.replace("localhost:", "127.0.0.1:");
                rest.parse().map(if scheme == "tcp" { Address::Tcp } else { Address::Udp }).map_err(|_| {
                    let hint = match rest.rsplit_once(':') {
                        Some(("" | "*", port)) if is_port(port) => {
                            format!("; all addresses of this host are {scheme}://[::]:{port}")
                        }
                        Some((name, port)) if is_port(port) && name.contains(|c: char| c.is_alphabetic()) => {
                            "; names are not looked up: write the IP".to_string()
                        }
                        _ => String::new(),
                    };
                    let example = if scheme == "tcp" { 5170 } else { 5140 };
                    format!(
                        "\"{text}\" is not {scheme}://IP:PORT (such as {scheme}://127.0.0.1:{example} or {scheme}://[::]:{example}){hint}"
                    )
                })
            }
            Some(("unix", rest)) => path(rest).map(Address::Unix),
            Some(("unixgram", rest)) => path(rest).map(Address::UnixDatagram),
            _ => Err(format!(
                "\"{text}\" is not an address: expected tcp://IP:PORT, udp://IP:PORT, unix://PATH, unixgram://PATH or stdin:{}",
                meant(text).map(|hint| format!(" ({hint})")).unwrap_or_default()
            )),
        }
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

/// A hint for a wrong address: what was probably meant.
fn meant(text: &str) -> Option<String> {
    let did = |address: String| Some(format!("did you mean {address}?"));
    match text.split_once("://") {
        Some(("https" | "tls" | "tcps" | "ssl", _)) => Some(
            "TLS needs a certificate: a listener in the configuration file, with tls_cert and tls_key, and protocol = \"http\" for HTTP"
                .into(),
        ),
        Some(("http", rest)) => did(format!("tcp://{} with protocol = \"http\"", rest.trim_end_matches('/'))),
        Some(_) => None,
        None if text == "-" => did("stdin:".into()),
        None if is_port(text) => did(format!("tcp://127.0.0.1:{text}")),
        None if text.starts_with(':') && is_port(&text[1..]) => did(format!("tcp://[::]{text}")),
        None if text.starts_with("localhost:") || text.parse::<SocketAddr>().is_ok() => did(format!("tcp://{text}")),
        None if text.starts_with('/') || text.starts_with("./") => did(format!("unix://{text}")),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_probably_meant_is_said() {
        let said = |text: &str| text.parse::<Address>().unwrap_err();
        for (text, meant) in [
            ("5170", "did you mean tcp://127.0.0.1:5170?"),
            (":5170", "did you mean tcp://[::]:5170?"),
            ("0.0.0.0:5170", "did you mean tcp://0.0.0.0:5170?"),
            ("localhost:5170", "did you mean tcp://localhost:5170?"),
            ("/run/x.sock", "did you mean unix:///run/x.sock?"),
            ("-", "did you mean stdin:?"),
            ("https://127.0.0.1:1", "TLS needs a certificate"),
            ("tls://127.0.0.1:1", "TLS needs a certificate"),
            ("http://127.0.0.1:80/", "did you mean tcp://127.0.0.1:80 with protocol = \"http\"?"),
            ("tcp://example.com:5170", "names are not looked up"),
            ("tcp://*:5170", "tcp://[::]:5170"),
        ] {
            assert!(said(text).contains(meant), "{text}: {}", said(text));
        }
        assert!(!said("ftp://x").contains("did you mean"));
    }
}
