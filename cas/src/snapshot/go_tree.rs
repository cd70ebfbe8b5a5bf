//! What `gomote push` does with a Go source tree, besides following git's rules.
//!
//! Source: golang/build `cmd/gomote/push.go` as summed up in the reference, section 1.7. Skipped are
//! the top-level `pkg` and `bin`, editor backups, files that cmd/dist generates and `VERSION.cache`;
//! what of these the instance made itself stays there. A tree without `VERSION` gets a made-up one,
//! or `make.bash` would look for git.

use super::SnapshotError;
use super::walk::{FileContent, Item, ItemKind, Walked};
use crate::stat_cache::FileStat;
use crate::tree::DEFAULT_FILE_MODE;
use bytes::Bytes;
use motefarm_core::Digest;
use std::path::Path;

/// Written by cmd/dist.
const GENERATED: [&str; 9] = [
    "src/cmd/cgo/zdefaultcc.go",
    "src/cmd/go/internal/cfg/zdefaultcc.go",
    "src/cmd/go/internal/cfg/zosarch.go",
    "src/cmd/internal/objabi/zbootstrap.go",
    "src/go/build/zcgo.go",
    "src/internal/buildcfg/zbootstrap.go",
    "src/internal/runtime/sys/zversion.go",
    "src/runtime/internal/sys/zversion.go",
    "src/time/tzdata/zzipdata.go",
];
const VERSION_CACHE: &str = "VERSION.cache";
const TOP_LEVEL: [&str; 2] = ["pkg", "bin"];
const GO_VERSION_FILE: &str = "src/internal/goversion/goversion.go";

/// Whether a path (relative to the tree) is not pushed.
pub(super) fn skips(path: &Path, is_dir: bool) -> bool {
    if is_dir {
        return TOP_LEVEL.iter().any(|top| path == Path::new(top));
    }
    let backup = path.file_name().and_then(|name| name.to_str()).is_some_and(is_editor_backup);
    backup || path == Path::new(VERSION_CACHE) || GENERATED.iter().any(|generated| path == Path::new(generated))
}

fn is_editor_backup(name: &str) -> bool {
    name.ends_with('~')
        || name.ends_with('#')
        || name.starts_with('#')
        || name.starts_with(".#")
        || (name.starts_with('.') && name.ends_with(".swp"))
}

/// Files that are executable although Windows does not say so.
pub(super) fn is_script(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "bash" || extension == "rc")
}

/// What the instance makes itself.
pub(super) fn kept() -> Vec<String> {
    TOP_LEVEL.iter().chain(&GENERATED).chain([&VERSION_CACHE]).map(|path| (*path).to_owned()).collect()
}

/// Adds a `VERSION` if the tree has none.
pub(super) fn add_version(root: &Path, walked: &mut Walked) -> Result<(), SnapshotError> {
    let top = &mut walked.directories[0];
    if top.items.iter().any(|item| item.name == b"VERSION" && !matches!(item.kind, ItemKind::Vanished)) {
        return Ok(());
    }
    let path = root.join(GO_VERSION_FILE);
    let source = std::fs::read_to_string(&path).map_err(SnapshotError::io(&path))?;
    let version = version_of(&source).ok_or(SnapshotError::GoVersion(path))?;
    let bytes = Bytes::from(format!("go1.{version}-devel_gomote"));
    let content = FileContent::MadeUp { digest: Digest::of(&bytes), bytes };
    let stat = FileStat { mode: DEFAULT_FILE_MODE, ..FileStat::default() };
    top.items.push(Item { name: b"VERSION".to_vec(), kind: ItemKind::File { stat, content } });
    walked.warnings.push("the tree has no VERSION file; a made-up one is pushed".to_owned());
    Ok(())
}

/// N of the line `const Version = N`.
fn version_of(source: &str) -> Option<u32> {
    source
        .lines()
        .find_map(|line| line.trim().strip_prefix("const Version = ")?.split_whitespace().next()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_and_generated_files_are_known_by_name() {
        for skipped in ["a/.x.go.swp", "a/x~", "x#", "#x", ".#x", "src/go/build/zcgo.go", "VERSION.cache"] {
            assert!(skips(Path::new(skipped), false), "{skipped}");
        }
        for pushed in ["pkg", "a/VERSION.cache", "x.swp", "src/go/build/build.go"] {
            assert!(!skips(Path::new(pushed), false), "{pushed}");
        }
        assert!(skips(Path::new("pkg"), true) && skips(Path::new("bin"), true) && !skips(Path::new("src/pkg"), true));
    }

    #[test]
    fn the_version_is_read_from_its_line() {
        assert_eq!(version_of("package goversion\n\nconst Version = 26 // x\n"), Some(26));
        assert_eq!(version_of("var Version = 1"), None);
    }
}
