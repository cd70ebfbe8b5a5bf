//! A Go agent's listing, from its lines. Pure; the other direction is `gomote/listing.rs`.

use motefarm_proto::mote::DirEntry;
use motefarm_proto::mote::dir_entry::Kind;
use std::time::UNIX_EPOCH;

/// Longest line: a path with what stands around it.
const MAX_LINE: usize = 16 * 1024;

/// Why a listing can not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ListingError {
    /// Nothing is escaped in a listing, so such a name makes lines of its own.
    #[error("the listing has a line that is none (a name with a tab or a line break in it?): {0:?}")]
    Line(String),
    /// Longer than any path.
    #[error("the listing has a line of more than {MAX_LINE} bytes")]
    TooLong,
    /// Its last line has no end.
    #[error("the listing ends within a line")]
    Cut,
}

/// Takes lines out of pieces.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<u8>);

impl Lines {
    /// Entries of the lines that `piece` completes.
    pub(super) fn push(&mut self, piece: &[u8], entries: &mut Vec<DirEntry>) -> Result<(), ListingError> {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.0.extend_from_slice(&rest[..end]);
            entries.push(entry(&self.0)?);
            self.0.clear();
            rest = &rest[end + 1..];
        }
        self.0.extend_from_slice(rest);
        if self.0.len() > MAX_LINE { Err(ListingError::TooLong) } else { Ok(()) }
    }

    /// To be called at the end.
    pub(super) fn finish(&self) -> Result<(), ListingError> {
        if self.0.is_empty() { Ok(()) } else { Err(ListingError::Cut) }
    }
}

/// One line without its end.
fn entry(line: &[u8]) -> Result<DirEntry, ListingError> {
    let bad = || ListingError::Line(String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned());
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
    let text = |field: &[u8]| std::str::from_utf8(field).map(str::to_owned).map_err(|_| bad());
    let (kind, mode) = mode(&text(fields[0])?).ok_or_else(bad)?;
    let path = *fields.get(1).ok_or_else(bad)?;
    let mut entry = DirEntry { kind: kind.into(), mode, ..DirEntry::default() };
    match (kind, fields.len()) {
        (Kind::File, 4 | 5) => {
            entry.size_bytes = text(fields[2])?.parse().map_err(|_| bad())?;
            entry.modified_at_ms = time(&text(fields[3])?).ok_or_else(bad)?;
            if let Some(hash) = fields.get(4) {
                entry.hash = hex::decode(hash).ok().filter(|hash| hash.len() == 20).ok_or_else(bad)?.into();
            }
        }
        (Kind::File, _) => return Err(bad()),
        (_, 2) => {}
        _ => return Err(bad()),
    }
    let path = match kind {
        Kind::Directory => path.strip_suffix(b"/").ok_or_else(bad)?,
        _ => path,
    };
    entry.path = path.to_vec().into();
    Ok(entry)
}

/// Go's `FileMode` text: letters or a hyphen, then nine permissions.
fn mode(text: &str) -> Option<(Kind, u32)> {
    let (special, permissions) = text.is_ascii().then(|| text.split_at_checked(text.len().checked_sub(9)?))??;
    let mut mode = 0;
    for (place, (letter, expected)) in permissions.chars().zip("rwxrwxrwx".chars()).enumerate() {
        match letter {
            '-' => {}
            _ if letter == expected => mode |= 0o400 >> place,
            _ => return None,
        }
    }
    let mut kind = Kind::File;
    for letter in special.chars() {
        match letter {
            // No more than how the file is to be treated: append-only, exclusive, temporary.
            '-' | 'a' | 'l' | 'T' => {}
            'd' => kind = Kind::Directory,
            'L' => kind = Kind::Symlink,
            'u' => mode |= 0o4000,
            'g' => mode |= 0o2000,
            't' => mode |= 0o1000,
            'D' | 'p' | 'S' | 'c' | '?' => kind = Kind::Other,
            _ => return None,
        }
    }
    (!special.is_empty()).then_some((kind, mode))
}

fn time(text: &str) -> Option<i64> {
    match humantime::parse_rfc3339(text).ok().map(|at| at.duration_since(UNIX_EPOCH)) {
        Some(Ok(since)) => i64::try_from(since.as_millis()).ok(),
        // Times before 1970 or of more than four digits are no reason to have no listing.
        _ => (text.ends_with('Z') && text.contains('T')).then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by the Go agent.
    const LINES: &str = "drwxr-xr-x\tgo/\n\
        -rw-r--r--\tgo/src/a.txt\t3\t2026-11-22T11:01:04Z\t55ca6286e3e4f4fba5d0448333fa99fc5a404a73\n\
        Lrwxrwxrwx\tgo/src/lnk\n\
        dtrwxrwxrwx\tq/\n";

    fn read(text: &[u8]) -> Result<Vec<DirEntry>, ListingError> {
        let (mut lines, mut entries) = (Lines::default(), Vec::new());
        lines.push(text, &mut entries)?;
        lines.finish()?;
        Ok(entries)
    }

    #[test]
    fn lines_of_the_go_agent_are_read_however_they_are_cut() {
        let whole = read(LINES.as_bytes()).unwrap();
        let shape = |e: &DirEntry| (e.kind(), e.mode, String::from_utf8(e.path.to_vec()).unwrap());
        assert_eq!(
            whole.iter().map(shape).collect::<Vec<_>>(),
            [
                (Kind::Directory, 0o755, "go".to_owned()),
                (Kind::File, 0o644, "go/src/a.txt".to_owned()),
                (Kind::Symlink, 0o777, "go/src/lnk".to_owned()),
                (Kind::Directory, 0o1777, "q".to_owned()),
            ]
        );
        assert_eq!((whole[1].size_bytes, whole[1].modified_at_ms), (3, 1_795_345_264_000));
        assert_eq!(hex::encode(&whole[1].hash), "55ca6286e3e4f4fba5d0448333fa99fc5a404a73");
        let (mut lines, mut entries) = (Lines::default(), Vec::new());
        for byte in LINES.as_bytes() {
            lines.push(&[*byte], &mut entries).unwrap();
        }
        assert_eq!(entries, whole);
    }

    #[test]
    fn a_file_by_itself_has_no_name_and_names_may_be_any_bytes() {
        let alone = read(b"urwxr-xr-x\t\t0\t1960-01-01T00:00:00Z\n").unwrap();
        assert_eq!((alone[0].path.len(), alone[0].mode, alone[0].modified_at_ms), (0, 0o4755, 0));
        assert_eq!(&read(b"prw-------\ta\xffb\n").unwrap()[0].path[..], b"a\xffb");
    }

    #[test]
    fn what_is_no_line_is_an_error_and_not_a_guess() {
        for bad in [
            "\n",
            "x\n",
            "-rw-r--r--\n",
            "-rw-r--r--\tname\n",
            "-rw-r--r--\ta\tb\t3\t2026-11-22T11:01:04Z\n",
            "-rw-r--r--\ta\tthree\t2026-11-22T11:01:04Z\n",
            "-rw-r--r--\ta\t3\tyesterday\n",
            "-rw-r--r--\ta\t3\t2026-11-22T11:01:04Z\t55ca\n",
            "drwxr-xr-x\tno-slash\n",
            "zrwxr-xr-x\tx\n",
            "rwxr-xr-x\tx\n",
            "-wrxr-xr-x\tx\t1\t2026-11-22T11:01:04Z\n",
        ] {
            assert!(matches!(read(bad.as_bytes()), Err(ListingError::Line(_))), "{bad:?}");
        }
        assert_eq!(read(b"drwxr-xr-x\tgo/"), Err(ListingError::Cut));
        assert_eq!(read(&vec![b'x'; MAX_LINE + 1]), Err(ListingError::TooLong));
    }
}
