//! The two ways in that cross a network: listening, and a connection the buildlet dialled.

use crate::harness::*;
use motefarm_net::dial::{Bearer, Target, channel, channel_on};
use motefarm_net::tls::{Authority, client_config};
use motefarm_net::token::JoinToken;
use motefarm_proto::mote::buildlet_client::BuildletClient;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::*;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::Code;
use uuid::Uuid;

/// Killed at the end, whatever the end.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(dir: &tempfile::TempDir, args: &[&str]) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mote-buildlet"));
    command.args(args).arg("--data-dir").arg(dir.path().join("data")).stdin(Stdio::null()).stderr(Stdio::piped());
    Running(command.spawn().unwrap())
}

#[tokio::test]
async fn a_listening_buildlet_wants_its_token_on_every_call() {
    let dir = tempfile::tempdir().unwrap();
    let mut running = spawn(&dir, &["listen", "--addr", "127.0.0.1:0"]);
    let mut log = String::new();
    let address = BufReader::new(running.0.stderr.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .inspect(|line| log += line)
        .find_map(|line| Some(line.split_once("address=")?.1.split_whitespace().next()?.to_owned()))
        .unwrap();
    let token = fs::read_to_string(dir.path().join("data/token")).unwrap();
    assert!(!log.contains(token.trim()), "the log holds the secret");
    let ca = fs::read_to_string(dir.path().join("data/tls/ca.pem")).unwrap();
    let dial = || channel(Target::Tls { address: address.clone(), tls: Arc::new(client_config(&ca).unwrap()) });
    let mut stranger = BuildletClient::new(dial().await.unwrap());
    for _ in 0..2 {
        let refused = stranger.describe(DescribeRequest {}).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
    }
    let mut wrong = BuildletClient::with_interceptor(dial().await.unwrap(), Bearer::new("mote_x").unwrap());
    assert_eq!(wrong.describe(DescribeRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    let mut friend = BuildletClient::with_interceptor(dial().await.unwrap(), Bearer::new(token.trim()).unwrap());
    let described = friend.describe(DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!((described.protocol_version, described.reads_farm_store), (1, false));
}

async fn accept(listener: &TcpListener, tls: &TlsAcceptor) -> (String, TlsStream<TcpStream>) {
    let work = async {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = tls.accept(tcp).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        (head, stream)
    };
    tokio::time::timeout(PATIENCE, work).await.expect("nobody joins")
}

async fn welcome(mut stream: TlsStream<TcpStream>) -> Client {
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: mote-buildlet\r\n\r\n";
    stream.write_all(answer).await.unwrap();
    BuildletClient::new(channel_on(Box::new(stream)).await.unwrap())
}

#[tokio::test]
async fn a_joined_buildlet_serves_what_it_dialled_and_comes_back_with_all_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(&dir.path().join("ca")).unwrap();
    let tls = TlsAcceptor::from(authority.server_config(&[]).unwrap());
    let token = JoinToken::generate(&authority.ca_hash().unwrap());
    fs::write(dir.path().join("token"), token.reveal()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let token_file = dir.path().join("token");
    let args = ["join", "--coordinator", &address, "--host-type", "linux-test", "--slots", "3", "--token-file"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_mote-buildlet"));
    command.args(args).arg(&token_file).arg("--data-dir").arg(dir.path().join("data")).env("MOTE_LOG", "error");
    let _running = Running(command.stdin(Stdio::null()).spawn().unwrap());

    // First a coordinator that is not ready.
    let (_, mut busy) = accept(&listener, &tls).await;
    busy.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    drop(busy);
    let mut lanes = Vec::new();
    let mut clients = Vec::new();
    while lanes.len() < 2 {
        let (head, stream) = accept(&listener, &tls).await;
        assert!(head.starts_with("get /v1/buildlet/join http/1.1\r\n"), "{head}");
        for line in ["upgrade: mote-buildlet", "mote-host-type: linux-test", "mote-slots: 3"] {
            assert!(head.contains(line), "{line} is not in {head}");
        }
        assert!(head.contains(&format!("authorization: bearer {}", token.reveal())));
        lanes.push(head.split_once("mote-lane: ").unwrap().1.split_once("\r\n").unwrap().0.to_owned());
        clients.push(welcome(stream).await);
    }
    lanes.sort();
    assert_eq!(lanes, ["bulk", "control"]);
    let client = &mut clients[0];
    let described = client.describe(DescribeRequest {}).await.unwrap().into_inner();
    assert_eq!((described.host_type.as_str(), described.lease_slots), ("linux-test", 3));
    let instance = Uuid::new_v4().to_string();
    let terms = LeaseTerms { idle_timeout_ms: 600_000, max_lifetime_ms: 0, unwatched_limit_ms: 600_000 };
    let create =
        BuildletCreateInstanceRequest { instance_id: instance.clone(), terms: Some(terms), ..Default::default() };
    client.create_instance(create).await.unwrap();
    let (exec, mut stream) = begin(client, &instance, &sh("echo one; sleep 0.5; echo two")).await;
    read_until(&mut stream, "one\n").await;
    drop((stream, clients));
    let (_, stream) = accept(&listener, &tls).await;
    let mut client = welcome(stream).await;
    let ran = attach(&mut client, &instance, &exec, 4, true).await;
    assert_eq!((ran.text().as_str(), ran.ending()), ("two\n", (Ending::Exited, 0)));
    client.end_instance(EndInstanceRequest { instance_id: instance.clone() }).await.unwrap();
    let mark = format!("MOTE_INSTANCE={instance}");
    eventually("nothing is left", || processes(&mark).is_empty()).await;
}
