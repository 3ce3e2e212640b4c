//! The APIs that other log servers have, so that their clients may send here unchanged. Each is a file or folder, and a line in
//! [`TABLE`]: its routes, how a body becomes records, and how success and refusals look to its clients. The rest of HTTP knows no
//! API by name.

mod datadog;
mod elasticsearch;
mod gelf;
mod journal;
mod loki;
mod otlp;
mod records;
pub mod splunk;

pub use records::{Put, Records, Stopped, Taking};

use super::answer::Done;
use super::head::{Coding, Head};
use super::options::Apis;
use super::pages::Page;
use super::problem::{self, Problem};
use super::voice::Voice;
use crate::session::Owner;
use crate::session::memory::room::{Lease, NoRoom, Room};
use crate::session::routes::Attribute;
use crate::session::walk::json::{Cursor, NotJson, stands_for};
use crate::session::walk::protobuf::Malformed;
use std::borrow::Cow;
use std::sync::Arc;

/// All APIs, as `listener.NAME.apis` names them, without `lines`, which is no API of somebody else.
pub static TABLE: &[&Api] =
    &[&loki::API, &elasticsearch::API, &splunk::API, &otlp::API, &datadog::API, &gelf::API, &journal::API];

/// The attributes that rules of a listener may look at, whichever of its APIs has them.
pub static ATTRIBUTES: &[Attribute] = &[
    Attribute { name: "tenant", values: &[] },
    Attribute { name: "index", values: &[] },
    Attribute { name: "service", values: &[] },
    Attribute { name: "host", values: &[] },
];

/// The place of `tenant` among [`ATTRIBUTES`]: `X-Scope-OrgID`.
pub const TENANT: usize = 0;
/// The place of `index`.
pub const INDEX: usize = 1;
/// The place of `service`.
pub const SERVICE: usize = 2;
/// The place of `host`.
pub const HOST: usize = 3;

/// An API.
pub struct Api {
    /// Its name in the configuration.
    pub name: &'static str,
    /// What it makes of a request. `None`: the request is not for this API.
    pub claim: fn(&Asked<'_>) -> Option<Claim>,
    /// A token that a request carries in this API's own way.
    pub token: for<'a> fn(&Asked<'a>) -> Option<Cow<'a, [u8]>>,
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// There is one of each name.
impl PartialEq for Api {
    fn eq(&self, other: &Api) -> bool {
        self.name == other.name
    }
}

impl Eq for Api {}

impl Api {
    /// The API of this name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Api> {
        TABLE.iter().find(|api| api.name == name).copied()
    }
}

/// A request, as an API sees it.
pub struct Asked<'a> {
    /// Its head.
    pub head: &'a Head<'a>,
    /// Its path, without a prefix that people put in front.
    pub path: &'a str,
    /// The listener's APIs.
    pub apis: &'a Apis,
    /// It has tokens: without, credentials are ignored.
    pub has_tokens: bool,
    /// Memory that is leased.
    pub room: &'a Arc<Room>,
    /// To whom memory is charged.
    pub owner: Owner,
    /// Monotonic nanoseconds.
    pub now_ns: u64,
}

impl Asked<'_> {
    /// True where the media type of the body is this one, whatever its parameters.
    #[must_use]
    pub fn is_of(&self, kind: &str) -> bool {
        let given = self.head.content_type.unwrap_or_default();
        let given = given.split(|b| *b == b';').next().unwrap_or(given).trim_ascii();
        given.eq_ignore_ascii_case(kind.as_bytes())
    }

    /// The value of a key of the query, as it stands there.
    #[must_use]
    pub fn query(&self, key: &str) -> Option<&str> {
        self.head.query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    }

    /// A lease of memory for what is gathered of this request.
    #[must_use]
    pub fn lease(&self) -> Lease {
        Lease::new(self.room, self.owner, self.now_ns)
    }
}

/// The value of a key of a query with its percent signs taken back (the URL standard, "application/x-www-form-urlencoded parsing").
#[must_use]
pub fn query_value(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        let digits = rest.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = digits.filter(|d| !d.starts_with('+')).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &rest[2..];
            }
            (b'+', _) => out.push(b' '),
            _ => out.push(*first),
        }
    }
    out
}

/// The inside of the string that a valid JSON object has under this name; empty: it has none.
#[must_use]
pub fn member<'a>(object: &'a [u8], name: &[u8]) -> &'a [u8] {
    let find = || {
        let (mut cursor, mut is_first) = (Cursor::new(object, 0), true);
        cursor.expect(b'{')?;
        while cursor.another(is_first, b'}')? {
            is_first = false;
            let key = cursor.key()?;
            let value = cursor.value()?;
            if stands_for(key, name) {
                return Ok(value);
            }
        }
        Err(NotJson)
    };
    match find() {
        Ok([b'"', inside @ .., b'"']) => inside,
        _ => b"",
    }
}

/// What an API wants done with a request that is for it.
pub struct Claim {
    /// How its clients are spoken to.
    pub voice: &'static Voice,
    /// What is to be done.
    pub wanted: Wanted,
}

/// See [`Claim`].
pub enum Wanted {
    /// An answer at once, to anybody.
    Say(Page),
    /// An answer at once, to whoever may write.
    SayIfAllowed(Page),
    /// Whether the server is ready.
    Readiness,
    /// This if it is, to anybody.
    Healthy(Page),
    /// A refusal.
    Refuse(&'static Problem),
    /// The body is lines.
    Lines,
    /// Records are to be taken from the body.
    Take {
        /// By this.
        walk: Box<dyn Walk>,
        /// How the body is encoded where its head does not say; `Guess` also where it does.
        coding: Option<Coding>,
    },
}

/// Why a walk does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The body is not what the API takes.
    Bad,
    /// There is no memory.
    NoRoom(NoRoom),
}

impl From<Malformed> for Trouble {
    fn from(_: Malformed) -> Self {
        Trouble::Bad
    }
}

impl From<NotJson> for Trouble {
    fn from(_: NotJson) -> Self {
        Trouble::Bad
    }
}

impl From<NoRoom> for Trouble {
    fn from(no_room: NoRoom) -> Self {
        Trouble::NoRoom(no_room)
    }
}

impl Trouble {
    /// As clients are told of it.
    #[must_use]
    pub fn problem(self, bad: &'static Problem) -> &'static Problem {
        match self {
            Trouble::Bad => bad,
            Trouble::NoRoom(NoRoom::Never) => &problem::DOCUMENT_TOO_LARGE,
            Trouble::NoRoom(NoRoom::Now) => &problem::NO_ROOM,
        }
    }
}

/// Is told when all records of a request have reached their level. Dropped before, they never will, as far as is known.
pub trait Watcher: Send {
    /// They have.
    fn reached(&mut self);
}

/// Takes records from a body, piece by piece. It builds nothing; what it keeps between two calls is its place.
pub trait Walk: Send {
    /// True where nothing can be taken before all of the body is there.
    fn is_document(&self) -> bool;

    /// Takes records until there is no whole one left, or until one is not put ([`Put::Stop`]), and returns how many bytes it is done
    /// with: the next call has those behind them at its start. `is_last`: nothing follows behind `bytes`.
    ///
    /// # Errors
    /// The body is not what the API takes. Records before that place may have been taken.
    fn walk(&mut self, bytes: &[u8], is_last: bool, records: &mut Records<'_, '_>) -> Result<usize, &'static Problem>;

    /// True where the body may go on for ever: the limits of a body's length do not hold.
    fn is_endless(&self) -> bool {
        false
    }

    /// True if it tells the client itself of records that were dropped because they were too long.
    fn tells_of_dropped(&self) -> bool {
        false
    }

    /// True if its client is told what is durable, and nothing less: the request cannot ask for a lower level.
    fn needs_durable(&self) -> bool {
        false
    }

    /// Who is told that all records have reached their level. Then the request is answered without waiting for that.
    fn watcher(&mut self) -> Option<Box<dyn Watcher>> {
        None
    }

    /// What is answered once all records have reached their level.
    fn done(&mut self) -> Done;
}
