//! A line of `ls -l` for a file, which clients show as it is.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The line, with times in UTC and owners as numbers.
pub(super) fn line(name: &[u8], meta: &Metadata) -> Vec<u8> {
    let (year, month, day) = date(meta.mtime().div_euclid(86_400));
    let head = format!(
        "{} {:>4} {:<8} {:<8} {:>12} {} {day:>2} {year:>5} ",
        mode(meta.mode()),
        meta.nlink(),
        meta.uid(),
        meta.gid(),
        meta.len(),
        MONTHS[month],
    );
    [head.as_bytes(), name].concat()
}

fn mode(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o140_000 => 's',
        0o060_000 => 'b',
        0o020_000 => 'c',
        0o010_000 => 'p',
        _ => '-',
    };
    let bits = (0..9).map(|n| if mode & (0o400 >> n) == 0 { '-' } else { ['r', 'w', 'x'][n % 3] });
    std::iter::once(kind).chain(bits).collect()
}

/// Year, month from 0, and day of a day counted from 1970-01-01 (Gregorian, by eras of 400 years that
/// begin on 1 March).
fn date(days: i64) -> (i64, usize, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = era * 400 + year_of_era + i64::from(month < 2);
    (year, usize::try_from(month).unwrap_or(0), day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        for (days, expected) in [
            (0, (1970, 0, 1)),
            (11_016, (2000, 1, 29)),
            (11_017, (2000, 2, 1)),
            (20_783, (2026, 10, 26)),
            (-1, (1969, 11, 31)),
        ] {
            assert_eq!(date(days), expected, "{days}");
        }
        assert_eq!(mode(0o100_754), "-rwxr-xr--");
        assert_eq!(mode(0o040_700), "drwx------");
    }
}
