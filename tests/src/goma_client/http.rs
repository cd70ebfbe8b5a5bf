//! HTTP/1.1 as the real client speaks it, with its habits and its blind spots.

use flate2::Compression;
use flate2::read::{DeflateDecoder, GzDecoder};
use flate2::write::{DeflateEncoder, GzEncoder};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// The server's side of a client.
pub struct Connection {
    address: String,
    /// `GOMA_URL_PATH_PREFIX`.
    pub prefix: String,
    /// `Authorization`, verbatim.
    pub authorization: Option<String>,
    /// `GOMA_HTTP_ACCEPT_ENCODING`.
    pub accept_encoding: &'static str,
    /// How requests are packed just now; the server's answers decide.
    pub packing: Option<&'static str>,
    stream: Option<TcpStream>,
    /// Bytes of bodies sent, packed.
    pub sent: usize,
    /// Connections made.
    pub connections: usize,
}

/// Why a call has no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpError {
    /// Another status than 200; what the body's first line said.
    Status(u16, String),
    /// No answer that the client understands.
    Broken(String),
}

impl Connection {
    /// To `host:port`, below the usual path.
    pub fn new(address: &str) -> Self {
        Self {
            address: address.to_owned(),
            prefix: "/cxx-compiler-service".to_owned(),
            authorization: None,
            accept_encoding: "gzip",
            packing: Some("gzip"),
            stream: None,
            sent: 0,
            connections: 0,
        }
    }

    /// One call: `POST` of `body`; the answer's body, unpacked.
    pub fn call(&mut self, path: &str, body: &[u8]) -> Result<Vec<u8>, HttpError> {
        let reused = self.stream.is_some();
        match self.once(path, body) {
            // A connection that the server closed while it lay idle.
            Err(HttpError::Broken(_)) if reused => self.once(path, body),
            done => done,
        }
    }

    fn once(&mut self, path: &str, body: &[u8]) -> Result<Vec<u8>, HttpError> {
        let broken = |error: std::io::Error| HttpError::Broken(error.to_string());
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                self.connections += 1;
                TcpStream::connect(&self.address).map_err(broken)?
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(100))).map_err(broken)?;
        let packed = match self.packing {
            Some(name) if !body.is_empty() => Some((name, pack(name, body))),
            _ => None,
        };
        let payload = packed.as_ref().map_or(body, |(_, bytes)| bytes);
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host);
        let mut head = format!(
            "POST {}{path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: compiler-proxy built by test at 0@0 on 0Z \r\n\
             Content-Type: binary/x-protocol-buffer\r\nContent-Length: {}\r\n",
            self.prefix,
            payload.len()
        );
        if let Some(value) = &self.authorization {
            head += &format!("Authorization: {value}\r\n");
        }
        if self.packing.is_some() {
            head += &format!("Accept-Encoding: {}\r\n", self.accept_encoding);
        }
        if let Some((name, _)) = &packed {
            head += &format!("Content-Encoding: {name}\r\n");
        }
        self.sent += payload.len();
        stream.write_all(format!("{head}\r\n").as_bytes()).map_err(broken)?;
        stream.write_all(payload).map_err(broken)?;
        let (answer, keep) = self.answer(&mut stream)?;
        if keep {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    fn answer(&mut self, stream: &mut TcpStream) -> Result<(Vec<u8>, bool), HttpError> {
        let broken = |error: std::io::Error| HttpError::Broken(error.to_string());
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte).map_err(broken)? {
                0 => return Err(HttpError::Broken("the connection ended before an answer".to_owned())),
                _ => head.push(byte[0]),
            }
        }
        let head = String::from_utf8(head).map_err(|_| HttpError::Broken("a head that is no text".to_owned()))?;
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|code| code.parse().ok());
        let code: u16 = code.ok_or_else(|| HttpError::Broken(format!("status line {status:?}")))?;
        let headers: Vec<(String, &str)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim()))
            .collect();
        let header = |name: &str| headers.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        let mut body = Vec::new();
        let length = header("content-length").and_then(|text| text.parse::<i32>().ok());
        match (length, header("transfer-encoding")) {
            (Some(length), _) => {
                body.resize(usize::try_from(length).unwrap_or(0), 0);
                stream.read_exact(&mut body).map_err(broken)?;
            }
            (None, Some("chunked")) => return Err(HttpError::Broken("chunks are not read here".to_owned())),
            (None, _) => {
                stream.read_to_end(&mut body).map_err(broken)?;
            }
        }
        if code != 200 {
            // Every other status is final, an interim one as well, and the connection is given up.
            if matches!(code, 400 | 415) {
                self.packing = None;
            }
            let said = String::from_utf8_lossy(&body).lines().next().unwrap_or_default().to_owned();
            return Err(HttpError::Status(code, said));
        }
        let accepted = header("accept-encoding").unwrap_or_default();
        self.packing = accepted.split(',').map(str::trim).find_map(|name| match name {
            "gzip" => Some("gzip"),
            "deflate" => Some("deflate"),
            _ => None,
        });
        let body = match header("content-encoding") {
            Some(name) if name.starts_with("gzip") => unpack(GzDecoder::new(&body[..])),
            Some(name) if name.starts_with("deflate") => unpack(DeflateDecoder::new(&body[..])),
            _ => Ok(body),
        };
        let keep = header("connection") != Some("close");
        Ok((body.map_err(broken)?, keep))
    }
}

fn pack(name: &str, body: &[u8]) -> Vec<u8> {
    let level = Compression::new(3);
    let packed = if name == "gzip" {
        let mut encoder = GzEncoder::new(Vec::new(), level);
        encoder.write_all(body).and_then(|()| encoder.finish())
    } else {
        let mut encoder = DeflateEncoder::new(Vec::new(), level);
        encoder.write_all(body).and_then(|()| encoder.finish())
    };
    packed.expect("memory takes it")
}

fn unpack(mut reader: impl std::io::Read) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    reader.read_to_end(&mut body)?;
    Ok(body)
}
