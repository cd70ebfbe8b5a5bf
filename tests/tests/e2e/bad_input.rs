//! What should not come, from the wire, the disk and the command line; and who may not.

use crate::{farm, seconds};
use motefarm_proto::mote;
use motefarm_proto::reapi::bytestream::{WriteRequest, byte_stream_client::ByteStreamClient};
use motefarm_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use motefarm_proto::reapi::{self, batch_update_blobs_request};
use motefarm_tests::files;
use motefarm_tests::root::SmallDisk;
use motefarm_tests::rpc::{Rpc, fresh_id, shell};
use motefarm_tests::{Dice, TestFarm, wait};
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tonic::{Code, Status};

fn digest(content: &[u8]) -> mote::Digest {
    motefarm_core::Digest::of(content).into()
}

fn reapi_digest(content: &[u8]) -> reapi::Digest {
    let digest = motefarm_core::Digest::of(content);
    reapi::Digest { hash: digest.hash_hex(), size_bytes: i64::try_from(content.len()).expect("a size") }
}

fn batch(contents: &[&[u8]]) -> mote::BlobBatch {
    mote::BlobBatch {
        digests: contents.iter().map(|content| digest(content)).collect(),
        data: contents.concat().into(),
        ..Default::default()
    }
}

fn piece(of: &[u8], from: usize, to: usize) -> mote::BlobBatch {
    mote::BlobBatch {
        digests: vec![digest(of)],
        data: of[from..to].to_vec().into(),
        piece_offset: from as u64,
        is_piece: true,
        ..Default::default()
    }
}

fn upload(rpc: &Rpc, batches: Vec<mote::BlobBatch>) -> Result<mote::UploadSummary, Status> {
    rpc.wait(async { Ok(rpc.farm().upload_blobs(stream(batches)).await?.into_inner()) })
}

fn stream<T: Send + 'static>(items: Vec<T>) -> impl tokio_stream::Stream<Item = T> + Send + 'static {
    tokio_stream::iter(items)
}

/// Which of these the farm lacks.
fn missing(rpc: &Rpc, contents: &[&[u8]]) -> usize {
    let mut cas = ContentAddressableStorageClient::new(rpc.authorized());
    let request = reapi::FindMissingBlobsRequest {
        blob_digests: contents.iter().map(|content| reapi_digest(content)).collect(),
        ..Default::default()
    };
    rpc.wait(cas.find_missing_blobs(request)).expect("an answer").into_inner().missing_blob_digests.len()
}

#[track_caller]
fn refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code) {
    let status = result.expect_err("it is to be refused");
    assert_eq!(status.code(), code, "{status:?}");
    assert!(!status.message().is_empty(), "a refusal says why");
}

#[test]
fn who_may_not_learns_nothing() {
    let farm = farm().start();
    let mote = farm.create();
    let exec = farm.detach(&mote, "echo mine; sleep 1000");
    farm.mote(["admin", "user", "add", "bob"]).ok();
    let bob = farm.mote(["admin", "token", "create", "--user", "bob"]).ok().out();

    // No token, a wrong one, a garbled one.
    let well_formed = format!("mote_{}", "0".repeat(64));
    for token in ["", &well_formed, "rubbish"] {
        let rpc = Rpc::connect(&farm.profile(), Some(token));
        refused(rpc.wait(rpc.farm().who_am_i(mote::WhoAmIRequest {})), Code::Unauthenticated);
        refused(rpc.wait(rpc.farm().list_instances(mote::ListInstancesRequest::default())), Code::Unauthenticated);
        refused(rpc.wait(rpc.admin().list_users(mote::ListUsersRequest {})), Code::Unauthenticated);
        refused(rpc.execute(&mote.name, &fresh_id(), shell("id")), Code::Unauthenticated);
        let mut cas = ContentAddressableStorageClient::new(rpc.authorized());
        refused(rpc.wait(cas.find_missing_blobs(reapi::FindMissingBlobsRequest::default())), Code::Unauthenticated);
    }
    farm.mote_as(&well_formed, &["list"]).run().fails(3).says(&["token"]);

    // Another user's instances are as if they were not there.
    assert_eq!(farm.mote_as(&bob, &["list"]).ok().out(), "");
    let nobody = format!("{}-{}-77", farm.user(), TestFarm::host_type());
    let theirs = farm.mote_as(&bob, &["ping", &mote.name]).run().fails(1).stderr;
    let nobodys = farm.mote_as(&bob, &["ping", &nobody]).run().fails(1).stderr;
    let shape = |text: &str, name: &str| text.replace(name, "NAME");
    assert_eq!(shape(&theirs, &mote.name), shape(&nobodys, &nobody), "the two answer alike");
    let rpc = Rpc::connect(&farm.profile(), Some(&bob));
    for instance in [mote.name.clone(), mote.id.clone()] {
        refused(rpc.execute(&instance, &fresh_id(), shell("id")), Code::NotFound);
        let name = || instance.clone();
        refused(rpc.wait(rpc.farm().ping_instance(mote::PingInstanceRequest { instance: name() })), Code::NotFound);
        refused(
            rpc.wait(rpc.farm().destroy_instance(mote::DestroyInstanceRequest { instance: name() })),
            Code::NotFound,
        );
        refused(rpc.wait(rpc.farm().list_execs(mote::ListExecsRequest { instance: name() })), Code::NotFound);
        let tar = mote::GetTarRequest { instance: name(), ..Default::default() };
        refused(rpc.wait(rpc.farm().get_tar(tar)).map(drop), Code::NotFound);
        let sync = mote::TreeSync { dest: "x".to_owned(), root: Some(digest(b"")), ..Default::default() };
        refused(
            rpc.wait(rpc.farm().sync_tree(mote::SyncTreeRequest { instance: name(), sync: Some(sync) })),
            Code::NotFound,
        );
    }
    let id = || exec.clone();
    let attach = mote::AttachExecRequest { exec_id: id(), ..Default::default() };
    refused(rpc.wait(rpc.farm().attach_exec(attach)).map(drop), Code::NotFound);
    refused(rpc.wait(rpc.farm().ack_output(mote::AckOutputRequest { exec_id: id(), offset: 1 })), Code::NotFound);
    refused(rpc.wait(rpc.farm().signal_exec(mote::SignalExecRequest { exec_id: id(), signal: 9 })), Code::NotFound);
    refused(rpc.wait(rpc.farm().cancel_exec(mote::CancelExecRequest { exec_id: id(), grace_ms: 0 })), Code::NotFound);
    let stdin = mote::WriteStdinRequest { exec_id: id(), ..Default::default() };
    refused(rpc.wait(rpc.farm().write_stdin(stdin)), Code::NotFound);
    // Taking an id that is another's says nothing of it and does nothing to it.
    let create = mote::CreateInstanceRequest {
        instance_id: mote.id.clone(),
        host_type: TestFarm::host_type(),
        ..Default::default()
    };
    assert!(rpc.wait(async { rpc.farm().create_instance(create).await?.into_inner().message().await }).is_err());

    // Nor is he an admin.
    refused(rpc.wait(rpc.admin().list_users(mote::ListUsersRequest {})), Code::PermissionDenied);
    let token = mote::CreateTokenRequest { user: farm.user(), name: "mine".to_owned(), lifetime_ms: 0 };
    refused(rpc.wait(rpc.admin().create_token(token)), Code::PermissionDenied);
    let everybodys = mote::ListInstancesRequest { all_users: true, shared: false };
    let refusal = rpc.wait(rpc.farm().list_instances(everybodys)).expect_err("admins only");
    assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal}");
    farm.mote_as(&bob, &["admin", "invite", "--host-type", "x"]).run().fails(1);

    // His own are his; the admin sees them.
    let his = farm.mote_as(&bob, &["create", &TestFarm::host_type()]).ok().out();
    assert_eq!(his, format!("bob-{}-0", TestFarm::host_type()));
    assert_eq!(farm.mote_as(&bob, &["run", "--quiet", &his, "/bin/echo", "his"]).ok().out(), "his");
    assert!(!farm.mote(["list"]).ok().out().contains("bob-") && farm.mote(["list", "--all"]).ok().out().contains(&his));
    farm.mote(["admin", "user", "remove", "bob"]).ok();
    farm.until_gone(&his, seconds(10));
    farm.mote_as(&bob, &["list"]).run().fails(3);
    let listed = farm.mote(["list", "--json"]).ok().json();
    assert_eq!(listed["instances"][0]["state"], "ready", "what bob tried did nothing: {listed}");
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn a_token_that_was_revoked_or_ran_out_is_worthless() {
    let farm = farm().start();
    farm.mote(["admin", "user", "add", "--role", "admin", "eve"]).ok();
    let short =
        farm.mote(["admin", "token", "create", "--user", "eve", "--name", "short", "--lifetime", "2s"]).ok().out();
    let long = farm.mote(["admin", "token", "create", "--user", "eve", "--name", "long"]).ok().out();
    farm.mote_as(&short, &["list", "--all"]).ok();
    farm.mote_as(&long, &["admin", "user", "list"]).ok();
    farm.mote(["admin", "token", "revoke", "--user", "eve", "--name", "long"]).ok();
    farm.mote_as(&long, &["list"]).run().fails(3);
    wait::until_true("the other ran out", seconds(10), || farm.mote_as(&short, &["list"]).run().code() == 3);
    let list = farm.mote(["admin", "token", "list"]).ok().out();
    for secret in [&short, &long, &farm.profile_value("token")] {
        assert!(!list.contains(secret.as_str()), "tokens are shown once: {list}");
    }
    // Not in the database, not in the logs.
    let database = std::fs::read(farm.data().join("farm.db")).expect("the database");
    let wal = std::fs::read(farm.data().join("farm.db-wal")).unwrap_or_default();
    let log = std::fs::read(farm.dir().join("coordinator.log")).expect("the log");
    for (what, bytes) in [("database", database), ("journal", wal), ("log", log)] {
        for secret in [&short, &long] {
            let bare = secret.trim_start_matches("mote_").as_bytes();
            assert!(!bytes.windows(bare.len()).any(|w| w == bare), "a token stands in the {what}");
        }
    }
    farm.finish();
}

fn http(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("the port is open");
    stream.set_read_timeout(Some(seconds(10))).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("the request is taken");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn cleartext_is_for_the_farms_own_user_on_loopback() {
    let farm = farm().start();
    let address = farm.address();
    let request = "GET /healthz HTTP/1.1\r\nHost: farm\r\nConnection: close\r\n\r\n";
    let answer = http(&address, request);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
    assert!(
        http(&address, "GET /nothing HTTP/1.1\r\nHost: farm\r\nConnection: close\r\n\r\n").starts_with("HTTP/1.1 404")
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let who = runtime.block_on(async {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
        let mut client = mote::farm_client::FarmClient::new(endpoint.connect().await.expect("cleartext HTTP/2"));
        client.who_am_i(mote::WhoAmIRequest {}).await.expect("an answer").into_inner()
    });
    assert_eq!((who.user.as_str(), who.role.as_str()), (farm.user().as_str(), "admin"), "known by the socket's owner");
    // Another user of the machine gets nothing.
    if nix::unistd::geteuid().is_root() {
        use std::os::unix::process::CommandExt as _;
        let (host, port) = address.split_once(':').expect("an address");
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port}; printf 'GET /healthz HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3; cat <&3"
        );
        let output =
            std::process::Command::new("bash").args(["-c", &script]).uid(65534).gid(65534).current_dir("/").output();
        let output = output.expect("bash runs");
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    } else {
        wait::skipped("cleartext from another user", "only root can be another user");
    }
    farm.finish();
}

#[test]
fn a_wrong_configuration_ends_with_64_before_a_port_opens() {
    let farm = farm().prepare();
    // Were the port tried first, the error would be another one.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("a bound address").to_string();
    for (text, named) in [
        ("lisen = 'x'", "lisen"),
        ("listen = 'nowhere'", "listen"),
        ("[leases]\nidle_timeout = 'soon'", "idle_timeout"),
        ("[local]\nslots = 0", "slots"),
        ("[limits]\nqueue = -1", "queue"),
        ("[[static]]\naddress = '127.0.0.1:1'\ntoken_file = '/no/such/token'\nca_file = '/no/such/ca'", "/no/such"),
        ("[tls]\ncert = '/x'", "key"),
        ("[oidc]\nissuer = 'http://id.example'\nclient_id = 'm'\nroles = [{ role = 'user' }]", "oidc.issuer"),
        (
            "[oidc]\nissuer = 'https://id.example'\nclient_id = 'm'\nclient_secret_file = '/no/such/secret'\nroles = [{ role = 'user' }]",
            "oidc.client_secret_file",
        ),
        ("this is no TOML", "line 1"),
    ] {
        let file = files::write(farm.dir(), "bad.toml", text);
        for verb in ["serve", "check-config"] {
            let mut call = farm.program(&farm.programs().coordinator).arg(verb).arg("--config").arg(&file);
            if !text.contains("listen") {
                call = call.args(["--listen", &address]);
            }
            let ran = call.arg("--data-dir").arg(farm.data()).run().fails(64);
            assert!(ran.stderr.contains(named), "{verb} {text:?} does not name {named}: {}", ran.stderr);
            assert!(ran.took < seconds(3));
        }
    }
    assert!(!farm.data().exists(), "and before anything is made");
    let missing =
        farm.program(&farm.programs().coordinator).args(["serve", "--config", "/no/such/file"]).run().fails(64);
    assert!(missing.stderr.contains("/no/such/file"));
    farm.coordinator(&["check-config"]).ok();
    // A port that is taken is no matter of configuration.
    let ran = farm.coordinator(&["serve", "--listen", &address]).run().fails(1);
    assert!(ran.stderr.contains(&address), "{}", ran.stderr);
    farm.start_coordinator();
    farm.finish();
}

#[test]
fn rubbish_and_half_open_connections_do_no_harm() {
    let farm = farm().start();
    let mote = farm.create();
    let address = farm.address();
    let mut dice = Dice::thrown("rubbish");
    let mut held = Vec::new();
    for round in 0..150 {
        let mut stream = TcpStream::connect(&address).expect("the port is open");
        let size = 1 + usize::try_from(dice.below(3000)).expect("a small number");
        let mut bytes = dice.bytes(size);
        match round % 5 {
            // Something that begins like TLS.
            0 => bytes[0] = 0x16,
            1 => bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").for_each(drop),
            2 => bytes
                .splice(0..0, *b"POST /mote.v1.Farm/WhoAmI HTTP/1.1\r\nContent-Length: 99999999\r\n")
                .for_each(drop),
            3 => bytes.clear(),
            _ => {}
        }
        let _ = stream.write_all(&bytes);
        if round % 2 == 0 {
            held.push(stream);
        }
    }
    let ran = farm.mote(["ping", &mote.name]).ok();
    assert!(ran.took < seconds(3), "a call beside them took {:?}", ran.took);
    // Those that say nothing are let go of.
    let quiet = held.iter_mut().find(|stream| stream.peer_addr().is_ok());
    if let Some(stream) = quiet {
        stream.set_read_timeout(Some(seconds(30))).expect("a timeout");
        let mut buffer = [0; 4096];
        while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
    }
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn malformed_messages_are_refused_by_field() {
    let farm = farm().start();
    let mote = farm.create();
    let rpc = Rpc::connect(&farm.profile(), None);
    let name = || mote.name.clone();
    // Ids.
    for id in ["", "rubbish", "00000000-0000-0000-0000-00000000000G", &"a".repeat(10_000)] {
        refused(rpc.execute(&mote.name, id, shell("true")), Code::InvalidArgument);
        let create = mote::CreateInstanceRequest {
            instance_id: id.to_owned(),
            host_type: TestFarm::host_type(),
            ..Default::default()
        };
        refused(rpc.wait(rpc.farm().create_instance(create)).map(drop), Code::InvalidArgument);
        refused(
            rpc.wait(rpc.farm().signal_exec(mote::SignalExecRequest { exec_id: id.to_owned(), signal: 9 })),
            Code::InvalidArgument,
        );
    }
    // Commands.
    let long = "x".repeat(2 << 20);
    let bad_specs: Vec<mote::ExecSpec> = vec![
        mote::ExecSpec::default(),
        mote::ExecSpec { program: "a\0b".to_owned(), ..shell("true") },
        mote::ExecSpec { args: vec!["a\0b".to_owned()], ..shell("true") },
        mote::ExecSpec { env: vec!["NOVALUE".to_owned()], ..shell("true") },
        mote::ExecSpec { env: vec!["=x".to_owned()], ..shell("true") },
        mote::ExecSpec { args: vec![long], ..shell("true") },
        mote::ExecSpec { args: vec![String::new(); 70_000], ..shell("true") },
        mote::ExecSpec { program: "bin/sh".to_owned(), ..shell("true") },
        mote::ExecSpec { program: "../../bin/sh".to_owned(), system_level: false, ..shell("true") },
    ];
    for (n, spec) in bad_specs.into_iter().enumerate() {
        let answer = rpc.execute(&mote.name, &fresh_id(), spec);
        assert!(answer.is_err(), "command {n} is no command and was run: {answer:?}");
        refused(answer, Code::InvalidArgument);
    }
    let none = mote::ExecuteRequest { instance: name(), exec_id: fresh_id(), spec: None, offset: 0 };
    refused(rpc.wait(rpc.farm().execute(none)).map(drop), Code::InvalidArgument);
    // Signals, stdin, waits.
    let exec_id = farm.detach(&mote, "cat; sleep 1000");
    let id = || exec_id.clone();
    for signal in [0, -1, 99] {
        refused(
            rpc.wait(rpc.farm().signal_exec(mote::SignalExecRequest { exec_id: id(), signal })),
            Code::InvalidArgument,
        );
    }
    refused(
        rpc.wait(rpc.farm().cancel_exec(mote::CancelExecRequest { exec_id: id(), grace_ms: 1 << 40 })),
        Code::InvalidArgument,
    );
    let much = mote::WriteStdinRequest { exec_id: id(), offset: 0, data: vec![0; 100_000].into(), eof: false };
    refused(rpc.wait(rpc.farm().write_stdin(much)), Code::InvalidArgument);
    // Trees and paths.
    for dest in ["../x", "/etc", "a/../../b", "a\0b"] {
        let sync = mote::TreeSync { dest: dest.to_owned(), root: Some(digest(b"")), ..Default::default() };
        refused(
            rpc.wait(rpc.farm().sync_tree(mote::SyncTreeRequest { instance: name(), sync: Some(sync) })),
            Code::InvalidArgument,
        );
        let tar = mote::GetTarRequest { instance: name(), dir: dest.to_owned(), compression: 0 };
        refused(rpc.wait(rpc.farm().get_tar(tar)).map(drop), Code::InvalidArgument);
    }
    let short = mote::Digest { hash: vec![0; 31].into(), size_bytes: 5 };
    let sync = mote::TreeSync { dest: "x".to_owned(), root: Some(short), ..Default::default() };
    refused(
        rpc.wait(rpc.farm().sync_tree(mote::SyncTreeRequest { instance: name(), sync: Some(sync) })),
        Code::InvalidArgument,
    );
    // A tree that is none: a blob that is no directory, and directories with names that lead away.
    for (content, what) in [
        (b"\xff\xff\xff rubbish".to_vec(), "rubbish"),
        (evil_directory("../up"), "../up"),
        (evil_directory("a/b"), "a/b"),
        (evil_directory(".."), ".."),
    ] {
        upload(&rpc, vec![batch(&[&content, b"payload"])]).expect("the blob itself is sound");
        let sync = mote::TreeSync { dest: "evil".to_owned(), root: Some(digest(&content)), ..Default::default() };
        let answer = rpc.wait(rpc.farm().sync_tree(mote::SyncTreeRequest { instance: name(), sync: Some(sync) }));
        assert!(answer.is_err(), "{what} was taken for a tree: {answer:?}");
    }
    assert!(!mote.dir.join("up").exists() && !mote.work().join("up").exists());
    // A message past the bound.
    let huge = mote::BlobBatch { digests: vec![digest(b"x")], data: vec![1; 20 << 20].into(), ..Default::default() };
    assert!(upload(&rpc, vec![huge]).is_err());
    farm.mote(["ping", &mote.name]).ok();
    farm.destroy(&[&mote]);
    farm.finish();
}

/// A directory with one file of this name.
fn evil_directory(name: &str) -> Vec<u8> {
    use prost::Message as _;
    let file = reapi::FileNode { name: name.to_owned(), digest: Some(reapi_digest(b"payload")), ..Default::default() };
    reapi::Directory { files: vec![file], ..Default::default() }.encode_to_vec()
}

#[test]
fn uploads_that_are_wrong_or_cut_short_leave_nothing() {
    let farm = farm().start();
    let rpc = Rpc::connect(&farm.profile(), None);
    let mut dice = Dice::new(21);
    let (small, large) = (dice.bytes(5_000), dice.bytes(6_000_000));
    // Content that is not what its digest says.
    let mut lying = batch(&[&small]);
    lying.digests = vec![digest(b"something else, of another size")];
    refused(upload(&rpc, vec![lying]), Code::InvalidArgument);
    let mut flipped = small.clone();
    flipped[2_500] ^= 1;
    let mut lying = batch(&[&flipped]);
    lying.digests = vec![digest(&small)];
    refused(upload(&rpc, vec![lying]), Code::InvalidArgument);
    let mut more = batch(&[&small]);
    more.data = [&small[..], b"more"].concat().into();
    assert!(upload(&rpc, vec![more]).is_err(), "more content than digests");
    // Pieces: cut short, out of order, of two blobs at once, flipped.
    let mega = 1 << 20;
    assert!(upload(&rpc, vec![piece(&large, 0, mega)]).is_err(), "a blob cut short");
    assert!(upload(&rpc, vec![piece(&large, mega, 2 * mega)]).is_err(), "a blob without its beginning");
    assert!(upload(&rpc, vec![piece(&large, 0, mega), piece(&large, 2 * mega, 3 * mega)]).is_err(), "a gap");
    assert!(upload(&rpc, vec![piece(&large, 0, mega), batch(&[&small])]).is_err(), "another blob in the middle");
    let mut wrong = large.clone();
    wrong[5_999_999] ^= 1;
    let pieces = |of: &[u8]| -> Vec<mote::BlobBatch> {
        let mut all = Vec::new();
        for from in (0..of.len()).step_by(mega) {
            let mut one = piece(of, from, (from + mega).min(of.len()));
            one.digests = vec![digest(&large)];
            all.push(one);
        }
        all
    };
    refused(upload(&rpc, pieces(&wrong)), Code::InvalidArgument);
    // Compressed rubbish, and a bomb.
    let mut rubbish = batch(&[&small]);
    rubbish.compression = mote::blob_batch::Compression::Zstd.into();
    assert!(upload(&rpc, vec![rubbish]).is_err());
    let mut bomb = batch(&[&small]);
    bomb.compression = mote::blob_batch::Compression::Zstd.into();
    bomb.data = zstd::encode_all(std::io::repeat(0).take(1 << 30), 3).expect("zstd").into();
    let begin = Instant::now();
    assert!(upload(&rpc, vec![bomb]).is_err());
    assert!(begin.elapsed() < seconds(5), "a bomb is not unpacked: {:?}", begin.elapsed());

    // The same over REAPI.
    let mut cas = ContentAddressableStorageClient::new(rpc.authorized());
    let request = reapi::BatchUpdateBlobsRequest {
        requests: vec![batch_update_blobs_request::Request {
            digest: Some(reapi_digest(&small)),
            data: flipped.clone(),
            ..Default::default()
        }],
        ..Default::default()
    };
    match rpc.wait(cas.batch_update_blobs(request)) {
        Ok(answer) => {
            let code = answer.into_inner().responses.first().and_then(|r| r.status.as_ref().map(|s| s.code));
            assert!(code.is_some_and(|code| code != 0), "a wrong digest was taken");
        }
        Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "{status}"),
    }
    let mut bytes = ByteStreamClient::new(rpc.authorized());
    let digest = reapi_digest(&large);
    let resource_name = format!("uploads/{}/blobs/{}/{}", fresh_id(), digest.hash, digest.size_bytes);
    let write = |offset: usize, data: &[u8], finish_write: bool| WriteRequest {
        resource_name: resource_name.clone(),
        write_offset: i64::try_from(offset).expect("a size"),
        finish_write,
        data: data.to_vec(),
    };
    let cut = rpc.wait(bytes.write(stream(vec![write(0, &large[..mega], true)])));
    assert!(cut.is_err(), "a stream that ended early was taken: {cut:?}");
    assert_eq!(missing(&rpc, &[&small, &large]), 2, "none of it was kept");

    // And what is right after all that is taken.
    assert_eq!(upload(&rpc, vec![batch(&[&small])]).expect("sound").stored, 1);
    upload(&rpc, pieces(&large)).expect("sound");
    assert_eq!(missing(&rpc, &[&small, &large]), 0);
    farm.stop_coordinator();
    farm.coordinator(&["cas", "verify"]).ok();
    farm.start_coordinator();
    farm.finish();
}

#[test]
fn a_full_disk_under_the_store_is_named_and_outlived() {
    let farm = farm().prepare();
    let disk = match SmallDisk::mount(&farm.data().join("cas"), 24) {
        Ok(disk) => disk,
        Err(why) => return wait::skipped("a full disk under the content store", &why),
    };
    farm.start_coordinator();
    let mote = farm.create();
    let mut dice = Dice::new(8);
    let small = farm.fresh("small");
    files::write(&small, "file", "small");
    farm.push(&small, "small", &mote).ok();
    let big = farm.fresh("big");
    for i in 0..40 {
        files::write(&big, format!("{i}"), dice.bytes(900_000));
    }
    files::write(&big, "large", dice.bytes(5_000_000));
    let ran = farm.push(&big, "big", &mote).run().fails(1);
    assert!(names_a_full_disk(&ran.stderr), "the cause is named: {}", ran.stderr);
    assert!(ran.took < seconds(30), "and soon: {:?}", ran.took);
    assert!(!mote.work().join("big/39").exists());
    // The rest of the farm goes on, also after a restart.
    assert_eq!(farm.sh(&mote, "cat small/file").out(), "small");
    farm.kill_coordinator();
    farm.start_coordinator();
    assert_eq!(farm.sh(&mote, "cat small/file").out(), "small");
    farm.destroy(&[&mote]);
    farm.stop_coordinator();
    farm.coordinator(&["cas", "verify"]).ok();
    farm.start_coordinator();
    farm.finish_with(move || drop(disk));
}

#[test]
fn a_full_disk_under_the_instances_is_named_and_outlived() {
    let farm = farm().prepare();
    let disk = match SmallDisk::mount(&farm.buildlet_data(), 32) {
        Ok(disk) => disk,
        Err(why) => return wait::skipped("a full disk under the instances", &why),
    };
    farm.start_coordinator();
    let mote = farm.create();
    let fill =
        "dd if=/dev/zero of=fill bs=64k 2>/dev/null; : > filled; while [ -e fill ]; do sleep 0.1; done; echo freed";
    let running = farm.run(&mote, fill).spawn();
    wait::until_true("the disk is full", seconds(20), || mote.work().join("filled").exists());
    let tree = farm.fresh("tree");
    files::write(&tree, "file", Dice::new(4).bytes(2_000_000));
    let pushed = farm.push(&tree, "it", &mote).run().fails(1);
    assert!(names_a_full_disk(&pushed.stderr), "the cause is named: {}", pushed.stderr);
    let ran = farm.run(&mote, "echo no room").run();
    assert!(ran.code() == 0 || names_a_full_disk(&ran.stderr), "{} {}", ran.code(), ran.stderr);
    // A command that prints more than there is room for.
    let loud = farm.run(&mote, "head -c 3000000 /dev/zero").stdout_to_null().patience(seconds(40)).spawn();
    std::thread::sleep(Duration::from_secs(1));
    std::fs::remove_file(mote.work().join("fill")).expect("the file that fills the disk");
    running.wait().ok();
    let loud = loud.wait();
    let told = loud.code() == 0 || names_a_full_disk(&loud.stderr);
    assert!(told, "either it waited for room or it says why not: {} {}", loud.code(), loud.stderr);
    farm.push(&tree, "it", &mote).ok();
    files::assert_equal(&files::read(&mote.work().join("it"), &[]), &files::read(&tree, &[]));
    assert_eq!(farm.sh(&mote, "echo room").out(), "room");
    farm.destroy(&[&mote]);
    farm.finish_with(move || drop(disk));
}

fn names_a_full_disk(text: &str) -> bool {
    let text = text.to_lowercase();
    ["no space", "no room", "full"].iter().any(|words| text.contains(words))
}
