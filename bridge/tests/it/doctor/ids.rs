//! Every id that the program can say is in the guide, and none besides; every one is said somewhere.

use motefarm_bridge::doctor::catalogue::Kind;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn the_guide_has_a_row_for_each_and_no_other() {
    let guide = fs::read_to_string(root().join("docs/goma.md")).unwrap();
    let (_, table) = guide.split_once("### All findings").expect("the guide has a table of them");
    let rows = table.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|')).skip(2);
    let rows: Vec<(&str, &str)> = rows
        .map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`'));
            cells.next();
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect();
    let known: Vec<(&str, &str)> = Kind::ALL.iter().map(|kind| (kind.id(), kind.severity().word())).collect();
    assert_eq!(rows, known);
}

/// Headings under "If it does not work" name the ids by which doctor finds what they are about.
#[test]
fn every_symptom_names_what_finds_it() {
    let guide = fs::read_to_string(root().join("docs/goma.md")).unwrap();
    let (_, symptoms) = guide.split_once("## If it does not work").unwrap();
    let (symptoms, _) = symptoms.split_once("### All findings").unwrap();
    let mut count = 0;
    for part in symptoms.split("\n### ").skip(1) {
        let ids: Vec<&str> = part.split('`').skip(1).step_by(2).collect();
        let heading = part.lines().next().unwrap();
        assert!(Kind::ALL.iter().any(|kind| ids.contains(&kind.id())), "{heading} names no id");
        count += 1;
    }
    assert!(count >= 12, "{count}");
}

/// Neither is there a kind that nothing finds, nor one that no test has seen.
#[test]
fn every_kind_is_found_by_something_and_seen_by_a_test() {
    let read = |dir: &str| {
        let mut text = String::new();
        let mut dirs = vec![root().join(dir)];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    dirs.push(path);
                } else if path.file_name().is_some_and(|name| name != "catalogue.rs" && name != "ids.rs") {
                    text += &fs::read_to_string(path).unwrap();
                }
            }
        }
        text
    };
    let (code, tests) = (read("bridge/src/doctor") + &read("bridge/src"), read("bridge/tests/it/doctor"));
    for kind in Kind::ALL {
        assert!(code.contains(&format!("Kind::{kind:?}")), "nothing finds {}", kind.id());
        let is_seen = tests.contains(&format!("\"{}\"", kind.id()));
        assert!(is_seen, "no test of the program has seen {}", kind.id());
    }
}
