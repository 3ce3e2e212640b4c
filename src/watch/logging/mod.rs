//! logweir's own log: to standard error, structured, levelled, fit for journald. A thread that logs never waits for the line to
//! be written: lines go through a bounded queue to one thread (`outlet`).

mod flood;
mod outlet;

use crate::config::checked::LogOptions;
use crate::config::raw::{LogFormat, LogLevel};
use flood::Flood;
use outlet::STDERR;
use std::fmt;
use std::time::Duration;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// How long the program waits at its end for the last log lines to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Collects log lines from now on. They are written after [`run`]. A second call changes nothing.
pub fn start(options: LogOptions) {
    let level = match options.level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let layer =
        tracing_subscriber::fmt::layer().with_writer(Flood::new()).with_target(false).log_internal_errors(false);
    let format = match options.format {
        LogFormat::Auto if std::env::var_os("JOURNAL_STREAM").is_some() => LogFormat::Journal,
        LogFormat::Auto => LogFormat::Text,
        other => other,
    };
    let layer = match format {
        LogFormat::Json => layer.json().boxed(),
        LogFormat::Journal => layer.with_ansi(false).event_format(Journal).boxed(),
        _ => layer.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).boxed(),
    };
    // An error means that a logger runs already: tests start servers in one process.
    let _ = tracing_subscriber::registry().with(LevelFilter::from_level(level)).with(layer).try_init();
    // The standard library's words on a panic would be written by the thread that panics; and what writes events may be what
    // has panicked.
    std::panic::set_hook(Box::new(move |panic| {
        let text = format!("a bug: {panic}").replace('\n', " ");
        let line = match format {
            LogFormat::Json => serde_json::json!({ "level": "ERROR", "fields": { "message": text } }).to_string(),
            LogFormat::Journal => format!("<3>{text}"),
            _ => format!("ERROR {text}"),
        };
        STDERR.push((line + "\n").into_bytes());
    }));
}

/// Starts the thread that writes the lines. Call it after everything that threads must inherit.
///
/// # Errors
/// The thread cannot be started.
pub fn run() -> std::io::Result<()> {
    STDERR.start()
}

/// Waits for the last lines to be written, for a limited time.
pub fn finish() {
    STDERR.finish(LAST_WORDS);
}

/// How many lines were not read in time, and how many were left out because there were too many of their kind.
#[must_use]
pub fn dropped() -> (u64, u64) {
    STDERR.dropped()
}

/// `<3>message key=value`: sd-daemon(3) priorities, and no time, which the journal adds.
struct Journal;

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        write!(writer, "<{priority}>")?;
        Format::default()
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_ansi(false)
            .format_event(context, writer, event)
    }
}
