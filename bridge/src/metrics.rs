//! Counters and histograms, in the text form that Prometheus reads.

use crate::backend::Stage;
use crate::records::Outcome;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of a stage's buckets, in milliseconds.
const BUCKETS_MS: [u64; 10] = [1, 2, 5, 10, 25, 100, 500, 2_500, 10_000, 60_000];

/// See the module.
#[derive(Default)]
pub struct Metrics {
    requests: [AtomicU64; Outcome::ALL.len()],
    stages: [StageTimes; Stage::ALL.len()],
    /// Bytes of requests, as they were sent and unpacked.
    pub received_bytes: AtomicU64,
    /// See `received_bytes`.
    pub unpacked_bytes: AtomicU64,
    /// Calls that were refused for their credential.
    pub refused: AtomicU64,
    /// Inputs that the bridge read itself.
    pub local_inputs: AtomicU64,
}

#[derive(Default)]
struct StageTimes {
    buckets: [AtomicU64; BUCKETS_MS.len()],
    count: AtomicU64,
    sum_us: AtomicU64,
}

impl Metrics {
    /// A request ended.
    pub fn request(&self, outcome: Outcome) {
        if let Some(n) = Outcome::ALL.iter().position(|other| *other == outcome) {
            self.requests[n].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many ended so.
    pub fn requests(&self, outcome: Outcome) -> u64 {
        Outcome::ALL.iter().position(|other| *other == outcome).map_or(0, |n| self.requests[n].load(Ordering::Relaxed))
    }

    /// A stage took so long.
    pub fn stage(&self, stage: Stage, took: Duration) {
        let Some(n) = Stage::ALL.iter().position(|other| *other == stage) else { return };
        let times = &self.stages[n];
        times.count.fetch_add(1, Ordering::Relaxed);
        times.sum_us.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        for (bucket, most) in times.buckets.iter().zip(BUCKETS_MS) {
            if took <= Duration::from_millis(most) {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// All of it, with `gauges`: name, help and value of what is looked at now.
    pub fn render(&self, gauges: &[(&str, &str, u64)]) -> String {
        let mut text = String::new();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut line = |text_line: std::fmt::Arguments<'_>| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{text_line}");
        };
        line(format_args!("# HELP mote_bridge_requests_total Compile requests, by how they ended."));
        line(format_args!("# TYPE mote_bridge_requests_total counter"));
        for (outcome, counter) in Outcome::ALL.iter().zip(&self.requests) {
            line(format_args!("mote_bridge_requests_total{{outcome=\"{}\"}} {}", outcome.name(), load(counter)));
        }
        line(format_args!("# HELP mote_bridge_stage_seconds Time of each stage of a compile request."));
        line(format_args!("# TYPE mote_bridge_stage_seconds histogram"));
        for (stage, times) in Stage::ALL.iter().zip(&self.stages) {
            for (bucket, most) in times.buckets.iter().zip(BUCKETS_MS) {
                let most = most as f64 / 1000.0;
                line(format_args!(
                    "mote_bridge_stage_seconds_bucket{{stage=\"{stage}\",le=\"{most}\"}} {}",
                    load(bucket)
                ));
            }
            let (count, sum) = (load(&times.count), load(&times.sum_us) as f64 / 1e6);
            line(format_args!("mote_bridge_stage_seconds_bucket{{stage=\"{stage}\",le=\"+Inf\"}} {count}"));
            line(format_args!("mote_bridge_stage_seconds_sum{{stage=\"{stage}\"}} {sum}"));
            line(format_args!("mote_bridge_stage_seconds_count{{stage=\"{stage}\"}} {count}"));
        }
        for (name, help, counter) in [
            ("received_bytes_total", "Bytes of requests as they were sent.", &self.received_bytes),
            ("unpacked_bytes_total", "Bytes of requests after unpacking.", &self.unpacked_bytes),
            ("refused_total", "Calls refused for their credential.", &self.refused),
            ("local_inputs_total", "Inputs read where they lie.", &self.local_inputs),
        ] {
            line(format_args!("# HELP mote_bridge_{name} {help}\n# TYPE mote_bridge_{name} counter"));
            line(format_args!("mote_bridge_{name} {}", load(counter)));
        }
        for (name, help, value) in gauges {
            line(format_args!("# HELP mote_bridge_{name} {help}\n# TYPE mote_bridge_{name} gauge"));
            line(format_args!("mote_bridge_{name} {value}"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happened_is_counted_by_its_name() {
        let metrics = Metrics::default();
        metrics.request(Outcome::Cached);
        metrics.stage(Stage::Lookup, Duration::from_millis(3));
        let text = metrics.render(&[("running", "Actions that run.", 7)]);
        for line in [
            "mote_bridge_requests_total{outcome=\"cached\"} 1",
            "mote_bridge_stage_seconds_bucket{stage=\"lookup\",le=\"0.002\"} 0",
            "mote_bridge_stage_seconds_bucket{stage=\"lookup\",le=\"0.005\"} 1",
            "mote_bridge_stage_seconds_count{stage=\"lookup\"} 1",
            "mote_bridge_running 7",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in\n{text}");
        }
        assert_eq!((metrics.requests(Outcome::Cached), metrics.requests(Outcome::Failed)), (1, 0));
    }
}
