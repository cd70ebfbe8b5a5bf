//! Fifty-nine questions on which real servers of the Remote Execution API differ, or on which clients
//! depend, put to the real coordinator over its real port. `docs/reapi.md` has our answer to each beside
//! what four other servers were seen to do; here the page is held against what is observed.

mod capabilities;
mod executions;
mod ground;
mod results;
mod storage;
mod streams;
mod trees;

use ground::Ground;
use std::fs;
use std::path::Path;

/// What is asked, in the words of the page, and how. The answer is a status, or what was seen in few words.
type Probe = (&'static str, fn(&Ground) -> String);

const GROUPS: [&[Probe]; 6] =
    [&capabilities::PROBES, &storage::PROBES, &trees::PROBES, &streams::PROBES, &results::PROBES, &executions::PROBES];

/// The page's table of probes: question and our answer.
fn recorded() -> Vec<(String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reapi.md");
    let page = fs::read_to_string(path).expect("the page");
    let table = page.split("\n## Probes\n").nth(1).expect("a section of probes");
    let table = table.split("\n## ").next().unwrap_or_default();
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 6, "question, ours and four others: {row}");
        (cells[0].to_owned(), cells[1].to_owned())
    })
    .collect()
}

#[test]
fn every_probe_is_answered_as_the_page_says() {
    let ground = Ground::new();
    let observed: Vec<(String, String)> =
        GROUPS.iter().flat_map(|group| group.iter()).map(|(name, ask)| ((*name).to_owned(), ask(&ground))).collect();
    ground.finish();
    assert_eq!(observed.len(), 59);
    let recorded = recorded();
    let differ: Vec<String> = observed
        .iter()
        .filter(|row| !recorded.contains(row))
        .map(|(name, answer)| format!("| {name} | {answer} |"))
        .collect();
    assert!(differ.is_empty(), "the page says otherwise of:\n{}", differ.join("\n"));
    assert_eq!(recorded.len(), observed.len(), "the page has rows that nothing asks");
}
