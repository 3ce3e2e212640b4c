//! Prints the checks, for people and for machines.

use super::usage::Row;
use super::{Check, Status, probe::Probe};
use crate::watch::scrape::printable;
use serde::Serialize;
use std::fmt::Write;

/// All results. The field names are those of `--json` and must not change.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The worst status of all checks. Unknown ones do not count.
    pub status: Status,
    /// The checks.
    pub checks: Vec<Check>,
    /// `--probe`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// `--use`
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<Vec<Row>>,
}

/// Puts the results together.
#[must_use]
pub fn report(checks: Vec<Check>, probe: Option<Probe>, usage: Option<Vec<Row>>) -> Report {
    let gravest = checks.iter().map(|c| c.status).filter(|s| *s != Status::Unknown).max();
    Report { status: gravest.unwrap_or(Status::Ok), checks, probe, usage }
}

/// Columns of a terminal that lines are broken for.
const WIDTH: usize = 100;

impl Status {
    fn word(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Unknown => "unknown",
            Status::Advice => "advice",
            Status::Problem => "PROBLEM",
        }
    }
}

impl Report {
    /// For people: control characters are escaped.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for check in &self.checks {
            check_text(&mut out, check);
        }
        let count = |status| self.checks.iter().filter(|c| c.status == status).count();
        let _ = writeln!(
            out,
            "\n{} problem(s), {} advice, {} unknown, {} ok",
            count(Status::Problem),
            count(Status::Advice),
            count(Status::Unknown),
            count(Status::Ok)
        );
        if let Some(probe) = &self.probe {
            out += &probe.text();
        }
        if let Some(rows) = &self.usage {
            out += &super::usage::text(rows);
        }
        out
    }
}

// Writing to a String cannot fail.
fn check_text(out: &mut String, check: &Check) {
    let _ = writeln!(out, "{:<8} {:<26} {}", check.status.word(), check.check, printable(&check.present));
    if check.status <= Status::Unknown {
        return;
    }
    let mut field = |name: &str, text: &str| {
        for (i, line) in wrapped(&printable(text), WIDTH - 22).iter().enumerate() {
            let _ = writeln!(out, "         {:<12} {line}", if i == 0 { name } else { "" });
        }
    };
    field("recommended", &check.recommended);
    field("why", &check.why);
    if let Some(command) = &check.command {
        // Not broken: it is to be copied.
        let _ = writeln!(out, "         {:<12} {}", "change", printable(command));
    }
}

/// Breaks text at blanks.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(last) = lines.last_mut() else { break };
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_string());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_does_not_reach_the_terminal_raw() {
        let check =
            Check::new("x", Status::Problem, "a\u{1b}]0;title\u{7}", "b\u{1b}[2J").because("c\rd").change("e\u{9b}f");
        let text = report(vec![check], None, None).text();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }

    #[test]
    fn unknown_is_no_reason_to_fail() {
        let unknown = Check::unknown("x", "y", "z");
        assert_eq!(report(vec![unknown.clone()], None, None).status, Status::Ok);
        let advice = Check::new("x", Status::Advice, "", "");
        assert_eq!(report(vec![advice, unknown], None, None).status, Status::Advice);
    }
}
