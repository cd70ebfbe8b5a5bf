//! F4, F5, F11: http_proxy in between, as `goma_ctl.py` starts it. A stand-in for it does what it does: a real
//! handshake with the server's host on one fixed port, and 502 without a word when that is not TLS.

use super::pages::{Pages, answer};
use super::person::{Person, Seen};
use super::variables::Bench;
use motefarm_net::dial::Target;
use motefarm_net::tls::client_config;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// See the module.
pub(super) struct HttpProxy {
    port: u16,
    serving: JoinHandle<()>,
    pid_file: PathBuf,
}

impl HttpProxy {
    /// Calls `upstream` by TLS, whatever was asked for, trusting `ca_pem`; leaves goma_ctl.py's files.
    pub(super) async fn start(person: &mut Person, upstream: SocketAddr, ca_pem: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = format!(
            "{}:{} (via http_proxy)",
            person.variables["GOMA_SERVER_HOST"], person.variables["GOMA_SERVER_PORT"]
        );
        person.file("run/goma_nils/http_proxy.host", &host, 0o600);
        let pid_file = person.file("run/goma_nils/http_proxy.pid", &std::process::id().to_string(), 0o600);
        let log =
            person.file("run/goma_nils/http_proxy.log", "http_proxy --server-host localhost --port 19080\n", 0o600);
        person.set("GOMACTL_PROXY_PORT", port.to_string());
        let tls = Arc::new(client_config(ca_pem).unwrap());
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let target = Target::Tls { address: upstream.to_string(), tls: tls.clone() };
                tokio::spawn(forward(stream, target, log.clone()));
            }
        });
        Self { port, serving, pid_file }
    }

    /// goma_ctl.py kills it by the number in its file, and removes that.
    pub(super) async fn end_if_told(self) {
        assert!(!self.pid_file.exists(), "goma_ctl.py was not called");
        self.serving.abort();
        let _ = self.serving.await;
    }
}

async fn forward(mut stream: TcpStream, target: Target, log: PathBuf) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let said = match target.connect(&[]).await {
        Ok(mut upstream) => {
            upstream.write_all(&head).await.unwrap();
            let mut said = Vec::new();
            upstream.read_to_end(&mut said).await.unwrap();
            said
        }
        Err(error) => {
            // Go's words for what rustls calls a corrupt message.
            assert!(error.to_string().contains("InvalidContentType"), "{error}");
            let line = "2023/08/18 15:28:14 http: proxy error: tls: first record does not look like a TLS handshake";
            writeln!(std::fs::File::options().append(true).open(log).unwrap(), "{line}").unwrap();
            answer("502 Bad Gateway", "")
        }
    };
    stream.write_all(&said).await.unwrap();
}

/// Speaks plain HTTP where http_proxy expects TLS, as the server of the report did.
pub(super) async fn plain_server() -> Pages {
    Pages::start(|_, _| answer("400 Bad Request", "")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn http_proxy_is_found_by_its_port_its_files_and_its_502() {
    let Bench { bridge, mut person, .. } = Bench::new("").await;
    person.goma_ctl();
    let plain = plain_server().await;
    let proxy = HttpProxy::start(&mut person, plain.address().parse().unwrap(), &bridge.ca_pem).await;
    for wanted in [None, Some("true")] {
        match wanted {
            Some(text) => person.set("GOMACTL_USE_PROXY", text),
            None => person.unset("GOMACTL_USE_PROXY"),
        };
        let seen: Seen = person.look(&[]).await;
        seen.is_wrong("http-proxy");
        let problem = seen.problem("http-proxy");
        for part in [
            format!("on port {} listens an http_proxy", proxy.port),
            "502 Bad Gateway".to_owned(),
            format!("port {} is lost", bridge.address.port()),
        ] {
            assert!(problem.contains(&part), "{problem}");
        }
        // By the second time its log says why.
        assert_eq!(problem.contains("first record does not look like a TLS handshake"), wanted.is_some(), "{problem}");
        // With it the client's own way is through it, and that is what is tried.
        assert_eq!(seen.has("bad-status"), wanted.is_some());
    }
    let seen = person.look(&[]).await;
    person.shell(&seen.fix("http-proxy")).await;
    proxy.end_if_told().await;
    person.look(&[]).await.is_in_order();
}

/// Before a server with TLS on that port, whose certificate it trusts, it does its work; so does whoever stands
/// in for it.
#[tokio::test(flavor = "multi_thread")]
async fn an_http_proxy_that_works_is_no_finding() {
    let Bench { bridge, mut person, .. } = Bench::new("").await;
    // To the bridge it comes from this process, and so from its own user.
    let _proxy = HttpProxy::start(&mut person, bridge.address, &bridge.ca_pem).await;
    person.unset("GOMACTL_USE_PROXY");
    person.look(&[]).await.is_in_order();
    let words = person.listen(&[]).await;
    assert!(words.contains("ok  what listens on http_proxy's port"), "{words}");
}

/// It is there after the variable was set: whoever was started before still uses it.
#[tokio::test(flavor = "multi_thread")]
async fn an_http_proxy_of_before_is_doubtful() {
    let Bench { bridge, mut person, .. } = Bench::new("").await;
    person.goma_ctl();
    let plain = plain_server().await;
    let proxy = HttpProxy::start(&mut person, plain.address().parse().unwrap(), &bridge.ca_pem).await;
    let seen = person.look(&[]).await;
    assert_eq!((seen.ids(), seen.severity("http-proxy")), (vec!["http-proxy"], "doubtful".to_owned()));
    person.shell(&seen.fix("http-proxy")).await;
    proxy.end_if_told().await;
    person.look(&[]).await.is_in_order();
}
