//! Reads the Prometheus text format leniently: it leaves out what it does not understand, and never fails.

use std::collections::BTreeSet;

/// One line of a scrape.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// `logweir_received_lines_total`
    pub name: String,
    /// Its labels, as they stand there, unescaped.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: f64,
}

impl Sample {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// True if every one of these labels is there with this value.
    #[must_use]
    pub fn has(&self, filter: &[(&str, &str)]) -> bool {
        filter.iter().all(|(key, value)| self.label(key) == Some(value))
    }
}

/// One scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scrape {
    /// When it was taken by the server's clock, in seconds since 1970, where that is known.
    pub time: Option<f64>,
    samples: Vec<Sample>,
}

/// The most samples that are kept: more than any logweir has, so that another program cannot fill the memory.
const MOST_SAMPLES: usize = 200_000;

impl Scrape {
    /// Reads a text.
    #[must_use]
    pub fn parse(text: &str) -> Scrape {
        Scrape { time: None, samples: text.lines().filter_map(sample).take(MOST_SAMPLES).collect() }
    }

    /// The samples of one name with these labels.
    pub fn of<'a>(&'a self, name: &'a str, filter: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |s| s.name == name && s.has(filter))
    }

    /// Their sum; 0 where there is none.
    #[must_use]
    pub fn sum(&self, name: &str, filter: &[(&str, &str)]) -> f64 {
        // Not `sum`: that of nothing is -0.
        self.of(name, filter).map(|s| s.value).filter(|v| v.is_finite()).fold(0.0, |a, b| a + b)
    }

    /// The largest of them.
    #[must_use]
    pub fn max(&self, name: &str, filter: &[(&str, &str)]) -> Option<f64> {
        self.of(name, filter).map(|s| s.value).filter(|v| v.is_finite()).reduce(f64::max)
    }

    /// True if there is such a sample.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|s| s.name == name)
    }

    /// The values that a label takes among the samples of a name, sorted; numbers by their value.
    #[must_use]
    pub fn values(&self, name: &str, label: &str) -> Vec<String> {
        let found: BTreeSet<(u64, &str)> = self
            .samples
            .iter()
            .filter(|s| s.name == name)
            .filter_map(|s| s.label(label))
            .map(|v| (v.parse().unwrap_or(u64::MAX), v))
            .collect();
        found.into_iter().map(|(_, v)| v.to_string()).collect()
    }

    /// The first value of a label that is found.
    #[must_use]
    pub fn label(&self, name: &str, label: &str) -> Option<&str> {
        self.samples.iter().filter(|s| s.name == name).find_map(|s| s.label(label))
    }

    /// All names.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        self.samples.iter().map(|s| s.name.as_str()).collect()
    }

    /// True if nothing in the text was a sample.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }
}

/// `name{key="value",…} value [time]`
fn sample(line: &str) -> Option<Sample> {
    let line = line.trim();
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).filter(|end| *end > 0)?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        (labels, rest) = read_labels(inside)?;
    }
    let value = match rest.split_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    Some(Sample { name: name.to_string(), labels, value })
}

type Labels = Vec<(String, String)>;

/// What is between the braces, and what follows them.
fn read_labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (key, after) = rest.split_once('=')?;
        let mut value = String::new();
        let mut chars = after.trim_start().strip_prefix('"')?.chars();
        loop {
            match chars.next()? {
                '"' => break,
                '\\' => match chars.next()? {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                other => value.push(other),
            }
        }
        labels.push((key.trim().to_string(), value));
        rest = chars.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn samples_are_read() {
        let text = "# HELP a b\n# TYPE a counter\na 1\nb{x=\"1\",y=\"q\\\"\\\\\\n}\"} 2.5e3 17\nc{le=\"+Inf\",} +Inf\n\nd{x=\"1} 5\ne\nf x\n{} 1\n";
        let scrape = Scrape::parse(text);
        assert_eq!(scrape.names().into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(scrape.sum("b", &[("x", "1")]), 2500.0);
        assert_eq!(scrape.sum("b", &[("x", "2")]), 0.0);
        assert_eq!(scrape.label("b", "y"), Some("q\"\\\n}"));
        assert_eq!(scrape.of("c", &[]).next().map(|s| s.value), Some(f64::INFINITY));
        assert!(Scrape::parse("").is_empty());
    }

    #[test]
    fn values_of_a_label_are_sorted_as_numbers_where_they_are() {
        let scrape = Scrape::parse("a{s=\"10\"} 1\na{s=\"9\"} 1\na{s=\"x\"} 1\na{s=\"9\"} 1\n");
        assert_eq!(scrape.values("a", "s"), ["9", "10", "x"]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in any::<String>(), near in "[a-z{}=\",\\\\ 0-9.+InfNa#\n-]{0,80}") {
            let _ = Scrape::parse(&text);
            let _ = Scrape::parse(&near);
        }

        #[test]
        fn what_is_written_is_read_back(name in "[a-z_:][a-z0-9_:]{0,9}", value in "[^\u{0}-\u{1f}]{0,12}", number in -1e9f64..1e9) {
            let escaped = value.replace('\\', "\\\\").replace('"', "\\\"");
            let scrape = Scrape::parse(&format!("{name}{{k=\"{escaped}\"}} {number}\n"));
            // Line separators of Unicode are no line ends here.
            prop_assert_eq!(scrape.label(&name, "k"), Some(value.as_str()));
            prop_assert_eq!(scrape.sum(&name, &[]), number);
        }
    }
}
