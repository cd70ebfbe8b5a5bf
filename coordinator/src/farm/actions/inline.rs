//! Content put into a result itself, for those who ask.

use super::result::MAX_RESULT_BYTES;
use motefarm_cas::store::{BlobSource as _, Store as Cas, StoreError as CasError};
use motefarm_proto::convert;
use motefarm_proto::reapi::{self, ActionResult};
use prost::Message as _;
use std::collections::HashSet;

/// What somebody wants to have in the result itself. The API lets a server do less.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inline {
    /// What was written to stdout.
    pub stdout: bool,
    /// What was written to stderr.
    pub stderr: bool,
    /// Contents of output files, by path.
    pub files: HashSet<String>,
}

/// Puts in as much of what is wanted as the bound on a result leaves room for. Blocking.
pub fn fill(cas: &Cas, result: &mut ActionResult, wanted: &Inline) -> Result<(), CasError> {
    if *wanted == Inline::default() {
        return Ok(());
    }
    let mut room = MAX_RESULT_BYTES.saturating_sub(result.encoded_len());
    let mut read = |digest: &Option<reapi::Digest>| -> Result<Option<Vec<u8>>, CasError> {
        let digest = digest.as_ref().and_then(|digest| convert::reapi_digest(digest).ok());
        let Some(digest) = digest.filter(|digest| digest.size_bytes() <= room as u64) else { return Ok(None) };
        let content = cas.read(&digest, room as u64)?;
        room -= content.as_ref().map_or(0, |content| content.len());
        Ok(content.map(Vec::from))
    };
    if wanted.stdout && result.stdout_raw.is_empty() {
        result.stdout_raw = read(&result.stdout_digest)?.unwrap_or_default();
    }
    if wanted.stderr && result.stderr_raw.is_empty() {
        result.stderr_raw = read(&result.stderr_digest)?.unwrap_or_default();
    }
    for file in result.output_files.iter_mut().filter(|file| wanted.files.contains(&file.path)) {
        if file.contents.is_empty() {
            file.contents = read(&file.digest)?.unwrap_or_default();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use motefarm_cas::store::StoreLimits;
    use motefarm_core::Digest;
    use motefarm_proto::reapi::OutputFile;

    #[test]
    fn what_is_wanted_is_put_in_while_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let cas = Cas::open(dir.path(), StoreLimits::default()).unwrap();
        let put = |content: &[u8]| {
            cas.put_batch(&[(Digest::of(content), Bytes::copy_from_slice(content))]).unwrap();
            Some(convert::to_reapi_digest(Digest::of(content)))
        };
        let file = |path: &str, content: &[u8]| OutputFile {
            path: path.to_owned(),
            digest: put(content),
            ..OutputFile::default()
        };
        let mut result = ActionResult {
            stdout_digest: put(b"out"),
            stderr_digest: put(b"err"),
            output_files: vec![
                file("large", &vec![1; MAX_RESULT_BYTES - 1000]),
                file("too much", &vec![2; 2000]),
                file("small", b"small"),
                file("not asked for", b"x"),
            ],
            ..ActionResult::default()
        };
        let files = ["large", "too much", "small"].map(str::to_owned).into();
        fill(&cas, &mut result, &Inline { stdout: true, stderr: false, files }).unwrap();
        let sizes: Vec<usize> = result.output_files.iter().map(|file| file.contents.len()).collect();
        assert_eq!(sizes, [MAX_RESULT_BYTES - 1000, 0, 5, 0]);
        assert_eq!((result.stdout_raw.as_slice(), result.stderr_raw.as_slice()), (&b"out"[..], &b""[..]));
        assert!(result.encoded_len() <= MAX_RESULT_BYTES + 1000);
    }
}
