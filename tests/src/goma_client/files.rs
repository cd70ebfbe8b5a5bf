//! Which inputs a request names by their key alone, and which bring their content along.

use super::blob::Blob;
use super::wire::Message;
use std::collections::{HashMap, HashSet};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Content of one request, before its last file.
const EMBED_BYTES: usize = 1 << 20;
/// Files below this bring their content.
const TINY_BYTES: usize = 512;
/// So do those that were written this lately, the first time.
const NEW: Duration = Duration::from_secs(300);

/// A file as it is named in a request.
#[derive(Debug)]
pub struct Input {
    /// As spelled.
    pub name: String,
    /// Its key.
    pub key: String,
    /// Its blob, encoded.
    pub content: Option<Vec<u8>>,
    /// What its content adds to a request's size.
    weight: usize,
}

impl Input {
    /// The group of the wire.
    pub fn encode(&self) -> Message {
        let input = Message::default().bytes(11, &self.name).bytes(12, &self.key);
        match &self.content {
            Some(content) => input.bytes(13, content),
            None => input,
        }
    }
}

/// Why content would go along.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The server lacks this file.
    pub missing: bool,
    /// It lacked most files of the request before, so everything goes.
    pub all: bool,
    /// Whether the time of a file's last change counts; otherwise all are old.
    pub may_be_new: bool,
}

/// What was found out about a path.
#[derive(Debug)]
struct Known {
    modified: Option<SystemTime>,
    size: u64,
    key: String,
}

/// The files that a `compiler_proxy` has seen.
#[derive(Debug, Default)]
pub struct Files {
    by_path: HashMap<PathBuf, Known>,
    /// Keys whose content went to the server, or came from it.
    shared: HashSet<String>,
}

impl Files {
    /// A file for a request, and the chunks that have to be stored before it.
    pub fn input(&mut self, cwd: &Path, name: &str, asked: Asked) -> io::Result<(Input, Vec<Blob>)> {
        let path = cwd.join(name);
        let meta = fs::metadata(&path)?;
        let known = self.by_path.get(&path);
        if let Some(same) = known.filter(|known| known.is(&meta))
            && !asked.missing
            && !asked.all
        {
            return Ok((Input { name: name.to_owned(), key: same.key.clone(), content: None, weight: 0 }, vec![]));
        }
        let content = fs::read(&path)?;
        let (blob, chunks) = Blob::of_file(&content);
        let key = blob.key();
        let is_new = || meta.modified().is_ok_and(|at| at.elapsed().is_ok_and(|age| age < NEW));
        let embed = asked.missing
            || asked.all
            || name.ends_with(".rsp")
            || (asked.may_be_new && is_new() && !self.shared.contains(&key))
            || content.len() < TINY_BYTES
            || known.is_some_and(|before| before.key != key);
        let chunks = if asked.missing { chunks } else { vec![] };
        // A list of chunks weighs nothing, but is of use only once they are stored.
        let is_list = blob.content.is_none();
        let embed = embed && (!is_list || asked.missing);
        let weight = if is_list { 0 } else { content.len() };
        let input = Input { name: name.to_owned(), key, content: embed.then(|| blob.encode()), weight };
        self.by_path.insert(path, Known::new(&meta, input.key.clone()));
        Ok((input, chunks))
    }

    /// Cuts a request to its size, by chance and once more sorted.
    pub fn shrink(&mut self, inputs: &mut [Input], seed: u64) {
        shuffle(inputs, seed);
        let mut embedded = 0;
        for input in inputs.iter_mut() {
            if embedded > EMBED_BYTES {
                input.content = None;
            }
            if input.content.is_some() {
                embedded += input.weight;
                self.shared.insert(input.key.clone());
            }
        }
        inputs.sort_by(|a, b| a.name.cmp(&b.name));
    }

    /// Notes an output: it will be named by its key.
    pub fn wrote(&mut self, path: PathBuf, content: &[u8]) -> io::Result<()> {
        let key = Blob::of_file(content).0.key();
        self.shared.insert(key.clone());
        let known = Known::new(&fs::metadata(&path)?, key);
        self.by_path.insert(path, known);
        Ok(())
    }
}

impl Known {
    fn new(meta: &Metadata, key: String) -> Self {
        Self { modified: meta.modified().ok(), size: meta.len(), key }
    }

    fn is(&self, meta: &Metadata) -> bool {
        self.modified.is_some() && self.modified == meta.modified().ok() && self.size == meta.len()
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
