//! An HTTP listener: its keys in the configuration, and what a reactor must know of it.

use super::api::{ATTRIBUTES, Api, TABLE};
use super::dialect::{Dialect, Records, is_origin, is_success};
use super::head::MOST_HEADERS;
use super::options::{Apis, HttpOptions};
use super::pages::Site;
use super::session::{BYTES_PER_CONNECTION, HEAD_LANDING, Http};
use crate::host::address::{Address, Family};
use crate::host::peer::Peer;
use crate::protocol::{About, Entry};
use crate::section;
use crate::session::lines::{LineOptions, TooLong, least_chunk};
use crate::session::memory::room::Room;
use crate::session::profile::{News, SCRATCH_LANDING};
use crate::session::routes::{Route, RouteTable, Routes, Rules};
use crate::session::write::Format;
use crate::session::{AckLevel, Owner, Patience, Profile, Protocol, Session, downcast, same};
use crate::settings::ConfigError;
use crate::settings::section::Section;
use crate::settings::units::{Size, Time};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

section!(/// The keys of an HTTP listener.
    Keys { status: usize, records: Records, cors_origins: Vec<String>, apis: Vec<String>, path_prefix: String, query_token: bool, splunk_ack: bool,
           route: RouteTable, streams: Vec<String>, tokens: Vec<String>,
           too_long: TooLong, strip_cr: bool, max_header_bytes: Size,
           max_headers: usize, max_body_bytes: Size, max_decoded_bytes: Size, max_document_bytes: Size, max_requests: usize, body_timeout: Time,
           queue_timeout: Time, max_connection_age: Time });

/// See the module above.
pub static ENTRY: Entry = Entry {
    name: "http",
    port: 9880,
    runs_on: &[Family::Tcp, Family::Unix],
    format,
    leases: true,
    keys: Keys::KEYS,
    build,
};

/// Longest head of a request for a page.
const PAGES_HEAD: usize = 8 << 10;
/// Bytes of the scratch buffer that a listener of pages wants.
pub const PAGES_SCRATCH: usize = 2 * HEAD_LANDING + PAGES_HEAD;

/// The protocol of an HTTP listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpProtocol {
    options: Arc<HttpOptions>,
    profile: Profile,
}

fn build(section: &Section<'_>, about: &About<'_>) -> Result<Arc<dyn Protocol>, ConfigError> {
    let keys: Keys = section.read()?;
    about.refuse_classic(section)?;
    if keys.tokens.as_ref().is_some_and(Vec::is_empty) {
        return Err(section.error("tokens", "expected at least one token; leave the key out to let anybody write"));
    }
    let token = |name: &String| {
        let token = about.tokens.get(name).cloned();
        token.ok_or_else(|| section.error("tokens", format!("there is no [token.{name}]")))
    };
    let status = section.number("status", keys.status, 204, 200, 299);
    if !is_success(status) {
        return Err(section.error("status", format!("expected 200, 201, 202 or 204, not {status}")));
    }
    section.list("cors_origins", keys.cors_origins.as_deref());
    if let Some(wrong) = keys.cors_origins.iter().flatten().find(|origin| !is_origin(origin)) {
        let message =
            format!("expected \"*\" or origins such as \"https://app.example\", without a path, not \"{wrong}\"");
        return Err(section.error("cors_origins", message));
    }
    section.list("streams", keys.streams.as_deref());
    section.list("tokens", keys.tokens.as_deref());
    let apis = apis(section, &keys, about)?;
    let options = HttpOptions {
        listener: about.listener.to_string(),
        framing: LineOptions {
            max_line_bytes: about.max_line_bytes,
            too_long: section.word("too_long", keys.too_long, TooLong::Truncate),
            strip_cr: section.flag("strip_cr", keys.strip_cr, false),
            strip_nul: false,
            keep_unterminated: true,
        },
        routes: Arc::clone(about.routes),
        rules: Rules::read(section, keys.route.as_ref(), about.routes, ATTRIBUTES)?,
        apis,
        ack: about.ack.unwrap_or(AckLevel::Durable),
        max_headers: section.number("max_headers", keys.max_headers, 64, 1, MOST_HEADERS),
        max_header_bytes: section.size("max_header_bytes", keys.max_header_bytes, 16 << 10, 256, 1 << 20) as usize,
        max_body_bytes: section.size("max_body_bytes", keys.max_body_bytes, 64 << 20, 1, 1 << 50),
        max_decoded_bytes: section.size("max_decoded_bytes", keys.max_decoded_bytes, 1 << 30, 1, 1 << 50),
        max_requests: section.number("max_requests", keys.max_requests, 0, 0, u32::MAX as usize) as u32,
        tokens: keys.tokens.iter().flatten().map(token).collect::<Result<_, _>>()?,
        room: Arc::clone(about.room),
        dialect: Dialect {
            status: status as u16,
            records: section.word("records", keys.records, Records::Lines),
            origins: keys.cors_origins.iter().flatten().map(|origin| origin.as_str().into()).collect(),
        },
        site: None,
    };
    let patience = Patience {
        line: Duration::from_secs(30),
        head: about.header_timeout,
        body: section.time("body_timeout", keys.body_timeout, "30s", "100ms", "1h"),
        ..Patience::default()
    };
    let queue = section.time("queue_timeout", keys.queue_timeout, "1s", "0s", "1h");
    let age = section.time("max_connection_age", keys.max_connection_age, "0s", "0s", "365days");
    Ok(Arc::new(HttpProtocol::new(Arc::new(options), patience, queue, age)))
}

/// What `apis`, `path_prefix` and `max_document_bytes` say.
fn apis(section: &Section<'_>, keys: &Keys, about: &About<'_>) -> Result<Apis, ConfigError> {
    let known = || std::iter::once(LINES).chain(TABLE.iter().map(|api| api.name));
    let lines = vec![LINES.to_string()];
    let names = keys.apis.as_ref().unwrap_or(&lines);
    section.list("apis", Some(names));
    if let Some(wrong) = names.iter().find(|name| !known().any(|known| known == **name)) {
        let known: Vec<String> = known().map(|name| format!("`{name}`")).collect();
        return Err(section.error("apis", format!("unknown value `{wrong}`, expected one of {}", known.join(", "))));
    }
    if names.is_empty() {
        return Err(section.error("apis", "expected at least one; leave the key out for [\"lines\"]"));
    }
    let prefix = section.word("path_prefix", keys.path_prefix.clone(), String::new());
    let is_path = prefix.starts_with('/') && prefix.len() > 1 && prefix.bytes().all(|b| b.is_ascii_graphic());
    if !prefix.is_empty() && (!is_path || prefix.ends_with('/') || prefix.contains(['?', '#'])) {
        return Err(section.error("path_prefix", format!("expected a path such as \"/logs\", not \"{prefix}\"")));
    }
    // Numbers that were given out before a reload become true behind it.
    let running = about.running.and_then(downcast::<HttpProtocol>).and_then(|http| http.options.apis.acks.clone());
    let has_acks = section.flag("splunk_ack", keys.splunk_ack, false);
    if has_acks && about.ack.unwrap_or(AckLevel::Durable) != AckLevel::Durable {
        return Err(
            section.error("splunk_ack", "needs ack = \"durable\": an acknowledgement says that everything is on disk")
        );
    }
    let acks = has_acks.then(|| running.unwrap_or_default());
    Ok(Apis {
        others: names.iter().filter_map(|name| Api::find(name)).collect(),
        lines: names.iter().any(|name| name == LINES),
        prefix,
        acks,
        query_token: section.flag("query_token", keys.query_token, false),
        max_document_bytes: section.size("max_document_bytes", keys.max_document_bytes, 16 << 20, 4096, 1 << 30)
            as usize,
    })
}

/// In `apis`: bodies of lines, at paths of our own.
const LINES: &str = "lines";

/// How records of a listener with these `apis` are written where nothing says so: as they are if all are lines, else so that what comes
/// with them is not lost.
fn format(words: &dyn Fn(&str) -> Vec<String>) -> Format {
    if words("apis").iter().all(|name| name == LINES) { Format::Raw } else { Format::Json }
}

impl HttpProtocol {
    /// A protocol with these options. `queue`: how long a request waits for a chunk before it is refused. `age`: the greatest age of a
    /// connection.
    #[must_use]
    pub fn new(options: Arc<HttpOptions>, patience: Patience, queue: Duration, age: Duration) -> HttpProtocol {
        // A line; or a head, and what came with it while those before it wait for their answers.
        let head = options.max_header_bytes + HEAD_LANDING;
        let longest_tail = options.framing.max_line_bytes.max(head);
        let least = least_chunk(longest_tail).max(options.longest_record());
        let profile = Profile {
            schemes: ["http", "https"],
            refuses_after: Some(queue),
            answers: true,
            scratch: head + SCRATCH_LANDING,
            bytes_per_connection: BYTES_PER_CONNECTION,
            leases: true,
            alpn: &[b"http/1.1"],
            patience,
            max_connection_age: age,
            ..Profile::new("http", longest_tail, least)
        };
        HttpProtocol { options, profile }
    }

    /// A listener that shows pages and takes no lines.
    #[must_use]
    pub fn showing(site: Site, news: Arc<AtomicU64>) -> HttpProtocol {
        let none = Route { name: String::new(), index: 0, format: Format::Raw };
        let options = HttpOptions {
            listener: "admin".into(),
            framing: LineOptions {
                max_line_bytes: 128,
                too_long: TooLong::Drop,
                strip_cr: false,
                strip_nul: false,
                keep_unterminated: false,
            },
            routes: Arc::new(Routes::new(none, [])),
            rules: Rules::default(),
            apis: Apis::default(),
            ack: AckLevel::Received,
            max_header_bytes: PAGES_HEAD,
            max_headers: 64,
            max_body_bytes: 1,
            max_decoded_bytes: 1,
            max_requests: 1,
            tokens: Vec::new(),
            room: Room::new(0),
            dialect: Dialect::default(),
            site: Some(site),
        };
        let patience = Patience { head: Duration::from_secs(2), body: Duration::from_secs(2), ..Patience::default() };
        let mut protocol = HttpProtocol::new(Arc::new(options), patience, Duration::ZERO, Duration::ZERO);
        let profile = &mut protocol.profile;
        (profile.leases, profile.may_move, profile.makes_records) = (false, false, false);
        profile.news = Some(News(news));
        // Only the beginning of a request ever lands there.
        profile.scratch = PAGES_SCRATCH;
        protocol
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &Arc<HttpOptions> {
        &self.options
    }
}

impl Protocol for HttpProtocol {
    fn profile(&self) -> &Profile {
        &self.profile
    }

    fn session(&self, peer: &Peer, owner: Owner) -> Box<dyn Session> {
        Box::new(Http::new(Arc::clone(&self.options), peer, owner))
    }

    fn is_same(&self, other: &dyn Protocol) -> bool {
        same(self, other)
    }

    fn describe(&self) -> String {
        let options = &self.options;
        let names: Vec<&str> = options.routes.all().skip(1).map(|route| route.name.as_str()).collect();
        let by_path =
            if names.is_empty() { String::new() } else { format!(" (and by path into {})", names.join(", ")) };
        let ack = format!("{:?}", options.ack).to_lowercase();
        let whom = match options.tokens.len() {
            0 => "anybody".to_string(),
            n => format!("holders of {n} token(s)"),
        };
        let apis: Vec<&str> = options.apis.others.iter().map(|api| api.name).collect();
        let apis = if apis.is_empty() { String::new() } else { format!(", as {}", apis.join(", ")) };
        format!(
            "{by_path}{apis}, HTTP answering when {ack}, bodies up to {}, from {whom}",
            Size(options.max_body_bytes)
        )
    }

    fn first_line(&self, address: &Address) -> Option<String> {
        let to = match address {
            Address::Tcp(tcp) => format!("http://{tcp}/"),
            Address::Unix(path) => format!("--unix-socket {} http://x/", path.display()),
            _ => return None,
        };
        Some(format!("echo 'hello, log' | curl --data-binary @- {to}"))
    }
}
