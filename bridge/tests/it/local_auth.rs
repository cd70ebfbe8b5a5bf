//! Tokens by LUCI's local authentication: the file that leads there, what it costs to get one, and its end.

use crate::harness::apart;
use motefarm_bridge::authorization::Authorization;
use motefarm_bridge::local_auth::{LocalAuth, PATH};
use motefarm_bridge::secret_file::SecretFile;
use motefarm_core::{Clock, SystemClock};
use motefarm_net::private_file;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// A service, and its file.
struct Service {
    dir: tempfile::TempDir,
    context: PathBuf,
    shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

async fn start(token: Option<&str>) -> Service {
    let dir = tempfile::tempdir().unwrap();
    let file = token.map(|token| {
        private_file::write(&dir.path().join("token"), token.as_bytes()).unwrap();
        Arc::new(SecretFile::open(&dir.path().join("token"), Authorization::parse).unwrap())
    });
    let context = dir.path().join("luci.json");
    let opened = LocalAuth::open(&context, file, Arc::new(SystemClock)).await.unwrap();
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(opened.serve(shutdown.clone()));
    Service { dir, context, shutdown, serving }
}

fn local_auth(context: &Path) -> Value {
    let file: Value = serde_json::from_slice(&fs::read(context).unwrap()).unwrap();
    file["local_auth"].clone()
}

/// As a client asks: status and body.
fn ask(context: &Path, path: &str, question: &Value) -> (u16, String) {
    let port = local_auth(context)["rpc_port"].as_u64().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", u16::try_from(port).unwrap())).unwrap();
    let body = question.to_string();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), body.to_owned())
}

/// The question as it should be.
fn question(context: &Path) -> Value {
    let local_auth = local_auth(context);
    json!({
        "scopes": ["https://www.googleapis.com/auth/userinfo.email"],
        "secret": local_auth["secret"],
        "account_id": local_auth["default_account_id"],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_read_the_file_is_given_the_token_of_the_moment() {
    let service = start(Some("Bearer first\n")).await;
    assert_eq!(fs::metadata(&service.context).unwrap().permissions().mode() & 0o777, 0o600);
    let local = local_auth(&service.context);
    assert_eq!(local["accounts"], json!([{ "id": local["default_account_id"] }]));
    assert_eq!(local["secret"].as_str().unwrap().len(), 64);
    let (context, token) = (service.context.clone(), service.dir.path().join("token"));
    apart(move || {
        let asked = question(&context);
        let get = || {
            let (status, body) = ask(&context, PATH, &asked);
            assert_eq!(status, 200, "{body}");
            serde_json::from_str::<Value>(&body).unwrap()
        };
        let given = get();
        assert_eq!(given["access_token"], "first");
        let now = SystemClock.now().as_millis() / 1000;
        let left = given["expiry"].as_i64().unwrap() - now;
        assert!((600..=900).contains(&left), "{left} s");
        // The file is replaced; what is given is what it holds.
        private_file::write(&token, b"second-token\n").unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while get()["access_token"] != "second-token" {
            assert!(Instant::now() < deadline, "the new token is never given");
            std::thread::sleep(Duration::from_millis(50));
        }
        private_file::write(&token, b"Basic dXNlcjpw\n").unwrap();
        while get()["error_code"] != 1 {
            assert!(Instant::now() < deadline, "what is no token is given");
            std::thread::sleep(Duration::from_millis(50));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_not_is_given_nothing() {
    let service = start(Some("s3cret-token")).await;
    let context = service.context.clone();
    apart(move || {
        let good = question(&context);
        let with = |name: &str, value: Value| {
            let mut other = good.clone();
            other[name] = value;
            other
        };
        for (path, asked, expected) in [
            (PATH, with("secret", json!("0".repeat(64))), 403),
            (PATH, with("secret", json!("")), 403),
            (PATH, with("secret", json!(7)), 400),
            (PATH, json!({}), 400),
            (PATH, json!("x"), 400),
            (PATH, with("scopes", json!(["x".repeat(1 << 20)])), 400),
            (PATH, with("account_id", json!("somebody")), 404),
            ("/rpc/Other", good.clone(), 404),
        ] {
            let (status, body) = ask(&context, path, &asked);
            assert_eq!(status, expected, "{body}");
            assert!(!body.contains("s3cret"), "{body}");
        }
        assert_eq!(ask(&context, PATH, &good).0, 200);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_there_is_a_word_and_the_file_goes_with_the_service() {
    let service = start(None).await;
    let context = service.context.clone();
    let given = apart(move || ask(&context, PATH, &question(&context))).await;
    let given: Value = serde_json::from_str(&given.1).unwrap();
    assert_eq!(given["access_token"], "own-user");
    service.shutdown.cancel();
    service.serving.await.unwrap();
    assert!(!service.context.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_of_another_stays() {
    let service = start(None).await;
    private_file::write(&service.context, b"{}").unwrap();
    service.shutdown.cancel();
    service.serving.await.unwrap();
    assert_eq!(fs::read(&service.context).unwrap(), b"{}");
}
