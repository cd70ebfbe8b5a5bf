//! Who gets in, and who does not.

use super::Reached;
use crate::seconds;
use motefarm_tests::{Ran, wait};
use std::fs;
use std::path::Path;

impl Reached {
    /// Plain ssh with just these credentials.
    fn raw(&self, user: &str, key: &Path, certificate: Option<&Path>, more: &[&str]) -> Ran {
        let farm = self.certificate().with_file_name("known_hosts");
        let mut ssh = self.farm.program("ssh".as_ref()).args(["-F", "none", "-p", &self.port().to_string()]);
        ssh = ssh.args(["-o", "HostKeyAlias=motefarm", "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes"]);
        ssh = ssh.arg("-o").arg(format!("UserKnownHostsFile={}", farm.display())).arg("-i").arg(key);
        if let Some(certificate) = certificate {
            ssh = ssh.arg("-o").arg(format!("CertificateFile={}", certificate.display()));
        }
        ssh.args(["-o", "BatchMode=yes"]).args(more).arg(format!("{user}@127.0.0.1")).arg("echo in").run()
    }

    fn refused(&self, user: &str, key: &Path, certificate: Option<&Path>, why: &str) {
        let ran = self.raw(user, key, certificate, &[]);
        assert_eq!(ran.status.code(), Some(255), "{why}: {}", ran.stderr);
        assert!(ran.stderr.contains("Permission denied (publickey)"), "{why}: {}", ran.stderr);
    }
}

#[test]
fn only_a_certificate_of_this_farm_for_this_instance_lets_in() {
    let Some(reached) = Reached::new() else { return };
    let (name, key) = (reached.instance.name.clone(), reached.keys().join("id_ed25519"));
    reached.farm.mote(["ssh-cert", &name]).ok();
    let certificate = reached.certificate();
    assert_eq!(reached.raw(&name, &key, Some(&certificate), &[]).ok().out(), "in");
    assert_eq!(reached.raw(&reached.instance.id, &key, Some(&certificate), &[]).ok().out(), "in", "by id too");

    let bare = reached.farm.dir().join("bare");
    fs::copy(&key, &bare).unwrap();
    reached.refused(&name, &bare, None, "a plain key");
    reached.refused("root", &key, Some(&certificate), "another user");
    let other = reached.farm.create();
    reached.refused(&other.name, &key, Some(&certificate), "another instance");
    let ran = reached.raw(&name, &bare, None, &["-o", "PreferredAuthentications=password,keyboard-interactive"]);
    assert!(ran.status.code() == Some(255) && ran.stderr.contains("Permission denied (publickey)"), "{}", ran.stderr);
    // Another authority's certificate with all the right words in it.
    let keygen = |args: &[&str]| reached.farm.program("ssh-keygen".as_ref()).args(args).ok();
    let (ca, stranger) = (reached.farm.dir().join("ca"), reached.farm.dir().join("stranger"));
    for path in [&ca, &stranger] {
        keygen(&["-q", "-t", "ed25519", "-N", "", "-f", path.to_str().unwrap()]);
    }
    let told = keygen(&["-L", "-f", certificate.to_str().unwrap()]).out();
    let id = told.split("Key ID: \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let principals = format!("instance:{},user:{}", reached.instance.id, reached.farm.user());
    assert!(told.contains(&format!("instance:{}", reached.instance.id)), "{told}");
    let public = stranger.with_extension("pub");
    keygen(&["-q", "-s", ca.to_str().unwrap(), "-I", &id, "-n", &principals, "-V", "+5m", public.to_str().unwrap()]);
    reached.refused(&name, &stranger, Some(&reached.farm.dir().join("stranger-cert.pub")), "another authority");
    // The farm's own authority: a host's certificate, and one with an option nobody here knows.
    let own = reached.farm.data().join("ssh/user_ca");
    let own = own.to_str().unwrap();
    keygen(&["-q", "-h", "-s", own, "-I", &id, "-n", &principals, public.to_str().unwrap()]);
    reached.refused(&name, &stranger, Some(&reached.farm.dir().join("stranger-cert.pub")), "a host's");
    keygen(&["-q", "-s", own, "-I", &id, "-n", &principals, "-O", "force-command=true", public.to_str().unwrap()]);
    reached.refused(&name, &stranger, Some(&reached.farm.dir().join("stranger-cert.pub")), "a critical option");
    keygen(&["-q", "-s", own, "-I", &id, public.to_str().unwrap()]);
    reached.refused(&name, &stranger, Some(&reached.farm.dir().join("stranger-cert.pub")), "no principals");
    keygen(&["-q", "-s", own, "-I", &id, "-n", &principals, "-V", "-10m:-5m", public.to_str().unwrap()]);
    reached.refused(&name, &stranger, Some(&reached.farm.dir().join("stranger-cert.pub")), "too old");
    keygen(&["-q", "-s", own, "-I", &id, "-n", &principals, "-V", "+5m", public.to_str().unwrap()]);
    let good = reached.raw(&name, &stranger, Some(&reached.farm.dir().join("stranger-cert.pub")), &[]);
    assert_eq!(good.ok().out(), "in", "so it was each of these");
    assert!(reached.farm.coordinator_log(400).contains("an ssh certificate was refused"));
    reached.finish();
}

#[test]
fn a_key_that_only_an_agent_holds_is_signed_and_used() {
    let Some(reached) = Reached::new() else { return };
    let dir = reached.farm.dir().to_owned();
    let (key, socket) = (dir.join("own"), dir.join("agent"));
    let keygen = ["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()];
    reached.farm.program("ssh-keygen".as_ref()).args(keygen).ok();
    let agent = reached.farm.program("ssh-agent".as_ref()).arg("-D").arg("-a").arg(&socket).spawn();
    wait::until_true("an agent is there", seconds(10), || socket.exists());
    reached.farm.program("ssh-add".as_ref()).env("SSH_AUTH_SOCK", &socket).arg("-q").arg(&key).ok();
    fs::remove_file(&key).unwrap();
    let by_key = |agent: &Path| {
        let words = ["ssh", "--no-reuse", "--key", "own.pub", &reached.instance.name, "echo in"];
        reached.farm.mote(words).cwd(&dir).env("SSH_AUTH_SOCK", agent).run()
    };
    assert_eq!(by_key(&socket).ok().out(), "in");
    by_key(&dir.join("nobody")).fails(255);
    agent.kill9();
    drop(agent);
    reached.finish();
}

#[test]
fn certificates_end_with_their_time_and_are_renewed_when_stale() {
    let Some(reached) = Reached::of(crate::farm().ssh("certificate_lifetime = '2s'")) else { return };
    let (name, key) = (reached.instance.name.clone(), reached.keys().join("id_ed25519"));
    reached.farm.mote(["ssh-cert", &name]).ok();
    let old = reached.farm.dir().join("old-cert.pub");
    fs::copy(reached.certificate(), &old).unwrap();
    let running = reached.ssh(&[], "sleep 6; echo done").spawn();
    wait::until_true("it has expired", seconds(20), || !reached.raw(&name, &key, Some(&old), &[]).status.success());
    assert_eq!(running.wait().ok().out(), "done", "a connection that stands goes on");
    // ssh renews by itself.
    assert_eq!(reached.ssh(&[], "echo fresh").ok().out(), "fresh");
    reached.finish();
}

#[test]
fn a_revoked_token_takes_its_certificates_and_connections_along() {
    let Some(reached) = Reached::new() else { return };
    let token = reached.farm.mote(["admin", "user", "add", "bob"]).ok().out();
    let token = if token.starts_with("mote_") {
        token
    } else {
        reached.farm.mote(["admin", "token", "create", "--user", "bob", "--name", "t"]).ok().out()
    };
    let bob = |args: &[&str]| {
        reached
            .farm
            .mote_as(&token, args)
            .env("MOTE_CONFIG_DIR", reached.farm.dir().join("bob"))
            .env("MOTE_SERVER", reached.farm.address())
            .env("MOTE_CA", reached.farm.data().join("tls/ca.pem"))
    };
    let theirs = bob(&["create", &motefarm_tests::TestFarm::host_type()]).ok().out();
    assert_eq!(bob(&["ssh", "--no-reuse", &theirs, "echo", "mine"]).ok().out(), "mine");
    bob(&["ssh", "--no-reuse", &reached.instance.name, "true"]).run().fails(255).says(&["there is no instance"]);
    let mut running = bob(&["ssh", "--no-reuse", &theirs, "echo up; exec sleep 1000"]).spawn();
    running.until_stdout("up", seconds(20));
    let names = reached.farm.mote(["admin", "token", "list", "--user", "bob"]).ok().out();
    let name = names
        .lines()
        .find(|line| line.contains("bob"))
        .and_then(|line| line.split_whitespace().nth(1))
        .unwrap_or("t")
        .to_owned();
    reached.farm.mote(["admin", "token", "revoke", "--user", "bob", "--name", &name]).ok();
    let ran = running.wait();
    assert_eq!(ran.status.code(), Some(255));
    assert!(ran.stderr.contains("token"), "{}", ran.stderr);
    let ran = bob(&["ssh", "--no-reuse", &theirs, "true"]).run();
    assert_eq!(ran.status.code(), Some(255));
    reached.farm.mote(["destroy", &theirs]).ok();
    reached.finish();
}

#[test]
fn a_new_authority_signs_and_the_old_ones_certificates_stay_good() {
    let Some(reached) = Reached::new() else { return };
    reached.farm.mote(["ssh-cert", &reached.instance.name]).ok();
    let before = fs::read(reached.certificate()).unwrap();
    reached.farm.stop_coordinator();
    reached.farm.coordinator(&["ssh", "rotate-ca"]).ok();
    reached.farm.start_coordinator();
    assert_eq!(reached.ssh(&[], "echo old").ok().out(), "old");
    assert!(fs::read(reached.certificate()).unwrap() == before);
    reached.farm.mote(["ssh-cert", &reached.instance.name]).ok();
    assert_eq!(reached.ssh(&[], "echo new").ok().out(), "new");
    reached.finish();
}
