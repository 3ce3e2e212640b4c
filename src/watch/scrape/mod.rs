//! Reads the `/metrics` of a server, for `top` and `doctor --use`. It knows no server, only the text.

pub mod about;
pub mod fetch;
pub mod text;
pub mod view;
pub mod window;

pub use about::About;
pub use fetch::fetch;
pub use text::{Sample, Scrape};
pub use view::View;
pub use window::Window;

/// Makes text safe for a terminal: control characters (and those that change the direction of writing) become escapes. So nothing
/// that was read from a file, a device or a server can move the cursor or set a title.
#[must_use]
pub fn printable(text: &str) -> String {
    let is_harmless = |c: char| {
        !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_harmless(c) { out.push(c) } else { out.extend(c.escape_unicode()) }
    }
    out
}

/// A number as people read it: `950`, `12.3 k`, `4.56 M`.
#[must_use]
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return "-".into();
    }
    let (scaled, unit) = match value.abs() {
        a if a >= 1e12 => (value / 1e12, " T"),
        a if a >= 1e9 => (value / 1e9, " G"),
        a if a >= 1e6 => (value / 1e6, " M"),
        a if a >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        a if unit.is_empty() && (scaled.fract() == 0.0 || a >= 100.0) => 0,
        a if a >= 100.0 => 0,
        a if a >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{unit}")
}

/// A share as people read it: `42.0 %`.
#[must_use]
pub fn short_share(share: f64, digits: usize) -> String {
    if share.is_finite() { format!("{:.digits$} %", share * 100.0) } else { "-".into() }
}

/// Bytes as people read them, in powers of ten: `950 B`, `12.3 kB`.
#[must_use]
pub fn short_bytes(value: f64) -> String {
    let text = short(value);
    match text.chars().last() {
        Some('-') => text,
        Some(last) if last.is_ascii_digit() => text + " B",
        _ => text + "B",
    }
}

/// A time as people read it: `87 us`, `1.2 ms`, `3.4 s`.
#[must_use]
pub fn short_time(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "-".into(),
        s if s < 1e-3 => format!("{:.0} us", s * 1e6),
        s if s < 1e-2 => format!("{:.2} ms", s * 1e3),
        s if s < 0.1 => format!("{:.1} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// A span of time as people read it, in its two largest units: `45 s`, `12 min`, `3 h 4 min`, `12 d 3 h`.
#[must_use]
pub fn short_span(seconds: f64) -> String {
    // `as` saturates, and makes 0 of what is no number.
    let (seconds, minutes) = (seconds as u64, seconds as u64 / 60);
    match minutes {
        0 => format!("{seconds} s"),
        1..60 => format!("{minutes} min"),
        60..1440 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} d {} h", minutes / 1440, minutes % 1440 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 7.0, 0.5, 950.4, 9999.0, 12_345.0, 4_560_000.0, 2.5e9, 1e15, f64::NAN].map(short);
        assert_eq!(shown, ["0", "7", "0.50", "950", "9999", "12.3 k", "4.56 M", "2.50 G", "1000 T", "-"]);
        assert_eq!([0.0, 12_345.0, f64::NAN].map(short_bytes), ["0 B", "12.3 kB", "-"]);
        assert_eq!([0.421, f64::NAN].map(|share| short_share(share, 1)), ["42.1 %", "-"]);
        assert_eq!(
            [-1.0, 59.9, 60.0, 11_040.0, 97_200.0].map(short_span),
            ["0 s", "59 s", "1 min", "3 h 4 min", "1 d 3 h"]
        );
        assert_eq!([87e-6, 1.2e-3, 0.25, 3.4].map(short_time), ["87 us", "1.20 ms", "250 ms", "3.40 s"]);
    }

    proptest! {
        #[test]
        fn nothing_that_moves_a_cursor_is_left(text in any::<String>()) {
            prop_assert!(!printable(&text).chars().any(char::is_control));
        }
    }
}
