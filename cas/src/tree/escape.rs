//! Spelling any bytes as UTF-8, reversibly.
//!
//! Every byte that is no part of valid UTF-8 becomes U+FFFD followed by its two hex digits. U+FFFD
//! itself is spelled the same way, byte by byte, so no two byte strings have one spelling.

use std::fmt::Write as _;

const MARK: char = char::REPLACEMENT_CHARACTER;

/// The spelling; and whether it differs from the bytes.
pub(super) fn escape(bytes: &[u8]) -> (String, bool) {
    let mut text = String::with_capacity(bytes.len());
    let mut escaped = false;
    for chunk in bytes.utf8_chunks() {
        for (n, part) in chunk.valid().split(MARK).enumerate() {
            if n > 0 {
                escaped = true;
                spell(MARK.encode_utf8(&mut [0; 4]).as_bytes(), &mut text);
            }
            text.push_str(part);
        }
        escaped |= !chunk.invalid().is_empty();
        spell(chunk.invalid(), &mut text);
    }
    (text, escaped)
}

fn spell(bytes: &[u8], text: &mut String) {
    for byte in bytes {
        write!(text, "{MARK}{byte:02x}").expect("writing to a String can not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn unescape(text: &str) -> Vec<u8> {
        let mut parts = text.split(MARK);
        let mut bytes = parts.next().unwrap().as_bytes().to_vec();
        for part in parts {
            bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        }
        bytes
    }

    proptest! {
        #[test]
        fn every_byte_string_has_a_spelling_of_its_own(
            bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0xef), Just(0xbf), Just(0xbd), Just(b'a')], 0..24)
        ) {
            let (text, escaped) = escape(&bytes);
            prop_assert_eq!(escaped, text.as_bytes() != &bytes[..]);
            prop_assert_eq!(if escaped { unescape(&text) } else { text.into_bytes() }, bytes);
        }
    }
}
