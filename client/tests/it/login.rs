//! Signing in and out: whom to believe, what is kept, and what is said to whom.

use crate::fake_farm::FakeFarm;
use crate::mote::{Home, Ran};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

fn fingerprint(farm: &FakeFarm) -> String {
    motefarm_net::tls::ca_hash(&farm.ca_pem).unwrap()
}

/// A home that knows no farm.
fn empty_home(farm: &FakeFarm) -> Home {
    let home = farm.home();
    fs::remove_file(home.path("config/farms/local.toml")).unwrap();
    home
}

fn login(home: &Home, farm: &FakeFarm, more: &[&str], token: Option<&str>) -> Ran {
    let server = farm.address.to_string();
    let mut command = home.command(["login", "--server", &server].iter().chain(more));
    if let Some(token) = token {
        command.env("MOTE_TOKEN", token);
    }
    Ran::from(command.output().unwrap())
}

#[test]
fn a_farm_that_is_not_known_is_shown_and_not_spoken_to() {
    let farm = FakeFarm::start();
    let home = empty_home(&farm);
    let ran = login(&home, &farm, &[], Some("mote_t"));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains(&fingerprint(&farm)) && ran.stderr.contains("--ca-fingerprint"), "{ran:?}");
    let wrong = login(&home, &farm, &["--ca-fingerprint", &"0".repeat(64)], Some("mote_t"));
    assert_eq!(wrong.code, Some(3), "{wrong:?}");
    assert!(wrong.stderr.contains("another farm"), "{wrong:?}");
    assert_eq!(login(&home, &farm, &["--ca-fingerprint", "abc"], None).code, Some(2));
    assert!(farm.state().calls.is_empty(), "nobody said anything to it: {:?}", farm.state().calls);
    assert!(!home.path("config/farms/local.toml").exists());
}

#[test]
fn a_token_that_works_makes_a_profile_that_works() {
    let farm = FakeFarm::start();
    let home = empty_home(&farm);
    let pin = fingerprint(&farm);
    fs::write(home.path("token"), "mote_t\n").unwrap();
    let bad = login(&home, &farm, &["--ca-fingerprint", &pin], Some("mote_bad"));
    assert_eq!(bad.code, Some(3), "{bad:?}");
    assert!(!home.path("config/farms/local.toml").exists(), "what did not work is not kept");
    let nobody = login(&home, &farm, &["--ca-fingerprint", &pin], None);
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    let ran = login(&home, &farm, &["--ca-fingerprint", &pin, "--token-file", "token", "--farm", "work"], None);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let profile = home.path("config/farms/work.toml");
    assert_eq!(fs::metadata(&profile).unwrap().permissions().mode() & 0o777, 0o600);
    let who = home.mote(&["whoami", "--farm", "work"]);
    assert!(who.text().starts_with("alice (user) at ") && who.text().contains("laptop"), "{who:?}");
    assert_eq!(home.mote(&["auth", "token", "--farm", "work"]).text(), "mote_t\n");
    // Again, without a word about whom to believe: it is known.
    assert_eq!(login(&home, &farm, &["--farm", "work"], Some("mote_t2")).code, Some(0));
    assert_eq!(home.mote(&["auth", "token", "--farm", "work"]).text(), "mote_t2\n");
    let out = home.mote(&["logout", "--farm", "work", "--revoke"]);
    assert_eq!(out.code, Some(0), "{out:?}");
    assert!(!profile.exists() && farm.state().calls.contains(&"revoke_own_token"));
    assert!(farm.state().tokens.iter().all(|token| token.starts_with("Bearer mote_")));
}

#[test]
fn another_farms_profile_is_not_replaced_by_chance() {
    let (one, two) = (FakeFarm::start(), FakeFarm::start());
    let home = one.home();
    let before = fs::read(home.path("config/farms/local.toml")).unwrap();
    let pin = fingerprint(&two);
    let ran = login(&home, &two, &["--ca-fingerprint", &pin], Some("mote_t"));
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("--farm NAME"), "{ran:?}");
    assert_eq!(fs::read(home.path("config/farms/local.toml")).unwrap(), before);
    assert_eq!(login(&home, &two, &["--ca-fingerprint", &pin, "--farm", "local"], Some("mote_t")).code, Some(0));
}

#[test]
fn a_page_is_shown_and_waited_for() {
    let farm = FakeFarm::start();
    farm.state().issuer = "https://id.example".to_owned();
    let home = empty_home(&farm);
    let ran = login(&home, &farm, &["--ca-fingerprint", &fingerprint(&farm)], None);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("https://id.example/device?user_code=ABCD-EFGH"), "{ran:?}");
    assert_eq!(home.mote(&["auth", "token"]).text(), "mote_by_page\n");
    assert!(!ran.stderr.contains("mote_by_page"), "the token is not shown");
}

#[test]
fn a_damaged_profile_is_mended_by_signing_in() {
    let farm = FakeFarm::start();
    let home = farm.home();
    fs::write(home.path("config/farms/local.toml"), "server = \"x:1\"\ntoken = \"mote_secret").unwrap();
    let ran = home.mote(&["list"]);
    assert_eq!(ran.code, Some(3), "{ran:?}");
    assert!(ran.stderr.contains("damaged") && ran.stderr.contains("mote login"), "{ran:?}");
    assert!(!ran.stderr.contains("mote_secret"), "{ran:?}");
    let mended = login(&home, &farm, &["--ca-fingerprint", &fingerprint(&farm)], Some("mote_t"));
    assert_eq!(mended.code, Some(0), "{mended:?}");
    assert_eq!(home.mote(&["whoami"]).code, Some(0));
}

#[test]
fn somebody_at_a_terminal_is_asked_and_the_token_is_not_shown() {
    let farm = FakeFarm::start();
    let home = empty_home(&farm);
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let slave = File::from(rustix::fs::open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap());
    let server = farm.address.to_string();
    let mut command = home.command(["login", "--server", &server]);
    command.stdin(slave.try_clone().unwrap()).stderr(slave);
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut keyboard = File::from(master);
    let mut screen = keyboard.try_clone().unwrap();
    let (sender, pieces) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = screen.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut seen = String::new();
    let mut wait_for = |text: &str| {
        let end = Instant::now() + Duration::from_secs(20);
        while !seen.contains(text) {
            match pieces.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(piece) => seen.push_str(&String::from_utf8_lossy(&piece)),
                Err(_) => panic!("{text:?} is not shown: {seen:?}"),
            }
        }
        seen.clone()
    };
    let shown = wait_for("[y/N]").replace([' ', '\r', '\n'], "");
    assert!(shown.contains(&fingerprint(&farm)), "{shown}");
    keyboard.write_all(b"y\n").unwrap();
    wait_for("not shown):");
    keyboard.write_all(b"mote_typee\x7fd\n").unwrap();
    let all = wait_for("signed in to");
    assert!(child.wait().unwrap().success());
    assert!(!all.contains("mote_type"), "{all}");
    assert_eq!(home.mote(&["auth", "token"]).text(), "mote_typed\n");
}
