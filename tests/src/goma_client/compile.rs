//! One compile as the real client drives it: what is sent on which attempt, and what is made of answers.

use super::blob::Blob;
use super::files::{Asked, Files};
use super::http::{Connection, HttpError};
use super::task::Task;
use super::wire::Fields;
use std::collections::HashSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// Attempts of one compile in all.
pub const ATTEMPTS: i64 = 5;

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
    /// There would be another attempt, had the server's latest answers not been too bad.
    Ill(Vec<String>),
    /// The answer is of another compiler; how it differs. From now on this one is not asked for.
    Mismatch(String),
    /// After a mismatch: "Failed to setup request".
    CompilerDisabled,
    /// What was looked up is not there.
    Lost,
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

/// A `compiler_proxy`. A clone is the same one, for a task at the same time.
#[derive(Clone)]
pub struct Client {
    /// To the server.
    pub http: Connection,
    /// Whether the time of a file's last change counts; otherwise all are as of long ago.
    pub files_are_new: bool,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Default)]
struct Memory {
    files: Files,
    /// Content of everything goes along until a request succeeds: more than half was missing.
    send_all: bool,
    /// Compilers that an answer did not match.
    disabled: HashSet<[String; 4]>,
    tasks: u64,
}

impl Client {
    /// For the server at `host:port`.
    pub fn new(address: &str) -> Self {
        Self { http: Connection::new(address), files_are_new: true, memory: Arc::default() }
    }

    /// The empty `POST /ping`; what the server says.
    pub fn ping(&mut self) -> Result<String, HttpError> {
        self.http.ping().map(|body| String::from_utf8_lossy(&body).into_owned())
    }

    /// Compiles, and writes the outputs where they belong, whatever their names.
    pub fn build(&mut self, task: &Task) -> Result<Compiled, Failure> {
        let compiled = self.compile(task)?;
        for (name, content, executable) in &compiled.outputs {
            let path = task.cwd.join(name);
            write(&path, content, *executable).expect("outputs can be written");
            self.memory().files.wrote(path, content).expect("it was written");
        }
        Ok(compiled)
    }

    /// Compiles.
    pub fn compile(&mut self, task: &Task) -> Result<Compiled, Failure> {
        let task_id = {
            let mut memory = self.memory();
            memory.tasks += 1;
            if memory.disabled.contains(&task.compiler()) {
                return Err(Failure::CompilerDisabled);
            }
            memory.tasks
        };
        let mut missing: HashSet<String> = HashSet::new();
        let (mut reasons, mut store_only) = (Vec::new(), false);
        for retry in 0..ATTEMPTS {
            if retry > 0 && !self.http.is_well() {
                return Err(Failure::Ill(reasons));
            }
            let request = self.request(task, task_id, retry, &missing, store_only)?;
            let answer = match self.http.call("/e", &request) {
                Err(error) if error.may_be_repeated() => {
                    reasons = vec![format!("{error:?}")];
                    continue;
                }
                answer => Fields::read(&answer.map_err(Failure::Http)?).map_err(Failure::Answer)?,
            };
            let (messages, lacking) = (answer.texts(12), answer.texts(11));
            if !lacking.is_empty() {
                if let Some(unknown) = lacking.iter().find(|name| !task.inputs.contains(name)) {
                    return Err(Failure::Answer(format!("missing_input names {unknown:?}, which was not sent")));
                }
                if lacking.len() * 2 > task.inputs.len() {
                    self.memory().send_all = true;
                }
                reasons = answer.texts(15);
                missing = lacking.into_iter().collect();
                continue;
            }
            self.memory().send_all = false;
            if answer.number(2) == Some(-1) {
                return Err(Failure::BadRequest(messages));
            }
            if !messages.is_empty() {
                reasons = messages;
                continue;
            }
            match self.result(task, &answer) {
                // The server may make it again.
                Err(Failure::Lost) => (reasons, store_only) = (vec!["an output is lost".to_owned()], true),
                result => return result.map(|compiled| Compiled { attempts: retry + 1, ..compiled }),
            }
        }
        Err(Failure::Exhausted(reasons))
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn request(
        &mut self,
        task: &Task,
        task_id: u64,
        retry: i64,
        missing: &HashSet<String>,
        store_only: bool,
    ) -> Result<Vec<u8>, Failure> {
        let mut inputs = Vec::with_capacity(task.inputs.len());
        let all = self.memory().send_all;
        for name in &task.inputs {
            let asked = Asked { missing: missing.contains(name), all, may_be_new: self.files_are_new };
            let found = self.memory().files.input(&task.cwd, name, asked);
            let (input, chunks) = found.map_err(|error| Failure::Answer(format!("{name}: {error}")))?;
            self.store(&chunks)?;
            inputs.push(input);
        }
        self.memory().files.shrink(&mut inputs, task_id * 31 + retry as u64);
        Ok(task.encode(&inputs, task_id, retry, store_only))
    }

    fn result(&mut self, task: &Task, answer: &Fields) -> Result<Compiled, Failure> {
        let wrong = |what: &str| Failure::Answer(what.to_owned());
        let result = answer.bytes(1).ok_or_else(|| wrong("neither a result nor an error"))?;
        let result = Fields::read(result).map_err(Failure::Answer)?;
        if let Some(spec) = result.bytes(4) {
            self.check_compiler(task, &Fields::read(spec).map_err(Failure::Answer)?, &result)?;
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

    /// A compiler that is answered has to be the one that was asked for; no request names subprograms.
    fn check_compiler(&self, task: &Task, spec: &Fields, result: &Fields) -> Result<(), Failure> {
        let asked = task.compiler();
        let answered = [1, 2, 3, 4].map(|field| spec.texts(field).pop().unwrap_or_default());
        let programs = result.all(5).len();
        if answered == asked && programs == 0 {
            return Ok(());
        }
        let why = format!("asked for {asked:?}, answered {answered:?} with {programs} subprograms");
        self.memory().disabled.insert(asked);
        Err(Failure::Mismatch(why))
    }
}

/// Beside its place and then into it, with as many rights as the user's mask leaves.
fn write(path: &Path, content: &[u8], executable: bool) -> std::io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    let mode = if executable { 0o777 } else { 0o666 };
    // Left by a client that was killed, with its mode.
    let _ = fs::remove_file(&name);
    fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&name)?.write_all(content)?;
    fs::rename(&name, path)
}
