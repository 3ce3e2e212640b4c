//! Records of APIs go to streams by what they say, however their sender has written it.

use super::api_tests::{listener, request};
use super::*;
use crate::protocol::http::api::{HOST, INDEX, SERVICE};
use crate::session::routes::Rules;

/// Found from outside: rules were compared with the text between the quotes, where `\u00fc` and `\/` stand for something else.
#[test]
fn rules_look_at_what_a_text_stands_for() {
    let otlp = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"b\u00fcro\/1"}}]},
        "scopeLogs":[{"logRecords":[{"body":{"stringValue":"x"}}]}]}]}"#;
    for (api, attribute, path, body) in [
        ("splunk", HOST, "/services/collector", r#"{"host":"b\u00fcro\/1","event":"x"}"#),
        ("splunk", INDEX, "/services/collector", r#"{"index":"b\u00fcro\/1","event":"x"}"#),
        ("gelf", HOST, "/gelf", r#"{"host":"b\u00fcro\/1","short_message":"x"}"#),
        ("datadog", HOST, "/api/v2/logs", r#"[{"hostname":"b\u00fcro\/1"}]"#),
        ("datadog", SERVICE, "/api/v2/logs", r#"[{"service":"b\u00fcro\/1"}]"#),
        ("elasticsearch", INDEX, "/_bulk", "{\"index\":{\"_index\":\"b\\u00fcro\\/1\"}}\n{}\n"),
        ("otlp", SERVICE, "/v1/logs", otlp),
    ] {
        for rule in ["b\u{fc}ro/1", "b\u{fc}ro*"] {
            let mut options = listener(&[api], Format::Raw);
            let to = Route { name: "other".into(), index: 5, format: Format::Raw };
            options.rules = Rules::of([(attribute, rule.to_string(), to)]);
            let input = request(&format!("POST {path}"), "Content-Type: application/json\r\n", body.as_bytes());
            let out = run(options, &input, &[usize::MAX], 1 << 20, 1 << 20);
            let lines = [&out.default, &out.other].map(|bytes| bytes.iter().filter(|b| **b == b'\n').count());
            assert_eq!(lines, [0, 1], "{api} {path} {rule}: {}", out.answers);
        }
    }
}
