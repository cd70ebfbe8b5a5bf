//! Amounts as people read them.

use std::time::Duration;

/// A duration in Go's notation, to the second: `29m59s`, `2h0m5s`, `0s`.
pub(crate) fn duration(duration: Duration) -> String {
    let total = duration.as_secs();
    let (hours, minutes, seconds) = (total / 3600, total / 60 % 60, total % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// The same to the millisecond, as Go prints durations: `10m27.3s`, `250ms`.
pub(crate) fn exact(duration: Duration) -> String {
    if duration < Duration::from_secs(1) && !duration.is_zero() {
        return format!("{}ms", duration.as_millis());
    }
    let whole = self::duration(duration);
    match duration.subsec_millis() {
        0 => whole,
        millis => {
            let fraction = format!("{millis:03}");
            format!("{}.{}s", whole.trim_end_matches('s'), fraction.trim_end_matches('0'))
        }
    }
}

/// How long something took: `0.21 s`.
pub(crate) fn took(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// Bytes in decimal units: `114.4 MB`.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut amount = bytes as f64;
    let mut unit = 0;
    // 999.95 would be shown as 1000.0.
    while amount >= 999.95 && unit + 1 < UNITS.len() {
        amount /= 1000.0;
        unit += 1;
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// `1 file`, `2 files`.
pub(crate) fn count(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// `1 entry`, `2 entries`: files, directories and whatever else there is.
pub(crate) fn entries(n: u64) -> String {
    if n == 1 { "1 entry".to_owned() } else { format!("{n} entries") }
}

/// The time between two moments of the farm's clock; zero if the second is not later.
pub(crate) fn between(from_ms: i64, to_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_gos() {
        for (seconds, text) in [(0, "0s"), (59, "59s"), (1799, "29m59s"), (3600, "1h0m0s"), (7205, "2h0m5s")] {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn exact_durations_read_as_gos() {
        for (ms, text) in [(0, "0s"), (250, "250ms"), (627_300, "10m27.3s"), (5_000, "5s"), (3_600_007, "1h0m0.007s")] {
            assert_eq!(exact(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn bytes_read_in_decimal_units() {
        for (n, text) in [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (114_400_000, "114.4 MB")]
        {
            assert_eq!(bytes(n), text);
        }
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
        assert_eq!(between(5, 3), Duration::ZERO);
    }
}
