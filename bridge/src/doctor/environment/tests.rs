use super::*;
use crate::client_env::ClientEnv;

fn look(path: &Path) -> io::Result<Looked> {
    match path.to_str() {
        Some("/ca.pem") => Ok(Looked { content: b"-----BEGIN CERTIFICATE-----\n".to_vec(), mode: 0o644 }),
        Some("/not.pem") => Ok(Looked { content: b"\x30\x82".to_vec(), mode: 0o644 }),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    }
}

fn findings(pairs: &[(&str, &str)], uid: u32) -> Vec<Finding> {
    let variables = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Facts { variables: &variables, look: &look, uid }.findings()
}

fn ids(pairs: &[(&str, &str)], uid: u32) -> Vec<&'static str> {
    findings(pairs, uid).into_iter().map(|finding| finding.id).collect()
}

/// What `mote-bridge env` prints, to change one thing at a time.
fn good() -> Vec<(String, String)> {
    let env = ClientEnv { host: "127.0.0.1".into(), port: 5050, ..ClientEnv::default() };
    env.variables().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn changed<'a>(good: &'a [(String, String)], name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let kept = good.iter().filter(|(other, _)| other != name).map(|(name, value)| (name.as_str(), value.as_str()));
    kept.chain([(name, value)]).collect()
}

#[test]
fn what_env_prints_is_in_order_and_every_change_of_it_is_found() {
    let good = good();
    let same = changed(&good, "SOMETHING", "else");
    assert_eq!(ids(&same, 1000), Vec::<&str>::new());
    assert_eq!(ids(&same, 0), ["root"]);
    for (name, value, expected) in [
        ("GOMA_HTTP_AUTHORIZATION_FILE", "~/.debug_goma_auth_file", &["unexpanded-value"][..]),
        ("GOMA_HTTP_AUTHORIZATION_FILE", "$HOME/auth", &["unexpanded-value"]),
        ("GOMA_TMP_DIR", "$XDG_RUNTIME_DIR/goma", &["unexpanded-value"]),
        ("GOMA_CACHE_DIR", "~me/cache", &["unexpanded-value"]),
        ("GOMA_DUMP_STATS_FILE", "~/stats", &["unexpanded-value"]),
        ("GOMA_TMP_DIR", "goma", &["relative-path"]),
        ("GOMA_SSL_EXTRA_CERT", "ca.pem", &["relative-path"]),
        ("GOMA_SSL_EXTRA_CERT", "/none", &["missing-file"]),
        ("GOMA_SSL_EXTRA_CERT", "/not.pem", &["not-a-certificate"]),
        ("GOMA_SSL_EXTRA_CERT", "/ca.pem", &[]),
        ("GOMA_SERVICE_ACCOUNT_JSON_FILE", "/none", &["missing-file"]),
        ("GOMA_OAUTH2_CONFIG_FILE", "/none", &[]),
        ("GOMA_BRIDGE_URL", "x", &["unknown-variable"]),
        ("GOMA_SERVER_HOST", "localhost:5050", &["host-with-port"]),
        ("GOMA_SERVER_HOST", "http://localhost", &["host-with-port"]),
        ("GOMA_SERVER_HOST", "", &["no-server"]),
        ("GOMA_SERVER_PORT", "", &["no-port"]),
        ("GOMA_SERVER_PORT", "5050x", &["bad-number"]),
        ("GOMA_SERVER_PORT", "70000", &["bad-number"]),
        ("GOMA_MAX_SUBPROCS", "many", &["bad-number"]),
        ("GOMA_URL_PATH_PREFIX", ":5050/cxx-compiler-service", &["path-prefix"]),
        ("GOMA_URL_PATH_PREFIX", "cxx-compiler-service", &["path-prefix"]),
        ("GOMA_RPC_EXTRA_PARAMS", "prod", &["extra-parameters"]),
        ("GOMA_RPC_EXTRA_PARAMS", "?prod", &[]),
        ("GOMA_SETTINGS_SERVER", "https://x/settings", &["settings-server"]),
        ("GOMA_SERVER_PORT", "443", &["scheme-and-port"]),
        ("GOMA_USE_SSL", "true", &["untrusted-certificate"]),
        ("GOMA_FALLBACK", "maybe", &["bad-switch"]),
        ("GOMA_DISABLED", "1", &["disabled"]),
        ("GOMACTL_SKIP_AUTH", "", &["login"]),
        ("GOMA_ARBITRARY_TOOLCHAIN_SUPPORT", "false", &["toolchain-support"]),
        ("GOMA_HERMETIC", "error", &["hermetic"]),
        ("GOMA_HERMETIC", "strict", &["hermetic"]),
        ("GOMA_USE_LOCAL", "true", &["local-race"]),
        ("https_proxy", "http://me:secret@proxy:3128", &["proxy"]),
        ("GOMA_PROXY_HOST", "proxy", &["proxy"]),
    ] {
        assert_eq!(ids(&changed(&good, name, value), 1000), expected, "{name}={value}");
    }
    let both = [("GOMA_STORE_ONLY", "true"), ("GOMA_USE_SUCCESS", "true")];
    assert!(ids(&both, 1000).contains(&"cache-policy"));
}

#[test]
fn what_mends_it_is_of_use_and_says_no_secret() {
    let good = good();
    for (name, value, expected) in [
        ("GOMA_TMP_DIR", "~/a b", "export GOMA_TMP_DIR=/absolute/path"),
        ("GOMA_TMP_DIR", "~/a", "export GOMA_TMP_DIR=\"$HOME/a\""),
        ("GOMA_TMP_DIR", "${HOME}/a", "export GOMA_TMP_DIR=\"${HOME}/a\""),
        ("GOMA_TMP_DIR", "$(reboot)", "export GOMA_TMP_DIR=/absolute/path"),
        ("GOMA_SERVER_HOST", "http://localhost:5050/", "export GOMA_SERVER_HOST=localhost GOMA_SERVER_PORT=5050"),
        ("GOMA_SERVER_HOST", "$(x):1", "export GOMA_SERVER_HOST=127.0.0.1 GOMA_SERVER_PORT=5050"),
        ("GOMA_SERVERHOST", "x", "unset GOMA_SERVERHOST   # GOMA_SERVER_HOST may be meant"),
    ] {
        let found = findings(&changed(&good, name, value), 1000);
        assert_eq!(found[0].fix, expected, "{name}={value}");
    }
    let found = findings(&changed(&good, "https_proxy", "http://me:secret@proxy:3128"), 1000);
    assert!(found[0].problem.contains("proxy:3128") && !found[0].problem.contains("secret"), "{}", found[0].problem);
    assert_eq!(found[0].severity, Severity::Wrong, "nothing else than this machine is asked");
    let mut far = changed(&good, "https_proxy", "http://proxy:3128");
    far.push(("GOMA_SERVER_HOST", "build.example"));
    assert_eq!(findings(&far, 1000)[0].severity, Severity::Doubtful);
}
