//! What runs on this machine: a compiler_proxy of other days, something else on its port, and gomacc.

use super::pages::{Pages, answer};
use super::person::{Person, is_root};
use super::variables::Bench;
use std::fmt::Write as _;
use std::path::PathBuf;

/// The pages of a compiler_proxy that was started with these variables; it counts what `counter` holds.
async fn compiler_proxy(variables: &[(String, String)], health: &'static str, counter: PathBuf) -> Pages {
    let mut flags = String::from("GOMA_MAX_SUBPROCS=3 (auto configured)\n");
    for (name, value) in variables {
        writeln!(flags, "{name}={value}").unwrap();
    }
    Pages::start(move |head, _| match head.split(' ').nth(1) {
        Some("/healthz") => answer("200 OK", health),
        Some("/flagz") => answer("200 OK", &flags),
        Some("/statz") => {
            let finished = std::fs::read_to_string(&counter).unwrap_or_default().lines().count();
            answer("200 OK", format!("request: total=9\n goma: finished={finished} cache_hit=0\n"))
        }
        _ => answer("404 Not Found", ""),
    })
    .await
}

fn goma(person: &Person) -> Vec<(String, String)> {
    let all = person.variables.iter().filter(|(name, _)| name.starts_with("GOMA_"));
    all.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Starts one with the variables of now but for these, and has doctor look for it on its port.
async fn running(person: &mut Person, but: &[(&str, &str)], health: &'static str) -> Pages {
    let mut variables = goma(person);
    for (name, value) in but {
        variables.retain(|(other, _)| other != name);
        variables.push(((*name).to_owned(), (*value).to_owned()));
    }
    let pages = compiler_proxy(&variables, health, person.path("counter")).await;
    person.set("GOMA_COMPILER_PROXY_PORT", pages.port.to_string());
    pages
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_proxy_of_other_variables_is_found() {
    let mut person = Bench::new("").await.person;
    let _stale = running(&mut person, &[("GOMA_SERVER_PORT", "80"), ("GOMA_HERMETIC", "error")], "ok").await;
    let seen = person.look(&[]).await;
    seen.is_wrong("stale-compiler-proxy");
    let problem = seen.problem("stale-compiler-proxy");
    assert!(problem.contains("GOMA_SERVER_PORT is ") && problem.contains(" here and \"80\" there"), "{problem}");
    assert!(problem.contains("GOMA_HERMETIC is not set here and \"error\" there"), "{problem}");
    assert_eq!(seen.fix("stale-compiler-proxy"), "goma_ctl.py ensure_stop; goma_ctl.py ensure_start");
}

/// F4, again: by what the running client says of itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_proxy_behind_http_proxy_is_found() {
    let mut person = Bench::new("").await.person;
    let proxied = [("GOMA_SERVER_HOST", "127.0.0.1"), ("GOMA_SERVER_PORT", "1"), ("GOMA_USE_SSL", "false")];
    let _behind = running(&mut person, &proxied, "running: failed to connect to backend servers").await;
    let seen = person.look(&[]).await;
    seen.is_wrong("http-proxy");
    seen.is_wrong("unhealthy-compiler-proxy");
    assert!(seen.problem("http-proxy").contains("was sent to http_proxy on port 1"), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn something_else_on_the_clients_port_is_found() {
    let mut person = Bench::new("").await.person;
    let other = Pages::start(|_, _| answer("404 Not Found", "")).await;
    person.set("GOMA_COMPILER_PROXY_PORT", other.port.to_string());
    let seen = person.look(&[]).await;
    assert!(seen.ids().contains(&"port-taken"), "{seen:?}");
    assert_eq!(seen.severity("port-taken"), "doubtful");
    assert_eq!(seen.fix("port-taken"), "export GOMA_COMPILER_PROXY_PORT=8100");
}

/// The client's own programs, where they are: the same file once more, through gomacc.
#[tokio::test(flavor = "multi_thread")]
async fn gomacc_is_tried_and_it_is_seen_where_it_compiled() {
    let Bench { bridge, mut person, .. } = Bench::new("auth.anonymous = \"anyone\"\n").await;
    if is_root() {
        let nobody = Person::prepared(&bridge.address.to_string()).await.nobodys();
        let Some(nobody) = nobody else {
            return crate::real_compiler::say("SKIPPED: nobody but root can start the programs of this build");
        };
        person = nobody;
    }
    let _proxy = running(&mut person, &[], "ok").await;
    // Its port is the one thing that differs: its pages were made before that was known.
    let seen = async |person: &Person| {
        let seen = person.look(&[]).await;
        seen.ids().into_iter().filter(|id| *id != "stale-compiler-proxy").map(str::to_owned).collect::<Vec<_>>()
    };
    let counter = person.path("counter").display().to_string();
    person.file("counter", "", 0o666);
    person.program("gomacc", "exec \"$@\"");
    assert_eq!(seen(&person).await, ["gomacc-local"]);
    person.program("gomacc", &format!("echo one >>'{counter}'; exec \"$@\""));
    assert_eq!(seen(&person).await, Vec::<String>::new());
    let words = person.listen(&[]).await;
    assert!(words.contains("ok  gomacc /usr/bin/") && words.contains(" -c compiled remotely\n"), "{words}");
    person.program("gomacc", "echo 'GOMA: compiler proxy is not there' >&2; exit 1");
    assert_eq!(seen(&person).await, ["gomacc-failed"]);
}
