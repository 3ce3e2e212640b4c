//! What clients want otherwise: another status, JSON, PUT, CORS; and what is refused since it is no lines.

use super::*;

/// A request to `target` with a body and further header lines, and what is answered.
fn ask(options: HttpOptions, method: &str, target: &str, headers: &str, body: &str) -> Output {
    let request =
        format!("{method} {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len());
    let whole = run(options.clone(), request.as_bytes(), &[usize::MAX], 1 << 20, 1 << 20);
    let pieces = run(options, request.as_bytes(), &[7, 1, 3], 1 << 20, 1 << 20);
    let undated = |out: &Output| out.answers.lines().filter(|l| !l.starts_with("Date")).collect::<Vec<_>>().join("\n");
    assert_eq!((&whole.default, &whole.other, undated(&whole)), (&pieces.default, &pieces.other, undated(&pieces)));
    whole
}

fn plain() -> HttpOptions {
    options(Format::Raw, TooLong::Truncate, AckLevel::Durable)
}

#[test]
fn the_success_status_can_be_chosen() {
    for (target, listener, expected) in [
        ("/", 204, "HTTP/1.1 204 No Content\r\n"),
        ("/", 200, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
        ("/?status=200", 204, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"),
        ("/?ack=written&status=202", 204, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n"),
        ("/?status=201", 204, "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n"),
        ("/?status=204", 200, "HTTP/1.1 204 No Content\r\n"),
        ("/?status=500", 204, "HTTP/1.1 400 Bad Request\r\n"),
    ] {
        let mut options = plain();
        options.dialect.status = listener;
        let out = ask(options, "POST", target, "", "a\n");
        assert!(out.answers.starts_with(expected), "{target}: {}", out.answers);
    }
}

#[test]
fn json_arrays_become_records_where_they_are_asked_for() {
    let array = "[{\"a\": 1},\n {\"b\": \"x\\n\"}]";
    assert_eq!(ask(plain(), "POST", "/", "", array).default, b"[{\"a\": 1},\n {\"b\": \"x\\n\"}]\n", "not asked for");
    let out = ask(plain(), "POST", "/?records=json", "", array);
    assert_eq!(String::from_utf8(out.default).unwrap(), "{\"a\":1}\n{\"b\":\"x\\n\"}\n");
    assert!(out.answers.starts_with("HTTP/1.1 204"), "{}", out.answers);
    let mut options = plain();
    options.dialect.records = Records::Json;
    assert_eq!(ask(options.clone(), "POST", "/", "", "{\"a\": 1}").default, b"{\"a\":1}\n");
    assert_eq!(ask(options.clone(), "POST", "/?records=lines", "", "{\"a\": 1}").default, b"{\"a\": 1}\n");
    for bad in ["[1,]", "[{\"a\": 1}", "hello, log"] {
        let out = ask(options.clone(), "POST", "/", "", bad);
        assert!(out.answers.starts_with("HTTP/1.1 400") && out.answers.contains("bad_json"), "{bad}: {}", out.answers);
    }
    // Encoded too, and a following request is its own.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(array.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip, identity\r\nContent-Length: {}\r\n\r\n",
        packed.len()
    );
    let next = "POST /?records=lines HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n[\n";
    let input = [head.as_bytes(), &packed, next.as_bytes()].concat();
    for pieces in [vec![usize::MAX], vec![1], vec![50, 3]] {
        let out = run(options.clone(), &input, &pieces, 1 << 20, 1 << 20);
        assert_eq!(String::from_utf8(out.default).unwrap(), "{\"a\":1}\n{\"b\":\"x\\n\"}\n[\n");
        assert_eq!(out.answers.matches("HTTP/1.1 204").count(), 2, "{}", out.answers);
    }
}

/// Python's HTTPHandler sends records as queries of GET, and takes any answer for a success.
#[test]
fn a_record_in_a_query_is_refused() {
    let out = ask(plain(), "GET", "/?name=root&msg=hello", "", "");
    assert!(out.answers.starts_with("HTTP/1.1 405"), "{}", out.answers);
    assert!(ask(plain(), "GET", "/", "", "").answers.starts_with("HTTP/1.1 200"));
}

#[test]
fn put_is_post_and_the_name_of_a_file_means_nothing() {
    for target in ["/", "/app.log", "/ingest/other", "/ingest/other/", "/ingest/other/app.log"] {
        let out = ask(plain(), "PUT", target, "", "a\n");
        assert!(out.answers.starts_with("HTTP/1.1 204"), "{target}: {}", out.answers);
        let stream = if target.contains("other") { &out.other } else { &out.default };
        assert_eq!(stream, b"a\n", "{target}");
    }
    assert_eq!(ask(plain(), "POST", "/ingest/other/", "", "a\n").other, b"a\n");
    for (method, target) in [
        ("POST", "/app.log"),
        ("POST", "/ingest/other/x"),
        ("PUT", "/a/b"),
        ("PUT", "/ingest/no/x"),
        ("PUT", "/ingest/other/x/y"),
    ] {
        let out = ask(plain(), method, target, "", "a\n");
        assert!(out.answers.starts_with("HTTP/1.1 404"), "{method} {target}: {}", out.answers);
    }
}

#[test]
fn pages_of_an_allowed_origin_may_send() {
    let mut options = plain();
    options.dialect.origins = vec!["https://a.example".into()];
    let out = ask(options.clone(), "POST", "/", "Origin: https://a.example\r\n", "a\n");
    assert!(
        out.answers.contains("\r\nAccess-Control-Allow-Origin: https://a.example\r\nVary: Origin\r\n"),
        "{}",
        out.answers
    );
    let out = ask(options.clone(), "POST", "/nowhere", "Origin: https://a.example\r\n", "a\n");
    assert!(
        out.answers.starts_with("HTTP/1.1 404") && out.answers.contains("Access-Control-Allow-Origin"),
        "{}",
        out.answers
    );
    let out = ask(
        options.clone(),
        "OPTIONS",
        "/ingest/other",
        "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n",
        "",
    );
    assert!(
        out.answers.starts_with("HTTP/1.1 204") && out.answers.contains("Access-Control-Allow-Headers: Authorization"),
        "{}",
        out.answers
    );
    for (options, origin) in [(options.clone(), "https://b.example"), (plain(), "https://a.example")] {
        let out = ask(options, "OPTIONS", "/", &format!("Origin: {origin}\r\n"), "");
        assert!(!out.answers.contains("Access-Control"), "{}", out.answers);
    }
    options.dialect.origins = vec!["*".into()];
    let out = ask(options, "POST", "/", "Origin: null\r\n", "a\n");
    assert!(out.answers.contains("Access-Control-Allow-Origin: *\r\n"), "{}", out.answers);
}

#[test]
fn bodies_that_are_not_lines_and_other_protocols_are_refused() {
    let out =
        ask(plain(), "POST", "/", "Content-Type: multipart/form-data; boundary=x\r\n", "--x\r\n\r\na\r\n--x--\r\n");
    assert!(
        out.answers.starts_with("HTTP/1.1 415") && out.answers.contains("unsupported_media_type"),
        "{}",
        out.answers
    );
    assert!(out.default.is_empty() && !out.answers.contains("Accept-Encoding"), "{}", out.answers);
    for (input, status) in [
        (&b"83 <14>1 2026-11-27T00:00:00Z host app"[..], "400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", "400"),
        (b"1 open 85 relp_version=0", "400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "505"),
        (b"\x92\xa3app\x93", "400"),
    ] {
        let mut bench = Bench::new(plain(), 1 << 20, 1 << 20);
        bench.feed(input, &[usize::MAX]);
        assert!(bench.out.answers.starts_with(&format!("HTTP/1.1 {status}")), "at once: {}", bench.out.answers);
        assert!(bench.out.over);
    }
}
