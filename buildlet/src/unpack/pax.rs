//! PAX records: `length key=value\n`, as POSIX has them. Values may hold newlines, so the length
//! rules. Pure.

/// What the records of one member say, as far as it matters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) modified: Option<(i64, u32)>,
    /// Some record is about a sparse file.
    pub(super) sparse: bool,
}

/// Digits of a record's length; more would be beyond any bound.
const MOST_DIGITS: usize = 10;

/// Reads records; the error says what is wrong.
pub(super) fn parse(mut records: &[u8]) -> Result<Pax, String> {
    let mut pax = Pax::default();
    while !records.is_empty() {
        let (record, rest) = split(records).ok_or("its PAX records are malformed")?;
        records = rest;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or("a PAX record has no '='")?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        match key {
            b"path" => pax.path = Some(value.to_vec()),
            b"linkpath" => pax.link = Some(value.to_vec()),
            b"size" => pax.size = Some(number(value).ok_or("its PAX size is no number")?),
            b"mtime" => pax.modified = Some(time(value).ok_or("its PAX mtime is no time")?),
            key if key.starts_with(b"GNU.sparse.") => {
                pax.sparse = true;
                if key == b"GNU.sparse.name" {
                    pax.path = Some(value.to_vec());
                }
            }
            _ => {}
        }
    }
    Ok(pax)
}

/// The first record without its length and newline, and what follows it.
fn split(records: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = records.iter().take(MOST_DIGITS + 1).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&records[..blank])?).ok()?;
    let record = records.get(blank + 1..length)?;
    Some((record.strip_suffix(b"\n")?, &records[length..]))
}

fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional sign and fraction; whole nanoseconds, rounded down.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let point = text.iter().position(|byte| *byte == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(number(&text[..point])?).ok()?;
    let mut nanoseconds = 0;
    let fraction = text.get(point + 1..).unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    for place in 0..9 {
        nanoseconds = nanoseconds * 10 + u32::from(fraction.get(place).map_or(0, |digit| digit - b'0'));
    }
    Some(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: &str) -> Vec<u8> {
        let rest = format!(" {key}={value}\n");
        let mut length = rest.len();
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        format!("{length}{rest}").into_bytes()
    }

    #[test]
    fn records_are_read_by_their_length() {
        let records = [
            record("path", "with\nnewline=and more"),
            record("size", "8589934592"),
            record("mtime", "1500000000.25"),
            record("comment", ""),
        ]
        .concat();
        let pax = parse(&records).unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"with\nnewline=and more"[..]));
        assert_eq!((pax.size, pax.modified, pax.sparse), (Some(1 << 33), Some((1_500_000_000, 250_000_000)), false));
        assert!(parse(&record("GNU.sparse.major", "1")).unwrap().sparse);
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(parse(b""), Ok(Pax::default()));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in [
            &b"x"[..],
            b"5 a=",
            b"4 a=\nrest",
            b" a=b\n",
            b"99999999999999999999 a=b\n",
            b"6 abc\n",
            b"0 a=b\n",
            b"1 a=b\n",
            b"10 size=x\n\n",
            b"9 size=-1\n",
            b"11 mtime=1.x\n",
        ] {
            assert!(parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
