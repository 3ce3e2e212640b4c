//! Reads times as people write them, for `--since` and `--until`.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};

/// The forms of a time that are accepted, for messages and help.
const EXPECTED: &str = "expected how long ago (15m, -2h, \"3 days ago\"), a time (2026-11-21T10:00:00+01:00, \"2026-11-21 10:00\", 10:00), a day \
                        (2026-11-21, today, yesterday), now, or @ and seconds since 1970; without a zone it is local time";

/// Reads a time, and returns it in nanoseconds since 1970.
///
/// # Errors
/// The text is not a time, or the time is before 1970.
pub fn moment(text: &str) -> Result<u64, String> {
    at(text, &ZonedDateTime::now()).and_then(|at| u64::try_from(at.as_nanosecond()).ok()).ok_or_else(|| EXPECTED.into())
}

fn at(text: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    let text = text.trim();
    if let Some(seconds) = text.strip_prefix('@') {
        let (whole, part) = seconds.split_once('.').unwrap_or((seconds, "0"));
        let is_number = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
        if whole.starts_with(['-', '+']) || !is_number(part) {
            return None;
        }
        return Timestamp::new(whole.parse().ok()?, format!("{part:0<9}").parse().ok()?).ok();
    }
    let zone = now.time_zone();
    let local = |at: DateTime| at.to_zoned_datetime(zone.clone()).ok().map(|zoned| zoned.timestamp());
    let midnight = |date: Date| local(date.at(0, 0, 0, 0));
    match text {
        "now" => return Some(now.timestamp()),
        "today" => return midnight(now.date()),
        "yesterday" => return midnight(now.date().yesterday().ok()?),
        _ => {}
    }
    let ago = text.strip_prefix('-').or_else(|| text.strip_suffix("ago")).unwrap_or(text);
    if let Ok(ago) = humantime::parse_duration(ago.trim()) {
        return now.timestamp().checked_sub(ago).ok();
    }
    if let Some(utc) = text.strip_suffix("UTC") {
        let today = now.timestamp().to_zoned_datetime(TimeZone::UTC).date();
        let time = || utc.trim().parse::<Time>().ok().filter(|_| utc.contains(':')).map(|time| today.to_datetime(time));
        let at = utc.trim().parse::<DateTime>().ok().or_else(time)?;
        return at.to_zoned_datetime(TimeZone::UTC).ok().map(|zoned| zoned.timestamp());
    }
    let with_zone = || text.parse::<Timestamp>().ok();
    // A day without a time is a DateTime too, at midnight.
    let without = || local(text.parse::<DateTime>().ok()?);
    let of_today = || {
        let time = text.parse::<Time>().ok().filter(|_| text.contains(':'))?;
        local(now.date().to_datetime(time))
    };
    with_zone().or_else(without).or_else(of_today)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> ZonedDateTime {
        "2026-11-21T12:00:00+02:00[+02:00]".parse().unwrap()
    }

    #[test]
    fn moments_are_written_in_many_ways() {
        let of = |text: &str| at(text, &now()).map(|at| at.to_string());
        for (text, expected) in [
            ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00Z"),
            ("2026-11-21T10:00:00+00:00", "2026-11-21T10:00:00Z"), // date -Iseconds
            ("2026-11-21T10:00:00-05:00", "2026-11-21T15:00:00Z"),
            ("2026-11-21T10:00:00+0200", "2026-11-21T08:00:00Z"),
            ("2026-11-21 10:00:00.5Z", "2026-11-21T10:00:00.5Z"),
            ("2026-11-21 10:00 UTC", "2026-11-21T10:00:00Z"),
            // Local time.
            ("2026-11-21 10:00:00", "2026-11-21T08:00:00Z"),
            ("2026-11-21T10:00", "2026-11-21T08:00:00Z"),
            ("2026-11-21", "2026-11-20T22:00:00Z"),
            ("10:00", "2026-11-21T08:00:00Z"),
            ("10:00:30", "2026-11-21T08:00:30Z"),
            ("10:00 UTC", "2026-11-21T10:00:00Z"),
            ("10:00 UTC", "2026-11-21T10:00:00Z"),
            ("today", "2026-11-20T22:00:00Z"),
            ("yesterday", "2026-11-19T22:00:00Z"),
            ("now", "2026-11-21T10:00:00Z"),
            // How long ago.
            ("10m", "2026-11-21T09:50:00Z"),
            ("-10m", "2026-11-21T09:50:00Z"),
            ("2h 30m", "2026-11-21T07:30:00Z"),
            ("3 days ago", "2026-11-18T10:00:00Z"),
            ("@1795255200", "2026-11-21T10:00:00Z"),
            ("@1795255200.25", "2026-11-21T10:00:00.25Z"),
        ] {
            assert_eq!(of(text).as_deref(), Some(expected), "{text}");
        }
        for bad in
            ["", "tomorrow", "10", "@", "@-1", "@99999999999999999999", "2026-13-01", "2026-11-21T25:00", "-", "ago"]
        {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert!(moment("1969-01-01").is_err());
        assert!(moment("1h").unwrap() < moment("1m").unwrap());
    }
}
