//! Device sign-in at a real OpenID Connect provider (npm's certified `oidc-provider`), through its own pages.

use crate::{farm, seconds};
use motefarm_tests::{Ran, TestFarm, wait};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What is installed from the registry; its own dependencies are as it names them.
const PACKAGE: &str = "oidc-provider@8.8.1";

/// The provider, running. Killed when dropped.
struct Provider {
    child: Child,
    issuer: String,
    dir: PathBuf,
}

impl Provider {
    /// Installs and starts it, or says why that can not be done here.
    fn start(dir: &Path) -> Result<Self, String> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/oidc");
        fs::create_dir(dir).expect("a directory");
        for name in ["provider.mjs", "agree.mjs"] {
            fs::copy(sources.join(name), dir.join(name)).expect("a script");
        }
        fs::write(dir.join("package.json"), "{\"private\": true, \"type\": \"module\"}").expect("a file");
        fs::write(dir.join("secret"), "of the client's\n").expect("a file");
        let log = fs::File::create(dir.join("npm.log")).expect("a log");
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", PACKAGE]);
        npm.current_dir(dir).stdin(Stdio::null()).stdout(log.try_clone().expect("a log")).stderr(log);
        let mut npm = npm.spawn().map_err(|e| format!("npm: {e}"))?;
        let ended = wait::maybe(seconds(120), || npm.try_wait().expect("a child can be waited for"));
        if !ended.is_some_and(|status| status.success()) {
            let _ = npm.kill();
            let _ = npm.wait();
            let log = fs::read_to_string(dir.join("npm.log")).unwrap_or_default();
            return Err(format!("npm could not install {PACKAGE}: {}", log.lines().next().unwrap_or("no answer")));
        }
        let out = fs::File::create(dir.join("out")).expect("a file");
        let log = fs::File::create(dir.join("provider.log")).expect("a log");
        let mut node = Command::new("node");
        node.args(["provider.mjs", "secret"]).current_dir(dir).stdin(Stdio::null()).stdout(out).stderr(log);
        let child = node.spawn().map_err(|e| format!("node: {e}"))?;
        let mut provider = Self { child, issuer: String::new(), dir: dir.to_owned() };
        let said = || fs::read_to_string(dir.join("out")).ok().filter(|text| text.ends_with('\n'));
        match wait::maybe(seconds(30), said) {
            Some(issuer) => provider.issuer = issuer.trim().to_owned(),
            None => panic!("it does not serve: {}", fs::read_to_string(dir.join("provider.log")).unwrap_or_default()),
        }
        Ok(provider)
    }

    /// What a person does on its pages.
    fn agree(&self, page: &str, user: &str, more: &[&str]) {
        let mut node = Command::new("node");
        let output =
            node.args(["agree.mjs", page, user]).args(more).current_dir(&self.dir).output().expect("node runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `mote login` by the page, as this user of the provider's; `more` is for the page.
fn sign_in(farm: &TestFarm, provider: &Provider, user: &str, more: &[&str]) -> Ran {
    let pin = motefarm_net::tls::ca_hash(&farm.profile_value("ca_pem")).expect("a CA");
    let login = ["login", "--server", &farm.address(), "--ca-fingerprint", &pin, "--farm", user];
    let mut login = farm.mote(login).spawn();
    login.until_stderr("waiting for", seconds(20));
    let stderr = login.stderr();
    let page = stderr.split_whitespace().find(|word| word.starts_with("http")).expect("a page is named");
    assert!(page.starts_with(&format!("{}/device?user_code=", provider.issuer)), "{page}");
    provider.agree(page, user, more);
    login.wait()
}

#[test]
fn users_sign_in_on_the_providers_page() {
    let farm = farm().prepare();
    let provider = match Provider::start(&farm.fresh("provider")) {
        Ok(provider) => provider,
        Err(why) => return wait::skipped("sign-in at a real OpenID Connect provider", &why),
    };
    farm.add_config(&format!(
        "[oidc]\nissuer = '{}'\nclient_id = 'mote'\nclient_secret_file = '{}'\ntoken_lifetime = '1h'\n\
         [[oidc.roles]]\nrole = 'admin'\nclaim = 'groups'\nvalues = ['ops']\n\
         [[oidc.roles]]\nrole = 'user'\nclaim = 'groups'\nvalues = ['dev']",
        provider.issuer,
        provider.dir.join("secret").display()
    ));
    farm.start_coordinator();
    // By their groups, one is an admin, one a user, one nobody.
    sign_in(&farm, &provider, "alice", &[]).ok();
    let who = farm.mote(["--json", "whoami", "--farm", "alice"]).ok().json();
    assert_eq!((who["user"].as_str(), who["role"].as_str()), (Some("alice"), Some("admin")), "{who}");
    assert!(who["token_expires_at_ms"].as_i64().is_some_and(|at| at > 0), "the token runs out: {who}");
    farm.mote(["admin", "user", "list", "--farm", "alice"]).ok();
    sign_in(&farm, &provider, "bob", &[]).ok();
    farm.mote(["admin", "user", "list", "--farm", "bob"]).run().fails(1);
    let refused = sign_in(&farm, &provider, "mallory", &[]).fails(3);
    assert!(refused.stderr.contains("role"), "{}", refused.stderr);
    let denied = sign_in(&farm, &provider, "bob", &["deny"]).fails(3);
    assert!(denied.stderr.contains("refused on the page"), "{}", denied.stderr);
    // What they have are tokens like any other: listed, revocable, in the audit.
    let tokens = farm.mote(["admin", "token", "list", "--user", "bob", "--json"]).ok().json();
    let name = tokens["tokens"][0]["name"].as_str().expect("a token").to_owned();
    farm.mote(["admin", "token", "revoke", "--user", "bob", "--name", &name]).ok();
    farm.mote(["list", "--farm", "bob"]).run().fails(3);
    let audit = farm.mote(["admin", "audit"]).ok().out();
    for words in ["sign-in", "sign-in refused", "user add", &provider.issuer] {
        assert!(audit.contains(words), "{words}: {audit}");
    }
    // Neither the secret nor a token is in the log.
    let log = farm.coordinator_log(1000);
    assert!(!log.contains("of the client's") && !log.contains("eyJ") && !log.contains("mote_"), "{log}");
    drop(provider);
    farm.finish();
}
