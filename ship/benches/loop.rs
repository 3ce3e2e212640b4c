//! What librdkafka alone can do with the same lines: reads a file line by line and sends each as a message, with the settings of the shipper
//! and nothing else; no positions, no files of a server. Prints lines a second.
//!
//!     cargo bench -p logweir-ship --bench loop -- BROKERS TOPIC FILE [exactly_once] [TRANSACTION_MIB] [KEY=VALUE…]

use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// As the shipper's transactions, in MiB.
const TRANSACTION: usize = 64;

/// As the shipper waits: the flush of rdkafka looks ten times a second.
fn drain(producer: &BaseProducer) {
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(1));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [brokers, topic, file, more @ ..] = args.as_slice() else {
        println!("loop: not run, as it needs BROKERS TOPIC FILE");
        return Ok(());
    };
    let transaction_bytes = more.iter().find_map(|word| word.parse::<usize>().ok()).unwrap_or(TRANSACTION) << 20;
    let is_once = more.first().is_some_and(|word| word == "exactly_once");
    let text = std::fs::read(file)?;
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("batch.size", "1000000")
        .set("max.in.flight", "5")
        .set("queue.buffering.max.kbytes", "32768")
        .set("queue.buffering.max.messages", "100000")
        .set("compression.type", "lz4");
    if is_once {
        config.set("transactional.id", "loop");
    }
    for (key, value) in more.iter().filter_map(|word| word.split_once('=')) {
        config.set(key, value);
    }
    let producer: BaseProducer = config.create()?;
    producer.client().fetch_metadata(Some(topic), PATIENCE)?;
    if is_once {
        producer.init_transactions(PATIENCE)?;
    }
    let begun = Instant::now();
    let (mut lines, mut from, mut bytes) = (0_u64, 0, 0);
    for end in memchr::memchr_iter(b'\n', &text) {
        if is_once && bytes == 0 {
            producer.begin_transaction()?;
        }
        let line = &text[from..end];
        let mut record: BaseRecord<'_, (), [u8]> =
            BaseRecord::to(topic).partition(0).payload(line).timestamp(1_700_000_000_000);
        while let Err((error, back)) = producer.send(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            record = back;
            producer.poll(Duration::from_millis(10));
        }
        (lines, bytes) = (lines + 1, bytes + line.len() + 1);
        from = end + 1;
        if is_once && bytes >= transaction_bytes {
            drain(&producer);
            producer.commit_transaction(PATIENCE)?;
            bytes = 0;
        }
    }
    drain(&producer);
    if is_once && bytes > 0 {
        producer.commit_transaction(PATIENCE)?;
    }
    println!("{:.0}", lines as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}
