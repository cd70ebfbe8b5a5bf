//! The rules of the source tree that no compiler checks. ARCHITECTURE.md gives the reasons.

use std::fs;
use std::path::{Path, PathBuf};

const CRATES: [&str; 9] = ["core", "proto", "net", "cas", "coordinator", "buildlet", "client", "bridge", "tests"];
/// Longer files hold more than one thing.
const MOST_LINES: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Every Rust file of a crate, by its path from the workspace's root.
fn sources(krate: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(krate)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                let name = path.strip_prefix(root()).expect("it is below").display().to_string();
                found.push((name, text));
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {krate}");
    found
}

/// Lines of code that hold `needle` as a word, as `file:line: text`.
fn uses(files: &[(String, String)], needle: &str, allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in files.iter().filter(|(name, _)| !allowed(name)) {
        for (n, line) in text.lines().enumerate() {
            let code = line.trim_start();
            if !code.starts_with("//") && has_word(code, needle) {
                found.push(format!("{name}:{}: {code}", n + 1));
            }
        }
    }
    found
}

fn has_word(line: &str, needle: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(needle).any(|(at, _)| {
        !line[..at].chars().next_back().is_some_and(inside)
            && !line[at + needle.len()..].chars().next().is_some_and(inside)
    })
}

fn all() -> Vec<(String, String)> {
    CRATES.into_iter().flat_map(sources).filter(|(name, _)| !name.ends_with("e2e/tidy.rs")).collect()
}

/// Dependencies of a crate, those for its own tests left out.
fn dependencies(krate: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(krate).join("Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = text.parse().expect("manifests are TOML");
    let tables = manifest.iter().filter(|(key, _)| *key == "dependencies").map(|(_, value)| value.clone());
    let targets = manifest.get("target").and_then(|t| t.as_table()).into_iter().flat_map(|t| t.values().cloned());
    let targets = targets.filter_map(|target| target.get("dependencies").cloned());
    tables.chain(targets).filter_map(|t| Some(t.as_table()?.keys().cloned().collect::<Vec<_>>())).flatten().collect()
}

#[test]
fn sql_is_spelled_in_the_store_alone() {
    let store = |name: &str| name.starts_with("coordinator/src/store") || name == "coordinator/src/grpc/status.rs";
    assert_eq!(uses(&all(), "sqlx", store), Vec::<String>::new());
    let sql = |name: &str| name.starts_with("coordinator/src/store");
    for statement in ["INSERT INTO", "DELETE FROM", "SELECT *", "BEGIN IMMEDIATE"] {
        assert_eq!(uses(&sources("coordinator"), statement, sql), Vec::<String>::new());
    }
}

#[test]
fn the_core_knows_no_io() {
    let core = dependencies("core");
    for banned in ["tokio", "tonic", "sqlx", "serde", "axum", "hyper", "prost", "rustix", "nix", "reqwest"] {
        assert!(!core.iter().any(|name| name.starts_with(banned)), "core depends on {banned}");
    }
    for module in ["std::fs", "std::net", "std::process", "std::thread"] {
        assert_eq!(uses(&sources("core"), module, |_| false), Vec::<String>::new());
    }
    assert_eq!(uses(&sources("core"), "SystemTime", |name| name == "core/src/clock.rs"), Vec::<String>::new());
}

#[test]
fn the_wall_clock_is_read_in_one_place() {
    assert_eq!(uses(&all(), "SystemTime::now", |name| name == "core/src/clock.rs"), Vec::<String>::new());
}

#[test]
fn programs_meet_in_libraries_alone() {
    let programs = ["coordinator", "buildlet", "client", "bridge"];
    for krate in programs {
        for other in programs.iter().filter(|other| **other != krate) {
            let name = format!("motefarm-{other}");
            assert!(!dependencies(krate).contains(&name), "{krate} depends on {other}");
        }
    }
    for (krate, others) in [
        ("core", &["proto", "net", "cas", "coordinator", "buildlet", "client", "bridge"][..]),
        ("proto", &["net", "cas", "coordinator", "buildlet", "client", "bridge"]),
        ("net", &["proto", "cas", "coordinator", "buildlet", "client", "bridge"]),
        ("cas", &["coordinator", "buildlet", "client", "bridge"]),
    ] {
        for other in others {
            let name = format!("motefarm-{other}");
            assert!(!dependencies(krate).contains(&name), "{krate} depends on {other}");
        }
    }
}

#[test]
fn the_coordinator_knows_neither_processes_nor_http_in_its_use_cases() {
    let farm = |name: &str| !name.starts_with("coordinator/src/farm");
    let files = sources("coordinator");
    for word in ["axum", "hyper", "tokio::process", "std::process::Command"] {
        assert_eq!(uses(&files, word, farm), Vec::<String>::new());
    }
    let starts = uses(&files, "tokio::process", |name| name == "coordinator/src/provider/local.rs");
    assert_eq!(starts, Vec::<String>::new(), "only the local provider starts a program");
}

#[test]
fn only_the_keeper_and_its_supervisors_fork() {
    let keepers = |name: &str| name.starts_with("buildlet/src/keeper") || name.starts_with("buildlet/src/supervisor");
    let files = sources("buildlet");
    let allowed = |name: &str| keepers(name) || name.starts_with("buildlet/tests");
    assert_eq!(uses(&files, "fork", allowed), Vec::<String>::new());
    assert_eq!(uses(&files, "pre_exec", |_| false), Vec::<String>::new());
    for krate in ["core", "proto", "net", "cas", "coordinator", "client", "bridge"] {
        assert_eq!(uses(&sources(krate), "fork()", |_| false), Vec::<String>::new());
    }
}

#[test]
fn instances_end_in_one_place() {
    let store = |name: &str| name.starts_with("coordinator/src/store") || name.starts_with("coordinator/tests");
    let written = uses(&sources("coordinator"), "end_reason = ?", store);
    assert_eq!(written, Vec::<String>::new());
}

#[test]
fn nothing_is_left_undone_or_too_long() {
    let files = all();
    for word in ["todo!", "unimplemented!", "dbg!", "FIXME", "XXX"] {
        let found: Vec<String> = files
            .iter()
            .flat_map(|(name, text)| {
                let lines = text.lines().enumerate().filter(|(_, line)| line.contains(word));
                lines.map(|(n, line)| format!("{name}:{}: {}", n + 1, line.trim())).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(found, Vec::<String>::new());
    }
    let long: Vec<String> = files
        .iter()
        .map(|(name, text)| (name, text.lines().count()))
        .filter(|(_, lines)| *lines > MOST_LINES)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}

#[test]
fn every_file_says_what_it_owns() {
    let generated = |name: &str| name.starts_with("proto/src/generated");
    let silent: Vec<String> = all()
        .into_iter()
        .filter(|(name, text)| !generated(name) && !text.trim_start().starts_with("//!"))
        .map(|(name, _)| name)
        .filter(|name| !name.ends_with("build.rs") && !name.ends_with("/tests.rs"))
        .collect();
    assert_eq!(silent, Vec::<String>::new(), "these begin without a module comment");
}

#[test]
fn every_migration_says_its_reason() {
    let mut count = 0;
    for entry in fs::read_dir(root().join("migrations")).expect("migrations").flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let text = fs::read_to_string(&path).expect("SQL is text");
            assert!(text.starts_with("--"), "{} begins without a reason", path.display());
            count += 1;
        }
    }
    assert!(count > 0);
}

/// Two readings of one protocol are worth something only while neither sees the other.
#[test]
fn the_goma_client_of_the_tests_knows_nothing_of_the_bridge() {
    let client: Vec<_> = sources("tests").into_iter().filter(|(name, _)| name.contains("goma_client")).collect();
    assert!(!client.is_empty());
    for word in ["motefarm_bridge", "motefarm_proto", "motefarm_core", "prost"] {
        assert_eq!(uses(&client, word, |_| false), Vec::<String>::new());
    }
    let allowed = |name: &str| ["bridge/tests", "bridge/examples"].iter().any(|folder| name.starts_with(folder));
    assert_eq!(uses(&sources("bridge"), "goma_client", allowed), Vec::<String>::new());
}
