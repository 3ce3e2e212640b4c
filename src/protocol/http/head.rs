//! Reads the head of a request, strictly by RFC 9112. If a proxy in front reads it differently, requests can be smuggled.

use super::problem::{self, Problem};
use memchr::memchr2_iter;
use std::mem::MaybeUninit;

/// Most header fields that `max_headers` may allow.
pub const MOST_HEADERS: usize = 128;

/// How the body is delimited (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Neither was said: there is no body.
    None,
}

/// `Content-Encoding`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Identity,
    /// RFC 1952.
    Gzip,
    /// RFC 1950, or RFC 1951 without its header, as some clients send.
    Deflate,
    /// RFC 8878.
    Zstd,
    /// The block or the framed format.
    Snappy,
    /// What its first bytes say: gzip, zstd, deflate with zlib's header, or as it is. No head says so, but APIs do whose clients do not say.
    Guess,
}

/// A method that matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// HEAD.
    Head,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// OPTIONS.
    Options,
    /// Any other.
    Other,
}

/// A head that keeps the rules. What is borrowed lies in the received bytes.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: Method,
    /// The path, without query; `*` for OPTIONS.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: &'a str,
    /// How the body is delimited.
    pub framing: Framing,
    /// How it is encoded; `Err`: not one of those known.
    pub coding: Result<Coding, &'static Problem>,
    /// HTTP/1.0.
    pub is_old: bool,
    /// The connection may go on after the answer.
    pub keep_alive: bool,
    /// `Expect: 100-continue`; `Err`: another expectation.
    pub expects: Result<bool, &'static Problem>,
    /// `Authorization`.
    pub authorization: Option<&'a [u8]>,
    /// `X-Logweir-Ack`.
    pub ack: Option<&'a [u8]>,
    /// `Content-Type`.
    pub content_type: Option<&'a [u8]>,
    /// `Origin`.
    pub origin: Option<&'a [u8]>,
    /// `Accept` has `text/html`: browsers ask for it; curl and probes do not.
    pub wants_html: bool,
    /// All of it.
    bytes: &'a [u8],
}

impl<'a> Head<'a> {
    /// The value of another field, which only some APIs know. If there are several, that of the first.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        let lines = self.bytes.split(|b| *b == b'\n').skip(1);
        lines.map(<[u8]>::trim_ascii_end).find_map(|line| {
            let (given, value) = line.split_at_checked(name.len())?;
            let is_it = given.eq_ignore_ascii_case(name.as_bytes());
            if is_it { value.strip_prefix(b":").map(<[u8]>::trim_ascii) } else { None }
        })
    }
}

/// Reads a head that ends in an empty line.
///
/// # Errors
/// The rule that is broken. The connection must be closed then, because it is not known where the next request begins.
pub fn read(bytes: &[u8], max_headers: usize) -> Result<Head<'_>, &'static Problem> {
    let breaks = memchr2_iter(b'\r', b'\n', bytes).try_fold(None, |open, at| match (open, bytes[at]) {
        (None, b'\r') => Some(Some(at)),
        (Some(cr), b'\n') if at == cr + 1 => Some(None),
        _ => None,
    });
    if breaks != Some(None) {
        return Err(&problem::BARE_LINE_END);
    }
    let mut headers = [MaybeUninit::uninit(); MOST_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(len)) if len == bytes.len() => {}
        Ok(_) => return Err(&problem::NOT_HTTP),
        Err(httparse::Error::TooManyHeaders) => return Err(&problem::HEAD_TOO_LARGE),
        Err(httparse::Error::Version) => return Err(&problem::VERSION),
        Err(_) => return Err(&problem::NOT_HTTP),
    }
    if request.headers.len() > max_headers {
        return Err(&problem::HEAD_TOO_LARGE);
    }
    let is_old = request.version == Some(0);
    let method = match request.method {
        Some("POST") => Method::Post,
        Some("PUT") => Method::Put,
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        Some("OPTIONS") => Method::Options,
        _ => Method::Other,
    };
    let (path, query) = target(request.path.unwrap_or_default(), method)?;
    let mut head = Head {
        method,
        path,
        query,
        framing: Framing::None,
        coding: Ok(Coding::Identity),
        is_old,
        keep_alive: !is_old,
        expects: Ok(false),
        authorization: None,
        ack: None,
        content_type: None,
        origin: None,
        wants_html: false,
        bytes,
    };
    let (mut hosts, mut lengths, mut codings) = (0, 0, 0);
    let (mut says_close, mut says_keep_alive) = (false, false);
    for header in request.headers.iter() {
        let (name, value) = (header.name, header.value);
        if name.eq_ignore_ascii_case("content-length") {
            lengths += 1;
            head.framing = Framing::Length(decimal(value).ok_or(&problem::BAD_LENGTH)?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            codings += 1;
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(if is_token_list(value) { &problem::UNKNOWN_CODING } else { &problem::NOT_HTTP });
            }
        } else if name.eq_ignore_ascii_case("host") {
            hosts += 1;
            if !is_host(value) {
                return Err(&problem::BAD_HOST);
            }
        } else if name.eq_ignore_ascii_case("connection") {
            for option in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
                says_close |= option.eq_ignore_ascii_case(b"close");
                says_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name.eq_ignore_ascii_case("content-encoding") {
            let before = std::mem::replace(&mut head.coding, Ok(Coding::Identity));
            head.coding = coding(value, before);
        } else if name.eq_ignore_ascii_case("expect") {
            let known = value.eq_ignore_ascii_case(b"100-continue");
            head.expects = if known { Ok(!is_old) } else { Err(&problem::EXPECTATION) };
        } else if name.eq_ignore_ascii_case("authorization") {
            if head.authorization.is_some() {
                return Err(&problem::NOT_HTTP); // a proxy may have looked at the other one
            }
            head.authorization = Some(value);
        } else if name.eq_ignore_ascii_case("x-logweir-ack") {
            head.ack = Some(value);
        } else if name.eq_ignore_ascii_case("content-type") {
            head.content_type = Some(value);
        } else if name.eq_ignore_ascii_case("origin") {
            head.origin = Some(value);
        } else if name.eq_ignore_ascii_case("accept") {
            head.wants_html |= value.to_ascii_lowercase().windows(9).any(|w| w == b"text/html");
        }
    }
    if hosts > 1 || (hosts == 0 && !is_old) {
        return Err(&problem::BAD_HOST);
    }
    if lengths + codings > 1 {
        return Err(&problem::TWO_LENGTHS);
    }
    if codings == 1 {
        if is_old {
            return Err(&problem::OLD_CHUNKED);
        }
        head.framing = Framing::Chunked;
    }
    head.keep_alive = !says_close && (!is_old || says_keep_alive);
    Ok(head)
}

/// Origin form, absolute form (RFC 9112 section 3.2: a server must accept it), or `*`.
fn target(target: &str, method: Method) -> Result<(&str, &str), &'static Problem> {
    if !target.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b'#') {
        return Err(&problem::BAD_TARGET);
    }
    if target == "*" && method == Method::Options {
        return Ok(("*", ""));
    }
    let absolute = ["http://", "https://"].iter().find_map(|scheme| {
        let rest = target.get(scheme.len()..)?;
        target[..scheme.len()].eq_ignore_ascii_case(scheme).then_some(rest)
    });
    let target = match absolute {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            if !is_host(&rest.as_bytes()[..end]) || end == 0 {
                return Err(&problem::BAD_TARGET);
            }
            if end == rest.len() { "/" } else { &rest[end..] }
        }
        None => target,
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "" if absolute.is_some() => Ok(("/", query)),
        path if path.starts_with('/') => Ok((path, query)),
        _ => Err(&problem::BAD_TARGET),
    }
}

/// RFC 9110 section 8.6: digits only, no sign, no list.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |n, b| n * 10 + u64::from(b - b'0'))) // 19 digits always fit
}

/// `uri-host [":" port]` of RFC 9110 section 7.2, as far as characters go. Empty is allowed there.
fn is_host(value: &[u8]) -> bool {
    value.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(b))
}

fn is_token_list(value: &[u8]) -> bool {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).all(is_token)
}

/// RFC 9110 section 5.6.2.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// Reads a list of codings, after those of an earlier field. There may be only one beside `identity`: no real client compresses logs
/// twice, and an attacker could use that to take memory.
fn coding(value: &[u8], before: Result<Coding, &'static Problem>) -> Result<Coding, &'static Problem> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).try_fold(before?, |before, name| {
        match (before, one_coding(name)?) {
            (before, Coding::Identity) => Ok(before),
            (Coding::Identity, coding) => Ok(coding),
            _ => Err(&problem::UNSUPPORTED_CODING),
        }
    })
}

fn one_coding(value: &[u8]) -> Result<Coding, &'static Problem> {
    let known: [(&[u8], Coding); 6] = [
        (b"identity", Coding::Identity),
        (b"gzip", Coding::Gzip),
        (b"x-gzip", Coding::Gzip),
        (b"deflate", Coding::Deflate),
        (b"zstd", Coding::Zstd),
        (b"snappy", Coding::Snappy),
    ];
    let found = known.iter().find(|(name, _)| value.eq_ignore_ascii_case(name));
    found.map(|(_, coding)| *coding).ok_or(&problem::UNSUPPORTED_CODING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(head: &str) -> u16 {
        read(head.as_bytes(), 64).map_or_else(|p| p.status, |_| 200)
    }

    #[test]
    fn what_rfc_9112_allows() {
        for head in [
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "POST http://a.example/ingest/b?ack=written HTTP/1.1\r\nhost: a.example\r\n\r\n",
            "GET http://a.example?x=y HTTP/1.1\r\nhost: a.example\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1]:9880\r\nX: \u{fc}\r\n\r\n",
        ] {
            assert_eq!(status(head), 200, "{head}");
        }
    }

    #[test]
    fn the_smuggling_corpus_is_refused() {
        let with = |lines: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        for lines in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: \u{b}chunked\r\n",
            "Transfer-Encoding:\r\n chunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: -3\r\n",
            "Content-Length: 0x3\r\n",
            "Content-Length: 3 \n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "X: a\nContent-Length: 3\r\n",
            "X: a\rContent-Length: 3\r\n",
            "X: a\r\n b\r\n",
            " X: a\r\n",
            ": a\r\n",
            "X\r\n",
            "X: a\0b\r\n",
            "Host: b\r\n",
            "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
        ] {
            assert_eq!(status(&with(lines)), 400, "{lines:?}");
        }
        for head in [
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n",
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST x HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST  / HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1 \r\nHost: a\r\n\r\n",
            "POST /\t HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "POST * HTTP/1.1\r\nHost: a\r\n\r\n",
            "POST /\r\n\r\n",
            "\0\r\n\r\n",
        ] {
            assert_eq!(status(head), 400, "{head:?}");
        }
        assert_eq!(status(&with("Transfer-Encoding: gzip, chunked\r\n")), 501);
        assert_eq!(status("PRI * HTTP/2.0\r\n\r\n"), 505);
    }

    #[test]
    fn one_coding_beside_identity_is_known() {
        let of = |lines: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
            read(head.as_bytes(), 64).unwrap().coding.map_err(|p| p.status)
        };
        assert_eq!(of("Content-Encoding: gzip, identity\r\n"), Ok(Coding::Gzip));
        assert_eq!(of("Content-Encoding: identity\r\nContent-Encoding: zstd\r\n"), Ok(Coding::Zstd));
        assert_eq!(of("Content-Encoding: identity, identity\r\n"), Ok(Coding::Identity));
        for wrong in ["gzip, zstd", "br", "identity, br", "gzip,,", ""] {
            assert_eq!(of(&format!("Content-Encoding: {wrong}\r\n")), Err(415), "{wrong}");
        }
    }

    #[test]
    fn persistence_follows_the_version_and_the_connection_header() {
        let keeps = |version: &str, line: &str| {
            read(format!("GET / HTTP/1.{version}\r\nHost: a\r\n{line}\r\n").as_bytes(), 64).unwrap().keep_alive
        };
        assert!(keeps("1", "") && !keeps("0", ""));
        assert!(!keeps("1", "Connection: foo, Close\r\n"));
        assert!(keeps("0", "Connection: Keep-Alive\r\n"));
        assert!(!keeps("0", "Connection: keep-alive\r\nConnection: close\r\n"));
    }
}
