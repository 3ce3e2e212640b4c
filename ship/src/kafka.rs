//! The target: Kafka. A producer whose transactions carry lines and the positions behind them, and a reader of the positions.

mod deliveries;
pub mod probe;

use deliveries::{Deliveries, NO_ROUND, Round};

use logweir::config::ship::{Compression, Delivery, Key, Partition, ShipTarget};
use logweir::log::ship::note::Positions;
use logweir::log::ship::{Position, Source, rounds};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

/// How long the brokers may take for their first answer.
const FIRST: Duration = Duration::from_secs(15);
/// How long one call may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that wait in the client at most.
const QUEUE_BYTES: u64 = 32 << 20;
/// Messages that wait there at most.
const QUEUE_MESSAGES: u64 = 100_000;
/// Longest message that the client takes, in bytes; brokers may take less (`message.max.bytes`).
const MESSAGE_MAX: u64 = 64 << 20;
/// Partitions of the topic of positions, where the shipper makes it: nodes are spread over them.
const POSITION_PARTITIONS: i32 = 16;

/// Batches that are on their way to one broker at most, and the bytes of one: they are compressed into memory of their own.
const IN_FLIGHT: u64 = 5;
const BATCH_BYTES: u64 = 1_000_000;
/// Bytes that a reader of positions fetches at once.
const FETCH_BYTES: u64 = 1 << 20;

/// Bytes of memory that the client takes at most: its queue, batches on their way to each broker, and what a reader has fetched.
pub fn memory(target: &ShipTarget) -> u64 {
    let brokers = target.brokers.split(',').count().max(3) as u64; // those that are found by asking one
    QUEUE_BYTES + brokers * IN_FLIGHT * BATCH_BYTES + 2 * FETCH_BYTES
}

/// What can go wrong with a target.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Another shipper of this node and target has begun: it has the positions now.
    #[error("another shipper of this target and node runs, and has taken over: this one ends")]
    Fenced,
    /// The transaction is void: what it carried is sent again.
    #[error("the transaction is void: {0}")]
    Void(KafkaError),
    /// The client is of no use any more: a new one begins where the target is.
    #[error("the client has to begin anew: {0}")]
    Broken(KafkaError),
    /// No broker has answered.
    #[error("no broker answers: {error}{}", said.as_ref().map(|said| format!(" ({said})")).unwrap_or_default())]
    Silent {
        /// Why, as the client says.
        error: KafkaError,
        /// What it said before about its connections: that credentials were refused, say.
        said: Option<String>,
    },
    /// A message cannot be brought there.
    #[error("a line was not taken: {0}{hint}", hint = hint(*.0))]
    NotTaken(Code),
    /// There is no such topic.
    #[error("there is no topic {0}, and the brokers make none: create it")]
    NoTopic(String),
    /// Something in the topic of positions that we do not write.
    #[error("topic {topic}: the position of {key} is {text:?}; expected SEQUENCE OFFSET")]
    NoPosition {
        /// The topic of positions.
        topic: String,
        /// Of which shard.
        key: String,
        /// What stands there.
        text: String,
    },
}

/// What to do about a message that is not taken.
fn hint(code: Code) -> &'static str {
    match code {
        Code::MessageSizeTooLarge => ". Raise max.message.bytes of the topic",
        Code::InvalidTimestamp => {
            ". This machine's clock and the broker's are too far apart: logweir ship --check compares them"
        }
        Code::TopicAuthorizationFailed => ". The credentials may not write to the topic",
        _ => "",
    }
}

impl From<KafkaError> for TargetError {
    fn from(error: KafkaError) -> TargetError {
        match &error {
            KafkaError::Transaction(inner) if inner.code() == Code::Fenced => TargetError::Fenced,
            KafkaError::Transaction(inner) if inner.txn_requires_abort() => TargetError::Void(error),
            _ if error.rdkafka_error_code() == Some(Code::Fenced) => TargetError::Fenced,
            _ => TargetError::Broken(error),
        }
    }
}

impl TargetError {
    /// True if trying again mends nothing.
    pub fn is_final(&self) -> bool {
        matches!(self, TargetError::Fenced | TargetError::NoPosition { .. })
    }
}

/// A target that can be shipped to.
pub struct Target {
    producer: BaseProducer<Deliveries>,
    options: ShipTarget,
    node: String,
    /// Partitions of each topic.
    partitions: BTreeMap<String, i32>,
    /// The partition of our positions.
    positions_at: Option<i32>,
    /// The number of the round that goes on, where there are no transactions.
    round: usize,
}

impl Target {
    /// Connects, and ends what an earlier shipper of this name has left open.
    pub fn open(options: &ShipTarget, node: &str) -> Result<Target, TargetError> {
        let mut config = client(options);
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("batch.size", BATCH_BYTES.to_string())
            .set("max.in.flight", IN_FLIGHT.to_string())
            .set("queue.buffering.max.kbytes", (QUEUE_BYTES >> 10).to_string())
            .set("queue.buffering.max.messages", QUEUE_MESSAGES.to_string())
            .set("message.max.bytes", MESSAGE_MAX.to_string())
            .set(
                "compression.type",
                match options.compression {
                    Compression::None => "none",
                    Compression::Lz4 => "lz4",
                    Compression::Zstd => "zstd",
                },
            );
        if options.delivery == Delivery::ExactlyOnce {
            config.set("transactional.id", format!("logweir-{node}-{}", options.name));
        }
        let producer: BaseProducer<Deliveries> = config.create_with_context(Deliveries::default())?;
        producer.client().fetch_metadata(None, FIRST).map_err(|error| {
            // It speaks while it is polled.
            producer.poll(Duration::from_millis(100));
            let said = producer.context().said.lock().unwrap_or_else(PoisonError::into_inner).take();
            TargetError::Silent { error, said }
        })?;
        if options.delivery == Delivery::ExactlyOnce {
            retried(|| producer.init_transactions(PATIENCE))?;
        }
        Ok(Target {
            producer,
            options: options.clone(),
            node: node.into(),
            partitions: BTreeMap::new(),
            positions_at: None,
            round: NO_ROUND,
        })
    }

    /// How far the target has everything.
    pub fn positions(&self) -> Result<Positions, TargetError> {
        self.make_position_topic()?;
        let topic = &self.options.positions_topic;
        let partition = self.position_partition()?;
        let mut config = client(&self.options);
        config.set("group.id", "logweir-ship").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
        let fetch = FETCH_BYTES.to_string();
        config.set("fetch.max.bytes", &fetch).set("fetch.message.max.bytes", &fetch);
        config.set("queued.max.messages.kbytes", (FETCH_BYTES >> 10).to_string());
        let ends = |isolation: &str| -> Result<(i64, i64), KafkaError> {
            let consumer: BaseConsumer = config.clone().set("isolation.level", isolation).create()?;
            consumer.fetch_watermarks(topic, partition, PATIENCE)
        };
        // What stands before this is either committed or void, once no transaction that began before is open.
        let (_, high) = ends("read_uncommitted")?;
        let waits = Instant::now();
        while ends("read_committed")?.1 < high {
            if waits.elapsed() > 2 * PATIENCE {
                return Err(TargetError::Broken(KafkaError::OffsetFetch(Code::OperationTimedOut)));
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
        let consumer: BaseConsumer = config.set("isolation.level", "read_committed").create()?;
        let mut from = TopicPartitionList::new();
        from.add_partition_offset(topic, partition, Offset::Beginning)?;
        consumer.assign(&from)?;
        let mut positions = Positions::new();
        let prefix = format!("{}/{}/", self.options.name, self.node);
        loop {
            match consumer.poll(PATIENCE) {
                Some(Ok(message)) => {
                    let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
                    let (key, value) = (text(message.key()), text(message.payload()));
                    let Some((stream, shard)) = key.strip_prefix(&prefix).and_then(|rest| rest.split_once('/')) else {
                        continue;
                    };
                    match (shard.parse(), Position::parse(&value)) {
                        (Ok(shard), Some(position)) => drop(positions.insert((stream.into(), shard), position)),
                        _ => return Err(TargetError::NoPosition { topic: topic.clone(), key, text: value }),
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(positions),
                Some(Err(error)) if !is_fatal(&error) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(TargetError::Broken(KafkaError::OffsetFetch(Code::OperationTimedOut))),
            }
        }
    }

    /// Makes the topic of positions where there is none: of each key the broker keeps the last message.
    fn make_position_topic(&self) -> Result<(), TargetError> {
        let topic = &self.options.positions_topic;
        let metadata = self.producer.client().fetch_metadata(None, PATIENCE)?;
        if metadata.topics().iter().any(|t| t.name() == topic && !t.partitions().is_empty()) {
            return Ok(());
        }
        let admin: AdminClient<DefaultClientContext> = client(&self.options).create()?;
        let new =
            NewTopic::new(topic, POSITION_PARTITIONS, TopicReplication::Fixed(-1)).set("cleanup.policy", "compact");
        // The broker's time, so that a check can compare clocks.
        let new = new.set("message.timestamp.type", "LogAppendTime");
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        match wait_for(admin.create_topics(&[new], &options))?.into_iter().next() {
            Some(Err((_, code))) if code != Code::TopicAlreadyExists => {
                Err(TargetError::Broken(KafkaError::AdminOp(code)))
            }
            _ => Ok(()),
        }
    }

    fn position_partition(&self) -> Result<i32, TargetError> {
        let partitions = self.count_partitions(&self.options.positions_topic)?;
        Ok(spot(&self.node, partitions))
    }

    fn count_partitions(&self, topic: &str) -> Result<i32, TargetError> {
        // The first question makes a topic, where the brokers do that.
        for _ in 0..50 {
            let metadata = self.producer.client().fetch_metadata(Some(topic), PATIENCE)?;
            if let Some(found) = metadata.topics().iter().find(|t| t.name() == topic && !t.partitions().is_empty()) {
                return Ok(found.partitions().len() as i32);
            }
            std::thread::park_timeout(Duration::from_millis(200));
        }
        Err(TargetError::NoTopic(topic.into()))
    }

    fn put<'a>(&self, mut record: BaseRecord<'a, [u8], [u8], usize>) -> Result<(), TargetError> {
        self.producer.context().round(record.delivery_opaque, |round| round.left += 1);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) if error.rdkafka_error_code() == Some(Code::QueueFull) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Waits until everything that was sent has an answer. The flush of rdkafka, which is also the beginning of its commit, looks only ten
    /// times a second whether it has: that would be the pace of transactions.
    fn drain(&self) -> Result<(), TargetError> {
        let begun = Instant::now();
        while self.producer.in_flight_count() > 0 {
            if begun.elapsed() > PATIENCE {
                return Err(TargetError::Broken(KafkaError::Flush(Code::OperationTimedOut)));
            }
            self.producer.poll(Duration::from_millis(1));
        }
        Ok(())
    }

    fn not_taken(&self) -> Option<Code> {
        *self.producer.context().why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an error means: the client knows more than the call that failed.
    pub fn explain(&self, error: TargetError) -> TargetError {
        match self.producer.client().fatal_error() {
            Some((Code::Fenced | Code::InvalidProducerEpoch, _)) => TargetError::Fenced,
            _ => error,
        }
    }
}

impl rounds::Target for Target {
    type Error = TargetError;
    type Place = Place;

    /// Where the lines of a shard go. The same partition for as long as the topic has as many.
    fn place(&mut self, source: &Source) -> Result<Place, TargetError> {
        let topic = self.options.topic_of(&source.0);
        let partitions = match self.partitions.get(&topic) {
            Some(partitions) => *partitions,
            None => {
                let partitions = self.count_partitions(&topic)?;
                self.partitions.insert(topic.clone(), partitions);
                partitions
            }
        };
        let name = format!("{}/{}/{}", self.node, source.0, source.1);
        let partition = (self.options.partition == Partition::Fixed).then(|| spot(&name, partitions));
        let key = (self.options.key == Key::Source).then_some(name);
        let headers = self.options.headers.then(|| {
            let shard = source.1.to_string();
            [("logweir.node", self.node.as_str()), ("logweir.stream", &source.0), ("logweir.shard", &shard)]
                .into_iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
        });
        Ok(Place { topic, partition, key, headers })
    }

    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), TargetError> {
        if self.options.delivery == Delivery::ExactlyOnce {
            return Ok(self.producer.begin_transaction()?);
        }
        let mut under_way = self.producer.context().under_way.lock().unwrap_or_else(PoisonError::into_inner);
        self.round += 1;
        if under_way.1.is_empty() {
            under_way.0 = self.round;
        }
        under_way.1.push_back(Round::default());
        Ok(())
    }

    /// Hands a line to the client. It waits while the client has as much as it may have.
    fn send(&mut self, place: &Place, line: &[u8], wall_ns: Option<u64>) -> Result<(), TargetError> {
        let mut record: BaseRecord<'_, [u8], [u8], usize> =
            BaseRecord::with_opaque_to(&place.topic, self.round).payload(line);
        if let Some(partition) = place.partition {
            record = record.partition(partition);
        }
        if let Some(key) = &place.key {
            record = record.key(key.as_bytes());
        }
        if let Some(headers) = &place.headers {
            record = record.headers(headers.clone());
        }
        if let Some(at) = wall_ns {
            record = record.timestamp((at / 1_000_000) as i64);
        }
        self.put(record)
    }

    /// Ends the transaction: lines and positions are there now, or neither is. Without transactions nothing is waited for: what is there is found
    /// out later, while the next lines are on their way.
    fn commit(&mut self, moved: &Positions) -> Result<Positions, TargetError> {
        if self.options.delivery == Delivery::AtLeastOnce {
            self.producer.context().round(self.round, |round| round.positions = Some(moved.clone()));
            self.producer.poll(Duration::ZERO);
            return self.arrived();
        }
        self.send_positions(moved, NO_ROUND)?;
        // A transaction of which something was not taken is not committed.
        self.drain()?;
        let ended = retried(|| self.producer.commit_transaction(PATIENCE));
        ended.map_err(|error| match (self.not_taken(), error) {
            (Some(code @ Code::MessageSizeTooLarge), TargetError::Void(_)) => TargetError::NotTaken(code),
            (_, error) => error,
        })?;
        Ok(moved.clone())
    }

    fn settle(&mut self) -> Result<Positions, TargetError> {
        let mut there = Positions::new();
        let begun = Instant::now();
        loop {
            there.extend(self.arrived()?);
            if self.producer.context().under_way.lock().unwrap_or_else(PoisonError::into_inner).1.is_empty() {
                return Ok(there);
            }
            if begun.elapsed() > PATIENCE {
                return Err(TargetError::Broken(KafkaError::Flush(Code::OperationTimedOut)));
            }
            self.producer.poll(Duration::from_millis(1));
        }
    }
}

impl Target {
    fn send_positions(&mut self, positions: &Positions, round: usize) -> Result<(), TargetError> {
        // Asked once: the answer comes behind the lines that are on their way.
        let partition = match self.positions_at {
            Some(partition) => partition,
            None => *self.positions_at.insert(self.position_partition()?),
        };
        let topic = &self.options.positions_topic;
        for ((stream, shard), position) in positions {
            let key = format!("{}/{}/{stream}/{shard}", self.options.name, self.node);
            let value = position.to_string();
            let record = BaseRecord::with_opaque_to(topic, round).key(key.as_bytes()).payload(value.as_bytes());
            self.put(record.partition(partition))?;
        }
        Ok(())
    }

    /// Positions that are there since this was asked last: of rounds whose lines had all arrived, in order. Sends those of rounds whose lines
    /// have arrived since.
    fn arrived(&mut self) -> Result<Positions, TargetError> {
        if self.producer.context().failed.load(Ordering::SeqCst) > 0 {
            return Err(TargetError::NotTaken(self.not_taken().unwrap_or(Code::Unknown)));
        }
        let (mut there, mut behind) = (Positions::new(), Vec::new());
        {
            let mut under_way = self.producer.context().under_way.lock().unwrap_or_else(PoisonError::into_inner);
            let (first, rounds) = &mut *under_way;
            while let Some(positions) = rounds.front().filter(|round| round.left == 0 && round.is_noted) {
                there.extend(positions.positions.clone().unwrap_or_default());
                rounds.pop_front();
                *first += 1;
            }
            // Not those behind one that has not arrived: a position says that everything before it is there.
            let arrived = |round: &&mut Round| round.is_noted || (round.left == 0 && round.positions.is_some());
            for (place, round) in rounds.iter_mut().take_while(arrived).enumerate().filter(|(_, round)| !round.is_noted)
            {
                round.is_noted = true;
                behind.push((*first + place, round.positions.clone().unwrap_or_default()));
            }
        }
        for (round, positions) in behind {
            self.send_positions(&positions, round)?;
        }
        Ok(there)
    }
}

/// Where lines go.
pub struct Place {
    topic: String,
    /// `None`: the client chooses.
    partition: Option<i32>,
    key: Option<String>,
    headers: Option<OwnedHeaders>,
}

/// Waits for what a thread of the client does.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// Repeats what may be repeated.
fn retried(mut step: impl FnMut() -> Result<(), KafkaError>) -> Result<(), TargetError> {
    let begun = Instant::now();
    loop {
        match step() {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && begun.elapsed() < 5 * PATIENCE => {
                std::thread::park_timeout(Duration::from_millis(100));
            }
            other => return Ok(other?),
        }
    }
}

fn is_fatal(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(Code::Fatal | Code::TopicAuthorizationFailed))
}

/// Which of so many has this name: the same each time (CRC32C).
fn spot(name: &str, of: i32) -> i32 {
    (logweir::log::checksum::crc32c(name.as_bytes()) % of.max(1) as u32) as i32
}

fn client(options: &ShipTarget) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &options.brokers)
        .set("client.id", "logweir-ship")
        .set("allow.auto.create.topics", "true")
        .set_log_level(RDKafkaLogLevel::Warning);
    let protocol = match (options.tls, options.sasl.is_some()) {
        (false, false) => "plaintext",
        (true, false) => "ssl",
        (false, true) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(ca) = &options.tls_ca {
        config.set("ssl.ca.location", ca.to_string_lossy());
    }
    if let Some((cert, key)) = &options.tls_client {
        config.set("ssl.certificate.location", cert.to_string_lossy());
        config.set("ssl.key.location", key.to_string_lossy());
    }
    if let Some((mechanism, user, file)) = &options.sasl {
        config.set("sasl.mechanism", mechanism.to_string()).set("sasl.username", user);
        if let Ok(password) = std::fs::read_to_string(file) {
            config.set("sasl.password", password.trim_end());
        }
    }
    config
}
