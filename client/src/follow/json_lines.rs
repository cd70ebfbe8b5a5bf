//! Output as JSON, one object a piece, so that nothing need be held until the end.

use crate::error::Error;
use crate::printer::Printer;
use crate::printer::passthrough::Piece;
use motefarm_core::exec::OutputStream;
use serde::Serialize;

#[derive(Serialize)]
struct Line<'a> {
    offset: u64,
    stream: &'static str,
    /// Bytes that are text.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    /// Bytes that are not, two digits each.
    #[serde(skip_serializing_if = "Option::is_none")]
    hex: Option<String>,
}

impl<'a> Line<'a> {
    fn new(offset: u64, (stream, data): &'a Piece) -> Self {
        let stream = match stream {
            OutputStream::Stdout => "stdout",
            OutputStream::Stderr => "stderr",
        };
        match std::str::from_utf8(data) {
            Ok(text) => Self { offset, stream, text: Some(text), hex: None },
            Err(_) => Self { offset, stream, text: None, hex: Some(hex::encode(data)) },
        }
    }
}

/// Prints pieces, the first of which begins at `offset`.
pub(super) fn print(printer: Printer, mut offset: u64, pieces: &[Piece]) -> Result<(), Error> {
    for piece in pieces {
        printer.json(&Line::new(offset, piece))?;
        offset += piece.1.len() as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn text_is_text_and_the_rest_is_hex() {
        let line = |piece: &Piece| serde_json::to_string(&Line::new(7, piece)).unwrap();
        let text = (OutputStream::Stdout, Bytes::from("ok\n"));
        assert_eq!(line(&text), r#"{"offset":7,"stream":"stdout","text":"ok\n"}"#);
        let bytes = (OutputStream::Stderr, Bytes::from_static(&[0xff, 0]));
        assert_eq!(line(&bytes), r#"{"offset":7,"stream":"stderr","hex":"ff00"}"#);
    }
}
