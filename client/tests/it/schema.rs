//! What `--json` prints is what `docs/json/mote-v1.schema.json` says.

use crate::fake_farm::FakeFarm;
use crate::mote::{Ran, write_tree};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

const I: &str = "alice-linux-amd64-0";

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../docs/json/mote-v1.schema.json")).unwrap()
}

/// Why `value` is not what `rule` says; knows as much of JSON Schema as the file uses, and refuses
/// what it does not know.
fn check(root: &Value, rule: &Map<String, Value>, value: &Value) -> Result<(), String> {
    for (word, said) in rule {
        let fine = match word.as_str() {
            "$schema" | "title" | "description" | "$defs" | "required" => true,
            "$ref" => {
                let name = said.as_str().and_then(|s| s.strip_prefix("#/$defs/")).unwrap();
                check(root, root["$defs"][name].as_object().unwrap(), value)?;
                true
            }
            "const" => value == said,
            "enum" => said.as_array().unwrap().contains(value),
            "type" => match said {
                Value::Array(any) => any.iter().any(|name| is_of(value, name.as_str().unwrap())),
                one => is_of(value, one.as_str().unwrap()),
            },
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    check(root, said.as_object().unwrap(), item)?;
                }
                true
            }
            "oneOf" => {
                let fits = |rule: &&Value| check(root, rule.as_object().unwrap(), value).is_ok();
                said.as_array().unwrap().iter().filter(fits).count() == 1
            }
            "properties" => {
                for (name, rule) in said.as_object().unwrap() {
                    if let Some(field) = value.get(name) {
                        check(root, rule.as_object().unwrap(), field).map_err(|e| format!("{name}: {e}"))?;
                    }
                }
                let required = rule.get("required").and_then(Value::as_array).into_iter().flatten();
                // For others an object is open, since later programs may say more; this one says what is written.
                let known = said.as_object().unwrap();
                required.map(|name| name.as_str().unwrap()).all(|name| value.get(name).is_some())
                    && value.as_object().into_iter().flatten().all(|(name, _)| known.contains_key(name))
            }
            other => panic!("the schema says {other}, which this test can not check"),
        };
        if !fine {
            return Err(format!("not as {word} says: {value}"));
        }
    }
    Ok(())
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("no such type: {other}"),
    }
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let root = schema();
    let check = |text: &str| check(&root, root.as_object().unwrap(), &serde_json::from_str(text).unwrap());
    assert!(check(r#"{"version":1,"command":"list","instances":[]}"#).is_ok());
    for wrong in [
        r#"{"version":2,"command":"list","instances":[]}"#,
        r#"{"version":1,"command":"list"}"#,
        r#"{"version":1,"command":"list","instances":[{}]}"#,
        r#"{"version":1,"command":"list","instances":[],"more":1}"#,
        r#"{"version":1,"command":"rm","instances":[{"instance":"i","removed":"1"}]}"#,
        r#"[]"#,
    ] {
        assert!(check(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_command_prints_what_the_schema_says() {
    let farm = FakeFarm::start();
    farm.state().has_bootstrap = true;
    let home = farm.home();
    write_tree(&home.path("proj"), &[("a.txt", "one")]);
    write_tree(&home.path(""), &[("x.tar", "tar")]);
    let root = schema();
    let mut seen = BTreeSet::new();
    let mut check = |args: &[&str], ran: &Ran| {
        let text = ran.text();
        assert!(!text.is_empty(), "{args:?}: {ran:?}");
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            check(&root, root.as_object().unwrap(), &value).unwrap_or_else(|e| panic!("{args:?}: {e}\n{line}"));
            seen.insert(value["command"].as_str().unwrap().to_owned());
        }
    };
    let lines: &[&[&str]] = &[
        &["create"],
        &["create", "nonsense"],
        &["create", "linux-amd64"],
        &["create", "-count=2", "linux-amd64"],
        &["list"],
        &["ping", I, "dead"],
        &["renew", I],
        &["group", "create", "g"],
        &["group", "list"],
        &["-group=g", "group", "add", I, "alice-linux-amd64-1"],
        &["-group=g", "group", "remove", "alice-linux-amd64-1"],
        &["push", "-C", "proj", I],
        &["push", "-dry-run", "-C", "proj", I, "b"],
        &["put", I, "x.tar"],
        &["put", "nobody", "x.tar"],
        &["puttar", I, "x.tar"],
        &["putbootstrap", I],
        &["get", I, "x.tar", "y"],
        &["gettar", I],
        &["ls", "-d", I],
        &["rm", I, "x"],
        &["snapshot", "create", I, "s"],
        &["snapshot", "list"],
        &["snapshot", "remove", "s"],
        &["run", I, "/lines", "1"],
        &["run", I, "/killed"],
        &["run", "-collect", "-until", "line", I, "/lines", "1"],
        &["run", "-detach", I, "/mixed"],
        &["attach"],
        &["logs", I],
        &["run", "-detach", I, "/sleep"],
        &["cancel", I],
        &["-group=g", "run", "/lines", "1"],
        &["group", "destroy", "g"],
        &["destroy", I, "nobody"],
        &["admin", "user", "add", "bob"],
        &["admin", "user", "list"],
        &["admin", "user", "remove", "bob"],
        &["admin", "token", "create", "--user", "bob"],
        &["admin", "token", "list"],
        &["admin", "token", "revoke", "--user", "bob", "--name", "x"],
        &["admin", "join-token", "create", "--host-type", "t"],
        &["admin", "join-token", "list"],
        &["admin", "join-token", "revoke", "id"],
        &["admin", "invite", "--host-type", "t"],
        &["admin", "buildlets"],
        &["admin", "audit"],
        &["cas", "stat"],
        &["cas", "gc"],
        &["cas", "verify"],
        &["reapi", "url"],
        &["reapi", "bazelrc"],
        &["reapi", "exec", "/bin/echo", "hello"],
        &["share", I, "bob"],
        &["share", I, "nobody"],
        &["unshare", I, "bob"],
        &["whoami"],
        &["auth", "token"],
        &["completions", "bash"],
        &["man"],
        &["man", "pages"],
    ];
    for args in lines {
        let with_json: Vec<&str> = std::iter::once("--json").chain(args.iter().copied()).collect();
        check(args, &home.mote(&with_json));
    }
    let fingerprint = motefarm_net::tls::ca_hash(&farm.ca_pem).unwrap();
    let server = farm.address.to_string();
    let login = ["--json", "login", "--server", &server, "--ca-fingerprint", &fingerprint, "--farm", "other"];
    check(&["login"], &Ran::from(home.command(login).env("MOTE_TOKEN", "mote_t").output().unwrap()));
    check(&["logout"], &home.mote(&["--json", "logout", "--farm", "other"]));
    // Several.
    home.mote_in("g2", &["create", "-count=2", "linux-amd64"]);
    let both = home.mote_in("g2", &["--json", "run", "/noisy", "1"]);
    check(&["run of several"], &both);
    let all: BTreeSet<String> = root["$defs"]
        .as_object()
        .unwrap()
        .values()
        .filter_map(|rule| rule["properties"].get("command"))
        .flat_map(|rule| {
            rule.get("const").into_iter().chain(rule.get("enum").and_then(Value::as_array).into_iter().flatten())
        })
        .map(|name| name.as_str().unwrap().to_owned())
        .collect();
    let unseen: Vec<_> = all.difference(&seen).collect();
    assert!(unseen.is_empty(), "described and never printed: {unseen:?}");
}

#[test]
fn the_program_tells_of_itself_without_a_farm() {
    let farm = FakeFarm::start();
    let home = farm.home();
    std::fs::remove_dir_all(home.path("config")).unwrap();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = home.mote(&["completions", shell]);
        assert!(script.code == Some(0) && script.text().contains("puttar"), "{shell}: {script:?}");
    }
    assert!(home.mote(&["man"]).text().contains(".SH \"EXIT STATUS\""));
    assert_eq!(home.mote(&["man", "man1"]).code, Some(0));
    for page in ["mote.1", "mote-run.1", "mote-group-add.1", "mote-admin-token-create.1"] {
        assert!(home.path("man1").join(page).exists(), "{page}");
    }
}
