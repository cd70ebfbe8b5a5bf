//! A real compile: a small file, with a compiler of this machine, through the server that the environment leads
//! to, and held against what the same compiler makes of it here.

mod attempts;
mod compile;
mod gomacc;
mod verdict;

use super::catalogue::Kind;
use super::programs;
use super::report::Report;
use super::server::Server;
use compile::Compile;
use motefarm_net::private_file;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};
use tokio::process::Command;

/// Longest time for a compile on this machine.
const LOCAL: Duration = Duration::from_secs(60);
/// Source and object.
const SOURCE: &str = "trial.c";
const OBJECT: &str = "trial.o";

/// What to try.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The compiler.
    pub compiler: PathBuf,
    /// Whether the request brings it.
    pub toolchain_included: bool,
    /// Longest time for one answer.
    pub patience: Duration,
}

/// A directory of this trial's own; gone with it.
struct Scratch(PathBuf);

impl Scratch {
    /// The source is another each time, so that no cache answers for the workers; the object is not.
    fn new() -> io::Result<Self> {
        let id = uuid::Uuid::new_v4();
        let dir = std::env::temp_dir().join(format!("mote-doctor-{id}"));
        private_file::create_dir(&dir)?;
        let scratch = Self(dir);
        let text = format!(
            "/* {id} */\n#include <stdio.h>\n#include \"trial.h\"\nint main(void) {{ puts(GREETING); return 0; }}\n"
        );
        fs::write(scratch.0.join(SOURCE), text)?;
        fs::write(scratch.0.join("trial.h"), "#define GREETING \"compiled\"\n")?;
        Ok(scratch)
    }

    fn take(&self, name: &str) -> io::Result<Vec<u8>> {
        let path = self.0.join(name);
        let content = fs::read(&path)?;
        fs::remove_file(path)?;
        Ok(content)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of it is in the way of nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `CC -c trial.c -o trial.o` here.
async fn here(compiler: &Path, args: &[&str], dir: &Path) -> io::Result<Output> {
    let mut command = Command::new(compiler);
    command.args(args).current_dir(dir).env("PWD", dir);
    programs::run(command, LOCAL).await
}

/// Compiles, and says what came of it. `gomacc`: where that is, and the port of the compiler_proxy it would use.
pub async fn run(trial: &Trial, server: &Server, gomacc: Option<(PathBuf, u16)>) -> Report {
    let mut report = Report::default();
    let with = trial.compiler.display();
    let local = match local(trial).await {
        Ok(local) => local,
        Err(why) => {
            let problem = format!("{with} does not compile a file of five lines here: {why}");
            report.found(Kind::LocalCompile, problem, "mote-bridge doctor --compiler /usr/bin/gcc   # or another");
            return report;
        }
    };
    let began = Instant::now();
    let tried = attempts::compile(server, &local.compile, trial.patience).await;
    verdict::judge(&verdict::Seen { server, local: &local, tried: &tried, took: began.elapsed() }, &mut report);
    if let Some((program, port)) = gomacc {
        report.add(gomacc::run(&program, port, &trial.compiler, &local.scratch.0).await);
    }
    report
}

/// What was made here.
struct Local {
    scratch: Scratch,
    compile: Compile,
    object: Vec<u8>,
    /// Whether it is the same each time.
    is_deterministic: bool,
}

async fn local(trial: &Trial) -> Result<Local, String> {
    let scratch = Scratch::new().map_err(|error| format!("no directory to do it in: {error}"))?;
    let words = |error: io::Error| error.to_string();
    let mut objects = Vec::new();
    for _ in 0..2 {
        let ran = here(&trial.compiler, &["-c", SOURCE, "-o", OBJECT], &scratch.0).await.map_err(words)?;
        if !ran.status.success() {
            return Err(String::from_utf8_lossy(&ran.stderr).trim().to_owned());
        }
        objects.push(scratch.take(OBJECT).map_err(words)?);
    }
    let compile = Compile::of(trial, &scratch.0).await.map_err(words)?;
    let is_deterministic = objects[0] == objects[1];
    Ok(Local { scratch, compile, object: objects.swap_remove(0), is_deterministic })
}
