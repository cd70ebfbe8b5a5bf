//! One line of `ls`, as Go's buildlet has always written them: mode, name and, of files, size, time
//! and digest, separated by tabs.

use motefarm_proto::mote::DirEntry;
use motefarm_proto::mote::dir_entry::Kind;
use std::time::{Duration, UNIX_EPOCH};

/// The line without its end, as bytes: names need not be text.
pub(crate) fn line(entry: &DirEntry) -> Vec<u8> {
    let mut line = mode(entry).into_bytes();
    line.push(b'\t');
    line.extend_from_slice(&entry.path);
    match entry.kind() {
        Kind::Directory => line.push(b'/'),
        Kind::File => {
            line.extend_from_slice(format!("\t{}\t{}", entry.size_bytes, time(entry.modified_at_ms)).as_bytes());
            if !entry.hash.is_empty() {
                line.push(b'\t');
                line.extend_from_slice(hex::encode(&entry.hash).as_bytes());
            }
        }
        Kind::Symlink | Kind::Other | Kind::Unspecified => {}
    }
    line
}

/// Go's `FileMode.String`: letters for what is special, or a dash, then nine for who may what.
pub(crate) fn mode(entry: &DirEntry) -> String {
    const SETUID: u32 = 0o4000;
    const SETGID: u32 = 0o2000;
    const STICKY: u32 = 0o1000;
    let mut text = String::with_capacity(12);
    match entry.kind() {
        Kind::Directory => text.push('d'),
        Kind::Symlink => text.push('L'),
        Kind::Other => text.push('?'),
        Kind::File | Kind::Unspecified => {}
    }
    for (bit, letter) in [(SETUID, 'u'), (SETGID, 'g'), (STICKY, 't')] {
        if entry.mode & bit != 0 {
            text.push(letter);
        }
    }
    if text.is_empty() {
        text.push('-');
    }
    let allowed = |(index, letter): (u32, char)| if entry.mode & (1 << (8 - index)) != 0 { letter } else { '-' };
    text.extend((0..).zip("rwxrwxrwx".chars()).map(allowed));
    text
}

/// UTC to the second, as RFC 3339 has it.
fn time(at_ms: i64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
    humantime::format_rfc3339_seconds(at).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind, path: &str, mode: u32) -> DirEntry {
        DirEntry { path: path.as_bytes().to_vec().into(), kind: kind.into(), mode, ..Default::default() }
    }

    #[test]
    fn lines_are_those_of_gos_buildlet() {
        let file = DirEntry {
            size_bytes: 3,
            modified_at_ms: 1_795_345_264_000,
            hash: hex::decode("55ca6286e3e4f4fba5d0448333fa99fc5a404a73").unwrap().into(),
            ..entry(Kind::File, "go/src/a.txt", 0o644)
        };
        let cases = [
            (entry(Kind::Directory, "go", 0o755), "drwxr-xr-x\tgo/"),
            (file, "-rw-r--r--\tgo/src/a.txt\t3\t2026-11-22T11:01:04Z\t55ca6286e3e4f4fba5d0448333fa99fc5a404a73"),
            (entry(Kind::Symlink, "go/src/lnk", 0o777), "Lrwxrwxrwx\tgo/src/lnk"),
            (entry(Kind::Directory, "q", 0o1777), "dtrwxrwxrwx\tq/"),
            (entry(Kind::File, "s", 0o4711), "urwx--x--x\ts\t0\t1970-01-01T00:00:00Z"),
        ];
        for (entry, expected) in cases {
            assert_eq!(String::from_utf8(line(&entry)).unwrap(), expected);
        }
    }
}
