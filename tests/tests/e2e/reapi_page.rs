//! `docs/reapi.md` says of every call and field what becomes of it, and which test shows it.

use crate::farm;
use crate::identity::status_of;
use crate::security::{root, tests_in};
use motefarm_coordinator::identity::rule;
use motefarm_tests::rpc::Rpc;
use std::collections::BTreeMap;
use std::fs;
use tonic::Code;
use tonic::body::Body;

/// The services of the page, with their packages.
const SERVICES: [(&str, &str); 6] = [
    ("Capabilities", "build.bazel.remote.execution.v2"),
    ("ContentAddressableStorage", "build.bazel.remote.execution.v2"),
    ("ActionCache", "build.bazel.remote.execution.v2"),
    ("Execution", "build.bazel.remote.execution.v2"),
    ("ByteStream", "google.bytestream"),
    ("Operations", "google.longrunning"),
];

/// Rows of the table below a heading, each as its cells.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let page = fs::read_to_string(root().join("docs/reapi.md")).expect("the page");
    let table = page.split(&format!("\n## {heading}\n")).nth(1).unwrap_or_else(|| panic!("no section {heading}"));
    let table = table.split("\n## ").next().unwrap_or_default();
    let lines = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    lines.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn every_call_and_field_names_a_test_that_is_there() {
    for heading in ["Calls", "Fields"] {
        let rows = rows(heading);
        assert!(rows.len() > 20, "{heading}: the table is found: {}", rows.len());
        for row in rows {
            let named = row.last().map(String::as_str).unwrap_or_default();
            let tests: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
            assert!(!tests.is_empty(), "{row:?} is shown by nothing");
            for test in tests {
                let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test} is not file::test"));
                assert!(tests_in(&root().join(file)).contains(name), "{row:?}: there is no test {name} in {file}");
            }
        }
    }
}

/// The page's calls as paths, and whether they are done.
fn calls() -> BTreeMap<String, bool> {
    let mut calls = BTreeMap::new();
    for row in rows("Calls") {
        let call = row[0].trim_matches('`');
        let (service, method) = call.split_once('.').unwrap_or_else(|| panic!("{call} is not Service.Method"));
        let package = SERVICES.iter().find(|(name, _)| *name == service).map(|(_, package)| package);
        let package = package.unwrap_or_else(|| panic!("{service} is of no known package"));
        let done = match row[1].split(':').next().unwrap_or_default() {
            "done" => true,
            "refused" => false,
            other => panic!("{call}: {other:?} is neither done nor refused"),
        };
        assert_eq!(calls.insert(format!("/{package}.{service}/{method}"), done), None, "{call} twice");
    }
    calls
}

#[test]
fn what_is_refused_is_unimplemented_on_the_port() {
    let farm = farm().start();
    let rpc = Rpc::connect(&farm.profile(), None);
    for (path, done) in calls() {
        assert!(!done || rule(&path).is_some(), "{path} is said to be done and has no rule in identity.rs");
        // One message, with no field set.
        let body = Body::new("\0\0\0\0\0".to_owned());
        assert_eq!(status_of(&rpc, &path, body) == Code::Unimplemented, !done, "{path}");
    }
    drop(rpc);
    farm.finish();
}
