//! `mote reapi` and `mote cas` on a real farm.

use crate::{farm, seconds};
use motefarm_tests::{TestFarm, wait};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// Blobs of a store as `mote cas stat` counts them.
fn blobs(farm: &TestFarm) -> u64 {
    farm.mote(["cas", "stat", "--json"]).ok().json()["blobs"].as_u64().expect("a number")
}

/// An action on the farm, once a buildlet is there to run it.
fn exec(farm: &TestFarm, words: &[&str]) -> motefarm_tests::Mote {
    farm.mote(["reapi", "exec", "-e", "PATH=/usr/bin:/bin"]).args(words)
}

#[test]
fn an_action_brings_its_outputs_back_and_is_not_run_twice() {
    let farm = farm().start();
    let (input, into) = (farm.dir().join("src"), farm.dir().join("built"));
    fs::create_dir(&input).expect("a folder");
    fs::write(input.join("text"), "content\n").expect("a file");
    let script = "mkdir -p d/e && cp text d/e/copy && chmod +x d/e/copy && ln -s e d/link && ln -s d/e/copy top && \
                  head -c 3000000 /dev/zero >large && echo out && echo err >&2";
    let words = ["--input", "src", "--output", "d", "--output", "large", "--output", "top", "--into", "built"];
    let words = [&words[..], &["/bin/sh", "-c", script]].concat();
    let first = exec(&farm, &words).ok();
    assert_eq!(first.out(), "out");
    assert!(first.stderr.lines().any(|line| line == "err"), "{}", first.stderr);
    let check = || {
        assert_eq!(fs::read(into.join("top")).expect("a link to the copy"), b"content\n");
        assert_eq!(fs::read_link(into.join("d/link")).expect("a link"), Path::new("e"));
        let copy = fs::metadata(into.join("d/e/copy")).expect("the copy");
        assert!(std::os::unix::fs::PermissionsExt::mode(&copy.permissions()) & 0o100 != 0);
        assert_eq!(fs::metadata(into.join("large")).expect("a file").len(), 3_000_000);
    };
    check();
    fs::remove_dir_all(&into).expect("the outputs");
    let second = exec(&farm, &[&["--json"], &words[..]].concat()).ok().json();
    assert_eq!((&second["cached"], &second["exit_code"]), (&true.into(), &0.into()), "{second}");
    check();
    // What was evicted meanwhile is uploaded and run again.
    farm.mote(["cas", "gc", "--to", "0"]).ok();
    let third = exec(&farm, &[&["--json"], &words[..]].concat()).ok().json();
    assert_eq!(third["cached"], false, "{third}");
    exec(&farm, &["/bin/sh", "-c", "exit 7"]).run().fails(7);
    let late = exec(&farm, &["--timeout", "1s", "--no-cache", "/bin/sleep", "60"]).run().fails(255);
    assert!(late.stderr.contains("could not execute the action"), "{}", late.stderr);
    farm.finish();
}

#[test]
fn the_farms_own_user_needs_neither_tls_nor_token() {
    let farm = farm().start();
    assert_eq!(farm.mote(["reapi", "url"]).ok().out(), format!("grpc://{}", farm.address()));
    assert_eq!(
        farm.mote(["reapi", "bazelrc"]).ok().out(),
        format!("build \"--remote_executor=grpc://{}\"", farm.address())
    );
    assert_eq!(farm.mote(["reapi", "url", "--tls"]).ok().out(), format!("grpcs://{}", farm.address()));
    let refused = farm.mote(["reapi", "bazelrc", "--tls"]).run().fails(2);
    let token = farm.profile_value("token");
    assert!(!refused.out().contains(&token) && !refused.stderr.contains(&token), "{}", refused.stderr);
    farm.finish();
}

/// The pack that holds `content`, and where.
fn find(farm: &TestFarm, content: &[u8]) -> (PathBuf, u64) {
    let packs = fs::read_dir(farm.data().join("cas/packs")).expect("packs").flatten().map(|entry| entry.path());
    let place = |path: PathBuf| {
        let bytes = fs::read(&path).ok()?;
        let at = bytes.windows(content.len()).position(|window| window == content)?;
        Some((path, at as u64))
    };
    packs.filter(|path| path.extension().is_some_and(|extension| extension == "pack")).find_map(place).expect("a pack")
}

#[test]
fn wrong_bytes_in_the_store_are_named_and_thrown_away_by_admins_alone() {
    let farm = farm().start();
    let input = farm.dir().join("src");
    fs::create_dir(&input).expect("a folder");
    let content = b"what is to go wrong, and is not to be found in anything else\n";
    fs::write(input.join("text"), content).expect("a file");
    let words = ["--input", "src", "/bin/cat", "text"];
    let said = exec(&farm, &words).ok().out();
    assert_eq!(said.as_bytes(), content.strip_suffix(b"\n").expect("a line"));
    assert!(farm.mote(["cas", "verify"]).ok().out().ends_with("each is what its digest says"));

    farm.mote(["admin", "user", "add", "bob"]).ok();
    let bob = farm.mote(["admin", "token", "create", "--user", "bob", "--name", "t"]).ok().out();
    for words in [&["cas", "stat"][..], &["cas", "gc", "--to", "0"], &["cas", "verify", "--discard"]] {
        assert!(farm.mote_as(&bob, words).run().fails(1).stderr.contains("bob is no admin"));
    }

    let (pack, at) = find(&farm, content);
    fs::File::options().write(true).open(pack).expect("the pack").write_all_at(b"?", at).expect("a byte");
    let digest = motefarm_core::Digest::of(content).to_string();
    let found = farm.mote(["cas", "verify"]).run().fails(1).out();
    assert!(found.starts_with(&format!("{digest} is wrong\n")), "{found}");
    let before = blobs(&farm);
    assert!(farm.mote(["cas", "verify", "--discard"]).run().fails(1).out().contains("1 wrong, 1 thrown away"));
    assert_eq!(blobs(&farm), before - 1);
    farm.mote(["cas", "verify"]).ok();
    let rows = farm.mote(["admin", "audit", "--action", "content discard", "--json"]).ok().json();
    assert_eq!(rows["audit"][0]["subject"], digest.as_str(), "{rows}");
    // It is uploaded again, and right; the buildlet, which reads the same packs, believes the new one.
    assert_eq!(exec(&farm, &[&["--again"], &words[..]].concat()).ok().out(), said);

    farm.mote(["cas", "gc", "--to", "0"]).ok();
    wait::until_true("all but what is in use is gone", seconds(10), || {
        farm.mote(["cas", "gc", "--to", "0"]).ok();
        blobs(&farm) == 0
    });
    farm.finish();
}
