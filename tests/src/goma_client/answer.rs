//! Answers of HTTP/1.1, read as narrowly as the real client reads them.

use super::http::HttpError;
use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::time::Duration;

/// Between bytes, once there was one.
const BETWEEN_BYTES: Duration = Duration::from_secs(10);

/// An answer as it came.
pub struct Answer {
    /// Of the status line.
    pub status: u16,
    headers: Vec<(String, String)>,
    /// As it came, packed.
    pub body: Vec<u8>,
}

impl Answer {
    /// The value of a header, by its name in small letters.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// Reads one.
    pub fn read(stream: &mut TcpStream) -> Result<Self, HttpError> {
        let cut = |error: std::io::Error| HttpError::Cut(error.to_string());
        let ended = || HttpError::Cut("the connection ended within an answer".to_owned());
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(0) if head.is_empty() => return Err(HttpError::Silent("ended before an answer".to_owned())),
                Ok(0) => return Err(ended()),
                Ok(_) if head.is_empty() => stream.set_read_timeout(Some(BETWEEN_BYTES)).map_err(cut)?,
                Ok(_) => {}
                Err(error) if head.is_empty() && error.kind() == ErrorKind::WouldBlock => {
                    return Err(HttpError::Silent("no answer in time".to_owned()));
                }
                Err(error) => return Err(cut(error)),
            }
            head.push(byte[0]);
        }
        let garbled = |what: &str| HttpError::Garbled(what.to_owned());
        let head = String::from_utf8(head).map_err(|_| garbled("a head that is no text"))?;
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
        let status: u16 = status.ok_or_else(|| HttpError::Garbled(format!("status line {line:?}")))?;
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Self { status, headers, body: Vec::new() };
        // Any other status is final as soon as its line is seen, an interim one as well; its body is only logged.
        let length = answer.header("content-length").and_then(|text| text.parse::<i32>().ok());
        if answer.header("transfer-encoding") == Some("chunked") {
            answer.body = chunks(stream)?;
        } else if let Some(length) = length {
            answer.body.resize(usize::try_from(length).unwrap_or(0), 0);
            stream.read_exact(&mut answer.body).map_err(|_| ended())?;
        } else if matches!(status, 200 | 300..) {
            stream.read_to_end(&mut answer.body).map_err(cut)?;
        }
        Ok(answer)
    }
}

/// A body in chunks.
fn chunks(stream: &mut TcpStream) -> Result<Vec<u8>, HttpError> {
    let cut = |error: std::io::Error| HttpError::Cut(error.to_string());
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).map_err(cut)?;
            line.push(byte[0]);
        }
        let size = String::from_utf8_lossy(&line);
        let size = usize::from_str_radix(size.trim(), 16).map_err(|error| HttpError::Garbled(error.to_string()))?;
        let begin = body.len();
        body.resize(begin + size + 2, 0);
        stream.read_exact(&mut body[begin..]).map_err(cut)?;
        body.truncate(begin + size);
        if size == 0 {
            return Ok(body);
        }
    }
}
