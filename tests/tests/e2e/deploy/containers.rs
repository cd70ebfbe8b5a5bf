//! Container files and the compose file, held against a few rules and against the tree. Nothing is
//! built here: what an engine does with them is not known to this test.

use super::{is_understood, names, programs, root, text};
use crate::farm;
use std::collections::BTreeMap;

/// Where each program listens by default, if an image of it is to expose anything.
const PORTS: [(&str, &[&str]); 4] =
    [("coordinator", &["8119"]), ("buildlet", &["5936"]), ("bridge", &["5050"]), ("mote", &[])];

/// A container file's instructions: continued lines joined, comments left out.
fn instructions(path: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open = String::new();
    for line in text(path).lines().filter(|line| !line.trim_start().starts_with('#')) {
        match line.strip_suffix('\\') {
            Some(part) => open.push_str(part),
            None => {
                open.push_str(line);
                let whole = std::mem::take(&mut open);
                if let Some((word, rest)) = whole.trim().split_once(char::is_whitespace) {
                    found.push((word.to_owned(), rest.trim().to_owned()));
                } else {
                    assert!(whole.trim().is_empty(), "{path}: {whole:?} is no instruction");
                }
            }
        }
    }
    assert!(open.is_empty(), "{path}: the last line is continued");
    found
}

fn of<'a>(all: &'a [(String, String)], word: &str) -> Vec<&'a str> {
    all.iter().filter(|(w, _)| w == word).map(|(_, rest)| rest.as_str()).collect()
}

/// The words of an instruction in its JSON form, which no shell touches.
fn words(path: &str, json: &str) -> Vec<String> {
    serde_json::from_str(json).unwrap_or_else(|e| panic!("{path}: {json:?} is not in JSON form: {e}"))
}

#[test]
fn container_files_keep_to_the_rules() {
    let farm = farm().prepare();
    let programs = programs(&farm);
    let manifest = text("Cargo.toml");
    let rust = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a toolchain");
    for (program, ports) in PORTS {
        let path = format!("deploy/containers/{program}.Containerfile");
        let all = instructions(&path);
        const KNOWN: [&str; 13] = [
            "FROM",
            "WORKDIR",
            "COPY",
            "RUN",
            "USER",
            "ENV",
            "VOLUME",
            "EXPOSE",
            "HEALTHCHECK",
            "ENTRYPOINT",
            "CMD",
            "ARG",
            "LABEL",
        ];
        for (word, rest) in &all {
            assert!(KNOWN.contains(&word.as_str()), "{path}: {word} {rest}");
        }
        // Two stages, both of a tag; the last one without compilers.
        let from = of(&all, "FROM");
        assert_eq!(from.len(), 2, "{path}");
        for image in &from {
            let image = image.split_whitespace().next().expect("an image");
            let tag = image.rsplit('/').next().and_then(|name| name.split_once(':')).map(|(_, tag)| tag);
            assert!(tag.is_some_and(|tag| tag != "latest"), "{path}: {image} is not pinned by a tag");
        }
        assert!(from[0].contains(&format!("rust:{}-", rust.trim_matches('"'))), "{path}: {}", from[0]);
        assert!(from[1].contains("debian:") && from[1].ends_with("-slim"), "{path}: {}", from[1]);

        let last = all.iter().rposition(|(word, _)| word == "FROM").expect("a stage");
        let stage = &all[last..];
        let user = of(stage, "USER");
        assert!(user.len() == 1 && !["root", "0"].contains(&user[0]), "{path}: runs as {user:?}");
        assert!(
            of(stage, "RUN").iter().any(|run| run.contains(&format!("useradd --system --uid 10001 --gid {}", user[0])))
        );
        assert_eq!(of(stage, "EXPOSE"), ports, "{path}");
        assert_eq!(of(stage, "HEALTHCHECK").len(), 1, "{path}: health is either asked for or said to be none");
        for run in of(stage, "RUN").iter().filter(|run| run.contains("apt-get install")) {
            assert!(run.contains("--no-install-recommends") && run.contains("rm -rf /var/lib/apt/lists/*"), "{path}");
        }

        let built = of(&all[..last], "RUN").join("\n");
        assert!(built.contains("cargo build --release --locked"), "{path}: {built}");
        for copy in of(&all, "COPY") {
            let words: Vec<&str> = copy.split_whitespace().collect();
            let sources = &words[..words.len() - 1];
            if sources[0] == "--from=build" {
                for made in &sources[1..] {
                    let name = made.strip_prefix("/src/target/release/").expect("what was built");
                    assert!(programs.join(name).exists(), "{path}: there is no program {name}");
                    let package = name.strip_prefix("mote-").unwrap_or("client");
                    assert!(built.contains(&format!("-p motefarm-{package}")), "{path}: {name} is not built");
                }
            } else {
                for source in sources {
                    assert!(root().join(source).exists(), "{path}: there is no {source} to copy");
                }
            }
        }

        let entry = words(&path, of(stage, "ENTRYPOINT")[0]);
        let command = of(stage, "CMD").first().map_or_else(Vec::new, |json| words(&path, json));
        let ours = entry.iter().position(|word| word.starts_with("/usr/bin/mote")).expect("a program of ours");
        is_understood(&programs, &[&entry[ours..], &command[..]].concat().join(" "));
        if let Some(check) = of(stage, "HEALTHCHECK")[0].split_once("CMD ") {
            let check = words(&path, check.1);
            let url = format!("https://localhost:{}/healthz", ports[0]);
            assert_eq!(check.last(), Some(&url), "{path}");
            assert!(
                of(stage, "RUN").iter().any(|run| run.contains(&format!(" {} ", check[0]))),
                "{path}: no {}",
                check[0]
            );
        }
    }
    let files = names("deploy/containers");
    let count = files.iter().filter(|name| name.ends_with(".Containerfile")).count();
    assert_eq!(count, PORTS.len(), "a container file without rules: {files:?}");
    let ignored = text(".dockerignore");
    for name in ["/target", "/.git", "**/*.token"] {
        assert!(ignored.lines().any(|line| line == name), "{name} gets into images");
    }
}

/// The lines of YAML that the compose file is written in: maps and lists of plain scalars, by two
/// spaces. Every leaf by its path; what is anything else is refused.
fn leaves(yaml: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut path: Vec<String> = Vec::new();
    for line in yaml.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')) {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        let plain = |value: &str| {
            let inner = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
            let strange = ['"', '\'', '&', '*', '{', '}', '[', ']', '|', '>', '#', '\t'];
            assert!(!inner.contains(strange) && !inner.contains(": "), "beyond what this reads: {line:?}");
            inner.to_owned()
        };
        assert!(indent % 2 == 0 && indent / 2 <= path.len(), "odd indentation: {line:?}");
        path.truncate(indent / 2);
        if let Some(item) = content.strip_prefix("- ") {
            found.entry(path.join(".")).or_default().push(plain(item));
        } else if let Some(key) = content.strip_suffix(':') {
            path.push(plain(key));
            assert!(found.insert(path.join("."), Vec::new()).is_none(), "twice: {line:?}");
        } else {
            let (key, value) = content.split_once(": ").unwrap_or_else(|| panic!("neither key nor item: {line:?}"));
            path.push(plain(key));
            assert!(found.insert(path.join("."), vec![plain(value)]).is_none(), "twice: {line:?}");
        }
    }
    found
}

#[test]
fn the_compose_file_fits_the_container_files() {
    let farm = farm().prepare();
    let programs = programs(&farm);
    let compose = leaves(&text("deploy/containers/compose.yaml"));
    let one = |path: &str| match compose.get(path).map(Vec::as_slice) {
        Some([value]) => value.clone(),
        other => panic!("{path} is {other:?}"),
    };
    for service in ["coordinator", "buildlet"] {
        let at = |key: &str| format!("services.{service}.{key}");
        // The context is the tree's root, seen from the compose file.
        assert_eq!(one(&at("build.context")), "../..");
        let file = one(&at("build.dockerfile"));
        let all = instructions(&file);
        let volume = of(&all, "VOLUME")[0];
        let (name, target) =
            one(&at("volumes")).split_once(':').map(|(n, t)| (n.to_owned(), t.to_owned())).expect("a mount");
        assert_eq!(target, volume, "{service} keeps its data in the volume");
        assert!(compose.contains_key(&format!("volumes.{name}")), "no volume {name}");
        assert_eq!(one(&at("cap_drop")), "ALL");
        assert!(compose[&at("security_opt")].contains(&"no-new-privileges:true".to_owned()));
        assert!(!compose.contains_key(&at("privileged")));
    }
    let published = one("services.coordinator.ports");
    assert!(published.starts_with("127.0.0.1:") && published.ends_with(":8119"), "{published}");

    let command = &compose["services.buildlet.command"];
    is_understood(&programs, &format!("mote-buildlet {}", command.join(" ")));
    let secret = one("services.buildlet.secrets");
    assert!(command.contains(&format!("/run/secrets/{secret}")), "{command:?} does not read the secret {secret}");
    let token = one(&format!("secrets.{secret}.file"));
    assert!(text("deploy/containers/.gitignore").lines().any(|line| token.ends_with(line)), "{token} may be committed");
    assert!(text("docs/install.md").contains(&format!("deploy/containers/{}", token.trim_start_matches("./"))));
    // What the page on containers says of sandboxes.
    for granted in ["seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"] {
        assert!(compose["services.buildlet.security_opt"].contains(&granted.to_owned()), "{granted}");
        assert!(!compose["services.coordinator.security_opt"].contains(&granted.to_owned()), "{granted}");
        assert!(text("deploy/containers/buildlet.Containerfile").contains(granted), "{granted} is not explained");
    }
    assert_eq!(one("services.buildlet.depends_on.coordinator.condition"), "service_healthy");
}
