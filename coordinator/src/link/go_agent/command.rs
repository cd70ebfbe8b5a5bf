//! A command as the Go agent is asked for it, and how it says it ended. Pure.

use super::client::encoded;
use motefarm_proto::mote::ExecSpec;
use motefarm_proto::mote::exec_outcome::Ending;

/// The trailer in which the agent says how a command ended.
pub(super) const PROCESS_STATE: &str = "process-state";

/// The body of `POST /exec`. `env` comes before what the caller asked for.
pub(super) fn form(spec: &ExecSpec, env: &[String]) -> String {
    let mut pairs: Vec<(&str, &[u8])> = vec![("cmd", spec.program.as_bytes())];
    pairs.extend(spec.args.iter().map(|arg| ("cmdArg", arg.as_bytes())));
    pairs.push(("debug", if spec.debug { b"true" } else { b"false" }));
    pairs.push(("dir", directory(spec).as_bytes()));
    pairs.extend(env.iter().chain(&spec.env).map(|entry| ("env", entry.as_bytes())));
    pairs.push(("mode", if spec.system_level { b"sys" } else { b"" }));
    match spec.path.as_slice() {
        [only] if motefarm_core::environment::EMPTY_PATH_WORDS.contains(&only.as_str()) => {
            pairs.push(("path", b"$EMPTY"))
        }
        elements => pairs.extend(elements.iter().map(|element| ("path", element.as_bytes()))),
    }
    encoded(pairs)
}

/// Where to run. Left to itself the agent takes the program's directory, wherever on its machine that is;
/// the farm's rule has that only for programs named relative to the work directory.
fn directory(spec: &ExecSpec) -> &str {
    let in_work_dir = !spec.system_level && !spec.program.starts_with('/') && spec.program.contains('/');
    match spec.dir.as_str() {
        "" if in_work_dir => "",
        "" => ".",
        dir => dir,
    }
}

/// How a command ended, by the text of the trailer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) ending: Ending,
    pub(super) code: i32,
    pub(super) reason: String,
}

/// Go's `ProcessState` as text, or the error of a start.
pub(super) fn ended(state: &str) -> Ended {
    let as_it_is = |ending, code| Ended { ending, code, reason: String::new() };
    let state = state.trim();
    if state == "ok" {
        return as_it_is(Ending::Exited, 0);
    }
    if let Some(code) = state.strip_prefix("exit status ") {
        // Windows writes large ones in hex.
        let code = code
            .strip_prefix("0x")
            .map_or_else(|| code.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok().map(u32::cast_signed));
        if let Some(code) = code {
            return as_it_is(Ending::Exited, code);
        }
    }
    if let Some(signal) = state.strip_prefix("signal: ") {
        let signal = signal.strip_suffix(" (core dumped)").unwrap_or(signal);
        if let Some(number) = number(signal) {
            return as_it_is(Ending::Signaled, number);
        }
        return Ended { ending: Ending::Lost, code: 0, reason: format!("a signal unknown here: {signal}") };
    }
    // Plan 9 has words instead of numbers: what is not empty failed.
    if let Some(words) = state.strip_prefix("exit status: ") {
        return Ended { ending: Ending::Exited, code: 1, reason: words.to_owned() };
    }
    Ended { ending: Ending::NotStarted, code: 0, reason: state.chars().take(1000).collect() }
}

/// A signal's number by Go's word for it.
fn number(word: &str) -> Option<i32> {
    if let Some(number) = word.strip_prefix("signal ") {
        return number.parse().ok();
    }
    (1..=31).find(|number| crate::gomote::signal_word(*number).is_some_and(|known| known == word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_those_of_gos_client() {
        let spec = ExecSpec {
            program: "go/bin/go".into(),
            args: vec!["a b".into()],
            path: vec!["EMPTY".into()],
            ..ExecSpec::default()
        };
        // The reference's, with its empty elements where they stand.
        assert_eq!(form(&spec, &[]), "cmd=go%2Fbin%2Fgo&cmdArg=a+b&debug=false&dir=&mode=&path=%24EMPTY");
        let spec = ExecSpec {
            program: "ls".into(),
            system_level: true,
            debug: true,
            env: vec!["A=1".into()],
            path: vec!["$PATH".into(), "/x".into()],
            ..ExecSpec::default()
        };
        assert_eq!(
            form(&spec, &["GO_BUILDLET_TOKEN=".to_owned()]),
            "cmd=ls&debug=true&dir=.&env=GO_BUILDLET_TOKEN%3D&env=A%3D1&mode=sys&path=%24PATH&path=%2Fx"
        );
    }

    #[test]
    fn commands_run_where_the_farm_says() {
        let dir = |program: &str, dir: &str, system_level| {
            directory(&ExecSpec { program: program.into(), dir: dir.into(), system_level, ..ExecSpec::default() })
                .to_owned()
        };
        assert_eq!(dir("go/src/make.bash", "", false), "");
        assert_eq!(dir("ls", "", false), ".");
        assert_eq!(dir("/bin/ls", "", false), ".");
        assert_eq!(dir("/bin/ls", "", true), ".");
        assert_eq!(dir("ls", "go", false), "go");
    }

    #[test]
    fn states_are_read_as_go_writes_them() {
        let short = |state: &str| {
            let Ended { ending, code, reason } = ended(state);
            (ending, code, reason)
        };
        let plain = |ending, code| (ending, code, String::new());
        assert_eq!(short("ok"), plain(Ending::Exited, 0));
        assert_eq!(short("exit status 3"), plain(Ending::Exited, 3));
        assert_eq!(short("exit status 0xc0000005"), plain(Ending::Exited, -1_073_741_819));
        assert_eq!(short("signal: killed"), plain(Ending::Signaled, 9));
        assert_eq!(short("signal: segmentation fault (core dumped)"), plain(Ending::Signaled, 11));
        assert_eq!(short("signal: signal 31"), plain(Ending::Signaled, 31));
        assert_eq!(short("exit status: 'no: 7'").0, Ending::Exited);
        for failed in
            ["fork/exec /x: no such file or directory", "chdir /y: no such file or directory", "exec format error"]
        {
            assert_eq!(short(failed), (Ending::NotStarted, 0, failed.to_owned()));
        }
    }
}
