use super::api_tests::{coded, listener, records, request};
use super::*;
use crate::protocol::http::api::SERVICE;
use crate::session::routes::Rules;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyKind;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use serde_json::{Value, json};

const PROTOBUF: &str = "Content-Type: application/x-protobuf\r\n";
const JSON: &str = "Content-Type: application/json\r\n";

fn any_value() -> impl Strategy<Value = AnyValue> {
    let leaf = prop_oneof![
        4 => ".{0,30}".prop_map(AnyKind::StringValue),
        1 => any::<bool>().prop_map(AnyKind::BoolValue),
        2 => any::<i64>().prop_map(AnyKind::IntValue),
        // Exactly the same in each way of writing it.
        1 => any::<i32>().prop_map(|n| AnyKind::DoubleValue(f64::from(n) / 8.0)),
        1 => proptest::collection::vec(any::<u8>(), 0..9).prop_map(AnyKind::BytesValue),
    ];
    let leaf = leaf.prop_map(|value| AnyValue { value: Some(value) });
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| AnyValue { value: Some(AnyKind::ArrayValue(ArrayValue { values })) }),
            proptest::collection::btree_map("[a-z\"]{1,4}", inner, 0..4)
                .prop_map(|map| AnyValue { value: Some(AnyKind::KvlistValue(KeyValueList { values: pairs(map) })) }),
        ]
    })
}

fn pairs(map: std::collections::BTreeMap<String, AnyValue>) -> Vec<KeyValue> {
    map.into_iter().map(|(key, value)| KeyValue { key, value: Some(value), ..KeyValue::default() }).collect()
}

fn attributes() -> impl Strategy<Value = Vec<KeyValue>> {
    proptest::collection::btree_map("[a-z.]{1,6}", any_value(), 0..4).prop_map(pairs)
}

fn record() -> impl Strategy<Value = LogRecord> {
    let id = |len| prop_oneof![Just(vec![]), proptest::collection::vec(any::<u8>(), len)];
    let body =
        prop_oneof![3 => ".{0,60}".prop_map(|t| AnyValue { value: Some(AnyKind::StringValue(t)) }), 2 => any_value()];
    let numbers = (0u64..u64::MAX, 0u64..9, 0i32..25, 0u32..3);
    (numbers, "[A-Z]{0,5}", body, attributes(), id(16), id(8), "[a-z]{0,5}").prop_map(
        |((time, observed, severity, flags), text, body, attributes, trace_id, span_id, event_name)| LogRecord {
            time_unix_nano: time,
            observed_time_unix_nano: observed,
            severity_number: severity,
            severity_text: text,
            body: Some(body),
            attributes,
            flags,
            trace_id,
            span_id,
            event_name,
            ..LogRecord::default()
        },
    )
}

fn export() -> impl Strategy<Value = ExportLogsServiceRequest> {
    let scope =
        (proptest::option::of(("[a-z]{0,5}", "[0-9.]{0,3}", attributes())), proptest::collection::vec(record(), 0..6))
            .prop_map(|(scope, log_records)| ScopeLogs {
                scope: scope.map(|(name, version, attributes)| InstrumentationScope {
                    name,
                    version,
                    attributes,
                    ..InstrumentationScope::default()
                }),
                log_records,
                ..ScopeLogs::default()
            });
    let resource = (proptest::option::of(attributes()), proptest::collection::vec(scope, 0..4)).prop_map(
        |(attributes, scope_logs)| ResourceLogs {
            resource: attributes.map(|attributes| Resource { attributes, ..Resource::default() }),
            scope_logs,
            ..ResourceLogs::default()
        },
    );
    proptest::collection::vec(resource, 0..4).prop_map(|resource_logs| ExportLogsServiceRequest { resource_logs })
}

fn plain(value: &AnyValue) -> Value {
    match &value.value {
        None => Value::Null,
        Some(AnyKind::StringValue(text)) => json!(text),
        Some(AnyKind::BoolValue(truth)) => json!(truth),
        Some(AnyKind::IntValue(number)) => json!(number),
        Some(AnyKind::DoubleValue(number)) => json!(number),
        Some(AnyKind::BytesValue(bytes)) => {
            use base64::Engine;
            json!(base64::engine::general_purpose::STANDARD.encode(bytes))
        }
        Some(AnyKind::ArrayValue(list)) => list.values.iter().map(plain).collect(),
        Some(AnyKind::KvlistValue(list)) => object(&list.values),
        other => panic!("{other:?}"),
    }
}

fn object(pairs: &[KeyValue]) -> Value {
    let value = |pair: &KeyValue| pair.value.as_ref().map_or(Value::Null, plain);
    Value::Object(pairs.iter().map(|pair| (pair.key.clone(), value(pair))).collect())
}

/// The records of a request, as they should be on disk.
fn expected(request: &ExportLogsServiceRequest) -> Vec<Value> {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let mut all = Vec::new();
    for resource in &request.resource_logs {
        for scope in &resource.scope_logs {
            for record in &scope.log_records {
                let mut attrs = serde_json::Map::new();
                let mut add = |name: &str, value: Value, is_there: bool| {
                    if is_there {
                        attrs.insert(name.into(), value);
                    }
                };
                let pairs = resource.resource.as_ref().map(|r| &r.attributes[..]).unwrap_or_default();
                add("resource", object(pairs), !pairs.is_empty());
                if let Some(scope) = &scope.scope {
                    let mut about = serde_json::Map::new();
                    let parts = [
                        ("name", json!(scope.name), !scope.name.is_empty()),
                        ("version", json!(scope.version), !scope.version.is_empty()),
                        ("attributes", object(&scope.attributes), !scope.attributes.is_empty()),
                    ];
                    about.extend(parts.into_iter().filter(|p| p.2).map(|(name, value, _)| (name.to_string(), value)));
                    add("scope", json!(about), !about.is_empty());
                }
                add("time", json!(record.time_unix_nano.to_string()), record.time_unix_nano > 0);
                let observed = record.observed_time_unix_nano;
                add("observed_time", json!(observed.to_string()), observed > 0);
                add("severity", json!(record.severity_number), record.severity_number > 0);
                add("severity_text", json!(record.severity_text), !record.severity_text.is_empty());
                add("event_name", json!(record.event_name), !record.event_name.is_empty());
                add("trace_id", json!(hex(&record.trace_id)), !record.trace_id.is_empty());
                add("span_id", json!(hex(&record.span_id)), !record.span_id.is_empty());
                add("flags", json!(record.flags), record.flags > 0);
                add("attributes", object(&record.attributes), !record.attributes.is_empty());
                all.push(json!([attrs, record.body.as_ref().map_or(Value::Null, plain)]));
            }
        }
    }
    all
}

fn found(out: &Output) -> Vec<Value> {
    records(out).iter().map(|r| json!([r["attrs"], r["msg"]])).collect()
}

/// Answers hold protobuf, which is no text here: those of these tests are ASCII.
fn answers(options: HttpOptions, input: &[u8]) -> Output {
    run(options, input, &[usize::MAX], 1 << 20, 1 << 20)
}

proptest! {
    #[test]
    fn both_encodings_give_the_records_that_the_official_types_hold(
        export in export(),
        pieces in proptest::collection::vec(prop_oneof![1usize..40, 1usize..5000], 1..12),
        chunk in 160_000usize..300_000,
        coding in prop_oneof![Just(0u8), Just(1), Just(4)],
        pretty in any::<bool>(),
    ) {
        let as_json = if pretty { serde_json::to_vec_pretty(&export) } else { serde_json::to_vec(&export) }.unwrap();
        let (encoding, body) = coded(coding, &export.encode_to_vec());
        let mut input = request("POST /v1/logs", &format!("{PROTOBUF}{encoding}"), &body);
        let (encoding, body) = coded(coding, &as_json);
        input.extend(request("POST /insert/opentelemetry/v1/logs", &format!("{JSON}{encoding}"), &body));
        let out = run(listener(&["otlp"], Format::Json), &input, &pieces, chunk, 1 << 20);
        prop_assert_eq!(statuses(&out.answers), ["200", "200"], "{}", String::from_utf8_lossy(&as_json));
        let expected = expected(&export);
        let found = found(&out);
        prop_assert_eq!(found.len(), 2 * expected.len());
        prop_assert_eq!(&found[..expected.len()], &expected[..]);
        prop_assert_eq!(&found[expected.len()..], &expected[..]);
        prop_assert!(out.answers.ends_with("\r\n\r\n{}"), "{}", out.answers);
    }

    #[test]
    fn what_the_official_decoder_refuses_is_refused(export in export(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = export.encode_to_vec();
        if body.is_empty() { return Ok(()) }
        let at = at.index(body.len());
        body[at] = byte;
        let official = ExportLogsServiceRequest::decode(&body[..]);
        let out = answers(listener(&["otlp"], Format::Json), &request("POST /v1/logs", PROTOBUF, &body));
        // The official decoder also refuses text that is not UTF-8, which is replaced here, and fields of the wrong kind that nobody
        // looks at here.
        match official {
            Ok(export) => {
                prop_assert_eq!(statuses(&out.answers), ["200"]);
                prop_assert_eq!(records(&out).len(), number_of_records(&export));
            }
            Err(error) if !["UTF-8", "invalid wire type"].iter().any(|what| error.to_string().contains(what)) => prop_assert_eq!(statuses(&out.answers), ["400"], "{}", error),
            Err(_) => {}
        }
    }
}

proptest! {
    /// Bytes behind each other are messages merged into one, with two resources and scopes. All of them are checked.
    #[test]
    fn parts_that_are_there_twice_are_checked_and_merged_as_by_the_official_decoder(
        parts in proptest::collection::vec(export(), 2),
        of_scope in any::<bool>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        breaks in any::<bool>(),
    ) {
        let resources = parts.iter().flat_map(|export| &export.resource_logs);
        let mut merged = if of_scope {
            let scopes = resources.flat_map(|resource| &resource.scope_logs);
            field(2, &scopes.flat_map(Message::encode_to_vec).collect::<Vec<u8>>())
        } else {
            resources.flat_map(Message::encode_to_vec).collect()
        };
        if breaks && !merged.is_empty() {
            let at = at.index(merged.len());
            merged[at] = byte;
        }
        let body = field(1, &merged);
        let out = answers(listener(&["otlp"], Format::Json), &request("POST /v1/logs", PROTOBUF, &body));
        match ExportLogsServiceRequest::decode(&body[..]) {
            Ok(export) if breaks => {
                prop_assert_eq!(statuses(&out.answers), ["200"]);
                prop_assert_eq!(records(&out).len(), number_of_records(&export));
            }
            Ok(export) => prop_assert_eq!(found(&out), expected(&export)),
            Err(error) if !["UTF-8", "invalid wire type"].iter().any(|what| error.to_string().contains(what)) => {
                prop_assert_eq!(statuses(&out.answers), ["400"], "{}", error);
            }
            Err(_) => {}
        }
    }
}

proptest! {
    /// A body and the value of an attribute in several fields, and several values in one: lists are joined, of others the last counts.
    #[test]
    fn values_that_are_there_twice_are_merged_as_by_the_official_decoder(
        parts in proptest::collection::vec(prop_oneof![4 => any_value(), 1 => Just(AnyValue::default())], 0..5),
        at in 0usize..5,
    ) {
        let at = at.min(parts.len());
        // The first ones in one field, then a field each.
        let mut values = vec![parts[..at].iter().flat_map(Message::encode_to_vec).collect::<Vec<u8>>()];
        values.extend(parts[at..].iter().map(Message::encode_to_vec));
        let fields = |number| values.iter().flat_map(|value| field(number, value)).collect::<Vec<u8>>();
        let pair = [field(1, b"a"), fields(2)].concat();
        let record = [fields(5), field(6, &pair)].concat();
        let resource = field(1, &field(1, &[field(1, b"service.name"), fields(2)].concat()));
        let body = field(1, &[resource, field(2, &field(2, &record))].concat());
        let out = answers(listener(&["otlp"], Format::Json), &request("POST /v1/logs", PROTOBUF, &body));
        prop_assert_eq!(statuses(&out.answers), ["200"]);
        prop_assert_eq!(found(&out), expected(&ExportLogsServiceRequest::decode(&body[..]).unwrap()));
    }
}

#[test]
fn a_value_that_is_there_twice_is_merged() {
    let list = |text: &[u8]| field(5, &field(1, &field(1, text)));
    let post = |bodies: &[Vec<u8>]| {
        let record: Vec<u8> = bodies.iter().flat_map(|body| field(5, body)).collect();
        let body = field(1, &field(2, &field(2, &record)));
        found(&answers(listener(&["otlp"], Format::Json), &request("POST /v1/logs", PROTOBUF, &body)))
    };
    assert_eq!(post(&[list(b"a"), list(b"b")]), [json!([{}, ["a", "b"]])]);
    assert_eq!(post(&[[list(b"a"), list(b"b")].concat(), vec![]]), [json!([{}, ["a", "b"]])]);
    assert_eq!(post(&[list(b"a"), field(1, b"x"), list(b"b")]), [json!([{}, ["b"]])]);
    assert_eq!(post(&[field(1, b"x"), vec![]]), [json!([{}, "x"])]);
    assert_eq!(post(&[list(b"a"), field(1, b"x")]), [json!([{}, "x"])]);
}

/// Also of those that hold what the tests above do not send.
fn number_of_records(export: &ExportLogsServiceRequest) -> usize {
    export.resource_logs.iter().flat_map(|r| &r.scope_logs).map(|s| s.log_records.len()).sum()
}

/// A field of a message that is a message.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(content.len() as u64, &mut out);
    out.extend_from_slice(content);
    out
}

#[test]
fn a_part_that_is_there_twice_is_checked_and_merged() {
    let pair = field(1, &[field(1, b"a"), field(2, &field(1, b"x"))].concat());
    let record = field(2, &field(5, &field(1, b"line")));
    let post = |resource: &[&[u8]], scope: &[&[u8]]| {
        let body = field(1, &[resource.concat(), field(2, &[scope.concat(), record.clone()].concat())].concat());
        answers(listener(&["otlp"], Format::Json), &request("POST /v1/logs", PROTOBUF, &body))
    };
    let (broken, named) = (field(1, b"\x0a\x7f"), field(1, &field(1, b"s")));
    for out in [post(&[&broken, &field(1, &pair)], &[]), post(&[], &[&broken, &named]), post(&[], &[&named, &broken])] {
        assert_eq!((statuses(&out.answers), out.default.len()), (vec!["400"], 0));
    }
    let out = post(&[&field(1, &pair), &field(1, b"")], &[&named, &field(1, &field(2, b"1"))]);
    assert_eq!(found(&out), [json!([{"resource": {"a": "x"}, "scope": {"name": "s", "version": "1"}}, "line"])]);
}

fn one(body: &str) -> ExportLogsServiceRequest {
    let text = |text: &str| Some(AnyValue { value: Some(AnyKind::StringValue(text.into())) });
    let name = KeyValue { key: "service.name".into(), value: text("shop"), ..KeyValue::default() };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes: vec![name], ..Resource::default() }),
            scope_logs: vec![ScopeLogs {
                log_records: vec![LogRecord { body: text(body), ..LogRecord::default() }],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

#[test]
fn answers_have_the_encoding_of_the_request() {
    let body = one("x");
    let out = answers(listener(&["otlp"], Format::Json), &request("POST /v1/logs", PROTOBUF, &body.encode_to_vec()));
    assert!(out.answers.contains("Content-Type: application/x-protobuf\r\n"), "{}", out.answers);
    assert!(out.answers.contains("Content-Length: 0\r\n"), "an empty message says that all is well");
    for (headers, kind) in [(PROTOBUF, "application/x-protobuf"), (JSON, "application/json")] {
        for (head, body, status, words, code) in [
            ("POST /v1/logs", &b"\xff"[..], "400", "no ExportLogsServiceRequest", 3),
            ("POST /v1/traces", b"{}", "404", "stores logs", 12),
            ("POST /v1/metrics", b"{}", "404", "stores logs", 12),
            ("GET /v1/logs", b"", "405", "", 12),
        ] {
            let out = answers(listener(&["otlp"], Format::Json), &request(head, headers, body));
            assert_eq!(statuses(&out.answers), [status], "{head} {headers}");
            assert!(out.answers.contains(&format!("Content-Type: {kind}\r\n")) && out.answers.contains(words));
            let (_, said) = out.answers.split_once("\r\n\r\n").unwrap();
            let expected = if kind == "application/json" {
                format!("{{\"code\":{code},")
            } else {
                format!("\u{8}{}", code as u8 as char)
            };
            assert!(said.starts_with(&expected), "{said:?}");
        }
    }
    let out = answers(
        listener(&["otlp"], Format::Json),
        &request("POST /v1/logs", "Content-Type: application/grpc\r\n", b""),
    );
    assert_eq!(statuses(&out.answers), ["415"]);
    assert!(out.answers.contains("gRPC is not spoken here"));
}

/// SDKs drop what they were told to send again after more seconds than they have left of their ten.
#[test]
fn clients_are_never_told_to_wait_longer_than_they_try() {
    for kind in [JSON, PROTOBUF] {
        for (refusal, status, wait) in [(Refusal::Overloaded, "429", 1), (Refusal::DiskFull, "503", 2)] {
            let mut bench = Bench::new(listener(&["otlp"], Format::Json), 1 << 20, 1 << 20);
            bench.refuse(Some(refusal));
            bench.feed(&request("POST /v1/logs", kind, b"{}"), &[usize::MAX]);
            assert_eq!(statuses(&bench.out.answers), [status]);
            assert!(bench.out.answers.contains(&format!("Retry-After: {wait}\r\n")), "{}", bench.out.answers);
        }
    }
}

#[test]
fn what_can_never_be_taken_is_a_partial_success() {
    let mut export = one("short");
    // A body that is no text cannot be cut.
    let long = AnyKind::BytesValue(vec![0; 40_000]);
    let record = LogRecord { body: Some(AnyValue { value: Some(long) }), ..LogRecord::default() };
    export.resource_logs[0].scope_logs[0].log_records.push(record);
    let out = answers(listener(&["otlp"], Format::Json), &request("POST /v1/logs", PROTOBUF, &export.encode_to_vec()));
    assert_eq!((statuses(&out.answers), records(&out).len()), (vec!["200"], 1));
    let (_, body) = out.answers.split_once("\r\n\r\n").unwrap();
    let said = ExportLogsServiceResponse::decode(body.as_bytes()).unwrap().partial_success.unwrap();
    assert_eq!(said.rejected_log_records, 1);
    assert!(said.error_message.contains("max_line_bytes"));
    let as_json = serde_json::to_vec(&export).unwrap();
    let out = answers(listener(&["otlp"], Format::Json), &request("POST /v1/logs", JSON, &as_json));
    let (_, body) = out.answers.split_once("\r\n\r\n").unwrap();
    let said: Value = serde_json::from_str(body).unwrap();
    assert_eq!(said["partialSuccess"]["rejectedLogRecords"], "1");
}

/// They are written as they are checked, and no further than is needed to know that they are too long.
#[test]
fn a_record_whose_attributes_are_too_long_is_a_partial_success_and_its_neighbours_stay() {
    let mut export = one("first");
    let records_of = &mut export.resource_logs[0].scope_logs[0].log_records;
    let text = |text: String| Some(AnyValue { value: Some(AnyKind::StringValue(text)) });
    let with = |value: String| {
        let attribute = KeyValue { key: "k".into(), value: text(value), ..KeyValue::default() };
        LogRecord { body: text("second".into()), attributes: vec![attribute], ..LogRecord::default() }
    };
    records_of.extend([with("é\"".repeat(150_000)), with("short".into())]);
    for (kind, body) in [(PROTOBUF, export.encode_to_vec()), (JSON, serde_json::to_vec(&export).unwrap())] {
        for format in [Format::Json, Format::Raw] {
            let out = answers(listener(&["otlp"], format), &request("POST /v1/logs", kind, &body));
            assert_eq!(statuses(&out.answers), ["200"], "{kind}");
            assert!(out.answers.contains("max_line_bytes"), "{}", out.answers);
            let lines: Vec<&[u8]> = out.default.split_inclusive(|b| *b == b'\n').collect();
            assert_eq!(lines.len(), 2, "{kind} {format:?}");
            let is_short = lines[1].windows(16).any(|part| part == br#""attributes":{"k"#);
            assert_eq!(is_short, format == Format::Json, "attributes of the second are those of its own");
        }
    }
}

#[test]
fn a_service_goes_to_its_own_stream() {
    let mut options = listener(&["otlp"], Format::Raw);
    let to = Route { name: "other".into(), index: 5, format: Format::Raw };
    options.rules = Rules::of([(SERVICE, "shop".to_string(), to)]);
    let export = one("a\nb");
    let input = [
        request("POST /v1/logs", PROTOBUF, &export.encode_to_vec()),
        request("POST /v1/logs", JSON, &serde_json::to_vec(&export).unwrap()),
    ];
    let out = answers(options, &input.concat());
    assert_eq!((&out.other[..], out.default.len()), (&b"a\\nb\na\\nb\n"[..], 0));
}

#[test]
fn forms_of_json_that_clients_send() {
    for (body, expected) in [
        // Numbers as numbers, the resource behind its scopes, unknown keys, null.
        (
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":17,"body":{"stringValue":"x"},"severityNumber":9,"attributes":[{"key":"n","value":{"intValue":5}},{"key":"o","value":null}],"new":{"a":[1]}}],"scope":{"name":"s"}}],"resource":{"attributes":[{"key":"a","value":{"boolValue":true}}]}}]}"#,
            vec![
                json!([{"resource": {"a": true}, "scope": {"name": "s"}, "time": "17", "severity": 9, "attributes": {"n": 5, "o": null}}, "x"]),
            ],
        ),
        (r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{}]}]}]}"#, vec![json!([{}, null])]),
        // A value in front of its name, also inside of one; names without values; a value that holds nothing.
        (
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":[{"value":{"kvlistValue":{"values":[{"value":{"intValue":"1"},"key":"b"}]}},"key":"a"},{"key":"c"},{"key":"d","value":{}},{"key":"e","value":{"arrayValue":{}}}]}]}]}]}"#,
            vec![json!([{"attributes": {"a": {"b": 1}, "c": null, "d": null, "e": []}}, null])],
        ),
        (r#"{"resourceLogs":null}"#, vec![]),
        ("{}", vec![]),
        (
            r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"doubleValue":"NaN"}}]}]}]}"#,
            vec![json!([{}, "NaN"])],
        ),
    ] {
        let out = answers(listener(&["otlp"], Format::Json), &request("POST /v1/logs", JSON, body.as_bytes()));
        assert_eq!(statuses(&out.answers), ["200"], "{body}");
        assert_eq!(found(&out), expected, "{body}");
    }
    for bad in [
        "",
        "[]",
        "{\"resourceLogs\":{}}",
        "{\"resourceLogs\":[1]}",
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":"x"}]}]}]}"#,
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"intValue":"x"}}]}]}]}"#,
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"attributes":{}}]}]}]}"#,
        r#"{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"intValue":1,"boolValue":true}}]}]}]}"#,
        r#"{"resourceLogs":[{"resource":7,"scopeLogs":[{"logRecords":[{}]}]}]}"#,
    ] {
        let out = answers(listener(&["otlp"], Format::Json), &request("POST /v1/logs", JSON, bad.as_bytes()));
        assert_eq!((statuses(&out.answers), out.default.len()), (vec!["400"], 0), "{bad}");
    }
}

#[test]
fn nesting_is_bounded() {
    let mut value = AnyValue { value: Some(AnyKind::BoolValue(true)) };
    for _ in 0..34 {
        value = AnyValue { value: Some(AnyKind::ArrayValue(ArrayValue { values: vec![value] })) };
    }
    let mut export = one("");
    export.resource_logs[0].scope_logs[0].log_records[0].body = Some(value);
    let bodies = [(PROTOBUF, export.encode_to_vec()), (JSON, serde_json::to_vec(&export).unwrap())];
    for (headers, body) in bodies {
        let out = answers(listener(&["otlp"], Format::Json), &request("POST /v1/logs", headers, &body));
        assert_eq!(statuses(&out.answers), ["400"]);
    }
    let empty = KeyValue::default();
    export = one("x");
    export.resource_logs[0].scope_logs[0].log_records[0].attributes = vec![empty; 1_000_000];
    let body = export.encode_to_vec();
    let mut options = listener(&["otlp"], Format::Json);
    options.max_body_bytes = 64 << 20;
    let out = answers(options, &request("POST /v1/logs", PROTOBUF, &body));
    assert_eq!((statuses(&out.answers), out.default.len()), (vec!["200"], 0), "too long, and told so");
    assert!(out.answers.contains("max_line_bytes"));
}

/// Found from outside: what such a resource looks like on disk found no room beside the request, which got 429 for ever.
#[test]
fn a_resource_that_is_too_long_for_any_record_is_a_partial_success() {
    let export = one("x");
    let long = AnyValue { value: Some(AnyKind::StringValue("y".repeat(500_000))) };
    let attribute = KeyValue { key: "long".into(), value: Some(long), ..KeyValue::default() };
    let scope = InstrumentationScope { attributes: vec![attribute.clone()], ..InstrumentationScope::default() };
    for of_scope in [false, true] {
        let mut export = export.clone();
        let resource = &mut export.resource_logs[0];
        match of_scope {
            true => resource.scope_logs[0].scope = Some(scope.clone()),
            false => resource.resource.as_mut().unwrap().attributes.push(attribute.clone()),
        }
        for (kind, body) in [(PROTOBUF, export.encode_to_vec()), (JSON, serde_json::to_vec(&export).unwrap())] {
            let mut options = listener(&["otlp"], Format::Json);
            options.room = Room::new(1 << 20);
            options.apis.max_document_bytes = 1 << 20;
            let out = answers(options, &request("POST /v1/logs", kind, &body));
            assert_eq!((statuses(&out.answers), out.default.len()), (vec!["200"], 0), "{kind}: {}", out.answers);
            assert!(out.answers.contains("max_line_bytes"), "{}", out.answers);
        }
    }
}
