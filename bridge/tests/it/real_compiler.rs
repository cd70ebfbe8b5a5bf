//! Real compilers: what comes through the bridge is byte for byte what they leave on this machine.

use crate::fake_reapi::worker::Work;
use crate::fake_reapi::{FakeReapi, Rules};
use crate::goma_client::{Client, Compiled, Failure, Task, inputs};
use crate::harness::{Bridge, apart};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The compilers of this machine that can be tried; what is missing is said aloud.
pub(crate) fn compilers() -> Vec<PathBuf> {
    let here = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|ran| ran.status.success());
    if !here("bwrap") {
        say("SKIPPED: real compilers need bubblewrap");
        return Vec::new();
    }
    let sandbox = Command::new("bwrap").args(["--unshare-all", "--ro-bind", "/", "/", "true"]).status();
    if !sandbox.is_ok_and(|status| status.success()) {
        say("SKIPPED: bubblewrap may not make a sandbox here");
        return Vec::new();
    }
    let (found, lacking): (Vec<_>, Vec<_>) =
        ["/usr/bin/gcc", "/usr/bin/clang"].into_iter().partition(|name| here(name));
    lacking.iter().for_each(|name| say(&format!("SKIPPED: there is no {name}")));
    found.into_iter().map(PathBuf::from).collect()
}

#[expect(clippy::print_stderr, reason = "what was not tried must be seen")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

/// A project of some size: sources that include one another's headers and the system's.
pub(crate) fn project(dir: &Path, units: usize) {
    fs::create_dir_all(dir.join("include/deep")).unwrap();
    fs::create_dir_all(dir.join("out")).unwrap();
    for n in 0..units {
        let header = format!("#pragma once\n#include <stddef.h>\nsize_t unit_{n}(const char *text);\n");
        fs::write(dir.join(format!("include/deep/unit_{n}.h")), header).unwrap();
        let others: String = (0..units).step_by(3).map(|m| format!("#include \"deep/../deep/unit_{m}.h\"\n")).collect();
        let source = format!(
            "#include <stdio.h>\n#include <string.h>\n{others}#include \"deep/unit_{n}.h\"\n\
             size_t unit_{n}(const char *text) {{ printf(\"{n} %s\\n\", text); return strlen(text) + {n}; }}\n"
        );
        fs::write(dir.join(format!("unit_{n}.c")), source).unwrap();
    }
}

pub(crate) fn task(compiler: &Path, cwd: &Path, n: usize) -> Task {
    let (source, stem) = (format!("../unit_{n}.c"), format!("unit_{n}"));
    let args = [
        compiler.display().to_string(),
        "-c".into(),
        "-g".into(),
        "-O1".into(),
        "-gsplit-dwarf".into(),
        "-I../include".into(),
        source,
        "-MMD".into(),
        "-MF".into(),
        format!("{stem}.d"),
        "-o".into(),
        format!("{stem}.o"),
    ];
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let toolchain = inputs::toolchain(cwd, compiler);
    // The client sends the compiler's own file as one of the inputs.
    let mut inputs = inputs::read_by(&words, cwd);
    inputs.extend(toolchain.iter().filter(|tool| tool.kind.is_err()).map(|tool| tool.path.clone()));
    Task {
        cwd: cwd.to_owned(),
        inputs,
        args: args.to_vec(),
        env: vec![format!("PWD={}", cwd.display())],
        outputs: ["o", "dwo", "d"].map(|end| format!("{stem}.{end}")).to_vec(),
        toolchain,
        ..Task::default()
    }
}

/// Compiles, again if a cold server used up the client's attempts: a compiler alone is more than one of them
/// may bring, and what was brought stays.
fn compile(client: &mut Client, task: &Task) -> Compiled {
    for _ in 0..4 {
        match client.compile(task) {
            Err(Failure::Exhausted(_)) => {}
            done => return done.unwrap(),
        }
    }
    client.compile(task).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_those_of_this_machine_cold_warm_and_after_a_kill() {
    const UNITS: usize = 12;
    for compiler in compilers() {
        let dir = tempfile::tempdir().unwrap();
        project(dir.path(), UNITS);
        let cwd = dir.path().join("out");
        let local: Vec<(Task, Vec<Vec<u8>>)> = (0..UNITS)
            .map(|n| {
                let task = task(&compiler, &cwd, n);
                let ran = Command::new(&task.args[0]).args(&task.args[1..]).current_dir(&cwd).output().unwrap();
                assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
                let contents = task.outputs.iter().map(|name| fs::read(cwd.join(name)).unwrap()).collect();
                (task, contents)
            })
            .collect();
        let fake = FakeReapi::start(Rules::nativelink(), Work::Chroot).await;
        let state = tempfile::tempdir().unwrap();
        let mut bridge = Bridge::start(state.path(), &fake, "").await;
        for round in ["cold", "warm", "after a kill"] {
            let mut client = bridge.client();
            client.files_are_new = round == "cold";
            for (task, contents) in local.clone() {
                let (compiled, back) = apart(move || (compile(&mut client, &task), (client, task))).await;
                let task = back.1;
                client = back.0;
                assert_eq!(compiled.exit_status, 0, "{}", compiled.complaints());
                for (name, content) in task.outputs.iter().zip(&contents) {
                    assert!(compiled.output(name) == content, "{round}: {name} differs");
                }
                assert_eq!(compiled.cache_hit, i64::from(round != "cold"), "{round}");
            }
            drop(client);
            if round == "warm" {
                bridge.kill().await;
                bridge = Bridge::start(state.path(), &fake, "").await;
            }
        }
        assert_eq!(fake.state().ran.len(), UNITS);
        assert!(fake.state().written.values().all(|times| *times == 1), "each content is sent once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compile_error_comes_back_as_the_compiler_said_it() {
    for compiler in compilers() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("out")).unwrap();
        fs::write(dir.path().join("unit_0.c"), "int main(void) { return undeclared; }\n").unwrap();
        let cwd = dir.path().join("out");
        let task = task(&compiler, &cwd, 0);
        let local = Command::new(&task.args[0]).args(&task.args[1..]).current_dir(&cwd).output().unwrap();
        let fake = FakeReapi::start(Rules::buildbarn(), Work::Chroot).await;
        let state = tempfile::tempdir().unwrap();
        let bridge = Bridge::start(state.path(), &fake, "").await;
        let mut client = bridge.client();
        let compiled = apart(move || client.compile(&task).unwrap()).await;
        assert_eq!(compiled.exit_status, 1);
        // Quotes of a message depend on the language, which the client does not send.
        let plain = |text: &[u8]| String::from_utf8_lossy(text).replace(['\u{2018}', '\u{2019}'], "'");
        assert_eq!(plain(&compiled.stderr), plain(&local.stderr));
    }
}
