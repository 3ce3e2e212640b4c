//! `elasticsearch`: what Beats, Logstash, Fluent Bit, Vector, rsyslog and the official clients send to Elasticsearch (its
//! documentation, "Bulk API", "Index API"). Documents are stored; nothing can be searched, and what clients ask or set up before
//! they send is answered so that they go on.

mod bulk;
mod creation;
mod single;

use super::{Api, Asked, Claim, Wanted};
use crate::protocol::http::head::{Framing, Method};
use crate::protocol::http::pages::Page;
use crate::protocol::http::problem::{self, Problem};
use crate::protocol::http::voice::{self, Refusal, Voice};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::borrow::Cow;

/// See the module documentation.
pub static API: Api = Api { name: "elasticsearch", claim, token };

/// For most clients.
static VOICE: Voice = voice_of(false);
/// For rsyslog's omelasticsearch.
static RSYSLOG: Voice = voice_of(true);

/// Clients since version 7.14 refuse answers without the product header.
const fn voice_of(hangs_up: bool) -> Voice {
    Voice {
        headers: "X-Elastic-Product: Elasticsearch\r\n",
        status: voice::never_408,
        longest_wait: voice::ANY_WAIT,
        hangs_up,
        refuse: |problem, _| {
            let (status, reason) = (voice::never_408(problem), problem.message);
            let kind = match status {
                401 | 403 => "security_exception",
                404 => "resource_not_found_exception",
                429 => "es_rejected_execution_exception",
                503 => "cluster_block_exception",
                _ => "illegal_argument_exception",
            };
            let cause = format!("\"type\":\"{kind}\",\"reason\":\"{reason}\"");
            let body = format!("{{\"error\":{{\"root_cause\":[{{{cause}}}],{cause}}},\"status\":{status}}}");
            Refusal { kind: JSON, body: body.into() }
        },
    }
}

const JSON: &str = "application/json";

static NOTHING: Problem = Problem {
    status: 404,
    code: "no_such_path",
    message: "documents are stored here by _bulk, _doc and _create; nothing can be searched",
    retry_after: 0,
};

/// Clients look at `version.number`, `version.build_flavor` and `tagline`.
const INFO: &str = concat!(
    "{\"name\":\"logweir\",\"cluster_name\":\"logweir\",\"cluster_uuid\":\"bG9nd2VpcmxvZ3dlaXJsZw\",\"version\":{",
    "\"number\":\"8.15.0\",\"build_flavor\":\"default\",\"build_type\":\"docker\",\"build_hash\":\"logweir\",",
    "\"build_date\":\"2024-08-05T10:05:34.233336849Z\",\"build_snapshot\":false,\"lucene_version\":\"9.11.1\",",
    "\"minimum_wire_compatibility_version\":\"7.17.0\",\"minimum_index_compatibility_version\":\"7.0.0\"},",
    "\"tagline\":\"You Know, for Search\"}"
);
const LICENSE: &str = "{\"license\":{\"status\":\"active\",\"uid\":\"logweir\",\"type\":\"basic\",\"issued_to\":\"logweir\",\"max_nodes\":1000}}";
const XPACK: &str = concat!(
    "{\"build\":{\"hash\":\"logweir\"},\"license\":{\"uid\":\"logweir\",\"type\":\"basic\",\"mode\":\"basic\",\"status\":\"active\"},",
    "\"features\":{\"ilm\":{\"available\":true,\"enabled\":true},\"security\":{\"available\":true,\"enabled\":false}}}"
);
const HEALTH: &str = concat!(
    "{\"cluster_name\":\"logweir\",\"status\":\"green\",\"timed_out\":false,\"number_of_nodes\":1,\"number_of_data_nodes\":1,",
    "\"active_primary_shards\":1,\"active_shards\":1,\"relocating_shards\":0,\"initializing_shards\":0,\"unassigned_shards\":0}"
);
/// Without nodes, clients that look for others stay with the address that they have.
const NODES: &str =
    "{\"_nodes\":{\"total\":1,\"successful\":1,\"failed\":0},\"cluster_name\":\"logweir\",\"nodes\":{}}";
const ACKNOWLEDGED: &str = "{\"acknowledged\":true,\"shards_acknowledged\":true}";

/// Paths of one part that are no index.
const OTHERS: [&str; 5] = ["ready", "readyz", "healthz", "metrics", "ingest"];

/// What clients set up before they send: it is there, and whatever they set is accepted.
const SET_UP: [&str; 8] =
    ["_index_template", "_template", "_component_template", "_ilm", "_ingest", "_data_stream", "_alias", "_cluster"];

fn claim(asked: &Asked<'_>) -> Option<Claim> {
    let method = asked.head.method;
    let is_read = matches!(method, Method::Get | Method::Head);
    let is_write = matches!(method, Method::Post | Method::Put);
    let path = asked.path.strip_prefix("/elasticsearch").filter(|rest| rest.starts_with('/')).unwrap_or(asked.path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let parts: Vec<&str> = path.split('/').skip(1).take(5).collect();
    // `/ingest/STREAM` is for lines.
    let is_index = |name: &str| !name.is_empty() && !name.starts_with('_') && name != "ingest";
    let is_alone = |name: &str| is_index(name) && !OTHERS.contains(&name);
    let page = |text| Wanted::SayIfAllowed(Page::new(200, JSON, text));
    let wanted = match &parts[..] {
        [] if is_read && asked.head.query.is_empty() => page(INFO),
        ["_bulk"] if is_write => bulk(asked, ""),
        [index, "_bulk"] | [index, _, "_bulk"] if is_write && is_index(index) => bulk(asked, index),
        [index, "_doc"] if is_write && is_index(index) => single(asked, index, ""),
        [index, "_doc" | "_create", id] if is_write && is_index(index) => single(asked, index, id),
        ["_license"] if is_read => page(LICENSE),
        ["_xpack"] if is_read => page(XPACK),
        ["_cluster", "health", ..] if is_read => page(HEALTH),
        ["_nodes", ..] if is_read => page(NODES),
        [name, ..] if SET_UP.contains(name) => page(if is_read { "{}" } else { ACKNOWLEDGED }),
        [name, ..] if name.starts_with('_') => Wanted::Refuse(&NOTHING),
        [_, "_bulk" | "_doc" | "_create", ..] => Wanted::Refuse(&problem::NOT_ALLOWED),
        [index] if is_alone(index) && method == Method::Head => page(""),
        // Lines may be put to such a path too, and they have no type, or another.
        [index] if is_alone(index) && method == Method::Put && is_empty(asked) => page(ACKNOWLEDGED),
        [index] if is_alone(index) && method == Method::Put && is_json(asked) => {
            Wanted::Take { walk: Box::new(creation::Creation), coding: None }
        }
        _ => return None,
    };
    let voice = if is_rsyslog(asked) { &RSYSLOG } else { &VOICE };
    Some(Claim { voice, wanted })
}

/// omelasticsearch (seen with 8.2302) does not look at the status, and counts an answer without items as a loss, whatever it says; where
/// the connection ends without an answer it waits and sends again. It names itself nowhere, which few do, and has this type.
fn is_rsyslog(asked: &Asked<'_>) -> bool {
    asked.head.content_type == Some(b"application/json; charset=utf-8") && asked.head.field("User-Agent").is_none()
}

fn is_empty(asked: &Asked<'_>) -> bool {
    matches!(asked.head.framing, Framing::None | Framing::Length(0))
}

fn is_json(asked: &Asked<'_>) -> bool {
    let kind = asked.head.content_type.unwrap_or_default().to_ascii_lowercase();
    kind.starts_with(b"application/json") || kind.starts_with(b"application/vnd.elasticsearch+json")
}

fn bulk(asked: &Asked<'_>, index: &str) -> Wanted {
    Wanted::Take { walk: Box::new(bulk::Bulk::new(index, asked.lease())), coding: None }
}

fn single(asked: &Asked<'_>, index: &str, id: &str) -> Wanted {
    match single::Single::new(index, id, asked.lease()) {
        Ok(walk) => Wanted::Take { walk: Box::new(walk), coding: None },
        Err(problem) => Wanted::Refuse(problem),
    }
}

/// `Authorization: ApiKey BASE64(ID:KEY)`: the key is the token.
fn token<'a>(asked: &Asked<'a>) -> Option<Cow<'a, [u8]>> {
    let (scheme, given) = asked.head.authorization?.split_at_checked(7)?;
    if !scheme.eq_ignore_ascii_case(b"apikey ") {
        return None;
    }
    let mut decoded = BASE64.decode(given.trim_ascii()).ok()?;
    let colon = decoded.iter().position(|b| *b == b':')?;
    decoded.drain(..=colon);
    Some(decoded.into())
}
