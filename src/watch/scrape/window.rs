//! What happened between two scrapes: rates of counters, and quantiles of histograms.

use super::text::{Sample, Scrape};
use std::collections::HashMap;

/// Two scrapes of one server and the time between them.
#[derive(Debug, Clone)]
pub struct Window {
    /// The earlier.
    pub before: Scrape,
    /// The later.
    pub after: Scrape,
    /// Between them.
    pub seconds: f64,
}

/// By how much a counter grew. One that is smaller than before began anew (a restart): then all of it is growth.
fn growth(before: f64, after: f64) -> f64 {
    let grown = if after < before { after } else { after - before };
    if grown.is_finite() { grown.max(0.0) } else { 0.0 }
}

impl Window {
    /// By how much each series of a counter grew.
    fn growths<'a>(
        &'a self,
        name: &'a str,
        filter: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = (&'a Sample, f64)> {
        let key = |s: &'a Sample| {
            let mut labels: Vec<(&str, &str)> = s.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            labels.sort_unstable();
            labels
        };
        let before: HashMap<_, f64> = self.before.of(name, filter).map(|s| (key(s), s.value)).collect();
        // A series that was not there stood at 0.
        self.after.of(name, filter).map(move |s| (s, growth(before.get(&key(s)).copied().unwrap_or(0.0), s.value)))
    }

    /// By how much a counter grew, over all its series with these labels.
    #[must_use]
    pub fn growth(&self, name: &str, filter: &[(&str, &str)]) -> f64 {
        self.growths(name, filter).fold(0.0, |a, (_, n)| a + n)
    }

    /// The same a second. No number (NaN) where there is no time between the two: one scrape alone tells of no rate.
    #[must_use]
    pub fn rate(&self, name: &str, filter: &[(&str, &str)]) -> f64 {
        if self.seconds > 0.0 { self.growth(name, filter) / self.seconds } else { f64::NAN }
    }

    /// False if the server has started anew between the two: what happened in between cannot be told.
    #[must_use]
    pub fn is_of_one_run(&self) -> bool {
        let start = |scrape: &Scrape| scrape.max("process_start_time_seconds", &[]);
        // The kernel's start of the machine, which is in it, may jump by a second.
        start(&self.before).zip(start(&self.after)).is_none_or(|(before, after)| (before - after).abs() < 2.0)
    }

    /// A quantile of a histogram (`name` without `_bucket`), in its unit, as `histogram_quantile` estimates it: evenly spread
    /// inside a bucket, the greatest finite bound for what is above. `None`: nothing was counted.
    #[must_use]
    pub fn quantile(&self, name: &str, filter: &[(&str, &str)], q: f64) -> Option<f64> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (sample, n) in self.growths(&format!("{name}_bucket"), filter) {
            let Some(bound) = sample.label("le").and_then(bound) else { continue };
            match buckets.iter_mut().find(|(b, _)| *b == bound) {
                Some((_, sum)) => *sum += n,
                None => buckets.push((bound, n)),
            }
        }
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total = buckets.last().map(|(_, n)| *n).filter(|n| *n > 0.0)?;
        let rank = q.clamp(0.0, 1.0) * total;
        let at = buckets.iter().position(|(_, n)| *n >= rank).unwrap_or(buckets.len() - 1);
        let (below, counted) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
        let (bound, upto) = buckets[at];
        if !bound.is_finite() {
            return Some(below);
        }
        let inside = upto - counted;
        let share = if inside > 0.0 { ((rank - counted) / inside).clamp(0.0, 1.0) } else { 1.0 };
        Some(below + (bound - below) * share)
    }
}

fn bound(text: &str) -> Option<f64> {
    let value = if text == "+Inf" { f64::INFINITY } else { text.parse().ok()? };
    (!value.is_nan()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(before: &str, after: &str) -> Window {
        Window { before: Scrape::parse(before), after: Scrape::parse(after), seconds: 2.0 }
    }

    #[test]
    fn rates_are_sums_over_series() {
        let w = window("a{l=\"x\",r=\"1\"} 10\na{l=\"y\"} 5\n", "a{r=\"1\",l=\"x\"} 30\na{l=\"y\"} 5\na{l=\"z\"} 4\n");
        assert_eq!(w.rate("a", &[]), 12.0);
        assert_eq!(w.rate("a", &[("l", "x")]), 10.0);
        assert_eq!(w.rate("b", &[]), 0.0);
    }

    #[test]
    fn a_restart_is_no_negative_rate() {
        assert_eq!(window("a 1000\n", "a 6\n").rate("a", &[]), 3.0);
        assert!(Window { seconds: 0.0, ..window("a 1\n", "a 2\n") }.rate("a", &[]).is_nan());
        assert_eq!(window("a NaN\n", "a 5\n").rate("a", &[]), 0.0);
    }

    #[test]
    fn another_start_is_another_run() {
        let runs = |before, after| {
            let text = |start| format!("process_start_time_seconds {start}\n");
            window(&text(before), &text(after)).is_of_one_run()
        };
        assert!(runs(1000.0, 1000.0) && runs(1000.0, 1001.0) && !runs(1000.0, 1007.5));
        assert!(window("", "process_start_time_seconds 5\n").is_of_one_run(), "who does not say is one");
    }

    #[test]
    fn quantiles_are_estimated_inside_their_bucket() {
        let zero = "h_bucket{le=\"1\"} 0\nh_bucket{le=\"2\"} 0\nh_bucket{le=\"+Inf\"} 0\n";
        let w = window(zero, "h_bucket{le=\"1\"} 50\nh_bucket{le=\"2\"} 100\nh_bucket{le=\"+Inf\"} 100\n");
        assert_eq!(w.quantile("h", &[], 0.5), Some(1.0));
        assert_eq!(w.quantile("h", &[], 0.75), Some(1.5));
        assert_eq!(window(zero, zero).quantile("h", &[], 0.5), None);
        let above = window(zero, "h_bucket{le=\"1\"} 0\nh_bucket{le=\"2\"} 0\nh_bucket{le=\"+Inf\"} 7\n");
        assert_eq!(above.quantile("h", &[], 0.99), Some(2.0), "the greatest finite bound");
    }

    proptest! {
        #[test]
        fn quantiles_are_ordered_and_rates_never_negative(
            counts in proptest::collection::vec((0u32..1000, 0u32..1000), 1..8),
            text in "[a-z_]{1,3}(\\{le=\"[0-9.+Inf]{0,5}\"\\})? -?[0-9a-zA-Z.]{0,6}\n",
        ) {
            let series = |pick: &dyn Fn(&(u32, u32)) -> u32| {
                let mut sum = 0;
                let mut out = String::new();
                for (i, pair) in counts.iter().enumerate() {
                    sum += pick(pair);
                    out += &format!("h_bucket{{le=\"{}\"}} {sum}\n", i + 1);
                }
                out + &format!("h_bucket{{le=\"+Inf\"}} {sum}\n") + &text
            };
            let w = window(&series(&|p| p.0), &series(&|p| p.1));
            prop_assert!(w.rate("h_bucket", &[]) >= 0.0);
            let found: Vec<f64> = [0.0, 0.5, 0.9, 0.99, 1.0].iter().filter_map(|q| w.quantile("h", &[], *q)).collect();
            // After a reset the sums of buckets need not grow with the bound; quantiles stay within the bounds all the same.
            prop_assert!(found.iter().all(|v| (0.0..=counts.len() as f64).contains(v)));
            let whole = window("", &series(&|p| p.1));
            let found: Vec<f64> = [0.0, 0.5, 0.9, 0.99, 1.0].iter().filter_map(|q| whole.quantile("h", &[], *q)).collect();
            prop_assert!(found.is_sorted());
        }
    }
}
