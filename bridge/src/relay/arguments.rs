//! The command line of `http_proxy`, on which this program may stand in the client's directory: Go's flags, with
//! one dash or two. Pure.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// The name that Goma's control script starts.
const HTTP_PROXY: &str = "http_proxy";

/// Whether a program of this name is to be the relay, and nothing else.
pub fn is_http_proxy(program: &OsStr) -> bool {
    Path::new(program).file_stem() == Some(OsStr::new(HTTP_PROXY))
}

/// The words of a command line as our own parser wants them.
pub fn words(args: Vec<OsString>) -> Vec<OsString> {
    let stands_in = args.first().is_some_and(|program| is_http_proxy(program));
    let mut args = args.into_iter();
    let mut words: Vec<OsString> = args.next().into_iter().collect();
    let mut rest = args.peekable();
    if stands_in {
        words.push("relay".into());
    } else if rest.peek().is_some_and(|word| word == "relay") {
        words.extend(rest.next());
    } else {
        words.extend(rest);
        return words;
    }
    words.extend(rest.map(two_dashes));
    words
}

/// `-port=1` and `-port` are `--port=1` and `--port`; `-h` stays.
fn two_dashes(word: OsString) -> OsString {
    match word.as_encoded_bytes() {
        [b'-', first, _, ..] if first.is_ascii_alphabetic() => {
            let mut longer = OsString::from("-");
            longer.push(word);
            longer
        }
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(line: &str) -> String {
        let words = words(line.split(' ').map(OsString::from).collect());
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn go_s_flags_are_ours() {
        for (line, expected) in [
            ("/goma/http_proxy --server-host h --port 19080", "/goma/http_proxy relay --server-host h --port 19080"),
            ("http_proxy -server-host=h:5050 -port 1", "http_proxy relay --server-host=h:5050 --port 1"),
            ("http_proxy.exe -h", "http_proxy.exe relay -h"),
            ("mote-bridge relay -server-host h", "mote-bridge relay --server-host h"),
            ("mote-bridge serve -platform x", "mote-bridge serve -platform x"),
            ("mote-bridge", "mote-bridge"),
        ] {
            assert_eq!(after(line), expected);
        }
        assert!(!is_http_proxy(OsStr::new("/http_proxy/mote-bridge")));
    }
}
