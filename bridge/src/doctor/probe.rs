//! What the server answers to a ping like the client's.

use super::environment::Server;
use super::{Finding, Severity};
use motefarm_net::tls;
use rustls::pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Time for each step.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer looked at.
const MAX_BYTES: u64 = 64 << 10;

fn wrong(id: &'static str, problem: String, why: &'static str, fix: &str) -> Finding {
    Finding { id, severity: Severity::Wrong, problem, why, fix: fix.to_owned() }
}

/// Pings, and says what is in the way. `ca_pem`: what the client trusts besides.
pub async fn ping(server: &Server, ca_pem: Option<&str>) -> Vec<Finding> {
    let url = format!("{}:{}{}/ping", server.host, server.port, server.prefix);
    let stream = match tokio::time::timeout(TIMEOUT, TcpStream::connect((server.host.as_str(), server.port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            return vec![wrong(
                "no-listener",
                format!("nobody answers at {url}: {error}"),
                "goma_ctl.py says \"Now goma is ready!\" all the same",
                "mote-bridge serve --backend ...   # and look at GOMA_SERVER_PORT",
            )];
        }
        Err(_) => {
            return vec![wrong(
                "no-listener",
                format!("nobody answers at {url} within {} s", TIMEOUT.as_secs()),
                "goma_ctl.py says \"Now goma is ready!\" all the same",
                "look at GOMA_SERVER_HOST, and at what filters the way there",
            )];
        }
    };
    let said = if server.tls { secure(server, stream, ca_pem).await } else { clear(server, stream).await };
    match said {
        Ok(answer) => judge(&url, server, &answer),
        Err(finding) => vec![finding],
    }
}

async fn clear(server: &Server, stream: TcpStream) -> Result<Vec<u8>, Finding> {
    let answer = exchange(server, stream).await?;
    // A TLS alert: RFC 8446, section 5.1.
    if answer.first() == Some(&0x15) {
        return Err(wrong(
            "speaks-tls",
            format!("{}:{} speaks TLS", server.host, server.port),
            "GOMA_USE_SSL=false makes the client speak cleartext",
            "export GOMA_USE_SSL=true",
        ));
    }
    Ok(answer)
}

async fn secure(server: &Server, stream: TcpStream, ca_pem: Option<&str>) -> Result<Vec<u8>, Finding> {
    let no_tls = |problem: String| {
        wrong(
            "no-tls",
            format!("{}:{}: {problem}", server.host, server.port),
            "GOMA_USE_SSL is on (it is unless it says false): either the server does not speak TLS (\"first record does not look \
             like a TLS handshake\"), or it shows a certificate that is not trusted",
            "export GOMA_USE_SSL=false   # or GOMA_SSL_EXTRA_CERT=<data dir of the bridge>/tls/ca.pem",
        )
    };
    let trusted = match ca_pem {
        Some(pem) => tls::client_config(pem),
        None => tls::client_config_system(),
    };
    let config = trusted.map_err(|error| no_tls(error.to_string()))?;
    let name = ServerName::try_from(server.host.clone()).map_err(|_| no_tls("no name for a certificate".to_owned()))?;
    let connecting = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
    match tokio::time::timeout(TIMEOUT, connecting).await {
        Ok(Ok(stream)) => exchange(server, stream).await,
        Ok(Err(error)) => Err(no_tls(error.to_string())),
        Err(_) => Err(no_tls("no handshake in time".to_owned())),
    }
}

/// As the client sends it, port and all left out of `Host`.
async fn exchange(server: &Server, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Vec<u8>, Finding> {
    let authorization = server.authorization.as_ref().map(|value| format!("Authorization: {value}\r\n"));
    let request = format!(
        "POST {}/ping HTTP/1.1\r\nHost: {}\r\nUser-Agent: mote-bridge doctor\r\nContent-Type: binary/x-protocol-buffer\r\n\
         Content-Length: 0\r\nConnection: close\r\n{}\r\n",
        server.prefix,
        server.host,
        authorization.unwrap_or_default()
    );
    let mut answer = Vec::new();
    let exchanging = async {
        stream.write_all(request.as_bytes()).await?;
        (&mut stream).take(MAX_BYTES).read_to_end(&mut answer).await
    };
    let ended = tokio::time::timeout(TIMEOUT, exchanging).await;
    match ended {
        Ok(Err(error)) if answer.is_empty() => Err(wrong(
            "no-answer",
            format!("the ping was not answered: {error}"),
            "something else than a Goma server may listen there",
            "look at GOMA_SERVER_PORT",
        )),
        _ => Ok(answer),
    }
}

fn judge(url: &str, server: &Server, answer: &[u8]) -> Vec<Finding> {
    let text = String::from_utf8_lossy(answer);
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).unwrap_or_default();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).lines().next().unwrap_or_default();
    match status {
        "200" if body.contains("backend=failing") || body.contains("backend=no answer") => vec![wrong(
            "backend",
            format!("the bridge answers, and its backend does not: {body}"),
            "every compile is answered with that error",
            "look at --backend and --instance of mote-bridge serve",
        )],
        "200" => Vec::new(),
        "401" => vec![wrong(
            "not-admitted",
            format!("{url}: 401: {body}"),
            "after that the client stays away from its server for 10 to 20 minutes",
            "export GOMA_HTTP_AUTHORIZATION_FILE=/absolute/path   # holding: Bearer TOKEN",
        )],
        "404" => vec![wrong(
            "wrong-path",
            format!("{url}: 404: {body}"),
            "the server has its calls below another path",
            "unset GOMA_URL_PATH_PREFIX",
        )],
        "302" | "403" => vec![wrong(
            "turned-away",
            format!("{url}: {status}"),
            "the client is disabled for 10 to 20 minutes by that; a proxy that redirects to https does it, too",
            "call the bridge directly",
        )],
        "502" if server.port == 19080 => vec![wrong(
            "http-proxy",
            format!("{url}: 502 of http_proxy"),
            "http_proxy speaks TLS to port 443 of the server's host and nothing else",
            "export GOMACTL_USE_PROXY=false; goma_ctl.py ensure_stop",
        )],
        "" => vec![wrong(
            "no-answer",
            format!("{url} answers, but not by HTTP"),
            "something else than a Goma server listens there",
            "look at GOMA_SERVER_PORT",
        )],
        other => vec![wrong(
            "bad-status",
            format!("{url}: {other}: {body}"),
            "only 200 is health to the client",
            "read the server's log",
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged_as_the_client_takes_them() {
        let server = Server { host: "h".into(), port: 19080, tls: false, prefix: "/p".into(), authorization: None };
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\n\r\nok 1 auth=own-user backend=ok (REAPI 2.0 to 2.3)\n", None),
            ("HTTP/1.1 200 OK\r\n\r\nok\n", None),
            ("HTTP/1.1 200 OK\r\n\r\nok 1 auth=anyone backend=failing (Unavailable: x)\n", Some("backend")),
            ("HTTP/1.1 401 Unauthorized\r\n\r\nno\n", Some("not-admitted")),
            ("HTTP/1.1 404 Not Found\r\n\r\n", Some("wrong-path")),
            ("HTTP/1.1 302 Found\r\n\r\n", Some("turned-away")),
            ("HTTP/1.1 502 Bad Gateway\r\n\r\n", Some("http-proxy")),
            ("HTTP/1.1 500 Oops\r\n\r\n", Some("bad-status")),
            ("SSH-2.0-OpenSSH\r\n", Some("no-answer")),
        ] {
            assert_eq!(judge("u", &server, answer.as_bytes()).first().map(|finding| finding.id), expected, "{answer}");
        }
    }
}
