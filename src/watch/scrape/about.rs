//! Which server it is that answers: host, version, uptime, data directory.

use super::{Scrape, short_span};

/// What a server says of itself; `None`: it does not say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct About {
    /// The name of its host.
    pub host: Option<String>,
    /// `0.1.0 (a1b2c3d4e5f6)`
    pub version: Option<String>,
    /// For how many seconds it has been running, by its own clock.
    pub uptime: Option<f64>,
    /// Where its lines are.
    pub data_dir: Option<String>,
}

impl About {
    /// Reads it out of a scrape.
    #[must_use]
    pub fn new(scrape: &Scrape) -> About {
        let label = |name: &str, key: &str| scrape.label(name, key).filter(|v| !v.is_empty()).map(str::to_string);
        let commit = label("logweir_build_info", "commit").map_or(String::new(), |commit| format!(" ({commit})"));
        let started = scrape.max("process_start_time_seconds", &[]);
        About {
            host: label("logweir_server_info", "host"),
            version: label("logweir_build_info", "version").map(|version| version + &commit),
            uptime: scrape.time.zip(started).map(|(now, started)| (now - started).max(0.0)),
            data_dir: label("logweir_server_info", "data_dir"),
        }
    }

    /// `up 3 h 4 min`
    #[must_use]
    pub fn uptime_text(&self) -> Option<String> {
        self.uptime.map(|seconds| format!("up {}", short_span(seconds)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_by_the_clock_of_the_server() {
        let text = "logweir_build_info{version=\"1.2\",commit=\"ab\"} 1\nlogweir_server_info{host=\"\",data_dir=\"/d\"} 1\n\
                    process_start_time_seconds 1000.5\n";
        let mut scrape = Scrape::parse(text);
        let about = About::new(&scrape);
        assert_eq!((about.version.as_deref(), about.data_dir.as_deref()), (Some("1.2 (ab)"), Some("/d")));
        assert_eq!((about.host, about.uptime), (None, None), "an empty label is none; no clock, no uptime");
        scrape.time = Some(8261.0);
        assert_eq!(About::new(&scrape).uptime_text().as_deref(), Some("up 2 h 1 min"));
        // Seconds of `Date` are whole: the start may seem to lie ahead.
        scrape.time = Some(1000.0);
        assert_eq!(About::new(&scrape).uptime_text().as_deref(), Some("up 0 s"));
        assert_eq!(About::new(&Scrape::parse("")), About::default());
    }
}
