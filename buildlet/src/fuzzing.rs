//! What the targets in `fuzz/` run: a peer's bytes against what parses them, with everything checked
//! that must hold whatever they are. Panics are findings. Nothing else uses this.

use crate::action;
use crate::archive;
use crate::environment;
use crate::files::{self, Listing, Place};
use crate::staging::Staging;
use crate::supervisor::place;
use crate::unpack::{UnpackLimits, unpack};
use crate::wipe;
use motefarm_cas::beneath::DIRECTORY;
use motefarm_cas::store::Store;
use motefarm_core::environment::{Surroundings, build};
use motefarm_core::{Timestamp, WorkPath};
use motefarm_proto::convert::check_exec_spec;
use motefarm_proto::mote::{
    BuildletExecuteRequest, BuildletListDirRequest, DirListing, SupervisorSpec, TarCompression,
};
use prost::Message as _;
use rustix::fs::{CWD, Mode};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

const SENTINEL: &str = "untouched";
/// Small, so that bombs end early.
const LIMITS: UnpackLimits = UnpackLimits { bytes: 4 << 20, entries: 200, ratio: 1_100, ratio_from: 1 << 20 };

/// A work directory with a neighbour that must stay as it is.
pub struct Ground {
    base: PathBuf,
    place: Place,
    staging: Staging,
}

impl Ground {
    /// Makes it in `base`, an empty directory.
    pub fn new(base: &Path) -> io::Result<Self> {
        let base = base.canonicalize()?;
        let place = Place { work: base.join("outer/work"), staging: base.join("staging") };
        fs::create_dir_all(&place.work)?;
        fs::write(base.join("sentinel"), SENTINEL)?;
        fs::write(base.join("outer/sentinel"), SENTINEL)?;
        let staging = Staging::open(&place.staging)?;
        Ok(Self { base, place, staging })
    }

    /// Puts some of everything into the work directory, for [`Self::ls`].
    pub fn furnish(&self) -> io::Result<()> {
        let at = |path: &str| self.place.work.join(path);
        fs::create_dir_all(at("src/a/b"))?;
        for file in ["src/a/f", "src/a.go", "x"] {
            fs::write(at(file), "content")?;
        }
        symlink(&self.base, at("out"))?;
        symlink("src", at("src/in"))
    }

    /// Unpacks `bytes`, and once more what came of it.
    ///
    /// # Panics
    ///
    /// If anything outside changed or what is inside leads out.
    pub fn tar_in(&self, bytes: &[u8]) {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let Ok(top) = rustix::fs::openat(CWD, &self.place.work, DIRECTORY, Mode::empty()) else { return };
        let Ok(again) = top.try_clone() else { return };
        let done = unpack(bytes, top, &self.staging, LIMITS, now);
        self.check_outside();
        self.check_inside(&self.place.work);
        if done.is_ok() {
            let mut packed = Vec::new();
            // Modes may forbid reading to whoever is not root.
            if archive::write(again, TarCompression::None, &mut packed).is_ok() {
                assert!(wipe::empty(&self.place.work).is_ok(), "can not be emptied");
                let Ok(top) = rustix::fs::openat(CWD, &self.place.work, DIRECTORY, Mode::empty()) else { return };
                let second = unpack(packed.as_slice(), top, &self.staging, LIMITS_AGAIN, now);
                assert!(second.is_ok(), "what was unpacked and packed is refused: {second:?}");
            }
        }
        assert!(wipe::empty(&self.place.work).is_ok(), "can not be emptied");
    }

    /// Lists, opens and resolves what `bytes` (a `BuildletListDirRequest`) names.
    ///
    /// # Panics
    ///
    /// If anything outside is reached.
    pub fn ls(&self, bytes: &[u8]) {
        let Ok(request) = BuildletListDirRequest::decode(bytes) else { return };
        if let Ok(path) = WorkPath::parse(&request.instance_id) {
            if let Ok(opened) = files::open(&self.place, &path) {
                assert_eq!(opened.size, 7, "{path} is not ours");
            }
            if let Ok(dir) = files::dir(&self.place.work, "path", &path) {
                let stat = rustix::fs::fstat(&dir);
                let base = fs::metadata(&self.base);
                assert!(stat.is_ok_and(|stat| base.is_ok_and(|base| stat.st_ino != base.ino())), "{path} leads out");
            }
        }
        let Ok(listing) = Listing::try_from(request.list.unwrap_or_default()) else { return };
        let mut count = 0;
        let listed = files::list(&self.place, &listing, |page: DirListing| {
            for entry in page.entries {
                count += 1;
                let parts: Vec<&[u8]> = entry.path.split(|byte| *byte == b'/').collect();
                assert!(parts.iter().all(|part| !matches!(*part, b"." | b"..")), "{:?}", entry.path);
                assert!(!entry.path.ends_with(b"sentinel"), "lists what is outside");
            }
            Ok::<_, crate::error::AgentError>(())
        });
        assert!(listed.is_err() || count <= 9, "{count} entries");
    }

    /// Checks an action and makes its inputs: `bytes` are messages, each after its length in two bytes; the first
    /// is a `RunActionStart`, the others are directories.
    ///
    /// # Panics
    ///
    /// If anything outside changed, or what was accepted can not be carried out as it stands.
    pub fn action(&self, store: &Store, bytes: &[u8]) {
        let mut messages = Vec::new();
        let mut rest = bytes;
        while let [low, high, after @ ..] = rest {
            let len = usize::from(u16::from_le_bytes([*low, *high])).min(after.len());
            messages.push(&after[..len]);
            rest = &after[len..];
        }
        let Ok(top) = rustix::fs::openat(CWD, &self.place.work, DIRECTORY, Mode::empty()) else { return };
        action::fuzzing::action(store, &top, &messages);
        self.check_outside();
        assert!(wipe::empty(&self.place.work).is_ok(), "can not be emptied");
    }

    fn check_outside(&self) {
        let names = |dir: &Path| {
            let listing = fs::read_dir(dir).map(|dir| dir.flatten().map(|entry| entry.file_name()).collect::<Vec<_>>());
            let mut names = listing.unwrap_or_default();
            names.sort();
            names
        };
        assert_eq!(names(&self.base), ["outer", "sentinel", "staging"]);
        assert_eq!(names(&self.base.join("outer")), ["sentinel", "work"]);
        assert!(names(&self.place.staging).is_empty(), "something staged was left");
        for sentinel in ["sentinel", "outer/sentinel"] {
            let path = self.base.join(sentinel);
            assert!(fs::read(&path).is_ok_and(|text| text == SENTINEL.as_bytes()), "{sentinel} changed");
            assert!(fs::metadata(&path).is_ok_and(|meta| meta.nlink() == 1), "{sentinel} was linked");
        }
    }

    fn check_inside(&self, dir: &Path) {
        let Ok(entries) = fs::read_dir(dir) else { return };
        for entry in entries.flatten() {
            let path = entry.path();
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_symlink() {
                if let Ok(target) = fs::canonicalize(&path) {
                    assert!(target.starts_with(&self.place.work), "{} leads out", path.display());
                }
                continue;
            }
            assert!(meta.is_dir() || meta.is_file(), "{} is special", path.display());
            assert_eq!(meta.mode() & 0o7000, 0, "{} has more than permission bits", path.display());
            if meta.is_dir() {
                self.check_inside(&path);
            }
        }
    }
}

/// Hard links become files of their own when they are packed.
const LIMITS_AGAIN: UnpackLimits = UnpackLimits { bytes: u64::MAX, ..LIMITS };

/// Checks a request to execute and resolves what it means.
///
/// # Panics
///
/// If what was accepted can not be carried out as it stands.
pub fn exec_request(bytes: &[u8]) {
    let Ok(request) = BuildletExecuteRequest::decode(bytes) else { return };
    let _ = (
        motefarm_proto::convert::instance_id(&request.instance_id),
        motefarm_proto::convert::exec_id(&request.exec_id),
    );
    let Some(spec) = request.spec else { return };
    if check_exec_spec(&spec).is_err() || environment::check_path(&spec).is_err() {
        return;
    }
    let surroundings = Surroundings {
        base: vec![("PATH".to_owned(), "/bin".to_owned()), ("HOME".to_owned(), "/home/mote".to_owned())],
        work_dir: "/workdir".to_owned(),
        tmp_dir: "/tmp".to_owned(),
    };
    let dir = place::run_dir(&spec, "/workdir");
    assert!(dir.starts_with('/') && !dir.contains('\0'), "runs in {dir:?}");
    let Ok(env) = build(&surroundings, &spec.env, &spec.path, &dir) else { return };
    for (name, value) in &env {
        assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'), "{name:?}={value:?}");
    }
    let env: Vec<String> = env.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let found = place::program(&spec, &env, "/nonexistent/workdir", "/nonexistent");
    assert!(
        found.is_err()
            || spec.program.starts_with('/')
            || spec.program.contains('/')
            || found.is_ok_and(|p| p.is_file())
    );
    let spec = SupervisorSpec { spec: Some(spec), env, work_dir: "/workdir".to_owned(), spool_limit_bytes: 1 };
    assert_eq!(SupervisorSpec::decode(spec.encode_to_vec().as_slice()).as_ref(), Ok(&spec));
}
