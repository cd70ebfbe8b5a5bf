//! `mote cas` and `mote reapi`.

use crate::fake_farm::{FakeFarm, wrong};
use std::os::unix::fs::PermissionsExt as _;

#[test]
fn a_wrong_blob_is_named_and_ends_with_1() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let ran = home.mote(&["cas", "verify"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let named = format!("{} is wrong\n3 blobs (3.0 kB), 1 wrong, 0 thrown away\n", wrong());
    assert_eq!(ran.text(), named);
    assert!(home.mote(&["cas", "verify", "-discard"]).text().contains("1 thrown away"));
}

#[test]
fn the_store_is_shown_and_emptied() {
    let farm = FakeFarm::start();
    let home = farm.home();
    assert!(home.mote(&["cas", "stat"]).text().starts_with("3 blobs (3.0 kB) in "));
    let ran = home.mote(&["cas", "gc"]);
    assert_eq!(ran.text(), "evicted 2 blobs, freed 2.0 kB; 7.0 kB still taken\n");
    assert!(home.mote(&["cas", "gc", "-to", "1KiB"]).text().contains("; 1.0 kB still taken"));
    assert_eq!(home.mote(&["cas", "gc", "-to", "much"]).code, Some(2));
}

#[test]
fn a_farm_that_wants_tls_is_reached_by_it_and_the_token_stays_in_a_file() {
    let farm = FakeFarm::start();
    let home = farm.home();
    let ran = home.mote(&["reapi", "url"]);
    assert_eq!(ran.text(), format!("grpcs://{}\n", farm.address));
    let refused = home.mote(&["reapi", "bazelrc"]);
    assert_eq!((refused.code, refused.text()), (Some(2), ""), "{refused:?}");
    let ran = home.mote(&["reapi", "bazelrc", "farm.bazelrc"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let file = home.path("farm.bazelrc");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.starts_with(&format!("build \"--remote_executor=grpcs://{}\"\n", farm.address)), "{text}");
    assert!(text.contains("\"--remote_header=authorization=Bearer mote_"), "{text}");
    let ca = text.split("--tls_certificate=").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert_eq!(std::fs::read_to_string(ca).unwrap(), farm.ca_pem);
}

#[test]
fn an_action_whose_inputs_were_lost_is_asked_for_again_and_its_exit_code_is_ours() {
    let farm = FakeFarm::start();
    let home = farm.home();
    crate::mote::write_tree(&home.path("in"), &[("a/b.txt", "content")]);
    let ran = home.mote(&["reapi", "exec", "-input", "in", "-e", "A=b", "/bin/sh", "-c", "exit 3"]);
    assert_eq!((ran.code, ran.text()), (Some(3), "hello\n"), "{ran:?}");
    let calls = farm.state().calls.clone();
    assert_eq!(calls.iter().filter(|call| **call == "execute_action").count(), 2, "{calls:?}");
    assert_eq!(calls.iter().filter(|call| **call == "batch_update").count(), 2, "{calls:?}");
    assert_eq!(home.mote(&["reapi", "exec", "-e", "novalue", "true"]).code, Some(2));
}
