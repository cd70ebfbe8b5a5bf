//! A command as the Go client asks for it, and how it ended as that client understands it. Pure.

use motefarm_proto::gomote::ExecuteCommandRequest;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::{ExecOutcome, ExecSpec};
use tonic::Status;

/// The farm's words for a request. Program, directory and PATH elements mean the same in both;
/// both outputs are one stream, as the client knows no other.
pub(super) fn spec(request: ExecuteCommandRequest) -> ExecSpec {
    ExecSpec {
        program: request.command,
        args: request.args,
        dir: request.directory,
        env: request.append_environment,
        path: request.path,
        system_level: request.system_level,
        merge_output: true,
        debug: request.debug,
        ..ExecSpec::default()
    }
}

/// What ends the client's stream. It takes ABORTED, and nothing else, for "the command failed": then
/// the other members of a group go on, `-until` tries again and `-collect` collects. (The Go server
/// says UNKNOWN there, which its own client does not understand.)
pub(super) fn verdict(outcome: &ExecOutcome) -> Result<(), Status> {
    let failed = |how: String| Err(Status::aborted(format!("command execution failed: {how}")));
    match outcome.ending() {
        Ending::Exited if outcome.code == 0 => Ok(()),
        Ending::Exited => failed(format!("exit status {}", outcome.code)),
        Ending::Signaled => failed(format!("signal: {}", signal(outcome.code))),
        Ending::TimedOut => failed("timed out".to_owned()),
        Ending::Cancelled => failed("cancelled".to_owned()),
        Ending::OutputLimit => failed("it wrote more than is kept".to_owned()),
        Ending::NotStarted => Err(Status::aborted(format!("unable to execute command: {}", outcome.reason))),
        Ending::Lost | Ending::Unspecified => {
            Err(Status::unavailable(format!("it is not known how the command ended: {}", outcome.reason)))
        }
    }
}

/// A signal in Go's words.
fn signal(number: i32) -> String {
    signal_word(number).map_or_else(|| format!("signal {number}"), str::to_owned)
}

/// Go's word for a signal that has one.
pub(crate) fn signal_word(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn ended(ending: Ending, code: i32) -> Result<(), (Code, String)> {
        let outcome = ExecOutcome { ending: ending.into(), code, reason: "so it is".into(), ..ExecOutcome::default() };
        verdict(&outcome).map_err(|status| (status.code(), status.message().to_owned()))
    }

    #[test]
    fn a_command_that_failed_is_aborted_and_one_that_is_lost_is_not() {
        let aborted = |text: &str| Err((Code::Aborted, text.to_owned()));
        assert_eq!(ended(Ending::Exited, 0), Ok(()));
        assert_eq!(ended(Ending::Exited, 3), aborted("command execution failed: exit status 3"));
        assert_eq!(ended(Ending::Signaled, 9), aborted("command execution failed: signal: killed"));
        assert_eq!(ended(Ending::Signaled, 31), aborted("command execution failed: signal: signal 31"));
        assert_eq!(ended(Ending::NotStarted, 0), aborted("unable to execute command: so it is"));
        for unknown in [Ending::Lost, Ending::Unspecified] {
            assert_eq!(ended(unknown, 0).unwrap_err().0, Code::Unavailable);
        }
        for failed in [Ending::TimedOut, Ending::Cancelled, Ending::OutputLimit] {
            assert_eq!(ended(failed, 0).unwrap_err().0, Code::Aborted);
        }
    }

    #[test]
    fn nothing_of_a_request_is_lost() {
        let spec = spec(ExecuteCommandRequest {
            command: "go/bin/go".into(),
            system_level: true,
            debug: true,
            append_environment: vec!["GO_DISABLE_OUTBOUND_NETWORK=false".into()],
            path: vec!["$EMPTY".into()],
            directory: "go/src".into(),
            args: vec!["version".into()],
            ..ExecuteCommandRequest::default()
        });
        assert!(spec.merge_output && spec.system_level && spec.debug && !spec.stdin);
        assert_eq!((spec.program.as_str(), spec.dir.as_str()), ("go/bin/go", "go/src"));
        assert_eq!((spec.env.len(), spec.args.len(), spec.path[0].as_str()), (1, 1, "$EMPTY"));
    }
}
