//! An action as it was asked for, checked. Pure.

use super::declared::Declared;
use motefarm_core::exec::{MAX_ARG_BYTES, MAX_ARGS};
use motefarm_core::platform::{MERGED, SYSTEM_FILES};
use motefarm_core::{Digest, WorkPath};
use motefarm_proto::convert::{self, FieldError};
use motefarm_proto::mote::RunActionStart;
use motefarm_proto::reapi::{Action, Command};
use prost::Message as _;
use std::time::Duration;

/// Bounds where the caller names none, and at most.
const MOST_OUTPUT_BYTES: u64 = 16 << 30;
const MOST_OUTPUT_FILES: u64 = 1_000_000;
/// What stdout and stderr may each have in one message; two of them fit it.
const MOST_INLINE_BYTES: u64 = 1 << 20;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    /// For logs.
    pub(super) operation: String,
    pub(super) root: Digest,
    /// Not empty.
    pub(super) arguments: Vec<String>,
    /// Whole environment, NAME=value.
    pub(super) env: Vec<String>,
    pub(super) work_dir: WorkPath,
    pub(super) outputs: Declared,
    /// The input is to be laid over the system's directories of the same names.
    pub(super) merge: bool,
    pub(super) timeout: Duration,
    pub(super) inline_bytes: u64,
    pub(super) bounds: Bounds,
}

/// Of all outputs of an action together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) bytes: u64,
    /// Files, directories and links.
    pub(super) entries: u64,
}

impl Asked {
    pub(super) fn parse(start: RunActionStart) -> Result<Self, FieldError> {
        let digest =
            start.action_digest.as_ref().ok_or_else(|| FieldError::new("start.action_digest", "is not set"))?;
        check("start.action", convert::digest(digest)?, &start.action)?;
        let action = Action::decode(start.action).map_err(|e| FieldError::new("start.action", e))?;
        let command_digest = required("action.command_digest", action.command_digest.as_ref())?;
        check("start.command", command_digest, &start.command)?;
        let command = Command::decode(start.command).map_err(|e| FieldError::new("start.command", e))?;
        if start.timeout_ms == 0 {
            return Err(FieldError::new("start.timeout_ms", "is 0"));
        }
        let work_dir =
            WorkPath::parse(&command.working_directory).map_err(|e| FieldError::new("command.working_directory", e))?;
        let outputs = Declared::parse(&command, &work_dir)?;
        let env = environment(&command)?;
        let merge = asks_to_merge(&action, &command);
        let bound = |asked: u64, most: u64| if asked == 0 { most } else { asked.min(most) };
        Ok(Self {
            operation: start.operation,
            root: required("action.input_root_digest", action.input_root_digest.as_ref())?,
            arguments: arguments(command, &env)?,
            env,
            work_dir,
            outputs,
            merge,
            timeout: Duration::from_millis(start.timeout_ms),
            inline_bytes: start.inline_bytes.min(MOST_INLINE_BYTES),
            bounds: Bounds {
                bytes: bound(start.max_output_bytes, MOST_OUTPUT_BYTES),
                entries: bound(start.max_output_files, MOST_OUTPUT_FILES),
            },
        })
    }
}

fn required(field: &'static str, digest: Option<&motefarm_proto::reapi::Digest>) -> Result<Digest, FieldError> {
    let digest = digest.ok_or_else(|| FieldError::new(field, "is not set"))?;
    convert::reapi_digest(digest).map_err(|e| FieldError::new(field, e.problem))
}

fn check(field: &'static str, expected: Digest, bytes: &[u8]) -> Result<(), FieldError> {
    let actual = Digest::of(bytes);
    if actual == expected { Ok(()) } else { Err(FieldError::new(field, format!("is {actual} instead of {expected}"))) }
}

fn asks_to_merge(action: &Action, command: &Command) -> bool {
    #[expect(deprecated, reason = "clients of API 2.1 and before have it there and nowhere else")]
    let platforms = [&action.platform, &command.platform];
    let mut properties = platforms.into_iter().flatten().flat_map(|platform| &platform.properties);
    properties.any(|property| property.name == SYSTEM_FILES && property.value == MERGED)
}

fn environment(command: &Command) -> Result<Vec<String>, FieldError> {
    let variables = command.environment_variables.iter().map(|variable| {
        let name = &variable.name;
        if name.is_empty() || name.contains(['=', '\0']) || variable.value.contains('\0') {
            let problem = format!("{:?} can be no variable's name, or its value holds a NUL byte", shown(name));
            return Err(FieldError::new("command.environment_variables", problem));
        }
        Ok(format!("{name}={}", variable.value))
    });
    variables.collect()
}

fn arguments(command: Command, env: &[String]) -> Result<Vec<String>, FieldError> {
    let arguments = command.arguments;
    let wrong = |problem: String| Err(FieldError::new("command.arguments", problem));
    if arguments.first().is_none_or(String::is_empty) {
        return wrong("name no program".to_owned());
    }
    // Each string costs its bytes, a NUL and a pointer, as the kernel counts.
    let bytes: usize = arguments.iter().chain(env).map(|word| word.len() + 9).sum();
    if arguments.len() > MAX_ARGS || env.len() > MAX_ARGS || bytes > MAX_ARG_BYTES {
        return wrong(format!(
            "{} and the environment take {bytes} bytes; at most {MAX_ARGS} and {MAX_ARG_BYTES}",
            arguments.len()
        ));
    }
    match arguments.iter().find(|word| word.contains('\0')) {
        Some(bad) => wrong(format!("{:?} holds a NUL byte", shown(bad))),
        None => Ok(arguments),
    }
}

/// The beginning of a peer's text, for an error.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use motefarm_proto::convert::to_reapi_digest;
    use motefarm_proto::reapi::command::EnvironmentVariable;

    fn start(command: &Command, change: impl FnOnce(&mut Action, &mut RunActionStart)) -> RunActionStart {
        let command = command.encode_to_vec();
        let mut action = Action {
            command_digest: Some(to_reapi_digest(Digest::of(&command))),
            input_root_digest: Some(to_reapi_digest(Digest::EMPTY)),
            ..Default::default()
        };
        let mut start = RunActionStart { command: command.into(), timeout_ms: 1000, ..Default::default() };
        change(&mut action, &mut start);
        start.action = action.encode_to_vec().into();
        start.action_digest.get_or_insert(Digest::of(&start.action).into());
        start
    }

    fn command(arguments: &[&str]) -> Command {
        Command { arguments: arguments.iter().map(|word| (*word).to_owned()).collect(), ..Default::default() }
    }

    #[test]
    fn what_is_asked_for_is_taken_as_it_is() {
        let variable = |name: &str, value: &str| EnvironmentVariable { name: name.into(), value: value.into() };
        let mut asked = command(&["./tool", "-x", ""]);
        asked.environment_variables = vec![variable("PATH", "/bin"), variable("EMPTY", "")];
        asked.working_directory = "out/Default".into();
        let parsed = Asked::parse(start(&asked, |_, start| start.max_output_bytes = 5)).unwrap();
        assert_eq!(parsed.arguments, ["./tool", "-x", ""]);
        assert_eq!(parsed.env, ["PATH=/bin", "EMPTY="]);
        assert_eq!(parsed.work_dir.as_str(), "out/Default");
        assert_eq!(parsed.bounds, Bounds { bytes: 5, entries: MOST_OUTPUT_FILES });
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |start: RunActionStart| Asked::parse(start).unwrap_err().to_string();
        let fine = command(&["x"]);
        let wrong = |change: fn(&mut Action, &mut RunActionStart)| refused(start(&fine, change));
        assert!(wrong(|action, _| action.input_root_digest = None).contains("action.input_root_digest"));
        assert!(wrong(|_, start| start.action_digest = Some(Digest::of(b"x").into())).contains("start.action"));
        assert!(wrong(|action, _| action.command_digest = None).contains("action.command_digest"));
        assert!(wrong(|_, start| start.command = b"\xff"[..].into()).contains("start.command"));
        assert!(wrong(|_, start| start.timeout_ms = 0).contains("start.timeout_ms"));
        for bad in [&[][..], &[""], &["a\0b"]] {
            assert!(refused(start(&command(bad), |_, _| {})).contains("command.arguments"), "{bad:?}");
        }
        for dir in ["/abs", "../x", "a/../../b"] {
            let climbing = Command { working_directory: dir.into(), ..command(&["x"]) };
            assert!(refused(start(&climbing, |_, _| {})).contains("command.working_directory"), "{dir}");
        }
        for name in ["", "A=B"] {
            let mut bad = command(&["x"]);
            bad.environment_variables = vec![EnvironmentVariable { name: name.into(), value: String::new() }];
            assert!(refused(start(&bad, |_, _| {})).contains("command.environment_variables"), "{name}");
        }
        let long = command(&["x", &"y".repeat(MAX_ARG_BYTES)]);
        assert!(refused(start(&long, |_, _| {})).contains("command.arguments"));
    }
}
