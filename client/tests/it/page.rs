//! Every command line of the Gomote page, with `mote` in place of `gomote`.

use crate::fake_farm::FakeFarm;
use crate::mote::{Home, Ran, write_tree};

const MOTE: &str = "alice-linux-amd64-0";

fn sh(home: &Home, script: &str) -> Ran {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_mote")).parent().unwrap();
    // For its environment only.
    let shell = home.command([""; 0]);
    let mut command = std::process::Command::new("bash");
    for (name, value) in shell.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let script = format!("set -e -o pipefail; {script}");
    command.env("PATH", format!("{}:{path}", program.display())).env("MOTE", MOTE).args(["-c", &script]);
    Ran::from(command.current_dir(home.path("")).stdin(std::process::Stdio::null()).output().unwrap())
}

fn goroot(home: &Home) {
    write_tree(
        &home.path("goroot"),
        &[("src/cmd/go/main.go", "package main"), ("VERSION", "go1.26"), ("src/make.bash", "#!/bin/bash\n")],
    );
}

#[test]
fn one_instance() {
    let farm = FakeFarm::start();
    let home = farm.home();
    goroot(&home);
    let steps: &[(&str, Option<&str>)] = &[
        ("mote create | grep linux-amd64", None),
        ("mote create linux-amd64", Some("alice-linux-amd64-0\n")),
        ("GOROOT=$PWD/goroot mote push alice-linux-amd64-0", Some("")),
        ("mote ls alice-linux-amd64-0 | sed -n 1p", Some("drwxr-xr-x\tgo/\n")),
        ("mote run alice-linux-amd64-0 go/src/make.bash", Some("Building Go toolchain\n")),
        ("mote list", Some("alice-linux-amd64-0\tlinux-amd64\tbox\texpires in 30m0s\n")),
        ("mote help", None),
        ("mote help run", None),
        ("mote ping alice-linux-amd64-0", Some("")),
        ("mote run -path '$PATH,$WORKDIR/go/bin' $MOTE go/src/make.bat", Some("Building Go toolchain\n")),
        ("mote run -dir x -e A=1 $MOTE /lines 1", Some("line 0\n")),
        (
            "mkdir -p golang.org/x/tools && tar --exclude .git -zc golang.org/x/tools | mote puttar -dir=gopath/src $MOTE -",
            Some(""),
        ),
        ("tar -zc golang.org/x/tools | mote puttar -dir=gopath/src $MOTE", Some("")),
        ("export MOTE=`mote create linux-amd64`; echo $MOTE", Some("alice-linux-amd64-1\n")),
        ("mote destroy $MOTE", Some("")),
    ];
    for (script, expected) in steps {
        let ran = sh(&home, script);
        assert_eq!(ran.code, Some(0), "{script}: {ran:?}");
        if let Some(expected) = expected {
            assert_eq!(ran.text(), *expected, "{script}: {ran:?}");
        }
    }
    let state = farm.state();
    assert_eq!(state.tars.len(), 2);
    assert!(
        state
            .tars
            .iter()
            .all(|(instance, dir, tar)| instance == MOTE && dir == "gopath/src" && tar[..2] == [0x1f, 0x8b])
    );
    assert!(state.execs.values().any(|exec| exec.spec.path == ["$PATH", "$WORKDIR/go/bin"]));
}

#[test]
fn arguments_of_the_command_are_its_own() {
    let farm = FakeFarm::start();
    let home = farm.home();
    for (script, program, args, env, dir) in [
        (
            "mote run -detach $MOTE go/bin/go test -run=\"TestSomething\" -v runtime",
            "go/bin/go",
            &["test", "-run=TestSomething", "-v", "runtime"][..],
            &[][..],
            "",
        ),
        (
            "mote run -detach -path '$PATH,$WORKDIR/go/bin' $MOTE go/bin/go.exe test cmd/go -short",
            "go/bin/go.exe",
            &["test", "cmd/go", "-short"],
            &[],
            "",
        ),
        (
            "mote run -detach -e 'GOPATH=c:/workdir/gopath' $MOTE go/bin/go test -run=TestFix golang.org/x/tools/imports",
            "go/bin/go",
            &["test", "-run=TestFix", "golang.org/x/tools/imports"],
            &["GOPATH=c:/workdir/gopath"],
            "",
        ),
        (
            "mote run -detach -e 'GOPATH=/tmp/workdir/gopath' -dir 'gopath/src/golang.org/x/sys/unix' $MOTE go/bin/go test -v golang.org/x/sys/unix",
            "go/bin/go",
            &["test", "-v", "golang.org/x/sys/unix"],
            &["GOPATH=/tmp/workdir/gopath"],
            "gopath/src/golang.org/x/sys/unix",
        ),
        (
            "mote run -detach -path '$PATH,$WORKDIR/go/bin' $MOTE go/bin/go test math/big",
            "go/bin/go",
            &["test", "math/big"],
            &[],
            "",
        ),
    ] {
        let ran = sh(&home, script);
        assert_eq!(ran.code, Some(0), "{script}: {ran:?}");
        let state = farm.state();
        let spec = &state.execs[ran.text().trim()].spec;
        assert_eq!((spec.program.as_str(), spec.dir.as_str()), (program, dir), "{script}");
        assert_eq!(
            (spec.args.as_slice(), spec.env.as_slice()),
            (
                args.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>().as_slice(),
                env.iter().map(|a| (*a).to_owned()).collect::<Vec<_>>().as_slice(),
            )
        );
    }
}

#[test]
fn collecting_and_looping() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let ran = sh(&home, "mote run -collect $MOTE /lines 1 && cat $MOTE.stdout && ls $MOTE.tar.gz");
    assert_eq!(ran.text(), "line 0\nline 0\nalice-linux-amd64-0.tar.gz\n", "{ran:?}");
    assert!(ran.stderr.starts_with("# Writing output to alice-linux-amd64-0.stdout...\n"), "{ran:?}");
    let ran = sh(&home, "mote run -collect -until 'FAIL' $MOTE /flaky 2 || true; cat $MOTE.stdout; ls $MOTE.tar.gz");
    assert!(ran.text().ends_with("run 2\n--- FAIL: TestFlaky\nalice-linux-amd64-0.tar.gz\n"), "{ran:?}");
}

#[test]
fn setting_up_and_groups() {
    let farm = FakeFarm::start();
    let home = farm.home();
    goroot(&home);
    let ran = sh(&home, "GOROOT=$PWD/goroot mote create -setup linux-amd64");
    assert_eq!((ran.code, ran.text()), (Some(0), "alice-linux-amd64-0\n"), "{ran:?}");
    let root = std::fs::canonicalize(home.path("goroot")).unwrap();
    for line in [
        "# Creating alice-linux-amd64-0...\n".to_owned(),
        format!("# Pushing {} to alice-linux-amd64-0\n", root.display()),
        "# Running make.bash on alice-linux-amd64-0...\n".to_owned(),
        "# Streaming results from \"alice-linux-amd64-0\" to \"".to_owned(),
        "# Wrote results from \"alice-linux-amd64-0\" to \"".to_owned(),
        "Building Go toolchain\n".to_owned(),
    ] {
        assert!(ran.stderr.contains(&line), "{line}: {ran:?}");
    }
    let farm = FakeFarm::start();
    let home = farm.home();
    goroot(&home);
    let ran = sh(
        &home,
        "export GOMOTE_GROUP=debug; GOROOT=$PWD/goroot mote create -setup -count=3 linux-amd64; \
         GOROOT=$PWD/goroot mote push; mote run go/src/make.bash; \
         mote run -until='unexpected|FAIL' -collect /flaky 2 || test $? = 1; ls *.tar.gz | wc -l; \
         mote destroy -destroy-group",
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.text().starts_with("alice-linux-amd64-0\nalice-linux-amd64-1\nalice-linux-amd64-2\n"), "{ran:?}");
    assert!(ran.text().contains("alice-linux-amd64-2: Building Go toolchain\n"), "{ran:?}");
    assert!(ran.text().contains("\n3\n"), "{ran:?}");
    assert_eq!(farm.state().destroyed.len(), 3);
    assert!(farm.state().groups.is_empty());
}
