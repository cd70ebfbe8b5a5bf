//! The same protocol said by ourselves, to say what the Go client never would.

use crate::{farm, seconds};
use motefarm_net::token::ApiToken;
use motefarm_proto::gomote as proto;
use motefarm_proto::gomote::gomote_service_client::GomoteServiceClient;
use motefarm_proto::mote;
use motefarm_tests::rpc::{Authorized, Rpc};
use motefarm_tests::{Instance, TestFarm, processes, wait};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

fn client(rpc: &Rpc) -> GomoteServiceClient<Authorized> {
    GomoteServiceClient::new(rpc.authorized())
}

/// A request by hand, and all that is answered.
fn http(address: &str, head: &str, body: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("the port is open");
    stream.set_read_timeout(Some(seconds(20))).expect("a timeout");
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).expect("the request is taken");
    // A refusal may come before all of it was sent.
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A form with a file among other parts.
fn form(content: &str) -> String {
    format!(
        "--X\r\nContent-Disposition: form-data; name=\"file\"; filename=\"../../etc/passwd\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n{content}\r\n\
         --X\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nany\r\n--X--\r\n"
    )
}

/// Uploads; answers what is answered.
fn post(url: &str, body: &str) -> String {
    let (address, path) = url.strip_prefix("http://").and_then(|url| url.split_once('/')).expect("a cleartext URL");
    let n = body.len();
    let head = format!(
        "POST /{path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: multipart/form-data; boundary=X\r\nContent-Length: {n}"
    );
    http(address, &head, body.as_bytes())
}

/// The farm's own user, who comes to loopback by its address.
fn beside(rpc: &Rpc, farm: &TestFarm) -> GomoteServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", farm.address())).expect("an address");
    GomoteServiceClient::new(rpc.wait(endpoint.connect()).expect("cleartext HTTP/2"))
}

fn upload(rpc: &Rpc, farm: &TestFarm) -> proto::UploadFileResponse {
    rpc.wait(beside(rpc, farm).upload_file(proto::UploadFileRequest {})).expect("room").into_inner()
}

fn write(rpc: &Rpc, instance: &str, url: String, name: &str, mode: u32) -> Result<(), Status> {
    let (gomote_id, filename) = (instance.to_owned(), name.to_owned());
    let request = proto::WriteFileFromUrlRequest { gomote_id, url, filename, mode };
    rpc.wait(client(rpc).write_file_from_url(request)).map(drop)
}

/// Every method with an instance's name answers alike for one that is another user's and for none.
pub(super) fn foreign_names_are_unknown(farm: &TestFarm, token: &str, foreign: &str) {
    let rpc = Rpc::connect(&farm.profile(), Some(token));
    let answers = |name: &str| -> Vec<(Code, String)> {
        let id = || name.to_owned();
        let mut client = client(&rpc);
        let answers: Vec<Option<Status>> = rpc.wait(async {
            vec![
                client.add_bootstrap(proto::AddBootstrapRequest { gomote_id: id() }).await.err(),
                client.destroy_instance(proto::DestroyInstanceRequest { gomote_id: id() }).await.err(),
                client
                    .execute_command(proto::ExecuteCommandRequest {
                        gomote_id: id(),
                        command: "/bin/true".to_owned(),
                        ..Default::default()
                    })
                    .await
                    .err(),
                client.instance_alive(proto::InstanceAliveRequest { gomote_id: id() }).await.err(),
                client
                    .list_directory(proto::ListDirectoryRequest { gomote_id: id(), ..Default::default() })
                    .await
                    .err(),
                client
                    .list_directory_streaming(proto::ListDirectoryRequest { gomote_id: id(), ..Default::default() })
                    .await
                    .err(),
                client
                    .read_tgz_to_url(proto::ReadTgzToUrlRequest { gomote_id: id(), directory: String::new() })
                    .await
                    .err(),
                client.remove_files(proto::RemoveFilesRequest { gomote_id: id(), paths: vec![".".into()] }).await.err(),
                client
                    .sign_ssh_key(proto::SignSshKeyRequest { gomote_id: id(), public_ssh_key: Default::default() })
                    .await
                    .err(),
            ]
        });
        answers
            .into_iter()
            .map(|status| status.map_or((Code::Ok, String::new()), |s| (s.code(), s.message().replace(name, "NAME"))))
            .collect()
    };
    let (theirs, nobodys) = (answers(foreign), answers("no-such-instance-0"));
    assert_eq!(theirs, nobodys);
    assert!(theirs.iter().all(|(code, _)| *code == Code::NotFound), "{theirs:?}");
    assert!(answers("").iter().all(|(code, _)| *code == Code::InvalidArgument));
}

#[test]
fn uploads_are_taken_once_by_who_has_the_address_and_used_by_who_asked() {
    let farm = farm().start();
    let mote = farm.create();
    let rpc = Rpc::connect(&farm.profile(), None);
    // By a name that is not loopback's nothing goes in the clear.
    let afar = rpc.wait(client(&rpc).upload_file(proto::UploadFileRequest {})).expect("room").into_inner();
    assert!(afar.url.starts_with("https://server.motefarm.internal/gomote/uploads/"), "{}", afar.url);
    let room = upload(&rpc, &farm);
    assert!(room.url.starts_with(&format!("http://{}/gomote/uploads/", farm.address())), "{}", room.url);
    let object = format!("{}{}", room.url, room.object_name);
    assert_eq!(write(&rpc, &mote.name, object.clone(), "it", 0o644).unwrap_err().code(), Code::FailedPrecondition);
    assert!(post(&room.url, &form("content")).starts_with("HTTP/1.1 204"));
    assert!(post(&room.url, &form("content")).starts_with("HTTP/1.1 409"), "once");
    let guessed = format!("{}0/", &room.url[..room.url.len() - 2]);
    let other = if guessed == room.url { format!("{}1/", &room.url[..room.url.len() - 2]) } else { guessed };
    assert!(post(&other, &form("x")).starts_with("HTTP/1.1 404"));
    // Cut off: as if it had never been.
    let cut = upload(&rpc, &farm);
    assert!(
        post(&cut.url, "--X\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\nhalf").starts_with("HTTP/1.1 400")
    );
    assert!(post(&cut.url, &form("whole")).starts_with("HTTP/1.1 404"));

    // Another user of the farm learns nothing by an address that is not theirs.
    farm.mote(["admin", "user", "add", "bob"]).ok();
    let token = farm.mote(["admin", "token", "create", "--user", "bob", "--name", "t"]).ok().out();
    let bob = Rpc::connect(&farm.profile(), Some(&token));
    let theirs = farm.instance(
        &farm.mote_as(&token, &["create", "--json", &TestFarm::host_type()]).ok().json(),
        &farm.buildlet_data(),
    );
    assert_eq!(write(&bob, &theirs.name, object.clone(), "it", 0o644).unwrap_err().code(), Code::FailedPrecondition);

    let as_dir = write(&rpc, &mote.name, object.clone(), "it", 1 << 31 | 0o755).unwrap_err();
    assert_eq!(as_dir.code(), Code::InvalidArgument);
    for (mode, wanted) in [(0o640, 0o640), (1 << 23 | 0o755, 0o755)] {
        write(&rpc, &mote.name, object.clone(), "it", mode).expect("it is kept for a minute more");
        let entry = motefarm_tests::files::read(&mote.work(), &[]).remove(std::path::Path::new("it"));
        assert_eq!(entry, Some(motefarm_tests::files::Entry::File(b"content".to_vec(), wanted)));
    }
    let elsewhere = write(&rpc, &mote.name, "http://127.0.0.1:1/x".to_owned(), "it", 0o644).unwrap_err();
    assert_eq!(elsewhere.code(), Code::FailedPrecondition);
    for path in ["../it", "/etc/it", ""] {
        assert!(write(&rpc, &mote.name, object.clone(), path, 0o644).is_err(), "{path:?}");
    }
    farm.destroy(&[&mote, &theirs]);
    farm.finish();
}

#[test]
fn archives_are_fetched_once_and_say_what_is_wrong_before_there_is_an_address() {
    let farm = farm().start();
    let mote = farm.create();
    farm.sh(&mote, "mkdir some; echo x > some/file");
    let rpc = Rpc::connect(&farm.profile(), None);
    let ask = |directory: &str| {
        let request = proto::ReadTgzToUrlRequest { gomote_id: mote.name.clone(), directory: directory.to_owned() };
        rpc.wait(beside(&rpc, &farm).read_tgz_to_url(request)).map(|answer| answer.into_inner().url)
    };
    assert!(ask("nowhere").unwrap_err().message().contains("nowhere"));
    let url = ask("some").expect("an address");
    let path = url.strip_prefix(&format!("http://{}", farm.address())).expect("our own address, in the clear");
    let get = || http(&farm.address(), &format!("GET {path} HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip"), b"");
    let answer = get().to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200") && answer.contains("application/octet-stream"), "{answer}");
    assert!(!answer.contains("content-encoding"), "the client would undo it");
    assert!(get().starts_with("HTTP/1.1 404"), "once");
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn tokens_are_for_the_farms_own_user_in_the_clear_and_for_programs() {
    let farm = farm().start();
    let address = farm.address();
    let get = |path: &str, headers: &str| {
        http(&address, &format!("GET /computeMetadata/v1/{path} HTTP/1.1\r\nHost: {address}{headers}"), b"")
    };
    let (project, identity) =
        ("project/project-id", "instance/service-accounts/default/identity?audience=a&format=full");
    let flavor = "\r\nMetadata-Flavor: Google";
    let answer = get(project, flavor);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.to_ascii_lowercase().contains("metadata-flavor: google"));
    assert!(answer.ends_with("symbolic-datum-552"), "{answer}");
    for (path, headers) in
        [(project, ""), (identity, ""), (identity, "\r\nMetadata-Flavor: Google\r\nX-Forwarded-For: x")]
    {
        let answer = get(path, headers);
        assert!(answer.starts_with("HTTP/1.1 403") && !answer.contains("mote_"), "{answer}");
    }
    let misled =
        http(&address, &format!("GET /computeMetadata/v1/{identity} HTTP/1.1\r\nHost: evil.example{flavor}"), b"");
    assert!(misled.starts_with("HTTP/1.1 403"), "{misled}");
    let token = get(identity, flavor).lines().last().unwrap_or_default().to_owned();
    let parsed: ApiToken = token.parse().expect("a token");
    let rpc = Rpc::connect(&farm.profile(), Some(parsed.secret()));
    rpc.wait(client(&rpc).authenticate(proto::AuthenticateRequest {})).expect("it is good here");
    let none = Rpc::connect(&farm.profile(), Some(""));
    let refused = none.wait(client(&none).authenticate(proto::AuthenticateRequest {})).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);

    // What runs in an instance shares the network and, to the kernel, the user; it gets nothing.
    let instance = farm.create();
    if farm.has_sandbox(&instance, "cleartext from an instance") {
        let (host, port) = address.split_once(':').expect("an address");
        let request =
            format!("GET /computeMetadata/v1/{identity} HTTP/1.1\\r\\nHost: {address}\\r\\nMetadata-Flavor: Google");
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port} && printf '{request}\\r\\nConnection: close\\r\\n\\r\\n' >&3 && cat <&3; echo over"
        );
        let ran = farm.mote(["run", "--quiet", &instance.name, "/bin/bash", "-c", &script]).run();
        assert!(ran.out().ends_with("over") && !ran.out().contains("HTTP"), "{} {}", ran.out(), ran.stderr);
    }
    farm.destroy(&[&instance]);

    // Another user of the machine: an address that they were told, and nothing else.
    if nix::unistd::geteuid().is_root() {
        let room = upload(&rpc, &farm);
        let by_other = |head: &str, body: &str| {
            use std::os::unix::process::CommandExt as _;
            let (host, port) = address.split_once(':').expect("an address");
            let script = format!("exec 3<>/dev/tcp/{host}/{port}; printf %s \"$REQUEST\" >&3; cat <&3");
            let request = format!("{head}\r\nHost: {address}\r\nConnection: close\r\n\r\n{body}");
            let mut bash = std::process::Command::new("bash");
            bash.args(["-c", &script]).env("REQUEST", request).uid(65534).gid(65534).current_dir("/");
            String::from_utf8_lossy(&bash.output().expect("bash runs").stdout).into_owned()
        };
        let metadata = format!("GET /computeMetadata/v1/{identity} HTTP/1.1{flavor}");
        assert_eq!(by_other(&metadata, ""), "");
        let path = room.url.strip_prefix(&format!("http://{address}")).expect("our own address");
        let body = form("by another");
        let n = body.len();
        let head =
            format!("POST {path} HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=X\r\nContent-Length: {n}");
        assert!(by_other(&head, &body).starts_with("HTTP/1.1 204"));
    } else {
        wait::skipped("cleartext from another user", "only root can be another user");
    }
    farm.finish();
}

/// The lines of a listing in one answer.
fn list(rpc: &Rpc, mote: &Instance, directory: &str) -> Result<Vec<String>, Status> {
    let request = proto::ListDirectoryRequest {
        gomote_id: mote.name.clone(),
        directory: directory.to_owned(),
        skip_files: vec![String::new()],
        ..Default::default()
    };
    Ok(rpc.wait(client(rpc).list_directory(request))?.into_inner().entries)
}

#[test]
fn older_clients_and_odd_questions_are_answered() {
    let farm = farm().start();
    let mote = farm.create();
    let rpc = Rpc::connect(&farm.profile(), None);
    farm.sh(&mote, "mkdir d; mkfifo p; ln -s d l; chmod 1777 d");
    let lines = list(&rpc, &mote, ".").expect("a listing");
    let shown: Vec<&str> = lines.iter().map(String::as_str).collect();
    let fifo = lines[2].split('\t').next().expect("a mode");
    assert_eq!(shown, ["dtrwxrwxrwx\td/", "Lrwxrwxrwx\tl", &format!("{fifo}\tp")]);
    assert!(fifo.starts_with('?'), "{fifo}");
    assert!(list(&rpc, &mote, "../..").is_err());
    // More than one message holds: streamed in messages of a hundred, refused in one.
    farm.sh(&mote, "cd d; n=$(printf 'x%.0s' $(seq 200)); seq -f \"%.0f-$n\" 16000 | xargs touch");
    assert_eq!(list(&rpc, &mote, "d").unwrap_err().code(), Code::ResourceExhausted);
    let request =
        proto::ListDirectoryRequest { gomote_id: mote.name.clone(), directory: "d".to_owned(), ..Default::default() };
    let streamed = rpc.wait(async {
        let mut messages = client(&rpc).list_directory_streaming(request).await?.into_inner();
        let mut n = 0;
        while let Some(message) = messages.message().await? {
            assert!(!message.entries.is_empty() && message.entries.len() <= 100);
            n += message.entries.len();
        }
        Ok::<_, Status>(n)
    });
    assert_eq!(streamed.expect("a listing"), 16_000);

    let bootstrap = proto::AddBootstrapRequest { gomote_id: mote.name.clone() };
    assert_eq!(
        rpc.wait(client(&rpc).add_bootstrap(bootstrap)).expect("nothing to install").into_inner().bootstrap_go_url,
        ""
    );
    let key = proto::SignSshKeyRequest { gomote_id: mote.name.clone(), public_ssh_key: Default::default() };
    assert_eq!(rpc.wait(client(&rpc).sign_ssh_key(key)).unwrap_err().code(), Code::InvalidArgument);
    let public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILO44hGPGZg30enxxu5VqAqK2NShsE3EnXKC5hZe3DPb someone\n";
    let key = proto::SignSshKeyRequest { gomote_id: mote.name.clone(), public_ssh_key: public.into() };
    let signed = rpc.wait(client(&rpc).sign_ssh_key(key)).expect("a certificate").into_inner().signed_public_ssh_key;
    assert!(signed.starts_with(b"ssh-ed25519-cert-v01@openssh.com ") && signed.ends_with(b"\n"));
    let many = proto::RemoveFilesRequest {
        gomote_id: mote.name.clone(),
        paths: (0..12_000).map(|n| format!("d/none-{n}")).chain(["d".to_owned()]).collect(),
    };
    rpc.wait(client(&rpc).remove_files(many)).expect("any number of paths");
    assert_eq!(list(&rpc, &mote, ".").expect("a listing").len(), 2);
    let none = proto::RemoveFilesRequest { gomote_id: mote.name.clone(), paths: vec![] };
    assert_eq!(rpc.wait(client(&rpc).remove_files(none)).unwrap_err().code(), Code::InvalidArgument);
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn a_stream_that_is_dropped_at_once_leaves_no_command() {
    let farm = farm().start();
    let instance = farm.create();
    let rpc = Rpc::connect(&farm.profile(), None);
    let mark = format!("{}77", 1_000_000 + std::process::id());
    let request = proto::ExecuteCommandRequest {
        gomote_id: instance.name.clone(),
        command: "/bin/sleep".to_owned(),
        args: vec![mark.clone()],
        system_level: true,
        ..Default::default()
    };
    // Dropped before anything was heard of it, and after.
    for (n, listen) in [false, true].into_iter().enumerate() {
        let stream = rpc.wait(client(&rpc).execute_command(request.clone())).expect("it begins").into_inner();
        if listen {
            wait::until_true("it runs", seconds(20), || !processes::with_arg(&mark).is_empty());
        }
        drop(stream);
        wait::until_true("it is cancelled", seconds(20), || {
            let request = mote::ListExecsRequest { instance: instance.name.clone() };
            let execs = rpc.wait(rpc.farm().list_execs(request)).expect("executions").into_inner().execs;
            let cancelled = mote::exec_outcome::Ending::Cancelled;
            execs.len() == n + 1 && execs.iter().all(|e| e.outcome.as_ref().is_some_and(|o| o.ending() == cancelled))
        });
        assert!(processes::with_arg(&mark).is_empty());
    }
    farm.destroy(&[&instance]);
    farm.finish();
}
