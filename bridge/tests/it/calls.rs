//! HTTP as Goma's clients have it: paths, encodings, credentials, statuses, the end of a connection.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::http::HttpError;
use crate::goma_client::packing::Packing;
use crate::harness::{Bridge, Project, apart, lists_files};
use motefarm_bridge::caller::Caller;
use motefarm_net::dial::Target;
use motefarm_net::tls::client_config;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

async fn start(text: &str) -> (tempfile::TempDir, Bridge) {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, text).await;
    (dir, bridge)
}

/// What the bridge says to these bytes, until it closes or says no more for a while.
async fn said(bridge: &Bridge, request: &str) -> String {
    let mut stream = TcpStream::connect(bridge.address).await.unwrap();
    exchange(&mut stream, request).await
}

async fn exchange(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        let head = text.find("\r\n\r\n");
        if let (Some(head), Some(length)) = (head, length)
            && answer.len() >= head + 4 + length
        {
            return text;
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await.unwrap() {
            0 => return text,
            n => answer.extend_from_slice(&piece[..n]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_are_answered_on_every_spelling_of_the_path() {
    let (_dir, bridge) = start("path_prefixes = [\"/cxx-compiler-service\", \"\", \"/x/y\"]\n").await;
    for line in [
        "POST /cxx-compiler-service/ping HTTP/1.1",
        "GET /cxx-compiler-service/ping HTTP/1.1",
        "POST /cxx-compiler-service/ping?prod HTTP/1.1",
        "POST http://127.0.0.1:5050/cxx-compiler-service/ping HTTP/1.1",
        "POST /ping HTTP/1.1",
        "POST /x/y/ping HTTP/1.1",
    ] {
        let answer = said(&bridge, &format!("{line}\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{line}: {answer}");
        assert!(answer.contains("\r\naccept-encoding: gzip, deflate\r\n"), "{answer}");
        assert!(answer.contains("\r\n\r\nok 0.1.0 auth=own-user backend=ok (REAPI 2.0 to 2.3)\n"), "{answer}");
    }
    let nowhere = said(&bridge, "POST /other/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await;
    assert!(nowhere.starts_with("HTTP/1.1 404 ") && nowhere.contains("GOMA_URL_PATH_PREFIX"), "{nowhere}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_the_place_of_the_prefix_is_answered_in_words() {
    let (_dir, bridge) = start("").await;
    let answer = said(&bridge, "POST :5050/cxx-compiler-service/ping HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("GOMA_SERVER_PORT"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_cleartext_share_the_port() {
    let (_dir, bridge) = start("").await;
    let tls = Arc::new(client_config(&bridge.ca_pem).unwrap());
    let target = Target::Tls { address: bridge.address.to_string(), tls };
    // A client of Goma offers no protocols.
    let mut stream = target.connect(&[]).await.unwrap();
    let ping = "POST /cxx-compiler-service/ping HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n";
    for _ in 0..2 {
        let answer = exchange(&mut stream, ping).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
    assert!(said(&bridge, ping).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_needed_where_nobody_is_known() {
    let files = tempfile::tempdir().unwrap();
    let path = files.path().join("tokens");
    motefarm_net::private_file::write(&path, b"alice s3cret\n").unwrap();
    let text = format!("[auth]\nanonymous = \"nobody\"\ntoken_file = {:?}\n", path.display().to_string());
    let (_dir, bridge) = start(&text).await;
    for (shown, expected) in
        [(None, 401), (Some("Bearer wrong"), 401), (Some("Bearer s3cret"), 200), (Some("s3cret"), 200)]
    {
        let mut client = bridge.client();
        client.http.authorization = shown.map(str::to_owned);
        let answer = apart(move || client.ping()).await;
        match (expected, answer) {
            (200, Ok(said)) => assert!(said.contains("auth=token"), "{said}"),
            (401, Err(HttpError::Status(401, said))) => {
                assert!(said.contains("GOMA_HTTP_AUTHORIZATION_FILE") && !said.contains("wrong"), "{said}");
            }
            (_, other) => panic!("{shown:?}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_encoding_works_and_stays_on() {
    let (_dir, bridge) = start("").await;
    let project = Project::new(&[("a.c", &b"int a; ".repeat(1000))]);
    let task = project.task(&["a.c"], &["a.o"]);
    for (packing, accept) in [
        (Some(Packing::Gzip), "gzip"),
        (Some(Packing::Deflate), "deflate"),
        (None, "gzip"),
        (Some(Packing::Gzip), "lzma2"),
    ] {
        let (mut client, task) = (bridge.client(), task.clone());
        client.http.pack_as(packing);
        client.http.accept_encoding = accept;
        let (compiled, client) = apart(move || (client.compile(&task).unwrap(), client)).await;
        assert_eq!(compiled.exit_status, 0);
        // The advertisement on the answer is what keeps a client compressing.
        assert_eq!((client.http.packing(), client.http.connections()), (Some(Packing::Gzip), 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_a_400_and_the_bridge_goes_on() {
    let (_dir, bridge) = start("limits.request_bytes = 1000000\n").await;
    let mut bomb = bridge.client();
    let body = vec![0; 50 << 20];
    let answer = apart(move || bomb.http.call("/e", &body)).await;
    assert!(
        matches!(&answer, Err(HttpError::Status(400, said)) if said.contains("unpacks to more than")),
        "{answer:?}"
    );
    for path in ["/e", "/s", "/l"] {
        let mut client = bridge.client();
        let answer = apart(move || client.http.call(path, b"\xff\xff\xff rubbish")).await;
        assert!(matches!(&answer, Err(HttpError::Status(400, said)) if said.contains("not a ")), "{path}: {answer:?}");
    }
    for (header, expected) in [("Content-Encoding: lzma2", "lzma2"), ("Content-Encoding: gzip", "damaged")] {
        let request =
            format!("POST /cxx-compiler-service/e HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n{header}\r\n\r\nabcd");
        let answer = said(&bridge, &request).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains(expected), "{answer}");
    }
    let too_long = "POST /cxx-compiler-service/e HTTP/1.1\r\nHost: x\r\nContent-Length: 1000001\r\n\r\n";
    assert!(said(&bridge, too_long).await.starts_with("HTTP/1.1 400 "));
    let mut client = bridge.client();
    assert!(apart(move || client.ping()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_taken_and_dropped() {
    let (_dir, bridge) = start("").await;
    let mut client = bridge.client();
    client.http.pack_as(None);
    let said = apart(move || {
        let answer = client.http.call("/sl", &vec![7; 3 << 20]).unwrap();
        (answer, client.ping().is_ok(), client.http.connections())
    });
    assert_eq!(said.await, (Vec::new(), true, 1));
}

/// Memory is shared out: many large requests at once wait for one another and are all answered.
#[tokio::test(flavor = "multi_thread")]
async fn large_requests_at_once_wait_for_room() {
    let (_dir, bridge) = start("[limits]\nmemory_bytes = 12000000\nrequest_bytes = 8000000\n").await;
    let requests: Vec<_> = (0..16u8)
        .map(|n| {
            let mut client = bridge.client();
            tokio::task::spawn_blocking(move || {
                let blob = crate::goma_client::blob::Blob::of_file(&vec![n; 1 << 20]).0;
                let request = crate::goma_client::wire::Message::default().all(1, [blob.encode(), blob.encode()]).0;
                let answer = client.http.call("/s", &request).unwrap();
                assert_eq!(crate::goma_client::wire::Fields::read(&answer).unwrap().texts(1), [blob.key(), blob.key()]);
            })
        })
        .collect();
    for request in requests {
        request.await.unwrap();
    }
    assert_eq!((bridge.edge.packed.in_use(), bridge.edge.unpacked.in_use()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_can_look_at_it() {
    let (_dir, bridge) = start("").await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    let page = said(&bridge, &get("/")).await;
    assert!(page.contains("backend           ok (REAPI 2.0 to 2.3)"), "{page}");
    let metrics = said(&bridge, &get("/metrics")).await;
    assert!(metrics.contains("mote_bridge_hash_keys 0\n"), "{metrics}");
    drop(bridge.edge.records.begin(motefarm_core::Timestamp::EPOCH, "somebody", None));
    let caller = Caller::connect(&bridge.address.to_string(), None).await.unwrap();
    let records = motefarm_bridge::explain::ask(caller, "nothing-such").await.unwrap();
    assert_eq!(records, serde_json::json!([]));
}

/// A client reuses a connection for five seconds, and a connection that dies under it costs it more than one
/// compile: so each is told that it is over before it is closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_stops_says_so_on_every_connection_first() {
    let (_dir, bridge) = start("").await;
    let ping = "POST /cxx-compiler-service/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
    let mut stream = TcpStream::connect(bridge.address).await.unwrap();
    assert!(!exchange(&mut stream, ping).await.contains("connection: close"));
    bridge.shutdown.cancel();
    while TcpStream::connect(bridge.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    while !bridge.edge.draining.load(std::sync::atomic::Ordering::Relaxed) {
        tokio::task::yield_now().await;
    }
    let last = exchange(&mut stream, ping).await;
    assert!(last.starts_with("HTTP/1.1 200 OK") && last.contains("\r\nconnection: close\r\n"), "{last}");
}
