//! Which stream a message goes to, by what it says of itself: rules from the configuration, and never a name made from content.

use super::message::{self, FACILITIES, SEVERITIES};
use crate::session::routes::{Route, Routes};
use crate::settings::ConfigError;
use crate::settings::section::Section;
use std::collections::BTreeMap;
use std::fmt;

/// Bytes of a message that are looked at: the longest header of RFC 5424 with all its fields at their limits (section 6) has 500.
pub const LOOKED_AT: usize = 512;

/// `listener.NAME.route`: `{ "app=nginx*" = "web" }`.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct RouteTable(BTreeMap<String, String>);

impl fmt::Display for RouteTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |text: &str| toml::Value::String(text.into()).to_string();
        let pairs: Vec<String> =
            self.0.iter().map(|(rule, stream)| format!("{} = {}", text(rule), text(stream))).collect();
        write!(f, "{{ {} }}", pairs.join(", "))
    }
}

/// What a rule looks at. The order is that in which rules are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Attribute {
    App,
    Host,
    Facility,
    Severity,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    attribute: Attribute,
    name: Vec<u8>,
    is_prefix: bool,
    to: Route,
}

impl Rule {
    fn fits(&self, value: &[u8]) -> bool {
        if self.is_prefix { value.starts_with(&self.name) } else { value == self.name }
    }
}

/// The rules of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Reads them. The listener may write to each stream that they name.
    ///
    /// # Errors
    /// A rule is malformed, or names a stream that is not in `streams`.
    pub fn read(section: &Section<'_>, table: Option<&RouteTable>, routes: &Routes) -> Result<Rules, ConfigError> {
        section.shown("route", table.map(ToString::to_string));
        let rule = |(text, stream): (&String, &String)| {
            let error = |message: String| Err(section.error("route", message));
            let Some((attribute, name)) = text.split_once('=') else {
                return error(format!(
                    "`{text}` is no rule; expected \"app=NAME\", \"host=NAME\", \"facility=NAME\" or \"severity=NAME\""
                ));
            };
            let (name, is_prefix) = name.strip_suffix('*').map_or((name, false), |name| (name, true));
            let one_of = |names: &[&str]| match names.contains(&name) && !is_prefix {
                true => Ok(()),
                false => error(format!("`{text}`: expected one of {}", names.join(", "))).map(drop),
            };
            let attribute = match attribute {
                "app" => Attribute::App,
                "host" => Attribute::Host,
                "facility" => one_of(&FACILITIES).map(|()| Attribute::Facility)?,
                "severity" => one_of(&SEVERITIES).map(|()| Attribute::Severity)?,
                other => return error(format!("a message has no `{other}`; expected app, host, facility or severity")),
            };
            match routes.find(stream.as_bytes()) {
                _ if name.is_empty() => error(format!("`{text}` names nothing")),
                Some(to) => Ok(Rule { attribute, name: name.into(), is_prefix, to: to.clone() }),
                None => error(format!("`{stream}` is not among the `streams` of this listener")),
            }
        };
        let mut rules = table.iter().flat_map(|table| &table.0).map(rule).collect::<Result<Vec<Rule>, _>>()?;
        // What is more exact comes first.
        rules.sort_by_key(|rule| (rule.attribute, rule.is_prefix, std::cmp::Reverse(rule.name.len())));
        Ok(Rules(rules))
    }

    /// True where all messages go to the listener's own stream.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a message with this beginning goes; `None`: to the listener's own stream.
    #[must_use]
    pub fn find(&self, beginning: &[u8]) -> Option<&Route> {
        let message = message::origin(beginning);
        let value = |attribute| match attribute {
            Attribute::App => message.app,
            Attribute::Host => message.host,
            Attribute::Facility => message.facility().unwrap_or_default().as_bytes(),
            Attribute::Severity => message.severity().unwrap_or_default().as_bytes(),
        };
        self.0.iter().find(|rule| rule.fits(value(rule.attribute))).map(|rule| &rule.to)
    }
}

#[cfg(test)]
impl Rules {
    /// One rule, for an app.
    pub fn of_app(app: &str, to: Route) -> Rules {
        Rules(vec![Rule { attribute: Attribute::App, name: app.into(), is_prefix: false, to }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::write::Format;

    #[test]
    fn the_most_exact_rule_wins() {
        let rule = |attribute, name: &str, stream: &str| {
            let (name, is_prefix) = name.strip_suffix('*').map_or((name, false), |name| (name, true));
            let to = Route { name: stream.into(), index: 1, format: Format::Raw };
            Rule { attribute, name: name.into(), is_prefix, to }
        };
        let mut rules = vec![
            rule(Attribute::Severity, "err", "errors"),
            rule(Attribute::Facility, "auth", "auth"),
            rule(Attribute::Host, "db-*", "db"),
            rule(Attribute::App, "post*", "mail"),
            rule(Attribute::App, "postgres*", "sql"),
            rule(Attribute::App, "postgres", "pg"),
        ];
        rules.sort_by_key(|rule| (rule.attribute, rule.is_prefix, std::cmp::Reverse(rule.name.len())));
        let rules = Rules(rules);
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
            let found = rules.find(message).map_or("", |route| route.name.as_str());
            assert_eq!(found, expected, "{}", message.escape_ascii());
        }
    }
}
