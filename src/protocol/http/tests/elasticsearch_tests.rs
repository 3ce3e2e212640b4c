use super::api_tests::{answer, coded, listener, parts, records, request};
use super::*;
use crate::session::routes::Rules;
use serde_json::{Value, json};

const NDJSON: &str = "Content-Type: application/x-ndjson\r\n";

fn bulk(path: &str, body: &str) -> Output {
    answer(&["elasticsearch"], &request(&format!("POST {path}"), NDJSON, body.as_bytes()))
}

fn body_of(out: &Output) -> Value {
    serde_json::from_str(parts(out).1).unwrap()
}

/// What a document may be, and whether it can be stored.
fn document() -> impl Strategy<Value = (String, bool)> {
    prop_oneof![
        4 => proptest::collection::btree_map("[a-z]{1,5}", ".{0,30}", 0..5).prop_map(|map| (json!(map).to_string(), true)),
        1 => Just(("{ \"n\" : 1.0, \"id\": 9007199254740993 }\r".to_string(), true)),
        1 => Just(("{\"broken\":".to_string(), false)),
        1 => Just(("[1]".to_string(), false)),
        1 => "[a-z]{25000}".prop_map(|text| (json!({"long": text}).to_string(), false)),
    ]
}

/// Action, index, id, document.
type Pair = (&'static str, String, Option<String>, (String, bool));

fn pairs() -> impl Strategy<Value = Vec<Pair>> {
    let action = prop_oneof![4 => Just("index"), 4 => Just("create"), 1 => Just("update"), 1 => Just("delete")];
    let pair = (action, "[a-z\"]{0,5}", proptest::option::of("[a-z0-9\n]{1,8}"), document());
    proptest::collection::vec(pair, 0..20)
}

proptest! {
    #[test]
    fn each_pair_is_answered_in_its_place_however_they_are_split(
        pairs in pairs(),
        pieces in proptest::collection::vec(prop_oneof![1usize..40, 1usize..5000], 1..12),
        chunk in 160_000usize..300_000,
        coding in prop_oneof![Just(0u8), Just(1), Just(4)],
        ends in any::<bool>(),
    ) {
        let (mut body, mut items, mut expected) = (String::new(), Vec::new(), Vec::new());
        for (action, index, id, (document, is_good)) in &pairs {
            let mut about = json!({});
            if !index.is_empty() {
                about["_index"] = json!(index);
            }
            if let Some(id) = id {
                about["_id"] = json!(id);
            }
            body += &format!("{}\n", json!({*action: about}));
            if *action != "delete" {
                body += &format!("{document}\n");
            }
            let stored = *is_good && matches!(*action, "index" | "create");
            let index = if index.is_empty() { "logs" } else { index };
            items.push((*action, index.to_string(), id.clone(), if stored { 201 } else { 400 }));
            if stored {
                let mut attrs = json!({"index": index});
                if let Some(id) = id {
                    attrs["id"] = json!(id);
                }
                expected.push(json!([attrs, serde_json::from_str::<Value>(document).unwrap()]));
            }
        }
        if !ends {
            body.truncate(body.trim_end_matches('\n').len());
        }
        let (encoding, sent) = coded(coding, body.as_bytes());
        let input = request("PUT /insert/elasticsearch/logs/_bulk?filter_path=errors", &format!("{NDJSON}{encoding}"), &sent);
        let out = run(listener(&["elasticsearch"], Format::Json), &input, &pieces, chunk, 1 << 20);
        prop_assert_eq!(statuses(&out.answers), ["200"]);
        let (head, text) = parts(&out);
        prop_assert!(head.contains("\r\nX-Elastic-Product: Elasticsearch"));
        let failed = items.iter().any(|item| item.3 != 201);
        // What Fluent Bit and Vector look for in the text.
        let beginning = format!("{{\"took\":0,\"errors\":{failed},\"items\":[");
        prop_assert!(text.starts_with(&beginning));
        let found = body_of(&out);
        let found: Vec<_> = found["items"].as_array().unwrap().iter().map(|item| {
            let (action, item) = item.as_object().unwrap().iter().next().unwrap();
            assert_eq!(item.get("error").is_some(), item["status"] != 201);
            let id = item.get("_id").map(|id| id.as_str().unwrap().to_string());
            (action.clone(), item["_index"].as_str().unwrap().to_string(), id, item["status"].as_u64().unwrap())
        }).collect();
        let items: Vec<_> = items.into_iter().map(|(a, i, id, s)| (a.to_string(), i, id, s)).collect();
        prop_assert_eq!(found, items);
        let found: Vec<Value> = records(&out).iter().map(|r| json!([r["attrs"], r["msg"]])).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn documents_keep_their_text_and_become_one_line() {
    let body = "{\"index\":{}}\n{ \"b\" : 1.0,\t\"a\":\"\\u00e9 x\", \"id\":9007199254740993}\n";
    let out = run(
        listener(&["elasticsearch"], Format::Raw),
        &request("POST /logs/_bulk", NDJSON, body.as_bytes()),
        &[usize::MAX],
        1 << 20,
        1 << 20,
    );
    assert_eq!(out.default, b"{\"b\":1.0,\"a\":\"\\u00e9 x\",\"id\":9007199254740993}\n");
    assert_eq!(
        parts(&out).1,
        "{\"took\":0,\"errors\":false,\"items\":[{\"index\":{\"_index\":\"logs\",\"status\":201}}]}"
    );
}

#[test]
fn a_line_that_says_nothing_to_do_fails_the_request() {
    for body in [
        "{}\n{\"a\":1}\n",
        "{\"index\":1}\n{}\n",
        "{\"what\":{}}\n{}\n",
        "{\"index\":{}} x\n{}\n",
        "{\"index\":{}}\n",
        "x\n",
        "{\"index\":{}}\n{\"a\":1}\n{\"a\":1}\n{}\n",
    ] {
        let out = bulk("/_bulk", body);
        assert_eq!(statuses(&out.answers), ["400"], "{body}");
        let (head, _) = parts(&out);
        assert!(head.contains("X-Elastic-Product"));
        let body = body_of(&out);
        assert_eq!((&body["status"], &body["error"]["type"]), (&json!(400), &json!("illegal_argument_exception")));
    }
    let empty = bulk("/_bulk", "\n\n");
    assert_eq!(parts(&empty).1, "{\"took\":0,\"errors\":false,\"items\":[]}");
}

#[test]
fn single_documents() {
    for (head, index, id) in [
        ("POST /logs/_doc", "logs", ""),
        ("PUT /logs/_doc/17", "logs", "17"),
        ("POST /elasticsearch/logs/_create/a%20b", "logs", "a%20b"),
    ] {
        let out = answer(&["elasticsearch"], &request(head, "Content-Type: application/json\r\n", b"{\"a\":\n1}"));
        assert_eq!(statuses(&out.answers), ["201"], "{head}");
        let body = body_of(&out);
        assert_eq!((body["_index"].as_str(), body["_id"].as_str()), (Some(index), Some(id)));
        assert_eq!(body["result"], "created");
        let record = &records(&out)[0];
        assert_eq!((&record["msg"], &record["attrs"]["index"]), (&json!({"a": 1}), &json!(index)));
    }
    let out = answer(&["elasticsearch"], &request("POST /logs/_doc", "", b"[]"));
    assert_eq!(statuses(&out.answers), ["400"]);
}

/// What the clients of the table in docs/shippers.md ask before they send.
#[test]
fn probes_of_clients() {
    for (line, status, text) in [
        ("GET /", "200", "\"number\":\"8.15.0\""),
        ("HEAD /", "200", ""),
        ("GET /_license", "200", "\"status\":\"active\""),
        ("GET /_xpack", "200", "\"features\""),
        ("GET /_cluster/health", "200", "\"green\""),
        ("GET /_nodes/http", "200", "\"nodes\":{}"),
        ("HEAD /_index_template/logs", "200", ""),
        ("PUT /_index_template/logs", "200", "\"acknowledged\":true"),
        ("GET /_ilm/policy/logs", "200", "{}"),
        ("PUT /_ilm/policy/logs", "200", "\"acknowledged\":true"),
        ("PUT /_ingest/pipeline/logs", "200", "\"acknowledged\":true"),
        ("HEAD /logs", "200", ""),
        ("PUT /logs", "200", "\"acknowledged\":true"),
        ("GET /_search", "404", "nothing can be searched"),
        ("DELETE /logs/_doc/1", "405", ""),
        ("GET /readyz", "200", "ready"),
    ] {
        let body: &[u8] = if line.starts_with("PUT") { b"{}" } else { b"" };
        let out = answer(&["elasticsearch"], &request(line, "Content-Type: application/json\r\n", body));
        assert_eq!(statuses(&out.answers), [status], "{line}");
        assert!(out.answers.contains(text) && out.default.is_empty(), "{line}: {}", out.answers);
        if line != "GET /readyz" {
            assert!(out.answers.contains("X-Elastic-Product: Elasticsearch\r\n"), "{line}: {}", out.answers);
        }
    }
    // Lines that are put to such a path are lines, not the creation of an index.
    let out = answer(&["elasticsearch"], &request("PUT /app.log", "", b"one\n"));
    assert_eq!((statuses(&out.answers), records(&out).len()), (vec!["204"], 1));
}

#[test]
fn refusals_make_clients_send_again() {
    for (refusal, status, kind) in [
        (Refusal::Overloaded, "429", "es_rejected_execution_exception"),
        (Refusal::DiskFull, "503", "cluster_block_exception"),
    ] {
        let mut bench = Bench::new(listener(&["elasticsearch"], Format::Json), 1 << 20, 1 << 20);
        bench.refuse(Some(refusal));
        bench.feed(&request("POST /_bulk", NDJSON, b"{\"index\":{}}\n{}\n"), &[usize::MAX]);
        assert_eq!(statuses(&bench.out.answers), [status]);
        assert_eq!(body_of(&bench.out)["error"]["type"], kind);
        assert!(bench.out.answers.contains("Retry-After: "));
    }
}

/// rsyslog looks at no status. Its connection ends without an answer, behind the answers that came before; others go on.
#[test]
fn rsyslog_is_not_told_what_it_would_take_for_a_loss() {
    let kind = "Content-Type: application/json; charset=utf-8\r\n";
    let body = b"{\"index\":{}}\n{}\n";
    for refusal in [Refusal::Overloaded, Refusal::DiskFull] {
        let mut bench = Bench::new(listener(&["elasticsearch"], Format::Json), 1 << 20, 1 << 20);
        bench.feed(&request("POST /_bulk", kind, body), &[usize::MAX]);
        bench.refuse(Some(refusal));
        bench.feed(&request("POST /_bulk", kind, body), &[usize::MAX]);
        assert_eq!((statuses(&bench.out.answers), bench.out.over), (vec!["200"], true));
        let mut bench = Bench::new(listener(&["elasticsearch"], Format::Json), 1 << 20, 1 << 20);
        bench.refuse(Some(refusal));
        bench.feed(&request("POST /_bulk", &format!("{kind}User-Agent: x\r\n"), body), &[usize::MAX]);
        assert_eq!((statuses(&bench.out.answers).len(), bench.out.over), (1, false));
    }
    // What can never be taken is said.
    let out = answer(&["elasticsearch"], &request("POST /_bulk", kind, b"x\n"));
    assert_eq!(statuses(&out.answers), ["400"]);
}

#[test]
fn an_index_goes_to_its_own_stream_if_the_token_may_write_there() {
    use sha2::{Digest, Sha256};
    let mut options = listener(&["elasticsearch"], Format::Raw);
    let to = Route { name: "other".into(), index: 5, format: Format::Raw };
    options.rules = Rules::of([(1, "web-*".to_string(), to)]);
    let body = b"{\"index\":{\"_index\":\"web-1\"}}\n{\"a\":1}\n{\"index\":{\"_index\":\"db\"}}\n{\"a\":2}\n";
    let out = run(options.clone(), &request("POST /_bulk", NDJSON, body), &[usize::MAX], 1 << 20, 1 << 20);
    assert_eq!((&out.other[..], &out.default[..]), (&b"{\"a\":1}\n"[..], &b"{\"a\":2}\n"[..]));
    let token = |text: &str, streams| Token { sha256: Sha256::digest(text).into(), streams };
    options.tokens = vec![token("all", None), token("db", Some(vec![3]))];
    // `all` and `db` as keys with the identity `id`, in base64.
    for (headers, status) in [
        ("Authorization: ApiKey aWQ6YWxs\r\n", "200"),
        ("Authorization: ApiKey aWQ6ZGI=\r\n", "403"),
        ("Authorization: ApiKey aWQ6eA==\r\n", "401"),
        ("Authorization: Bearer all\r\n", "200"),
        ("", "401"),
    ] {
        let input = request("POST /_bulk", &format!("{NDJSON}{headers}"), body);
        let out = run(options.clone(), &input, &[usize::MAX], 1 << 20, 1 << 20);
        assert_eq!(statuses(&out.answers), [status], "{headers}");
        assert_eq!(out.other.is_empty(), status != "200", "{headers}");
    }
}

/// Found from outside: such a request got 429 for ever, and was stored in part each time.
#[test]
fn more_items_than_can_be_answered_are_refused_for_good() {
    let mut options = listener(&["elasticsearch"], Format::Raw);
    options.room = Room::new(1 << 20);
    let body = "{\"delete\":{}}\n".repeat(20_000);
    let input = request("POST /_bulk", "", body.as_bytes());
    let out = run(options.clone(), &input, &[usize::MAX], 1 << 20, 1 << 20);
    assert_eq!(statuses(&out.answers), ["413"]);
    assert!(out.answers.contains("send fewer in a request"), "{}", out.answers);
    let few = request("POST /_bulk", "", &body.as_bytes()[..14 * 1000]);
    assert_eq!(statuses(&run(options, &few, &[usize::MAX], 1 << 20, 1 << 20).answers), ["200"]);
}

/// Found from outside: a file of JSON that was put to the listener got 200, and was gone.
#[test]
fn what_makes_no_index_is_not_taken_for_it() {
    let put = |path: &str, body: &str| {
        let mut options = listener(&["elasticsearch"], Format::Raw);
        options.apis.lines = true;
        let input = request(&format!("PUT {path}"), "Content-Type: application/json\r\n", body.as_bytes());
        let out = run(options, &input, &[usize::MAX], 1 << 20, 1 << 20);
        (statuses(&out.answers)[0].to_string(), out.answers.contains("\"acknowledged\":true"), out.default.len())
    };
    for body in ["", "{}", "{\"settings\":{\"n\":1},\"mappings\":{}}"] {
        assert_eq!(put("/logs", body), ("200".into(), true, 0), "{body}");
    }
    for body in ["{\"a\":1}\n{\"a\":2}\n", "{\"msg\":1}", "[]", "{\"settings\":{}} x"] {
        assert_eq!(put("/app.json", body), ("400".into(), false, 0), "{body}");
    }
}

#[test]
fn an_index_may_have_the_name_of_a_page() {
    for name in ["metrics", "ready", "readyz", "healthz"] {
        let out = bulk(&format!("/{name}/_bulk"), "{\"create\":{}}\n{\"a\":1}\n");
        assert_eq!(
            (statuses(&out.answers), body_of(&out)["items"][0]["create"]["_index"].as_str()),
            (vec!["200"], Some(name))
        );
    }
}
