//! Which program a command means, and where it runs. The rules are `ExecSpec`'s
//! (proto/mote/v1/types.proto), which are the Go agent's.

use motefarm_proto::mote::ExecSpec;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where a command runs, as it sees it. A bare program found in the work directory has the work
/// directory as its own, so nothing need be looked up.
pub(crate) fn run_dir(spec: &ExecSpec, work_dir: &str) -> String {
    let below = |path: &str| {
        let trimmed = path.trim_end_matches('/');
        if trimmed.is_empty() { work_dir.to_owned() } else { format!("{work_dir}/{trimmed}") }
    };
    if spec.dir.starts_with('/') {
        spec.dir.clone()
    } else if !spec.dir.is_empty() {
        below(&spec.dir)
    } else if spec.program.starts_with('/') || spec.system_level {
        work_dir.to_owned()
    } else {
        spec.program.rsplit_once('/').map_or_else(|| work_dir.to_owned(), |(parent, _)| below(parent))
    }
}

/// The program's file. `env` is the command's whole environment.
pub(crate) fn program(spec: &ExecSpec, env: &[String], work_dir: &str, run_dir: &str) -> Result<PathBuf, String> {
    let name = &spec.program;
    if name.starts_with('/') {
        return Ok(PathBuf::from(name));
    }
    if name.contains('/') {
        return Ok(Path::new(work_dir).join(name));
    }
    if !spec.system_level {
        let own = Path::new(work_dir).join(name);
        if is_executable(&own) {
            return Ok(own);
        }
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or("");
    in_path(path, Path::new(run_dir), name).ok_or_else(|| {
        let also = if spec.system_level { "" } else { "the work directory nor in " };
        let neither = if spec.system_level { "not found in" } else { "found neither in" };
        format!("program {name:?} {neither} {also}the command's PATH ({path})")
    })
}

/// The first program called `name` in the directories of `path`.
pub(crate) fn in_path(path: &str, run_dir: &Path, name: &str) -> Option<PathBuf> {
    // An empty element is the current directory, as POSIX has it; an empty PATH has none.
    path.split(':')
        .filter(|_| !path.is_empty())
        .map(|element| run_dir.join(element).join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(program: &str, dir: &str, system_level: bool) -> ExecSpec {
        ExecSpec { program: program.into(), dir: dir.into(), system_level, ..Default::default() }
    }

    #[test]
    fn the_directory_follows_from_the_names_alone() {
        for (program, dir, system_level, expected) in [
            ("go/src/make.bash", "", false, "/w/go/src"),
            ("go", "", false, "/w"),
            ("/usr/bin/go", "", false, "/w"),
            ("go", "", true, "/w"),
            ("a/b", "c/d/", false, "/w/c/d"),
            ("a/b", "/tmp", false, "/tmp"),
            ("a", "/", false, "/"),
        ] {
            assert_eq!(run_dir(&spec(program, dir, system_level), "/w"), expected, "{program} {dir}");
        }
    }

    #[test]
    fn bare_names_are_the_work_directorys_first_unless_system_level() {
        let work = tempfile::tempdir().unwrap();
        let bin = tempfile::tempdir().unwrap();
        let put = |dir: &Path, name: &str, mode| {
            std::fs::write(dir.join(name), "").unwrap();
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        put(work.path(), "both", 0o755);
        put(bin.path(), "both", 0o755);
        put(work.path(), "data", 0o644);
        put(bin.path(), "data", 0o755);
        std::fs::create_dir(bin.path().join("dir")).unwrap();
        let work_dir = work.path().to_str().unwrap();
        let env = ["PATH=/wrong".to_owned(), format!("PATH=/nowhere:{}", bin.path().display())];
        let find = |name, system| program(&spec(name, "", system), &env, work_dir, work_dir);
        assert_eq!(find("both", false).unwrap(), work.path().join("both"));
        assert_eq!(find("both", true).unwrap(), bin.path().join("both"));
        assert_eq!(find("data", false).unwrap(), bin.path().join("data"), "not executable: not a program");
        assert_eq!(find("sub/x", false).unwrap(), work.path().join("sub/x"));
        assert_eq!(find("/abs", false).unwrap(), Path::new("/abs"));
        let error = find("dir", false).unwrap_err();
        assert!(error.contains("\"dir\"") && error.contains("/nowhere"), "{error}");
        assert!(program(&spec("sh", "", true), &["PATH=".into()], "/w", "/bin").is_err(), "cleared is cleared");
    }
}
