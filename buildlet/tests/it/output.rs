//! Output and input.

use crate::harness::*;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::exec_spec::Overflow;
use motefarm_proto::mote::*;
use std::fs;
use std::io::Read as _;
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn streams_are_kept_apart_or_merged_in_exact_order() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let script = "for i in $(seq 1 200); do echo out $i; echo err $i >&2; done";
    let apart = run(&mut client, &instance, &sh(script)).await;
    let lines = |word: &str| (1..=200).map(|i| format!("{word} {i}\n")).collect::<String>();
    assert_eq!(apart.text(), lines("out"));
    assert_eq!(String::from_utf8_lossy(&apart.stderr), lines("err"));
    let merged = run(&mut client, &instance, &ExecSpec { merge_output: true, ..sh(script) }).await;
    assert!(merged.stderr.is_empty());
    assert_eq!(merged.text(), (1..=200).map(|i| format!("out {i}\nerr {i}\n")).collect::<String>());
    assert_eq!(merged.outcome.unwrap().output_end, merged.next);
    buildlet.finish().await;
}

#[tokio::test]
async fn large_and_lineless_output_arrives_whole_from_any_offset() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let line = run(&mut client, &instance, &sh("head -c 1048576 /dev/zero | tr '\\0' x")).await;
    assert!(line.stdout.len() == 1 << 20 && line.stdout.iter().all(|b| *b == b'x'));
    let (exec, stream) = begin(&mut client, &instance, &sh("seq 1 1000000")).await;
    let whole = collect(stream, 0).await;
    assert_eq!(whole.stdout.len(), 6_888_896);
    for offset in [1, 500_000, 3_333_333, 6_888_895, 6_888_896] {
        let rest = attach(&mut client, &instance, &exec, offset, true).await;
        assert_eq!(rest.stdout, whole.stdout[offset as usize..], "from {offset}");
        assert_eq!(rest.ending(), (Ending::Exited, 0));
    }
    assert_eq!(attach(&mut client, &instance, &exec, 6_888_897, true).await.code(), Some(Code::OutOfRange));
    buildlet.finish().await;
}

#[tokio::test]
async fn without_follow_one_gets_what_is_there() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let (exec, mut stream) = begin(&mut client, &instance, &sh("echo here; exec sleep 1000")).await;
    read_until(&mut stream, "here\n").await;
    let now = attach(&mut client, &instance, &exec, 0, false).await;
    assert_eq!((now.text().as_str(), now.outcome, now.error.is_none()), ("here\n", None, true));
    buildlet.finish().await;
    // Whoever still reads hears that the instance ends, or finds the buildlet gone.
    assert!(collect(stream, 5).await.outcome.is_none());
}

#[tokio::test]
async fn stdin_has_offsets_repeats_and_an_end() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let cat = ExecSpec { stdin: true, program: "cat".into(), ..Default::default() };
    let (exec, mut stream) = begin(&mut client, &instance, &cat).await;
    let write = |offset: u64, data: &[u8], eof: bool| BuildletWriteStdinRequest {
        instance_id: instance.clone(),
        exec_id: exec.clone(),
        offset,
        data: data.to_vec().into(),
        eof,
    };
    let mut reply = client.write_stdin(write(0, b"hello ", false)).await.unwrap().into_inner();
    assert_eq!((reply.accepted, reply.closed), (6, false));
    reply = client.write_stdin(write(0, b"hello world\n", false)).await.unwrap().into_inner();
    assert_eq!(reply.accepted, 12);
    read_until(&mut stream, "hello world\n").await;
    let gap = client.write_stdin(write(13, b"x", false)).await.unwrap_err();
    assert_eq!(gap.code(), Code::OutOfRange);
    reply = client.write_stdin(write(12, b"bye\n", true)).await.unwrap().into_inner();
    assert_eq!((reply.accepted, reply.closed), (16, true));
    let rest = collect(stream, 12).await;
    assert_eq!((rest.text().as_str(), rest.ending()), ("bye\n", (Ending::Exited, 0)));
    assert!(client.write_stdin(write(16, b"late", false)).await.unwrap().into_inner().closed);
    // A command that never reads takes what its pipe holds, and the answer does not wait for ever.
    let deaf = ExecSpec { stdin: true, ..sh("exec sleep 1000") };
    let (exec, _stream) = begin(&mut client, &instance, &deaf).await;
    let write = |offset| BuildletWriteStdinRequest {
        instance_id: instance.clone(),
        exec_id: exec.clone(),
        offset,
        data: vec![b'x'; 100_000].into(),
        eof: true,
    };
    let reply = client.write_stdin(write(0)).await.unwrap().into_inner();
    assert!(reply.accepted > 0 && reply.accepted < 100_000 && !reply.closed);
    let again = client.write_stdin(write(0)).await.unwrap().into_inner();
    assert_eq!(again, reply);
    buildlet.finish().await;
}

#[tokio::test]
async fn a_full_spool_blocks_until_acknowledged_and_then_lets_go() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let spec = ExecSpec { spool_limit_bytes: 1 << 20, ..sh("head -c 5000000 /dev/zero; echo end") };
    let (exec, mut stream) = begin(&mut client, &instance, &spec).await;
    let spool = buildlet.instance_dir(&instance).join("execs").join(&exec).join("spool");
    eventually("the spool is full", || fs::metadata(&spool).is_ok_and(|m| m.len() > 900_000)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(fs::metadata(&spool).unwrap().len() <= 1 << 20, "the bound holds");
    let mut got = 0;
    let outcome = loop {
        let event = tokio::time::timeout(PATIENCE, stream.message()).await.expect("stuck").unwrap().unwrap();
        match event.event.unwrap() {
            exec_event::Event::Output(chunk) => {
                assert_eq!(chunk.offset, got);
                got += chunk.data.len() as u64;
                let ack =
                    BuildletAckOutputRequest { instance_id: instance.clone(), exec_id: exec.clone(), offset: got };
                client.ack_output(ack).await.unwrap();
            }
            exec_event::Event::Outcome(outcome) => break outcome,
            _ => {}
        }
    };
    assert_eq!((got, outcome.ending(), outcome.output_end), (5_000_004, Ending::Exited, 5_000_004));
    assert_eq!(attach(&mut client, &instance, &exec, 0, true).await.code(), Some(Code::OutOfRange));
    let tail = attach(&mut client, &instance, &exec, 5_000_000, true).await;
    assert_eq!((tail.text().as_str(), tail.ending().0), ("end\n", Ending::Exited));
    buildlet.finish().await;
}

#[tokio::test]
async fn a_full_spool_ends_the_execution_if_asked_to() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let spec = ExecSpec { spool_limit_bytes: 1 << 20, overflow: Overflow::End.into(), ..sh("exec yes") };
    let ran = run(&mut client, &instance, &spec).await;
    assert_eq!(ran.ending().0, Ending::OutputLimit);
    // What lay in the pipe at the end is not dropped: at most what an enlarged pipe holds.
    assert!(ran.next > 900_000 && ran.next < (2 << 20) + 70_000, "{}", ran.next);
    assert_eq!(ran.outcome.unwrap().output_end, ran.next);
    let just =
        ExecSpec { overflow: Overflow::End.into(), spool_limit_bytes: 1 << 20, ..sh("head -c 500000 /dev/zero") };
    assert_eq!(run(&mut client, &instance, &just).await.ending(), (Ending::Exited, 0));
    buildlet.finish().await;
}

/// Unmounts at the end, whatever the end.
struct SmallDisk(std::path::PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test]
async fn a_full_disk_delays_output_and_drops_none() {
    let dir = tempfile::tempdir().unwrap();
    let none: Option<&str> = None;
    let flags = nix::mount::MsFlags::empty();
    if let Err(error) = nix::mount::mount(none, dir.path(), Some("tmpfs"), flags, Some("size=16m")) {
        eprintln!("not root here ({error}): no small disk to fill");
        return;
    }
    let _disk = SmallDisk(dir.path().to_owned());
    let mut buildlet = Buildlet::start_in(dir, &[]).await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let ballast = buildlet.dir.path().join("ballast");
    fs::write(&ballast, vec![1; 12 << 20]).unwrap();
    let spec = ExecSpec { merge_output: true, ..sh("seq 1 1000000; echo end") };
    let (exec, stream) = begin(&mut client, &instance, &spec).await;
    let outcome = buildlet.instance_dir(&instance).join("execs").join(&exec).join("outcome");
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!outcome.exists(), "it ended without room for its output");
    fs::remove_file(&ballast).unwrap();
    let ran = collect(stream, 0).await;
    let expected = (1..=1_000_000).map(|n| format!("{n}\n")).collect::<String>() + "end\n";
    assert!(ran.text() == expected, "{} bytes of {}", ran.next, expected.len());
    assert_eq!(ran.ending(), (Ending::Exited, 0));
    buildlet.finish().await;
}

#[tokio::test]
async fn a_directory_comes_as_an_archive() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let script = "mkdir -p out/sub; head -c 3000000 /dev/urandom > out/big; ln -s big out/link; echo x > out/sub/x";
    assert_eq!(run(&mut client, &instance, &sh(script)).await.ending(), (Ending::Exited, 0));
    let work = buildlet.instance_dir(&instance).join("work");
    for compression in [TarCompression::None, TarCompression::Gzip, TarCompression::Zstd] {
        let request =
            BuildletGetTarRequest { instance_id: instance.clone(), dir: "out".into(), compression: compression.into() };
        let mut chunks = client.get_tar(request).await.unwrap().into_inner();
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.message().await.unwrap() {
            assert!(!chunk.data.is_empty() && chunk.data.len() <= 256 * 1024);
            bytes.extend_from_slice(&chunk.data);
        }
        let plain = match compression {
            TarCompression::Gzip => {
                let mut plain = Vec::new();
                flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut plain).unwrap();
                plain
            }
            TarCompression::Zstd => zstd::decode_all(&bytes[..]).unwrap(),
            _ => bytes,
        };
        let to = tempfile::tempdir().unwrap();
        tar::Archive::new(&plain[..]).unpack(to.path()).unwrap();
        assert_eq!(fs::read(to.path().join("big")).unwrap(), fs::read(work.join("out/big")).unwrap());
        assert_eq!(fs::read_link(to.path().join("link")).unwrap().to_str(), Some("big"));
        assert_eq!(fs::read_to_string(to.path().join("sub/x")).unwrap(), "x\n");
    }
    for (dir, code) in [("missing", Code::NotFound), ("out/link", Code::InvalidArgument)] {
        let request = BuildletGetTarRequest { instance_id: instance.clone(), dir: dir.into(), compression: 0 };
        assert_eq!(client.get_tar(request).await.unwrap_err().code(), code);
    }
    buildlet.finish().await;
}
