//! One compile as the real client drives it: what is sent on which attempt, and what is made of answers.

use super::blob::Blob;
use super::http::{Connection, HttpError};
use super::inputs::ToolSpec;
use super::wire::{Fields, Message};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Attempts of one compile in all.
pub const ATTEMPTS: i64 = 5;
/// Content embedded in one request, before the last file.
const EMBED_BYTES: usize = 1 << 20;
/// Files below this are always embedded.
const TINY_BYTES: usize = 512;
/// Chunks of one store, and keys of one lookup.
const TOGETHER: usize = 5;

/// A compile.
#[derive(Debug, Clone, Default)]
pub struct Task {
    /// Where it is run.
    pub cwd: PathBuf,
    /// The whole command.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// What it reads, as spelled.
    pub inputs: Vec<String>,
    /// What it leaves, as spelled.
    pub outputs: Vec<String>,
    /// Directories it leaves.
    pub output_dirs: Vec<String>,
    /// The compiler.
    pub toolchain: Vec<ToolSpec>,
    /// `cache_policy`, unless it is the usual one.
    pub cache_policy: Option<i64>,
    /// `dimensions`; empty: `os:linux`.
    pub dimensions: Vec<String>,
}

/// A compile that came to an end.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The compiler's.
    pub exit_status: i64,
    /// Its words.
    pub stdout: Vec<u8>,
    /// Its complaints.
    pub stderr: Vec<u8>,
    /// Name, content and executable bit of each output.
    pub outputs: Vec<(String, Vec<u8>, bool)>,
    /// How many requests it took.
    pub attempts: i64,
    /// `cache_hit`.
    pub cache_hit: i64,
    /// `cache_key`.
    pub cache_key: String,
}

/// A compile that did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// By HTTP.
    Http(HttpError),
    /// `BAD_REQUEST`, and why.
    BadRequest(Vec<String>),
    /// All attempts were used up; the last reasons.
    Exhausted(Vec<String>),
    /// An answer that the client can not use.
    Answer(String),
}

impl Compiled {
    /// The content of an output.
    pub fn output(&self, name: &str) -> &[u8] {
        let found = self.outputs.iter().find(|(other, _, _)| other == name);
        &found.unwrap_or_else(|| panic!("no output {name} among {:?}", self.names())).1
    }

    /// All outputs' names.
    pub fn names(&self) -> Vec<&str> {
        self.outputs.iter().map(|(name, _, _)| name.as_str()).collect()
    }

    /// The compiler's complaints as text.
    pub fn complaints(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

/// A `compiler_proxy`.
pub struct Client {
    /// To the server.
    pub http: Connection,
    /// Keys this client has sent content of, or was sent itself.
    known: HashSet<String>,
    /// Keys of outputs, by path: they are sent without content.
    outputs: HashMap<PathBuf, String>,
    /// Whether files count as new, so that their content goes along the first time.
    pub files_are_new: bool,
    /// Content of everything goes along until a request succeeds: more than half was missing.
    send_all: bool,
    tasks: u64,
}

impl Client {
    /// For the server at `host:port`.
    pub fn new(address: &str) -> Self {
        Self {
            http: Connection::new(address),
            known: HashSet::new(),
            outputs: HashMap::new(),
            files_are_new: true,
            send_all: false,
            tasks: 0,
        }
    }

    /// The empty `POST /ping`; what the server says.
    pub fn ping(&mut self) -> Result<String, HttpError> {
        self.http.call("/ping", b"").map(|body| String::from_utf8_lossy(&body).into_owned())
    }

    /// Compiles, and writes the outputs where they belong.
    pub fn build(&mut self, task: &Task) -> Result<Compiled, Failure> {
        let compiled = self.compile(task)?;
        for (name, content, _) in &compiled.outputs {
            let path = task.cwd.join(name);
            if let Some(directory) = path.parent() {
                fs::create_dir_all(directory).expect("directories can be made");
            }
            fs::write(&path, content).expect("outputs can be written");
            self.outputs.insert(path, Blob::of_file(content).0.key());
        }
        Ok(compiled)
    }

    /// Compiles.
    pub fn compile(&mut self, task: &Task) -> Result<Compiled, Failure> {
        self.tasks += 1;
        let mut missing: HashSet<String> = HashSet::new();
        let mut reasons = Vec::new();
        for attempt in 0..ATTEMPTS {
            let request = self.request(task, attempt, &missing)?;
            let answer = self.http.call("/e", &request).map_err(Failure::Http)?;
            let answer = Fields::read(&answer).map_err(Failure::Answer)?;
            let messages = answer.texts(12);
            let lacking = answer.texts(11);
            if !lacking.is_empty() {
                if let Some(unknown) = lacking.iter().find(|name| !task.inputs.contains(name)) {
                    return Err(Failure::Answer(format!("missing_input names {unknown:?}, which was not sent")));
                }
                if lacking.len() * 2 > task.inputs.len() {
                    self.send_all = true;
                }
                reasons = answer.texts(15);
                missing = lacking.into_iter().collect();
                continue;
            }
            if answer.number(2) == Some(-1) {
                return Err(Failure::BadRequest(messages));
            }
            if !messages.is_empty() {
                reasons = messages;
                continue;
            }
            self.send_all = false;
            let mut compiled = self.result(&answer)?;
            compiled.attempts = attempt + 1;
            return Ok(compiled);
        }
        Err(Failure::Exhausted(reasons))
    }

    fn request(&mut self, task: &Task, attempt: i64, missing: &HashSet<String>) -> Result<Vec<u8>, Failure> {
        let mut inputs = Vec::with_capacity(task.inputs.len());
        for name in &task.inputs {
            let path = task.cwd.join(name);
            if let Some(key) = self.outputs.get(&path)
                && !missing.contains(name)
            {
                inputs.push((name, key.clone(), None, 0));
                continue;
            }
            let content = fs::read(&path).map_err(|error| Failure::Answer(format!("{}: {error}", path.display())))?;
            let (blob, chunks) = Blob::of_file(&content);
            let key = blob.key();
            let is_missing = missing.contains(name);
            let embed = is_missing
                || self.send_all
                || name.ends_with(".rsp")
                || content.len() < TINY_BYTES
                || (self.files_are_new && !self.known.contains(&key));
            if is_missing && !chunks.is_empty() {
                self.store(&chunks)?;
            }
            let bytes = if chunks.is_empty() { content.len() } else { 0 };
            // A list of chunks is of use only once they are stored.
            let embed = embed && (chunks.is_empty() || is_missing);
            inputs.push((name, key, embed.then(|| blob.encode()), bytes));
        }
        shuffle(&mut inputs, self.tasks * 31 + attempt as u64);
        let mut embedded = 0;
        for (_, key, content, bytes) in &mut inputs {
            if embedded > EMBED_BYTES {
                *content = None;
            }
            if content.is_some() {
                embedded += *bytes;
                self.known.insert(key.clone());
            }
        }
        inputs.sort_by(|a, b| a.0.cmp(b.0));
        let mut request = Message::default()
            .bytes(1, command_spec(task).0)
            .all(2, &task.args)
            .all(3, &task.env)
            .bytes(4, task.cwd.display().to_string());
        for (name, key, content, _) in inputs {
            let mut input = Message::default().bytes(11, name).bytes(12, key);
            if let Some(content) = content {
                input = input.bytes(13, content);
            }
            request = request.group(10, input);
        }
        request = request.bytes(30, self.requester(task, attempt).0);
        if let Some(policy) = task.cache_policy {
            request = request.number(31, policy);
        }
        request = request.number(33, 1).all(35, &task.outputs).all(36, &task.output_dirs);
        request = request.number(37, i64::from(!task.toolchain.is_empty()));
        Ok(task.toolchain.iter().fold(request, |request, tool| request.bytes(38, tool_spec(tool).0)).0)
    }

    fn requester(&self, task: &Task, attempt: i64) -> Message {
        let dimensions: Vec<&str> = match task.dimensions.is_empty() {
            true => vec!["os:linux"],
            false => task.dimensions.iter().map(String::as_str).collect(),
        };
        let requester = Message::default()
            .bytes(3, format!("test@host:8088/1/{}", self.tasks))
            .number(4, 2)
            .number(5, 1)
            .number(7, attempt)
            .bytes(9, "build-1");
        requester.all(10, dimensions).number(11, 1)
    }

    /// Chunks go by themselves, a few together.
    fn store(&mut self, chunks: &[Blob]) -> Result<(), Failure> {
        for some in chunks.chunks(TOGETHER) {
            let request = Message::default().all(1, some.iter().map(Blob::encode)).0;
            let answer = self.http.call("/s", &request).map_err(Failure::Http)?;
            let keys = Fields::read(&answer).map_err(Failure::Answer)?.texts(1);
            let expected: Vec<String> = some.iter().map(Blob::key).collect();
            if keys != expected {
                return Err(Failure::Answer(format!("stored {expected:?}, answered {keys:?}")));
            }
        }
        Ok(())
    }

    fn result(&mut self, answer: &Fields) -> Result<Compiled, Failure> {
        let wrong = |what: &str| Failure::Answer(what.to_owned());
        let result = answer.bytes(1).ok_or_else(|| wrong("neither a result nor an error"))?;
        let result = Fields::read(result).map_err(Failure::Answer)?;
        if result.bytes(4).is_some() {
            return Err(wrong("a command_spec is answered, and would be compared"));
        }
        let mut outputs = Vec::new();
        for group in result.groups(10) {
            let name = group.texts(11).pop().ok_or_else(|| wrong("an output without a name"))?;
            let blob = group.bytes(12).ok_or_else(|| wrong("an output without content"))?;
            let content = self.fetch(&Blob::read(blob).map_err(Failure::Answer)?)?;
            outputs.push((name, content, group.number(13) == Some(1)));
        }
        Ok(Compiled {
            exit_status: result.number(1).ok_or_else(|| wrong("a result without exit_status"))?,
            stdout: result.bytes(2).unwrap_or_default().to_vec(),
            stderr: result.bytes(3).unwrap_or_default().to_vec(),
            outputs,
            attempts: 0,
            cache_hit: answer.number(27).unwrap_or(0),
            cache_key: answer.texts(21).pop().unwrap_or_default(),
        })
    }

    /// A blob's content: its own, or what its keys lead to.
    fn fetch(&mut self, blob: &Blob) -> Result<Vec<u8>, Failure> {
        if let Some(content) = &blob.content {
            return Ok(content.clone());
        }
        let mut content = vec![0; blob.size as usize];
        let mut filled = 0;
        for keys in blob.to_look_up().chunks(TOGETHER) {
            for (piece, key) in self.look_up(keys)?.into_iter().zip(keys) {
                if piece.key() != *key {
                    return Err(Failure::Answer(format!("looked up {key}, got {}", piece.key())));
                }
                let at = piece.offset.unwrap_or(0) as usize;
                let bytes = piece.content.ok_or_else(|| Failure::Answer("a list in a list".to_owned()))?;
                filled += bytes.len();
                content
                    .get_mut(at..at + bytes.len())
                    .ok_or_else(|| Failure::Answer(format!("a chunk at {at} beyond the file's end")))?
                    .copy_from_slice(&bytes);
            }
        }
        if filled == content.len() { Ok(content) } else { Err(Failure::Answer(format!("{filled} bytes came"))) }
    }

    /// Blobs by key, in order.
    pub fn look_up(&mut self, keys: &[String]) -> Result<Vec<Blob>, Failure> {
        let answer = self.http.call("/l", &Message::default().all(1, keys).0).map_err(Failure::Http)?;
        let answer = Fields::read(&answer).map_err(Failure::Answer)?;
        let blobs = answer.all(1);
        if blobs.len() != keys.len() {
            return Err(Failure::Answer(format!("{} blobs for {} keys", blobs.len(), keys.len())));
        }
        blobs.into_iter().map(|blob| Blob::read(blob).map_err(Failure::Answer)).collect()
    }
}

fn command_spec(task: &Task) -> Message {
    let compiler = task.args.first().map(Path::new).unwrap_or(Path::new(""));
    let name = compiler.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = task.toolchain.iter().find_map(|tool| tool.kind.as_ref().err());
    let hash = file.map(|(hash, _, _)| hash.clone()).unwrap_or_default();
    Message::default().bytes(1, name).bytes(2, "12").bytes(3, "x86_64-linux-gnu").bytes(4, hash)
}

fn tool_spec(tool: &ToolSpec) -> Message {
    let spec = Message::default().bytes(1, &tool.path);
    match &tool.kind {
        Ok(target) => spec.bytes(5, target),
        Err((hash, size, executable)) => spec.bytes(2, hash).number(3, *size).number(4, i64::from(*executable)),
    }
}

fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for n in (1..items.len()).rev() {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        items.swap(n, (state % (n as u64 + 1)) as usize);
    }
}
