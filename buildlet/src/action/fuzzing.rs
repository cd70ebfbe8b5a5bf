//! What must hold of an action whatever a peer says; see [`crate::fuzzing`].

use super::asked::Asked;
use super::inputs::{Looked, look};
use super::materialize::{Materializer, make_dirs};
use crate::trees::Blobs;
use bytes::Bytes;
use motefarm_cas::store::Store;
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::mote::RunActionStart;
use motefarm_proto::reapi::{Action, Directory};
use prost::Message as _;
use std::os::fd::{AsFd as _, OwnedFd};
use tokio_util::sync::CancellationToken;

/// Checks an action (the first message), makes the tree of its inputs (the others) in `into`, and in it the
/// places for its outputs.
pub(crate) fn action(store: &Store, into: &OwnedFd, messages: &[&[u8]]) {
    let Some((start, directories)) = messages.split_first() else { return };
    let asked = asked(start);
    inputs(store, into, directories, asked.as_ref());
}

/// Checks an action and its command: `bytes` are a `RunActionStart`. Digests can not be guessed, so those that
/// are left out are filled in. Answers what was accepted.
fn asked(bytes: &[u8]) -> Option<Asked> {
    let mut start = RunActionStart::decode(bytes).ok()?;
    if let Ok(mut action) = Action::decode(start.action.clone()) {
        if action.command_digest.is_none() {
            action.command_digest = Some(to_reapi_digest(Digest::of(&start.command)));
        }
        action.input_root_digest.get_or_insert_with(|| to_reapi_digest(Digest::EMPTY));
        start.action = action.encode_to_vec().into();
    }
    if start.action_digest.is_none() {
        start.action_digest = Some(Digest::of(&start.action).into());
    }
    let asked = Asked::parse(start).ok()?;
    assert!(!asked.arguments[0].is_empty() && !asked.timeout.is_zero());
    assert!(asked.arguments.iter().chain(&asked.env).all(|word| !word.contains('\0')), "{asked:?}");
    assert!(asked.env.iter().all(|pair| pair.find('=').is_some_and(|at| at > 0)), "{asked:?}");
    let outputs = asked.outputs.outputs.iter().map(|output| output.path.clone());
    for path in outputs.chain(asked.outputs.parents()).chain([asked.work_dir.clone()]) {
        assert!(path.parts().all(|part| !matches!(part, "" | "." | "..")), "{path:?} climbs");
    }
    Some(asked)
}

/// Stores directories, each able to name those before it: a digest without a hash stands for the message whose
/// number is its size. Then makes the last one in `into`, and the places for the outputs of what was asked.
fn inputs(store: &Store, into: &OwnedFd, messages: &[&[u8]], asked: Option<&Asked>) {
    let mut digests: Vec<Digest> = vec![Digest::EMPTY];
    for message in messages {
        let Ok(mut directory) = Directory::decode(*message) else { continue };
        let files = directory.files.iter_mut().filter_map(|file| file.digest.as_mut());
        for digest in files.chain(directory.directories.iter_mut().filter_map(|node| node.digest.as_mut())) {
            let named = usize::try_from(digest.size_bytes).ok().and_then(|n| digests.get(n));
            if let (true, Some(named)) = (digest.hash.is_empty(), named) {
                *digest = to_reapi_digest(*named);
            }
        }
        let bytes = Bytes::from(directory.encode_to_vec());
        let digest = Digest::of(&bytes);
        if store.put_batch(&[(digest, bytes)]).is_ok() {
            digests.push(digest);
        }
    }
    let root = digests.last().copied().unwrap_or(Digest::EMPTY);
    let blobs = Blobs::Own(store.clone());
    let Ok(Looked::Complete(tree, all)) = look(&blobs, root) else { return };
    assert!(all.iter().all(|digest| store.missing(&[*digest]).is_empty()), "complete, and something is missing");
    let stop = CancellationToken::new();
    if Materializer::new(&tree, &blobs, &stop).fill(into.as_fd(), &root).is_ok() {
        for parent in asked.iter().flat_map(|asked| asked.outputs.parents()) {
            // Fails where an input is in the way; must not follow a link out.
            let _ = make_dirs(into.as_fd(), &parent);
        }
    }
}
