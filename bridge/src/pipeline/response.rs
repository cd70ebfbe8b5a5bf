//! From an action's result to what the client is answered: outputs under the names it asked for, each with a
//! key it may use later, and no more in one answer than it should be.

use super::client_path::locate;
use super::outputs::Expected;
use super::refusal::Refusal;
use crate::backend::{Backend, Fault, Stage};
use crate::content::Content;
use crate::file_blob::{Blob, CHUNK_BYTES, ChunkHasher, HashKey, key_of_file, key_of_meta, key_of_reference};
use crate::hash_map::Entry;
use crate::pipeline::action::Outline;
use bytes::Bytes;
use motefarm_core::Digest;
use motefarm_proto::convert::{reapi_digest, to_reapi_digest};
use motefarm_proto::goma::{ExecResult, FileBlob, exec_result};
use motefarm_proto::reapi::{ActionResult, Directory, OutputDirectory, Tree};
use prost::Message as _;
use std::collections::{HashMap, HashSet};
use tonic::Code;

/// Most of a compiler's words that are passed on, each of stdout and stderr.
const MAX_WORDS_BYTES: u64 = 1 << 20;
/// Most files in one output directory.
const MAX_FILES: usize = 100_000;
/// Largest `Tree` message read.
const MAX_TREE_BYTES: u64 = 64 << 20;

/// A file that an action left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// The client's name for it.
    pub filename: String,
    /// Its content.
    pub digest: Digest,
    /// Whether it can be called.
    pub executable: bool,
}

fn bad(message: impl Into<String>) -> Fault {
    Fault::new(Stage::Outputs, Code::DataLoss, message)
}

/// The files among what an action left that were asked for, in the result's order. Reads the trees of
/// directories.
pub async fn files(backend: &Backend, outline: &Outline, result: &ActionResult) -> Result<Vec<OutputFile>, Refusal> {
    let mut trees = Vec::new();
    for directory in &result.output_directories {
        if let Some(expected) = expected(outline, &directory.path, true) {
            trees.push((expected.filename.as_str(), tree(backend, directory).await?));
        }
    }
    named(outline, result, &trees)
}

/// The same once the trees of its directories are here, each under the client's name for it. Pure.
pub fn named(outline: &Outline, result: &ActionResult, trees: &[(&str, Tree)]) -> Result<Vec<OutputFile>, Refusal> {
    let mut found = Vec::with_capacity(result.output_files.len());
    for file in &result.output_files {
        let Some(expected) = expected(outline, &file.path, false) else {
            tracing::info!(path = file.path, "an output that nobody asked for is left out");
            continue;
        };
        let digest = digest_of(&file.path, file.digest.as_ref())?;
        found.push(OutputFile { filename: expected.filename.clone(), digest, executable: file.is_executable });
    }
    for (filename, tree) in trees {
        flatten(filename, tree, &mut found)?;
    }
    #[expect(deprecated, reason = "servers before API 2.1 say it there")]
    let mut links = result.output_symlinks.iter().chain(&result.output_file_symlinks);
    if let Some(link) = links.find(|link| expected(outline, &link.path, false).is_some()) {
        return Err(Refusal::never(format!(
            "the output {} is a link to {}, which Goma can not take",
            link.path, link.target
        )));
    }
    let left: HashSet<&str> = found.iter().map(|file| file.filename.as_str()).collect();
    if result.exit_code == 0
        && let Some(lacking) =
            outline.outputs.iter().find(|output| output.required && !left.contains(output.filename.as_str()))
    {
        let message = format!("the compiler succeeded on the worker, but left no {}", lacking.filename);
        return Err(Fault::new(Stage::Outputs, Code::NotFound, message).into());
    }
    Ok(found)
}

fn digest_of(path: &str, digest: Option<&motefarm_proto::reapi::Digest>) -> Result<Digest, Fault> {
    let digest = digest.ok_or_else(|| bad(format!("the output {path} has no digest")))?;
    reapi_digest(digest).map_err(|error| bad(format!("the output {path}: {error}")))
}

fn expected<'a>(outline: &'a Outline, path: &str, is_directory: bool) -> Option<&'a Expected> {
    let located = locate(&outline.cwd, path).ok().filter(|_| !path.starts_with('/'))?;
    outline.outputs.iter().find(|output| output.located.path == located.path && (output.is_directory || !is_directory))
}

async fn tree(backend: &Backend, directory: &OutputDirectory) -> Result<Tree, Fault> {
    let digest = digest_of(&directory.path, directory.tree_digest.as_ref())?;
    if digest.size_bytes() > MAX_TREE_BYTES {
        return Err(bad(format!("the output directory {} is too large", directory.path)));
    }
    let bytes = backend.read(Stage::Outputs, digest).await?;
    Tree::decode(&bytes[..]).map_err(|error| bad(format!("the output directory {}: {error}", directory.path)))
}

/// Every file below, breadth first.
fn flatten(filename: &str, tree: &Tree, found: &mut Vec<OutputFile>) -> Result<(), Refusal> {
    let children: HashMap<String, &Directory> =
        tree.children.iter().map(|child| (Digest::of(&child.encode_to_vec()).hash_hex(), child)).collect();
    let root = tree.root.as_ref().ok_or_else(|| bad(format!("the output directory {filename} has no root")))?;
    let mut waiting = vec![(filename.to_owned(), root)];
    while let Some((at, directory)) = waiting.pop() {
        if found.len() + waiting.len() > MAX_FILES {
            return Err(bad(format!("the output directory {filename} has more than {MAX_FILES} files")).into());
        }
        let join = |name: &str| match motefarm_cas::tree::is_valid_name(name.as_bytes()) {
            true => Ok(format!("{at}/{name}")),
            false => Err(bad(format!("a file in the output directory {filename} is called {name:?}"))),
        };
        for file in &directory.files {
            let path = join(&file.name)?;
            let digest = digest_of(&path, file.digest.as_ref())?;
            found.push(OutputFile { filename: path, digest, executable: file.is_executable });
        }
        if let Some(link) = directory.symlinks.first() {
            let what = format!("{} is a link to {}, which Goma can not take", join(&link.name)?, link.target);
            return Err(Refusal::Never(what));
        }
        for node in &directory.directories {
            let path = join(&node.name)?;
            let hash = &node.digest.as_ref().ok_or_else(|| bad(format!("{path} has no digest")))?.hash;
            let child = children.get(hash).ok_or_else(|| bad(format!("{path} is not in its tree")))?;
            waiting.push((path, *child));
        }
    }
    Ok(())
}

/// Which of files of these sizes are not sent along but left to be looked up: those over 2 MiB have to be, and
/// of the others the largest until the rest fits. The answer is in the files' order.
pub fn left_out(sizes: &[u64], budget: u64) -> Vec<bool> {
    let mut left_out: Vec<bool> = sizes.iter().map(|size| *size > CHUNK_BYTES as u64).collect();
    let mut total: u64 = sizes.iter().zip(&left_out).filter(|(_, out)| !**out).map(|(size, _)| size).sum();
    let mut by_size: Vec<usize> = (0..sizes.len()).filter(|n| !left_out[*n]).collect();
    by_size.sort_by_key(|n| std::cmp::Reverse(sizes[*n]));
    for n in by_size {
        if total <= budget {
            break;
        }
        left_out[n] = true;
        total -= sizes[n];
    }
    left_out
}

/// Bytes of the contents that an answer with these files holds.
pub fn inline_bytes(files: &[OutputFile], budget: u64) -> u64 {
    let sizes: Vec<u64> = files.iter().map(|file| file.digest.size_bytes()).collect();
    sizes.iter().zip(left_out(&sizes, budget)).filter(|(_, out)| !out).map(|(size, _)| size).sum()
}

/// The result for the client. Every key in it is known from here on.
pub async fn build(
    content: &Content,
    result: &ActionResult,
    files: Vec<OutputFile>,
    budget: u64,
) -> Result<ExecResult, Fault> {
    let stage = Stage::Outputs;
    let backend = content.backend();
    let words = [
        Words::of(&result.stdout_raw, result.stdout_digest.as_ref())?,
        Words::of(&result.stderr_raw, result.stderr_digest.as_ref())?,
    ];
    let sizes: Vec<u64> = files.iter().map(|file| file.digest.size_bytes()).collect();
    let left_out = left_out(&sizes, budget.saturating_sub(words.iter().map(Words::size).sum()));
    let inline: Vec<Digest> = files.iter().zip(&left_out).filter(|(_, out)| !**out).map(|(f, _)| f.digest).collect();
    let mut contents = inlined(result, &inline);
    let wanted = inline.into_iter().chain(words.iter().filter_map(Words::short));
    let wanted: Vec<Digest> = wanted.filter(|digest| !contents.contains_key(digest)).collect();
    contents.extend(wanted.iter().copied().zip(backend.read_all(stage, &wanted).await?));
    let [stdout, stderr] = words;
    let (stdout, stderr) = (stdout.read(backend, &contents).await?, stderr.read(backend, &contents).await?);
    let mut entries = Vec::new();
    let mut output = Vec::with_capacity(files.len());
    for (file, out) in files.into_iter().zip(left_out) {
        let digest = file.digest;
        let blob = match contents.get(&digest).filter(|_| !out) {
            Some(content) => {
                entries.push((key_of_file(content), Entry::File(digest)));
                Blob::File(content.clone()).into_message()
            }
            None if digest.size_bytes() <= CHUNK_BYTES as u64 => reference(backend, digest, &mut entries).await?,
            None => list(backend, digest, &mut entries).await?,
        };
        output.push(exec_result::Output {
            filename: Some(file.filename),
            blob: Some(blob),
            is_executable: file.executable.then_some(true),
        });
    }
    content.remember(stage, entries).await?;
    Ok(ExecResult {
        exit_status: result.exit_code,
        stdout_buffer: Some(stdout),
        stderr_buffer: Some(stderr),
        output,
        ..ExecResult::default()
    })
}

/// Contents that came with the result, if they are what they say.
fn inlined(result: &ActionResult, wanted: &[Digest]) -> HashMap<Digest, Bytes> {
    let wanted: HashSet<&Digest> = wanted.iter().collect();
    let all = result.output_files.iter().filter(|file| !file.contents.is_empty()).filter_map(|file| {
        let digest = reapi_digest(file.digest.as_ref()?).ok()?;
        (wanted.contains(&digest) && Digest::of(&file.contents) == digest)
            .then(|| (digest, Bytes::copy_from_slice(&file.contents)))
    });
    all.collect()
}

/// A compiler's words: here, or by digest, or none.
enum Words {
    Here(Bytes),
    There(Digest),
}

impl Words {
    fn of(raw: &[u8], digest: Option<&motefarm_proto::reapi::Digest>) -> Result<Self, Fault> {
        match digest {
            Some(digest) if raw.is_empty() => Ok(Self::There(digest_of("stdout or stderr", Some(digest))?)),
            _ => Ok(Self::Here(Bytes::copy_from_slice(raw))),
        }
    }

    /// Bytes of an answer.
    fn size(&self) -> u64 {
        match self {
            Self::Here(words) => words.len() as u64,
            Self::There(digest) => digest.size_bytes().min(MAX_WORDS_BYTES),
        }
    }

    /// What can be read together with other blobs.
    fn short(&self) -> Option<Digest> {
        match self {
            Self::There(digest) if digest.size_bytes() <= MAX_WORDS_BYTES => Some(*digest),
            Self::There(_) | Self::Here(_) => None,
        }
    }

    /// `contents`: what was read together.
    async fn read(self, backend: &Backend, contents: &HashMap<Digest, Bytes>) -> Result<Bytes, Fault> {
        let digest = match self {
            Self::Here(words) => return Ok(words),
            Self::There(digest) => digest,
        };
        if let Some(words) = contents.get(&digest) {
            return Ok(words.clone());
        }
        let start = backend.read_range(Stage::Outputs, digest, 0, MAX_WORDS_BYTES).await?;
        let note = format!("\n[mote-bridge: the rest of {} bytes is left out]\n", digest.size_bytes());
        Ok([&start[..], note.as_bytes()].concat().into())
    }
}

async fn reference(backend: &Backend, digest: Digest, entries: &mut Vec<(HashKey, Entry)>) -> Result<FileBlob, Fault> {
    let content = backend.read(Stage::Outputs, digest).await?;
    let (size, file) = (digest.size_bytes(), key_of_file(&content));
    // A client hashes what it was sent, so it may call the file by the reference's key as well.
    entries.push((file, Entry::File(digest)));
    entries.push((key_of_reference(size, &file), Entry::File(digest)));
    Ok(Blob::Reference { size, file }.into_message())
}

async fn list(backend: &Backend, whole: Digest, entries: &mut Vec<(HashKey, Entry)>) -> Result<FileBlob, Fault> {
    let size = whole.size_bytes();
    let mut hasher = ChunkHasher::new(size);
    backend.read_through(Stage::Outputs, whole, |piece| hasher.update(piece)).await?;
    let chunks = hasher.finish().ok_or_else(|| bad(format!("the blob {whole} is shorter than it says")))?;
    entries.extend(Entry::of_whole(key_of_meta(size, &chunks), whole, chunks.clone()));
    Ok(Blob::Meta { size, chunks }.into_message())
}

/// The digest as clients' logs show it.
pub fn cache_key(action: Digest) -> String {
    to_reapi_digest(action).hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_proto::reapi::{DirectoryNode, FileNode, SymlinkNode};

    #[test]
    fn the_largest_are_left_out_until_the_rest_fits() {
        const MIB: u64 = 1 << 20;
        assert_eq!(left_out(&[MIB, 2 * MIB, 0], 6 * MIB), [false; 3]);
        assert_eq!(left_out(&[MIB, 2 * MIB + 1], 6 * MIB), [false, true]);
        assert_eq!(left_out(&[MIB, 2 * MIB, MIB, 2 * MIB], 4 * MIB), [false, true, false, false]);
        assert_eq!(left_out(&[MIB, MIB], 0), [true, true]);
        assert_eq!(left_out(&[], 0), [false; 0]);
    }

    fn node(name: &str, child: &Directory) -> DirectoryNode {
        let digest = Digest::of(&child.encode_to_vec());
        DirectoryNode { name: name.to_owned(), digest: Some(to_reapi_digest(digest)) }
    }

    fn file(name: &str) -> FileNode {
        let digest = Some(to_reapi_digest(Digest::of(name.as_bytes())));
        FileNode { name: name.to_owned(), digest, ..FileNode::default() }
    }

    #[test]
    fn a_directory_becomes_its_files_and_can_not_name_others() {
        let inner = Directory { files: vec![file("B.class")], ..Directory::default() };
        let root =
            Directory { files: vec![file("A.class")], directories: vec![node("p", &inner)], ..Directory::default() };
        let tree = Tree { root: Some(root.clone()), children: vec![inner.clone()] };
        let mut found = Vec::new();
        flatten("classes", &tree, &mut found).unwrap();
        let names: Vec<&str> = found.iter().map(|file| file.filename.as_str()).collect();
        assert_eq!(names, ["classes/A.class", "classes/p/B.class"]);

        let lacking = Tree { root: Some(root.clone()), children: vec![] };
        let climbing =
            Tree { root: Some(Directory { files: vec![file("../x")], ..Directory::default() }), children: vec![] };
        let link = SymlinkNode { name: "l".into(), target: "/etc/passwd".into(), ..SymlinkNode::default() };
        let linked = Tree { root: Some(Directory { symlinks: vec![link], ..Directory::default() }), children: vec![] };
        for bad in [lacking, climbing, linked, Tree::default()] {
            assert!(flatten("classes", &bad, &mut Vec::new()).is_err(), "{bad:?}");
        }
    }
}
