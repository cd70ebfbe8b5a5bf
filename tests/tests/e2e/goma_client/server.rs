//! A server that answers as a test says, and remembers what it was asked.

use flate2::read::GzDecoder;
use motefarm_tests::goma_client::wire::{Fields, Message};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) head: String,
    /// Unpacked.
    pub(crate) body: Vec<u8>,
}

/// What is written, and whether the connection ends then.
pub(crate) struct Reply(Vec<u8>, bool);

type Script = Box<dyn FnMut(&Request) -> Reply + Send>;

/// See the module.
pub(crate) struct Server {
    pub(crate) address: String,
    seen: Arc<Mutex<Vec<Request>>>,
}

/// 200 as a server should say it.
pub(crate) fn ok(message: Message) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\nAccept-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", message.0.len());
    raw(&[head.as_bytes(), &message.0].concat())
}

/// Anything, on a connection that stays.
pub(crate) fn raw(bytes: &[u8]) -> Reply {
    Reply(bytes.to_vec(), false)
}

/// Anything, and the end of the connection.
pub(crate) fn last(bytes: &[u8]) -> Reply {
    Reply(bytes.to_vec(), true)
}

/// Another status.
pub(crate) fn status(code: u16) -> Reply {
    last(format!("HTTP/1.1 {code} Status\r\nContent-Length: 4\r\n\r\nwhy\n").as_bytes())
}

/// `ExecResp` with a result that leaves nothing.
pub(crate) fn done() -> Message {
    Message::default().bytes(1, Message::default().number(1, 0).0)
}

impl Request {
    /// The fields of its message.
    pub(crate) fn fields(&self) -> Fields {
        Fields::read(&self.body).expect("a client's message can be read")
    }

    /// Names of inputs, and whether each brings content.
    pub(crate) fn inputs(&self) -> Vec<(String, bool)> {
        let fields = self.fields();
        let groups = fields.groups(10);
        groups.into_iter().map(|group| (group.texts(11).concat(), group.bytes(13).is_some())).collect()
    }

    /// Names of inputs that bring content.
    pub(crate) fn brought(&self) -> Vec<String> {
        self.inputs().into_iter().filter(|(_, content)| *content).map(|(name, _)| name).collect()
    }

    fn read(from: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            (from.read_line(&mut head).ok()? > 0).then_some(())?;
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).and_then(|n| n.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        from.read_exact(&mut body).ok()?;
        if head.contains("Content-Encoding: gzip\r\n") {
            let packed = std::mem::take(&mut body);
            GzDecoder::new(&packed[..]).read_to_end(&mut body).ok()?;
        }
        let path = head.split(' ').nth(1)?.strip_prefix("/cxx-compiler-service")?.to_owned();
        Some(Self { path, head, body })
    }
}

impl Server {
    /// On a port of its own; threads end with their connections, and the last with the test's process.
    pub(crate) fn start(script: impl FnMut(&Request) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (seen, script) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Box::new(script) as Script)));
        let kept = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, script) = (seen.clone(), script.clone());
                std::thread::spawn(move || serve(stream, &seen, &script));
            }
        });
        Self { address, seen: kept }
    }

    /// Answers each compile by its number, from 0 on; all else with nothing.
    pub(crate) fn compiling(mut answer: impl FnMut(usize, &Request) -> Reply + Send + 'static) -> Self {
        let mut count = 0;
        Self::start(move |request| {
            if request.path != "/e" {
                return ok(Message::default());
            }
            count += 1;
            answer(count - 1, request)
        })
    }

    /// What it was asked at a path, in order.
    pub(crate) fn asked(&self, path: &str) -> Vec<Request> {
        let seen = self.seen.lock().expect("nobody panics with it");
        seen.iter().filter(|request| request.path == path).cloned().collect()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, script: &Mutex<Script>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = Request::read(&mut reader) {
        seen.lock().expect("nobody panics with it").push(request.clone());
        let Reply(bytes, over) = script.lock().expect("nobody panics with it")(&request);
        if reader.get_mut().write_all(&bytes).is_err() || over {
            return;
        }
    }
}
