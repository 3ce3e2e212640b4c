use super::api_tests::{answer, coded, listener, parts, records, request};
use super::*;
use prost::Message;
use serde_json::{Value, json};

#[path = "../../../../tests/common/push.rs"]
mod push;
use push::{Entry, Label, PushRequest, Stream, Timestamp};

type Labels = Vec<(String, String)>;

fn labels() -> impl Strategy<Value = Labels> {
    // Unique names, as a map has them.
    let values = proptest::collection::vec("[a-z \"\\\\é\n]{0,12}", 0..4);
    values.prop_map(|values| values.into_iter().enumerate().map(|(i, v)| (format!("l{i}"), v)).collect())
}

/// Labels, and entries of time, line and metadata.
type Sent = (Labels, Vec<(i64, String, Labels)>);

fn streams() -> impl Strategy<Value = Vec<Sent>> {
    let line = prop_oneof![4 => ".{0,60}", 1 => "[a-z\n\"]{300,900}"];
    let entry = (0i64..2_000_000_000_000_000_000, line, labels());
    proptest::collection::vec((labels(), proptest::collection::vec(entry, 0..12)), 0..6)
}

fn object(labels: &Labels) -> Value {
    Value::Object(labels.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect())
}

/// As Go's `%q` would write it, with what it has in common with JSON.
fn quoted(labels: &Labels) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={}", json!(value))).collect();
    format!("{{{}}}", pairs.join(", "))
}

proptest! {
    #[test]
    fn json_and_protobuf_give_the_same_records_however_they_are_split(
        streams in streams(),
        pieces in proptest::collection::vec(prop_oneof![1usize..40, 1usize..5000], 1..12),
        chunk in 160_000usize..300_000,
        coding in prop_oneof![Just(0u8), Just(1), Just(3), Just(4)],
        pretty in any::<bool>(),
        snappy_is_said in any::<bool>(),
    ) {
        let as_json = json!({"extra": [1, {"a": null}], "streams": streams.iter().map(|(labels, entries)| {
            let values: Vec<Value> = entries.iter().map(|(time, line, metadata)| match metadata.is_empty() {
                true => json!([time.to_string(), line]),
                false => json!([time.to_string(), line, object(metadata)]),
            }).collect();
            json!({"stream": object(labels), "values": values})
        }).collect::<Vec<_>>()});
        let as_json = if pretty { serde_json::to_vec_pretty(&as_json) } else { serde_json::to_vec(&as_json) }.unwrap();
        let message = PushRequest { streams: streams.iter().map(|(labels, entries)| Stream {
            labels: quoted(labels),
            entries: entries.iter().map(|(time, line, metadata)| Entry {
                timestamp: Some(Timestamp { seconds: time / 1_000_000_000, nanos: (time % 1_000_000_000) as i32 }),
                line: line.clone(),
                metadata: metadata.iter().map(|(n, v)| Label { name: n.clone(), value: v.clone() }).collect(),
            }).collect(),
            hash: 7,
        }).collect() };
        let expected: Vec<Value> = streams.iter().flat_map(|(labels, entries)| entries.iter().map(move |(time, line, metadata)| {
            let mut attrs = json!({"tenant": "team", "labels": object(labels), "time": time.to_string()});
            if !metadata.is_empty() {
                attrs["metadata"] = object(metadata);
            }
            json!({"attrs": attrs, "msg": line})
        })).collect();

        let (encoding, body) = coded(coding, &as_json);
        let headers = format!("X-Scope-OrgID: team\r\nContent-Type: application/json; charset=utf-8\r\n{encoding}");
        let mut input = request("POST /loki/api/v1/push", &headers, &body);
        let (said, body) = coded(6, &message.encode_to_vec());
        let headers = format!("x-scope-orgid:team\r\nContent-Type: application/x-protobuf\r\n{}", if snappy_is_said { &said } else { "" });
        input.extend(request("POST /insert/loki/api/v1/push", &headers, &body));
        let out = run(listener(&["loki"], Format::Json), &input, &pieces, chunk, 1 << 20);
        // Without streams, JSON says so and protobuf says nothing, which is an empty request.
        prop_assert_eq!(statuses(&out.answers), ["204", "204"]);
        let found: Vec<Value> = records(&out).into_iter().map(|r| json!({"attrs": r["attrs"], "msg": r["msg"]})).collect();
        prop_assert_eq!(&found[..expected.len()], &expected[..]);
        prop_assert_eq!(&found[expected.len()..], &expected[..]);

        let out = run(listener(&["loki"], Format::Raw), &input, &pieces, chunk, 1 << 20);
        let lines: String = streams.iter().flat_map(|(_, entries)| entries).map(|(_, line, _)| line.replace('\n', "\\n") + "\n").collect();
        prop_assert_eq!(String::from_utf8_lossy(&out.default), lines.repeat(2));
    }
}

fn push(body: &str) -> Output {
    answer(&["loki"], &request("POST /loki/api/v1/push", "Content-Type: application/json\r\n", body.as_bytes()))
}

#[test]
fn the_forms_that_clients_send() {
    for (body, expected) in [
        // promtail's and most others'.
        (
            r#"{"streams":[{"stream":{"job":"a"},"values":[["1700000000000000001","one"],["1700000000000000002","two"]]}]}"#,
            vec![
                json!([{"labels": {"job": "a"}, "time": "1700000000000000001"}, "one"]),
                json!([{"labels": {"job": "a"}, "time": "1700000000000000002"}, "two"]),
            ],
        ),
        // winston-loki: an unknown key; and the keys in another order.
        (
            r#"{"streams":[{"values":[["1","x",{"trace":"t"}]],"stream":{"a":"b"},"message_in_json_format":true}]}"#,
            vec![json!([{"labels": {"a": "b"}, "metadata": {"trace": "t"}, "time": "1"}, "x"])],
        ),
        // Labels behind the values, beside others in front of them; and in both forms.
        (
            r#"{"streams":[{"values":[["1","x"]],"more":[{"stream":1}],"stream":{ "a" : "é" }},{"stream":{"a":"c"},"values":[["2","y"]],"more":1}]}"#,
            vec![json!([{"labels": {"a": "é"}, "time": "1"}, "x"]), json!([{"labels": {"a": "c"}, "time": "2"}, "y"])],
        ),
        // The older form.
        (
            r#"{"streams":[{"labels":"{job=\"a\"}","entries":[{"ts":"2026-11-26T00:00:00Z","line":"x"}]}]}"#,
            vec![json!([{"labels": "{job=\"a\"}", "time": "2026-11-26T00:00:00Z"}, "x"])],
        ),
        // Numbers keep their text, and a key may be escaped.
        (
            r#"{ "\u0073treams" : [ { "stream" : { } , "values" : [ [ 17, "x\n\ty\u00e9" ] ] } ] }"#,
            vec![json!([{"labels": {}, "time": 17}, "x\n\tyé"])],
        ),
        (r#"{"streams":[]}"#, vec![]),
        (r#"{"streams":[{"stream":{"a":"b"},"values":[]},{"stream":{},"values":null}]}"#, vec![]),
    ] {
        let out = push(body);
        assert_eq!(statuses(&out.answers), ["204"], "{body}");
        let found: Vec<Value> = records(&out).iter().map(|r| json!([r["attrs"], r["msg"]])).collect();
        assert_eq!(found, expected, "{body}");
    }
}

#[test]
fn what_is_no_push_request_is_refused_in_words() {
    for body in [
        "",
        "{}",
        "[]",
        "null",
        r#"{"streams":{}}"#,
        r#"{"streams":[{"stream":{},"values":[["1"]]}]}"#,
        r#"{"streams":[{"stream":{},"values":[["1",2]]}]}"#,
        r#"{"streams":[{"stream":{},"values":[["1","x",3]]}]}"#,
        r#"{"streams":[{"stream":{},"values":{}}]}"#,
        r#"{"streams":[{"stream":{},"values":[]},]}"#,
        r#"{"streams":[{"stream":{},"values":[],"values":[]}]}"#,
        r#"{"streams":[{"values":[],"entries":[],"stream":{}}]}"#,
        r#"{"streams":[]} x"#,
        r#"{"streams":[]"#,
        r#"{"streams":[{"stream":{},"values":[["1","x"#,
    ] {
        let out = push(body);
        assert_eq!(statuses(&out.answers), ["400"], "{body}");
        assert!(out.default.is_empty());
        let (head, text) = parts(&out);
        assert!(head.contains("text/plain") && text.starts_with("the body is no push request"), "{}", out.answers);
    }
    // Something else in snappy, and no snappy at all.
    let (_, other) = coded(6, b"\x1a\x03abc");
    for body in [&other[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", br#"{"streams":[]}"#] {
        let out = answer(&["loki"], &request("POST /loki/api/v1/push", "", body));
        assert_eq!(statuses(&out.answers), ["400"]);
    }
}

#[test]
fn probes_and_paths() {
    for (line, status) in [
        ("GET /ready", "200"),
        ("HEAD /ready", "200"),
        ("GET /loki/api/v1/status/buildinfo", "200"),
        ("GET /loki/api/v1/push", "405"),
        ("GET /", "200"),
        ("POST /loki/api/v1/nothing", "404"),
    ] {
        let out = answer(&["loki"], format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(statuses(&out.answers), [status], "{line}");
    }
    let raw = answer(&["loki"], &request("POST /loki/api/v1/raw", "", b"one\ntwo"));
    assert_eq!(records(&raw).iter().map(|r| r["msg"].clone()).collect::<Vec<_>>(), ["one", "two"]);
    let mut only = listener(&["loki"], Format::Json);
    (only.apis.lines, only.apis.prefix) = (false, "/logs".into());
    let body = br#"{"streams":[{"stream":{},"values":[["1","x"]]}]}"#;
    let input = [
        request("POST /", "", b"x"),
        request("POST /logs/loki/api/v1/push", "Content-Type: application/json\r\n", body),
    ];
    let out = run(only, &input.concat(), &[usize::MAX], 1 << 20, 1 << 20);
    assert_eq!(statuses(&out.answers), ["404", "204"]);
}

#[test]
fn hostile_documents_are_bounded_and_answered() {
    let deep = format!(r#"{{"streams":[{{"stream":{},"values":[]}}]}}"#, "[".repeat(100_000));
    assert_eq!(statuses(&push(&deep).answers), ["400"]);
    // Lengths of 2^63 that are declared, in the message and in the snappy block around it.
    let (_, declared) = coded(6, &[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    let out = answer(&["loki"], &request("POST /loki/api/v1/push", "", &declared));
    assert_eq!(statuses(&out.answers), ["400"]);
    let out = answer(&["loki"], &request("POST /loki/api/v1/push", "", &[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]));
    assert!(matches!(statuses(&out.answers)[..], ["400" | "413"]), "{}", out.answers);
    // Labels beyond all measure are dropped with their line, and the client is told.
    let long = format!(r#"{{"streams":[{{"stream":{{"a":"{}"}},"values":[["1","x"]]}}]}}"#, "y".repeat(300_000));
    let out = push(&long);
    assert_eq!((statuses(&out.answers), out.default.len()), (vec!["413"], 0));
    let mut small = listener(&["loki"], Format::Json);
    small.apis.max_document_bytes = 100_000;
    let input = request("POST /loki/api/v1/push", "Content-Type: application/json\r\n", long.as_bytes());
    let out = run(small, &input, &[usize::MAX], 1 << 20, 1 << 20);
    assert_eq!(statuses(&out.answers), ["413"]);
}

#[test]
fn a_tenant_goes_to_its_own_stream() {
    let mut options = listener(&["loki"], Format::Raw);
    let to = Route { name: "other".into(), index: 5, format: Format::Raw };
    options.rules = Rules::of([(crate::protocol::http::api::TENANT, "team-*".to_string(), to)]);
    let body = br#"{"streams":[{"stream":{},"values":[["1","x"]]}]}"#;
    let push = |tenant: &str| {
        let headers = format!("X-Scope-OrgID: {tenant}\r\nContent-Type: application/json\r\n");
        request("POST /loki/api/v1/push", &headers, body)
    };
    let out = run(options, &[push("team-a"), push("else")].concat(), &[usize::MAX], 1 << 20, 1 << 20);
    assert_eq!((&out.default[..], &out.other[..]), (&b"x\n"[..], &b"x\n"[..]));
}

#[test]
fn a_long_line_is_cut_and_marked() {
    let line = "é".repeat(20_000);
    let body = json!({"streams": [{"stream": {}, "values": [["1", line]]}]}).to_string();
    let out = push(&body);
    assert_eq!(statuses(&out.answers), ["204"]);
    let found = records(&out)[0]["msg"].as_str().unwrap().to_string();
    assert!(found.ends_with(" [truncated 20040 bytes]") && found.starts_with("éé"), "{}", found.len());
}

#[test]
fn what_can_never_fit_is_not_sent_again_for_ever() {
    // 3 MiB, of which one holder can have three quarters.
    let room = Room::new(3 << 20);
    let push = |len: usize| {
        let line = "x".repeat(len);
        let body = json!({"streams": [{"stream": {}, "values": [["1", line]]}]}).to_string();
        let mut options = listener(&["loki"], Format::Raw);
        options.room = Arc::clone(&room);
        options.max_body_bytes = 64 << 20;
        let input = request("POST /loki/api/v1/push", "Content-Type: application/json\r\n", body.as_bytes());
        let as_json = run(options.clone(), &input, &[usize::MAX], 1 << 20, 1 << 20);
        let entry = Entry { timestamp: None, line, metadata: vec![] };
        let message = PushRequest { streams: vec![Stream { labels: "{}".into(), entries: vec![entry], hash: 0 }] };
        let (_, body) = coded(6, &message.encode_to_vec());
        let as_protobuf = run(options, &request("POST /loki/api/v1/push", "", &body), &[usize::MAX], 1 << 20, 1 << 20);
        (statuses(&as_json.answers)[0].to_string(), statuses(&as_protobuf.answers)[0].to_string())
    };
    assert_eq!(push(1 << 20), ("204".into(), "204".into()));
    assert_eq!(push(4 << 20), ("413".into(), "413".into()), "never, and not later");
    assert_eq!(room.used(), 0);
}

#[test]
fn labels_may_stand_behind_the_entries() {
    // Field 2, an entry with a line, in front of field 1, the labels.
    let stream = b"\x12\x03\x12\x01x\x0a\x07{a=\"b\"}";
    let (_, body) = coded(6, &[&[0x0a, stream.len() as u8], &stream[..]].concat());
    let out = answer(&["loki"], &request("POST /loki/api/v1/push", "", &body));
    assert_eq!(records(&out)[0]["attrs"]["labels"], json!({"a": "b"}));
}

/// Found from outside: the second list was passed over, and its client was told that it was stored.
#[test]
fn several_lists_of_streams_are_all_taken() {
    let list = |line: &str| format!("\"streams\":[{{\"stream\":{{}},\"values\":[[\"1\",\"{line}\"]]}}]");
    let out = push(&format!("{{{},\"x\":1,{}}}", list("one"), list("two")));
    let found: Vec<Value> = records(&out).iter().map(|record| record["msg"].clone()).collect();
    assert_eq!((statuses(&out.answers), found), (vec!["204"], vec![json!("one"), json!("two")]));
}
