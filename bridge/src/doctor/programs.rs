//! Programs on the PATH: the client's own, and compilers; and how one is run for a moment.

use super::catalogue::Kind;
use super::report::Report;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;
use tokio::process::Command;

/// Time for what answers at once.
const SHORT: Duration = Duration::from_secs(10);
/// The real goma_auth.py has some hundred lines.
const CUT_DOWN_BYTES: u64 = 2048;
/// Programs that stand in for a compiler and are none.
const STAND_INS: [&str; 5] = ["ccache", "sccache", "distcc", "icecc", "gomacc"];
/// Compilers, in the order in which they are tried.
const COMPILERS: [&str; 3] = ["cc", "gcc", "clang"];

/// The directories of a `PATH`; relative ones are nothing to rely on.
fn directories(path: &str) -> impl Iterator<Item = &Path> {
    path.split(':').map(Path::new).filter(|dir| dir.is_absolute())
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Where a program is.
pub fn find(name: &str, path: &str) -> Option<PathBuf> {
    directories(path).map(|dir| dir.join(name)).find(|file| is_program(file))
}

/// The compiler that would be tried: no stand-in for one.
pub fn compiler(path: &str) -> Option<PathBuf> {
    let named = COMPILERS.into_iter().flat_map(|name| directories(path).map(move |dir| dir.join(name)));
    named.filter(|file| is_program(file)).find(|file| {
        let real = fs::canonicalize(file).unwrap_or_default();
        !real.file_name().is_some_and(|name| STAND_INS.iter().any(|other| name == *other))
    })
}

/// Runs it, without input, at most so long; it ends with us.
pub async fn run(mut command: Command, patience: Duration) -> io::Result<Output> {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let late = || io::Error::new(io::ErrorKind::TimedOut, format!("not done within {} s", patience.as_secs()));
    tokio::time::timeout(patience, running).await.unwrap_or_else(|_| Err(late()))
}

/// A `goma_auth.py` that somebody cut down.
pub fn judge_goma_auth(path: &str) -> Report {
    let mut report = Report::default();
    let places = directories(path).flat_map(|dir| [dir.to_owned(), dir.join(".cipd_bin")]);
    let scripts = places.map(|dir| dir.join("goma_auth.py")).filter_map(|file| Some((fs::metadata(&file).ok()?, file)));
    let cut: Vec<String> = scripts
        .filter(|(meta, _)| meta.is_file() && meta.len() < CUT_DOWN_BYTES)
        .map(|(meta, file)| format!("{} ({} bytes)", file.display(), meta.len()))
        .collect();
    if !cut.is_empty() {
        let problem = format!("cut down: {}", cut.join(", "));
        report.found(Kind::PatchedAuth, problem, "export GOMACTL_SKIP_AUTH=true   # and put the original back");
    }
    report
}

/// What the client itself makes of the environment. `None`: it is not here.
#[derive(Debug, PartialEq, Eq)]
pub enum OwnWord {
    /// It takes it, and would call this.
    Server(String),
    /// It ends: at variables that it does not know, or with other words.
    Ends {
        /// Names of `GOMA_` variables.
        unknown: Vec<String>,
        /// All it said.
        words: String,
    },
}

/// Asks the client itself.
pub async fn ask_client(path: &str) -> Option<OwnWord> {
    let mut command = Command::new(find("compiler_proxy", path)?);
    command.arg("--print-server-host");
    let output = run(command, SHORT).await.ok()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Some(OwnWord::Server(text(&output.stdout)));
    }
    Some(own_end(&text(&[output.stderr, output.stdout].concat())))
}

fn own_end(words: &str) -> OwnWord {
    let unknown = words.lines().filter_map(|line| line.strip_suffix(": unknown GOMA_ parameter"));
    let names = unknown.filter_map(|pair| pair.split_once('=')).map(|(name, _)| name.to_owned());
    OwnWord::Ends { unknown: names.collect(), words: words.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn program(dir: &Path, name: &str, text: &str) {
        fs::create_dir_all(dir).unwrap();
        fs::write(dir.join(name), text).unwrap();
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_compiler_is_one_and_no_stand_in() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        program(&first, "ccache", "");
        symlink("ccache", first.join("gcc")).unwrap();
        fs::create_dir_all(first.join("cc")).unwrap();
        let path = format!("{}:relative:{}", first.display(), second.display());
        assert_eq!(compiler(&path), None);
        program(&second, "gcc", "");
        assert_eq!(compiler(&path), Some(second.join("gcc")));
        assert_eq!(find("gcc", &path), Some(first.join("gcc")));
    }

    #[test]
    fn scripts_that_were_cut_down_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display().to_string();
        assert!(judge_goma_auth(&path).findings.is_empty());
        program(&dir.path().join(".cipd_bin"), "goma_auth.py", "import sys\nsys.exit(0)\n");
        program(dir.path(), "goma_auth.py", &"# the real one\n".repeat(500));
        let found = judge_goma_auth(&path).findings;
        assert_eq!((found.len(), found[0].id), (1, "patched-auth"));
        assert!(found[0].problem.contains(".cipd_bin/goma_auth.py (23 bytes)"), "{}", found[0].problem);
    }

    #[test]
    fn what_the_client_ends_with_names_the_variables() {
        let words = "GOMA_X=a=b: unknown GOMA_ parameter\nGOMA_Y=: unknown GOMA_ parameter";
        let OwnWord::Ends { unknown, .. } = own_end(words) else { panic!() };
        assert_eq!(unknown, ["GOMA_X", "GOMA_Y"]);
    }
}
