//! The relay between the client of the wire and a bridge, or a server that does it wrong.

use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::http::HttpError;
use crate::goma_client::packing::Packing;
use crate::goma_client::{Client, Compiled, Failure};
use crate::harness::{Bridge, Project, apart, lists_files, noise};
use motefarm_bridge::authorization::Authorization;
use motefarm_bridge::config::File;
use motefarm_bridge::relay::config::Flags;
use motefarm_bridge::relay::{Relay, serve};
use motefarm_bridge::secret_file::SecretFile;
use motefarm_net::tls::Authority;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A relay on a port of its own.
struct Relaying {
    address: SocketAddr,
    relay: Arc<Relay>,
    shutdown: CancellationToken,
}

impl Relaying {
    /// To this server, configured by `text` (the keys of `[relay]`).
    async fn start(upstream: &str, text: &str) -> Self {
        let flags = Flags { server_host: Some(upstream.to_owned()), ..Flags::default() };
        let config = File::parse(&format!("[relay]\nport = 0\n{text}")).unwrap().relay.resolve(flags).unwrap();
        let token = config.token_file.as_deref();
        let token = token.map(|path| Arc::new(SecretFile::open(path, Authorization::parse).unwrap()));
        let relay = Arc::new(Relay::new(&config, token).unwrap());
        let listener = TcpListener::bind(("127.0.0.1", config.port)).await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        tokio::spawn(serve(relay.clone(), listener, config.connections, shutdown.clone()));
        Self { address, relay, shutdown }
    }

    fn client(&self) -> Client {
        Client::new(&self.address.to_string())
    }

    async fn ping(&self) -> Result<String, HttpError> {
        let mut client = self.client();
        // A real one tries again for a minute.
        client.http.ping_window = std::time::Duration::ZERO;
        apart(move || client.ping()).await
    }

    /// A compile of something small, and how many connections it took.
    async fn compile(&self) -> (Result<Compiled, Failure>, usize) {
        let project = Project::new(&[("a.c", b"int a;"), ("b.h", &noise(1, 3000))]);
        let (mut client, task) = (self.client(), project.task(&["a.c", "b.h"], &["a.o"]));
        apart(move || (client.compile(&task), client.http.connections())).await
    }

    /// Why a compile fails, in the relay's words.
    async fn complaint(&self) -> String {
        match self.compile().await {
            (Err(Failure::Exhausted(why)), 1) => why.join("\n"),
            other => panic!("{other:?}"),
        }
    }
}

async fn bridge(text: &str) -> (tempfile::TempDir, Bridge) {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), lists_files()).await;
    let bridge = Bridge::start(dir.path(), &fake, text).await;
    (dir, bridge)
}

/// A file with a bridge's CA, as configuration.
fn ca_file(dir: &Path, pem: &str) -> String {
    let path = dir.join("relay.ca.pem");
    std::fs::write(&path, pem).unwrap();
    format!("ca_file = {path:?}\n")
}

/// What requests a server heard, heads only.
type Heard = Arc<Mutex<Vec<String>>>;

/// A server that reads one request a connection and says this.
async fn says(answer: &'static str, tls: Option<TlsAcceptor>) -> (SocketAddr, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Heard::default());
    let noted = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (heard, tls) = (noted.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            respond(stream, answer, heard).await;
                        }
                    }
                    None => respond(stream, answer, heard).await,
                }
            });
        }
    });
    (address, heard)
}

async fn respond(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str, heard: Heard) {
    let mut request = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        let length = text
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        // What is no HTTP is answered at its first byte.
        let is_http = text.starts_with("POST ") || text.starts_with("GET ");
        let is_whole = text.find("\r\n\r\n").is_some_and(|head| request.len() >= head + 4 + length.unwrap_or(0));
        if is_whole || (!is_http && request.len() > 5) {
            heard.lock().unwrap().push(text.split("\r\n\r\n").next().unwrap().to_owned());
            break;
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(n @ 1..) => request.extend_from_slice(&piece[..n]),
            _ => return,
        }
    }
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

/// TLS and nothing else, by this authority.
fn tls_only(dir: &Path) -> (TlsAcceptor, String) {
    let authority = Authority::load_or_create(dir).unwrap();
    let tls = authority.server_config(&["127.0.0.1".to_owned()]).unwrap();
    let mut tls = rustls::ServerConfig::clone(&tls);
    tls.alpn_protocols.clear();
    (TlsAcceptor::from(Arc::new(tls)), authority.ca_pem().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn compiles_pass_through_in_the_clear_and_over_tls() {
    let (dir, bridge) = bridge("").await;
    let ca = ca_file(dir.path(), &bridge.ca_pem);
    let project = Project::new(&[("a.c", b"int a;"), ("big.h", &noise(3, 5 << 20))]);
    let task = project.task(&["a.c", "big.h"], &["a.o"]);
    for scheme in ["http", "https"] {
        let relaying = Relaying::start(&format!("{scheme}://{}", bridge.address), &ca).await;
        let (mut client, task) = (relaying.client(), task.clone());
        client.files_are_new = scheme == "https";
        let (compiled, client) = apart(move || (client.compile(&task).unwrap(), client)).await;
        assert!(compiled.output("a.o").starts_with(b"a.o of"), "{scheme}");
        // One connection for all of it, and compression stays on.
        assert_eq!((client.http.connections(), client.http.packing()), (1, Some(Packing::Gzip)), "{scheme}");
        let said = relaying.ping().await.unwrap();
        assert!(said.contains("auth=own-user"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_passed_on_is_what_was_sent() {
    let (address, heard) = says(OK, None).await;
    let relaying = Relaying::start(&format!("http://{address}"), "").await;
    let mut stream = TcpStream::connect(relaying.address).await.unwrap();
    let request = "POST http://ignored:1/p/ping?prod=1&x=%20 HTTP/1.1\r\nHost: elsewhere\r\nUser-Agent: compiler-proxy x \r\n\
                   Content-Type: binary/x-protocol-buffer\r\nContent-Length: 4\r\nAuthorization: Basic abc=\r\n\
                   Cookie: GomaClient=1\r\nContent-Encoding: gzip\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\nabcd";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = vec![0; 512];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer[..length].to_vec()).unwrap();
    // The server did not say which encodings it takes; a client would stop compressing.
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\r\naccept-encoding: gzip, deflate\r\n"),
        "{answer}"
    );
    let heard = heard.lock().unwrap().pop().unwrap();
    assert!(heard.starts_with("POST /p/ping?prod=1&x=%20 HTTP/1.1\r\n"), "{heard}");
    for line in ["content-length: 4", "authorization: Basic abc=", "cookie: GomaClient=1", "content-encoding: gzip"] {
        assert!(heard.lines().any(|other| other == line), "{line} in {heard}");
    }
    assert!(heard.contains(&format!("host: {address}")) && !heard.contains("x-hop"), "{heard}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named_with_its_port_scheme_and_cause() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for scheme in ["http", "https"] {
        let relaying = Relaying::start(&format!("{scheme}://{nobody}"), "").await;
        let why = relaying.complaint().await;
        assert!(why.contains(&format!("{scheme}://{nobody}")) && why.contains("refused"), "{why}");
        match relaying.ping().await {
            Err(HttpError::Status(502, line)) => assert!(line.contains("refused"), "{line}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_is_found_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let relaying = Relaying::start(&format!("http://{address}"), "").await;
    assert!(relaying.ping().await.is_err());
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(respond(stream, OK, Heard::default()));
        }
    });
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(20);
    while relaying.ping().await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "it is never found");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_where_tls_was_said_is_told_in_these_words_or_used() {
    for answer in ["HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", OK] {
        let (address, _) = says(answer, None).await;
        let relaying = Relaying::start(&format!("https://{address}"), "").await;
        let why = relaying.complaint().await;
        assert!(why.contains(&format!("{address} answered a TLS handshake with plain HTTP")), "{why}");
        assert!(why.contains(&format!("Say http://{address}")), "{why}");
    }
    let (address, _) = says(OK, None).await;
    let switching = Relaying::start(&format!("https://{address}"), "switch_scheme = true\n").await;
    assert_eq!(switching.ping().await.unwrap(), "ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_where_plain_http_was_said_is_told_in_these_words_or_used() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, ca_pem) = tls_only(dir.path());
    let (address, _) = says(OK, Some(tls)).await;
    let ca = ca_file(dir.path(), &ca_pem);
    for text in ["", &ca] {
        let relaying = Relaying::start(&format!("http://{address}"), text).await;
        let why = relaying.complaint().await;
        assert!(why.contains(&format!("{address} answered plain HTTP with TLS")), "{why}");
        assert!(why.contains(&format!("Say https://{address}")), "{why}");
    }
    let switching = Relaying::start(&format!("http://{address}"), &format!("{ca}switch_scheme = true\n")).await;
    assert_eq!(switching.ping().await.unwrap(), "ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_believed_is_no_mistake_of_the_scheme() {
    let dir = tempfile::tempdir().unwrap();
    let (tls, _) = tls_only(&dir.path().join("theirs"));
    let (address, heard) = says(OK, Some(tls)).await;
    let others = Authority::load_or_create(&dir.path().join("others")).unwrap();
    let ca = ca_file(dir.path(), others.ca_pem());
    let relaying = Relaying::start(&format!("https://{address}"), &format!("{ca}switch_scheme = true\n")).await;
    let why = relaying.complaint().await;
    assert!(why.contains("nobody who is trusted vouches for") && why.contains("--ca-file"), "{why}");
    assert!(heard.lock().unwrap().is_empty(), "it was sent something");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_alone_is_looked_for_at_443_and_then_at_the_usual_port() {
    let (_dir, bridge) = bridge("").await;
    let text = format!("default_port = {}\n", bridge.address.port());
    let relaying = Relaying::start("127.0.0.1", &text).await;
    // The bridge speaks TLS there as well, with a certificate that nobody here knows.
    assert_eq!(relaying.relay.look().await.unwrap().to_string(), format!("http://{}", bridge.address));
    assert_eq!(relaying.compile().await.0.unwrap().exit_status, 0);
    let with_ca = format!("{text}{}", ca_file(_dir.path(), &bridge.ca_pem));
    let relaying = Relaying::start("127.0.0.1", &with_ca).await;
    assert_eq!(relaying.relay.look().await.unwrap().to_string(), format!("https://{}", bridge.address));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let relaying = Relaying::start("127.0.0.1", &format!("default_port = {}\n", nobody.port())).await;
    let why = relaying.relay.look().await.unwrap_err();
    for tried in ["https://127.0.0.1:443", &format!("https://{nobody}"), &format!("http://{nobody}")] {
        assert!(why.contains(tried), "{why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_would_disable_a_client_are_not_passed_on() {
    for (answer, expected) in [
        (
            "HTTP/1.1 302 Found\r\nLocation: https://login.example/\r\nContent-Length: 0\r\n\r\n",
            "redirects to https://login.example/",
        ),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\ngo away\n", "answered 403 Forbidden: go away"),
    ] {
        let (address, _) = says(answer, None).await;
        let relaying = Relaying::start(&format!("http://{address}"), "").await;
        let why = relaying.complaint().await;
        assert!(why.contains(expected), "{why}");
        assert!(matches!(relaying.ping().await, Err(HttpError::Status(502, line)) if line.contains(expected)));
    }
    // What is the server's trouble is a message to a compile, and stays itself to a ping.
    let (address, _) = says("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nlater", None).await;
    let relaying = Relaying::start(&format!("http://{address}"), "").await;
    let why = relaying.complaint().await;
    assert!(why.contains("answered 503 Service Unavailable: later"), "{why}");
    assert_eq!(relaying.ping().await, Err(HttpError::Status(503, "later".to_owned())));
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_no_proxy() {
    let (address, heard) = says(OK, None).await;
    let relaying = Relaying::start(&format!("http://{address}"), "").await;
    let mut stream = TcpStream::connect(relaying.address).await.unwrap();
    stream.write_all(b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere:443\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 1000];
    let length = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer[..length].to_vec()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("GOMA_PROXY_HOST"), "{answer}");
    assert!(!heard.lock().unwrap().iter().any(|head| head.contains("CONNECT")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interim_answer_is_not_passed_on() {
    let answer = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
    let (address, _) = says(answer, None).await;
    let relaying = Relaying::start(&format!("http://{address}"), "").await;
    // To the client of the tests, as to the real one, any status but 200 is final.
    assert_eq!(relaying.ping().await.unwrap(), "ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_in_between_costs_an_attempt_and_no_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut start = vec![0; 100];
                let length = stream.read(&mut start).await.unwrap_or(0);
                // Pings are answered; a compile is begun and dropped.
                if String::from_utf8_lossy(&start[..length]).contains("/ping") {
                    let _ = stream.write_all(OK.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            });
        }
    });
    let relaying = Relaying::start(&format!("http://{address}"), "").await;
    let why = relaying.complaint().await;
    assert!(why.contains(&format!("upstream http://{address}: ")), "{why}");
}

/// A client reads nothing before it has written all; a server that has had enough reads no more.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_half_a_request_reaches_who_is_still_writing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut start = vec![0; 100];
            let length = stream.read(&mut start).await.unwrap_or(0);
            let is_ping = String::from_utf8_lossy(&start[..length]).contains("/ping");
            let answer = if is_ping { OK } else { "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull" };
            let _ = stream.write_all(answer.as_bytes()).await;
            if is_ping {
                let _ = stream.shutdown().await;
            }
            open.push(stream);
        }
    });
    let relaying = Relaying::start(&format!("http://{address}"), "").await;
    let address = relaying.address;
    let answer = apart(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let body = vec![7; 40 << 20];
        let head = format!("POST /p/e HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        // The connection is good for more.
        stream
            .write_all(b"POST /p/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).unwrap();
        String::from_utf8_lossy(&answers).into_owned()
    });
    let answer = answer.await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("answered 503 Service Unavailable: full"), "{answer}");
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relay_s_token_is_shown_in_the_place_of_the_client_s() {
    let files = tempfile::tempdir().unwrap();
    let (tokens, own) = (files.path().join("tokens"), files.path().join("own"));
    motefarm_net::private_file::write(&tokens, b"alice s3cret\n").unwrap();
    let (_dir, bridge) = bridge(&format!("[auth]\nanonymous = \"nobody\"\ntoken_file = {tokens:?}\n")).await;
    let with_token = format!("token_file = {own:?}\n");
    motefarm_net::private_file::write(&own, b"Bearer s3cret\n").unwrap();
    let relaying = Relaying::start(&bridge.address.to_string(), &with_token).await;
    for shown in [None, Some("nomatter"), Some("Bearer own-user")] {
        let mut client = relaying.client();
        client.http.authorization = shown.map(str::to_owned);
        assert!(apart(move || client.ping()).await.is_ok(), "{shown:?}");
    }
    assert_eq!(relaying.compile().await.0.unwrap().exit_status, 0);
    // Not for what another relay has marked as somebody else's.
    let mut stream = TcpStream::connect(relaying.address).await.unwrap();
    let request =
        "POST /cxx-compiler-service/ping HTTP/1.1\r\nHost: x\r\nMote-Other-User: 1\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
    // A wrong one is the relay's fault, not the client's, which would be disabled by a 401.
    motefarm_net::private_file::write(&own, b"Bearer wrong\n").unwrap();
    let relaying = Relaying::start(&bridge.address.to_string(), &with_token).await;
    let why = relaying.complaint().await;
    assert!(why.contains("refuses the token of the relay's --token-file") && !why.contains("wrong"), "{why}");
    assert!(matches!(relaying.ping().await, Err(HttpError::Status(401, _))));
    // Without one the client's own is passed on, but not the word that local-auth gave it.
    let relaying = Relaying::start(&bridge.address.to_string(), "").await;
    let mut client = relaying.client();
    client.http.authorization = Some("Bearer s3cret".to_owned());
    assert!(apart(move || client.ping()).await.is_ok());
    let mut client = relaying.client();
    client.http.authorization = Some("Bearer own-user".to_owned());
    match apart(move || client.ping()).await {
        Err(HttpError::Status(401, line)) => assert!(line.contains("no Authorization was shown"), "{line}"),
        other => panic!("{other:?}"),
    }
}

/// A relay's socket is its user's; another user's calls are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_takes_the_own_user_s_rights_away() {
    let (_dir, bridge) = bridge("").await;
    for (mark, expected) in [("", "HTTP/1.1 200"), ("Mote-Other-User: 1\r\n", "HTTP/1.1 401")] {
        let mut stream = TcpStream::connect(bridge.address).await.unwrap();
        let request = format!("POST /cxx-compiler-service/ping HTTP/1.1\r\nHost: x\r\n{mark}Content-Length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stops_says_so_on_every_connection_first() {
    let (_dir, bridge) = bridge("").await;
    let relaying = Relaying::start(&format!("http://{}", bridge.address), "").await;
    let mut stream = TcpStream::connect(relaying.address).await.unwrap();
    let mut ping = async || {
        let request = "POST /cxx-compiler-service/ping HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = vec![0; 1000];
        let length = stream.read(&mut answer).await.unwrap();
        String::from_utf8(answer[..length].to_vec()).unwrap()
    };
    assert!(!ping().await.contains("connection:"));
    relaying.shutdown.cancel();
    while !relaying.relay.is_draining() {
        tokio::task::yield_now().await;
    }
    let last = ping().await;
    assert!(last.starts_with("HTTP/1.1 200 OK") && last.contains("\r\nconnection: close\r\n"), "{last}");
    assert!(TcpStream::connect(relaying.address).await.is_err(), "the port is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_connections_wait_for_their_turn() {
    let (_dir, bridge) = bridge("").await;
    let relaying = Relaying::start(&format!("http://{}", bridge.address), "connections = 2\n").await;
    let pings: Vec<_> = (0..12)
        .map(|_| {
            let mut client = relaying.client();
            tokio::task::spawn_blocking(move || client.ping().is_ok())
        })
        .collect();
    for ping in pings {
        assert!(ping.await.unwrap());
    }
}
