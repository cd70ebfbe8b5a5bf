//! What an instance's processes see of the machine.
//!
//! With bubblewrap: the system read-only and without its secrets, the instance's own directories,
//! its own processes, and nothing of the farm or of other instances. The network is the machine's.
//! Without it instances are plain processes, and this says why.

use crate::layout::{instance, sandbox};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// Who commands are inside, whoever the buildlet is outside: a plain user, so that programs that
/// treat root differently (tar and its owners, package managers) do as on a plain user's machine.
const USER: &str = "mote";
const USER_ID: &str = "1000";

/// Files and directories of /etc that nobody inside has business with.
const MASKED_FILES: [&str; 5] = ["/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers"];
const MASKED_DIRS: [&str; 3] = ["/etc/ssh", "/etc/sudoers.d", "/etc/ssl/private"];
/// Parts of the system that are links or directories, as on the machine.
const SYSTEM: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Trials that may be killed before it counts as unknown whether there is a sandbox.
const PROBES: usize = 3;

/// How instances are kept apart here.
#[derive(Debug, Clone)]
pub(crate) enum Sandbox {
    /// By bubblewrap.
    Bubblewrap(Bubblewrap),
    /// Not at all.
    Absent {
        /// Why, for people.
        reason: String,
    },
}

/// See [`Sandbox`].
#[derive(Debug, Clone)]
pub(crate) struct Bubblewrap {
    program: PathBuf,
    /// passwd and group as shown inside.
    passwd: PathBuf,
    group: PathBuf,
    /// The operator's.
    extra: Vec<PathBuf>,
}

impl Sandbox {
    /// Finds out what this machine can do, by trying it. `dir` gets the files shown inside. An error is
    /// what kept it from finding out (a full disk, a probe that was killed): that is no reason to go
    /// without.
    pub(crate) fn probe(dir: &Path, extra: Vec<PathBuf>) -> Result<Self, String> {
        let Some(program) = Bubblewrap::find() else {
            return Ok(Self::Absent { reason: "bubblewrap (bwrap) is not installed".to_owned() });
        };
        let bubblewrap = Bubblewrap::prepare(program, dir, extra)?;
        let mut unclear = String::new();
        for _ in 0..PROBES {
            match bubblewrap.try_out(dir)? {
                Tried::Works => return Ok(Self::Bubblewrap(bubblewrap)),
                Tried::Fails(reason) => return Ok(Self::Absent { reason }),
                Tried::Unclear(what) => unclear = what,
            }
        }
        Err(unclear)
    }

    /// The program and arguments that start `program` as an instance's keeper.
    pub(crate) fn keeper_command(&self, dir: &Path, name: &str, program: &Path) -> Command {
        match self {
            Self::Bubblewrap(bubblewrap) => {
                let mut command = bubblewrap.command(dir, name);
                command.arg("--ro-bind").arg(program).arg(sandbox::KEEPER).args(["--remount-ro", "/", "--"]);
                command.arg(sandbox::KEEPER);
                command
            }
            Self::Absent { .. } => Command::new(program),
        }
    }

    /// Where an instance's directory is, as its commands see it.
    pub(crate) fn seen(&self, dir: &Path, name: &str) -> String {
        match (self, name) {
            (Self::Bubblewrap(_), instance::WORK) => sandbox::WORK.to_owned(),
            (Self::Bubblewrap(_), instance::TMP) => sandbox::TMP.to_owned(),
            (Self::Bubblewrap(_), instance::HOME) => sandbox::HOME.to_owned(),
            _ => dir.join(name).to_string_lossy().into_owned(),
        }
    }

    /// The words of `BuildletDescription`.
    pub(crate) fn describe(&self) -> (String, String) {
        match self {
            Self::Bubblewrap(_) => ("bubblewrap".to_owned(), String::new()),
            Self::Absent { reason } => ("none".to_owned(), reason.clone()),
        }
    }

    pub(crate) fn is_present(&self) -> bool {
        matches!(self, Self::Bubblewrap(_))
    }
}

/// What a trial showed.
enum Tried {
    Works,
    /// It was refused: this machine does not allow it.
    Fails(String),
    /// It did not come to an end of its own.
    Unclear(String),
}

impl Tried {
    fn read(program: &str, status: ExitStatus, said: &str) -> Self {
        let how = format!("{program} does not work here ({status}): {}", said.trim());
        match status.code() {
            Some(0) => Self::Works,
            Some(_) => Self::Fails(how),
            None => Self::Unclear(how),
        }
    }
}

impl Bubblewrap {
    fn find() -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        std::env::split_paths(&path).map(|dir| dir.join("bwrap")).find(|candidate| {
            fs::metadata(candidate).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
    }

    fn prepare(program: PathBuf, dir: &Path, extra: Vec<PathBuf>) -> Result<Self, String> {
        let write = |name: &str, text: String| {
            let path = dir.join(name);
            let temporary = dir.join(format!("{name}.tmp"));
            fs::write(&temporary, text)
                .and_then(|()| fs::rename(&temporary, &path))
                .map(|()| path.clone())
                .map_err(|e| format!("can not write {}: {e}", path.display()))
        };
        fs::create_dir_all(dir).map_err(|e| format!("can not make {}: {e}", dir.display()))?;
        let machine = |path| fs::read_to_string(path).unwrap_or_default();
        let home = sandbox::HOME;
        let user = format!("{USER}:x:{USER_ID}:{USER_ID}:{USER}:{home}:/bin/sh\n");
        Ok(Self {
            program,
            passwd: write("passwd", with_line(&machine("/etc/passwd"), &user))?,
            group: write("group", with_line(&machine("/etc/group"), &format!("{USER}:x:{USER_ID}:\n")))?,
            extra,
        })
    }

    /// Everything but the program to run.
    fn command(&self, dir: &Path, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args([
            "--unshare-user",
            "--unshare-pid",
            "--unshare-ipc",
            "--unshare-uts",
            "--as-pid-1",
            "--new-session",
        ]);
        // Without this bubblewrap started by root would leave it every capability over the sandbox,
        // that of unmounting its masks included.
        command.args(["--cap-drop", "ALL", "--uid", USER_ID, "--gid", USER_ID, "--hostname", &host_name(name)]);
        command.args(["--ro-bind", "/usr", "/usr", "--ro-bind", "/etc", "/etc", "--ro-bind-try", "/opt", "/opt"]);
        for part in SYSTEM {
            match fs::read_link(part) {
                Ok(target) => command.arg("--symlink").arg(target).arg(part),
                Err(_) => command.args(["--ro-bind-try", part, part]),
            };
        }
        command.arg("--ro-bind").arg(&self.passwd).arg("/etc/passwd");
        command.arg("--ro-bind").arg(&self.group).arg("/etc/group");
        for file in MASKED_FILES.into_iter().filter(|file| Path::new(file).exists()) {
            command.args(["--ro-bind", "/dev/null", file]);
        }
        for masked in MASKED_DIRS.into_iter().filter(|masked| Path::new(masked).is_dir()) {
            command.args(["--tmpfs", masked, "--remount-ro", masked]);
        }
        command.args(["--ro-bind-try", "/run/systemd/resolve", "/run/systemd/resolve"]);
        command.args(["--proc", "/proc", "--dev", "/dev"]);
        for (name, shown) in [
            (instance::WORK, sandbox::WORK),
            (instance::TMP, sandbox::TMP),
            (instance::TMP, "/var/tmp"),
            (instance::HOME, sandbox::HOME),
        ] {
            command.arg("--bind").arg(dir.join(name)).arg(shown);
        }
        for extra in &self.extra {
            command.arg("--ro-bind").arg(extra).arg(extra);
        }
        command.args(["--chdir", sandbox::WORK]);
        command
    }

    /// Runs a program in a sandbox like those of instances.
    fn try_out(&self, dir: &Path) -> Result<Tried, String> {
        let place = dir.join("probe");
        for name in [instance::WORK, instance::TMP, instance::HOME] {
            fs::create_dir_all(place.join(name)).map_err(|e| format!("can not make {}: {e}", place.display()))?;
        }
        let program = self.program.display();
        let output = self
            .command(&place, "probe")
            .args(["--remount-ro", "/", "--", "/bin/sh", "-c", "test -d /workdir"])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("can not start {program}: {e}"))?;
        Ok(Tried::read(&program.to_string(), output.status, &String::from_utf8_lossy(&output.stderr)))
    }
}

/// `file` with `line`, and without other lines of the same name or number.
fn with_line(file: &str, line: &str) -> String {
    let key = |line: &str| {
        let mut fields = line.split(':').map(str::to_owned);
        (fields.next(), fields.nth(1))
    };
    let (name, id) = key(line);
    let others = file.lines().filter(|l| key(l).0 != name && key(l).1 != id);
    others.fold(line.to_owned(), |all, line| all + line + "\n")
}

/// The nearest host name: letters, digits and hyphens, at most 63.
fn host_name(name: &str) -> String {
    let mapped: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let trimmed = mapped.trim_matches('-');
    if trimmed.is_empty() { "instance".to_owned() } else { trimmed.to_owned() }
}

/// Kills what carries the instance's id in its environment: for instances without a sandbox whose
/// keeper was killed. Only our own user's processes can be looked into, and only they can be meant.
pub(crate) fn kill_strays(mark: &str) -> io::Result<usize> {
    let mut killed = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Ok(environ) = fs::read(entry.path().join("environ")) else { continue };
        if environ.split(|b| *b == 0).any(|variable| variable == mark.as_bytes()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
            killed += 1;
        }
    }
    Ok(killed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn a_probe_that_is_killed_says_nothing_of_the_machine() {
        let tried = |status| Tried::read("bwrap", std::process::ExitStatus::from_raw(status), "no namespaces\n");
        assert!(matches!(tried(0), Tried::Works));
        assert!(matches!(tried(1 << 8), Tried::Fails(why) if why.ends_with("exit status: 1): no namespaces")));
        assert!(matches!(tried(9), Tried::Unclear(_)));
    }

    #[test]
    fn the_user_inside_replaces_who_had_the_name_or_number() {
        let file = "root:x:0:0::/root:/bin/sh\nalice:x:1000:1000::/home/alice:/bin/sh\nmote:x:7:7::/x:/bin/sh\n";
        let shown = with_line(file, "mote:x:1000:1000:mote:/home/mote:/bin/sh\n");
        assert_eq!(shown, "mote:x:1000:1000:mote:/home/mote:/bin/sh\nroot:x:0:0::/root:/bin/sh\n");
    }

    #[test]
    fn host_names_are_host_names() {
        assert_eq!(host_name("alice-linux_amd64.deb-0"), "alice-linux-amd64-deb-0");
        assert_eq!(host_name("--"), "instance");
        assert_eq!(host_name(&"x".repeat(100)).len(), 63);
    }
}
