//! Tells the program which commit it is built from, and for what: `logweir --version`, `logweir_build_info`.
//!
//! `LOGWEIR_COMMIT` in the environment comes first, for packages that are built without git. Builds that are not optimised say "dev":
//! otherwise each commit would compile everything again.

use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string()).filter(|text| !text.is_empty())
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LOGWEIR_COMMIT");
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let is_release = variable("PROFILE").is_some_and(|profile| profile == "release");
    let commit = variable("LOGWEIR_COMMIT").or_else(|| is_release.then(commit)).unwrap_or_else(|| "dev".into());
    println!("cargo:rustc-env=LOGWEIR_COMMIT={commit}");
    println!("cargo:rustc-env=LOGWEIR_TARGET={}", variable("TARGET").unwrap_or_default());
}

fn commit() -> String {
    // Of this project: sources unpacked inside of another one's repository have no commit of their own.
    let top = git(&["rev-parse", "--show-toplevel"]);
    if top.map(std::path::PathBuf::from) != std::env::var_os("CARGO_MANIFEST_DIR").map(Into::into) {
        return "unknown".into();
    }
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else { return "unknown".into() };
    // HEAD moves with each commit: the log of a repository that has one, and the file itself.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file]);
        path.iter().for_each(|path| println!("cargo:rerun-if-changed={path}"));
    }
    commit
}
