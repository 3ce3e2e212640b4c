//! Style as a test: the direction of the layers, where `unsafe` may be, how long files may grow, what must not be called.

use std::collections::{BTreeMap, BTreeSet};
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

/// The floors of the house, from the ground up: each uses only those beneath it. So a line goes forward only, files know no network,
/// protocols know no sockets, and reactors know no protocol. `session` is the seam between the last two.
const FLOORS: [&str; 12] = [
    "host", "metrics", "settings", "log", "pipeline", "session", "intake", "protocol", "config", "bench", "watch",
    "server",
];

/// On their floors, rooms that know nothing of each other.
const APART: [(&str, &[&str]); 6] = [
    ("host/topology", &["host::sys"]),
    ("pipeline/chunk", &["pipeline::ring", "pipeline::shard", "pipeline::writer"]),
    ("pipeline/ring", &["pipeline::shard", "pipeline::writer"]),
    ("intake/net", &["intake::reactor", "intake::transport", "session"]),
    ("intake/transport", &["intake::net", "intake::reactor", "session"]),
    ("intake/reactor", &["log", "pipeline::writer", "metrics::render"]),
];

/// What a path inside `src` is called.
fn inside(path: &Path) -> String {
    let inside = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    inside.to_str().unwrap().to_string()
}

/// The folders of the protocols, which know nothing of each other.
fn protocols() -> Vec<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/protocol");
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let names: Vec<String> =
        entries.filter(|e| e.path().is_dir()).map(|e| e.file_name().into_string().unwrap()).collect();
    assert!(names.len() > 1, "{names:?}");
    names
}

/// The modules that a line of code names, from the crate's root.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("crate::").map(|(at, prefix)| &line[at + prefix.len()..])
}

fn begins_with(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

#[test]
fn floors_use_only_those_beneath_them() {
    let mut wrong = Vec::new();
    let protocols = protocols();
    for (path, text) in sources("src") {
        let inside = inside(&path);
        let floor = inside.split('/').next().unwrap();
        // The command line and the root may use everything.
        let Some(height) = FLOORS.iter().position(|f| *f == floor) else {
            assert!(matches!(floor, "cli" | "lib.rs" | "main.rs"), "{inside} stands loose: which floor is it on?");
            continue;
        };
        let apart = APART.iter().filter(|(room, _)| inside.starts_with(room)).flat_map(|(_, others)| *others);
        let apart: Vec<&&str> = apart.collect();
        for (line, text) in code(&text) {
            for path in named(text) {
                let above = FLOORS[height + 1..].iter().chain(["cli"].iter()).find(|f| begins_with(path, f));
                let protocol = path.strip_prefix("protocol::").filter(|_| floor == "protocol");
                let another = protocols.iter().find(|name| {
                    protocol.is_some_and(|path| begins_with(path, name)) && inside.split('/').nth(1) != Some(name)
                });
                wrong.extend(
                    another.filter(|_| inside != "protocol/mod.rs").map(|name| format!("{inside}:{line} uses {name}")),
                );
                let other = above.copied().or(apart.iter().find(|other| begins_with(path, other)).map(|o| **o));
                wrong.extend(other.map(|other| format!("{inside}:{line} uses {other}")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The files that a file uses: by `crate::`, `super::`, or a module of its own that it imports from.
fn uses(file: &str, text: &str, all: &BTreeSet<String>) -> BTreeSet<String> {
    let module = |file: &str| -> Vec<String> {
        let bare = file.trim_end_matches(".rs").trim_end_matches("/mod");
        bare.split('/').map(String::from).collect()
    };
    let own = module(file);
    let mut found = BTreeSet::new();
    let text: String = code(text).map(|(_, line)| line.trim()).collect::<Vec<_>>().join(" ");
    for statement in text.split("use ").skip(1).filter_map(|rest| rest.split(';').next()) {
        let (head, list) = statement.split_once('{').map_or((statement, ""), |(h, l)| (h, l));
        let mut parts: Vec<String> = head.split("::").map(|p| p.trim().to_string()).filter(|p| !p.is_empty()).collect();
        let mut base = match parts.first().map(String::as_str) {
            Some("crate") => Vec::new(),
            Some("super") => own[..own.len() - 1].to_vec(),
            Some(first) => {
                let child = [own.clone(), vec![first.to_string()]].concat().join("/");
                let is_child = [format!("{child}.rs"), format!("{child}/mod.rs")].iter().any(|f| all.contains(f));
                if !is_child {
                    continue;
                }
                parts.insert(0, "self".into());
                own.clone()
            }
            None => continue,
        };
        parts.remove(0);
        while parts.first().is_some_and(|p| p == "super") {
            base.pop();
            parts.remove(0);
        }
        // As long as a file has that name; of a list each name may be one.
        let names = list.trim_end_matches('}').split(',').map(|n| n.split("::").next().unwrap().trim().to_string());
        for last in names.chain([String::new()]) {
            let mut path = [base.clone(), parts.clone(), if last.is_empty() { vec![] } else { vec![last] }].concat();
            while !path.is_empty() {
                let joined = path.join("/");
                if let Some(file) =
                    [format!("{joined}.rs"), format!("{joined}/mod.rs")].iter().find(|f| all.contains(*f))
                {
                    found.insert(file.clone());
                    break;
                }
                path.pop();
            }
        }
    }
    found.remove(file);
    found
}

/// More files than this, each of which needs all the others, are one file that is too long.
const LARGEST_CIRCLE: usize = 5;

#[test]
fn no_file_is_in_a_circle_with_many_others() {
    let sources: Vec<(String, String)> = sources("src").into_iter().map(|(path, text)| (inside(&path), text)).collect();
    let is_test = |file: &str| file.contains("tests");
    let all: BTreeSet<String> = sources.iter().map(|(file, _)| file.clone()).filter(|f| !is_test(f)).collect();
    let uses: BTreeMap<&str, BTreeSet<String>> =
        sources.iter().filter(|(f, _)| !is_test(f)).map(|(f, text)| (f.as_str(), uses(f, text, &all))).collect();
    assert!(uses.values().map(BTreeSet::len).sum::<usize>() > 2 * uses.len(), "imports are found");
    let reach = |from: &str| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            for next in &uses[file] {
                if seen.insert(next.as_str()) {
                    open.push(next);
                }
            }
        }
        seen
    };
    let reach: BTreeMap<&str, BTreeSet<&str>> = uses.keys().map(|f| (*f, reach(f))).collect();
    for (file, there) in &reach {
        let circle: Vec<&&str> = there.iter().filter(|other| reach[**other].contains(file)).collect();
        assert!(circle.len() <= LARGEST_CIRCLE, "{file} is in a circle: {circle:?}");
    }
}

/// A struct with more fields has more than one thing to do.
const MOST_FIELDS: usize = 24;

#[test]
fn structs_have_few_fields() {
    let mut found = 0;
    for (path, text) in sources("src") {
        let lines: Vec<&str> = code(&text).map(|(_, line)| line).collect();
        for (i, line) in lines.iter().enumerate() {
            let declares = line.trim_start_matches("pub ").trim_start_matches("pub(super) ").starts_with("struct ");
            if !declares || !line.ends_with('{') {
                continue;
            }
            let body = lines[i + 1..].iter().take_while(|l| !l.starts_with('}'));
            let is_field = |l: &&&str| {
                let l = l.strip_prefix("    ").unwrap_or("x");
                let name = l.trim_start_matches("pub ").trim_start_matches("pub(super) ").split(':').next().unwrap();
                l.contains(':') && name.chars().all(|c| c.is_alphanumeric() || c == '_')
            };
            let fields = body.filter(is_field).count();
            found += usize::from(fields > 1);
            assert!(fields <= MOST_FIELDS, "{}: {line} has {fields} fields", path.display());
        }
    }
    assert!(found > 50, "only {found} structs");
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
    let may = ["clock.rs", "src/bench", "src/server", "src/watch", "src/cli"];
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

/// The documents link to what there is.
#[test]
fn documents_link_to_what_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut links = 0;
    for dir in [root.to_path_buf(), root.join("docs"), root.join("fuzz")] {
        let files = std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|file| file.extension().is_some_and(|e| e == "md")) {
            let text = std::fs::read_to_string(&file).unwrap();
            let targets = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
            for target in targets.filter(|target| !target.is_empty() && !target.contains("://")) {
                assert!(dir.join(target).exists(), "{}: {target} is not there", file.display());
                links += 1;
            }
        }
    }
    assert!(links > 30, "only {links} links");
}

/// The list of planted bugs names those that stand in the code: a run of CI tries a share of them only.
#[test]
fn each_listed_bug_is_planted_and_each_planted_one_listed() {
    let all = sources("src");
    let (mut listed, mut planted) = (BTreeSet::new(), BTreeSet::new());
    for (path, text) in &all {
        if path.ends_with("host/mutants.rs") {
            let names = text.split("NAMES: &[&str] = &[").nth(1).unwrap().split("];").next().unwrap();
            listed.extend(names.split('"').skip(1).step_by(2));
        } else {
            planted.extend(text.split("mutant!(\"").skip(1).filter_map(|rest| rest.split('"').next()));
        }
    }
    assert!(listed.len() > 40, "only {} names", listed.len());
    assert_eq!(listed, planted);
    // Who found it: a run shows it to that test first.
    let found = std::fs::read_to_string("docs/reliability.md").unwrap();
    let without: Vec<_> = listed.iter().filter(|name| !found.contains(&format!("\n| {name} | "))).collect();
    assert!(without.is_empty(), "no row in docs/reliability.md: {without:?}");
}
