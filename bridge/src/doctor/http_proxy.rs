//! `http_proxy`, which `goma_ctl.py` puts between client and server: by the files that it leaves, and by what its
//! port says.

use super::catalogue::{Kind, Severity};
use super::connection;
use super::local_state::tail;
use super::probe;
use super::report::Finding;
use super::server::Server;
use super::variables::{Variables, switch};
use std::path::Path;

/// Where `goma_ctl.py` has it listen.
const PORT: u16 = 19080;
/// What leaves it out, and ends the one that runs.
pub const WITHOUT_IT: &str = "export GOMACTL_USE_PROXY=false; goma_ctl.py ensure_stop";

/// `http_proxy.pid`, `.host` and `.log`.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Whether the process of that number is there.
    pub is_alive: bool,
    /// For which server it was started, in goma_ctl.py's words.
    pub host: String,
    /// The end of its log.
    pub log: String,
}

impl Files {
    /// Those of the client's directory; `None`: it was not started, or was stopped.
    pub fn read(dir: &Path) -> Option<Self> {
        let host = tail(&dir.join("http_proxy.host"))?;
        let pid = tail(&dir.join("http_proxy.pid")).and_then(|text| text.trim().parse::<i32>().ok());
        let is_alive = pid
            .and_then(rustix::process::Pid::from_raw)
            .is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
        Some(Self { is_alive, host, log: tail(&dir.join("http_proxy.log")).unwrap_or_default() })
    }

    /// The port that was lost on the way to it, and what it calls instead.
    fn lost(&self) -> Option<(&str, &str)> {
        let (host, port) = self.host.split_whitespace().next()?.rsplit_once(':')?;
        (port != "443").then_some((host, port))
    }
}

/// Its port, and who is there.
#[derive(Debug)]
pub struct Met {
    /// The port.
    pub port: u16,
    /// The first line that came from it, if somebody listens there.
    pub said: Option<String>,
}

/// What the variables say of it, if they say anything.
fn is_wanted(variables: &Variables) -> Option<bool> {
    variables.text("GOMACTL_USE_PROXY").and_then(switch)
}

impl Met {
    /// Pings it as the client would. `direct`: the server without it.
    pub async fn meet(variables: &Variables, direct: &Server) -> Self {
        let port = variables.port("GOMACTL_PROXY_PORT").unwrap_or(PORT);
        let mut through = direct.through_http_proxy(port);
        if is_wanted(variables) == Some(false) {
            // Then the client shows its token to nobody there.
            through.authorization = None;
        }
        let said = match connection::open(&through).await {
            Ok(stream) => Some(first_line(&probe::exchange(&through, stream).await.unwrap_or_default())),
            Err(_) => None,
        };
        Self { port, said }
    }

    /// Whether it stands before a server of Goma's: that may want a token, but it is there.
    pub fn leads_to_a_server(&self) -> bool {
        self.said.as_deref().is_some_and(|line| matches!(line.get(9..12), Some("200" | "401")))
    }

    /// What is to be said of it.
    pub fn judge(&self, variables: &Variables, files: Option<&Files>) -> Option<Finding> {
        let wanted = is_wanted(variables);
        let found = |problem: String| Finding::new(Kind::HttpProxy, problem, WITHOUT_IT);
        match (&self.said, wanted) {
            // Whatever stands there does its work: our relay, or http_proxy before a server with TLS on 443.
            (Some(_), _) if self.leads_to_a_server() => None,
            (Some(line), wanted) => {
                let mut problem =
                    format!("on port {} listens an http_proxy, and answers a ping with {line:?}", self.port);
                if let Some((host, port)) = files.and_then(Files::lost) {
                    problem += &format!(
                        "; it was started for {host}:{port} and calls https://{host}:443: port {port} is lost"
                    );
                }
                let errors = files.map(|files| files.log.lines().filter(|line| line.contains("proxy error")));
                if let Some(line) = errors.and_then(|mut errors| errors.next_back()) {
                    problem += &format!("; its log says {:?}", line.trim());
                }
                let severity = if wanted == Some(false) { Severity::Doubtful } else { Severity::Wrong };
                Some(found(problem).but(severity))
            }
            (None, Some(false)) => files
                .is_some_and(|files| files.is_alive)
                .then(|| found("the http_proxy of an earlier start still runs".to_owned())),
            (None, Some(true)) => Some(found("GOMACTL_USE_PROXY is true".to_owned())),
            (None, None) => Some(found("GOMACTL_USE_PROXY is not false".to_owned())),
        }
    }
}

fn first_line(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let line = text.lines().next().filter(|line| line.starts_with("HTTP/1."));
    line.unwrap_or("nothing in HTTP").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_judged_by_what_it_does() {
        let files = Files {
            is_alive: true,
            host: "localhost:5050 (via http_proxy)".into(),
            log: "x\n2023/08/18 15:28:14 http: proxy error: tls: first record does not look like a TLS handshake\n"
                .into(),
        };
        let judge = |files: Option<&Files>, said: Option<&str>, wanted: Option<&str>| {
            let variables = wanted.map(|text| ("GOMACTL_USE_PROXY".to_owned(), text.to_owned())).into_iter().collect();
            let met = Met { port: 19080, said: said.map(str::to_owned) };
            met.judge(&variables, files).map(|finding| (finding.severity, finding.problem))
        };
        let bad = Some("HTTP/1.1 502 Bad Gateway");
        let (severity, problem) = judge(Some(&files), bad, None).unwrap();
        assert_eq!(severity, Severity::Wrong);
        assert!(problem.contains("port 5050 is lost") && problem.contains("first record"), "{problem}");
        assert_eq!(judge(None, bad, Some("false")).unwrap().0, Severity::Doubtful);
        assert_eq!(judge(None, Some("HTTP/1.1 200 OK"), Some("true")), None);
        assert_eq!(judge(None, Some("HTTP/1.1 401 Unauthorized"), None), None, "the server is asked itself");
        assert_eq!(judge(None, None, None).unwrap().0, Severity::Doubtful);
        assert_eq!(judge(None, None, Some("false")), None);
        assert!(judge(Some(&files), None, Some("false")).is_some());
    }
}
