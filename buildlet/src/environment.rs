//! What a command's environment starts from. Nothing of the buildlet's own is in it.

use crate::error::AgentError;
use crate::instance::Instance;
use crate::layout::instance;
use crate::sandbox::Sandbox;
use crate::supervisor::place;
use motefarm_core::InstanceId;
use motefarm_core::environment::{Surroundings, build};
use motefarm_proto::convert::FieldError;
use motefarm_proto::mote::ExecSpec;
use std::path::Path;

/// Directories of programs, as on any Linux.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where Go is put by hand; usable inside the sandbox since it is below /usr.
const GO_BIN: &str = "/usr/local/go/bin";
/// The Go tree that builds Go, where the Go project's builders have always had it.
const GO_BOOTSTRAP: &str = "go1.4";

/// Most elements of a command's PATH, and most bytes of them together.
const MOST_PATH_ELEMENTS: usize = 1024;
const MOST_PATH_BYTES: usize = 32 << 10;

/// The variable by which processes of an instance without a sandbox are recognised.
pub(crate) fn instance_mark(id: InstanceId) -> String {
    format!("MOTE_INSTANCE={id}")
}

/// Checks what `convert::check_exec_spec` leaves open: elements of PATH, which grow when they are
/// expanded, so that they are bounded before.
pub(crate) fn check_path(spec: &ExecSpec) -> Result<(), FieldError> {
    let bytes: usize = spec.path.iter().map(String::len).sum();
    if spec.path.len() > MOST_PATH_ELEMENTS || bytes > MOST_PATH_BYTES {
        let problem = format!(
            "{} elements of {bytes} bytes; at most {MOST_PATH_ELEMENTS} and {MOST_PATH_BYTES}",
            spec.path.len()
        );
        return Err(FieldError::new("spec.path", problem));
    }
    match spec.path.iter().find(|element| element.contains('\0')) {
        Some(bad) => Err(FieldError::new("spec.path", format!("{bad:?} holds a NUL byte"))),
        None => Ok(()),
    }
}

/// The whole environment of a command, and the work directory as it sees it.
pub(crate) fn of(sandbox: &Sandbox, of: &Instance, spec: &ExecSpec) -> Result<(Vec<String>, String), AgentError> {
    check_path(spec)?;
    let seen = |name| sandbox.seen(&of.dir, name);
    let work_dir = seen(instance::WORK);
    let mut path = PATH.to_owned();
    if Path::new(GO_BIN).is_dir() {
        path = format!("{path}:{GO_BIN}");
    }
    let mut base = vec![
        ("PATH", path),
        ("HOME", seen(instance::HOME)),
        ("USER", "mote".to_owned()),
        ("LOGNAME", "mote".to_owned()),
        ("SHELL", "/bin/sh".to_owned()),
        ("LANG", "C.UTF-8".to_owned()),
        ("MOTE_INSTANCE_NAME", of.name.clone()),
    ];
    if of.work_dir().join(GO_BOOTSTRAP).is_dir() {
        base.push(("GOROOT_BOOTSTRAP", format!("{work_dir}/{GO_BOOTSTRAP}")));
    }
    let surroundings = Surroundings {
        base: base.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        work_dir: work_dir.clone(),
        tmp_dir: seen(instance::TMP),
    };
    let dir = place::run_dir(spec, &work_dir);
    // The mark is not the request's to change: what carries it ends with the instance.
    let mark = instance_mark(of.id);
    let requested: Vec<String> = spec.env.iter().cloned().chain([mark]).collect();
    let env = build(&surroundings, &requested, &spec.path, &dir).map_err(|e| FieldError::new("spec.env", e))?;
    Ok((env.into_iter().map(|(name, value)| format!("{name}={value}")).collect(), work_dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_no_environment_holds_are_refused() {
        let check = |path: Vec<String>| check_path(&ExecSpec { path, ..Default::default() });
        assert!(check(vec!["$WORKDIR/bin".into(), "$PATH".into()]).is_ok());
        assert!(check(vec!["bin\0".into()]).is_err(), "found by fuzzing");
        assert!(check(vec!["$PATH".into(); 1025]).is_err());
        assert!(check(vec!["x".repeat(40_000)]).is_err());
    }
}
