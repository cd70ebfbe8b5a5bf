//! scp, sftp, rsync and git over it.

use super::{Reached, has};
use motefarm_tests::{Dice, files};
use std::path::Path;

fn tree(dir: &Path) {
    files::write(dir, "a/b/deep.txt", "deep");
    files::write(dir, "empty", "");
    files::write(dir, "big.bin", Dice::new(3).bytes(5_000_000));
    files::write_script(dir, "run.sh", "echo ran");
    files::write(dir, files::strange_name(), "strange");
}

#[test]
fn scp_copies_trees_both_ways() {
    let Some(reached) = Reached::new() else { return };
    let (from, back) = (reached.farm.fresh("tree"), reached.farm.fresh("back"));
    std::fs::create_dir(&from).unwrap();
    tree(&from);
    reached.program("scp").args(["-q", "-r", "-p"]).arg(&from).arg(format!("{}:there", reached.host())).ok();
    files::assert_equal(&files::read(&reached.instance.work().join("there"), &[]), &files::read(&from, &[]));
    assert_eq!(reached.ssh(&[], "there/run.sh").ok().out(), "ran");
    reached.program("scp").args(["-q", "-r", "-p"]).arg(format!("{}:there", reached.host())).arg(&back).ok();
    files::assert_equal(&files::read(&back, &[]), &files::read(&from, &[]));
    reached.finish();
}

#[test]
fn sftp_does_what_a_batch_says() {
    let Some(reached) = Reached::new() else { return };
    let local = reached.farm.fresh("local");
    std::fs::write(&local, Dice::new(4).bytes(1_000_000)).unwrap();
    let got = reached.farm.fresh("got");
    let batch = format!(
        "mkdir d\ncd d\nput {} one\nrename one two\nchmod 640 two\nln -s two three\nls -l\npwd\nget three {}\ndf -h\nrm three\n",
        local.display(),
        got.display()
    );
    let file = reached.farm.fresh("batch");
    std::fs::write(&file, batch).unwrap();
    let ran = reached.program("sftp").arg("-b").arg(&file).arg(reached.host()).ok();
    assert!(ran.out().contains("-rw-r-----") && ran.out().contains("three"), "{}", ran.out());
    assert_eq!(std::fs::read(&got).unwrap(), std::fs::read(&local).unwrap());
    let there = reached.instance.work().join("d");
    assert_eq!(std::fs::read_dir(&there).unwrap().count(), 1);
    // It is as far inside as any command: what is hidden from those is hidden here.
    if reached.farm.has_sandbox(&reached.instance, "that sftp sees no more than commands do") {
        let peek = format!("ls {}\n", reached.farm.data().display());
        std::fs::write(&file, peek).unwrap();
        let ran = reached.program("sftp").arg("-b").arg(&file).arg(reached.host()).run();
        assert!(!ran.status.success() && !ran.out().contains("farm.db"), "{}", ran.out());
    }
    reached.finish();
}

#[test]
fn rsync_sends_what_differs_and_git_pushes() {
    let Some(reached) = Reached::new() else { return };
    if !has("rsync") || !has("git") {
        return reached.finish();
    }
    let from = reached.farm.fresh("tree");
    std::fs::create_dir(&from).unwrap();
    tree(&from);
    let by = format!("ssh -F {}", reached.config.display());
    let sync = || {
        let rsync = reached.farm.program("rsync".as_ref()).args(["-a", "-c", "--delete", "--stats", "-e", &by]);
        rsync.arg(format!("{}/", from.display())).arg(format!("{}:synced/", reached.host())).ok().out()
    };
    sync();
    files::assert_equal(&files::read(&reached.instance.work().join("synced"), &[]), &files::read(&from, &[]));
    let mut big = std::fs::read(from.join("big.bin")).unwrap();
    big[2_500_000] ^= 1;
    std::fs::write(from.join("big.bin"), big).unwrap();
    std::fs::remove_file(from.join("empty")).unwrap();
    let stats = sync();
    let sent = stats.lines().find_map(|line| line.strip_prefix("Literal data: ")).expect("rsync tells");
    let sent: u64 = sent.split(' ').next().unwrap().replace(',', "").parse().unwrap();
    assert!(sent < 100_000, "only what differs is sent, not {sent} bytes");
    files::assert_equal(&files::read(&reached.instance.work().join("synced"), &[]), &files::read(&from, &[]));

    files::git_init(&from);
    files::git_commit(&from);
    reached.ssh(&[], "git init -q --bare repo.git").ok();
    let push = reached.farm.program("git".as_ref()).args(["push", "-q"]).env("GIT_SSH_COMMAND", &by).cwd(&from);
    push.arg(format!("{}:repo.git", reached.host())).arg("HEAD:refs/heads/main").ok();
    let here = reached.farm.program("git".as_ref()).args(["rev-parse", "HEAD"]).cwd(&from).ok().out();
    assert_eq!(reached.ssh(&[], "git -C repo.git rev-parse main").ok().out(), here);
    reached.finish();
}
