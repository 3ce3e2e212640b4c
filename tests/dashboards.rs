//! Alerts and dashboards: they are valid, each alert fires when it should and not otherwise, and every metric that is named
//! anywhere is one that the server has.

mod common;

use common::programs::{find, run};
use common::{Server, scratch, send_all, skipped};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

const RULES: &str = "config/prometheus/alerts.yml";
const RULE_TESTS: &str = "config/prometheus/alerts.test.yml";
const DASHBOARD: &str = "config/grafana/logweir.json";

/// The alerts, each with its keys. The file is ours, and plain: a key and its value on a line.
fn alerts() -> BTreeMap<String, BTreeMap<String, String>> {
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut name = String::new();
    for line in read(RULES).lines() {
        let line = line.trim();
        if let Some(alert) = line.strip_prefix("- alert: ") {
            name = alert.to_string();
        } else if let (false, Some((key, value))) = (name.is_empty(), line.split_once(": ")) {
            found.entry(name.clone()).or_default().insert(key.to_string(), value.trim_matches('\'').to_string());
        }
    }
    found
}

#[test]
fn promtool_finds_the_rules_valid_and_each_alert_fires_when_it_should() {
    let Some(promtool) = find("promtool") else {
        return skipped("promtool_finds_the_rules_valid_and_each_alert_fires_when_it_should", "no promtool");
    };
    let said = run(Command::new(&promtool).arg("check").arg("rules").arg(path(RULES)), b"");
    assert!(said.contains(&format!("{} rules found", alerts().len())), "{said}");
    run(Command::new(&promtool).arg("test").arg("rules").arg(path(RULE_TESTS)), b"");
    // The test can fail: without any one alert it does.
    let dir = scratch();
    std::fs::write(dir.path().join("alerts.test.yml"), read(RULE_TESTS)).unwrap();
    for (name, alert) in alerts() {
        let silent = read(RULES).replace(&format!("expr: {}\n", alert["expr"]), "expr: vector(0) > 1\n");
        assert_ne!(silent, read(RULES), "{name}");
        std::fs::write(dir.path().join("alerts.yml"), silent).unwrap();
        let output =
            Command::new(&promtool).args(["test", "rules", "alerts.test.yml"]).current_dir(dir.path()).output();
        assert!(!output.unwrap().status.success(), "{name} is not tested");
    }
}

#[test]
fn each_alert_says_what_it_is_and_what_to_do() {
    let (alerts, docs) = (alerts(), read("docs/alerts.md"));
    assert!(alerts.len() >= 12, "{}", alerts.len());
    for (name, alert) in &alerts {
        for key in ["expr", "severity", "summary", "description", "action", "runbook"] {
            assert!(alert.get(key).is_some_and(|v| !v.is_empty()), "{name}: {key}");
        }
        assert!(["critical", "warning"].contains(&alert["severity"].as_str()), "{name}");
        assert!(docs.contains(&format!("\n## {name}\n")), "docs/alerts.md: {name}");
        assert_eq!(alert["runbook"], format!("docs/alerts.md#{}", name.to_lowercase()));
        assert!(docs.contains(&alert["expr"]), "docs/alerts.md has another expression for {name}");
        assert!(read(RULE_TESTS).contains(&format!("  - name: {name}\n")), "{RULE_TESTS}: {name}");
    }
    let headings = docs.lines().filter_map(|l| l.strip_prefix("## "));
    assert!(headings.clone().all(|h| alerts.contains_key(h)), "{:?}", headings.collect::<Vec<_>>());
}

/// Names, types and help of everything that a server shows, as Prometheus' own checker wants them.
#[test]
fn promtool_finds_nothing_wrong_with_a_live_scrape() {
    let dir = scratch();
    let config = "[listener.l]\naddress = \"tcp://127.0.0.1:0\"\nreply = \"count\"\n[listener.h]\naddress = \"tcp://127.0.0.1:0\"\nprotocol = \"http\"\n";
    let server = Server::with_config(dir.path(), config);
    send_all(server.address("l"), b"a line\n");
    let request = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\na\n";
    let mut client = std::net::TcpStream::connect(server.address("h")).unwrap();
    std::io::Write::write_all(&mut client, request).unwrap();
    std::io::Read::read_to_end(&mut client, &mut Vec::new()).unwrap(); // an answer, which is counted
    let text = server.get("/metrics").1;
    assert!(text.contains("logweir_build_info{") && text.contains("process_resident_memory_bytes"), "{text}");
    for line in text.lines().filter(|line| line.starts_with("# HELP ")) {
        let help = line.splitn(4, ' ').nth(3).unwrap_or("");
        assert!(help.split_whitespace().count() >= 3 && !help.contains("heir bytes"), "means nothing alone: {line}");
    }
    let Some(promtool) = find("promtool") else {
        return skipped("promtool_finds_nothing_wrong_with_a_live_scrape", "no promtool");
    };
    let said = run(Command::new(promtool).args(["check", "metrics"]), text.as_bytes());
    assert!(said.is_empty(), "{said}\n{text}");
}

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap()
}

/// Every expression of the dashboard.
fn expressions() -> Vec<String> {
    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|p| p["targets"].as_array().cloned().unwrap_or_default());
    targets.map(|t| t["expr"].as_str().unwrap().to_string()).collect()
}

#[test]
fn the_dashboard_can_be_imported() {
    let dashboard = dashboard();
    assert!(dashboard["schemaVersion"].as_u64().unwrap() >= 36);
    assert_eq!(dashboard["title"], "logweir");
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let kind = |name: &str| variables.iter().find(|v| v["name"] == name).unwrap()["type"].as_str().unwrap().to_string();
    assert_eq!((kind("DS_PROMETHEUS"), kind("instance")), ("datasource".into(), "query".into()));
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "ids are unique");
    let mut cells = BTreeSet::new();
    for panel in panels {
        let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(place("x") + place("w") <= 24, "{}", panel["title"]);
        for y in place("y")..place("y") + place("h") {
            for x in place("x")..place("x") + place("w") {
                assert!(cells.insert((x, y)), "{} lies over another panel", panel["title"]);
            }
        }
        if panel["type"] != "row" {
            assert_eq!(panel["datasource"]["uid"], "${DS_PROMETHEUS}", "{}", panel["title"]);
            assert!(!panel["targets"].as_array().unwrap().is_empty(), "{}", panel["title"]);
        }
    }
    assert!(expressions().len() > 30);
}

#[test]
fn every_expression_of_the_dashboard_is_understood() {
    let Some(promtool) = find("promtool") else {
        return skipped("every_expression_of_the_dashboard_is_understood", "no promtool");
    };
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_string();
    for (i, expression) in expressions().iter().enumerate() {
        let expression = expression.replace("$__rate_interval", "5m").replace("$instance", ".*").replace('\'', "''");
        rules += &format!("      - record: dashboard:{i}\n        expr: '{expression}'\n");
    }
    let file = scratch();
    let file = file.path().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    run(Command::new(promtool).args(["check", "rules"]).arg(&file), b"");
}

/// The metrics that a text names. One that ends in `_` is the beginning of several.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|w| w.starts_with("logweir_")).map(str::to_string).collect()
}

#[test]
fn every_metric_that_is_named_is_there() {
    let dir = scratch();
    let server = Server::start(&dir.path().join("data"), &[]);
    send_all(server.address("lines"), b"a line\n");
    let scrape = server.get("/metrics").1;
    let mut there: BTreeSet<String> = scrape
        .lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.split(['{', ' ']).next())
        .map(str::to_string)
        .collect();
    assert!(there.contains("logweir_sync_seconds_bucket"));
    // Some are there only once something happened: those that are described.
    there.extend(["src/watch/render.rs", "src/watch/shipping.rs"].into_iter().flat_map(|file| named(&read(file))));
    let users = [
        RULES,
        RULE_TESTS,
        DASHBOARD,
        "src/watch/admin/script/scrape.js",
        "src/watch/admin/script/plots.js",
        "src/watch/admin/script/tables.js",
        "src/watch/admin/script/poll.js",
        "src/watch/scrape/view.rs",
        "src/watch/doctor/usage/server.rs",
        "src/watch/doctor/usage/mod.rs",
        "src/watch/top/mod.rs",
        "docs/alerts.md",
    ];
    for user in users {
        let names = named(&read(user));
        assert!(!names.is_empty(), "{user} names no metric");
        for name in names {
            let parts = ["_bucket", "_sum", "_count"];
            let whole = parts.iter().find_map(|p| name.strip_suffix(p)).unwrap_or(&name);
            let known = if name.ends_with('_') {
                there.iter().any(|t| t.starts_with(&name))
            } else {
                there.contains(&name) || there.contains(whole) || there.contains(&format!("{whole}_bucket"))
            };
            assert!(known, "{user} names {name}, which no server has");
        }
    }
}
