//! The same file by the client's own programs: whether a compile of theirs gets to the server.

use super::super::catalogue::Kind;
use super::super::neighbours;
use super::super::programs;
use super::super::report::Report;
use super::SOURCE;
use std::path::Path;
use std::time::Duration;
use tokio::process::Command;

/// Longest time for it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs `gomacc CC -c`, and looks whether the compiler_proxy on `port` counted a remote compile.
pub(super) async fn run(program: &Path, port: u16, compiler: &Path, dir: &Path) -> Report {
    let mut report = Report::default();
    let before = neighbours::remote_compiles(port).await;
    let mut command = Command::new(program);
    command.arg(compiler).args(["-c", SOURCE, "-o", "gomacc.o"]).current_dir(dir).env("PWD", dir);
    let line = format!("gomacc {} -c", compiler.display());
    let ran = match programs::run(command, PATIENCE).await {
        Ok(ran) => ran,
        Err(error) => {
            report.found(Kind::GomaccFailed, format!("{line}: {error}"), "goma_ctl.py status");
            return report;
        }
    };
    if !ran.status.success() {
        let words = String::from_utf8_lossy(&ran.stderr).trim().replace('\n', " | ");
        report.found(Kind::GomaccFailed, format!("{line}: {words}"), "goma_ctl.py status");
        return report;
    }
    let after = neighbours::remote_compiles(port).await;
    match before.zip(after) {
        Some((before, after)) if after > before => report.fine(format!("{line} compiled remotely")),
        Some(_) => {
            let fix =
                "goma_ctl.py ensure_stop; export GOMA_USE_LOCAL=false GOMA_FALLBACK=false; goma_ctl.py ensure_start";
            report.found(Kind::GomaccLocal, format!("{line} compiled on this machine"), fix);
        }
        None => report.fine(format!("{line} compiled; its compiler_proxy does not say where")),
    }
    report
}
