//! `bgd`, BuildGrid's client in Python: over TLS with a token, and its habits (no FindMissingBlobs, names on
//! every message, chunks just under 4 MiB).

use crate::peers::peer;
use crate::{farm, seconds};
use std::fs;

#[test]
fn bgd_uploads_and_executes_over_tls() {
    let Some(program) = peer("bgd executes on the farm", "bgd/bin/bgd", "bgd") else { return };
    let farm = farm().start();
    let (ca, token) = (farm.dir().join("ca.pem"), farm.dir().join("token"));
    fs::write(&ca, farm.profile_value("ca_pem")).expect("a file");
    fs::write(&token, farm.profile_value("token")).expect("a file");
    let input = farm.dir().join("input");
    fs::create_dir_all(input.join("sub")).expect("a folder");
    fs::write(input.join("sub/in.txt"), "farm\n").expect("a file");
    // Over a batch: by ByteStream.
    fs::write(input.join("large"), vec![b'x'; 9_000_000]).expect("a file");
    let url = format!("https://localhost:{}", farm.address().rsplit(':').next().expect("a port"));
    let call = |words: &[&str]| {
        let call = farm.program(&program).patience(seconds(60));
        let (group, rest) = words.split_first().expect("words");
        call.args([group, "--remote", url.as_str()])
            .args(["--server-cert", ca.to_str().expect("text"), "--auth-token", token.to_str().expect("text")])
            .args(rest)
    };
    let told = call(&["capabilities"]).ok();
    assert!(told.out().contains("3145728"), "the limit of a batch: {}", told.out());
    let input = input.to_str().expect("text").to_owned();
    call(&["cas", "upload-dir", &input]).ok();

    let out = farm.dir().join("bgd-out");
    fs::create_dir(&out).expect("a folder");
    let script = "wc -c <large >out.txt && cat sub/in.txt >>out.txt";
    let words = ["execute", "command", "--output-file", "out.txt", "--output-directory"];
    let told = call(&[&words[..], &[out.to_str().expect("text"), &input, "--", "/bin/sh", "-c", script]].concat()).ok();
    let written = fs::read_to_string(out.join("out.txt"));
    assert_eq!(written.ok().as_deref(), Some("9000000\nfarm\n"), "{told:?}");
    farm.mote(["cas", "verify"]).ok();
    farm.finish();
}
