//! Tries a target without shipping to it.

use super::{PATIENCE, client, wait_for};
use logweir::config::ship::{Delivery, ShipTarget};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Message, Timestamp};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the brokers have for the first answer.
const FIRST: Duration = Duration::from_secs(10);
/// More than this between the clocks is worth a look, in milliseconds.
const SKEW_MS: i64 = 1_000;
/// Kafka's own limit of how far a record's time may be ahead: `message.timestamp.after.max.ms`, 1 h by default.
const AFTER_MAX: &str = "message.timestamp.after.max.ms";

/// One thing that was looked at.
pub enum Finding {
    /// As it should be.
    Good(String),
    /// Works, and may not be what somebody wants.
    Odd(String),
    /// Nothing can be shipped like that.
    Wrong(String),
}

use Finding::{Good, Odd, Wrong};

/// Reaches the brokers, and looks at topics, their settings, permissions and clocks.
pub fn probe(target: &ShipTarget, node: &str, streams: &[&str]) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Err(error) = look(target, node, streams, &mut found) {
        found.push(Wrong(format!("the brokers refuse, or do not answer: {error}")));
    }
    found
}

fn look(target: &ShipTarget, node: &str, streams: &[&str], found: &mut Vec<Finding>) -> Result<(), KafkaError> {
    let admin: AdminClient<DefaultClientContext> = quiet(target).create()?;
    let metadata = match admin.inner().fetch_metadata(None, FIRST) {
        Ok(metadata) => metadata,
        Err(error) => {
            let hint = if target.sasl.is_some() || target.tls { "; or the credentials are wrong" } else { "" };
            found.push(Wrong(format!("no broker of {} answers: {error}{hint}", target.brokers)));
            return Ok(());
        }
    };
    found.push(Good(format!("{} broker(s) answer", metadata.brokers().len())));
    let there: BTreeMap<&str, usize> =
        metadata.topics().iter().map(|topic| (topic.name(), topic.partitions().len())).collect();
    let mut topics: Vec<String> = streams.iter().map(|stream| target.topic_of(stream)).collect();
    topics.sort();
    topics.dedup();
    for topic in &topics {
        match there.get(topic.as_str()) {
            Some(partitions) => {
                found.push(Good(format!("topic {topic}: {partitions} partition(s)")));
                settings(&admin, topic, false, found)?;
            }
            None => found.push(missing(&admin, topic, 1, false)?),
        }
    }
    let positions = &target.positions_topic;
    let has_positions = there.contains_key(positions.as_str());
    if has_positions {
        found.push(Good(format!("topic {positions}: there")));
        settings(&admin, positions, true, found)?;
    } else {
        found.push(missing(&admin, positions, super::POSITION_PARTITIONS, true)?);
    }
    if target.delivery == Delivery::ExactlyOnce {
        found.push(transactions(target, node)?);
    }
    if has_positions {
        found.push(clock(target, node)?);
    }
    Ok(())
}

/// May a topic be made that is not there? The brokers are asked, and make nothing.
fn missing(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    partitions: i32,
    is_ours: bool,
) -> Result<Finding, KafkaError> {
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE)).validate_only(true);
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    Ok(match (wait_for(admin.create_topics(&[new], &options))?.into_iter().next(), is_ours) {
        (Some(Err((_, code))), _) => Wrong(format!("topic {topic} is not there and may not be made: {code}")),
        (_, true) => Good(format!("topic {topic} is not there; the shipper makes it")),
        (_, false) => Odd(format!(
            "topic {topic} is not there. It may be made: by the brokers themselves, if auto.create.topics.enable is on there, else by you"
        )),
    })
}

/// Settings of a topic that lines could be lost or refused by.
fn settings(
    admin: &AdminClient<DefaultClientContext>,
    topic: &str,
    is_ours: bool,
    found: &mut Vec<Finding>,
) -> Result<(), KafkaError> {
    let asked = wait_for(admin.describe_configs([&ResourceSpecifier::Topic(topic)], &AdminOptions::new()))?;
    let config = match asked.into_iter().next() {
        Some(Ok(config)) => config,
        Some(Err(code)) => {
            found.push(Odd(format!("topic {topic}: its settings may not be read: {code}")));
            return Ok(());
        }
        None => return Ok(()),
    };
    let value = |name: &str| config.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
    let in_sync = value("min.insync.replicas");
    let metadata = admin.inner().fetch_metadata(Some(topic), PATIENCE)?;
    let replicas = metadata.topics().iter().flat_map(|t| t.partitions()).map(|p| p.replicas().len()).min().unwrap_or(0);
    let wanted: usize = in_sync.parse().unwrap_or(1);
    found.push(match (wanted, replicas) {
        (wanted, replicas) if wanted > replicas => {
            Wrong(format!("topic {topic}: min.insync.replicas = {wanted}, and it has {replicas} replica(s): nothing is taken"))
        }
        (1, replicas) => Odd(format!(
            "topic {topic}: min.insync.replicas = 1 ({replicas} replica(s)): one disk may hold the only copy. 3 replicas and 2 are usual"
        )),
        (wanted, replicas) => Good(format!("topic {topic}: min.insync.replicas = {wanted} of {replicas}")),
    });
    let policy = value("cleanup.policy");
    match (is_ours, policy.contains("compact"), policy.contains("delete")) {
        (true, true, false) => {}
        (true, ..) => found.push(Wrong(format!(
            "topic {topic}: cleanup.policy = {policy}: positions would be deleted with time. It has to be compact"
        ))),
        (false, true, _) => found.push(Wrong(format!(
            "topic {topic}: cleanup.policy = {policy}: lines without a key are refused, and of each key only the last stays"
        ))),
        (false, ..) => {}
    }
    let longest: u64 = value("max.message.bytes").parse().unwrap_or(0);
    if !is_ours {
        found.push(Odd(format!(
            "topic {topic}: takes lines of at most {longest} bytes; a longer one stops shipping there"
        )));
        if let Ok(after) = value(AFTER_MAX).parse::<u64>() {
            found
                .push(Good(format!("topic {topic}: takes times up to {} s ahead of the broker's clock", after / 1000)));
        }
    }
    Ok(())
}

/// Begins a transaction under another name and ends it: brokers and permissions can do that.
fn transactions(target: &ShipTarget, node: &str) -> Result<Finding, KafkaError> {
    let mut config = quiet(target);
    config.set("transactional.id", format!("logweir-{node}-{}-check", target.name)).set("enable.idempotence", "true");
    let producer: BaseProducer = config.create()?;
    let tried = producer
        .init_transactions(PATIENCE)
        .and_then(|()| producer.begin_transaction())
        .and_then(|()| producer.abort_transaction(PATIENCE));
    Ok(match tried {
        Ok(()) => Good("transactions work".into()),
        Err(error) => Wrong(format!("transactions do not work: {error}")),
    })
}

/// Keeps the broker's time of what it has taken.
#[derive(Default)]
struct Stamp(Mutex<Option<Result<Timestamp, Code>>>);

impl rdkafka::ClientContext for Stamp {}

impl ProducerContext for Stamp {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let told = match result {
            Ok(message) => Ok(message.timestamp()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(Code::Unknown)),
        };
        if let Ok(mut place) = self.0.lock() {
            *place = Some(told);
        }
    }
}

/// Compares the clocks: a message that says nothing, of a key that no shipper has, gets the broker's time in the topic of positions.
fn clock(target: &ShipTarget, node: &str) -> Result<Finding, KafkaError> {
    let producer: BaseProducer<Stamp> = quiet(target).create_with_context(Stamp::default())?;
    let key = format!("check/{}/{node}", target.name);
    let now_ms = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    // Connecting takes its time: the second one is what counts.
    for is_last in [false, true] {
        let before = now_ms();
        let record: BaseRecord<'_, str, [u8]> = BaseRecord::to(&target.positions_topic).key(key.as_str());
        producer.send(record).map_err(|(error, _)| error)?;
        producer.flush(PATIENCE)?;
        let after = now_ms();
        if !is_last {
            continue;
        }
        let told = producer.context().0.lock().ok().and_then(|mut told| told.take());
        return Ok(match told {
            Some(Ok(Timestamp::LogAppendTime(at))) => skew(at, before, after),
            Some(Ok(_)) => Odd(format!(
                "clocks: not compared, because topic {} has not message.timestamp.type = LogAppendTime",
                target.positions_topic
            )),
            Some(Err(code)) => Wrong(format!("topic {}: may not be written to: {code}", target.positions_topic)),
            None => Wrong(format!("topic {}: nothing was taken within a minute", target.positions_topic)),
        });
    }
    Ok(Odd("clocks: not compared".into()))
}

fn skew(broker: i64, before: i64, after: i64) -> Finding {
    let off = if broker < before { broker - before } else { (broker - after).max(0) };
    match off {
        off if off.abs() <= SKEW_MS => Good(format!("clocks: at most {} ms apart", off.abs() + (after - before))),
        off => Odd(format!(
            "clocks: the broker's is {} s {} this machine's. Times of records are this machine's; brokers refuse what is more than {AFTER_MAX} ahead",
            off.abs() as f64 / 1000.0,
            if off < 0 { "behind" } else { "ahead of" }
        )),
    }
}

fn quiet(target: &ShipTarget) -> ClientConfig {
    let mut config = client(target);
    config.set("message.timeout.ms", PATIENCE.as_millis().to_string()).set("allow.auto.create.topics", "false");
    config
}
