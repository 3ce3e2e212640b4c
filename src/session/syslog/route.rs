//! Which stream a message goes to, by what it says of itself.

use super::message::{self, FACILITIES, SEVERITIES};
use crate::session::routes::{Attribute, Route, Rules};

/// Bytes of a message that are looked at: the longest header of RFC 5424 with all its fields at their limits (section 6) has 500.
pub const LOOKED_AT: usize = 512;

/// What rules may look at, in the order in which they are asked.
pub const ATTRIBUTES: &[Attribute] = &[
    Attribute { name: "app", values: &[] },
    Attribute { name: "host", values: &[] },
    Attribute { name: "facility", values: &FACILITIES },
    Attribute { name: "severity", values: &SEVERITIES },
];

/// Where a message with this beginning goes; `None`: to the listener's own stream.
#[must_use]
pub fn find<'r>(rules: &'r Rules, beginning: &[u8]) -> Option<&'r Route> {
    let message = message::origin(beginning);
    rules.find(|attribute| match attribute {
        0 => message.app,
        1 => message.host,
        2 => message.facility().unwrap_or_default().as_bytes(),
        _ => message.severity().unwrap_or_default().as_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::write::Format;

    #[test]
    fn the_most_exact_rule_wins() {
        let rule = |attribute: &str, name: &str, stream: &str| {
            let to = Route { name: stream.into(), index: 1, format: Format::Raw };
            (ATTRIBUTES.iter().position(|known| known.name == attribute).unwrap(), name.to_string(), to)
        };
        let rules = Rules::of([
            rule("severity", "err", "errors"),
            rule("facility", "auth", "auth"),
            rule("host", "db-*", "db"),
            rule("app", "post*", "mail"),
            rule("app", "postgres*", "sql"),
            rule("app", "postgres", "pg"),
        ]);
        for (message, expected) in [
            (&b"<13>Nov 27 10:00:00 db-1 postgres: x"[..], "pg"),
            (b"<13>Nov 27 10:00:00 db-1 postgres-14[3]: x", "sql"),
            (b"<13>Nov 27 10:00:00 db-1 postfix/smtpd[3]: x", "mail"),
            (b"<13>1 - db-1 x - - [half of some struc", "db"),
            (b"<35>Nov 27 10:00:00 h sshd: x", "auth"),
            (b"<11>Nov 27 10:00:00 h sshd: x", "errors"),
            (b"<13>Nov 27 10:00:00 h sshd: postgres", ""),
            (b"postgres", ""),
        ] {
            let found = find(&rules, message).map_or("", |route| route.name.as_str());
            assert_eq!(found, expected, "{}", message.escape_ascii());
        }
    }
}
