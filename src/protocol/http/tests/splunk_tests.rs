use super::api_tests::{answer, coded, listener, parts, records, request};
use super::*;
use serde_json::{Value, json};

fn send(path: &str, body: &str) -> Output {
    answer(&["splunk"], &request(&format!("POST {path}"), "", body.as_bytes()))
}

fn event() -> impl Strategy<Value = Value> {
    let event = prop_oneof![
        "[^\u{0}]{1,40}".prop_map(Value::from),
        proptest::collection::btree_map("[a-z]{1,5}", ".{0,20}", 1..4).prop_map(|map| json!(map)),
        any::<i64>().prop_map(Value::from),
    ];
    let part = || proptest::option::of("[a-z\"/]{1,8}");
    let time = prop_oneof![Just(json!(null)), Just(json!(1700000000.125)), Just(json!("1700000000.125"))];
    (event, part(), part(), part(), time, any::<bool>()).prop_map(|(event, host, source, index, time, has_fields)| {
        let mut all = json!({});
        for (name, value) in [("host", host), ("source", source), ("index", index)] {
            if let Some(value) = value {
                all[name] = json!(value);
            }
        }
        if !time.is_null() {
            all["time"] = time;
        }
        if has_fields {
            all["fields"] = json!({"a": "b", "n": [1, 2]});
        }
        all["event"] = event;
        all
    })
}

proptest! {
    #[test]
    fn events_come_out_however_they_are_put_together_and_split(
        events in proptest::collection::vec(event(), 1..20),
        pieces in proptest::collection::vec(prop_oneof![1usize..40, 1usize..5000], 1..12),
        chunk in 160_000usize..300_000,
        coding in prop_oneof![Just(0u8), Just(1), Just(4)],
        how in 0..3,
    ) {
        let texts: Vec<String> = events.iter().map(ToString::to_string).collect();
        let body = match how {
            0 => texts.concat(),
            1 => texts.join("\r\n"),
            _ => format!("[{}]", texts.join(", ")),
        };
        let (encoding, sent) = coded(coding, body.as_bytes());
        let out = run(listener(&["splunk"], Format::Json), &request("POST /services/collector/event/1.0", &encoding, &sent), &pieces, chunk, 1 << 20);
        prop_assert_eq!(statuses(&out.answers), ["200"]);
        prop_assert_eq!(parts(&out).1, "{\"text\":\"Success\",\"code\":0}");
        let found: Vec<Value> = records(&out).iter().map(|r| {
            let mut all = r["attrs"].clone();
            all["event"] = r["msg"].clone();
            all
        }).collect();
        prop_assert_eq!(found, events);
    }
}

/// The codes of Splunk's documentation.
#[test]
fn what_is_wrong_is_told_by_its_code() {
    for (path, body, status, expected) in [
        ("/services/collector", "", "400", json!({"text": "No data", "code": 5, "invalid-event-number": 0})),
        ("/services/collector/raw", "\n\r\n", "400", json!({"text": "No data", "code": 5, "invalid-event-number": 0})),
        (
            "/services/collector/event",
            "{\"event\":\"a\"}{\"event\":",
            "400",
            json!({"text": "Invalid data format", "code": 6, "invalid-event-number": 1}),
        ),
        (
            "/services/collector/event",
            "{\"event\":\"a\"} x",
            "400",
            json!({"text": "Invalid data format", "code": 6, "invalid-event-number": 1}),
        ),
        (
            "/services/collector/event",
            "{\"evnt\":\"a\"}",
            "400",
            json!({"text": "Event field is required", "code": 12, "invalid-event-number": 0}),
        ),
        (
            "/services/collector/event",
            "{\"event\":\"\"}",
            "400",
            json!({"text": "Event field cannot be blank", "code": 13, "invalid-event-number": 0}),
        ),
        (
            "/services/collector/ack?channel=x",
            "{\"acks\":[0]}",
            "400",
            json!({"text": "ACK is disabled", "code": 14, "invalid-event-number": 0}),
        ),
    ] {
        let out = send(path, body);
        assert_eq!(statuses(&out.answers), [status], "{path} {body}");
        assert_eq!(serde_json::from_str::<Value>(parts(&out).1).unwrap(), expected, "{path} {body}");
    }
    for path in ["/services/collector/health", "/services/collector/health/1.0", "/splunk/services/collector/health"] {
        let out = answer(&["splunk"], format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!((statuses(&out.answers), parts(&out).1), (vec!["200"], "{\"text\":\"HEC is healthy\",\"code\":17}"));
    }
}

#[test]
fn raw_lines_carry_what_the_query_says() {
    let out = send("/services/collector/raw?source=%2Fvar%2Flog&host=a+b&channel=x", "one\r\n\ntwo");
    let found: Vec<Value> = records(&out).iter().map(|r| json!([r["attrs"], r["msg"]])).collect();
    let attrs = json!({"host": "a b", "source": "/var/log"});
    assert_eq!(found, [json!([attrs, "one"]), json!([attrs, "two"])]);
}

#[test]
fn tokens_and_overload_in_splunks_words() {
    use sha2::{Digest, Sha256};
    let mut options = listener(&["splunk"], Format::Raw);
    options.tokens = vec![Token { sha256: Sha256::digest("secret").into(), streams: None }];
    options.apis.query_token = true;
    for (path, headers, status, code) in [
        ("/services/collector", "Authorization: Splunk secret\r\n", "200", 0),
        ("/services/collector", "Authorization: splunk  secret\r\n", "200", 0),
        // The password of Basic: `x:secret`.
        ("/services/collector", "Authorization: Basic eDpzZWNyZXQ=\r\n", "200", 0),
        ("/services/collector?token=secret", "", "200", 0),
        ("/services/collector", "Authorization: Splunk wrong\r\n", "403", 4),
        ("/services/collector", "", "401", 2),
        ("/services/collector?token=secret", "no", "400", 16),
    ] {
        options.apis.query_token = headers != "no";
        let headers = headers.trim_start_matches("no");
        let out = run(
            options.clone(),
            &request(&format!("POST {path}"), headers, b"{\"event\":\"x\"}"),
            &[usize::MAX],
            1 << 20,
            1 << 20,
        );
        assert_eq!(statuses(&out.answers), [status], "{path} {headers}");
        assert!(out.answers.contains(&format!("\"code\":{code}")), "{}", out.answers);
    }
    for refusal in [Refusal::Overloaded, Refusal::DiskFull] {
        let mut bench = Bench::new(listener(&["splunk"], Format::Json), 1 << 20, 1 << 20);
        bench.refuse(Some(refusal));
        bench.feed(&request("POST /services/collector", "", b"{\"event\":1}"), &[usize::MAX]);
        assert_eq!((statuses(&bench.out.answers), bench.out.answers.contains("\"code\":9")), (vec!["503"], true));
    }
}

#[test]
fn acknowledgements_come_when_asked_for_and_only_when_durable() {
    let mut options = listener(&["splunk"], Format::Json);
    options.apis.acks = Some(Arc::default());
    let mut bench = Bench::new(options.clone(), 1 << 20, 1 << 20);
    bench.drive.around.wall_ns = 1_700_000_000_000_000_000;
    bench.hold = true; // nothing is durable
    let channel = "X-Splunk-Request-Channel: 7f1c\r\n";
    let event = request("POST /services/collector/event", channel, b"{\"event\":1}{\"event\":2}");
    bench.feed(&event, &[usize::MAX]);
    bench.feed(&request("POST /services/collector/raw?channel=7f1c", "", b"x"), &[usize::MAX]);
    let numbers: Vec<u64> = bench
        .out
        .answers
        .split("\"ackId\":")
        .skip(1)
        .map(|rest| rest.split('}').next().unwrap().parse().unwrap())
        .collect();
    assert_eq!((statuses(&bench.out.answers).len(), numbers.len()), (2, 2), "answered at once");
    assert!(numbers[0] < numbers[1]);
    let ask = |bench: &mut Bench, channel: &str| {
        let body = format!("{{\"acks\":[{},{}],\"x\":[],\"acks\":[1]}}", numbers[0], numbers[1]);
        bench.feed(
            &request(&format!("POST /services/collector/ack?channel={channel}"), "", body.as_bytes()),
            &[usize::MAX],
        );
        let (_, last) = bench.out.answers.rsplit_once("\r\n\r\n").unwrap();
        let said: Value = serde_json::from_str(last).unwrap();
        [numbers[0], numbers[1], 1].map(|n| said["acks"][n.to_string()].as_bool().unwrap())
    };
    assert_eq!(ask(&mut bench, "7f1c"), [false; 3]);
    bench.drive.reach(AckLevel::Written);
    assert_eq!(ask(&mut bench, "7f1c"), [false; 3], "written is not durable");
    // Found from outside: a request could ask for less, and then it was told that all was durable.
    bench.feed(&request("POST /services/collector?ack=received&channel=7f1c", "", b"{\"event\":3}"), &[usize::MAX]);
    let (_, last) = bench.out.answers.rsplit_once("\"ackId\":").unwrap();
    let question = format!("{{\"acks\":[{}]}}", last.trim_end_matches('}'));
    bench.feed(&request("POST /services/collector/ack?channel=7f1c", "", question.as_bytes()), &[usize::MAX]);
    assert!(bench.out.answers.ends_with(":false}}"), "{}", bench.out.answers);
    bench.drive.reach(AckLevel::Durable);
    assert_eq!(ask(&mut bench, "other"), [false; 3], "of another channel");
    // Found from outside: a question that breaks off had used up what stood before that place.
    let broken = format!("{{\"acks\":[{},\"x\"]}}", numbers[0]);
    let broken = request("POST /services/collector/ack?channel=7f1c", "", broken.as_bytes());
    let mut elsewhere = Bench::new(options, 1 << 20, 1 << 20);
    elsewhere.feed(&broken, &[usize::MAX]);
    assert_eq!(statuses(&elsewhere.out.answers), ["400"]);
    assert_eq!(ask(&mut bench, "7f1c"), [true, true, false]);
    assert_eq!(ask(&mut bench, "7f1c"), [false; 3], "said once");
    bench.feed(&request("POST /services/collector", "", b"{\"event\":1}"), &[usize::MAX]);
    assert!(bench.out.answers.contains("\"text\":\"Data channel is missing\",\"code\":10"));
}

#[test]
fn what_a_broken_connection_had_sent_is_never_acknowledged_by_chance() {
    let mut options = listener(&["splunk"], Format::Json);
    let acks = Arc::<crate::protocol::http::api::splunk::Acks>::default();
    options.apis.acks = Some(Arc::clone(&acks));
    let mut bench = Bench::new(options, 1 << 20, 1 << 20);
    bench.hold = true;
    bench
        .feed(&request("POST /services/collector?channel=a", "Connection: close\r\n", b"{\"event\":1}"), &[usize::MAX]);
    let state = bench.drive.session.state(0);
    assert!(
        state.owes && !state.is_over,
        "the connection stays until it is durable, since nobody else would hear of it"
    );
    bench.drive.reach(AckLevel::Durable);
    let state = bench.drive.session.state(0);
    assert!(!state.owes && state.is_over);
}
