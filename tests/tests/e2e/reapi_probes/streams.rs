//! Single blobs: ByteStream.

use super::Probe;
use super::ground::{Ground, name, told, yes};
use motefarm_core::Digest;
use motefarm_proto::reapi::bytestream::WriteRequest;
use motefarm_tests::wait;
use std::time::Duration;
use tokio_stream::wrappers::ReceiverStream;

pub(super) const PROBES: [Probe; 17] = [
    ("Write in pieces of 16 KiB, and of 4,193,280 bytes", pieces),
    ("leading slash in a resource name", leading_slash),
    ("instance with slashes, and metadata behind the size", long_name),
    ("`blobs/sha256/…`", with_function),
    ("resource name that changes within one Write", renamed),
    ("wrong hash on Write", wrong_hash),
    ("Write without finish_write", unfinished),
    ("write_offset with a gap, and one that overlaps", offsets),
    ("Write of more than was announced", too_much),
    ("Write of a blob that is there", early),
    ("Write in zstd; the same when it is there", zstd_write),
    ("zstd bomb on Write", bomb),
    ("QueryWriteStatus of a Write cut off, which is then resumed", resumed),
    ("Read from the end, and from beyond", beyond),
    ("Read of a right hash with a wrong size", wrong_size),
    ("Read in zstd from an offset; with a limit", zstd_read),
    ("Read of a blob that is not there", absent),
];

/// A write in pieces of `step` bytes, named on the first message.
fn messages(name: &str, stream: &[u8], step: usize) -> Vec<WriteRequest> {
    let mut messages: Vec<WriteRequest> = stream
        .chunks(step)
        .enumerate()
        .map(|(n, piece)| WriteRequest {
            resource_name: if n == 0 { name.to_owned() } else { String::new() },
            write_offset: i64::try_from(n * step).expect("small"),
            finish_write: false,
            data: piece.to_vec(),
        })
        .collect();
    messages.last_mut().expect("content").finish_write = true;
    messages
}

fn address(content: &[u8]) -> String {
    let digest = Digest::of(content);
    format!("{}/{}", digest.hash_hex(), digest.size_bytes())
}

fn upload(content: &[u8]) -> String {
    format!("uploads/{}/blobs/{}", uuid::Uuid::new_v4(), address(content))
}

fn committed(answer: Result<i64, tonic::Status>, of: usize) -> String {
    told(answer, |size| if usize::try_from(size) == Ok(of) { "ok".to_owned() } else { size.to_string() })
}

fn pieces(ground: &Ground) -> String {
    let answer = |size: usize, step: usize| {
        let content = ground.fresh(size);
        committed(ground.write(messages(&upload(&content), &content, step)), size)
    };
    [answer(100_000, 16 << 10), answer(9_000_000, 4_193_280)].join(", ")
}

fn leading_slash(ground: &Ground) -> String {
    let content = ground.fresh(1000);
    let written = committed(ground.write(messages(&format!("/{}", upload(&content)), &content, 1000)), 1000);
    let read = told(ground.read(&format!("/blobs/{}", address(&content)), 0, 0), |read| yes(read == content));
    if read == "yes" { written } else { read }
}

fn long_name(ground: &Ground) -> String {
    let content = ground.fresh(1000);
    let name = format!("a/b/c/{}/some/file.o", upload(&content));
    let written = committed(ground.write(messages(&name, &content, 1000)), 1000);
    let read = told(ground.read(&format!("x/blobs/{}", address(&content)), 0, 0), |read| yes(read == content));
    if read == "yes" { written } else { read }
}

fn with_function(ground: &Ground) -> String {
    let content = ground.fresh(1000);
    ground.put(&content);
    told(ground.read(&format!("blobs/sha256/{}", address(&content)), 0, 0), |_| "ok".to_owned())
}

fn renamed(ground: &Ground) -> String {
    let content = ground.fresh(3000);
    let mut all = messages(&upload(&content), &content, 1000);
    all[1].resource_name = upload(&content);
    told(ground.write(all), |size| size.to_string())
}

fn wrong_hash(ground: &Ground) -> String {
    let (content, other) = (ground.fresh(1000), ground.fresh(1000));
    let answer = told(ground.write(messages(&upload(&other), &content, 1000)), |_| "accepted".to_owned());
    assert_eq!(ground.missing(&[Digest::of(&other)]).len(), 1, "no wrong byte enters");
    answer
}

fn unfinished(ground: &Ground) -> String {
    let content = ground.fresh(1000);
    let mut all = messages(&upload(&content), &content, 500);
    all[1].finish_write = false;
    told(ground.write(all), |_| "accepted".to_owned())
}

fn offsets(ground: &Ground) -> String {
    let answer = |by: i64| {
        let content = ground.fresh(3000);
        let mut all = messages(&upload(&content), &content, 1000);
        all[2].write_offset += by;
        told(ground.write(all), |_| "accepted".to_owned())
    };
    [answer(1), answer(-1)].join(", ")
}

fn too_much(ground: &Ground) -> String {
    let content = ground.fresh(3000);
    let name = upload(&content[..2000]);
    let answer = told(ground.write(messages(&name, &content, 1000)), |_| "accepted".to_owned());
    assert_eq!(ground.missing(&[Digest::of(&content[..2000])]).len(), 1, "a beginning is not the blob");
    answer
}

fn early(ground: &Ground) -> String {
    let content = ground.fresh(3000);
    ground.put(&content);
    committed(ground.write(messages(&upload(&content), &content, 1000)[..1].to_vec()), 3000)
}

fn zstd_write(ground: &Ground) -> String {
    let content = ground.fresh(1000).repeat(9);
    let packed = zstd::stream::encode_all(&content[..], 1).expect("zstd");
    let name = upload(&content).replace("/blobs/", "/compressed-blobs/zstd/");
    let first = ground.write(messages(&name, &packed, 400));
    assert_eq!(ground.missing(&[Digest::of(&content)]).is_empty(), first.is_ok());
    let first =
        told(
            first,
            |size| {
                if usize::try_from(size) == Ok(packed.len()) { "bytes sent".to_owned() } else { size.to_string() }
            },
        );
    let second = told(ground.write(messages(&name, &packed, 400)), |size| size.to_string());
    format!("{first}, {second}")
}

fn bomb(ground: &Ground) -> String {
    let content = ground.fresh(1000);
    let packed = zstd::stream::encode_all(&vec![0; 256 << 20][..], 1).expect("zstd");
    let name = upload(&content).replace("/blobs/", "/compressed-blobs/zstd/");
    told(ground.write(messages(&name, &packed, 64 << 10)), |_| "accepted".to_owned())
}

fn resumed(ground: &Ground) -> String {
    let content = ground.fresh(3 << 20);
    let name = upload(&content);
    let all = messages(&name, &content, 1 << 20);
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    ground.rpc.wait(async {
        let mut client = ground.streams();
        let call = tokio::spawn(async move { client.write(ReceiverStream::new(receiver)).await });
        sender.send(all[0].clone()).await.expect("the call runs");
        // Its end is never sent: the call is dropped when the server has the first piece.
        loop {
            let request = motefarm_proto::reapi::bytestream::QueryWriteStatusRequest { resource_name: name.clone() };
            match ground.streams().query_write_status(request).await {
                Ok(answer) if answer.get_ref().committed_size == 1 << 20 => break,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        call.abort();
        let _ = call.await;
    });
    let queried = told(ground.query(&name), |(size, complete)| format!("{size}, complete {complete}"));
    assert_eq!(queried, "1048576, complete false");
    // Refused until the server has noticed that the first stream is gone.
    let rest: Vec<WriteRequest> =
        all[1..].iter().map(|message| WriteRequest { resource_name: name.clone(), ..message.clone() }).collect();
    let size = wait::until("the write can be resumed", Duration::from_secs(10), || ground.write(rest.clone()).ok());
    if usize::try_from(size) == Ok(content.len()) { "resumed".to_owned() } else { size.to_string() }
}

fn beyond(ground: &Ground) -> String {
    let content = ground.fresh(1000);
    ground.put(&content);
    let read = |offset| {
        told(ground.read(&format!("blobs/{}", address(&content)), offset, 0), |read| {
            if read.is_empty() { "empty".to_owned() } else { format!("{} bytes", read.len()) }
        })
    };
    format!("{}, {}", read(1000), read(1001))
}

fn wrong_size(ground: &Ground) -> String {
    let content = ground.fresh(1000);
    let digest = ground.put(&content);
    told(ground.read(&format!("blobs/{}/900", digest.hash_hex()), 0, 0), |read| format!("{} bytes", read.len()))
}

fn zstd_read(ground: &Ground) -> String {
    let content = ground.fresh(1000);
    ground.put(&content);
    let name = format!("compressed-blobs/zstd/{}", address(&content));
    let tail = told(ground.read(&name, 900, 0), |packed| {
        let unpacked = zstd::stream::decode_all(&packed[..]).unwrap_or_default();
        if unpacked == content[900..] { "ok".to_owned() } else { format!("{} bytes", unpacked.len()) }
    });
    format!("{tail}, {}", told(ground.read(&name, 0, 5), |_| "answered".to_owned()))
}

fn absent(ground: &Ground) -> String {
    let answer = ground.read(&format!("blobs/{}", address(&ground.fresh(9))), 0, 0);
    answer.map_or_else(|status| name(status.code()), |_| "answered".to_owned())
}
