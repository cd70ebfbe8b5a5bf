//! What the variables say (F1 to F3, F7, F8, and the traps): set as people set them, mended as they are told.

use super::http_proxy::{HttpProxy, plain_server};
use super::person::{Person, is_root};
use crate::fake_reapi::{FakeReapi, Rules};
use crate::harness::{Bridge, compiles_here};
use std::os::unix::fs::PermissionsExt as _;

pub(super) struct Bench {
    _dir: tempfile::TempDir,
    pub(super) fake: FakeReapi,
    pub(super) bridge: Bridge,
    pub(super) person: Person,
}

impl Bench {
    /// A bridge with this configuration before a server that compiles, and somebody who has followed the guide.
    pub(super) async fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fake = FakeReapi::start(Rules::nativelink(), compiles_here()).await;
        let bridge = Bridge::start(dir.path(), &fake, text).await;
        let person = Person::prepared(&bridge.address.to_string()).await;
        Self { _dir: dir, fake, bridge, person }
    }
}

/// The report of the person whom nothing helped, with his own variables: doing what doctor says, one finding
/// after another, leads him to a remote compile.
#[tokio::test(flavor = "multi_thread")]
async fn the_person_of_the_report_gets_from_nothing_to_a_remote_compile() {
    let Bench { fake, bridge, mut person, .. } = Bench::new("").await;
    person.goma_ctl();
    person.file("home/.debug_goma_auth_file", "nomatter\n", 0o644);
    for name in person.variables.keys().filter(|name| name.starts_with("GOMACTL_")).cloned().collect::<Vec<_>>() {
        person.unset(&name);
    }
    for (name, value) in [
        ("GOMA_SERVER_HOST", "localhost"),
        ("GOMA_SERVER_PORT", &bridge.address.port().to_string()),
        ("GOMA_USE_SSL", "false"),
        ("GOMA_HERMETIC", "error"),
        ("GOMA_ARBITRARY_TOOLCHAIN_SUPPORT", "true"),
        ("GOMA_HTTP_AUTHORIZATION_FILE", "~/.debug_goma_auth_file"),
        ("GOMA_USE_LOCAL", "false"),
        ("GOMA_FALLBACK", "true"),
    ] {
        person.set(name, value);
    }
    // goma_ctl.py was started once, and put http_proxy in between.
    let plain = plain_server().await;
    let mut http_proxy = Some(HttpProxy::start(&mut person, plain.address().parse().unwrap(), &bridge.ca_pem).await);
    let mut seen = person.look(&[]).await;
    seen.is_wrong("unexpanded-value");
    let mut mended = Vec::new();
    while let Some(id) = seen.ids().first().map(|id| (*id).to_owned()) {
        match http_proxy.take_if(|_| id == "http-proxy") {
            Some(http_proxy) => {
                person.shell(&seen.fix(&id)).await;
                http_proxy.end_if_told().await;
                seen = person.look(&[]).await;
            }
            None => seen = person.mend(&seen, &id).await,
        }
        mended.push(id);
        assert!(mended.len() < 10, "{mended:?}");
    }
    seen.is_in_order();
    assert_eq!(mended, ["unexpanded-value", "http-proxy", "login", "hermetic", "open-token-file"]);
    let before = fake.state().ran.len();
    let words = person.listen(&[]).await;
    assert!(words.contains("compiled remotely in ") && words.contains(", byte for byte as here\n"), "{words}");
    assert!(
        words.contains(&format!("ok  server localhost:{} answers (auth=own-user, backend=ok", bridge.address.port())),
        "{words}"
    );
    assert_eq!(fake.state().ran.len(), before + 1, "each trial is a compile of its own");
}

/// F1, F2. The client opens the file of exactly that name, and ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_file_is_found_wanting_before_the_client_ends_over_it() {
    let mut person = Bench::new("").await.person;
    person.look(&[]).await.is_in_order();
    let token = person.file("home/token", "Bearer x\n", 0o600);
    person.set("GOMA_HTTP_AUTHORIZATION_FILE", "~/token");
    let seen = person.look(&[]).await;
    seen.is_wrong("unexpanded-value");
    assert!(!std::path::Path::new("~/token").exists(), "which is what the client would open");
    person.mend(&seen, "unexpanded-value").await.is_in_order();
    assert_eq!(person.variables["GOMA_HTTP_AUTHORIZATION_FILE"], token.display().to_string());

    for (path, content, words) in [
        ("gone", None, "No such file"),
        ("lines", Some("Bearer x\r\nHost: y\n"), "more than one line"),
        ("empty", Some("\n"), "is empty"),
    ] {
        let path = content.map_or_else(|| person.path(path), |content| person.file(path, content, 0o600));
        person.set("GOMA_HTTP_AUTHORIZATION_FILE", path.display().to_string());
        let seen = person.look(&[]).await;
        seen.is_wrong("authorization-file");
        assert!(seen.problem("authorization-file").contains(words), "{seen:?}");
    }
    person.set("GOMA_HTTP_AUTHORIZATION_FILE", "token");
    person.look(&[]).await.is_wrong("authorization-file");
    person.set("GOMA_HTTP_AUTHORIZATION_FILE", person.path("gone").display().to_string());
    let seen = person.look(&[]).await;
    person.mend(&seen, "authorization-file").await.is_in_order();

    let open = person.file("open", "Bearer x", 0o644);
    person.set("GOMA_HTTP_AUTHORIZATION_FILE", open.display().to_string());
    let seen = person.look(&[]).await;
    assert_eq!(seen.ids(), ["open-token-file"]);
    person.mend(&seen, "open-token-file").await.is_in_order();
    assert_eq!(open.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}

/// F2, F3. What looks like trouble and is none; nothing of it makes the exit code bad.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_harmless_is_told_and_is_no_trouble() {
    let mut person = Bench::new("").await.person;
    assert!(person.look(&[]).await.has("slow-start"));
    let line = "E20230818 11:16:04.982394 1465866 compiler_info_cache.cc:455] failed to load cache file /run/x/compiler_info_cache";
    person.file("logs/compiler_proxy.ERROR", &format!("Log file created at: 2023\n{line}\n"), 0o600);
    person.file("home/.goma_client_oauth2_config", "{\"refresh_token\": \"1//old\"}", 0o600);
    let seen = person.look(&[]).await;
    seen.is_in_order();
    assert!(seen.problem("harmless-message").contains("failed to load cache file"), "{seen:?}");
    assert!(seen.has("other-login") && !seen.has("slow-start"));
    person.set("GOMA_USE_LOCAL", "true");
    let seen = person.look(&[]).await;
    seen.is_in_order();
    person.mend(&seen, "local-race").await.is_in_order();

    let fatal = "F20230818 11:16:05.005682 1 http_init.cc:151] Check failed: ReadFileToString(FLAGS_HTTP_AUTHORIZATION_FILE.c_str()) ~/.x";
    person.file("logs/compiler_proxy.FATAL", &format!("Log file created at: 2023\n{fatal}\n"), 0o600);
    let seen = person.look(&[]).await;
    assert_eq!((seen.ids(), seen.severity("fatal-message")), (vec!["fatal-message"], "doubtful".to_owned()));
}

/// F8. What the guide has people patch, and what makes that needless.
#[tokio::test(flavor = "multi_thread")]
async fn a_patched_script_and_a_login_that_is_asked_for_are_found() {
    let mut person = Bench::new("").await.person;
    person.goma_ctl();
    person.program("goma_auth.py", "import sys\nsys.exit(0)");
    person.unset("GOMACTL_SKIP_AUTH");
    let seen = person.look(&[]).await;
    assert_eq!(seen.ids(), ["login", "patched-auth"]);
    assert!(seen.problem("patched-auth").contains("/bin/goma_auth.py ("), "{seen:?}");
    let seen = person.mend(&seen, "login").await;
    assert_eq!(seen.ids(), ["patched-auth"]);
    // The original is longer.
    person.program("goma_auth.py", &"# what a login at Google takes\n".repeat(200));
    person.look(&[]).await.is_in_order();
}

/// F7, and the traps that are a variable each; most are mended by the line that is told.
#[tokio::test(flavor = "multi_thread")]
async fn every_trap_of_the_variables_is_found_and_mended() {
    let mut person = Bench::new("").await.person;
    let good = person.variables.clone();
    let host = good["GOMA_SERVER_HOST"].clone();
    let with_port = format!("http://{host}:{}", good["GOMA_SERVER_PORT"]);
    for (name, value, id) in [
        ("GOMA_URL_PATH_PREFIX", ":5050/cxx-compiler-service", "path-prefix"),
        ("GOMA_RPC_EXTRA_PARAMS", "prod", "extra-parameters"),
        ("GOMA_SERVER_HOST", &with_port, "host-with-port"),
        ("GOMA_SERVERHOST", "127.0.0.1", "unknown-variable"),
        ("GOMA_USE_SSL", "no way", "bad-switch"),
        ("GOMA_MAX_SUBPROCS", "all", "bad-number"),
        ("GOMA_DISABLED", "true", "disabled"),
        ("GOMA_ARBITRARY_TOOLCHAIN_SUPPORT", "false", "toolchain-support"),
        ("GOMA_HERMETIC", "error", "hermetic"),
        ("GOMA_SETTINGS_SERVER", "https://settings.example/", "settings-server"),
        ("GOMA_TMP_DIR", "$XDG_RUNTIME_DIR/goma_nils", "unexpanded-value"),
        ("GOMA_CACHE_DIR", "cache", "relative-path"),
        ("GOMA_SSL_EXTRA_CERT", "/nonexistent/ca.pem", "missing-file"),
        ("https_proxy", "http://127.0.0.1:1", "proxy"),
    ] {
        person.variables = good.clone();
        person.set(name, value);
        let seen = person.look(&[]).await;
        assert!(seen.ids().contains(&id), "{name}: {seen:?}");
        if id == "bad-switch" {
            // Which of the two is meant nobody but the person knows.
            person.set(name, "false").look(&[]).await.is_in_order();
        } else {
            person.mend(&seen, id).await.is_in_order();
        }
    }
    person.variables = good.clone();
    person.set("GOMA_STORE_ONLY", "1").set("GOMA_USE_SUCCESS", "1");
    let seen = person.look(&[]).await;
    person.mend(&seen, "cache-policy").await.is_in_order();
    person.variables = good.clone();
    person.unset("GOMA_SERVER_HOST");
    assert_eq!(person.look(&[]).await.ids(), ["no-server"]);
    let certificate = person.file("not.pem", "no certificate", 0o600);
    person.variables = good;
    person.set("GOMA_SSL_EXTRA_CERT", certificate.display().to_string());
    assert_eq!(person.look(&[]).await.ids(), ["not-a-certificate"]);
}

/// The client itself knows best which variables it knows.
#[tokio::test(flavor = "multi_thread")]
async fn the_client_is_asked_where_it_is_there() {
    let mut person = Bench::new("").await.person;
    person.set("GOMA_OF_A_LATER_VERSION", "1");
    person.look(&[]).await.is_wrong("unknown-variable");
    person.program("compiler_proxy", "echo \"$GOMA_SERVER_HOST:$GOMA_SERVER_PORT\"");
    person.look(&[]).await.is_in_order();
    let words = person.listen(&[]).await;
    assert!(words.contains("ok  compiler_proxy takes these variables, and would call 127.0.0.1:"), "{words}");
    let refuses = "test -z \"$GOMA_FALLBACK\" && exit 0; echo \"GOMA_FALLBACK=$GOMA_FALLBACK: unknown GOMA_ parameter\" >&2; exit 1";
    person.program("compiler_proxy", refuses);
    let seen = person.look(&[]).await;
    seen.is_wrong("unknown-variable");
    assert!(seen.problem("unknown-variable").contains("GOMA_FALLBACK"));
    person.shell(&seen.fix("unknown-variable")).await;
    person.look(&[]).await.is_in_order();
    person.program("compiler_proxy", "echo 'libc is too old' >&2; exit 1");
    person.look(&[]).await.is_wrong("client-refuses");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_is_found_and_somebody_else_is_not() {
    let Bench { bridge, person, .. } = Bench::new("auth.anonymous = \"anyone\"\n").await;
    assert_eq!(person.look(&[]).await.has("root"), is_root());
    if !is_root() {
        return;
    }
    person.look(&[]).await.is_wrong("root");
    let nobody = Person::prepared(&bridge.address.to_string()).await.nobodys();
    let Some(nobody) = nobody else {
        return crate::real_compiler::say("SKIPPED: nobody but root can start the programs of this build");
    };
    let seen = nobody.look(&[]).await;
    assert!(!seen.has("root"));
    seen.is_in_order();
    assert_eq!(seen.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_directory_must_be_its_users_alone() {
    let mut person = Bench::new("").await.person;
    let dir = person.path("run/goma_nils");
    std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o755)).unwrap();
    let seen = person.look(&[]).await;
    seen.is_wrong("tmp-dir");
    person.mend(&seen, "tmp-dir").await.is_in_order();
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_told_in_the_persons_shell() {
    let mut person = Person::unprepared();
    person.set("SHELL", "/usr/bin/fish");
    assert_eq!(person.look(&[]).await.fix("no-server"), "mote-bridge env --shell fish | source");
    assert_eq!(person.look(&["--shell", "bash"]).await.fix("no-server"), "eval \"$(mote-bridge env)\"");
}
