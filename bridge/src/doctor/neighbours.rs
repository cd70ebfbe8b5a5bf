//! What listens on this machine where compiler_proxy would: one of other variables, or something else.

use super::catalogue::{Kind, Severity};
use super::flagz;
use super::http_proxy;
use super::report::{Finding, Report};
use super::variables::Variables;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Where compiler_proxy listens, or on one of the ten next.
const COMPILER_PROXY_PORT: u16 = 8088;
const MORE_PORTS: u16 = 10;
/// They are on this machine.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Longest page looked at.
const MAX_BYTES: u64 = 256 << 10;
const RESTART: &str = "goma_ctl.py ensure_stop; goma_ctl.py ensure_start";

/// A compiler_proxy that runs.
#[derive(Debug)]
pub struct Running {
    /// Its port.
    pub port: u16,
    /// What it says of its server.
    pub health: String,
    /// What it was started with.
    pub variables: BTreeMap<String, String>,
}

/// Who was met.
#[derive(Debug, Default)]
pub struct Neighbours {
    /// Every compiler_proxy.
    pub compiler_proxies: Vec<Running>,
    /// Its own port, if something else is there.
    pub taken: Option<u16>,
}

/// Status line and body of a page; `Ok(None)`: somebody listens, and speaks no HTTP.
async fn page(port: u16, path: &str) -> io::Result<Option<(String, String)>> {
    let late = || io::Error::from(io::ErrorKind::TimedOut);
    let connecting = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
    let mut stream = tokio::time::timeout(TIMEOUT, connecting).await.map_err(|_| late())??;
    let mut answer = Vec::new();
    let asking = async {
        let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        (&mut stream).take(MAX_BYTES).read_to_end(&mut answer).await
    };
    // Whoever closes late has said what there is.
    let _ = tokio::time::timeout(TIMEOUT, asking).await;
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let line = head.lines().next().unwrap_or_default();
    Ok(line.starts_with("HTTP/1.").then(|| (line.to_owned(), body.to_owned())))
}

/// Looks, at all of them at once.
pub async fn meet(variables: &Variables) -> Neighbours {
    let own = variables.port("GOMA_COMPILER_PROXY_PORT").unwrap_or(COMPILER_PROXY_PORT);
    let met = join_all((own..=own.saturating_add(MORE_PORTS)).map(compiler_proxy)).await;
    let taken = matches!(met.first(), Some(Met::Other)).then_some(own);
    let compiler_proxies = met.into_iter().filter_map(|met| match met {
        Met::CompilerProxy(running) => Some(running),
        Met::Other | Met::Nobody => None,
    });
    Neighbours { compiler_proxies: compiler_proxies.collect(), taken }
}

enum Met {
    Nobody,
    Other,
    CompilerProxy(Running),
}

async fn compiler_proxy(port: u16) -> Met {
    let Ok(health) = page(port, "/healthz").await else { return Met::Nobody };
    let flags = page(port, "/flagz").await.ok().flatten();
    match (health, flags) {
        (Some((line, health)), Some((_, flags))) if line.contains(" 200") && flags.contains("GOMA_") => {
            Met::CompilerProxy(Running { port, health: health.trim().to_owned(), variables: flagz::parse(&flags) })
        }
        _ => Met::Other,
    }
}

/// How many compiles a compiler_proxy finished remotely, by its `/statz`; `None`: it does not say.
pub async fn remote_compiles(port: u16) -> Option<u64> {
    let (_, page) = page(port, "/statz").await.ok()??;
    finished(&page)
}

fn finished(page: &str) -> Option<u64> {
    let line = page.lines().find_map(|line| line.trim().strip_prefix("goma: "))?;
    line.split_whitespace().find_map(|pair| pair.strip_prefix("finished=")?.parse().ok())
}

impl Neighbours {
    /// What is to be said of them, by what was met on http_proxy's port.
    pub fn judge(&self, variables: &Variables, http_proxy: &http_proxy::Met) -> Report {
        let mut report = Report::default();
        for running in &self.compiler_proxies {
            running.judge(variables, http_proxy, &mut report);
        }
        if let Some(port) = self.taken {
            let problem = format!("something that is no compiler_proxy listens on port {port}");
            report.found(Kind::PortTaken, problem, "export GOMA_COMPILER_PROXY_PORT=8100");
        }
        report
    }
}

impl Running {
    fn judge(&self, variables: &Variables, http_proxy: &http_proxy::Met, report: &mut Report) {
        let at = format!("the compiler_proxy on port {}", self.port);
        let state = self.health.lines().next().unwrap_or_default();
        if state.starts_with("ok") {
            report.fine(format!("{at} says {state:?} of its server"));
        } else {
            report.found(Kind::UnhealthyCompilerProxy, format!("{at} says {state:?} of its server"), RESTART);
        }
        let mut but = Vec::new();
        if flagz::is_behind_http_proxy(&self.variables, http_proxy.port) {
            but = vec!["GOMA_SERVER_HOST", "GOMA_SERVER_PORT", "GOMA_USE_SSL"];
            if !http_proxy.leads_to_a_server() {
                let problem = format!("{at} was sent to http_proxy on port {}", http_proxy.port);
                let finding = Finding::new(Kind::HttpProxy, problem, http_proxy::WITHOUT_IT);
                report.findings.push(finding.but(Severity::Wrong));
            }
        }
        let differences = flagz::differences(&self.variables, variables, &but);
        if !differences.is_empty() {
            let problem = format!("{at} was started with other variables: {}", differences.join("; "));
            report.found(Kind::StaleCompilerProxy, problem, RESTART);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_compiles_are_read_from_the_page() {
        let page = "request: total=8 success=8 failure=0\n compiler_proxy: fail=0\n goma: finished=7 cache_hit=3\n local: run=3 finished=1\n";
        assert_eq!(finished(page), Some(7));
        assert_eq!(finished("<html>"), None);
    }

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_compiler_proxy_is_held_against_the_variables_of_now() {
        let now = variables(&[
            ("GOMA_SERVER_HOST", "127.0.0.1"),
            ("GOMA_SERVER_PORT", "5050"),
            ("GOMA_USE_SSL", "false"),
            ("GOMACTL_USE_PROXY", "false"),
        ]);
        let met = |flags: &str, health: &str, said: Option<&str>| {
            let running = Running { port: 8088, health: health.to_owned(), variables: flagz::parse(flags) };
            let http_proxy = http_proxy::Met { port: 19080, said: said.map(str::to_owned) };
            let found = Neighbours { compiler_proxies: vec![running], taken: None }.judge(&now, &http_proxy).findings;
            found.into_iter().map(|finding| (finding.id, finding.severity.word())).collect::<Vec<_>>()
        };
        let same = "GOMA_SERVER_HOST=127.0.0.1\nGOMA_SERVER_PORT=5050\nGOMA_USE_SSL=false\n";
        let proxied = "GOMA_SERVER_HOST=127.0.0.1\nGOMA_SERVER_PORT=19080\nGOMA_USE_SSL=false\n";
        assert_eq!(met(same, "ok", None), []);
        assert_eq!(
            met(same, "running: failed to connect to backend servers", None),
            [("unhealthy-compiler-proxy", "wrong")]
        );
        assert_eq!(met(&same.replace("5050", "80"), "ok", None), [("stale-compiler-proxy", "wrong")]);
        assert_eq!(met(proxied, "ok", None), [("http-proxy", "wrong")]);
        assert_eq!(met(proxied, "ok", Some("HTTP/1.1 200 OK")), []);
    }
}
