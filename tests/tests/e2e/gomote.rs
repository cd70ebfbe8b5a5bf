//! The Go project's own `gomote`, unmodified, against a farm: every command, and what it prints.
//!
//! The program is `MOTE_TEST_GOMOTE`, or `gomote` on PATH or in `~/go/bin`, or is installed with `go`
//! at the version named here. Without any of them this says SKIPPED; [`wire`] speaks the same
//! protocol without it.

mod wire;

use crate::{farm, seconds};
use flate2::read::MultiGzDecoder;
use motefarm_tests::{Instance, Mote, TestFarm, files, processes, wait};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What is installed if nothing is there: what all this was tried with.
const MODULE: &str = "golang.org/x/build/cmd/gomote@v0.0.0-20260918145456-c0ee0fbd16a3";

/// The Go client, found or installed once.
fn program() -> Option<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match FOUND.get_or_init(|| find().map_or_else(install, Ok)) {
        Ok(path) => Some(path.clone()),
        Err(why) => {
            wait::skipped("the Go client gomote", why);
            None
        }
    }
}

fn find() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("MOTE_TEST_GOMOTE") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(std::env::var_os("HOME").map(|home| Path::new(&home).join("go/bin")));
    dirs.push(installed());
    dirs.into_iter().map(|dir| dir.join("gomote")).find(|program| program.is_file())
}

fn installed() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("gomote-c0ee0fbd16a3")
}

fn install() -> Result<PathBuf, String> {
    let ran = Command::new("go").args(["install", MODULE]).env("GOBIN", installed()).output();
    let ran = ran.map_err(|error| format!("neither gomote nor go is there ({error})"))?;
    if ran.status.success() {
        Ok(installed().join("gomote"))
    } else {
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        Err(format!("go could not install {MODULE}: {}", said.lines().last().unwrap_or_default()))
    }
}

/// The Go client of one farm, with a directory that it works in.
struct Go {
    farm: TestFarm,
    program: PathBuf,
    cwd: PathBuf,
}

impl Go {
    fn of(farm: TestFarm, program: PathBuf) -> Self {
        let cwd = farm.fresh("cwd");
        fs::create_dir(&cwd).expect("a directory to work in");
        Self { farm, program, cwd }
    }

    /// A call with nothing set but what `docs/gomote.md` says.
    fn call(&self, args: &[&str]) -> Mote {
        let address = self.farm.address();
        let (_, port) = address.rsplit_once(':').expect("an address has a port");
        let call = self.farm.program(&self.program).cwd(&self.cwd).env("GCE_METADATA_HOST", &address);
        call.arg(format!("-server=localhost:{port}")).args(args)
    }

    /// Its stdout.
    #[track_caller]
    fn out(&self, args: &[&str]) -> String {
        self.call(args).ok().out()
    }

    /// Leases an instance with it.
    #[track_caller]
    fn create(&self) -> Instance {
        let name = self.out(&["create", &TestFarm::host_type()]);
        self.known(&name)
    }

    /// What the farm knows of an instance.
    #[track_caller]
    fn known(&self, name: &str) -> Instance {
        let listed = self.farm.list().into_iter().find(|instance| instance["name"] == name);
        let listed = listed.unwrap_or_else(|| panic!("{name:?} is not there"));
        self.farm.instance(&listed, &self.farm.buildlet_data())
    }

    /// What a shell script writes on an instance.
    #[track_caller]
    fn sh(&self, name: &str, script: &str) -> String {
        self.out(&["run", name, "/bin/sh", "-c", script])
    }

    #[track_caller]
    fn destroy(&self, name: &str) {
        self.call(&["destroy", name]).ok().says(&[&format!("# Destroying {name}")]);
        self.farm.until_gone(name, seconds(20));
    }
}

/// Files of a `.tar.gz`, by name.
#[track_caller]
fn unpacked(archive: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(File::open(archive).expect("an archive")));
    let mut found = BTreeMap::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").display().to_string();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("content");
        if entry.header().entry_type().is_file() {
            found.insert(name, content);
        }
    }
    found
}

/// A `.tar.gz` of these files.
fn packed(content: &[(&str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for (name, text) in content {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o640);
        archive.append_data(&mut header, name, text.as_bytes()).expect("memory");
    }
    archive.into_inner().and_then(|gzip| gzip.finish()).expect("memory")
}

#[test]
fn instances_come_are_listed_and_go() {
    let Some(program) = program() else { return };
    let go = Go::of(farm().start(), program);
    let host_type = TestFarm::host_type();
    assert_eq!(go.out(&["create", "-list"]), host_type);
    let mote = go.create();
    assert_eq!(mote.name, format!("{}-{host_type}-0", go.farm.user()));
    let listed = go.out(&["list"]);
    let fields: Vec<&str> = listed.split('\t').collect();
    assert_eq!(&fields[..3], [&mote.name, &host_type, &host_type], "{listed}");
    assert!(fields[3].starts_with("expires in 29m5") || fields[3].starts_with("expires in 30m"), "{listed}");

    go.call(&["ping", &mote.name]).ok().says(&[&format!("# {}: alive", mote.name)]);
    go.call(&["ping", "no-such-instance"]).ok().says(&["unable to ping instance", "NotFound"]);
    go.call(&["create", "plan9-vax"]).run().fails(1).says(&["NotFound", &host_type]);
    go.call(&["destroy", "no-such-instance"]).run().fails(1).says(&["NotFound"]);
    go.call(&["ssh", &mote.name]).run().fails(1);

    // What somebody else of the farm has is not there for them, and no word tells that it is.
    let admin = |args: &[&str]| go.farm.mote(args).ok();
    admin(&["admin", "user", "add", "bob"]);
    let token = admin(&["admin", "token", "create", "--user", "bob", "--name", "t"]).out();
    wire::foreign_names_are_unknown(&go.farm, &token, &mote.name);

    go.destroy(&mote.name);
    assert_eq!(go.out(&["list"]), "");
    go.farm.finish();
}

/// A tree that has what the client looks for in GOROOT.
fn goroot(farm: &TestFarm) -> PathBuf {
    let dir = farm.fresh("goroot");
    files::write(&dir, "src/internal/goversion/goversion.go", "package goversion\n\nconst Version = 99\n");
    files::write(&dir, "src/hello.txt", "hello\n");
    files::write(&dir, "src/deep/er/gone.txt", "soon gone\n");
    files::write_script(&dir, "src/make.bash", "echo made in $PWD; exit 0");
    files::write(&dir, "big", vec![7; 3_000_000]);
    files::write(&dir, "pkg/left-out", "x");
    dir
}

#[test]
fn a_go_tree_is_pushed_listed_changed_and_built() {
    let Some(program) = program() else { return };
    let go = Go::of(farm().start(), program);
    let tree = goroot(&go.farm);
    let mote = go.create();
    let push = || go.call(&["push", &mote.name]).env("GOROOT", &tree).ok();
    let first = push().says(&["# Pushing GOROOT", "sending a fake one", "# Uploading"]);
    let listed = go.out(&["ls", "-R", "-d", &mote.name, "go"]);
    let line = |name: &str| {
        let found = listed.lines().find(|line| line.split('\t').nth(1) == Some(name));
        found.unwrap_or_else(|| panic!("no {name} in:\n{listed}\n{}", first.stderr)).split('\t').collect::<Vec<_>>()
    };
    assert_eq!(line("src/deep/"), ["drwxr-xr-x", "src/deep/"]);
    let hello = line("src/hello.txt");
    assert_eq!((hello[0], hello[2]), ("-rw-r--r--", "6"));
    // `printf 'hello\n' | sha1sum`.
    assert_eq!(hello[4], "f572d396fae9206628714fb2ce00f72e94f2258f");
    assert!(hello[3].len() == 20 && hello[3].ends_with('Z'), "{hello:?}");
    assert_eq!(line("src/make.bash")[0], "-rwxr-xr-x");
    assert_eq!(fs::read_to_string(mote.work().join("go/VERSION")).expect("a version"), "go1.99-devel_gomote");
    assert!(!mote.work().join("go/pkg").exists() && !listed.contains("left-out"));

    // By the listing the client knows that there is nothing to do.
    assert!(!push().stderr.contains("Uploading"));
    files::write(&tree, "src/hello.txt", "HELLO\n");
    fs::remove_file(tree.join("src/deep/er/gone.txt")).expect("a file");
    push().says(&["Deleting remote files", "gone.txt", "digest is", "# Uploading 1 new/changed files"]);
    assert_eq!(fs::read_to_string(mote.work().join("go/src/hello.txt")).expect("it is there"), "HELLO\n");
    assert!(!mote.work().join("go/src/deep/er/gone.txt").exists());
    assert_eq!(go.out(&["run", &mote.name, "go/src/make.bash"]), format!("made in {}/go/src", mote.work_dir));

    // Skipped, not recursive, a directory that is not there.
    assert!(!go.out(&["ls", "-R", "-skip", "src/deep", &mote.name, "go"]).contains("deep"));
    assert_eq!(go.out(&["ls", &mote.name]), "drwxr-xr-x\tgo/");
    go.call(&["ls", &mote.name, "nowhere"]).run().fails(1).says(&["nowhere"]);
    go.destroy(&mote.name);

    // The same in one.
    let set_up = go.call(&["create", "-setup", &TestFarm::host_type()]).env("GOROOT", &tree).ok();
    let name = set_up.out().lines().next().expect("a name").to_owned();
    assert!(set_up.out().contains("made in"), "{}", set_up.out());
    go.known(&name);
    go.destroy(&name);
    go.farm.finish();
}

#[test]
fn files_and_archives_go_in_and_come_out() {
    let Some(program) = program() else { return };
    let go = Go::of(farm().start(), program);
    let mote = go.create();
    let name = mote.name.as_str();
    files::write_script(&go.cwd, "tool", "echo tool");
    go.call(&["put", name, "tool"]).ok();
    go.call(&["put", name, "tool", "bin/deep/renamed"]).ok();
    go.call(&["put", "-mode=640", name, "-", "from-stdin"]).stdin("from stdin\n").ok();
    go.call(&["put", name, "-", "empty"]).stdin("").ok();
    let modes = go.sh(name, "stat -c %a tool bin/deep/renamed from-stdin empty; cat from-stdin");
    assert_eq!(modes, "755\n755\n640\n666\nfrom stdin");
    assert_eq!(go.out(&["run", name, "bin/deep/renamed"]), "tool");
    go.call(&["put", name, "tool", "../outside"]).run().fails(1).says(&["FailedPrecondition"]);

    let archive = packed(&[("a/one.txt", "one"), ("two.txt", "two")]);
    fs::File::create(go.cwd.join("some.tar.gz")).and_then(|mut file| file.write_all(&archive)).expect("an archive");
    go.call(&["puttar", "-dir=from/file", name, "some.tar.gz"]).ok();
    go.call(&["puttar", name, "-"]).stdin(archive).ok();
    assert_eq!(go.sh(name, "cat from/file/a/one.txt from/file/two.txt a/one.txt two.txt"), "onetwoonetwo");
    go.call(&["puttar", name, "-"]).stdin("no archive").run().fails(1).says(&["FailedPrecondition"]);
    // A URL is the operator's to allow, and so is the one a commit becomes.
    go.call(&["puttar", name, "http://127.0.0.1:9/x.tar.gz"]).run().fails(1).says(&["PermissionDenied"]);
    go.call(&["puttar", name, "0123abc"]).run().fails(1).says(&["PermissionDenied"]);

    let fetched = go.cwd.join(format!("{name}.tar.gz"));
    go.call(&["gettar", "-dir=from/file", name]).ok();
    assert_eq!(
        unpacked(&fetched),
        BTreeMap::from([("a/one.txt".into(), b"one".into()), ("two.txt".into(), b"two".into())])
    );
    go.call(&["gettar", name]).ok();
    assert!(unpacked(&fetched).contains_key("from/file/a/one.txt"), "no directory is all of it");
    go.call(&["gettar", "-dir=nowhere", name]).run().fails(1).says(&["nowhere"]);

    go.call(&["rm", name, "from", "two.txt", "never-was"]).ok();
    assert_eq!(go.sh(name, "ls"), "a\nbin\nempty\nfrom-stdin\ntool");
    go.call(&["rm", name, "."]).ok();
    assert_eq!(go.sh(name, "ls -A"), "");
    go.destroy(name);
    assert!(fs::read_dir(go.farm.data().join("uploads")).expect("uploads").count() > 0, "kept for a while");
    go.farm.kill_coordinator();
    go.farm.start_coordinator();
    assert_eq!(fs::read_dir(go.farm.data().join("uploads")).expect("uploads").count(), 0, "swept at start");
    go.farm.finish();
}

#[test]
fn commands_run_as_the_flags_say_and_their_failure_is_told_from_ours() {
    let Some(program) = program() else { return };
    let go = Go::of(farm().start(), program);
    let mote = go.create();
    let name = mote.name.as_str();
    let ran = go.call(&["run", "-e=A=1", "-e", "B=x=y", name, "/bin/sh", "-c", "echo $A $B; echo err >&2; pwd"]).ok();
    assert_eq!(ran.out(), format!("1 x=y\nerr\n{}", mote.work_dir), "both outputs in order, in the work directory");
    assert_eq!(go.sh(name, "echo $GO_DISABLE_OUTBOUND_NETWORK"), "false");
    let firewall = go.out(&["run", "-firewall", name, "/bin/sh", "-c", "echo $GO_DISABLE_OUTBOUND_NETWORK"]);
    assert_eq!(firewall, "true");
    let path = go.out(&["run", "-path=$WORKDIR/bin,$PATH", name, "/bin/sh", "-c", "echo $PATH"]);
    assert!(path.starts_with(&format!("{}/bin:", mote.work_dir)) && path.ends_with("/bin"), "{path}");
    go.sh(name, "mkdir -p sub/dir");
    assert_eq!(go.out(&["run", "-dir=sub/dir", name, "/bin/pwd"]), format!("{}/sub/dir", mote.work_dir));
    assert_eq!(go.out(&["run", "-system", name, "pwd"]), mote.work_dir);
    assert!(go.out(&["run", "-debug", name, "/bin/true"]).contains("/bin/true"));
    assert_eq!(go.out(&["run", "-builderenv=other", name, "/bin/echo", "-until", "-x"]), "-until -x");

    let failed = ["Error trying to execute", "code = Aborted desc = command execution failed: exit status 3"];
    let ran = go.call(&["run", name, "/bin/sh", "-c", "echo before; exit 3"]).run().fails(1).says(&["commands failed"]);
    assert!(failed.iter().all(|text| ran.out().contains(text)) && ran.out().starts_with("before\n"), "{}", ran.out());
    let killed = go.call(&["run", name, "/bin/sh", "-c", "kill -9 $$"]).run().fails(1);
    assert!(killed.out().contains("signal: killed"), "{}", killed.out());
    let missing = go.call(&["run", name, "no-such-command"]).run().fails(1);
    assert!(missing.out().contains("unable to execute command"), "{}", missing.out());
    go.call(&["run", "no-such-instance", "/bin/true"]).run().fails(1).says(&["NotFound"]);

    // Until a match, over failures, and all of it collected.
    let flaky = "n=$(cat n 2>/dev/null || echo 0); echo $((n+1)) >n; [ $n = 2 ] && echo FAIL; exit 1";
    let ran = go.call(&["run", "-until=FAIL", "-collect", name, "/bin/sh", "-c", flaky]).run().fails(1);
    ran.says(&["No match found", "# Match found"]);
    let kept = fs::read(go.cwd.join(format!("{name}.stdout"))).expect("output is kept");
    assert!(String::from_utf8_lossy(&kept).contains("FAIL"));
    assert_eq!(unpacked(&go.cwd.join(format!("{name}.tar.gz")))["n"], b"3\n");

    // More output than is acknowledged at once, or fits into a message.
    let big = go.call(&["run", name, "/bin/sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x"]).ok();
    assert!(big.stdout.len() == 20_000_000 && big.stdout.iter().all(|byte| *byte == b'x'));
    go.destroy(name);
    go.farm.finish();
}

/// Whether a `sleep` of this many seconds runs; the number is its mark.
fn sleeps(mark: &str) -> bool {
    !processes::with_arg(mark).into_iter().all(|process| process.args[0] != "sleep")
}

#[test]
fn a_client_that_leaves_ends_its_command_and_a_coordinator_that_leaves_does_not() {
    let Some(program) = program() else { return };
    let go = Go::of(farm().start(), program);
    let mote = go.create();
    let mark = |n: u32| format!("{}{n}", 1_000_000 + std::process::id());
    let start = |n| {
        let running = go.call(&["run", &mote.name, "/bin/sh", "-c", &format!("sleep {} & wait", mark(n))]).spawn();
        wait::until_true("the command runs", seconds(20), || sleeps(&mark(n)));
        running
    };
    let interrupted = start(1);
    interrupted.signal(Signal::SIGINT);
    wait::until_true("it is ended with its client", seconds(20), || !sleeps(&mark(1)));
    drop(interrupted.wait());
    let killed = start(2);
    killed.kill9();
    wait::until_true("it is ended with its client", seconds(20), || !sleeps(&mark(2)));

    // The farm's own restart is no wish of the user's.
    let cut = start(3);
    assert!(go.farm.stop_coordinator().success());
    cut.wait().fails(1).says(&["Unavailable"]);
    go.farm.start_coordinator();
    wait::until_true("the instance is back", seconds(20), || go.farm.state(&mote.name).as_deref() == Some("ready"));
    assert!(sleeps(&mark(3)), "the command goes on");
    go.destroy(&mote.name);
    wait::until_true("nothing outlives the instance", seconds(20), || !sleeps(&mark(3)));
    go.farm.finish();
}

#[test]
fn who_waits_is_told_and_who_gives_up_is_forgotten() {
    let Some(program) = program() else { return };
    let go = Go::of(farm().slots(1).start(), program);
    let first = go.create();
    let host_type = TestFarm::host_type();
    let mut second = go.call(&["create", &host_type]).spawn();
    let waiting = |n: usize| go.farm.list().iter().filter(|instance| instance["state"] == "queued").count() == n;
    wait::until_true("a request waits", seconds(20), || waiting(1));
    let mut third = go.call(&["create", &host_type]).spawn();
    wait::until_true("two requests wait", seconds(20), || waiting(2));
    second.until_stderr(&format!("# still creating {host_type} (1) after"), seconds(20));
    third.until_stderr("1 requests ahead of you", seconds(20));
    assert!(second.stderr().contains("; 0 requests ahead of you"), "{}", second.stderr());
    second.signal(Signal::SIGINT);
    wait::until_true("the request is given up", seconds(20), || waiting(1));
    drop(second.wait());
    go.destroy(&first.name);
    let third = third.wait().ok().out();
    go.known(&third);
    go.destroy(&third);
    go.farm.finish();
}

#[test]
fn groups_of_the_client_work_on_all_their_members() {
    let Some(program) = program() else { return };
    let go = Go::of(farm().start(), program);
    let host_type = TestFarm::host_type();
    let created = go.out(&["create", "-count=2", "-new-group=pair", &host_type]);
    let mut names: Vec<&str> = created.lines().collect();
    names.sort_unstable();
    names.iter().for_each(|name| drop(go.known(name)));
    assert_eq!(names.len(), 2);
    let listed = go.out(&["group", "list"]);
    assert!(listed.contains("pair") && names.iter().all(|name| listed.contains(name)), "{listed}");
    assert!(go.out(&["list"]).contains("(pair)"));

    go.call(&["-group=pair", "put", "-", "here"]).stdin("here\n").ok();
    go.call(&["-group=pair", "puttar", "-"]).stdin(packed(&[("there", "there\n")])).ok();
    // What fails on one does not stop the other.
    let script = "cat here there; case $MOTE_INSTANCE_NAME in *-0) exit 1;; esac; echo over";
    let ran = go.call(&["-group=pair", "run", "-collect", "/bin/sh", "-c", script]).run().fails(1);
    ran.says(&["one or more commands failed"]);
    for name in &names {
        let kept = fs::read_to_string(go.cwd.join(format!("{name}.stdout"))).expect("output is kept");
        assert!(kept.starts_with("here\nthere\n"), "{kept}");
        assert!(kept.contains(if name.ends_with("-0") { "exit status 1" } else { "over" }), "{kept}");
        assert_eq!(unpacked(&go.cwd.join(format!("{name}.tar.gz")))["there"], b"there\n");
    }
    let listed = go.call(&["ls"]).env("GOMOTE_GROUP", "pair").ok().out();
    assert_eq!(listed.matches("\there\t").count(), 2, "{listed}");
    go.call(&["-group=pair", "rm", "here"]).ok();
    go.call(&["-group=pair", "gettar", "-dir=."]).ok();
    go.call(&["-group=pair", "ping"]).ok().says(&names.iter().map(|name| &**name).collect::<Vec<_>>());
    go.call(&["-group=pair", "group", "remove", names[1]]).ok();
    go.call(&["-group=pair", "group", "add", names[1]]).ok();
    go.call(&["-group=pair", "destroy", "-destroy-group"]).ok();
    names.iter().for_each(|name| go.farm.until_gone(name, seconds(20)));
    assert!(!go.out(&["group", "list"]).contains("pair"));
    go.farm.finish();
}
