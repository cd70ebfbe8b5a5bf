//! The Gomote page, command line by command line, with `mote` in place of `gomote`.
//!
//! A tree that looks like Go's stands in for it: `make.bash` "builds" a `go` that is a script. What
//! the page types is typed here, flags, order, environment and all.

use crate::{farm, seconds};
use motefarm_tests::{Mote, Ran, TestFarm, files};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A farm with somebody's shell on it: a Go checkout, a GOPATH, a folder to be in.
struct Desk {
    farm: TestFarm,
    goroot: PathBuf,
    bootstrap: PathBuf,
    gopath: PathBuf,
    here: PathBuf,
}

impl Desk {
    fn new() -> Self {
        let farm = farm().slots(32).start();
        let at = |name: &str| {
            let dir = farm.dir().join(name);
            fs::create_dir(&dir).expect("a directory");
            dir
        };
        let (goroot, bootstrap, gopath, here) = (at("goroot"), at("bootstrap"), at("gopath"), at("here"));
        go_tree(&goroot);
        files::write_script(&bootstrap, "bin/go", "echo go version go1.4 bootstrap");
        files::write(&gopath, "src/golang.org/x/sys/unix/unix.go", "package unix\n");
        files::write(&gopath, "src/golang.org/x/tools/imports/fix.go", "package imports\n");
        Self { farm, goroot, bootstrap, gopath, here }
    }

    /// `mote` as typed, in the folder one is in.
    fn mote(&self, line: &[&str]) -> Mote {
        self.farm.mote(line).cwd(&self.here)
    }

    /// With `GOROOT` set in front, and what Go's users have in their environment.
    fn mote_with_goroot(&self, line: &[&str]) -> Mote {
        self.mote(line).env("GOROOT", &self.goroot).env("GOROOT_BOOTSTRAP", &self.bootstrap)
    }

    fn has(&self, name: &str) -> bool {
        self.here.join(name).exists()
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.here.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// `tar -C DIR -zc PATH`.
    fn tar(dir: &Path, path: &str) -> Vec<u8> {
        let tar = Command::new("tar").arg("-C").arg(dir).args(["--exclude", ".git", "-zc", path]).output();
        let tar = tar.expect("tar can be run");
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        tar.stdout
    }
}

/// What a Go checkout looks like to `push`, `make.bash` and people.
fn go_tree(goroot: &Path) {
    files::write(goroot, "VERSION", "devel page\n");
    files::write(goroot, "src/internal/goversion/goversion.go", "package goversion\n\nconst Version = 27\n");
    files::write(goroot, "src/runtime/proc.go", "package runtime\n");
    files::write(goroot, "src/cmd/go/main.go", "package main\n");
    let make = "set -e\ncd \"$(dirname \"$0\")\"\n\"$WORKDIR/go1.4/bin/go\" version\nmkdir -p ../bin\n\
                cp go.sh.txt ../bin/go\nchmod 755 ../bin/go\necho Installed Go for linux";
    files::write_script(goroot, "src/make.bash", make);
    files::write_script(goroot, "src/make.bat", make);
    // A test that fails at its third run, counted beside it.
    let go = "#!/bin/sh\necho \"go $*\"\necho \"GOPATH=$GOPATH\"\necho \"in $PWD\"\necho \"PATH=$PATH\"\n\
              case \"$*\" in *TestFlaky*)\n  n=$(cat \"$WORKDIR/runs\" 2>/dev/null || echo 0)\n  n=$((n + 1))\n  \
              echo $n > \"$WORKDIR/runs\"\n  if [ $n -ge 3 ]; then echo '--- FAIL: TestFlaky'; \
              echo 'fatal: unexpected return pc'; exit 1; fi;;\nesac\necho ok\n";
    files::write(goroot, "src/go.sh.txt", go);
}

/// Every line of stderr is a message: begins with `#`.
#[track_caller]
fn all_messages(ran: &Ran) {
    let strange: Vec<&str> = ran.stderr.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(strange.is_empty(), "{}: no messages: {strange:?}", ran.shown);
}

#[test]
fn the_basic_usage() {
    let desk = Desk::new();
    let host_type = TestFarm::host_type();
    let types = desk.mote(&["create"]).ok();
    assert!(types.out().contains(&host_type), "{}", types.out());

    let created = desk.mote(&["create", &host_type]).ok();
    let mote = format!("{}-{host_type}-0", desk.farm.user());
    assert_eq!(created.stdout, format!("{mote}\n").into_bytes(), "the name and nothing else");
    all_messages(&created);

    let pushed = desk.mote_with_goroot(&["push", &mote]).ok();
    all_messages(&pushed);
    let listed = desk.mote(&["ls", &mote]).ok().out();
    let names: Vec<&str> = listed.lines().filter_map(|line| line.split('\t').nth(1)).collect();
    assert_eq!(names, ["go/", "go1.4/"], "{listed}");
    // "really a sync": only what changed.
    files::write(&desk.goroot, "src/runtime/proc.go", "package runtime // changed\n");
    let again = desk.mote_with_goroot(&["push", "-dry-run", &mote]).ok();
    assert!(again.stderr.contains("1 "), "one file would be written: {}", again.stderr);
    desk.mote_with_goroot(&["push", &mote]).ok();

    let made = desk.mote(&["run", &mote, "go/src/make.bash"]).ok();
    assert_eq!(made.out(), "go version go1.4 bootstrap\nInstalled Go for linux");
    let tested = desk.mote(&["run", &mote, "go/bin/go", "test", "-run=TestSomething", "-v", "runtime"]).ok();
    let lines = tested.out();
    assert!(lines.starts_with("go test -run=TestSomething -v runtime\n"), "{lines}");
    assert!(lines.contains("/go/bin\n"), "it runs in its own directory: {lines}");
    all_messages(&tested);

    let list = desk.mote(&["list"]).ok().out();
    let columns: Vec<&str> = list.lines().find(|l| l.starts_with(&mote)).expect("it is listed").split('\t').collect();
    assert_eq!(columns.len(), 4, "{list}");
    assert_eq!(columns[1], host_type);
    assert!(columns[3].starts_with("expires in 29m") || columns[3].starts_with("expires in 30m"), "{list}");
    desk.mote(&["ping", &mote]).ok();
    assert!(desk.mote(&["help"]).ok().out().contains("create"));
    assert!(desk.mote(&["help", "run"]).ok().out().contains("-until"));
    desk.mote(&["destroy", &mote]).ok();
    desk.farm.finish();
}

#[test]
fn groups_shorten_command_lines() {
    let desk = Desk::new();
    let host_type = TestFarm::host_type();
    let debug = |mote: Mote| mote.env("GOMOTE_GROUP", "debug");
    let mote = debug(desk.mote(&["create", &host_type])).ok().out();
    debug(desk.mote_with_goroot(&["push"])).ok();
    let made = debug(desk.mote(&["run", "go/src/make.bash"])).ok();
    assert!(made.out().contains("Installed Go"), "{}", made.out());
    // The group is on the farm: the flag finds it without the environment.
    desk.mote(&["-group", "debug", "ping"]).ok();
    desk.mote(&["-group", "nonsense", "ping"]).run().fails(2).says(&["nonsense"]);
    debug(desk.mote(&["destroy", "-destroy-group"])).ok();
    desk.farm.until_gone(&mote, seconds(10));
    assert!(!desk.mote(&["group", "list"]).ok().out().contains("debug"));
    desk.farm.finish();
}

#[test]
fn create_sets_up_and_counts() {
    let desk = Desk::new();
    let host_type = TestFarm::host_type();
    let set_up = desk.mote_with_goroot(&["create", "-setup", &host_type]).ok();
    let mote = set_up.out();
    set_up.says(&["Creating", "Pushing", &mote, "make.bash"]);
    assert!(desk.mote(&["run", &mote, "go/bin/go", "version"]).ok().out().starts_with("go version"));
    let three = desk.mote(&["create", "-count=3", &host_type]).ok();
    let mut names: Vec<String> = three.out().lines().map(str::to_owned).collect();
    names.sort();
    let wanted: Vec<String> = (1..4).map(|n| format!("{}-{host_type}-{n}", desk.farm.user())).collect();
    assert_eq!(names, wanted);
    desk.mote(&["destroy", "--all"]).ok();
    desk.farm.finish();
}

#[test]
fn run_collects_also_when_the_command_fails() {
    let desk = Desk::new();
    let mote = desk.mote(&["create", &TestFarm::host_type()]).ok().out();
    let ran = desk.mote(&["run", "-collect", &mote, "/bin/bash", "-c", "echo hi"]).ok();
    all_messages(&ran);
    assert_eq!(desk.text(&format!("{mote}.stdout")), "hi\n");
    assert!(desk.has(&format!("{mote}.tar.gz")));

    desk.mote_with_goroot(&["push", &mote]).ok();
    desk.mote(&["run", &mote, "go/src/make.bash"]).ok();
    let flaky = ["run", "-collect", "-until", "FAIL", &mote, "go/bin/go", "test", "-run", "TestFlaky", "-count=1000"];
    let until = desk.mote(&flaky).arg("runtime").run();
    until.fails(1).says(&["No match", "Match found"]);
    let text = desk.text(&format!("{mote}.stdout"));
    assert!(text.contains("--- FAIL: TestFlaky"), "{text}");
    assert_eq!(text.matches("go test").count(), 1, "the file holds the last attempt only: {text}");
    let tarball = fs::File::open(desk.here.join(format!("{mote}.tar.gz"))).expect("a tarball");
    let names = Command::new("tar").arg("tz").stdin(tarball).output().expect("tar can be run").stdout;
    let names = String::from_utf8_lossy(&names).into_owned();
    assert!(names.contains("go/bin/go") && names.contains("runs"), "{names}");
    desk.mote(&["destroy", &mote]).ok();
    desk.farm.finish();
}

#[test]
fn a_rare_failure_is_reproduced_on_ten_instances() {
    let desk = Desk::new();
    let debug = |mote: Mote| mote.env("GOMOTE_GROUP", "debug");
    let host_type = TestFarm::host_type();
    let created = debug(desk.mote_with_goroot(&["create", "-setup", "-count=10", &host_type])).ok().out();
    assert_eq!(created.lines().count(), 10, "{created}");
    let line = ["run", "-until=unexpected return pc", "-collect", "go/bin/go", "run", "-run=TestFlaky", "-count=100"];
    debug(desk.mote(&line).arg("runtime")).run().fails(1);
    for name in created.lines() {
        assert!(desk.text(&format!("{name}.stdout")).contains("unexpected return pc"), "{name}");
        assert!(desk.has(&format!("{name}.tar.gz")), "{name}");
    }
    debug(desk.mote(&["destroy", "-destroy-group"])).ok();
    desk.farm.finish();
}

#[test]
fn windows_subrepos_and_android_as_far_as_the_client_goes() {
    let desk = Desk::new();
    let mote = desk.mote(&["create", &TestFarm::host_type()]).ok().out();
    desk.mote_with_goroot(&["push", &mote]).ok();
    let path = "$PATH,$WORKDIR/go/bin";
    desk.mote(&["run", "-path", path, &mote, "go/src/make.bat"]).ok();
    let short = desk.mote(&["run", "-path", path, &mote, "go/bin/go", "test", "cmd/go", "-short"]).ok().out();
    assert!(short.starts_with("go test cmd/go -short\n") && short.contains("/go/bin\nok"), "{short}");

    let tools = Desk::tar(&desk.gopath.join("src"), "golang.org/x/tools");
    desk.mote(&["puttar", "-dir=gopath/src", &mote, "-"]).stdin(tools).ok();
    let line =
        ["run", "-e", "GOPATH=c:/workdir/gopath", &mote, "go/bin/go", "test", "-run=TestFixImportsVendorPackage"];
    let ran = desk.mote(&line).arg("golang.org/x/tools/imports").ok().out();
    assert!(ran.contains("GOPATH=c:/workdir/gopath\n"), "{ran}");
    desk.mote(&["run", &mote, "/usr/bin/test", "-f", "gopath/src/golang.org/x/tools/imports/fix.go"]).ok();

    // A known instance alone means standard input.
    let sys = Desk::tar(&desk.gopath.join("src"), "golang.org/x/sys/unix");
    desk.mote(&["puttar", "-dir=gopath/src", &mote]).stdin(sys).ok();
    let dir = "gopath/src/golang.org/x/sys/unix";
    let line = ["run", "-e", "GOPATH=/tmp/workdir/gopath", "-dir", dir, &mote, "go/bin/go", "test", "-v"];
    let ran = desk.mote(&line).arg("golang.org/x/sys/unix").ok().out();
    assert!(ran.contains(&format!("/{dir}\n")), "{ran}");

    let ran = desk.mote(&["run", "-path", path, &mote, "go/bin/go", "test", "math/big"]).ok().out();
    assert!(ran.contains("go test math/big\n"), "{ran}");
    desk.mote(&["destroy", &mote]).ok();
    desk.farm.finish();
}
