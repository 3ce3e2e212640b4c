//! Datadog, GELF and the journal.

use super::api_tests::{answer, coded, listener, parts, records, request};
use super::*;
use crate::metrics::accounting::Reason;
use serde_json::{Value, json};

const JSON: &str = "Content-Type: application/json\r\n";

fn messages(out: &Output) -> Vec<Value> {
    records(out).iter().map(|r| r["msg"].clone()).collect()
}

proptest! {
    #[test]
    fn objects_come_out_as_they_were_sent_however_they_are_split(
        objects in proptest::collection::vec(proptest::collection::btree_map("[a-z]{1,5}", ".{0,30}", 1..5), 0..20),
        pieces in proptest::collection::vec(prop_oneof![1usize..40, 1usize..5000], 1..12),
        chunk in 160_000usize..300_000,
        coding in prop_oneof![Just(0u8), Just(1), Just(4)],
    ) {
        let objects: Vec<Value> = objects.into_iter().map(|map| json!(map)).collect();
        let (encoding, body) = coded(coding, serde_json::to_string_pretty(&objects).unwrap().as_bytes());
        let out = run(listener(&["datadog"], Format::Json), &request("POST /api/v2/logs", &encoding, &body), &pieces, chunk, 1 << 20);
        prop_assert_eq!((statuses(&out.answers), parts(&out).1), (vec!["202"], "{}"));
        prop_assert_eq!(messages(&out), objects.clone());
        let gelf: Vec<Value> = objects.into_iter().map(|mut object| { object["short_message"] = json!("x"); object }).collect();
        if gelf.is_empty() { return Ok(()) }
        let text: Vec<String> = gelf.iter().map(ToString::to_string).collect();
        let (encoding, body) = coded(coding, text.join("\n").as_bytes());
        let out = run(listener(&["gelf"], Format::Json), &request("POST /gelf", &encoding, &body), &pieces, chunk, 1 << 20);
        prop_assert_eq!(statuses(&out.answers), ["202"]);
        prop_assert_eq!(messages(&out), gelf);
    }

    #[test]
    fn entries_of_a_journal_come_out_however_they_are_split(
        entries in proptest::collection::vec(proptest::collection::btree_map(
            "[A-Z_]{1,6}", proptest::collection::vec(any::<u8>(), 0..60), 1..8), 1..12),
        messages in proptest::collection::vec(".{0,40}", 12),
        pieces in proptest::collection::vec(prop_oneof![1usize..40, 1usize..5000], 1..12),
        chunk in 160_000usize..300_000,
        ends in any::<bool>(),
    ) {
        let (mut body, mut expected) = (Vec::new(), Vec::new());
        for (entry, message) in entries.iter().zip(&messages) {
            let mut fields = json!({});
            let mut all: Vec<(&str, &[u8])> = entry.iter().map(|(name, value)| (name.as_str(), &value[..])).filter(|f| f.0 != "MESSAGE").collect();
            for (name, value) in &all {
                fields[*name] = json!(String::from_utf8_lossy(value));
            }
            all.insert(all.len() / 2, ("MESSAGE", message.as_bytes()));
            for (name, value) in all {
                let is_text = !value.contains(&b'\n') && std::str::from_utf8(value).is_ok();
                body.extend(name.as_bytes());
                if is_text {
                    body.push(b'=');
                } else {
                    body.push(b'\n');
                    body.extend((value.len() as u64).to_le_bytes());
                }
                body.extend(value);
                body.push(b'\n');
            }
            body.push(b'\n');
            expected.push(json!([{"fields": fields}, message]));
        }
        if !ends {
            body.pop();
        }
        let mut options = listener(&["journal"], Format::Json);
        // The limit of a body does not hold for this one.
        options.max_body_bytes = 10;
        let head = "POST /upload HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut input = head.as_bytes().to_vec();
        for piece in body.chunks(97) {
            input.extend(format!("{:x}\r\n", piece.len()).bytes());
            input.extend(piece);
            input.extend(b"\r\n");
        }
        input.extend(b"0\r\n\r\n");
        let out = run(options, &input, &pieces, chunk, 1 << 20);
        prop_assert_eq!(statuses(&out.answers), ["100", "202"]);
        let found: Vec<Value> = records(&out).iter().map(|r| json!([r["attrs"], r["msg"]])).collect();
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn datadog_probes_and_refusals() {
    for (line, body, status, said, lines) in [
        ("POST /api/v2/logs", "{}", "202", "{}", 0),
        ("POST /v1/input", "{\"message\":\"x\"}", "202", "{}", 1),
        ("POST /v1/input/key", "[{\"message\":\"x\"},{}]", "202", "{}", 1),
        ("POST /api/v2/logs", "[]", "202", "{}", 0),
        ("GET /api/v1/validate", "", "200", "{\"valid\":true}", 0),
        ("POST /api/v2/logs", "[1]", "400", "bad_logs", 0),
        ("POST /api/v2/logs", "[{\"a\":1}", "400", "bad_logs", 1),
        ("POST /api/v2/logs", "", "400", "bad_logs", 0),
        ("GET /api/v2/logs", "", "405", "method", 0),
    ] {
        let out = answer(&["datadog"], &request(line, JSON, body.as_bytes()));
        assert_eq!((statuses(&out.answers), records(&out).len()), (vec![status], lines), "{line} {body}");
        assert!(out.answers.contains(said), "{}", out.answers);
    }
    use sha2::{Digest, Sha256};
    let mut options = listener(&["datadog"], Format::Json);
    options.tokens = vec![Token { sha256: Sha256::digest("key").into(), streams: None }];
    for (line, headers, status) in [
        ("GET /api/v1/validate", "DD-API-KEY: key\r\n", "200"),
        ("GET /api/v1/validate", "DD-API-KEY: other\r\n", "401"),
        ("POST /api/v2/logs", "DD-API-KEY: key\r\n", "202"),
        ("POST /v1/input/key", "", "202"),
        ("POST /datadog/v1/input/key", "", "202"),
        ("POST /datadog/v1/input/other", "", "401"),
        ("POST /api/v2/logs", "", "401"),
    ] {
        let out = run(options.clone(), &request(line, headers, b"{}"), &[usize::MAX], 1 << 20, 1 << 20);
        assert_eq!(statuses(&out.answers), [status], "{line} {headers}");
    }
}

#[test]
fn gelf_is_checked() {
    for (body, status) in [
        ("{\"version\":\"1.1\",\"host\":\"a\",\"short_message\":\"x\",\"_id\":9007199254740993}", "202"),
        ("{\"short_message\":\"\"}", "400"),
        ("{\"short_message\":1}", "400"),
        ("{\"host\":\"a\"}", "400"),
        ("[]", "400"),
        ("", "400"),
        ("{\"short_message\":\"x\"} y", "400"),
    ] {
        let out = answer(&["gelf"], &request("POST /gelf", "", body.as_bytes()));
        assert_eq!(statuses(&out.answers), [status], "{body}");
    }
    // By their first bytes, whatever the head says, however they are split.
    for coding in [0, 1, 2] {
        let (_, body) = coded(coding, b"{\"short_message\":\"x\"}");
        for headers in ["", "Content-Encoding: gzip,deflate\r\n"] {
            for piece in [1, usize::MAX] {
                let input = request("POST /gelf", headers, &body);
                let out = run(listener(&["gelf"], Format::Json), &input, &[piece], 1 << 20, 1 << 20);
                assert_eq!((statuses(&out.answers), records(&out).len()), (vec!["202"], 1), "{coding} {headers}");
            }
        }
    }
    let out = answer(&["gelf"], &request("POST /gelf", "", b"{\"short_message\":\"x\",\"_n\":9007199254740993}"));
    assert!(
        String::from_utf8_lossy(&out.default).contains("\"msg\":{\"short_message\":\"x\",\"_n\":9007199254740993}")
    );
}

#[test]
fn what_is_no_journal_is_refused() {
    let upload = |body: &[u8]| answer(&["journal"], &request("POST /upload", "", body));
    for (body, status, lines) in [
        (&b"A=1\nMESSAGE=x\n\n"[..], "202", 1),
        (b"", "202", 0),
        (b"\n\n", "202", 0),
        (b"A=1\nB=2", "202", 1),
        (b"a=1\n\n", "400", 0),
        (b"=1\n\n", "400", 0),
        (b"A=1\n\nA\n\x02\0\0\0\0\0\0\0abc\n\n", "400", 1),
        (b"A\n\x02\0\0\0\0\0\0\0a", "400", 0),
        (b"A\n\xff\xff\xff\xff\xff\xff\xff\x7fabc", "413", 0),
    ] {
        let out = upload(body);
        assert_eq!((statuses(&out.answers), records(&out).len()), (vec![status], lines), "{}", body.escape_ascii());
    }
    let out = upload(b"TAG=a\nMESSAGE=x\nTAG=b\nOTHER=c\n\n");
    assert_eq!(records(&out)[0]["attrs"], json!({"fields": {"TAG": ["a", "b"], "OTHER": "c"}}));
}

/// An uploader ends at anything but a success, and comes to the same entry again for ever.
#[test]
fn an_entry_that_is_too_long_does_not_end_the_uploader() {
    let long = |text: &[u8], binary: &[u8]| {
        let size = (binary.len() as u64).to_le_bytes();
        [&b"MESSAGE=first\n\nA="[..], text, b"\nB\n", &size, binary, b"\nMESSAGE=long\n\nMESSAGE=next\n\n"].concat()
    };
    let (text, lines) = (vec![b'x'; 300_000], b"\n=\n\n".repeat(100_000));
    for (body, pieces) in [
        (long(&text, b""), vec![usize::MAX]),
        (long(b"", &lines), vec![usize::MAX]),
        (long(&text, &lines), vec![1000, 17]),
        (long(b"a", &lines), vec![100_000, 1, 2]),
    ] {
        for room in [None, Some(4 << 20)] {
            let mut options = listener(&["journal"], Format::Json);
            options.apis.max_document_bytes = 320 << 10;
            if let Some(room) = room {
                options.room = Room::new(room);
            }
            let out = run(options, &request("POST /upload", "", &body), &pieces, 1 << 20, 1 << 20);
            assert_eq!((statuses(&out.answers), messages(&out)), (vec!["202"], vec![json!("first"), json!("next")]));
        }
    }
    // One that is the last, without its end; and one that is broken inside.
    let last = [b"A=".as_slice(), &text].concat();
    assert_eq!(statuses(&answer(&["journal"], &request("POST /upload", "", &last)).answers), ["202"]);
    let broken = [b"A=".as_slice(), &text, b"\nB\n\x01\0\0\0\0\0\0\0xy\n\n"].concat();
    assert_eq!(statuses(&answer(&["journal"], &request("POST /upload", "", &broken)).answers), ["400"]);
}

#[test]
fn scripts_of_web_pages_may_send_to_an_api() {
    let mut options = listener(&["otlp", "loki", "elasticsearch"], Format::Json);
    options.dialect.origins = vec!["*".into()];
    for path in ["/v1/logs", "/loki/api/v1/push", "/_bulk"] {
        let input = format!("OPTIONS {path} HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\n\r\n");
        let out = run(options.clone(), input.as_bytes(), &[usize::MAX], 1 << 20, 1 << 20);
        assert_eq!(statuses(&out.answers), ["204"], "{path}");
        assert!(out.answers.contains("Access-Control-Allow-Methods: POST"), "{}", out.answers);
        // What the clients of an API send besides.
        let headers = out.answers.lines().find(|line| line.starts_with("Access-Control-Allow-Headers: ")).unwrap();
        for header in ["Content-Type", "DD-API-KEY", "X-Scope-OrgID", "X-Splunk-Request-Channel"] {
            assert!(headers.split([' ', ',']).any(|word| word == header), "{header}: {headers}");
        }
    }
    let input = request("POST /v1/logs", "Origin: https://app.example\r\nContent-Type: application/json\r\n", b"{}");
    let out = run(options, &input, &[usize::MAX], 1 << 20, 1 << 20);
    assert!(out.answers.contains("Access-Control-Allow-Origin: *\r\n"), "{}", out.answers);
}

/// Found by the simulation: a head that was not whole got 408, which some clients take for final.
#[test]
fn nobody_is_told_408_where_there_are_apis_of_others_wherever_a_request_stops() {
    let input = request("POST /v1/logs", "Content-Type: application/json\r\n", b"{\"resourceLogs\":[]}");
    for at in 1..input.len() {
        let mut bench = Bench::new(listener(&["otlp"], Format::Json), 1 << 20, 1 << 20);
        bench.feed(&input[..at], &[usize::MAX]);
        bench.drive.finish(End::Broken(Reason::LineTimeout));
        bench.settle();
        assert_eq!(statuses(&bench.out.answers), ["503"], "{at}");
        let mut own = Bench::new(listener(&[], Format::Json), 1 << 20, 1 << 20);
        own.feed(&input[..at], &[usize::MAX]);
        own.drive.finish(End::Broken(Reason::LineTimeout));
        own.settle();
        assert!(!own.out.answers.contains(" 503 "), "{at}: {}", own.out.answers);
    }
}
