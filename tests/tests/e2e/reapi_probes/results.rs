//! ActionCache.

use super::Probe;
use super::ground::{Ground, told};
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::{
    ActionResult, Directory, FileNode, GetActionResultRequest, NodeProperties, OutputDirectory, OutputFile, Tree,
    UpdateActionResultRequest,
};
use tonic::Status;

pub(super) const PROBES: [Probe; 4] = [
    ("GetActionResult of an unknown key", miss),
    ("result that names an absent blob", absent_blob),
    ("result with a directory in whose Tree something is absent", absent_in_tree),
    ("key that is no Action, asked for twice; node_properties come back unchanged", opaque_key),
];

fn get(ground: &Ground, key: Digest) -> Result<ActionResult, Status> {
    let request = GetActionResultRequest { action_digest: Some(to_reapi_digest(key)), ..Default::default() };
    ground.rpc.wait(ground.action_cache().get_action_result(request)).map(tonic::Response::into_inner)
}

fn update(ground: &Ground, key: Digest, result: &ActionResult) -> Result<ActionResult, Status> {
    let (action_digest, action_result) = (Some(to_reapi_digest(key)), Some(result.clone()));
    let request = UpdateActionResultRequest { action_digest, action_result, ..Default::default() };
    ground.rpc.wait(ground.action_cache().update_action_result(request)).map(tonic::Response::into_inner)
}

fn miss(ground: &Ground) -> String {
    told(get(ground, Digest::of(&ground.fresh(100))), |_| "answered".to_owned())
}

fn absent_blob(ground: &Ground) -> String {
    let digest = Some(to_reapi_digest(Digest::of(&ground.fresh(100))));
    let file = OutputFile { path: "gone".to_owned(), digest, ..Default::default() };
    let result = ActionResult { output_files: vec![file], ..Default::default() };
    stored_then_got(ground, &result)
}

fn absent_in_tree(ground: &Ground) -> String {
    let digest = Some(to_reapi_digest(Digest::of(&ground.fresh(100))));
    let file = FileNode { name: "gone".to_owned(), digest, ..Default::default() };
    let tree = Tree { root: Some(Directory { files: vec![file], ..Default::default() }), ..Default::default() };
    let tree_digest = Some(to_reapi_digest(ground.put_message(&tree)));
    let directory = OutputDirectory { path: "d".to_owned(), tree_digest, ..Default::default() };
    let result = ActionResult { output_directories: vec![directory], ..Default::default() };
    stored_then_got(ground, &result)
}

/// What a lookup says, if storing it was not refused already.
fn stored_then_got(ground: &Ground, result: &ActionResult) -> String {
    let key = Digest::of(&ground.fresh(100));
    let _ = update(ground, key, result);
    told(get(ground, key), |_| "returned".to_owned())
}

fn opaque_key(ground: &Ground) -> String {
    let mut properties = NodeProperties::default();
    properties.unix_mode.get_or_insert_default().value = 0o754;
    properties.mtime.get_or_insert_default().seconds = 1_700_000_000;
    let content = ground.fresh(100);
    let file = OutputFile {
        path: "out".to_owned(),
        digest: Some(to_reapi_digest(ground.put(&content))),
        node_properties: Some(properties),
        ..Default::default()
    };
    let result = ActionResult { output_files: vec![file], ..Default::default() };
    // The document behind the key is there, and is no Action.
    let key = ground.put(&[0xff; 50]);
    if let Err(status) = update(ground, key, &result) {
        return super::ground::name(status.code());
    }
    let asked = [get(ground, key), get(ground, key)];
    let same = |answer: Result<ActionResult, Status>| {
        told(answer, |got| if got == result { "hit".to_owned() } else { "changed".to_owned() })
    };
    asked.map(same).join(", ")
}
