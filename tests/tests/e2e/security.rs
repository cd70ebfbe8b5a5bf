//! `docs/security.md` promises only what a test guards.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

/// Names of the test functions in a file.
pub(crate) fn tests_in(path: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut names = BTreeSet::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        let function = line.trim_start_matches("async ").strip_prefix("fn ");
        match function {
            Some(rest) if is_test => {
                names.extend(rest.split('(').next().map(str::to_owned));
                is_test = false;
            }
            _ if line.starts_with("#[test]") || line.starts_with("#[tokio::test") => is_test = true,
            _ => {}
        }
    }
    names
}

/// The rows of the page's table of promises: what is promised, and the tests that are named (`file::test`).
fn promises() -> Vec<(String, Vec<String>)> {
    let page = fs::read_to_string(root().join("docs/security.md")).expect("the page");
    let table = page.split("## Promises").nth(1).expect("a section of promises");
    let table = table.split("\n## ").next().unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| {
        let mut cells = row.trim_matches('|').rsplitn(2, '|');
        let (tests, promise) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
        let named = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (promise.trim().to_owned(), named)
    })
    .collect()
}

#[test]
fn every_promise_names_a_test_that_is_there() {
    let promises = promises();
    assert!(promises.len() > 15, "the table is found: {}", promises.len());
    for (promise, tests) in promises {
        assert!(!tests.is_empty(), "{promise:?} is guarded by nothing");
        for test in tests {
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("{test} is not file::test"));
            let path = root().join(file);
            assert!(tests_in(&path).contains(name), "{promise:?}: there is no test {name} in {file}");
        }
    }
}
