//! Taking the file out of a multipart form (RFC 7578) as it comes in. Pure.
//!
//! By hand, since what is held back must be bounded: a part's headers by [`MAX_HEADERS`], its
//! content by a delimiter's length. Fields besides the file are skipped, in whatever order they come.

use bytes::{Bytes, BytesMut};

/// Most bytes of one part's headers.
const MAX_HEADERS: usize = 8 * 1024;
/// Name of the part that is the file.
const FILE: &str = "file";
/// Longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// What is wrong with a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormError {
    /// Not `multipart/form-data` with a boundary.
    #[error("the content type is not multipart/form-data with a boundary")]
    NotAForm,
    /// Headers without end, or none where there must be.
    #[error("a part of the form has no headers or too many")]
    Headers,
    /// Two files.
    #[error("the form has more than one part named \"file\"")]
    TwoFiles,
    /// The end did not come.
    #[error("the form ends in the middle")]
    Cut,
    /// No file.
    #[error("the form has no part named \"file\"")]
    NoFile,
}

enum State {
    /// Before the first part.
    Preamble,
    /// Behind a delimiter: the end, or headers.
    Headers,
    /// In a part's content.
    Content { is_file: bool },
    /// Behind the last delimiter.
    Over,
}

/// A form that is being read.
pub(super) struct Form {
    /// `\r\n--` and the boundary.
    delimiter: Vec<u8>,
    held: BytesMut,
    state: State,
    has_file: bool,
}

impl Form {
    /// A form with this content type.
    pub(super) fn new(content_type: &str) -> Result<Self, FormError> {
        let (kind, parameters) = parameters(content_type);
        let boundary = parameters.into_iter().find(|(name, _)| name == "boundary").map(|(_, value)| value);
        let boundary = boundary.filter(|b| !b.is_empty() && b.len() <= MAX_BOUNDARY && !b.contains(['\r', '\n']));
        match boundary {
            Some(boundary) if kind == "multipart/form-data" => Ok(Self {
                delimiter: format!("\r\n--{boundary}").into_bytes(),
                // The first delimiter may stand at the very beginning, without a line before it.
                held: BytesMut::from(&b"\r\n"[..]),
                state: State::Preamble,
                has_file: false,
            }),
            _ => Err(FormError::NotAForm),
        }
    }

    /// Takes what has come; answers what of it is the file's content, in order.
    pub(super) fn feed(&mut self, chunk: &[u8]) -> Result<Vec<Bytes>, FormError> {
        self.held.extend_from_slice(chunk);
        let mut content = Vec::new();
        loop {
            match self.state {
                State::Preamble | State::Content { .. } => {
                    let at = find(&self.held, &self.delimiter);
                    // Without one, the last bytes may be the beginning of one.
                    let sure = at.unwrap_or_else(|| self.held.len().saturating_sub(self.delimiter.len() - 1));
                    let piece = self.held.split_to(sure);
                    if matches!(self.state, State::Content { is_file: true }) && !piece.is_empty() {
                        content.push(piece.freeze());
                    }
                    if at.is_none() {
                        return Ok(content);
                    }
                    let _ = self.held.split_to(self.delimiter.len());
                    self.state = State::Headers;
                }
                State::Headers => {
                    if self.held.starts_with(b"--") {
                        self.state = State::Over;
                        continue;
                    }
                    let Some(end) = find(&self.held, b"\r\n\r\n") else {
                        return if self.held.len() > MAX_HEADERS { Err(FormError::Headers) } else { Ok(content) };
                    };
                    if end > MAX_HEADERS {
                        return Err(FormError::Headers);
                    }
                    let headers = self.held.split_to(end + 4);
                    let is_file = is_file(&String::from_utf8_lossy(&headers))?;
                    if is_file && std::mem::replace(&mut self.has_file, true) {
                        return Err(FormError::TwoFiles);
                    }
                    self.state = State::Content { is_file };
                }
                State::Over => {
                    self.held.clear();
                    return Ok(content);
                }
            }
        }
    }

    /// Whether all of it has come.
    pub(super) fn finish(self) -> Result<(), FormError> {
        match (self.state, self.has_file) {
            (State::Over, true) => Ok(()),
            (State::Over, false) => Err(FormError::NoFile),
            _ => Err(FormError::Cut),
        }
    }
}

/// Whether a part's headers say that it is the file.
fn is_file(headers: &str) -> Result<bool, FormError> {
    let disposition = headers.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then_some(value)
    });
    let (_, parameters) = parameters(disposition.ok_or(FormError::Headers)?);
    Ok(parameters.iter().any(|(name, value)| name == "name" && value == FILE))
}

/// A header's value and its parameters, names in lower case. In quotes, a backslash quotes what follows.
fn parameters(header: &str) -> (String, Vec<(String, String)>) {
    let mut parts = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for c in header.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => {
                escaped = true;
                continue;
            }
            '"' => {
                quoted = !quoted;
                continue;
            }
            ';' if !quoted => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let mut parts = parts.into_iter();
    let value = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let split = |part: String| {
        let (name, value) = part.split_once('=')?;
        Some((name.trim().to_ascii_lowercase(), value.to_owned()))
    };
    (value, parts.filter_map(split).collect())
}

/// By the first byte first: in what people upload it is rare.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let first = needle.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|byte| byte == first) {
        if text[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=BND";

    /// Feeds a form in pieces of `step` bytes.
    fn read(content_type: &str, body: &[u8], step: usize) -> Result<Vec<u8>, FormError> {
        let mut form = Form::new(content_type)?;
        let mut file = Vec::new();
        for chunk in body.chunks(step) {
            for piece in form.feed(chunk)? {
                file.extend_from_slice(&piece);
            }
            assert!(form.held.len() <= MAX_HEADERS + step + 4, "{} bytes are held", form.held.len());
        }
        form.finish().map(|()| file)
    }

    fn part(name: &str, content: &[u8]) -> Vec<u8> {
        let mut part = format!(
            "--BND\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a;name=\\\"file\\\"\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        )
        .into_bytes();
        part.extend_from_slice(content);
        part.extend_from_slice(b"\r\n");
        part
    }

    #[test]
    fn the_file_comes_out_whole_however_it_is_cut_and_wherever_it_stands() {
        let content = b"\r\n--BN\r\n--BNX\0\r\n\r\n--\r\n".repeat(20);
        let (file, key, other) = (part("file", &content), part("key", b"value"), part("x", b""));
        let end = b"--BND--\r\nepilogue".to_vec();
        for order in [[&file, &key, &other], [&key, &file, &other], [&key, &other, &file]] {
            let body = [order[0].as_slice(), order[1], order[2], &end].concat();
            for step in [1, 2, 3, 7, 64, body.len()] {
                assert_eq!(read(TYPE, &body, step).unwrap(), content, "in steps of {step}");
            }
        }
        let empty = [part("file", b""), end.clone()].concat();
        assert_eq!(read("Multipart/Form-Data; charset=x; Boundary=\"BND\"", &empty, 5).unwrap(), b"");
        let preamble = [b"preamble\r\n".to_vec(), part("file", b"x"), end].concat();
        assert_eq!(read(TYPE, &preamble, 4).unwrap(), b"x");
    }

    #[test]
    fn what_is_no_form_is_said() {
        let end = b"--BND--\r\n".to_vec();
        let file = part("file", b"content");
        assert_eq!(read("application/json", b"", 1), Err(FormError::NotAForm));
        assert_eq!(read("multipart/form-data", b"", 1), Err(FormError::NotAForm));
        assert_eq!(
            read(&format!("multipart/form-data; boundary={}", "b".repeat(71)), b"", 1),
            Err(FormError::NotAForm)
        );
        assert_eq!(read(TYPE, &file, 9), Err(FormError::Cut));
        assert_eq!(read(TYPE, b"", 1), Err(FormError::Cut));
        assert_eq!(read(TYPE, &end, 9), Err(FormError::NoFile));
        assert_eq!(read(TYPE, &[file.as_slice(), &file, &end].concat(), 9), Err(FormError::TwoFiles));
        assert_eq!(read(TYPE, b"--BND\r\n\r\ncontent\r\n--BND--", 9), Err(FormError::Headers));
        let endless = [b"--BND\r\nX: ".to_vec(), vec![b'x'; 1 << 20]].concat();
        assert_eq!(read(TYPE, &endless, 1000), Err(FormError::Headers));
        let long = [b"--BND\r\nX: ".to_vec(), vec![b'x'; 1 << 20], b"\r\n\r\n".to_vec()].concat();
        assert_eq!(read(TYPE, &long, long.len()), Err(FormError::Headers));
    }
}
