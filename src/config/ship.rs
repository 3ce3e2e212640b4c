//! `[ship.NAME]`: where lines go on to.

use super::raw;
use crate::log::names::is_stream_name;
use crate::settings::units::Size;
use crate::settings::{ConfigError, Places};
use crate::words;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

words!(
    /// `ship.NAME.delivery`
    Delivery { ExactlyOnce = "exactly_once", AtLeastOnce = "at_least_once" }
);
words!(
    /// `ship.NAME.start`
    Start { Oldest = "oldest", Now = "now" }
);
words!(
    /// `ship.NAME.compression`
    Compression { None = "none", Lz4 = "lz4", Zstd = "zstd" }
);
words!(
    /// `ship.NAME.partition`
    Partition { Fixed = "fixed", Spread = "spread" }
);
words!(
    /// `ship.NAME.key`
    Key { None = "none", Source = "source" }
);
words!(
    /// `ship.NAME.sasl_mechanism`
    Sasl { Plain = "PLAIN", Scram256 = "SCRAM-SHA-256", Scram512 = "SCRAM-SHA-512" }
);

/// Where the stream's name stands in a topic.
const STREAM: &str = "{stream}";
/// Longest name of a topic (org.apache.kafka.common.internals.Topic).
const TOPIC_MAX: usize = 249;

/// One target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShipTarget {
    /// Its name.
    pub name: String,
    /// The brokers, as `HOST:PORT,HOST:PORT`.
    pub brokers: String,
    /// The streams; `None`: all that there are.
    pub streams: Option<Vec<String>>,
    /// The topic, with `{stream}` where the stream's name goes.
    pub topic: String,
    /// The topic of the positions.
    pub positions_topic: String,
    /// Where a target begins that has nothing yet.
    pub start: Start,
    /// Once, or once or more.
    pub delivery: Delivery,
    /// Of the batches.
    pub compression: Compression,
    /// Lines of a shard go to one partition, or to all.
    pub partition: Partition,
    /// What the messages have as their key.
    pub key: Key,
    /// Messages have headers that say where they come from.
    pub headers: bool,
    /// Retention leaves alone what the target has not got.
    pub hold: bool,
    /// But not more bytes than this; `None`: all.
    pub hold_at_most: Option<u64>,
    /// TLS.
    pub tls: bool,
    /// Authorities that the brokers' certificates are checked with; `None`: those of the system.
    pub tls_ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub tls_client: Option<(PathBuf, PathBuf)>,
    /// Mechanism, user, and the file with the password.
    pub sasl: Option<(Sasl, String, PathBuf)>,
}

impl ShipTarget {
    /// The files that connecting to it reads: certificates, keys, a password.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let (cert, key) = self.tls_client.as_ref().map(|(cert, key)| (cert, key)).unzip();
        let password = self.sasl.as_ref().map(|(_, _, file)| file);
        [self.tls_ca.as_ref(), cert, key, password].into_iter().flatten().map(PathBuf::as_path)
    }

    /// True if lines of this stream go there.
    #[must_use]
    pub fn takes(&self, stream: &str) -> bool {
        self.streams.as_ref().is_none_or(|names| names.iter().any(|name| name == stream))
    }

    /// The topic of a stream.
    #[must_use]
    pub fn topic_of(&self, stream: &str) -> String {
        self.topic.replace(STREAM, stream)
    }
}

/// Checks the sections.
pub fn targets(places: &Places, raw: &BTreeMap<String, raw::Ship>) -> Vec<ShipTarget> {
    raw.iter().filter_map(|(name, raw)| places.kept(target(places, name, raw))).collect()
}

fn target(places: &Places, name: &str, raw: &raw::Ship) -> Result<ShipTarget, ConfigError> {
    let own = |key: &str| format!("ship.{name}.{key}");
    if !is_stream_name(name) {
        return Err(places.error(&format!("ship.{name}"), "expected a name of a-z, 0-9, _ and -"));
    }
    places.optional(&own("to"), raw.to.as_ref());
    places.list(&own("streams"), raw.streams.as_deref());
    places.optional(&own("hold_at_most"), raw.hold_at_most.map(|size| size.exact()).as_ref());
    for (key, value) in [
        ("tls_ca", &raw.tls_ca),
        ("tls_cert", &raw.tls_cert),
        ("tls_key", &raw.tls_key),
        ("sasl_username", &raw.sasl_username),
        ("sasl_password_file", &raw.sasl_password_file),
    ] {
        places.optional(&own(key), value.as_ref());
    }
    places.optional(&own("sasl_mechanism"), raw.sasl_mechanism.as_ref());
    let Some(to) = &raw.to else {
        return Err(places.error(&format!("ship.{name}"), "expected `to` here, such as \"kafka://broker:9092\""));
    };
    let brokers = brokers(to).ok_or_else(|| {
        let message = "expected kafka://HOST:PORT, with commas between several brokers";
        places.error(&own("to"), message)
    })?;
    if let Some(bad) = raw.streams.iter().flatten().find(|stream| !is_stream_name(stream)) {
        return Err(places.error(&own("streams"), format!("\"{bad}\" is not the name of a stream")));
    }
    let topic = places.word(&own("topic"), raw.topic.clone(), "logweir.{stream}".into());
    let positions_topic = places.word(&own("positions_topic"), raw.positions_topic.clone(), "logweir.positions".into());
    for (key, topic) in [("topic", topic.replace(STREAM, "x")), ("positions_topic", positions_topic.clone())] {
        if !is_topic(&topic) {
            let message = format!("expected the name of a topic: a-z, A-Z, 0-9, '.', '_' and '-', at most {TOPIC_MAX}");
            return Err(places.error(&own(key), message));
        }
    }
    let tls = places.flag(&own("tls"), raw.tls, false);
    let path = |text: &String| PathBuf::from(text);
    let tls_client = match (&raw.tls_cert, &raw.tls_key) {
        (Some(cert), Some(key)) => Some((path(cert), path(key))),
        (None, None) => None,
        (Some(_), None) => return Err(places.error(&own("tls_cert"), "this needs `tls_key` too")),
        (None, Some(_)) => return Err(places.error(&own("tls_key"), "this needs `tls_cert` too")),
    };
    if !tls && (raw.tls_ca.is_some() || tls_client.is_some()) {
        return Err(places.error(&format!("ship.{name}"), "its TLS files need tls = true"));
    }
    let sasl = match (raw.sasl_mechanism, &raw.sasl_username, &raw.sasl_password_file) {
        (Some(mechanism), Some(user), Some(file)) => Some((mechanism, user.clone(), path(file))),
        (None, None, None) => None,
        _ => {
            let message = "SASL needs sasl_mechanism, sasl_username and sasl_password_file";
            return Err(places.error(&format!("ship.{name}"), message));
        }
    };
    Ok(ShipTarget {
        name: name.to_string(),
        brokers,
        streams: raw.streams.clone(),
        topic,
        positions_topic,
        start: places.word(&own("start"), raw.start, Start::Oldest),
        delivery: places.word(&own("delivery"), raw.delivery, Delivery::ExactlyOnce),
        compression: places.word(&own("compression"), raw.compression, Compression::Lz4),
        partition: places.word(&own("partition"), raw.partition, Partition::Fixed),
        key: places.word(&own("key"), raw.key, Key::None),
        headers: places.flag(&own("headers"), raw.headers, false),
        hold: places.flag(&own("hold"), raw.hold, true),
        hold_at_most: raw.hold_at_most.map(|Size(bytes)| bytes),
        tls,
        tls_ca: raw.tls_ca.as_ref().map(path),
        tls_client,
        sasl,
    })
}

/// `kafka://A:1,B:2` as `A:1,B:2`.
fn brokers(to: &str) -> Option<String> {
    let brokers = to.strip_prefix("kafka://")?;
    let is_broker = |broker: &str| {
        broker.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
        })
    };
    brokers.split(',').all(is_broker).then(|| brokers.to_string())
}

/// As Kafka's `Topic.validate` has it.
fn is_topic(name: &str) -> bool {
    (1..=TOPIC_MAX).contains(&name.len())
        && ![".", ".."].contains(&name)
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_hosts_with_ports() {
        assert_eq!(brokers("kafka://a:9092,[::1]:9093").as_deref(), Some("a:9092,[::1]:9093"));
        for bad in
            ["a:9092", "kafka://", "kafka://a", "kafka://a:0", "kafka://a:9092,", "kafka://a:9092, b:1", "s3://x:1"]
        {
            assert_eq!(brokers(bad), None, "{bad}");
        }
    }

    #[test]
    fn topics_are_what_kafka_takes() {
        assert!(is_topic("logweir.web-1_A"));
        for bad in ["", ".", "..", "a b", "a/b", "ä", &"a".repeat(250)] {
            assert!(!is_topic(bad), "{bad}");
        }
    }
}
