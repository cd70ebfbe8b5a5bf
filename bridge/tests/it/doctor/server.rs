//! F6, F7, F9 to F11, F13, F15: the server that is not there, is another, speaks otherwise, lets nobody in, or has
//! nobody behind it.

use super::pages::{Pages, answer};
use super::person::Person;
use super::variables::Bench;
use crate::fake_reapi::{FakeReapi, Rules};
use crate::harness::{apart, compiles_here};
use crate::program::Serving;
use motefarm_net::tls::Authority;
use std::sync::Arc;
use tokio::net::TcpListener;

/// A bridge's program; `args` besides where it listens.
async fn serving(dir: &tempfile::TempDir, args: &[&str]) -> Serving {
    let (dir, args) = (dir.path().join("data"), args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>());
    apart(move || {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Serving::with(&dir, &args)
    })
    .await
}

/// F6, F10. Nobody there, though goma_ctl.py would call itself ready; the whole address is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_named_by_its_whole_address() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), compiles_here()).await;
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let person = Person::prepared(&address).await;
    let seen = person.look(&[]).await;
    seen.is_wrong("no-listener");
    let problem = seen.problem("no-listener");
    assert!(problem.contains(&format!("http://{address}/cxx-compiler-service/ping: Connection refused")), "{problem}");
    assert!(seen.fix("no-listener").starts_with("mote-bridge serve "));
    let url = fake.url();
    let _bridge = serving(&dir, &["--listen", &address, "--backend", &url]).await;
    person.look(&[]).await.is_in_order();
}

/// F10. Without the port it is another address, by who starts the client.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_not_set_is_told_with_what_it_becomes() {
    let mut person = Bench::new("").await.person;
    // A loopback address of this test's own: who knows what listens on this machine's port 80.
    person.unset("GOMA_SERVER_PORT").set("GOMA_SERVER_HOST", "127.93.80.1");
    let seen = person.look(&[]).await;
    assert!(seen.problem("no-port").contains("http://127.93.80.1:80/cxx-compiler-service"), "{seen:?}");
    person.mend(&seen, "no-port").await;
    assert!(person.set("GOMA_SERVER_PORT", "443").look(&[]).await.has("scheme-and-port"));
    person.set("GOMA_SERVER_HOST", "x".repeat(300));
    person.look(&[]).await.is_wrong("unknown-host");
}

/// F7, F9, and the rest of what HTTP can say.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_to_a_ping_is_told_apart() {
    let Bench { mut person, .. } = Bench::new("").await;
    let good = person.variables.clone();
    person.set("GOMA_URL_PATH_PREFIX", ":5050/cxx-compiler-service");
    let seen = person.look(&[]).await;
    seen.is_wrong("malformed-request");
    assert!(
        seen.problem("malformed-request").contains("answers 400 mote-bridge: the request's path begins with ':'"),
        "{seen:?}"
    );
    person.mend(&seen, "malformed-request").await.is_in_order();
    person.set("GOMA_URL_PATH_PREFIX", "/other");
    let seen = person.look(&[]).await;
    seen.is_wrong("wrong-path");
    person.mend(&seen, "wrong-path").await.is_in_order();
    for (said, id) in [
        (answer("302 Found", ""), "turned-away"),
        (answer("403 Forbidden", ""), "turned-away"),
        (answer("500 Oops", "out of order"), "bad-status"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), "no-answer"),
    ] {
        let pages = Pages::start(move |_, _| said.clone()).await;
        person.variables = good.clone();
        person.set("GOMA_SERVER_PORT", pages.port.to_string()).look(&[]).await.is_wrong(id);
    }
    for (said, id) in [("ok\n", "other-server"), ("ok 0.0.1 auth=anyone backend=ok (REAPI 2.0)\n", "other-version")] {
        let pages = Pages::start(move |_, _| answer("200 OK", said)).await;
        person.variables = good.clone();
        let seen = person.set("GOMA_SERVER_PORT", pages.port.to_string()).look(&[]).await;
        assert_eq!(seen.severity(id), "harmless");
        // But it can not compile.
        seen.is_wrong("no-compile-answer");
    }
}

/// F9. Who has no token where one is wanted.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_wanted_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    motefarm_net::private_file::write(&tokens, b"nils secret\n").unwrap();
    let text = format!("auth.anonymous = \"nobody\"\nauth.token_file = {tokens:?}\n");
    let mut person = Bench::new(&text).await.person;
    let seen = person.look(&[]).await;
    seen.is_wrong("not-admitted");
    assert!(
        seen.problem("not-admitted").contains("401 mote-bridge (auth=token): no Authorization was shown"),
        "{seen:?}"
    );
    let shown = person.file("shown", "Bearer secret\n", 0o600);
    let line = seen.fix("not-admitted").replace("/absolute/path", &shown.display().to_string());
    person.shell(&line).await;
    person.look(&[]).await.is_in_order();
    let words = person.listen(&["--json"]).await + &person.listen(&[]).await;
    assert!(!words.contains("secret"), "a token is never said: {words}");
}

/// F11, both ways round.
#[tokio::test(flavor = "multi_thread")]
async fn tls_and_cleartext_that_do_not_meet_are_told_in_words() {
    let plain = Pages::start(|_, _| answer("200 OK", "ok\n")).await;
    let mut person = Person::prepared(&plain.address()).await;
    person.set("GOMA_USE_SSL", "true");
    let seen = person.look(&[]).await;
    seen.is_wrong("no-tls");
    assert!(seen.finding_why("no-tls").contains("first record does not look like a TLS handshake"));
    person.mend(&seen, "no-tls").await;

    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(dir.path()).unwrap();
    let secure = only_tls("127.0.0.1:0", &authority).await;
    person.set("GOMA_SERVER_PORT", secure.to_string());
    let seen = person.look(&[]).await;
    seen.is_wrong("speaks-tls");
    let seen = person.mend(&seen, "speaks-tls").await;
    seen.is_wrong("untrusted-certificate");
    assert!(seen.problem("untrusted-certificate").contains("unable to get local issuer certificate"), "{seen:?}");
    person.set("GOMA_SSL_EXTRA_CERT", dir.path().join("ca.pem").display().to_string());
    let seen = person.look(&[]).await;
    assert!(!seen.has("untrusted-certificate") && seen.has("other-server"), "{seen:?}");

    let elsewhere = only_tls("127.0.0.2:0", &authority).await;
    person.set("GOMA_SERVER_HOST", "127.0.0.2").set("GOMA_SERVER_PORT", elsewhere.to_string());
    let seen = person.look(&[]).await;
    seen.is_wrong("other-name");
    assert!(seen.problem("other-name").contains("\"localhost\""), "{seen:?}");
}

/// The bridge speaks both on one port: with its authority's certificate all of it goes by TLS, the compile, too.
#[tokio::test(flavor = "multi_thread")]
async fn a_compile_by_tls_comes_through() {
    let Bench { bridge, mut person, .. } = Bench::new("").await;
    let ca = person.file("ca.pem", &bridge.ca_pem, 0o644);
    person.set("GOMA_USE_SSL", "true").set("GOMA_SSL_EXTRA_CERT", ca.display().to_string());
    person.look(&[]).await.is_in_order();
    let words = person.listen(&[]).await;
    assert!(words.contains(&format!(": https://{}/cxx-compiler-service/ping\n", bridge.address)), "{words}");
    // Or as text.
    person.unset("GOMA_SSL_EXTRA_CERT").set("GOMA_SSL_EXTRA_CERT_DATA", bridge.ca_pem.as_str());
    person.look(&[]).await.is_in_order();
}

/// A server that takes nothing but TLS, and answers every request with `ok`.
async fn only_tls(address: &str, authority: &Authority) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let acceptor = tokio_rustls::TlsAcceptor::from(authority.server_config(&[]).unwrap());
    let listener = TcpListener::bind(address).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut head = vec![0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(&answer("200 OK", "ok\n")).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    port
}

/// F6, F13, F15: a backend that is not there, is spoken to otherwise than it speaks, or has other instances.
#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_fails_is_told_by_the_ping() {
    let dir = tempfile::tempdir().unwrap();
    let fake = FakeReapi::start(Rules::nativelink(), compiles_here()).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let secure = fake.url().replace("grpc://", "grpcs://");
    let own = fake.url();
    for (args, id, said) in [
        (&["--backend", &nobody][..], "backend", "Connection refused"),
        (&["--backend", &secure], "backend", "Unavailable"),
        // What the old server made of no instance at all.
        (&["--backend", &own, "--instance", "."], "unknown-instance", "unknown instance \".\""),
    ] {
        let bridge = serving(&dir, &[&["--listen", "127.0.0.1:0"], args].concat()).await;
        let person = Person::prepared(&bridge.address).await;
        let seen = person.look(&[]).await;
        seen.is_wrong(id);
        assert!(seen.problem(id).contains(said), "{seen:?}");
        assert!(seen.fix(id).starts_with("mote-bridge serve --backend "));
    }
    // Verbatim, and no name is one.
    let bridge = serving(&dir, &["--listen", "127.0.0.1:0", "--backend", &own]).await;
    Person::prepared(&bridge.address).await.look(&[]).await.is_in_order();
}

/// F15. The spelling of an address, where the bridge's own variables are set.
#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_would_not_start_is_told() {
    let Bench { fake, mut person, .. } = Bench::new("").await;
    person.set("MOTE_BRIDGE_BACKEND", "ftp://build:1");
    let seen = person.look(&[]).await;
    seen.is_wrong("bridge-config");
    assert!(
        seen.problem("bridge-config").contains("ftp:// is not spoken: grpc://, grpcs:// and unix: are"),
        "{seen:?}"
    );
    for good in
        [fake.url(), "build.example:8980".to_owned(), "grpcs://build.example:443".to_owned(), "unix:/run/x".to_owned()]
    {
        person.set("MOTE_BRIDGE_BACKEND", good).look(&[]).await.is_in_order();
    }
}

/// The client goes through a proxy even to this machine: what comes of it is what is tried.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_in_between_is_gone_through_as_the_client_would() {
    let Bench { bridge, mut person, .. } = Bench::new("").await;
    let asked = Arc::new(std::sync::Mutex::new(String::new()));
    let noted = asked.clone();
    let proxy = Pages::start(move |head, _| {
        *noted.lock().unwrap() = head.lines().next().unwrap_or_default().to_owned();
        answer("407 Proxy Authentication Required", "")
    })
    .await;
    person.set("all_proxy", format!("http://me:secret@{}/", proxy.address())).set("no_proxy", "127.0.0.1");
    let seen = person.look(&[]).await;
    seen.is_wrong("proxy");
    seen.is_wrong("bad-status");
    let url = format!("POST http://{}/cxx-compiler-service/ping HTTP/1.1", bridge.address);
    assert_eq!(*asked.lock().unwrap(), url);
    assert!(!seen.words().contains("secret"));
    person.set("GOMA_USE_SSL", "true");
    let seen = person.look(&[]).await;
    assert!(seen.words().contains("does not let you through"), "{seen:?}");
    assert_eq!(*asked.lock().unwrap(), format!("CONNECT {} HTTP/1.1", bridge.address));
    person.unset("GOMA_USE_SSL").set("GOMA_USE_SSL", "false");
    person.mend(&seen, "proxy").await.is_in_order();
}
