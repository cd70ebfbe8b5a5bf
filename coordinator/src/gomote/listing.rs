//! A directory's entries as the Go agent writes them. Pure.
//!
//! Fields are separated by tabs: mode, path, and for regular files size, time and, if there is one,
//! digest (golang/build `cmd/buildlet`, `/ls`). Nothing is escaped there, so nothing is here: a name
//! with a tab in it reads badly in both.

use motefarm_proto::mote::DirEntry;
use motefarm_proto::mote::dir_entry::Kind;
use std::time::{Duration, UNIX_EPOCH};

const SETUID: u32 = 0o4000;
const SETGID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
/// The last second that is written with four digits of year.
const LAST_SECOND: u64 = 253_402_300_799;

/// One entry's line, without its end. A name that is not UTF-8 is shown as nearly as text can.
pub(super) fn line(entry: &DirEntry) -> String {
    let (mode, path) = (mode(entry), String::from_utf8_lossy(&entry.path));
    match entry.kind() {
        Kind::Directory => format!("{mode}\t{path}/"),
        Kind::File => {
            let (size, time) = (entry.size_bytes, time(entry.modified_at_ms));
            let digest = if entry.hash.is_empty() { String::new() } else { format!("\t{}", hex::encode(&entry.hash)) };
            format!("{mode}\t{path}\t{size}\t{time}{digest}")
        }
        Kind::Symlink | Kind::Other | Kind::Unspecified => format!("{mode}\t{path}"),
    }
}

/// As `String` of Go's `fs.FileMode` writes it: letters for what is special about the file, in the
/// order of that type's bits, or a hyphen, then nine permissions.
fn mode(entry: &DirEntry) -> String {
    let mut text = String::with_capacity(13);
    match entry.kind() {
        Kind::Directory => text.push('d'),
        Kind::Symlink => text.push('L'),
        Kind::File | Kind::Other | Kind::Unspecified => {}
    }
    for (bit, letter) in [(SETUID, 'u'), (SETGID, 'g'), (STICKY, 't')] {
        if entry.mode & bit != 0 {
            text.push(letter);
        }
    }
    if matches!(entry.kind(), Kind::Other | Kind::Unspecified) {
        // Go has letters for a device, a pipe and a socket; which of them it is, is not told here.
        text.push('?');
    }
    if text.is_empty() {
        text.push('-');
    }
    for (place, letter) in "rwxrwxrwx".chars().enumerate() {
        text.push(if entry.mode & (0o400 >> place) == 0 { '-' } else { letter });
    }
    text
}

/// RFC 3339 in UTC with whole seconds; what lies before 1970 or after 9999 is shown as the nearest.
fn time(at_ms: i64) -> String {
    let seconds = u64::try_from(at_ms.div_euclid(1000)).unwrap_or(0).min(LAST_SECOND);
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn entry(kind: Kind, mode: u32, path: &'static str) -> DirEntry {
        DirEntry { path: Bytes::from_static(path.as_bytes()), kind: kind.into(), mode, ..DirEntry::default() }
    }

    #[test]
    fn lines_are_those_of_the_go_agent() {
        // The vectors were written by the Go agent.
        assert_eq!(line(&entry(Kind::Directory, 0o755, "go")), "drwxr-xr-x\tgo/");
        assert_eq!(line(&entry(Kind::Symlink, 0o777, "go/src/lnk")), "Lrwxrwxrwx\tgo/src/lnk");
        assert_eq!(line(&entry(Kind::Directory, 0o1777, "q")), "dtrwxrwxrwx\tq/");
        let mut file = entry(Kind::File, 0o644, "go/src/a.txt");
        (file.size_bytes, file.modified_at_ms) = (3, 1_795_345_264_999);
        assert_eq!(line(&file), "-rw-r--r--\tgo/src/a.txt\t3\t2026-11-22T11:01:04Z");
        file.hash = Bytes::from(hex::decode("55ca6286e3e4f4fba5d0448333fa99fc5a404a73").unwrap());
        assert_eq!(
            line(&file),
            "-rw-r--r--\tgo/src/a.txt\t3\t2026-11-22T11:01:04Z\t55ca6286e3e4f4fba5d0448333fa99fc5a404a73"
        );
    }

    #[test]
    fn what_is_special_is_said_before_the_permissions() {
        assert_eq!(mode(&entry(Kind::File, 0o4755, "")), "urwxr-xr-x");
        assert_eq!(mode(&entry(Kind::File, 0o6700, "")), "ugrwx------");
        assert_eq!(mode(&entry(Kind::Directory, 0o2070, "")), "dg---rwx---");
        assert_eq!(mode(&entry(Kind::Other, 0o600, "")), "?rw-------");
        assert_eq!(mode(&entry(Kind::File, 0, "")), "----------");
    }

    #[test]
    fn no_time_is_too_strange() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(-1), "1970-01-01T00:00:00Z");
        assert_eq!(time(i64::MIN), "1970-01-01T00:00:00Z");
        assert_eq!(time(i64::MAX), "9999-12-31T23:59:59Z");
    }

    #[test]
    fn a_file_listed_by_itself_has_no_name() {
        assert_eq!(line(&entry(Kind::File, 0o600, "")), "-rw-------\t\t0\t1970-01-01T00:00:00Z");
        let mut strange = entry(Kind::Other, 0o600, "");
        strange.path = Bytes::from_static(b"a\xFFb");
        assert_eq!(line(&strange), "?rw-------\ta\u{FFFD}b");
    }
}
