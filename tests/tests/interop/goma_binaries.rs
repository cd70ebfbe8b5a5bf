//! The real `compiler_proxy` and `gomacc`, where GOMA_CLIENT_DIR names a folder with them. No registry has them.

use crate::farm;
use crate::place::Place;
use motefarm_tests::compilers::Compilers;
use motefarm_tests::cxx_project::{CxxProject, Shape, write};
use motefarm_tests::farm::free_port;
use motefarm_tests::goma_build::{job, task};
use motefarm_tests::{TestBridge, wait};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Whoever runs the client where the suite is root's: `gomacc` compiles locally for root, without a word.
const NOBODY: u32 = 65534;
const READY_WITHIN: Duration = Duration::from_secs(75);
/// A cold server may use up a client's attempts; what it was brought stays.
const REPEATS: usize = 8;

/// A client of its own, in a directory of its own.
struct Goma {
    programs: PathBuf,
    /// The user's, with home, logs and the client's sockets.
    dir: PathBuf,
    /// Words of a shell that set the environment (`mote-bridge env`).
    environment: String,
    port: String,
    proxy: Option<Child>,
}

impl Goma {
    /// Starts `compiler_proxy` and waits until it is well; what it says instead is the error.
    fn start(programs: &Path, dir: &Path, environment: &str) -> Result<Self, String> {
        for name in ["", "home", "tmp", "log"] {
            let at = dir.join(name);
            fs::create_dir_all(&at).expect("a directory of the client's");
            fs::set_permissions(&at, fs::Permissions::from_mode(0o700)).expect("it is ours");
            give_away(&at);
        }
        let port = free_port().rsplit(':').next().expect("a port").to_owned();
        let (programs, environment) = (programs.to_owned(), environment.to_owned());
        let mut goma = Self { programs, dir: dir.to_owned(), environment, port, proxy: None };
        let log = fs::File::create(dir.join("compiler_proxy.log")).expect("a log");
        let mut proxy = goma.call(&goma.programs.join("compiler_proxy"));
        proxy.stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        goma.proxy = Some(proxy.spawn().expect("a shell starts"));
        let mut said = String::new();
        let well = wait::maybe(READY_WITHIN, || {
            said = goma.get("/healthz").unwrap_or_default();
            said.ends_with("ok").then_some(())
        });
        well.map(|()| goma).ok_or(said)
    }

    /// A program of the client's environment, as somebody who is not root.
    fn call(&self, program: &Path) -> Command {
        let root = nix::unistd::geteuid().is_root();
        let mut command = Command::new(if root { "setpriv" } else { "/bin/sh" });
        if root {
            command
                .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
                .args(["--clear-groups", "/bin/sh"]);
        }
        command.arg("-c").arg(format!("{}exec \"$0\" \"$@\"", self.environment)).arg(program);
        command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", self.dir.join("home"));
        command.env("GOMA_TMP_DIR", self.dir.join("tmp")).env("GLOG_log_dir", self.dir.join("log"));
        command.env("GOMA_COMPILER_PROXY_PORT", &self.port);
        command
    }

    /// `gomacc ARGS`, in a directory of the user's.
    fn gomacc(&self, cwd: &Path, args: &[impl AsRef<OsStr>]) -> Output {
        let mut call = self.call(&self.programs.join("gomacc"));
        call.args(args).current_dir(cwd).env("PWD", cwd).output().expect("a shell starts")
    }

    /// A page of the client's.
    fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{}", self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut said = Vec::new();
        let _ = stream.read_to_end(&mut said);
        Some(String::from_utf8_lossy(&said).trim().to_owned())
    }

    /// Ends it as `goma_ctl.py` would.
    fn stop(&mut self) -> bool {
        self.get("/quitquitquit");
        let ended = |proxy: &mut Child| proxy.try_wait().ok().flatten();
        self.proxy.as_mut().is_some_and(|proxy| wait::maybe(Duration::from_secs(20), || ended(proxy)).is_some())
    }
}

impl Drop for Goma {
    fn drop(&mut self) {
        if let Some(mut proxy) = self.proxy.take() {
            let _ = proxy.kill();
            let _ = proxy.wait();
        }
    }
}

/// To the client's user.
fn give_away(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
}

#[test]
fn goma_binaries_compile_on_the_farm() {
    let what = "the real compiler_proxy and gomacc";
    let Some(programs) = std::env::var_os("GOMA_CLIENT_DIR").map(PathBuf::from) else {
        return wait::skipped(what, "GOMA_CLIENT_DIR names no folder with them");
    };
    let (farm, place) = (farm().start(), Place::new());
    let tokens = place.0.join("tokens");
    fs::write(&tokens, "client s3cret\n").expect("a file");
    fs::set_permissions(&tokens, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let config = format!("[auth]\nanonymous = \"nobody\"\ntoken_file = {:?}\n", tokens.display().to_string());
    let program = &farm.programs().bridge;
    let profile = farm.profile().display().to_string();
    let bridge = TestBridge::start(program, &farm.dir().join("bridge"), &farm.env(), &["--profile", &profile], &config);

    let shown = place.0.join("authorization");
    fs::write(&shown, "Bearer s3cret\n").expect("a file");
    fs::set_permissions(&shown, fs::Permissions::from_mode(0o600)).expect("it is ours");
    give_away(&shown);
    let env = farm.program(program).args(["env", "--strict", "--bridge", bridge.address(), "--token-file"]);
    let environment = format!("{}\n", env.arg(&shown).ok().out());
    let mut goma = Goma::start(&programs, &place.0.join("user"), &environment)
        .unwrap_or_else(|said| panic!("compiler_proxy is not well: {said:?}"));

    let shape = Shape { libraries: 3, programs: 0, freestanding: 0, demanding: true };
    let project = CxxProject::write(&place.0.join("project"), shape);
    fs::create_dir(project.dir.join("out")).expect("a directory");
    write(&project.dir.join("c_2.c"), "int main(void) { return undeclared; }\n");
    give_away(&project.dir.join("out"));
    for compilers in Compilers::here().0 {
        for unit in project.units() {
            let job = job(task(&project, &compilers, &unit));
            let attempt = || {
                let ran = goma.gomacc(&job.task.cwd, &job.task.args);
                (ran.status.code() == job.exit_code()).then_some(ran)
            };
            let ran = (0..REPEATS).find_map(|_| attempt());
            let ran = ran.unwrap_or_else(|| panic!("{:?} does not end as it does here", job.task.args));
            job.is_what_was_left(&ran);
        }
    }
    assert!(goma.stop(), "compiler_proxy ends when it is told to");
    let asked = farm.program(program).args(["explain", "@", "--json", "--bridge", bridge.address(), "--token-file"]);
    let records = asked.arg(&shown).ok().json();
    assert!(records.as_array().is_some_and(|list| list.len() >= project.units().len()), "{records}");
    bridge.stop();
    farm.finish();
}

/// Stands in for the real ones, so that what drives them is tried: a proxy that is well after a while, and a
/// `gomacc` that says who it is and compiles.
#[test]
fn goma_binaries_are_driven_as_somebody_else_and_in_order() {
    let place = Place::new();
    let programs = place.0.join("programs");
    let script = |name: &str, text: &str| {
        write(&programs.join(name), text);
        fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).expect("it is ours");
    };
    script(
        "compiler_proxy",
        "#!/usr/bin/python3\nimport http.server, os, threading\nasked = 0\n\
         class Page(http.server.BaseHTTPRequestHandler):\n    def do_GET(self):\n        global asked\n        \
         if self.path == '/quitquitquit': threading.Thread(target=server.shutdown).start()\n        asked += 1\n        \
         self.send_response(200)\n        self.end_headers()\n        \
         self.wfile.write(b'ok' if asked > 2 else b'running: failed to connect to backend servers')\n\
         server = http.server.HTTPServer(('127.0.0.1', int(os.environ['GOMA_COMPILER_PROXY_PORT'])), Page)\n\
         server.serve_forever()\n",
    );
    script("gomacc", "#!/bin/sh\necho \"$(id -u) $GOMA_SERVER_HOST $(stat -c %a \"$GOMA_TMP_DIR\")\"\nexec \"$@\"\n");
    if !Path::new("/usr/bin/python3").exists() {
        return wait::skipped("a stand-in for compiler_proxy", "there is no /usr/bin/python3");
    }
    let mut goma =
        Goma::start(&programs, &place.0.join("user"), "export GOMA_SERVER_HOST='127.0.0.1'\n").expect("well");
    let ran = goma.gomacc(&place.0, &["sh", "-c", "exit 3"]);
    let said = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    let uid = if nix::unistd::geteuid().is_root() { NOBODY } else { nix::unistd::geteuid().as_raw() };
    assert_eq!((ran.status.code(), said), (Some(3), format!("{uid} 127.0.0.1 700")));
    assert!(goma.stop());
}
