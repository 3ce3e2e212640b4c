//! How long a line takes from a sender to a reader of what is committed: sends lines with the time in them to a server, at an even pace, and
//! reads the topic meanwhile. Prints p50, p99 and the longest, in milliseconds.
//!
//!     cargo bench -p logweir-ship --bench lag -- BROKERS TOPIC SERVER [LINES_A_SECOND] [SECONDS]

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const PATIENCE: Duration = Duration::from_secs(30);
/// Lines are sent in so many writes a second.
const WRITES: u64 = 200;

fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [brokers, topic, server, more @ ..] = args.as_slice() else {
        println!("lag: not run, as it needs BROKERS TOPIC SERVER");
        return Ok(());
    };
    let number = |place: usize, default| more.get(place).map_or(Ok(default), |word| word.parse::<u64>());
    let (rate, seconds) = (number(0, 10_000)?, number(1, 10)?);
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "lag")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .set("fetch.wait.max.ms", "10")
        .create()?;
    let mut stream = TcpStream::connect(server)?;
    // The first line makes the topic, and what has to be connected.
    writeln!(stream, "begin 0")?;
    let begun = Instant::now();
    let mut from = TopicPartitionList::new();
    while from.count() == 0 && begun.elapsed() < PATIENCE {
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
        for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
            from.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        }
    }
    consumer.assign(&from)?;
    std::thread::sleep(Duration::from_secs(3));
    let lines = rate * seconds;
    let first = now_us(); // what an earlier run has sent does not count
    let sender = std::thread::spawn(move || -> std::io::Result<()> {
        let (begun, a_write) = (Instant::now(), (rate / WRITES).max(1));
        let filler = "x".repeat(230);
        for sent in (0..lines).step_by(a_write as usize) {
            let due = Duration::from_secs_f64(sent as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            let mut text = Vec::new();
            (0..a_write).try_for_each(|_| writeln!(text, "at {} {filler}", now_us()))?;
            stream.write_all(&text)?;
        }
        Ok(())
    });
    let (mut lags, begun) = (Vec::new(), Instant::now());
    while (lags.len() as u64) < lines && begun.elapsed() < Duration::from_secs(seconds) + PATIENCE {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            let text = String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned();
            if let Some(at) = text.strip_prefix("at ").and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok()) {
                lags.extend((at >= first).then(|| now_us().saturating_sub(at)));
            }
        }
    }
    sender.join().map_err(|_| "the sender died")??;
    lags.sort_unstable();
    let at = |share: f64| lags.get((lags.len() as f64 * share) as usize).copied().unwrap_or_default() as f64 / 1e3;
    let longest = lags.last().copied().unwrap_or_default() as f64 / 1e3;
    println!("lines={} p50_ms={:.0} p99_ms={:.0} max_ms={longest:.0}", lags.len(), at(0.5), at(0.99));
    Ok(())
}
