//! Secrets that are planted, and looked for everywhere: by a hostile command in an instance, and in
//! whatever the farm writes.

use crate::{farm, seconds};
use motefarm_tests::{Instance, TestFarm, files, processes, wait};
use std::fs;
use std::path::{Path, PathBuf};

/// Whether the bytes hold any of these.
fn holds<'a>(bytes: &[u8], secrets: &[&'a str]) -> Option<&'a str> {
    secrets.iter().find(|secret| bytes.windows(secret.len()).any(|window| window == secret.as_bytes())).copied()
}

/// Every file below a directory that is not one of the `allowed`.
fn files_below(dir: &Path, allowed: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                _ if allowed.contains(&path) => {}
                Ok(kind) if kind.is_dir() => dirs.push(path),
                Ok(kind) if kind.is_file() => found.push(path),
                _ => {}
            }
        }
    }
    found
}

/// A script that looks wherever a command can for what it must not find, and prints what it found.
/// It is given no secret (it would find itself): only what every one of them begins with.
const HOSTILE: &str = r#"
# What it is given.
env; cat /proc/self/environ /proc/1/environ /proc/1/cmdline 2>/dev/null | tr '\0' '\n'
# Other processes: arguments, environment, memory, open files, roots.
for p in /proc/[0-9]*; do
  tr '\0' ' ' < $p/cmdline; tr '\0' '\n' < $p/environ; ls -l $p/fd; cat $p/maps
  # A pipe that nobody fills would be waited for.
  for there in root cwd; do ls -l $p/$there/; timeout 2 cat $p/$there/etc/hostname $p/$there/*; done
  timeout 2 cat $p/fd/*
done < /dev/null 2>/dev/null | head -c 2000000
# Files: everything that can be read where secrets are kept, and by the names they have.
for d in DIRS; do ls -laR "$d"; timeout 5 find "$d" -type f -exec cat {} +; done 2>/dev/null | head -c 4000000
timeout 20 find / -xdev \( -path /proc -o -path /sys -o -path /usr \) -prune -o -type f \
  \( -name 'profile.toml' -o -name 'farm.db*' -o -name 'ca.key' -o -name 'token' -o -name 'theirs' -o -name '*.toml' \) \
  -exec cat {} + 2>/dev/null | head -c 1000000
# Up and out.
cat ../../../../data/profile.toml ../*/*/theirs ../../../farm.db 2>/dev/null
ln -s / up 2>/dev/null; cat up/DIRS 2>/dev/null
"#;

#[test]
fn a_hostile_command_finds_no_secret() {
    let farm = farm().start();
    let (mote, other) = (farm.create(), farm.create());
    if !farm.has_sandbox(&mote, "what a hostile command finds") {
        farm.destroy(&[&mote, &other]);
        return farm.finish();
    }
    farm.mote(["admin", "user", "add", "bob"]).ok();
    let bobs = farm.mote(["admin", "token", "create", "--user", "bob"]).ok().out();
    let join = farm.mote(["admin", "join-token", "create", "--host-type", "x"]).ok().out();
    let key = fs::read_to_string(farm.data().join("tls/ca.key")).expect("the CA's key");
    let key_line = key.lines().nth(1).expect("a line of it").to_owned();
    files::write(&farm.dir().join("home"), "planted", farm.secret());
    files::write(&other.work(), "theirs", farm.secret());
    let theirs =
        farm.mote(["run", "--detach", "-e", &format!("PLANTED={}", farm.secret()), &other.name, "/bin/sleep", "1000"]);
    let theirs = theirs.ok().out();
    let dirs = [farm.dir().to_owned(), farm.data(), farm.buildlet_data(), other.dir.clone()];
    let dirs: Vec<String> = dirs.iter().map(|dir| dir.display().to_string()).collect();
    let found = farm.run(&mote, &HOSTILE.replace("DIRS", &dirs.join(" "))).patience(seconds(120)).run().stdout;
    assert!(found.windows(4).any(|window| window == b"PATH"), "it looked: {}", String::from_utf8_lossy(&found));
    let admin = farm.profile_value("token");
    let secrets = [farm.secret(), &bobs, &join, &admin, &key_line];
    assert_eq!(holds(&found, &secrets), None, "a hostile command found a secret");

    reaches_no_process(&farm, &mote);
    reaches_no_socket(&farm, &mote);
    farm.mote(["cancel", &theirs]).ok();
    farm.destroy(&[&mote, &other]);
    farm.finish();
}

/// The link to a process's root, among its files in /proc.
const ROOT: &str = "root";

/// Neither by tracing nor through a file of theirs.
fn reaches_no_process(farm: &TestFarm, mote: &Instance) {
    let mut outside: Vec<i32> = farm.coordinator_pid().into_iter().chain(farm.buildlet_pid()).collect();
    outside.extend(farm.others().iter().map(|process| process.pid));
    for pid in outside {
        let script = format!(
            "kill -0 {pid} 2>/dev/null && cat /proc/{pid}/cmdline | grep -a mote && echo reached; \
             head -c 1 /proc/{pid}/mem 2>/dev/null && echo reached; : < /proc/{pid}/{ROOT}/etc/passwd 2>/dev/null && \
             grep -qa mote-coordinator /proc/{pid}/cmdline && echo reached; true"
        );
        let ran = farm.run(mote, &script).run();
        assert!(!ran.out().contains("reached"), "process {pid} is reached: {}", ran.out());
    }
    // Its own keeper, which is the sandbox's first process, keeps nothing of others', and is not to be traced.
    let tracing = "import ctypes,os\nlibc=ctypes.CDLL(None,use_errno=True)\n\
                   print('reached' if libc.ptrace(16,1,0,0)==0 else os.strerror(ctypes.get_errno()))";
    let has_python = farm.run(mote, "command -v python3").run().code() == 0;
    if has_python {
        let ran = farm.mote(["run", "--quiet", &mote.name, "/usr/bin/env", "python3", "-c", tracing]).run();
        if ran.out().contains("reached") {
            // It may trace the keeper of its own instance, which is its own user's: then there must be nothing in it.
            let environ = farm.run(mote, "tr '\\0' '\\n' < /proc/1/environ").run().out();
            assert!(!environ.contains(farm.secret()) && !environ.contains("mote_"), "{environ}");
        }
    } else {
        wait::skipped("tracing from an instance", "no python3 in the sandbox");
    }
}

/// The farm's Unix sockets are not there, abstract or by name, and its port gives nothing away.
fn reaches_no_socket(farm: &TestFarm, mote: &Instance) {
    let sockets = farm.sh(mote, "cat /proc/net/unix 2>/dev/null; true").out();
    let named: Vec<&str> = sockets.lines().filter_map(|line| line.split_whitespace().nth(7)).collect();
    for path in named.iter().filter(|path| path.starts_with('/')) {
        let ran = farm.run(mote, &format!("test -S '{path}' && echo there; true")).run();
        assert!(ran.out().is_empty() || !path.contains("mote"), "the socket {path} can be reached");
    }
    let (host, port) = farm.address().rsplit_once(':').map(|(h, p)| (h.to_owned(), p.to_owned())).expect("an address");
    for request in ["GET /v1/instances", "GET /computeMetadata/v1/project/project-id", "POST /mote.v1.Farm/WhoAmI"] {
        let script = format!(
            "exec 3<>/dev/tcp/{host}/{port} && printf '{request} HTTP/1.1\\r\\nHost: localhost\\r\\nMetadata-Flavor: \
             Google\\r\\nConnection: close\\r\\n\\r\\n' >&3 && cat <&3; true"
        );
        let ran = farm.mote(["run", "--quiet", &mote.name, "/bin/bash", "-c", &script]).run();
        assert_eq!(ran.out(), "", "{request} is answered");
    }
}

#[test]
fn what_the_farm_writes_holds_no_secret() {
    let farm = farm().start();
    let mote = farm.create();
    farm.mote(["admin", "user", "add", "bob"]).ok();
    let bobs = farm.mote(["admin", "token", "create", "--user", "bob"]).ok().out();
    let join = farm.mote(["admin", "join-token", "create", "--host-type", "x"]).ok().out();
    let (bare_token, bare_join) = (&bobs[5..], join.split('.').nth(1).expect("three parts"));
    let environment = format!("in-the-environment-{}", farm.secret());
    // Uses of all of them, good and bad.
    farm.mote_as(&bobs, &["list"]).ok();
    farm.mote_as(&format!("{bobs}x"), &["list"]).run().fails(3);
    let mut running = farm
        .mote([
            "run",
            "--quiet",
            "-e",
            &format!("PLANTED={environment}"),
            &mote.name,
            "/bin/sh",
            "-c",
            "echo up; sleep 3",
        ])
        .spawn();
    running.until_stdout("up", seconds(20));
    // Process lists: what a command's environment holds stands in nobody's arguments but the asker's own.
    let own = running.pid();
    for process in processes::all().iter().filter(|process| process.pid != own) {
        let shown = process.args.join(" ");
        assert_eq!(holds(shown.as_bytes(), &[bare_token, bare_join, &environment]), None, "{process:?}");
    }
    let ran = running.wait().ok();
    let spoken = [ran.stderr, farm.mote_as(&bobs, &["ping", "nobody"]).run().fails(1).stderr];
    farm.mote(["admin", "token", "revoke", "--user", "bob", "--name", "default"]).ok();
    let refused = farm.mote_as(&bobs, &["list"]).run().fails(3).stderr;
    for text in spoken.iter().chain([&refused]) {
        assert_eq!(holds(text.as_bytes(), &[bare_token, bare_join, &environment]), None, "{text}");
    }
    let audit = farm.mote(["admin", "audit", "--limit", "1000"]).ok().out();
    assert!(audit.contains("/bin/sh -c echo up"), "the command is in the audit: {audit}");
    assert_eq!(holds(audit.as_bytes(), &[bare_token, bare_join, &environment]), None, "{audit}");
    // Files: the database, logs, spools, indexes, stores; the harness's own record of what it typed left out.
    let theirs = [farm.dir().join("out"), farm.dir().join("home"), farm.dir().join("cache")];
    for path in files_below(farm.dir(), &theirs) {
        let bytes = fs::read(&path).unwrap_or_default();
        assert_eq!(holds(&bytes, &[bare_token, bare_join]), None, "{}", path.display());
        // The spec of an execution is the one place that must hold its environment: 0600, in the instance.
        let is_spec = path.ends_with("spec") || path.to_string_lossy().contains("farm.db");
        assert!(is_spec || holds(&bytes, &[&environment]).is_none(), "{}", path.display());
    }
    farm.destroy(&[&mote]);
    // Gone with the instance, but for the record that a repeat is compared with.
    for path in files_below(&farm.buildlet_data(), &[]) {
        assert_eq!(holds(&fs::read(&path).unwrap_or_default(), &[&environment]), None, "{}", path.display());
    }
    farm.finish();
}

#[test]
fn secrets_on_disk_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let farm = farm().start();
    wait::until_true("the buildlet has its directory", seconds(20), || farm.buildlet_data().join("id").exists());
    let mode = |path: PathBuf| fs::metadata(&path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(farm.data()), 0o700);
    for name in ["farm.db", "tls/ca.key", "profile.toml"] {
        assert_eq!(mode(farm.data().join(name)), 0o600, "{name}");
    }
    assert_eq!(mode(farm.dir().join("config/farms/local.toml")), 0o600);
    assert_eq!(mode(farm.buildlet_data()), 0o700);
    farm.finish();
}
