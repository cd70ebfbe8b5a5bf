//! All of it, in the order in which the client would come to it.

use super::authorization::Authorization;
use super::catalogue::Kind;
use super::environment::{Facts, Looked};
use super::programs::{self, OwnWord};
use super::report::Report;
use super::server::Server;
use super::trial::{self, Trial};
use super::variables::Variables;
use super::{http_proxy, local_state, neighbours, probe};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The start of a file that is looked at.
const MAX_BYTES: u64 = 1 << 20;

/// How to look.
#[derive(Debug, Clone)]
pub struct Options {
    /// The compiler to try; otherwise one of the PATH's.
    pub compiler: Option<PathBuf>,
    /// Longest time for one answer to a compile.
    pub patience: Duration,
}

/// Looks at this process's machine and at the server that these variables lead to.
pub async fn examine(variables: &Variables, options: &Options) -> Report {
    let uid = rustix::process::getuid().as_raw();
    let path = variables.text("PATH").unwrap_or_default();
    let facts = Facts { variables, look: &look, uid };
    let mut report = Report { findings: facts.findings(), ..Report::default() };
    let authorization = Authorization::of(&facts);
    report.findings.extend(authorization.findings);
    ask_client(path, &mut report).await;
    report.add(programs::judge_goma_auth(path));

    let state = local_state::gather(variables, uid);
    report.add(local_state::judge(&state, uid));
    let direct = Server::of(variables, authorization.value, facts.ca_pem());
    let through = http_proxy::Met::meet(variables, &direct).await;
    if through.leads_to_a_server() {
        report.fine(format!("what listens on http_proxy's port {} leads to a server", through.port));
    }
    report.findings.extend(through.judge(variables, state.http_proxy.as_ref()));
    let met = neighbours::meet(variables).await;
    report.add(met.judge(variables, &through));

    if variables.text("GOMA_SERVER_HOST").is_none() {
        return report;
    }
    let goes_through = variables.is_on("GOMACTL_USE_PROXY", false) && through.said.is_some();
    let server = if goes_through { direct.through_http_proxy(through.port) } else { direct };
    let pinged = probe::ping(&server).await;
    let is_good = !pinged.is_bad();
    report.add(pinged);
    if !is_good {
        return report;
    }
    let Some(compiler) = options.compiler.clone().or_else(|| programs::compiler(path)) else {
        let fix = "mote-bridge doctor --compiler /usr/bin/gcc";
        report.found(Kind::NoCompiler, "there is no cc, gcc or clang on the PATH to try a compile with", fix);
        return report;
    };
    let trial = Trial {
        compiler,
        toolchain_included: variables.is_on("GOMA_ARBITRARY_TOOLCHAIN_SUPPORT", false),
        patience: options.patience,
    };
    let proxies = (uid != 0).then(|| met.compiler_proxies.first().map(|running| running.port)).flatten();
    let gomacc = programs::find("gomacc", path).zip(proxies);
    report.add(trial::run(&trial, &server, gomacc).await);
    report.is_tried = true;
    report
}

fn look(path: &Path) -> io::Result<Looked> {
    let meta = fs::metadata(path)?;
    if !meta.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
    }
    let mut content = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut content)?;
    Ok(Looked { content, mode: meta.permissions().mode() })
}

/// What the client itself says of its variables counts more than our list of them.
async fn ask_client(path: &str, report: &mut Report) {
    let Some(word) = programs::ask_client(path).await else { return };
    report.findings.retain(|finding| finding.id != Kind::UnknownVariable.id());
    match word {
        OwnWord::Server(address) => {
            report.fine(format!("compiler_proxy takes these variables, and would call {address}"))
        }
        OwnWord::Ends { unknown, words } if unknown.is_empty() => {
            let problem = format!("compiler_proxy --print-server-host fails: {words}");
            report.found(Kind::ClientRefuses, problem, "look at what it says");
        }
        OwnWord::Ends { unknown, .. } => {
            for name in unknown {
                report.found(
                    Kind::UnknownVariable,
                    format!("compiler_proxy does not know {name}"),
                    format!("unset {name}"),
                );
            }
        }
    }
}
