//! Certificates that an operator brings: who sees which, replacing them, and what is said of bad ones.

use crate::{farm, seconds};
use motefarm_net::tls;
use motefarm_tests::joined::{HOST_TYPE, Joined};
use motefarm_tests::{Mote, TestFarm, processes, wait};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use std::fs;
use std::path::{Path, PathBuf};

/// A certificate authority of somebody else's.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { pem: certificate.pem(), issuer: Issuer::new(params, key) }
    }

    /// Certificate and key for a name, until the end of a year.
    fn issue(&self, name: &str, until: i32) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(until, 12, 31);
        (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key.serialize_pem())
    }
}

/// A farm that shows a certificate for `localhost` of this authority.
struct Shown {
    farm: TestFarm,
    cert: PathBuf,
    key: PathBuf,
    ca: PathBuf,
    server: String,
}

impl Shown {
    fn start(authority: &Authority, (cert_pem, key_pem): &(String, String)) -> Self {
        let farm = farm().no_buildlet().prepare();
        let (cert, key, ca) = (farm.fresh("cert"), farm.fresh("key"), farm.fresh("ca"));
        fs::write(&cert, cert_pem).expect("a file");
        fs::write(&key, key_pem).expect("a file");
        fs::write(&ca, &authority.pem).expect("a file");
        farm.add_config(&format!("[tls]\ncert = '{}'\nkey = '{}'", cert.display(), key.display()));
        farm.start_coordinator();
        let server = farm.address().replace("127.0.0.1", "localhost");
        Self { farm, cert, key, ca, server }
    }

    /// A call that trusts this authority, by this address.
    fn as_stranger(&self, server: &str, ca: &Path) -> Mote {
        let token = self.farm.profile_value("token");
        self.farm.mote(["whoami", "--server", server]).arg("--ca").arg(ca).env("MOTE_TOKEN", token)
    }
}

#[test]
fn strangers_see_the_operators_certificate_and_friends_the_farms_own() {
    let authority = Authority::new("Operator's");
    let shown = Shown::start(&authority, &authority.issue("localhost", 2035));
    let farm = &shown.farm;
    shown.as_stranger(&shown.server, &shown.ca).ok();
    // By a name it is not for.
    let ran = shown.as_stranger(&farm.address(), &shown.ca).run().fails(4);
    assert!(ran.stderr.contains("is for") && ran.stderr.contains("localhost"), "{}", ran.stderr);
    // Whoever knows the farm's own authority goes on as before, by any name: profiles, join tokens, pins.
    farm.mote(["whoami"]).ok();
    farm.mote(["whoami", "--server", &shown.server]).ok();
    let joined = Joined::start(farm, &shown.server, &[]);
    wait::until_true("a buildlet joins by the farm's own authority", seconds(30), || {
        farm.mote(["admin", "buildlets"]).ok().out().contains(HOST_TYPE)
    });
    joined.finish(farm);
    let pin = tls::ca_hash(&farm.profile_value("ca_pem")).expect("a CA");
    let login = ["login", "--server", &shown.server, "--ca-fingerprint", &pin, "--farm", "pinned"];
    farm.mote(login).env("MOTE_TOKEN", farm.profile_value("token")).ok();
    // A machine that trusts the operator's authority anyway needs neither pin nor file.
    let home = farm.fresh("home");
    let system = |args: &[&str]| {
        farm.mote(args)
            .env("SSL_CERT_FILE", &shown.ca)
            .env("SSL_CERT_DIR", "/nonexistent")
            .env("MOTE_CONFIG_DIR", &home)
    };
    system(&["login", "--server", &shown.server]).env("MOTE_TOKEN", farm.profile_value("token")).ok();
    system(&["whoami"]).ok();
    let profile = fs::read_to_string(home.join("farms/local.toml")).expect("a profile");
    assert!(profile.contains("ca_pem = \"\""), "{profile}");
    // And with other roots the same profile is refused, with what to do.
    let other = farm.fresh("other-ca");
    fs::write(&other, Authority::new("Somebody else's").pem).expect("a file");
    let ran = system(&["whoami"]).env("SSL_CERT_FILE", &other).run().fails(4);
    assert!(ran.stderr.contains("not from an authority that is trusted"), "{}", ran.stderr);
    shown.farm.finish();
}

#[test]
fn a_new_certificate_is_taken_without_a_restart_and_a_broken_one_is_not() {
    let (old, new) = (Authority::new("Old"), Authority::new("New"));
    let shown = Shown::start(&old, &old.issue("localhost", 2035));
    let farm = &shown.farm;
    let pid = farm.coordinator_pid().expect("it runs");
    let new_ca = farm.fresh("new-ca");
    fs::write(&new_ca, &new.pem).expect("a file");
    shown.as_stranger(&shown.server, &shown.ca).ok();
    // Rubbish, and a certificate that does not fit its key: the one before stays.
    fs::write(&shown.cert, "rubbish").expect("a file");
    processes::signal(pid, Signal::SIGHUP);
    wait::until_true("it says why", seconds(10), || farm.coordinator_log(50).contains("no use"));
    shown.as_stranger(&shown.server, &shown.ca).ok();
    let (cert, key) = new.issue("localhost", 2035);
    fs::write(&shown.cert, &cert).expect("a file");
    processes::signal(pid, Signal::SIGHUP);
    wait::until_true("and again", seconds(10), || farm.coordinator_log(50).matches("no use").count() >= 2);
    shown.as_stranger(&shown.server, &shown.ca).ok();
    // The key follows: noticed without a signal.
    fs::write(&shown.key, &key).expect("a file");
    wait::until_true("the new one is shown", seconds(20), || {
        shown.as_stranger(&shown.server, &new_ca).run().code() == 0
    });
    let ran = shown.as_stranger(&shown.server, &shown.ca).run().fails(4);
    assert!(ran.stderr.contains("not from an authority"), "{}", ran.stderr);
    assert_eq!(farm.coordinator_pid(), Some(pid), "and the coordinator is the same");
    shown.farm.finish();
}

#[test]
fn an_expired_certificate_is_called_that() {
    let authority = Authority::new("Operator's");
    let shown = Shown::start(&authority, &authority.issue("localhost", 2021));
    let ran = shown.as_stranger(&shown.server, &shown.ca).run().fails(4);
    assert!(ran.stderr.contains("has expired") && ran.stderr.contains("clock"), "{}", ran.stderr);
    // Its own is not.
    shown.farm.mote(["whoami"]).ok();
    shown.farm.finish();
}

#[test]
fn a_certificate_that_is_no_use_is_named_before_the_port_opens() {
    let authority = Authority::new("Operator's");
    let (cert_pem, _) = authority.issue("localhost", 2035);
    let (_, other_key) = authority.issue("localhost", 2035);
    let farm = farm().no_buildlet().prepare();
    let (cert, key) = (farm.fresh("cert"), farm.fresh("key"));
    farm.add_config(&format!("[tls]\ncert = '{}'\nkey = '{}'", cert.display(), key.display()));
    let start = || farm.coordinator(&["serve", "--listen", "127.0.0.1:0"]).patience(seconds(20)).run().fails(1).stderr;
    assert!(start().contains(&cert.display().to_string()), "a file that is missing is named");
    fs::write(&cert, &cert_pem).expect("a file");
    fs::write(&key, "rubbish").expect("a file");
    let told = start();
    assert!(told.contains(&key.display().to_string()) && !told.contains("rubbish"), "{told}");
    fs::write(&key, &other_key).expect("a file");
    let told = start();
    assert!(told.contains("[tls]") && !told.contains("PRIVATE"), "{told}");
    let (cert_pem, key_pem) = authority.issue("localhost", 2035);
    fs::write(&cert, &cert_pem).expect("a file");
    fs::write(&key, &key_pem).expect("a file");
    farm.start_coordinator();
    farm.finish();
}
