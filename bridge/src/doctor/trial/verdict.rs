//! What is to be said of a compile that was tried. Pure.

use super::super::catalogue::Kind;
use super::super::report::Report;
use super::super::server::Server;
use super::Local;
use super::attempts::{Ran, Tried};
use std::time::Duration;

/// How an object begins (ELF).
const MAGIC: &[u8] = b"\x7fELF";
/// Most of what a server or compiler said.
const MAX_WORDS: usize = 600;

/// What was seen.
pub(super) struct Seen<'a> {
    /// Who was asked.
    pub server: &'a Server,
    /// What the same compiler did here.
    pub local: &'a Local,
    /// What became of it there.
    pub tried: &'a Tried,
    /// In how much time.
    pub took: Duration,
}

/// Judges it.
pub(super) fn judge(seen: &Seen<'_>, report: &mut Report) {
    let address = seen.server.address();
    match seen.tried {
        Tried::Ran(ran) if ran.exit_status == 0 => object(seen, ran, report),
        Tried::Ran(ran) => {
            let words = short(&ran.stderr);
            match lacking(&ran.stderr) {
                Some(part) => {
                    let problem = format!("the worker has no {part}: {words}");
                    report.found(Kind::WorkerLacksParts, problem, mend_parts(&part));
                }
                None => {
                    let problem = format!("compiles here, and failed there ({}): {words}", ran.exit_status);
                    report.found(Kind::RemoteCompile, problem, explain(seen.server, &ran.stderr));
                }
            }
        }
        Tried::Refused(words) | Tried::Failed(words) => {
            let (kind, fix) = failure(words, matches!(seen.tried, Tried::Refused(_)), seen.server);
            report.found(kind, format!("{address}: {}", short(words)), fix);
        }
        Tried::Lacking(names) => {
            let some = names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
            let problem = format!("{address} still lacks {} files after five attempts ({some} ...)", names.len());
            report.found(Kind::ColdServer, problem, "mote-bridge seed /usr/include   # then look again");
        }
        Tried::NoAnswer(why) => {
            let fix =
                "mote-bridge doctor --patience 600s   # if its workers are busy; or look at the server's own pages";
            report.found(Kind::NoCompileAnswer, format!("{address}: {}", short(why)), fix);
        }
    }
}

fn object(seen: &Seen<'_>, ran: &Ran, report: &mut Report) {
    let compiler = seen.local.compile.request.arg.first().map(String::as_str).unwrap_or_default();
    let explain = || explain(seen.server, "");
    match &ran.object {
        None => report.found(Kind::NoObject, "the compiler ended well and left no object", explain()),
        Some(object) if !object.starts_with(MAGIC) => {
            let problem = format!("what came back is no object: {} bytes, {:?} ...", object.len(), start(object));
            report.found(Kind::NoObject, problem, explain());
        }
        Some(object) => {
            let same = *object == seen.local.object;
            let compared = match (same, seen.local.is_deterministic) {
                (true, _) => ", byte for byte as here",
                (false, true) => ", other bytes than here",
                (false, false) => "",
            };
            let (seconds, attempts) = (seen.took.as_secs_f64(), ran.attempts);
            let times = if attempts == 1 { "one request".to_owned() } else { format!("{attempts} requests") };
            report.fine(format!("{compiler} compiled remotely in {seconds:.2} s, by {times}{compared}"));
            if !same && seen.local.is_deterministic {
                let (there, here) = (object.len(), seen.local.object.len());
                let problem = format!("{compiler} made {there} bytes there and {here} other ones here");
                report.found(Kind::OtherObject, problem, "install the same compiler on the workers as here");
            }
        }
    }
}

fn start(object: &[u8]) -> String {
    String::from_utf8_lossy(&object[..object.len().min(20)]).into_owned()
}

fn short(words: &str) -> String {
    let one_line = words.trim().replace('\n', " | ");
    match one_line.char_indices().nth(MAX_WORDS) {
        Some((at, _)) => format!("{} ...", &one_line[..at]),
        None => one_line,
    }
}

/// The id by which the bridge knows a request, out of its message.
fn request_id(words: &str) -> Option<&str> {
    let (id, _) = words.split_once("mote-bridge [")?.1.split_once(']')?;
    id.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(id)
}

fn explain(server: &Server, words: &str) -> String {
    let own = format!("doctor@localhost:0/{}", std::process::id());
    format!("mote-bridge explain {} --bridge {}", request_id(words).unwrap_or(&own), server.address())
}

fn failure(words: &str, is_final: bool, server: &Server) -> (Kind, String) {
    let lower = words.to_ascii_lowercase();
    let says = |all: &[&str]| all.iter().all(|word| lower.contains(word));
    if says(&["goma_arbitrary_toolchain_support"]) {
        return (Kind::RefusedRequest, "export GOMA_ARBITRARY_TOOLCHAIN_SUPPORT=true".to_owned());
    }
    if says(&["symlink", "absolute"]) || says(&["symbolic link", "absolute"]) {
        let fix = "mote-bridge serve --backend grpc://HOST:PORT   # in that server's place: it spells such links from where they are";
        return (Kind::AbsoluteLink, fix.to_owned());
    }
    if says(&["no worker"])
        || says(&["failedprecondition", "asks for a worker"])
        || says(&["failedprecondition", "platform"])
    {
        let fix = "mote-bridge serve --backend grpc://HOST:PORT --platform NAME=VALUE   # one for each property of the worker's \
            configuration, and no other";
        return (Kind::NoWorker, fix.to_owned());
    }
    if says(&["unknown instance"]) || says(&["instance name", "not"]) {
        return (Kind::UnknownInstance, "mote-bridge serve --backend grpc://HOST:PORT --instance NAME".to_owned());
    }
    if let Some(part) = lacking(words) {
        return (Kind::WorkerLacksParts, mend_parts(&part));
    }
    let kind = if is_final { Kind::RefusedRequest } else { Kind::RemoteFailure };
    (kind, explain(server, words))
}

/// What of a compiler is not there, by its own words or those of whoever was to start it.
fn lacking(words: &str) -> Option<String> {
    let plain = words.replace(['\u{2018}', '\u{2019}', '"', '`'], "'");
    let quoted = |text: &str| text.split('\'').nth(1).map(str::to_owned);
    for line in plain.lines() {
        if let Some((before, _)) = line.split_once(": cannot open shared object file") {
            return before.rsplit(' ').next().map(str::to_owned);
        }
        // "Permission denied" is what looking along a PATH ends with, if some directory of it is closed.
        let absent = ["No such file", "not found", "doesn't exist", "no such file", "Permission denied"];
        let is_absent = absent.iter().any(|word| line.contains(word));
        if !is_absent {
            continue;
        }
        for start in ["cannot execute ", "error trying to exec ", "Executable ", "exec: "] {
            if let Some((_, rest)) = line.split_once(start)
                && rest.starts_with('\'')
            {
                return quoted(rest);
            }
        }
        if let Some((_, rest)) = line.split_once("execvp ") {
            return rest.split_once(": ").map(|(program, _)| program.to_owned());
        }
        if let Some((_, rest)) = line.split_once("fatal error: ") {
            let (name, why) = rest.split_once(": ")?;
            return why.starts_with("No such file").then(|| name.trim_matches('\'').to_owned());
        }
        if let Some(shell) = ["/bin/bash", "/bin/sh"].into_iter().find(|shell| line.contains(shell)) {
            return Some(shell.to_owned());
        }
    }
    None
}

fn mend_parts(part: &str) -> String {
    let package = match part {
        name if name.ends_with(".h") => "libc6-dev",
        name if name.contains("LLVM") || name.contains("clang") => "clang",
        "cc1plus" => "g++",
        "as" | "ld" => "binutils",
        "/bin/bash" => "bash",
        _ => "gcc",
    };
    format!(
        "apt-get install {package}   # on the workers, in the version that is here; or a toolchain that is one folder"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::variables::Variables;

    #[test]
    fn what_a_worker_lacks_is_read_from_the_compilers_words() {
        for (words, expected) in [
            (
                "gcc: fatal error: cannot execute \u{2018}cc1\u{2019}: posix_spawnp: No such file or directory\ncompilation terminated.",
                Some("cc1"),
            ),
            ("gcc: error trying to exec 'cc1plus': execvp: No such file or directory", Some("cc1plus")),
            ("gcc: fatal error: cannot execute 'as': execvp: No such file or directory", Some("as")),
            ("gcc: fatal error: cannot execute 'cc1': execvp: Permission denied", Some("cc1")),
            ("a.c:1:10: fatal error: /secret/x.h: Permission denied", None),
            (
                "/usr/bin/clang: error while loading shared libraries: libLLVM-14.so.1: cannot open shared object file: No such file",
                Some("libLLVM-14.so.1"),
            ),
            ("clang: error: unable to execute command: Executable \"as\" doesn't exist!", Some("as")),
            ("bwrap: execvp /usr/bin/gcc: No such file or directory", Some("/usr/bin/gcc")),
            ("trial.c:2:10: fatal error: stdio.h: No such file or directory", Some("stdio.h")),
            ("trial.c:2:10: fatal error: 'stdio.h' file not found", None),
            ("exec: \"/bin/bash\": stat /bin/bash: no such file or directory", Some("/bin/bash")),
            ("trial.c:4: error: expected ';' before '}' token", None),
            ("", None),
        ] {
            assert_eq!(lacking(words).as_deref(), expected, "{words}");
        }
    }

    #[test]
    fn failures_are_told_apart_by_the_servers_words() {
        let server = Server::of(&Variables::default(), None, None);
        let bridge = "mote-bridge [3f9c01d2ab44]: ";
        for (words, is_final, kind, fix) in [
            (
                "execute: FailedPrecondition: No workers exist for platform {} (the action asks for a worker with no properties)",
                false,
                Kind::NoWorker,
                "--platform NAME=VALUE",
            ),
            ("lookup: InvalidArgument: unknown instance \"x\"", false, Kind::UnknownInstance, "--instance NAME"),
            (
                "execute: PermissionDenied: no",
                false,
                Kind::RemoteFailure,
                "mote-bridge explain 3f9c01d2ab44 --bridge goma.chromium.org:443",
            ),
            ("input \"x\" climbs above the root", true, Kind::RefusedRequest, "mote-bridge explain 3f9c01d2ab44"),
            (
                "set GOMA_ARBITRARY_TOOLCHAIN_SUPPORT=true",
                true,
                Kind::RefusedRequest,
                "export GOMA_ARBITRARY_TOOLCHAIN_SUPPORT=true",
            ),
            (
                "toolchain: absolute symlink /etc/alternatives/cc is not allowed",
                true,
                Kind::AbsoluteLink,
                "mote-bridge serve",
            ),
            (
                "execute: Internal: exec: \"/bin/bash\": no such file or directory",
                false,
                Kind::WorkerLacksParts,
                "apt-get install bash",
            ),
        ] {
            let (found, mends) = failure(&format!("{bridge}{words}"), is_final, &server);
            assert_eq!(found, kind, "{words}");
            assert!(mends.contains(fix), "{words}: {mends}");
        }
    }
}
