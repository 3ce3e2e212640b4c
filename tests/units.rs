//! The systemd units, without a service manager: `.ci/systemd` starts them under one.

mod common;

use common::skipped;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SERVICES: [&str; 3] = ["logweir.service", "logweir@.service", "logweir-sidecar.service"];

/// What goes with the server where something is shipped.
const SHIPPER: &str = "logweir-ship.service";

fn unit(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(unit(name)).unwrap()
}

fn analyze(args: &[&str], file: &Path) -> Option<Output> {
    Command::new("systemd-analyze").args(args).arg(file).output().ok()
}

/// The settings, without comments.
fn settings(text: &str) -> Vec<&str> {
    text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()).collect()
}

#[test]
fn an_instance_is_the_service_but_for_its_names() {
    let named = text("logweir@.service")
        .replace("logweir (%i):", "logweir:")
        .replace("/etc/logweir/%i.toml", "/etc/logweir/logweir.toml")
        .replace("Directory=logweir/%i\n", "Directory=logweir\n");
    assert_eq!(settings(&named), settings(&text("logweir.service")));
}

#[test]
fn services_are_exposed_to_little() {
    for name in SERVICES.into_iter().chain([SHIPPER]) {
        // In tenths: 1.5.
        let Some(output) = analyze(&["security", "--no-pager", "--offline=yes", "--threshold=15"], &unit(name)) else {
            return skipped("services_are_exposed_to_little", "no systemd-analyze");
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let verdict = said.lines().last().unwrap_or_default();
        assert!(said.contains("Overall exposure level"), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{name}: {verdict}");
    }
}

#[test]
fn units_are_well_formed() {
    let dir = common::scratch();
    for name in SERVICES.into_iter().chain(["logweir.socket", SHIPPER]) {
        // The program is where the tests have built it, and the pages are not installed.
        for name in ["logweir.service", name] {
            let there = text(name).replace("/usr/bin/logweir-ship", common::BINARY);
            let there = there.replace("/usr/bin/logweir", common::BINARY);
            let there: String =
                there.lines().filter(|l| !l.starts_with("Documentation=")).map(|l| format!("{l}\n")).collect();
            std::fs::write(dir.path().join(name), there).unwrap();
        }
        let Some(output) = analyze(&["verify", "--recursive-errors=no"], &dir.path().join(name)) else {
            return skipped("units_are_well_formed", "no systemd-analyze");
        };
        let said = String::from_utf8_lossy(&output.stderr);
        let file = name.trim_end_matches(".service").trim_end_matches('@');
        // Before 253: see `Type=` in the units.
        let wrong: Vec<&str> =
            said.lines().filter(|l| l.contains(file) && !l.contains("ignoring: notify-reload")).collect();
        assert!(wrong.is_empty(), "{name}: {}", wrong.join("\n"));
    }
}

/// The calls of a filter, sets and all.
fn calls_of(unit: &str, sets: &str) -> std::collections::HashSet<String> {
    let mut todo: Vec<String> = unit
        .lines()
        .filter_map(|l| l.strip_prefix("SystemCallFilter="))
        .flat_map(|l| l.split_whitespace().map(str::to_string))
        .collect();
    let mut calls = std::collections::HashSet::new();
    while let Some(name) = todo.pop() {
        if calls.insert(name.clone()) && name.starts_with('@') {
            let of = sets.lines().skip_while(|l| l.trim_end() != name).skip(1).take_while(|l| l.starts_with(' '));
            todo.extend(of.map(str::trim).filter(|l| !l.starts_with('#')).map(str::to_string));
        }
    }
    calls
}

/// What the server allows itself must not have been taken away before: `flock` was, and nothing started.
#[test]
fn the_manager_leaves_the_calls_that_the_server_leaves_itself() {
    let test = "the_manager_leaves_the_calls_that_the_server_leaves_itself";
    let Ok(output) = Command::new("systemd-analyze").args(["syscall-filter", "--no-pager"]).output() else {
        return skipped(test, "no systemd-analyze");
    };
    let sets = String::from_utf8(output.stdout).unwrap();
    let source = include_str!("../src/server/sandbox/calls.rs").split("#[cfg(test)]").next().unwrap();
    let needed: Vec<&str> = source
        .split("libc::SYS_")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap())
        .collect();
    assert!(needed.len() > 100, "{}", needed.len());
    for name in SERVICES {
        let allowed = calls_of(&text(name), &sets);
        let missing: Vec<_> = needed.iter().filter(|call| !allowed.contains(**call)).collect();
        assert!(missing.is_empty(), "{name}: {missing:?}");
    }
}
