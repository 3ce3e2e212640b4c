//! Style as a test: the direction of the layers, where `unsafe` may be, how long files may grow, what must not be called.

use std::path::{Path, PathBuf};

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut found);
    assert!(found.len() > 5, "only {} sources in {dir}", found.len());
    found
}

/// The code of a file without its tests and comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
    let lines = text[..tests].lines().enumerate();
    lines.map(|(i, l)| (i + 1, l.split("//").next().unwrap_or(""))).filter(|(_, l)| !l.trim().is_empty())
}

/// Which modules a module must not use: a line goes forward only, files know no network, protocols know no sockets.
const FORBIDDEN: [(&str, &[&str]); 12] = [
    ("sys", &["net", "session", "chunk", "ring", "writer", "log", "reactor", "server", "config", "shard", "metrics"]),
    ("chunk", &["net", "session", "ring", "writer", "log", "reactor", "server", "config", "shard"]),
    ("ring", &["net", "session", "writer", "log", "reactor", "server", "config", "shard"]),
    ("log", &["net", "session", "chunk", "ring", "writer", "reactor", "server", "config", "shard"]),
    ("net", &["session", "ring", "writer", "log", "reactor", "server", "config", "shard", "metrics"]),
    ("transport", &["net", "chunk", "ring", "writer", "log", "reactor", "server", "config", "shard"]),
    ("session", &["chunk", "ring", "writer", "log", "reactor", "server", "config", "shard"]),
    ("writer", &["net", "session", "transport", "reactor", "server", "config"]),
    ("reactor", &["log", "writer", "server"]),
    ("keeper", &["net", "session", "chunk", "ring", "writer", "reactor", "server", "config", "shard"]),
    ("spread", &["net", "session", "writer", "log", "reactor", "server", "config"]),
    ("topology", &["sys", "net", "session", "chunk", "ring", "writer", "log", "reactor", "server", "config", "shard"]),
];

#[test]
fn modules_use_only_what_is_beneath_them() {
    let mut wrong = Vec::new();
    for (path, text) in sources("src") {
        let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs");
        let Some((_, forbidden)) = FORBIDDEN.iter().find(|(m, _)| *m == module) else { continue };
        for (line, text) in code(&text) {
            for other in *forbidden {
                if text.contains(&format!("crate::{other}::")) || text.contains(&format!("crate::{other};")) {
                    wrong.push(format!("{}:{line}: {module} uses {other}", inside.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_is_in_sys_only() {
    for (path, text) in sources("src") {
        if path.components().any(|c| c.as_os_str() == "sys") {
            continue;
        }
        for (line, text) in code(&text) {
            let uses = text.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe");
            assert!(!uses, "{}:{line}: unsafe outside sys", path.display());
        }
    }
}

#[test]
fn every_unsafe_block_has_its_reason() {
    for (path, text) in sources("src").into_iter().filter(|(p, _)| p.components().any(|c| c.as_os_str() == "sys")) {
        let lines: Vec<&str> = text.lines().collect();
        for (i, line) in lines.iter().enumerate().filter(|(_, l)| l.contains("unsafe {")) {
            let above = lines[i.saturating_sub(5)..i].iter().any(|l| l.contains("SAFETY:"));
            assert!(above, "{}:{}: {line}", path.display(), i + 1);
        }
    }
}

/// A file that grows past this has more than one purpose.
const LONGEST_FILE: usize = 560;
/// And a line past this does not fit.
const LONGEST_LINE: usize = 160;

#[test]
fn files_and_lines_stay_short() {
    for (path, text) in sources("src").into_iter().chain(sources("tests")) {
        let lines = text.lines().count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines", path.display());
        for (i, line) in text.lines().enumerate() {
            let is_text = line.contains('"') || line.trim_start().starts_with("//");
            assert!(is_text || line.chars().count() <= LONGEST_LINE, "{}:{}", path.display(), i + 1);
        }
    }
}

#[test]
fn nothing_is_called_that_must_not_be() {
    let banned = [
        ("thread::sleep", "await what you wait for"),
        ("unimplemented!", "build it"),
        ("todo!", "build it"),
        ("dbg!", "use tracing"),
        ("println!", "it panics where nobody reads: use say! or complain!"),
        ("print!", "it panics where nobody reads: use output::write"),
        ("Instant::now()", "time is read through Clock"),
        ("SystemTime::now()", "time is read through Clock"),
    ];
    let may = ["clock.rs", "bench", "server", "admin", "doctor", "watch", "src/top/", "src/cli/"];
    for (path, text) in sources("src") {
        for (line, text) in code(&text) {
            for (call, instead) in banned {
                let allowed = call.contains("now()") && may.iter().any(|m| path.to_str().unwrap().contains(m));
                assert!(allowed || !text.contains(call), "{}:{line}: {call}: {instead}", path.display());
            }
        }
    }
}

#[test]
fn what_a_client_or_a_disk_can_reach_does_not_unwrap() {
    for (path, text) in sources("src") {
        if path.file_name().is_some_and(|n| n.to_str().unwrap().ends_with("tests.rs")) {
            continue;
        }
        for (line, text) in code(&text) {
            assert!(!text.contains(".unwrap()"), "{}:{line}: say what happens instead", path.display());
        }
    }
}
