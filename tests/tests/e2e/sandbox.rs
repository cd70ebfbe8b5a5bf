//! What a command can see and touch of the machine, the farm and other instances.

use crate::farm;
use motefarm_tests::files;
use std::path::Path;

#[test]
fn a_command_sees_neither_the_farm_nor_other_instances_nor_their_processes() {
    let farm = farm().start();
    let (mote, other) = (farm.create(), farm.create());
    if !farm.has_sandbox(&mote, "what a command can not see") {
        farm.destroy(&[&mote, &other]);
        return farm.finish();
    }
    files::write(&farm.dir().join("home"), "planted", farm.secret());
    files::write(&other.work(), "theirs", farm.secret());
    let theirs = farm.detach(&other, "exec sleep 4321.75");
    let paths = [
        farm.data(),
        farm.data().join("farm.db"),
        farm.data().join("tls/ca.key"),
        farm.profile(),
        farm.dir().join("home/planted"),
        farm.dir().join("config/farms/local.toml"),
        other.work().join("theirs"),
        mote.dir.join("meta"),
    ];
    for path in paths {
        let ran = farm.run(&mote, &format!("cat {0} || ls {0}", path.display())).run();
        assert!(ran.stdout.is_empty(), "{} can be read: {}", path.display(), ran.out());
    }
    let find =
        "find / '(' -path /usr -o -path /proc -o -path /sys ')' -prune -o '(' -name planted -o -name theirs ')' -print";
    assert_eq!(farm.run(&mote, &format!("{find} 2>/dev/null")).run().out(), "", "nothing of it is found anywhere");

    // /proc holds its own processes and no others.
    let cmdlines = "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; cat $p/environ; done 2>/dev/null";
    let seen = farm.sh(&mote, cmdlines).out();
    for strange in ["4321.75", "mote-coordinator", "serve", farm.secret(), "cargo"] {
        assert!(!seen.contains(strange), "a command sees {strange:?}: {seen}");
    }
    let count: u32 = farm.sh(&mote, "ls -d /proc/[0-9]* | wc -l").out().trim().parse().expect("a number");
    assert!(count < 10, "{count} processes are seen");
    // Nor can it end what keeps it.
    farm.run(&mote, "kill -9 1 -1; true").run();
    assert_eq!(farm.sh(&mote, "echo kept").out(), "kept");

    // The system is there to be used, not to be changed.
    for path in ["/usr/bin/planted", "/etc/planted", "/planted"] {
        farm.run(&mote, &format!("touch {path}")).run().fails(1);
    }
    farm.run(&mote, "unshare -r mount -t tmpfs x /usr 2>/dev/null && touch /usr/planted").run();
    assert!(!Path::new("/usr/planted").exists());
    farm.sh(&mote, "cc --version >/dev/null 2>&1 || ls /usr/bin >/dev/null");
    assert_ne!(farm.sh(&mote, "id -u").out(), "0");
    farm.mote(["cancel", &theirs]).ok();
    farm.destroy(&[&mote, &other]);
    farm.finish();
}

#[test]
fn links_lead_nowhere_out_of_the_work_directory() {
    let farm = farm().start();
    let mote = farm.create();
    let outside = farm.fresh("outside");
    files::write(&outside, "victim", "untouched");
    let tree = farm.fresh("tree");
    files::write(&tree, "sub/victim", "pushed");
    // A command plants links where the next push and fetch will go.
    std::os::unix::fs::symlink(&outside, mote.work().join("it")).expect("a link");
    farm.push(&tree, "it", &mote).run();
    assert_eq!(std::fs::read_to_string(outside.join("victim")).expect("a file"), "untouched");
    assert!(!outside.join("sub").exists(), "a push went through a link");
    let _ = std::fs::remove_file(mote.work().join("it"));
    farm.push(&tree, "it", &mote).ok();
    std::fs::remove_dir_all(mote.work().join("it/sub")).expect("removable");
    std::os::unix::fs::symlink(&outside, mote.work().join("it/sub")).expect("a link");
    farm.push(&tree, "it", &mote).ok();
    assert_eq!(std::fs::read_to_string(outside.join("victim")).expect("a file"), "untouched");
    assert_eq!(std::fs::read_to_string(mote.work().join("it/sub/victim")).expect("a file"), "pushed");
    std::os::unix::fs::symlink(&outside, mote.work().join("escape")).expect("a link");
    for dir in ["escape", "escape/.", "it/../escape"] {
        let ran = farm.mote(["gettar", "--plain", "-o", "-", "--dir", dir, &mote.name]).run();
        assert!(!String::from_utf8_lossy(&ran.stdout).contains("untouched"), "{dir} leads out");
    }
    farm.destroy(&[&mote]);
    farm.finish();
}
