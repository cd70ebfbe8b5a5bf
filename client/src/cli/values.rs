//! Values of flags, read from text.

use std::time::Duration;

/// A duration as Go prints it (`90s`, `1h30m`), longer than nothing.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration.as_millis() > 0 => Ok(duration),
        Ok(_) => Err("must be longer than nothing".to_owned()),
        Err(error) => Err(format!("{error}; write 90s, 10m or 1h30m")),
    }
}

/// Permission bits in octal: `755`, `0755`.
pub(super) fn permissions(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        // The wire has zero for "as usual", and a file that nobody may open is of no use.
        Ok(0) => Err("nobody could read that file; write 644 or 755".to_owned()),
        Ok(mode) if mode <= 0o777 => Ok(mode),
        Ok(_) => Err("only permission bits are put, at most 777".to_owned()),
        Err(_) => Err("not an octal number; write 644 or 755".to_owned()),
    }
}

/// Bytes as people write them: `1000`, `500MB`, `10GiB`, `2g` (which is GiB, as most tools have it).
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || "not a size; write 1000, 500MB or 10GiB".to_owned();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().map_err(|_| wrong())?;
    let unit = match text[digits..].trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(unit).ok_or_else(|| "more than any disk holds".to_owned())
}

/// The truth values of Go's `strconv.ParseBool`.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// For switches that are on unless they are switched off.
pub(super) fn truth(text: &str) -> Result<bool, String> {
    go_bool(text).ok_or_else(|| "neither true nor false".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_prints_them() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("29m59s"), Ok(Duration::from_secs(1799)));
        assert!(duration("0s").is_err() && duration("5").is_err());
    }

    #[test]
    fn sizes_have_decimal_and_binary_units() {
        for (text, bytes) in [("0", 0), ("1000", 1000), ("500MB", 500_000_000), ("10GiB", 10 << 30), ("2g", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes));
        }
        for wrong in ["", "-1", "MB", "1.5G", "1 light-year", "99999999999TB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn permissions_are_octal_and_no_more_than_that() {
        assert_eq!((permissions("755"), permissions("0644")), (Ok(0o755), Ok(0o644)));
        for wrong in ["0", "9", "4755", "rwx", "-1", ""] {
            assert!(permissions(wrong).is_err(), "{wrong}");
        }
    }
}
