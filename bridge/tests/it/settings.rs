//! The settings that a client asks for before anything else: that they are true, and who may have them.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::http::{Connection, HttpError};
use crate::goma_client::wire::{Fields, Message};
use crate::harness::{Bridge, apart, lists_files};
use motefarm_net::dial::Target;
use motefarm_net::tls::client_config;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

async fn start(text: &str) -> (tempfile::TempDir, Bridge) {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, text).await;
    (dir, bridge)
}

/// Endpoint, certificate and name, as a client asks for them.
async fn told(bridge: &Bridge, path: &'static str, body: Vec<u8>) -> Result<[String; 3], HttpError> {
    let mut http = Connection::new(&bridge.address.to_string());
    http.prefix = String::new();
    let answer = apart(move || http.call(path, &body)).await?;
    Ok(read(&answer))
}

fn read(answer: &[u8]) -> [String; 3] {
    let settings = Fields::read(Fields::read(answer).unwrap().bytes(1).unwrap()).unwrap();
    [1, 2, 3].map(|field| settings.texts(field).pop().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_endpoint_that_is_told_works() {
    let (_dir, bridge) = start("path_prefixes = [\"/goma\"]\n").await;
    let asked = Message::default().bytes(2, "chromium").0;
    let [endpoint, certificate, name] = told(&bridge, "/settings", asked).await.unwrap();
    assert_eq!(endpoint, format!("http://{}/goma", bridge.address));
    assert_eq!((certificate.as_str(), name.as_str()), (bridge.ca_pem.as_str(), "mote-bridge"));
    let (address, prefix) = endpoint.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut http = Connection::new(address);
    http.prefix = format!("/{prefix}");
    assert!(apart(move || http.call("/ping", b"")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_over_tls_is_told_to_stay_there() {
    let (_dir, bridge) = start("").await;
    let tls = Arc::new(client_config(&bridge.ca_pem).unwrap());
    let mut stream = Target::Tls { address: bridge.address.to_string(), tls }.connect(&[]).await.unwrap();
    let request = "POST /settings HTTP/1.1\r\nHost: goma.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let [endpoint, _, _] = read(&answer[at + 4..]);
    assert_eq!(endpoint, format!("https://goma.example:{}/cxx-compiler-service", bridge.address.port()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_configured_is_told_and_nobody_need_be_known() {
    let files = tempfile::tempdir().unwrap();
    let (tokens, ca) = (files.path().join("tokens"), files.path().join("ca.pem"));
    motefarm_net::private_file::write(&tokens, b"alice s3cret\n").unwrap();
    std::fs::write(&ca, "another CA\n").unwrap();
    let text = format!(
        "[auth]\nanonymous = \"nobody\"\ntoken_file = {tokens:?}\n[settings]\npath = \"/where\"\n\
         endpoint = \"https://goma.example/p\"\nname = \"ours\"\nca_file = {ca:?}\n"
    );
    let (_dir, bridge) = start(&text).await;
    let told_there = told(&bridge, "/where", Vec::new()).await.unwrap();
    assert_eq!(told_there, ["https://goma.example/p", "another CA\n", "ours"]);
    // The usual path is then nothing.
    assert!(matches!(told(&bridge, "/settings", Vec::new()).await, Err(HttpError::Status(404, _))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_none_is_refused() {
    let (_dir, bridge) = start("").await;
    for (body, expected) in [(b"\xff\xff\xff".to_vec(), "not a SettingsReq"), (vec![0; 1 << 20], "more than")] {
        let answer = told(&bridge, "/settings", body).await;
        assert!(matches!(&answer, Err(HttpError::Status(400, why)) if why.contains(expected)), "{answer:?}");
    }
}
