//! Archives made to do harm. Each is refused with the entry named, and nothing outside is touched
//! (which every unpacking of these tests checks).

use super::*;

/// What, the archive, the entry that the error must name, and what it must say.
type Case = (&'static str, Vec<u8>, &'static str, &'static str);

fn cases(scene: &Scene) -> Vec<Case> {
    let outside = scene.dir.path().join("sentinel");
    let outside = outside.to_str().unwrap();
    let mut deep = "d/".repeat(256);
    deep.push_str("deepest");
    let special = |kind: u8| Raw { name: b"special", kind, ..FILE }.bytes();
    let mode = |mode: u32| Raw { name: b"mode", mode, ..FILE }.bytes();
    vec![
        ("absolute", archive(&[file("/etc/evil", "x")]), "/etc/evil", "absolute"),
        (
            "absolute by PAX",
            archive(&[pax(b'x', &[("path", outside)]), file("evil", "x")]),
            outside.to_owned().leak(),
            "absolute",
        ),
        ("climbing", archive(&[file("../sentinel", "x")]), "../sentinel", "'..'"),
        ("climbing within", archive(&[file("a/../../sentinel", "x")]), "a/../../sentinel", "'..'"),
        ("climbing directory", archive(&[directory("..", 0o777)]), "..", "'..'"),
        (
            "long name climbing",
            archive(&[extension(b'L', b"../../sentinel\0"), file("a", "x")]),
            "../../sentinel",
            "'..'",
        ),
        ("no name", archive(&[file("", "x")]), "", "no name"),
        ("the top as a file", archive(&[file("./", "x")]), "./", "the directory unpacked into"),
        ("the top as a link", archive(&[link(".", "x")]), ".", "the directory unpacked into"),
        ("link to an absolute path", archive(&[link("l", "/etc/passwd")]), "l", "leads out"),
        ("link that climbs out", archive(&[link("d/l", "../../sentinel")]), "d/l", "leads out"),
        ("link to above", archive(&[link("l", "..")]), "l", "leads out"),
        ("links one over another", archive(&[link("a", "."), link("b", "a/../../x")]), "b", "after a name"),
        ("link to nothing", archive(&[link("l", "")]), "l", "nothing"),
        ("link with a NUL", archive(&[extension(b'K', b"a\0b\0"), link("l", "x")]), "l", "impossible"),
        ("through an earlier link", archive(&[link("l", "d"), file("l/f", "x")]), "l/f", "link at l"),
        ("directory over an earlier link", archive(&[link("l", "d"), directory("l", 0o755)]), "l", "link at l"),
        ("file over an earlier link", archive(&[link("l", "d"), file("l", "x")]), "l", "twice"),
        ("through an earlier file", archive(&[file("f", "x"), file("f/g", "x")]), "f/g", "file at f"),
        ("file over an earlier directory", archive(&[file("d/f", "x"), file("d", "x")]), "d", "twice"),
        ("a file twice", archive(&[file("f", "x"), file("./f", "y")]), "./f", "twice"),
        ("hard link outside", archive(&[hard_link("h", outside)]), "h", "absolute"),
        ("hard link climbing", archive(&[hard_link("h", "../sentinel")]), "h", "'..'"),
        ("hard link to what was there", archive(&[hard_link("h", "old")]), "h", "no earlier file"),
        ("hard link to a link", archive(&[link("l", "old"), hard_link("h", "l")]), "h", "no earlier file"),
        ("hard link to a directory", archive(&[directory("d", 0o755), hard_link("h", "d")]), "h", "no earlier file"),
        ("hard link to itself", archive(&[hard_link("h", "h")]), "h", "no earlier file"),
        ("character device", archive(&[special(b'3')]), "special", "device"),
        ("block device", archive(&[special(b'4')]), "special", "device"),
        ("FIFO", archive(&[special(b'6')]), "special", "FIFO"),
        ("unknown type", archive(&[special(b'M')]), "special", "unknown type 'M'"),
        ("setuid", archive(&[mode(0o4755)]), "mode", "setuid"),
        ("setgid", archive(&[mode(0o2755)]), "mode", "setuid"),
        ("sticky", archive(&[directory("t", 0o1777)]), "t", "sticky"),
        ("case", archive(&[file("Makefile", "x"), file("makefile", "y")]), "makefile", "Makefile differ by case"),
        ("case of a directory", archive(&[file("A/x", "x"), file("a/y", "y")]), "a/y", "case"),
        ("Unicode form", archive(&[file("caf\u{e9}", "x"), file("cafe\u{301}", "y")]), "cafe\u{301}", "Unicode"),
        ("GNU sparse", archive(&[Raw { name: b"s", kind: b'S', ..FILE }.bytes()]), "s", "sparse"),
        (
            "PAX sparse",
            archive(&[
                pax(
                    b'x',
                    &[("GNU.sparse.major", "1"), ("GNU.sparse.name", "real"), ("GNU.sparse.realsize", "999999999999")],
                ),
                file("GNUSparseFile.0/real", "x"),
            ]),
            "real",
            "sparse",
        ),
        (
            "path too long",
            archive(&[pax(b'x', &[("path", &"p/".repeat(2050))]), file("a", "x")]),
            "p/p/p",
            "4099 bytes",
        ),
        ("path too deep", archive(&[pax(b'x', &[("path", &deep)]), file("a", "x")]), "d/d/d", "256 directories"),
        ("part too long", archive(&[pax(b'x', &[("path", &"n".repeat(256))]), file("a", "x")]), "nnn", "255"),
        ("NUL in a name", archive(&[pax(b'x', &[("path", "a\0b")]), file("a", "x")]), "a\\0b", "NUL"),
        (
            "a file named as a directory",
            archive(&[Raw { name: b"d/", kind: b'7', ..FILE }.bytes()]),
            "d/",
            "directory's",
        ),
        (
            "a directory with content",
            archive(&[Raw { name: b"d", kind: b'5', size: 512, ..FILE }.bytes(), vec![1; 512]]),
            "d",
            "no file",
        ),
        (
            "a link with content",
            archive(&[Raw { name: b"l", kind: b'2', link: b"x", size: 512, ..FILE }.bytes(), vec![1; 512]]),
            "l",
            "no file",
        ),
        ("oversized PAX header", Raw { name: b"pax", kind: b'x', size: 1 << 40, ..FILE }.bytes(), "pax", "at most"),
        (
            "oversized global header",
            Raw { name: b"global", kind: b'g', size: 1 << 40, ..FILE }.bytes(),
            "global",
            "at most",
        ),
        ("oversized long name", Raw { name: b"long", kind: b'L', size: 1 << 40, ..FILE }.bytes(), "long", "at most"),
        (
            "malformed PAX header",
            archive(&[extension(b'x', b"nonsense"), file("a", "x")]),
            "././@Extension",
            "malformed",
        ),
        (
            "PAX size that is none",
            archive(&[pax(b'x', &[("size", "-1")]), file("a", "x")]),
            "././@Extension",
            "no number",
        ),
        ("over a directory that was there", archive(&[file("there", "x")]), "there", "a directory has its place"),
        ("link over a directory", archive(&[link("there", "x")]), "there", "a directory has its place"),
        ("directory over a file that was there", archive(&[directory("old", 0o755)]), "old", "old is a file"),
        ("through a link that was there", archive(&[file("out/sentinel", "x")]), "out/sentinel", "out is a link"),
        ("directory over a link that was there", archive(&[directory("out", 0o777)]), "out", "out is a link"),
        ("through a link that was there and leads inside", archive(&[file("in/f", "x")]), "in/f", "in is a link"),
    ]
}

#[test]
fn hostile_archives_are_refused_with_the_entry_named() {
    let count = cases(&Scene::new()).len();
    assert!(count > 50);
    for n in 0..count {
        let scene = Scene::new();
        fs::write(scene.top().join("old"), "old").unwrap();
        fs::create_dir_all(scene.top().join("there/inner")).unwrap();
        symlink(scene.dir.path(), scene.top().join("out")).unwrap();
        symlink("there", scene.top().join("in")).unwrap();
        let (what, bytes, entry, says) = cases(&scene).swap_remove(n);
        // What comes before the entry stays, what comes after it does not come.
        let bytes = [file("before", "stays"), bytes].concat();
        match scene.unpack(&bytes) {
            Err(UnpackError::Entry { entry: named, problem }) => {
                let named = named.replace('\0', "\\0");
                assert!(named.starts_with(entry) && (!entry.is_empty() || named.is_empty()), "{what}: names {named:?}");
                assert!(problem.contains(says), "{what}: {problem}");
            }
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(scene.read("before"), "stays", "{what}");
        assert_eq!(scene.read("old"), "old", "{what}");
        assert!(scene.top().join("there/inner").is_dir() && !scene.top().join("there/f").exists(), "{what}");
        assert_eq!(fs::read_link(scene.top().join("out")).unwrap(), scene.dir.path(), "{what}");
    }
}

#[test]
fn bounds_of_entries_bytes_and_room_hold() {
    let bound = |limits: UnpackLimits, bytes: &[u8], entry: &str| {
        let scene = Scene::new();
        match scene.unpack_with(bytes, limits) {
            Err(UnpackError::Bound(problem)) => assert!(problem.contains(entry), "{problem}"),
            other => panic!("{entry}: {other:?}"),
        }
    };
    let usual = UnpackLimits::default();
    let files: Vec<Vec<u8>> = (0..20).map(|n| file(&format!("f{n}"), "x")).collect();
    bound(UnpackLimits { entries: 10, ..usual }, &archive(&files), "f10");
    bound(UnpackLimits { entries: 10, ..usual }, &archive(&[file("a/b/c/d/e/f/g/h/i/j/k", "x")]), "a/b/c/d");
    let again: Vec<Vec<u8>> = (0..20).map(|_| directory("d", 0o755)).collect();
    bound(UnpackLimits { entries: 10, ..usual }, &archive(&again), "\"d\"");
    bound(
        UnpackLimits { bytes: 10_000, ..usual },
        &archive(&[file("small", "x"), file("large", &"x".repeat(10_001))]),
        "large",
    );
    bound(
        UnpackLimits { bytes: 15_000, ..usual },
        &archive(&[file("one", &"x".repeat(9_000)), file("two", &"x".repeat(9_000))]),
        "two",
    );
    bound(usual, &Raw { name: b"huge", size: 1 << 40, ..FILE }.bytes(), "huge");
    bound(
        UnpackLimits { bytes: u64::MAX, ..usual },
        &Raw { name: b"enormous", size: 1 << 62, ..FILE }.bytes(),
        "enormous",
    );
    // Written in a few kilobytes, and more than its bytes are worth.
    let bomb = zstd::encode_all(&archive(&[file("bomb", &"\0".repeat(4 << 20))])[..], 19).unwrap();
    bound(UnpackLimits { ratio: 100, ratio_from: 1 << 20, ..usual }, &bomb, "bomb");
}

#[test]
fn what_is_no_archive_is_said_to_be_none() {
    let none = |bytes: &[u8], says: &str| match Scene::new().unpack(bytes) {
        Err(UnpackError::Archive(problem)) => assert!(problem.contains(says), "{problem}"),
        other => panic!("{says}: {other:?}"),
    };
    none(b"", "empty");
    none(&[b'x'; 2000], "no tar archive");
    none(&[archive(&[file("a", "x")]), vec![b'x'; 1024]].concat(), "follows the archive's end");
    none(&[pax(b'x', &[("path", "a")]), vec![0; 1024]].concat(), "cut short");
    none(&archive(&[extension(b'L', b"a"), extension(b'L', b"b"), file("c", "")]), "one kind");
    let mut damaged = archive(&[file("a", "x")]);
    damaged[3] ^= 1;
    none(&damaged, "checksum");
    none(b"PK\x03\x04zipped", "zip");
}

#[test]
fn a_bound_reached_between_entries_names_the_one_before() {
    let scene = Scene::new();
    let bytes = archive(&[file("one", &"x".repeat(9_000)), file("two", "x")]);
    let bound = scene.unpack_with(&bytes, UnpackLimits { bytes: 10_000, ..UnpackLimits::default() }).unwrap_err();
    assert!(matches!(&bound, UnpackError::Bound(problem) if problem.contains("after entry \"one\"")), "{bound}");
}
