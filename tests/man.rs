//! The manual pages: complete, and nothing in them that a formatter warns of.

mod common;

use common::{logweir, scratch, skipped};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn pages(dir: &Path) -> Vec<String> {
    let output = logweir(&["man", dir.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

/// The commands that `--help` lists, and those beneath them.
fn commands(of: &[&str], found: &mut BTreeSet<String>) {
    let help = String::from_utf8(logweir(&[of, &["--help"]].concat()).stdout).unwrap();
    let Some((_, listed)) = help.split_once("Commands:\n") else { return };
    for line in listed.lines().take_while(|l| !l.is_empty()) {
        let is_name = line.starts_with("  ") && !line.starts_with("   ");
        let name = line.split_whitespace().next().filter(|name| is_name && *name != "help");
        if let Some(name) = name {
            let of = [of, &[name]].concat();
            found.insert(format!("logweir-{}.1", of.join("-")));
            commands(&of, found);
        }
    }
}

#[test]
fn every_command_has_its_page() {
    let dir = scratch();
    let mut expected = BTreeSet::from(["logweir.1".to_string(), "logweir.toml.5".to_string()]);
    commands(&[], &mut expected);
    assert!(expected.len() > 12, "{expected:?}");
    assert_eq!(pages(dir.path()).into_iter().collect::<BTreeSet<_>>(), expected);
    let root = std::fs::read_to_string(dir.path().join("logweir.1")).unwrap();
    for section in ["EXIT STATUS", "SIGNALS", "ENVIRONMENT", "FILES", "SEE ALSO"] {
        assert!(root.contains(&format!(".SH \"{section}\"")), "{section}");
    }
}

#[test]
fn every_key_is_in_the_page_of_the_configuration() {
    let dir = scratch();
    pages(dir.path());
    let page = std::fs::read_to_string(dir.path().join("logweir.toml.5")).unwrap();
    let documented =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/logweir.toml")).unwrap();
    let mut keys = 0;
    for line in documented.lines() {
        let line = line.trim_start_matches('#').trim_start_matches(' ');
        if line.starts_with('[') {
            assert!(page.contains(&format!(".SS {}", line.replace('-', "\\-"))), "{line}");
        } else if let Some((key, value)) = line.split_once(" = ")
            && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        {
            let value = value.replace('-', "\\-");
            assert!(page.contains(&format!("\\fB{key}\\fR = {value}")), "{line}");
            keys += 1;
        }
    }
    assert!(keys > 70, "{keys}");
}

#[test]
fn no_formatter_warns() {
    let dir = scratch();
    for name in pages(dir.path()) {
        let Ok(output) = Command::new("groff").args(["-man", "-ww", "-Tutf8"]).arg(dir.path().join(&name)).output()
        else {
            return skipped("no_formatter_warns", "no groff");
        };
        assert!(output.status.success(), "{name}");
        assert!(output.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.len() > 400, "{name}: {} bytes", output.stdout.len());
    }
}
