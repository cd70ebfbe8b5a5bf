//! What operators install: units, their user and folders, example configurations, container files
//! and the page about them hold together, and with the programs as they are. The harness lends its
//! folders and programs; no farm of its own is started, so none is finished.

mod containers;

use crate::farm;
use motefarm_net::tls::Authority;
use motefarm_net::token::ApiToken;
use motefarm_tests::{TestFarm, files, wait};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const BUILDLETS: [&str; 3] = ["mote-buildlet", "mote-buildlet-join", "mote-buildlet-listen"];
/// Most exposure, in the tenths of `systemd-analyze security`, that a unit may have.
const EXPOSURE: [(&str, u32); 5] = [
    ("mote-coordinator", 15),
    ("mote-bridge", 15),
    ("mote-buildlet", 40),
    ("mote-buildlet-join", 40),
    ("mote-buildlet-listen", 40),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn names(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(dir)).unwrap_or_else(|e| panic!("{dir}: {e}")).flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    assert!(!names.is_empty(), "nothing in {dir}");
    names
}

/// Every value a unit gives `key`, in order.
fn values(unit: &str, key: &str) -> Vec<String> {
    let unit = text(&format!("deploy/systemd/{unit}.service"));
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(name, _)| *name == key).map(|(_, value)| value.to_owned()).collect()
}

#[track_caller]
fn value(unit: &str, key: &str) -> String {
    match &values(unit, key)[..] {
        [one] => one.clone(),
        others => panic!("{unit}: {key} is given {} times", others.len()),
    }
}

/// A folder with the programs under their own names.
fn programs(farm: &TestFarm) -> PathBuf {
    let dir = farm.fresh("programs");
    fs::create_dir(&dir).expect("a folder");
    let programs = farm.programs();
    for (program, name) in [
        (&programs.coordinator, "mote-coordinator"),
        (&programs.buildlet, "mote-buildlet"),
        (&programs.mote, "mote"),
        (&programs.bridge, "mote-bridge"),
    ] {
        symlink(program, dir.join(name)).expect("a link");
    }
    dir
}

/// Runs something of the machine's; `None`, said aloud, if it is not there.
fn tool(what: &str, program: &str, args: &[&str]) -> Option<Output> {
    match Command::new(program).args(args).env("SYSTEMD_PAGER", "").env("SYSTEMD_COLORS", "0").output() {
        Ok(output) => Some(output),
        Err(error) => {
            wait::skipped(what, &format!("{program}: {error}"));
            None
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Asserts that one of our programs knows every word of a command line: what it does not know it
/// refuses before it comes to `--help`.
#[track_caller]
fn is_understood(programs: &Path, line: &str) {
    let words: Vec<&str> = line.split_whitespace().map(|word| word.trim_matches('\'')).collect();
    let (program, args) = words.split_first().expect("a program");
    let name = Path::new(program).file_name().expect("a name");
    let output = Command::new(programs.join(name)).args(args).arg("--help").output().expect("a program of ours");
    assert!(output.status.success(), "{line}: {}", said(&output));
}

/// The command line of a unit as systemd would give it, with the variables of its example.
fn command_line(unit: &str) -> String {
    let mut line = value(unit, "ExecStart");
    let example = match unit {
        "mote-buildlet" => "deploy/examples/buildlet.env",
        "mote-buildlet-join" => "deploy/examples/join.env",
        "mote-buildlet-listen" => "deploy/examples/listen.env",
        _ => return line,
    };
    for (name, value) in variables(example) {
        line = line.replace(&format!("${{{name}}}"), &value).replace(&format!("${name}"), &value);
    }
    for given in ["STATE_DIRECTORY", "RUNTIME_DIRECTORY", "CREDENTIALS_DIRECTORY"] {
        line = line.replace(&format!("${{{given}}}"), "/given");
    }
    assert!(!line.contains('$'), "{unit} uses what nobody sets: {line}");
    line
}

/// An environment file, each of whose variables has a comment.
fn variables(path: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut commented = false;
    for line in text(path).lines() {
        if line.starts_with('#') {
            commented = true;
            continue;
        }
        let (name, value) = line.split_once('=').unwrap_or_else(|| panic!("{path}: {line:?} is no variable"));
        assert!(commented, "{path}: {name} has no comment");
        assert!(!value.contains(['"', '\'', '\\']), "{path}: {name} is quoted, which shells and systemd read apart");
        commented = false;
        found.push((name.to_owned(), value.to_owned()));
    }
    found
}

#[test]
fn units_are_what_systemd_takes() {
    let farm = farm().prepare();
    let programs = programs(&farm);
    let dir = farm.fresh("units");
    fs::create_dir(&dir).expect("a folder");
    let mut paths = Vec::new();
    for name in names("deploy/systemd") {
        let unit = text(&format!("deploy/systemd/{name}"));
        // Programs that are not installed would be complained of.
        let unit = unit.replace("/usr/bin/mote", &format!("{}/mote", programs.display()));
        paths.push(files::write(&dir, &name, unit).display().to_string());
    }
    let mut args = vec!["verify", "--man=no"];
    args.extend(paths.iter().map(String::as_str));
    let Some(output) = tool("units are verified", "systemd-analyze", &args) else { return };
    let said_of_ours: Vec<String> =
        said(&output).lines().filter(|line| line.contains("mote")).map(str::to_owned).collect();
    assert!(output.status.success() && said_of_ours.is_empty(), "{}", said(&output));
    for (unit, most) in EXPOSURE {
        let (path, most) = (dir.join(format!("{unit}.service")).display().to_string(), most.to_string());
        let args = ["security", "--offline=yes", "--threshold", &most, &path];
        let Some(output) = tool("exposure", "systemd-analyze", &args) else { break };
        if said(&output).contains("unrecognized option") {
            wait::skipped("exposure", "this systemd-analyze can not judge a file");
            break;
        }
        let verdict = said(&output);
        let verdict = verdict.lines().last().unwrap_or_default();
        assert!(output.status.success(), "{unit} is exposed more than {most} tenths: {verdict}");
    }
}

#[test]
fn units_say_what_the_programs_understand_and_fit_one_another() {
    let farm = farm().prepare();
    let programs = programs(&farm);
    let user = value("mote-coordinator", "User");
    let data = format!("/var/lib/{}", value("mote-coordinator", "StateDirectory"));
    for unit in BUILDLETS.into_iter().chain(["mote-coordinator", "mote-bridge"]) {
        is_understood(&programs, &command_line(unit));
        // The local socket answers its own user, and both programs say when they serve.
        assert_eq!((value(unit, "User"), value(unit, "Type")), (user.clone(), "notify".to_owned()), "{unit}");
        assert_eq!(value(unit, "NoNewPrivileges"), "yes", "{unit}");
        assert_eq!(value(unit, "CapabilityBoundingSet"), "", "{unit}");
        assert_eq!(value(unit, "ProtectSystem"), "strict", "{unit}");
        assert_eq!(value(unit, "Restart"), "always", "{unit}");
    }
    // Commands in instances are the farm's system user on loopback: no cleartext for them.
    for unit in ["mote-coordinator", "mote-bridge"] {
        assert_eq!(value(unit, "ProcSubset"), "pid", "{unit}");
        assert_eq!(values(unit, "KillMode"), Vec::<String>::new(), "{unit}");
    }
    for unit in BUILDLETS {
        assert_eq!(value(unit, "KillMode"), "process", "{unit}: instances outlive a restart");
        assert_eq!(value(unit, "OOMPolicy"), "continue", "{unit}: or one greedy command ends them all");
        assert_eq!(value(unit, "Requires"), "mote-instances@%N.service");
        assert!(value(unit, "InaccessiblePaths").contains("/etc/motefarm"), "{unit}: /etc is shown to commands");
        // bubblewrap does not work with any of these.
        for harmful in
            ["RestrictNamespaces", "ProtectKernelTunables", "ProtectKernelLogs", "ProtectHostname", "ProcSubset"]
        {
            assert_eq!(values(unit, harmful), Vec::<String>::new(), "{unit}: {harmful}");
        }
    }
    let local = value("mote-buildlet", "ExecStart");
    assert!(local.contains(&format!("--farm-store {data}/cas ")), "{local}");
    let socket = format!("/run/{}/buildlet.sock", value("mote-buildlet", "RuntimeDirectory"));
    for example in ["deploy/examples/one-machine.toml", "deploy/examples/farm.toml"] {
        let config: toml::Table = text(example).parse().expect("TOML");
        assert_eq!(config["data_dir"].as_str(), Some(&*data), "{example}");
        assert_eq!(config["local"]["socket"].as_str(), Some(&*socket), "{example}");
        assert_eq!(config["local"]["start"].as_bool(), Some(false), "{example}: the coordinator has no children");
    }
}

#[test]
fn the_user_and_the_folders_are_made() {
    let (users, folders) = ("deploy/sysusers.d/motefarm.conf", "deploy/tmpfiles.d/motefarm.conf");
    let user = value("mote-coordinator", "User");
    let lines = |path: &str| -> Vec<Vec<String>> {
        let text = text(path);
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    assert_eq!(lines(users).iter().map(|l| (&*l[0], &*l[1])).collect::<Vec<_>>(), [("u", &*user)]);
    let made: Vec<(String, String)> = lines(folders)
        .into_iter()
        .map(|line| {
            assert_eq!((line[0].as_str(), line.len()), ("d", 7), "{line:?}");
            (line[1].clone(), format!("{} {}", line[2], line[3]))
        })
        .collect();
    let store = format!("/var/lib/{}/cas", value("mote-coordinator", "StateDirectory"));
    assert!(made.contains(&(store.clone(), format!("0700 {user}"))), "{made:?}");

    if !nix::unistd::geteuid().is_root() {
        return wait::skipped("sysusers and tmpfiles by systemd", "only root can give files away");
    }
    let farm = farm().prepare();
    let place = farm.fresh("root");
    fs::create_dir_all(place.join("etc")).expect("a folder");
    let root_arg = format!("--root={}", place.display());
    let steps = [
        ("systemd-sysusers", vec![root_arg.clone(), root().join(users).display().to_string()]),
        ("systemd-tmpfiles", vec![root_arg, "--create".to_owned(), root().join(folders).display().to_string()]),
    ];
    for (program, args) in steps {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let Some(output) = tool("users and folders", program, &args) else { return };
        assert!(output.status.success(), "{program}: {}", said(&output));
    }
    let passwd = fs::read_to_string(place.join("etc/passwd")).expect("a passwd");
    assert!(passwd.lines().any(|line| line.starts_with(&format!("{user}:"))), "{passwd}");
    let mode = fs::metadata(place.join(&store[1..])).expect("the store's folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn example_configurations_are_taken_and_every_key_is_explained() {
    let farm = farm().prepare();
    let dir = farm.fresh("secrets");
    fs::create_dir(&dir).expect("a folder");
    Authority::load_or_create(&dir).expect("a CA");
    let token = files::write(&dir, "token", ApiToken::generate().secret());
    for path in ["deploy/examples/one-machine.toml", "deploy/examples/farm.toml", "deploy/containers/coordinator.toml"]
    {
        let example = text(path);
        every_key_is_explained(path, &example);
        let here = example
            .replace("/etc/motefarm/big.token", &token.display().to_string())
            .replace("/etc/motefarm/big.ca.pem", &dir.join("ca.pem").display().to_string());
        let file = files::write(&dir, "coordinator.toml", here);
        is_taken(&farm, &farm.programs().coordinator, path, &file);
    }
    let example = text("deploy/examples/bridge.toml");
    every_key_is_explained("deploy/examples/bridge.toml", &example);
    let tokens = files::write(&dir, "tokens", "alice 0123456789abcdef0123456789abcdef\n");
    for file in [&token, &tokens] {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).expect("ours");
    }
    let here = example
        .replace("/etc/motefarm/backend.ca.pem", &dir.join("ca.pem").display().to_string())
        .replace("/etc/motefarm/backend.token", &token.display().to_string())
        .replace("/etc/motefarm/goma.tokens", &tokens.display().to_string());
    let file = files::write(&dir, "bridge.toml", here);
    is_taken(&farm, &farm.programs().bridge, "deploy/examples/bridge.toml", &file);
}

#[track_caller]
fn every_key_is_explained(path: &str, example: &str) {
    let mut explained = false;
    for line in example.lines() {
        match line.trim() {
            "" => explained = false,
            comment if comment.starts_with('#') => explained = true,
            table if table.starts_with('[') => {}
            key => {
                assert!(explained, "{path}: {key} has no comment of its own");
                explained = false;
            }
        }
    }
}

/// Asserts that a program takes an example and says where it would listen.
#[track_caller]
fn is_taken(farm: &TestFarm, program: &Path, path: &str, file: &Path) {
    let ran = farm.program(program).arg("check-config").arg("--config").arg(file).ok();
    let example = text(path);
    let listen = example.lines().find_map(|line| line.strip_prefix("listen = ")).expect("where it listens");
    assert!(ran.out().contains(listen.trim_matches('"')), "{path}: {}", ran.out());
}

/// The fenced parts of the page: what is between the fences, with the line before them.
fn fences(page: &str) -> Vec<(String, String, String)> {
    let (mut found, mut before, mut open) = (Vec::new(), String::new(), None::<(String, String)>);
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => open = Some((language.to_owned(), String::new())),
            (Some(_), Some(_)) => {
                let (language, body) = open.take().expect("it is open");
                found.push((std::mem::take(&mut before), language, body));
            }
            (Some((_, body)), None) => body.push_str(&format!("{line}\n")),
            (None, None) => line.clone_into(&mut before),
        }
    }
    assert!(open.is_none(), "a fence is left open");
    found
}

#[test]
fn the_page_about_installing_says_what_is_there() {
    let farm = farm().prepare();
    let programs = programs(&farm);
    let page = text("docs/install.md");
    let makefile = text("Makefile");
    let units: BTreeSet<String> = names("deploy/systemd").into_iter().collect();
    let (mut ours, mut quoted) = (0, 0);
    for (before, language, body) in fences(&page) {
        if let Some(path) = before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")) {
            // Part of a file, without its comments.
            let bare: String = text(path).lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect();
            assert!(bare.contains(&body), "{path} does not say\n{body}");
            quoted += 1;
            continue;
        }
        for line in body.lines().filter(|_| language == "sh") {
            let line = line.strip_prefix("sudo ").unwrap_or(line);
            let line = match line.split_once(" coordinator mote ") {
                Some((_, call)) => format!("mote {}", call.split(" >").next().unwrap_or(call)),
                None => line.to_owned(),
            };
            let words: Vec<&str> = line.split_whitespace().collect();
            match words[0] {
                "mote" | "mote-bridge" | "mote-coordinator" | "mote-buildlet" => {
                    is_understood(&programs, &line);
                    ours += 1;
                }
                "make" => assert!(makefile.contains(&format!("\n{}:", words[1])), "no recipe {}", words[1]),
                "systemctl" => {
                    for word in words.iter().filter(|word| word.starts_with("mote-")) {
                        let template = word.split_once('@').map_or((*word).to_owned(), |(name, _)| format!("{name}@"));
                        assert!(units.contains(&format!("{template}.service")), "{line}: there is no unit {word}");
                    }
                }
                _ => {}
            }
        }
    }
    assert!(ours >= 8 && quoted >= 4, "{ours} commands and {quoted} quotations were recognised");
    for path in page.split(['`', ' ', '\n']).filter(|word| word.starts_with("deploy/") && !word.ends_with(".token")) {
        assert!(root().join(path).exists(), "there is no {path}");
    }
    for name in page.split(|c: char| c.is_whitespace() || c == '`').filter_map(|w| w.split_once("/examples/")) {
        assert!(root().join("deploy/examples").join(name.1).exists(), "there is no example {}", name.1);
    }
}

#[test]
fn install_puts_everything_where_systemd_looks() {
    let farm = farm().prepare();
    let (programs, dest) = (programs(&farm), farm.fresh("dest"));
    let args = |verb: &str| {
        let mut args = vec!["-s".to_owned(), "-C".to_owned(), root().display().to_string(), verb.to_owned()];
        args.push(format!("PROGRAMS={}", programs.display()));
        args.push(format!("DESTDIR={}", dest.display()));
        args
    };
    for verb in ["install", "uninstall"] {
        let args = args(verb);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let Some(output) = tool("make install", "make", &args) else { return };
        assert!(output.status.success(), "make {verb}: {}", said(&output));
        let local = dest.join("usr/local");
        for name in names("deploy/systemd") {
            let path = local.join("lib/systemd/system").join(&name);
            assert_eq!(path.is_file(), verb == "install", "{name} after {verb}");
            if path.is_file() {
                let unit = fs::read_to_string(path).expect("a unit");
                assert!(!unit.contains("/usr/bin/mote"), "{name} starts another program than was installed");
            }
        }
        let programs = ["bin/mote", "bin/mote-bridge", "bin/mote-coordinator", "bin/mote-buildlet"];
        for path in programs.into_iter().chain(["share/doc/motefarm/goma.md", "share/doc/motefarm/examples/farm.toml"])
        {
            assert_eq!(local.join(path).is_file(), verb == "install", "{path} after {verb}");
        }
    }
    assert!(!dest.join("etc").exists(), "configuration is the operator's");
}

/// The units as they are, under a systemd that is PID 1 of a namespace: commands survive restarts of
/// buildlets, nothing survives the end of their instances, other machines join and are dialled.
#[test]
fn under_a_real_systemd_commands_survive_restarts() {
    let farm = farm().prepare();
    let programs = programs(&farm);
    let script = root().join("scripts/systemd-test.sh");
    let output = Command::new(script).arg(&programs).output().expect("the script starts");
    match output.status.code() {
        Some(0) => {}
        Some(77) => wait::skipped("the units under a real systemd", said(&output).trim()),
        code => panic!("{code:?}: {}", said(&output)),
    }
}
