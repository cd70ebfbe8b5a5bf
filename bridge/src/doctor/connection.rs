//! The connection that the client would make: to the server or through a proxy, in the clear or by TLS.

use super::catalogue::{Kind, Severity};
use super::probe::{TIMEOUT, TRUST_OR_CLEARTEXT};
use super::report::Finding;
use super::server::Server;
use motefarm_net::dial::BoxStream;
use motefarm_net::tls::{self, PeerProblem};
use rustls::pki_types::ServerName;
use std::io;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest answer of a proxy to `CONNECT`.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// Opens it, or says what is in the way.
pub async fn open(server: &Server) -> Result<BoxStream, Finding> {
    let stream = connect(server).await?;
    if server.tls { secure(server, stream).await } else { Ok(Box::new(stream)) }
}

async fn connect(server: &Server) -> Result<TcpStream, Finding> {
    let (host, port) = server.proxy.clone().unwrap_or_else(|| (server.host.clone(), server.port));
    let (url, start) =
        (server.url("/ping"), "mote-bridge serve --backend grpc://HOST:PORT   # or look at GOMA_SERVER_PORT");
    let addresses = match tokio::time::timeout(TIMEOUT, tokio::net::lookup_host((host.as_str(), port))).await {
        Ok(Ok(addresses)) => addresses.collect::<Vec<_>>(),
        Ok(Err(error)) => return Err(unknown(&host, &error.to_string())),
        Err(_) => return Err(unknown(&host, "no answer in time")),
    };
    let stream = match tokio::time::timeout(TIMEOUT, TcpStream::connect(&addresses[..])).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) if server.proxy.is_some() => {
            let problem = format!("the proxy {host}:{port} does not answer: {error}");
            return Err(Finding::new(
                Kind::Proxy,
                problem,
                "unset https_proxy HTTPS_PROXY all_proxy ALL_PROXY GOMA_PROXY_HOST",
            )
            .but(Severity::Wrong));
        }
        Ok(Err(error)) => {
            return Err(Finding::new(Kind::NoListener, format!("nobody answers at {url}: {error}"), start));
        }
        Err(_) => {
            let problem = format!("nobody answers at {url} within {} s", TIMEOUT.as_secs());
            let fix = "look at GOMA_SERVER_HOST, and at what filters the way there";
            return Err(Finding::new(Kind::NoListener, problem, fix));
        }
    };
    // In the clear the proxy is told by the request line.
    if server.proxy.is_none() || !server.tls { Ok(stream) } else { through(server, stream).await }
}

fn unknown(host: &str, why: &str) -> Finding {
    Finding::new(
        Kind::UnknownHost,
        format!("the name {host:?} leads nowhere: {why}"),
        "export GOMA_SERVER_HOST=127.0.0.1",
    )
}

async fn through(server: &Server, mut stream: TcpStream) -> Result<TcpStream, Finding> {
    let address = server.address();
    let tunnel = async {
        stream.write_all(format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD_BYTES {
            head.push(stream.read_u8().await?);
        }
        Ok::<_, io::Error>(String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned())
    };
    let said = match tokio::time::timeout(TIMEOUT, tunnel).await {
        Ok(Ok(line)) if line.split(' ').nth(1) == Some("200") => return Ok(stream),
        Ok(Ok(line)) => line,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    let problem = format!("the proxy in between does not let you through to {address}: {said}");
    let fix = "unset https_proxy HTTPS_PROXY all_proxy ALL_PROXY GOMA_PROXY_HOST";
    Err(Finding::new(Kind::Proxy, problem, fix).but(Severity::Wrong))
}

async fn secure(server: &Server, stream: TcpStream) -> Result<BoxStream, Finding> {
    let no_trust = |problem: String| {
        let problem = format!("{}: {problem}", server.address());
        Finding::new(Kind::UntrustedCertificate, problem, TRUST_OR_CLEARTEXT).but(Severity::Wrong)
    };
    let config =
        tls::client_config_system_and(server.ca_pem.as_deref()).map_err(|error| no_trust(error.to_string()))?;
    let name = ServerName::try_from(server.host.clone()).map_err(|_| {
        let problem = format!("{:?} can be no certificate's name", server.host);
        Finding::new(Kind::OtherName, problem, "export GOMA_SERVER_HOST=127.0.0.1")
    })?;
    let connecting = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
    let error = match tokio::time::timeout(TIMEOUT, connecting).await {
        Ok(Ok(stream)) => return Ok(Box::new(stream)),
        Ok(Err(error)) => error,
        Err(_) => io::Error::new(io::ErrorKind::TimedOut, "no handshake in time"),
    };
    Err(match PeerProblem::of(&error) {
        Some(PeerProblem::UnknownIssuer) => {
            no_trust("unable to get local issuer certificate: nobody whom the client trusts vouches for it".to_owned())
        }
        Some(PeerProblem::OtherName(names)) => {
            let host = &server.host;
            let problem =
                format!("hostname mismatch: {} shows a certificate for {names:?}, not for {host:?}", server.address());
            let fix = format!(
                "add {host:?} to names in the bridge's configuration   # or set GOMA_SERVER_HOST to one of those"
            );
            Finding::new(Kind::OtherName, problem, fix)
        }
        Some(PeerProblem::Expired) => no_trust("certificate has expired".to_owned()),
        Some(PeerProblem::NotYet) => no_trust("certificate is not yet valid; perhaps a clock is wrong".to_owned()),
        Some(PeerProblem::Other(why)) => no_trust(why),
        None => {
            let problem = format!("{} does not speak TLS: {error}", server.address());
            Finding::new(Kind::NoTls, problem, "export GOMA_USE_SSL=false")
        }
    })
}
