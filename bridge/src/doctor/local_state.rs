//! What the client leaves on this machine: its own directory, with http_proxy's files in it, and its logs.

use super::catalogue::{Kind, Severity};
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
    pub http_proxy: Option<HttpProxyFiles>,
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

/// `http_proxy.pid`, `.host` and `.log`.
#[derive(Debug, Clone, Default)]
pub struct HttpProxyFiles {
    /// Whether the process of that number is there.
    pub is_alive: bool,
    /// For which server it was started, in goma_ctl.py's words.
    pub host: String,
    /// The end of its log.
    pub log: String,
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
        http_proxy: dirs.iter().find_map(|dir| http_proxy(dir)),
        logs: logs.into_iter().filter_map(|path| tail(&path).map(|text| (path, text))).collect(),
    }
}

fn http_proxy(dir: &Path) -> Option<HttpProxyFiles> {
    let host = tail(&dir.join("http_proxy.host"))?;
    let pid = tail(&dir.join("http_proxy.pid")).and_then(|text| text.trim().parse::<i32>().ok());
    let is_alive =
        pid.and_then(rustix::process::Pid::from_raw).is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok());
    Some(HttpProxyFiles { is_alive, host, log: tail(&dir.join("http_proxy.log")).unwrap_or_default() })
}

fn tail(path: &Path) -> Option<String> {
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

/// What is to be said of it; http_proxy is judged with its port (`neighbours`).
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

/// Judges http_proxy by its files and by what its port says. `is_wanted`: what `GOMACTL_USE_PROXY` says, if it
/// says anything; `answered`: the first line that came from its port, if something listens there.
pub fn judge_http_proxy(
    files: Option<&HttpProxyFiles>,
    port: u16,
    answered: Option<&str>,
    is_wanted: Option<bool>,
) -> Option<Finding> {
    let fix = "export GOMACTL_USE_PROXY=false; goma_ctl.py ensure_stop";
    let good = answered.is_some_and(|line| line.starts_with("HTTP/1.1 200") || line.starts_with("HTTP/1.0 200"));
    match (answered, is_wanted) {
        // Whatever stands there does its work: our relay, or http_proxy before a server with TLS on 443.
        (Some(_), _) if good => None,
        (Some(line), wanted) => {
            let mut problem = format!("on port {port} listens an http_proxy, and answers a ping with {line:?}");
            if let Some(files) = files {
                let lost = files.host.split_whitespace().next().and_then(|host| host.rsplit_once(':'));
                if let Some((host, lost)) = lost.filter(|(_, port)| *port != "443") {
                    problem += &format!(
                        "; it was started for {host}:{lost} and calls https://{host}:443: port {lost} is lost"
                    );
                }
                if let Some(line) = files.log.lines().rfind(|line| line.contains("proxy error")) {
                    problem += &format!("; its log says {:?}", line.trim());
                }
            }
            let severity = if wanted == Some(false) { Severity::Doubtful } else { Severity::Wrong };
            Some(Finding::new(Kind::HttpProxy, problem, fix).but(severity))
        }
        (None, Some(false)) => {
            let alive = files.is_some_and(|files| files.is_alive);
            alive.then(|| Finding::new(Kind::HttpProxy, "the http_proxy of an earlier start still runs", fix))
        }
        (None, wanted) => {
            let is = if wanted.is_some() { "is true" } else { "is not false" };
            Some(Finding::new(Kind::HttpProxy, format!("GOMACTL_USE_PROXY {is}"), fix))
        }
    }
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

    #[test]
    fn http_proxy_is_judged_by_what_it_does() {
        let files = HttpProxyFiles {
            is_alive: true,
            host: "localhost:5050 (via http_proxy)".into(),
            log: "x\n2023/08/18 15:28:14 http: proxy error: tls: first record does not look like a TLS handshake\n"
                .into(),
        };
        let judge = |files: Option<&HttpProxyFiles>, answered, wanted| {
            judge_http_proxy(files, 19080, answered, wanted).map(|finding| (finding.severity, finding.problem))
        };
        let bad = Some("HTTP/1.1 502 Bad Gateway");
        let (severity, problem) = judge(Some(&files), bad, None).unwrap();
        assert_eq!(severity, Severity::Wrong);
        assert!(problem.contains("port 5050 is lost") && problem.contains("first record"), "{problem}");
        assert_eq!(judge(None, bad, Some(false)).unwrap().0, Severity::Doubtful);
        assert_eq!(judge(None, Some("HTTP/1.1 200 OK"), Some(true)), None);
        assert_eq!(judge(None, None, None).unwrap().0, Severity::Doubtful);
        assert_eq!(judge(None, None, Some(false)), None);
        assert!(judge(Some(&files), None, Some(false)).is_some());
    }
}
