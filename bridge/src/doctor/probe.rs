//! What the server answers to a ping like the client's.

use super::catalogue::Kind;
use super::connection;
use super::report::{Finding, Report};
use super::server::Server;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Time for each step.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer looked at.
const MAX_BYTES: u64 = 64 << 10;
/// What mends a certificate that is not believed.
pub const TRUST_OR_CLEARTEXT: &str =
    "export GOMA_USE_SSL=false   # or GOMA_SSL_EXTRA_CERT=<data dir of the bridge>/tls/ca.pem";

/// Pings, and says what is in the way.
pub async fn ping(server: &Server) -> Report {
    let mut report = Report::default();
    let answered = match connection::open(server).await {
        Ok(stream) => exchange(server, stream).await,
        Err(finding) => Err(finding),
    };
    match answered {
        Ok(answer) => judge(server, &answer, &mut report),
        Err(finding) => report.findings.push(finding),
    }
    report
}

/// As the client sends it, port and all left out of `Host`.
pub async fn exchange(server: &Server, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<Vec<u8>, Finding> {
    let authorization = server.authorization.as_ref().map(|value| format!("Authorization: {value}\r\n"));
    let request = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: mote-bridge doctor\r\nContent-Type: binary/x-protocol-buffer\r\n\
         Content-Length: 0\r\nConnection: close\r\n{}\r\n",
        server.target("/ping"),
        server.host,
        authorization.unwrap_or_default()
    );
    let mut answer = Vec::new();
    let exchanging = async {
        stream.write_all(request.as_bytes()).await?;
        (&mut stream).take(MAX_BYTES).read_to_end(&mut answer).await
    };
    match tokio::time::timeout(TIMEOUT, exchanging).await {
        Ok(Err(error)) if answer.is_empty() => Err(Finding::new(
            Kind::NoAnswer,
            format!("the ping was not answered: {error}"),
            "look at GOMA_SERVER_PORT and GOMA_USE_SSL",
        )),
        _ => Ok(answer),
    }
}

/// What a ping's answer says of a bridge.
#[derive(Debug, PartialEq, Eq)]
pub struct Said<'a> {
    /// Its version.
    pub version: &'a str,
    /// Who is let in without a token.
    pub auth: &'a str,
    /// What its server says; begins with `ok` if all is well.
    pub backend: &'a str,
}

impl<'a> Said<'a> {
    /// From the body; `None`: it is no bridge's.
    pub fn parse(body: &'a str) -> Option<Self> {
        let (version, rest) = body.strip_prefix("ok ")?.split_once(" auth=")?;
        let (auth, backend) = rest.split_once(" backend=")?;
        Some(Self { version, auth, backend: backend.trim_end() })
    }
}

fn judge(server: &Server, answer: &[u8], report: &mut Report) {
    let url = server.url("/ping");
    let text = String::from_utf8_lossy(answer);
    // A TLS alert (RFC 8446, section 5.1), or the words of servers that explain themselves.
    if answer.first() == Some(&0x15) || (text.starts_with("HTTP/1.") && text.contains(" HTTPS ")) {
        return report.found(Kind::SpeaksTls, format!("{} speaks TLS", server.address()), "export GOMA_USE_SSL=true");
    }
    let status = text.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).unwrap_or_default();
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).lines().next().unwrap_or_default();
    let (kind, fix) = match status {
        "200" => return judge_body(server, body, report),
        "400" => (Kind::MalformedRequest, "unset GOMA_URL_PATH_PREFIX GOMA_RPC_EXTRA_PARAMS"),
        "401" => {
            let fix = "export GOMA_HTTP_AUTHORIZATION_FILE=/absolute/path   # of a file that holds: Bearer TOKEN";
            (Kind::NotAdmitted, fix)
        }
        "404" => (Kind::WrongPath, "unset GOMA_URL_PATH_PREFIX GOMA_RPC_EXTRA_PARAMS"),
        "302" | "301" | "307" | "308" | "403" => (Kind::TurnedAway, "call the bridge directly"),
        "" => (Kind::NoAnswer, "look at GOMA_SERVER_PORT and GOMA_USE_SSL"),
        _ => (Kind::BadStatus, "read the server's log"),
    };
    let said = match status {
        "" if text.is_empty() => "closes the connection without a word".to_owned(),
        "" => format!("answers, but not by HTTP: {:?}", text.lines().next().unwrap_or_default()),
        status => format!("answers {status} {body}").trim_end().to_owned(),
    };
    report.found(kind, format!("{url} {said}"), fix);
}

fn judge_body(server: &Server, body: &str, report: &mut Report) {
    let url = server.url("/ping");
    let Some(said) = Said::parse(body) else {
        report.fine(format!("server {} answers: {url}", server.address()));
        let problem = format!("{} is no mote-bridge of now: it answers {body:?}", server.address());
        return report.found(Kind::OtherServer, problem, "mote-bridge serve --backend grpc://HOST:PORT   # says more");
    };
    let own = env!("CARGO_PKG_VERSION");
    if said.version != own {
        let problem = format!("{} is mote-bridge {}, and this is {own}", server.address(), said.version);
        report.found(Kind::OtherVersion, problem, "use the same version of both");
    }
    if said.backend.starts_with("ok") {
        let Said { auth, backend, .. } = said;
        return report.fine(format!("server {} answers (auth={auth}, backend={backend}): {url}", server.address()));
    }
    if said.backend.to_ascii_lowercase().contains("instance") {
        let problem = format!("the bridge's server does not know its instance: {}", said.backend);
        return report.found(
            Kind::UnknownInstance,
            problem,
            "mote-bridge serve --backend grpc://HOST:PORT --instance NAME",
        );
    }
    let problem = format!("the bridge's server fails: {}", said.backend);
    let fix = "mote-bridge serve --backend grpc://HOST:PORT   # grpcs:// if it speaks TLS; is it up?";
    report.found(Kind::Backend, problem, fix);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::variables::Variables;

    #[test]
    fn answers_are_judged_as_the_client_takes_them() {
        let server = Server::of(&Variables::default(), None, None);
        let own = env!("CARGO_PKG_VERSION");
        let ok = format!("HTTP/1.1 200 OK\r\n\r\nok {own} auth=own-user backend=ok (REAPI 2.0 to 2.3)\n");
        let failing = format!("HTTP/1.1 200 OK\r\n\r\nok {own} auth=anyone backend=failing (Unavailable: x)\n");
        let instance = format!(
            "HTTP/1.1 200 OK\r\n\r\nok {own} auth=anyone backend=failing (InvalidArgument: unknown instance \".\")\n"
        );
        for (answer, expected) in [
            (ok.as_str(), &[][..]),
            ("HTTP/1.1 200 OK\r\n\r\nok 0.0.9 auth=own-user backend=ok\n", &["other-version"]),
            ("HTTP/1.1 200 OK\r\n\r\nok\n", &["other-server"]),
            (&failing, &["backend"]),
            (&instance, &["unknown-instance"]),
            ("HTTP/1.1 400 Bad Request\r\n\r\nno\n", &["malformed-request"]),
            ("HTTP/1.1 401 Unauthorized\r\n\r\nno\n", &["not-admitted"]),
            ("HTTP/1.1 404 Not Found\r\n\r\n", &["wrong-path"]),
            ("HTTP/1.1 302 Found\r\n\r\n", &["turned-away"]),
            ("HTTP/1.1 500 Oops\r\n\r\n", &["bad-status"]),
            ("SSH-2.0-OpenSSH\r\n", &["no-answer"]),
            ("", &["no-answer"]),
            ("\x15\x03\x03", &["speaks-tls"]),
            ("HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n", &["speaks-tls"]),
        ] {
            let mut report = Report::default();
            judge(&server, answer.as_bytes(), &mut report);
            let ids: Vec<&str> = report.findings.iter().map(|finding| finding.id).collect();
            assert_eq!(ids, expected, "{answer}");
        }
    }
}
