//! Blobs in messages: FindMissingBlobs and the batches.

use super::Probe;
use super::ground::{Ground, entry, name, told, yes};
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::{self, BatchReadBlobsRequest, BatchReadBlobsResponse, FindMissingBlobsRequest};
use tonic::{Code, Status};

pub(super) const PROBES: [Probe; 14] = [
    ("FindMissingBlobs of 10,000 digests in one call", ten_thousand),
    ("the empty blob: in FindMissingBlobs, batch, Read and GetTree, never put", empty_blob),
    ("digests that are none: short, upper case, negative size", malformed),
    ("FindMissingBlobs of a right hash with a wrong size", wrong_size),
    ("digest_function 0, SHA256, BLAKE3 in FindMissingBlobs", functions),
    ("wrong hash in a batch", wrong_hash),
    ("a blob that is there is put again", again),
    ("zstd entry in a batch", zstd_entry),
    ("zstd bomb in a batch", bomb),
    ("batch over the announced limit", oversized),
    ("a batch of just as much as is announced", full),
    ("BatchReadBlobs of a blob that is not there", absent),
    ("BatchReadBlobs over the announced limit", oversized_read),
    ("BatchReadBlobs that accepts zstd", zstd_read),
];

fn find(ground: &Ground, blob_digests: Vec<reapi::Digest>, digest_function: i32) -> Result<usize, Status> {
    let find = FindMissingBlobsRequest { blob_digests, digest_function, ..Default::default() };
    let answer = ground.rpc.wait(ground.cas().find_missing_blobs(find))?;
    Ok(answer.into_inner().missing_blob_digests.len())
}

fn batch_read(
    ground: &Ground,
    digests: &[Digest],
    acceptable_compressors: Vec<i32>,
) -> Result<BatchReadBlobsResponse, Status> {
    let digests = digests.iter().copied().map(to_reapi_digest).collect();
    let read = BatchReadBlobsRequest { digests, acceptable_compressors, ..Default::default() };
    ground.rpc.wait(ground.cas().batch_read_blobs(read)).map(tonic::Response::into_inner)
}

fn ten_thousand(ground: &Ground) -> String {
    let known = ground.put(&ground.fresh(100));
    let unknown = (0..9_999u64).map(|n| Digest::of(&n.to_be_bytes()));
    let all = unknown.chain([known]).map(to_reapi_digest).collect();
    told(find(ground, all, 0), |missing| format!("{missing} missing"))
}

fn empty_blob(ground: &Ground) -> String {
    let hash = Digest::EMPTY.hash_hex();
    let in_batch = batch_read(ground, &[Digest::EMPTY], vec![]).expect("an answer").responses.remove(0);
    let tree = reapi::GetTreeRequest { root_digest: Some(to_reapi_digest(Digest::EMPTY)), ..Default::default() };
    let tree = ground.rpc.wait(async { ground.cas().get_tree(tree).await?.into_inner().message().await });
    let there = [
        ground.missing(&[Digest::EMPTY]).is_empty(),
        in_batch.data.is_empty() && in_batch.status.unwrap_or_default().code == 0,
        ground.read(&format!("blobs/{hash}/0"), 0, 0).is_ok_and(|content| content.is_empty()),
        tree.is_ok_and(|page| page.is_some_and(|page| page.directories == [reapi::Directory::default()])),
    ];
    if there == [true; 4] { "there".to_owned() } else { format!("{there:?}") }
}

fn malformed(ground: &Ground) -> String {
    let good = Digest::of(b"x").hash_hex();
    let bad = [("abc".to_owned(), 3), (good.to_uppercase(), 1), (good, -1)];
    let mut codes: Vec<String> = bad
        .into_iter()
        .map(|(hash, size_bytes)| told(find(ground, vec![reapi::Digest { hash, size_bytes }], 0), |n| n.to_string()))
        .collect();
    codes.dedup();
    codes.join(", ")
}

fn wrong_size(ground: &Ground) -> String {
    let digest = ground.put(&ground.fresh(100));
    let longer = Digest::new(*digest.hash(), 101);
    if ground.missing(&[longer]) == [longer] { "missing".to_owned() } else { "present".to_owned() }
}

fn functions(ground: &Ground) -> String {
    let ask =
        |function| told(find(ground, vec![to_reapi_digest(Digest::of(b"nobody"))], function), |_| "ok".to_owned());
    [0, 1, 9].map(ask).join(", ")
}

fn wrong_hash(ground: &Ground) -> String {
    let (content, other) = (ground.fresh(100), Digest::of(&ground.fresh(100)));
    let codes = ground.update(vec![entry(other, &content, 0)]);
    assert_eq!(ground.missing(&[other]), [other], "no wrong byte enters");
    name(codes[0])
}

fn again(ground: &Ground) -> String {
    let content = ground.fresh(100);
    ground.put(&content);
    name(ground.update(vec![entry(Digest::of(&content), &content, 0)])[0])
}

fn zstd_entry(ground: &Ground) -> String {
    let content = ground.fresh(100).repeat(20);
    let packed = zstd::stream::encode_all(&content[..], 1).expect("zstd");
    let code = ground.update(vec![entry(Digest::of(&content), &packed, 1)])[0];
    assert_eq!(ground.missing(&[Digest::of(&content)]).is_empty(), code == Code::Ok);
    name(code)
}

fn bomb(ground: &Ground) -> String {
    let packed = zstd::stream::encode_all(&vec![0; 64 << 20][..], 1).expect("zstd");
    name(ground.update(vec![entry(Digest::of(&ground.fresh(100)), &packed, 1)])[0])
}

fn oversized(ground: &Ground) -> String {
    let contents: Vec<Vec<u8>> = (0..7).map(|_| ground.fresh(1 << 20)).collect();
    let requests = contents.iter().map(|content| entry(Digest::of(content), content, 0)).collect();
    name(ground.update(requests)[0])
}

fn full(ground: &Ground) -> String {
    let contents: Vec<Vec<u8>> = (0..3).map(|_| ground.fresh(1 << 20)).collect();
    let requests = contents.iter().map(|content| entry(Digest::of(content), content, 0)).collect();
    name(ground.update(requests)[0])
}

fn absent(ground: &Ground) -> String {
    told(batch_read(ground, &[Digest::of(&ground.fresh(9))], vec![]), |mut answer| {
        let code = answer.responses.remove(0).status.unwrap_or_default().code;
        format!("{} inside OK", name(Code::from_i32(code)))
    })
}

fn oversized_read(ground: &Ground) -> String {
    let big = ground.put(&ground.fresh(2 << 20));
    told(batch_read(ground, &[big, big], vec![]), |answer| format!("{} blobs", answer.responses.len()))
}

fn zstd_read(ground: &Ground) -> String {
    let content = ground.fresh(100).repeat(20);
    let digest = ground.put(&content);
    told(batch_read(ground, &[digest], vec![1]), |mut answer| {
        let it = answer.responses.remove(0);
        let unpacked = zstd::stream::decode_all(&it.data[..]).is_ok_and(|unpacked| unpacked == content);
        yes(it.compressor == 1 && unpacked)
    })
}
