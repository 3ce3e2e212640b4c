//! The streams to which the records of a listener may go: an allow-list from the configuration, and rules that choose among them by
//! what a record says of itself. A name is never made from content.

use super::write::Format;
use crate::settings::ConfigError;
use crate::settings::section::Section;
use std::collections::BTreeMap;
use std::fmt;

/// A stream that a listener may write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Its name.
    pub name: String,
    /// Its index in the configuration.
    pub index: u16,
    /// How this listener's records are written to it.
    pub format: Format,
}

/// A bearer token, known only by its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token. A plain hash is enough for what is random and long; see the configuration's comment.
    pub sha256: [u8; 32],
    /// Indices of the streams that it may write to; `None`: all of the listener.
    pub streams: Option<Vec<u16>>,
}

/// The streams of a listener: its own, and those that the sender may name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    own: Route,
    others: Vec<Route>,
}

impl Routes {
    /// A listener's own stream, and others, of which each is kept once.
    #[must_use]
    pub fn new(own: Route, others: impl IntoIterator<Item = Route>) -> Routes {
        let mut routes = Routes { own, others: Vec::new() };
        for route in others {
            if routes.find(route.name.as_bytes()).is_none() {
                routes.others.push(route);
            }
        }
        routes
    }

    /// The listener's own.
    #[must_use]
    pub fn own(&self) -> &Route {
        &self.own
    }

    /// The stream of this name, if records may go there.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<&Route> {
        self.all().find(|route| route.name.as_bytes() == name)
    }

    /// All of them, the listener's own first.
    pub fn all(&self) -> impl Iterator<Item = &Route> {
        std::iter::once(&self.own).chain(&self.others)
    }

    /// True if some stream is written in this format.
    #[must_use]
    pub fn any(&self, format: Format) -> bool {
        self.all().any(|route| route.format == format)
    }
}

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

/// What rules of a protocol may look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute {
    /// As rules name it.
    pub name: &'static str,
    /// The values that it can have; empty: any.
    pub values: &'static [&'static str],
}

/// A rule: records of which this attribute has this value go to that stream.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    /// Its place among the protocol's attributes, which is also the order in which rules are asked.
    attribute: usize,
    name: Vec<u8>,
    is_prefix: bool,
    to: Route,
}

impl Rule {
    /// `name` may end in `*`.
    fn new(attribute: usize, name: &str, to: Route) -> Rule {
        let (name, is_prefix) = name.strip_suffix('*').map_or((name, false), |name| (name, true));
        Rule { attribute, name: name.into(), is_prefix, to }
    }

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
    /// A rule is malformed, looks at something that is not `known`, or names a stream that is not in `streams`.
    pub fn read(
        section: &Section<'_>,
        table: Option<&RouteTable>,
        routes: &Routes,
        known: &[Attribute],
    ) -> Result<Rules, ConfigError> {
        section.shown("route", table.map(ToString::to_string));
        let names: Vec<&str> = known.iter().map(|attribute| attribute.name).collect();
        let rule = |(text, stream): (&String, &String)| {
            let error = |message: String| Err(section.error("route", message));
            let Some((name, value)) = text.split_once('=') else {
                let forms: Vec<String> = names.iter().map(|name| format!("\"{name}=NAME\"")).collect();
                return error(format!("`{text}` is no rule; expected {}", or(&forms)));
            };
            let Some(place) = names.iter().position(|known| *known == name) else {
                return error(format!("a message has no `{name}`; expected {}", or(&names)));
            };
            let values = known[place].values;
            if !values.is_empty() && !values.contains(&value) {
                return error(format!("`{text}`: expected one of {}", values.join(", ")));
            }
            match routes.find(stream.as_bytes()) {
                _ if value.is_empty() || value == "*" => error(format!("`{text}` names nothing")),
                Some(to) => Ok(Rule::new(place, value, to.clone())),
                None => error(format!("`{stream}` is not among the `streams` of this listener")),
            }
        };
        let rules = table.iter().flat_map(|table| &table.0).map(rule).collect::<Result<Vec<Rule>, _>>()?;
        Ok(Rules::sorted(rules))
    }

    /// What is more exact comes first.
    fn sorted(mut rules: Vec<Rule>) -> Rules {
        rules.sort_by_key(|rule| (rule.attribute, rule.is_prefix, std::cmp::Reverse(rule.name.len())));
        Rules(rules)
    }

    /// True where all records go to the listener's own stream.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where a record goes, with the value of the attribute at each place; `None`: to the listener's own stream.
    #[must_use]
    pub fn find<V: AsRef<[u8]>>(&self, value: impl Fn(usize) -> V) -> Option<&Route> {
        self.0.iter().find(|rule| rule.fits(value(rule.attribute).as_ref())).map(|rule| &rule.to)
    }
}

/// `a, b or c`.
fn or(words: &[impl AsRef<str>]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => words.join(""),
    }
}

#[cfg(test)]
impl Rules {
    /// Rules as given: the place of the attribute, its value, and where records with it go.
    pub fn of(rules: impl IntoIterator<Item = (usize, String, Route)>) -> Rules {
        Rules::sorted(rules.into_iter().map(|(place, name, to)| Rule::new(place, &name, to)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_listed_is_found() {
        let route = |name: &str, index, format| Route { name: name.into(), index, format };
        let others = [route("b", 3, Format::Json), route("a", 0, Format::Json), route("b", 9, Format::Raw)];
        let routes = Routes::new(route("a", 0, Format::Raw), others);
        assert_eq!(routes.own().name, "a");
        assert_eq!(routes.find(b"b").map(|r| r.index), Some(3));
        assert_eq!(routes.find(b"a").map(|r| r.format), Some(Format::Raw), "the listener's own comes first");
        assert!(routes.find(b"../b").is_none() && routes.find(b"").is_none());
        assert_eq!(routes.all().count(), 2);
        assert!(routes.any(Format::Json));
    }
}
