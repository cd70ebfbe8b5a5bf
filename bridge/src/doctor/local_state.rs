//! What the client leaves on this machine: its own directory, and its logs.

use super::catalogue::Kind;
use super::http_proxy;
use super::report::{Finding, Report};
use super::variables::Variables;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How much of the end of a log is looked at.
const TAIL_BYTES: u64 = 256 << 10;
/// In the client's logs, and of no consequence.
const HARMLESS: [(&str, &str); 2] = [
    ("failed to load cache file", "there is no cache at first"),
    ("username mismatch", "the account's name is another than the environment's"),
];

/// What was found there.
#[derive(Debug, Default)]
pub struct LocalState {
    /// The client's directory, if it is there.
    pub tmp_dir: Option<TmpDir>,
    /// What `goma_ctl.py` wrote when it started http_proxy.
    pub http_proxy: Option<http_proxy::Files>,
    /// Ends of logs, by path.
    pub logs: Vec<(PathBuf, String)>,
}

/// The client's directory.
#[derive(Debug, Clone)]
pub struct TmpDir {
    /// Where.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
    /// Whose it is.
    pub owner: u32,
    /// Whether it is a directory, and no link to one.
    pub is_directory: bool,
}

/// Where the client's directory may be, likeliest first.
fn tmp_dirs(variables: &Variables, uid: u32) -> Vec<PathBuf> {
    if let Some(named) = variables.text("GOMA_TMP_DIR") {
        return vec![named.into()];
    }
    let users = ["SUDO_USER", "USERNAME", "USER", "LOGNAME"].map(|name| variables.text(name));
    let Some(user) = users.into_iter().flatten().find(|user| *user != "root") else { return Vec::new() };
    let runtime = variables.text("XDG_RUNTIME_DIR").map_or_else(|| format!("/run/user/{uid}"), str::to_owned);
    let temporary = variables.first(&["TMPDIR", "TMP"]).unwrap_or("/tmp");
    [runtime.as_str(), temporary, "/tmp"].map(|dir| Path::new(dir).join(format!("goma_{user}"))).to_vec()
}

/// Looks.
pub fn gather(variables: &Variables, uid: u32) -> LocalState {
    let dirs: Vec<PathBuf> =
        tmp_dirs(variables, uid).into_iter().filter(|dir| dir.symlink_metadata().is_ok()).collect();
    let tmp_dir = dirs.first().and_then(|path| {
        let meta = path.symlink_metadata().ok()?;
        Some(TmpDir { path: path.clone(), mode: meta.mode(), owner: meta.uid(), is_directory: meta.is_dir() })
    });
    let log_dir = variables.first(&["GLOG_log_dir", "TEST_TMPDIR", "TMPDIR", "TMP"]).unwrap_or("/tmp");
    let logs = ["FATAL", "ERROR", "WARNING"].map(|level| Path::new(log_dir).join(format!("compiler_proxy.{level}")));
    LocalState {
        tmp_dir,
        http_proxy: dirs.iter().find_map(|dir| http_proxy::Files::read(dir)),
        logs: logs.into_iter().filter_map(|path| tail(&path).map(|text| (path, text))).collect(),
    }
}

/// The end of a file.
pub fn tail(path: &Path) -> Option<String> {
    // A pipe or a device would hold us up.
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut file = File::open(path).ok()?;
    let size = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// What is to be said of it; `http_proxy` is judged with its port.
pub fn judge(state: &LocalState, uid: u32) -> Report {
    let mut report = Report::default();
    if let Some(dir) = &state.tmp_dir {
        let path = dir.path.display();
        let problem = if !dir.is_directory {
            Some(format!("{path} is no directory"))
        } else if dir.owner != uid {
            Some(format!("{path} belongs to user {}, and you are {uid}", dir.owner))
        } else if dir.mode & 0o077 != 0 {
            Some(format!("{path} is open to others (mode {:o})", dir.mode & 0o777))
        } else {
            None
        };
        match problem {
            Some(problem) => {
                report.found(Kind::TmpDir, problem, format!("chmod 700 {path}   # or another GOMA_TMP_DIR"))
            }
            None => report.fine(format!("{path} is the client's own directory")),
        }
    }
    for (path, text) in &state.logs {
        let name = path.display();
        for (message, meaning) in HARMLESS {
            if text.contains(message) && !report.findings.iter().any(|found| found.problem.contains(message)) {
                let problem = format!("{name} says \"{message}\": {meaning}");
                report.found(Kind::HarmlessMessage, problem, "nothing need be done");
            }
        }
        if path.extension().is_some_and(|level| level == "FATAL")
            && let Some(line) = text.lines().rfind(|line| line.starts_with('F'))
        {
            report.findings.push(fatal(&name.to_string(), line));
        }
    }
    report
}

fn fatal(log: &str, line: &str) -> Finding {
    let words = line.split_once("] ").map_or(line, |(_, words)| words);
    let fix = match words {
        _ if words.contains("HTTP_AUTHORIZATION_FILE") => {
            "unset GOMA_HTTP_AUTHORIZATION_FILE   # or name an absolute path"
        }
        _ => "goma_ctl.py ensure_start   # and look into that log again",
    };
    Finding::new(Kind::FatalMessage, format!("{log}: {words}"), fix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_clients_directory_is_looked_for_where_it_may_be() {
        let named = |dirs: Vec<PathBuf>| dirs.into_iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>();
        assert_eq!(named(tmp_dirs(&variables(&[("GOMA_TMP_DIR", "/g"), ("USER", "u")]), 7)), ["/g"]);
        let by_user = variables(&[("USER", "nils"), ("TMPDIR", "/t")]);
        assert_eq!(named(tmp_dirs(&by_user, 7)), ["/run/user/7/goma_nils", "/t/goma_nils", "/tmp/goma_nils"]);
        assert_eq!(named(tmp_dirs(&variables(&[("USER", "root")]), 0)), Vec::<String>::new());
    }

    #[test]
    fn logs_are_told_apart_into_harmless_and_fatal() {
        let dir = tempfile::tempdir().unwrap();
        let log =
            "Log file created at: x\nE20230818 11:16:04 1 compiler_info_cache.cc:455] failed to load cache file /r/c\n";
        fs::write(dir.path().join("compiler_proxy.ERROR"), log).unwrap();
        let line =
            "F20230818 11:16:05 1 http_init.cc:151] Check failed: ReadFileToString(FLAGS_HTTP_AUTHORIZATION_FILE) ~/.x";
        fs::write(dir.path().join("compiler_proxy.FATAL"), format!("Log file\n{line}\n")).unwrap();
        let tmp = dir.path().join("goma");
        fs::create_dir(&tmp).unwrap();
        let own = variables(&[("GLOG_log_dir", dir.path().to_str().unwrap()), ("GOMA_TMP_DIR", tmp.to_str().unwrap())]);
        let uid = rustix::process::getuid().as_raw();
        let report = judge(&gather(&own, uid), uid);
        let ids: Vec<&str> = report.findings.iter().map(|finding| finding.id).collect();
        // The directory was made with the usual mode.
        assert_eq!(ids, ["tmp-dir", "fatal-message", "harmless-message"]);
        assert!(report.findings[1].problem.ends_with("~/.x") && report.findings[1].fix.starts_with("unset "));
    }
}
