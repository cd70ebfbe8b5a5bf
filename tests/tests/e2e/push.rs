//! Trees: pushed, changed, healed, interrupted, fetched.

use crate::{farm, seconds};
use motefarm_tests::files::{self, Entry, Tree};
use motefarm_tests::{Dice, Instance, TestFarm, wait};
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A small tree with a bit of everything.
fn small_tree(farm: &TestFarm) -> PathBuf {
    let dir = farm.fresh("tree");
    files::write(&dir, "README", "read me\n");
    files::write_script(&dir, "bin/run.sh", "echo ran");
    files::write(&dir, "deep/er/est/file.txt", "deep\n");
    files::write(&dir, "empty-file", "");
    files::write(&dir, "big", Dice::new(1).bytes(3_500_000));
    files::write(&dir, files::strange_name(), "strange");
    files::write(&dir, "twin-a", "the same content");
    files::write(&dir, "twin-b", "the same content");
    files::link(&dir, "link-to-file", "README");
    files::link(&dir, "deep/dangling", "no/such/target");
    files::link(&dir, "link-out", "/etc/passwd");
    fs::create_dir(dir.join("empty-dir")).expect("a directory");
    files::chmod(&dir.join("README"), 0o640);
    dir
}

#[track_caller]
fn assert_pushed(tree: &Path, mote: &Instance, to: &str) {
    files::assert_equal(&files::read(&mote.work().join(to), &[]), &files::read(tree, &[".git"]));
}

/// What a push with `--json` did to its one target.
#[track_caller]
fn pushed(farm: &TestFarm, tree: &Path, mote: &Instance) -> Value {
    let json = farm.mote(["push", "--json", "-C"]).arg(tree).args(["--to", "it", &mote.name]).ok().json();
    let target =
        json["targets"].as_array().or_else(|| json["instances"].as_array()).and_then(|all| all.first().cloned());
    target.unwrap_or_else(|| panic!("no target in {json}"))
}

#[test]
fn a_tree_arrives_as_it_is_and_stays_what_it_becomes() {
    let farm = farm().start();
    let mote = farm.create();
    let tree = small_tree(&farm);
    farm.push(&tree, "it", &mote).ok();
    assert_pushed(&tree, &mote, "it");
    assert_eq!(farm.mote(["run", "--quiet", &mote.name, "it/bin/run.sh"]).ok().out(), "ran");

    // Nothing changed: nothing is done.
    let again = pushed(&farm, &tree, &mote);
    assert_eq!((again["files_written"].as_u64(), again["entries_deleted"].as_u64()), (Some(0), Some(0)), "{again}");

    // Changed, added, removed, chmod; same size and within the same second, too.
    files::write(&tree, "README", "READ ME\n");
    files::write(&tree, "deep/er/new", "new");
    fs::remove_file(tree.join("twin-a")).expect("a file");
    files::chmod(&tree.join("twin-b"), 0o700);
    files::chmod(&tree.join("bin/run.sh"), 0o644);
    fs::remove_dir(tree.join("empty-dir")).expect("a directory");
    farm.push(&tree, "it", &mote).ok();
    assert_pushed(&tree, &mote, "it");

    // Everything becomes something else.
    fs::remove_file(tree.join("link-to-file")).expect("a link");
    files::write(&tree, "link-to-file", "a file now");
    fs::remove_file(tree.join("twin-b")).expect("a file");
    files::link(&tree, "twin-b", "README");
    fs::remove_dir_all(tree.join("deep")).expect("a directory");
    files::write(&tree, "deep", "a file where a directory was");
    fs::remove_file(tree.join("empty-file")).expect("a file");
    files::write(&tree, "empty-file/inside", "a directory where a file was");
    files::link(&tree, "dir-link", "empty-file");
    farm.push(&tree, "it", &mote).ok();
    assert_pushed(&tree, &mote, "it");
    fs::remove_file(tree.join("link-to-file")).expect("a file");
    files::link(&tree, "link-to-file", "README");
    fs::remove_file(tree.join("dir-link")).expect("a link");
    files::write(&tree, "dir-link/x", "and back");
    farm.push(&tree, "it", &mote).ok();
    assert_pushed(&tree, &mote, "it");
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn what_a_command_changed_there_is_healed() {
    let farm = farm().start();
    let mote = farm.create();
    let tree = small_tree(&farm);
    farm.push(&tree, "it", &mote).ok();
    let script = "cd it && echo edited > README && rm big && chmod 000 twin-a && rm -rf deep && echo file > deep \
                  && ln -sf elsewhere link-to-file && mkdir extra && echo x > extra/y && rm empty-file \
                  && mkdir empty-file && printf 'the same cONTENT' > twin-b && chmod 777 bin";
    farm.sh(&mote, script);
    farm.push(&tree, "it", &mote).ok();
    assert_pushed(&tree, &mote, "it");
    // An edit of the same size whose time was set back.
    farm.sh(
        &mote,
        "cd it && touch -r twin-b when && printf 'the same CONTENT' > twin-b && touch -r when twin-b; rm when",
    );
    farm.push(&tree, "it", &mote).ok();
    assert_pushed(&tree, &mote, "it");
    // The whole directory gone, or something else in its place.
    farm.sh(&mote, "rm -rf it");
    farm.push(&tree, "it", &mote).ok();
    assert_pushed(&tree, &mote, "it");
    farm.sh(&mote, "rm -rf it; echo file > it");
    farm.push(&tree, "it", &mote).ok();
    assert_pushed(&tree, &mote, "it");
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn ignored_outputs_stay_and_tracked_files_are_pushed_though_ignored() {
    let farm = farm().start();
    let mote = farm.create();
    let tree = farm.fresh("tree");
    files::write(&tree, ".gitignore", "*.o\n/out/\n!keep.o\n");
    files::write(&tree, "src/.gitignore", "generated.c\n");
    files::write(&tree, "src/main.c", "int main(void) { return 0; }\n");
    files::write(&tree, "tracked.o", "tracked in spite of the rule");
    files::write(&tree, "keep.o", "not ignored after all");
    files::git(&tree_made(&tree), &["init", "-q"]);
    files::git(&tree, &["add", "-f", "tracked.o"]);
    files::git_commit(&tree);
    files::write(&tree, "local.o", "ignored here, not sent");
    files::write(&tree, "untracked.txt", "not ignored, sent");
    farm.push(&tree, "it", &mote).ok();
    let there = mote.work().join("it");
    for sent in ["tracked.o", "keep.o", "untracked.txt", "src/main.c", ".gitignore"] {
        assert!(there.join(sent).exists(), "{sent} was not pushed");
    }
    assert!(!there.join("local.o").exists() && !there.join(".git").exists());
    farm.sh(&mote, "cd it && echo built > main.o && mkdir out && echo lib > out/lib.a && echo g > src/generated.c && echo x > stray.txt");
    files::write(&tree, "src/main.c", "int main(void) { return 1; }\n");
    farm.push(&tree, "it", &mote).ok();
    for kept in ["main.o", "out/lib.a", "src/generated.c"] {
        assert!(there.join(kept).exists(), "{kept} is an ignored output and was deleted");
    }
    assert!(!there.join("stray.txt").exists(), "what is not ignored and not in the tree goes");
    assert!(fs::read_to_string(there.join("src/main.c")).expect("a file").contains("return 1"));
    // No longer tracked: an ignored file like others, which stays as an output would.
    files::git(&tree, &["rm", "-q", "--cached", "tracked.o"]);
    farm.push(&tree, "it", &mote).ok();
    // A directory of the tree that goes takes its ignored outputs along or keeps them; its files go.
    fs::remove_file(tree.join("src/main.c")).expect("a file");
    farm.push(&tree, "it", &mote).ok();
    assert!(!there.join("src/main.c").exists());
    farm.destroy(&[&mote]);
    farm.finish();
}

fn tree_made(tree: &Path) -> PathBuf {
    fs::create_dir_all(tree).expect("a directory");
    tree.to_owned()
}

#[test]
fn where_to_push_is_found_as_documented() {
    let farm = farm().start();
    let mote = farm.create();
    let base = farm.fresh("place");
    let project = base.join("project");
    files::write(&project, "inner/file", "content");
    files::git_init(&project);
    // The git checkout around the current directory, under its own name.
    farm.mote(["push", &mote.name]).cwd(&project.join("inner")).ok();
    assert_eq!(fs::read_to_string(mote.work().join("project/inner/file")).expect("pushed"), "content");
    farm.mote(["push", "-C", "inner", "--to", "a/b/c", &mote.name]).cwd(&project).ok();
    assert_eq!(fs::read_to_string(mote.work().join("a/b/c/file")).expect("pushed"), "content");
    // A dry run says what would be done, and does nothing, not even an upload.
    files::write(&project, "inner/file", "never seen before");
    farm.sh(&mote, "mkdir -p a/b/c/stray && touch a/b/c/stray/one");
    let dry = || farm.mote(["push", "--dry-run", "-C", "inner", "--to", "a/b/c", &mote.name]).cwd(&project);
    dry().ok().says(&["1 would be written, 2 would be deleted", "would write file", "would delete stray/one"]);
    let told = farm.mote(["push", "--json", "--dry-run", "-C", "inner", "--to", "a/b/c", &mote.name]).cwd(&project);
    let told = told.ok().json();
    // Its directory had to be known to the farm; the file's content had not.
    assert_eq!(told["uploaded_blobs"], 0, "{told}");
    assert_eq!(fs::read_to_string(mote.work().join("a/b/c/file")).expect("pushed"), "content");
    assert!(mote.work().join("a/b/c/stray/one").exists());
    farm.mote(["push", "-C", "no-such", &mote.name]).cwd(&project).run().fails(2).says(&["no-such"]);
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn a_tree_that_changes_during_the_walk_is_pushed_as_it_was_or_refused_by_name() {
    let farm = farm().start();
    let mote = farm.create();
    let tree = farm.fresh("tree");
    for i in 0..300 {
        files::write(&tree, format!("stable/{i}"), format!("stable {i}"));
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut dice = Dice::new(5);
            while !over.load(Ordering::SeqCst) {
                let n = dice.below(20);
                let path = tree.join(format!("moving/{n}"));
                let _ = match dice.below(3) {
                    0 => fs::remove_file(&path),
                    1 => fs::create_dir_all(tree.join("moving")).and_then(|()| fs::write(&path, dice.bytes(50_000))),
                    _ => fs::write(&path, format!("{}", dice.number())),
                };
            }
        });
        for _ in 0..8 {
            let ran = farm.push(&tree, "it", &mote).run();
            if ran.code() != 0 {
                assert!(ran.stderr.contains("changed"), "{}", ran.stderr);
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    // At rest it is what it is.
    farm.push(&tree, "it", &mote).ok();
    assert_pushed(&tree, &mote, "it");
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn an_interrupted_push_leaves_files_old_or_new_and_is_healed_by_the_next() {
    let farm = farm().start();
    let mote = farm.create();
    let tree = farm.fresh("tree");
    let mut dice = Dice::thrown("interrupted push");
    for i in 0..400 {
        files::write(&tree, format!("{}/{i}", i % 7), format!("old {i}").repeat(50));
    }
    farm.push(&tree, "it", &mote).ok();
    let mut states: Vec<Tree> = vec![files::read(&tree, &[])];
    for round in 0..6 {
        for i in 0..400 {
            files::write(&tree, format!("{}/{i}", i % 7), format!("round {round} of {i}").repeat(100));
        }
        files::write(&tree, "large", dice.bytes(12_000_000));
        let running = farm.push(&tree, "it", &mote).spawn();
        std::thread::sleep(std::time::Duration::from_millis(dice.below(400)));
        running.kill9();
        drop(running);
        states.push(files::read(&tree, &[]));
        // What the buildlet had begun may go on; each file is one or the other at every moment.
        // (What it stages beside them has a name of its own, and goes.)
        for (path, entry) in files::read_moving(&mote.work().join("it")) {
            let staged = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".mote-sync-"));
            let whole = staged || states.iter().any(|tree| tree.get(&path) == Some(&entry));
            assert!(whole, "{} is neither of the old ones nor the new: {entry:?}", path.display());
        }
    }
    farm.push(&tree, "it", &mote).ok();
    assert_pushed(&tree, &mote, "it");
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn one_push_serves_several_instances() {
    let farm = farm().start();
    let motes = [farm.create(), farm.create(), farm.create()];
    let tree = small_tree(&farm);
    let names: Vec<&String> = motes.iter().map(|mote| &mote.name).collect();
    farm.mote(["push", "-C"]).arg(&tree).args(["--to", "it"]).args(&names).ok();
    motes.iter().for_each(|mote| assert_pushed(&tree, mote, "it"));
    // One that is not there does not keep the others from it.
    files::write(&tree, "README", "newer");
    let mixed = farm.mote(["push", "-C"]).arg(&tree).args(["--to", "it", "nobody-linux-0"]).args(&names).run();
    mixed.fails(1).says(&["nobody-linux-0"]);
    motes.iter().for_each(|mote| assert_pushed(&tree, mote, "it"));
    // Files of instances are no links into a store: writing one changes no other.
    farm.sh(&motes[0], "echo changed >> it/twin-a");
    assert_pushed(&tree, &motes[1], "it");
    farm.destroy(&motes.iter().collect::<Vec<_>>());
    farm.finish();
}

#[test]
fn what_is_fetched_is_what_was_pushed() {
    let farm = farm().start();
    let mote = farm.create();
    let tree = small_tree(&farm);
    farm.push(&tree, "it", &mote).ok();
    let wanted = files::read(&tree, &[]);
    type Unpack = fn(&Path) -> Vec<u8>;
    let ways: [(&[&str], Unpack); 3] = [
        (&["--plain"], |path| fs::read(path).expect("an archive")),
        (&[], |path| {
            let mut bytes = Vec::new();
            let file = fs::File::open(path).expect("an archive");
            flate2::read::MultiGzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
            bytes
        }),
        (&["--zstd"], |path| zstd::decode_all(fs::File::open(path).expect("an archive")).expect("zstd")),
    ];
    for (flags, unpack) in ways {
        let archive = farm.fresh("archive");
        farm.mote(["gettar", "--dir", "it"]).args(flags).arg("-o").arg(&archive).arg(&mote.name).ok();
        let out = farm.fresh("unpacked");
        fs::create_dir(&out).expect("a directory");
        let bytes = unpack(&archive);
        let mut unpacker = tar::Archive::new(bytes.as_slice());
        unpacker.set_preserve_permissions(true);
        unpacker.unpack(&out).expect("an archive");
        files::assert_equal(&files::read(&out, &[]), &wanted);
    }
    // To stdout, and into the current directory by default.
    let piped = farm.mote(["gettar", "--plain", "--dir", "it", "-o", "-", &mote.name]).ok();
    assert!(tar::Archive::new(piped.stdout.as_slice()).entries().expect("an archive").count() >= wanted.len());
    let here = farm.fresh("here");
    fs::create_dir(&here).expect("a directory");
    farm.mote(["gettar", &mote.name]).cwd(&here).ok();
    assert!(here.join(format!("{}.tar.gz", mote.name)).exists());
    farm.mote(["gettar", "--dir", "no/such", "-o"])
        .arg(farm.fresh("x"))
        .arg(&mote.name)
        .run()
        .fails(1)
        .says(&["no/such"]);
    assert_eq!(fs::read_dir(&here).expect("a directory").count(), 1, "no temporary file is left");
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn names_and_sizes_at_the_edges_arrive() {
    let farm = farm().start();
    let mote = farm.create();
    let tree = farm.fresh("tree");
    let long = "n".repeat(255);
    files::write(&tree, &long, "a name of 255 bytes");
    let deep: PathBuf = (0..60).map(|i| format!("directory-{i}")).collect();
    files::write(&tree, deep.join("leaf"), "very deep");
    for name in [
        " leading",
        "trailing ",
        "new\nline",
        "qu\"ote'",
        "back\\slash",
        "*?[glob]",
        "-dash",
        "ünïcödé",
        "#hash",
        "!bang",
    ] {
        files::write(&tree, name, name);
    }
    use std::os::unix::ffi::OsStrExt as _;
    let raw = OsStr::from_bytes(b"\xc3(\xa0\xa1 raw");
    files::write(&tree, PathBuf::from(raw).join(raw), "raw bytes twice");
    // Around the sizes at which stores and batches change their ways.
    let mut dice = Dice::new(77);
    for size in
        [1, 127, 4095, 4096, 4097, 262_143, 262_144, 1_048_575, 1_048_576, 1_048_577, 4_194_304, 4_194_305, 9_000_000]
    {
        files::write(&tree, format!("size-{size}"), dice.bytes(size));
    }
    farm.push(&tree, "it", &mote).ok();
    assert_pushed(&tree, &mote, "it");
    let mode = files::read(&mote.work().join("it"), &[]);
    assert!(matches!(mode.get(Path::new("size-1")), Some(Entry::File(_, 0o644))));
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn fifty_thousand_small_files_are_pushed_and_pushed_again() {
    let count = wait::number_from_env("MOTE_TEST_FILES", 50_000);
    let farm = farm().start();
    let mote = farm.create();
    let tree = farm.fresh("tree");
    for i in 0..count {
        let dir = tree.join(format!("d{}", i / 250));
        if i % 250 == 0 {
            fs::create_dir_all(&dir).expect("a directory");
        }
        fs::write(dir.join(format!("file-{i}.c")), format!("int f{i}(void) {{ return {i}; }}\n")).expect("a file");
    }
    let timed = |what: &str| {
        let begin = Instant::now();
        farm.push(&tree, "it", &mote).patience(seconds(600)).ok();
        wait::say(&format!("{count} files, {what}: {:.2?}", begin.elapsed()));
    };
    timed("first push");
    assert_pushed(&tree, &mote, "it");
    timed("nothing changed");
    files::write(&tree, "d7/file-1755.c", "changed");
    timed("one changed");
    assert_pushed(&tree, &mote, "it");
    let second = farm.create();
    let begin = Instant::now();
    farm.push(&tree, "it", &second).patience(seconds(600)).ok();
    wait::say(&format!("{count} files to a second instance: {:.2?}", begin.elapsed()));
    let begin = Instant::now();
    farm.mote(["destroy", &mote.name, &second.name]).ok();
    assert!(begin.elapsed() < seconds(5), "destroy answers before the wiping: {:?}", begin.elapsed());
    wait::until_true("the directories are wiped", seconds(600), || {
        farm.directories_left(&farm.buildlet_data()).is_empty()
    });
    farm.finish();
}
