//! A process of an instance that somebody is connected to: what it is, and its ends.
//!
//! Nothing of it is on disk. It lives as long as its caller's stream; what it leaves behind lives as
//! long as the instance.

mod ends;
mod pipes;
mod pump;

use ends::Between;
pub(crate) use ends::Ends;
pub(crate) use pipes::Threads;
pub(crate) use pump::pump;

use crate::agent::Agent;
use crate::applet::{self, forwarding};
use crate::environment;
use crate::error::AgentError;
use crate::instance::Instance;
use crate::layout::sandbox;
use motefarm_proto::convert::FieldError;
use motefarm_proto::mote::session_start::What;
use motefarm_proto::mote::{ExecSpec, KeeperSession, SessionStart};
use std::io;
use std::path::Path;

/// Shells, the better first; the last is everywhere.
const SHELLS: [&str; 2] = ["/bin/bash", "/bin/sh"];
/// A command line is one argument of the shell, for which Linux has room for 32 pages.
const MOST_COMMAND_BYTES: usize = 128 * 1024 - 1;
/// Variables a caller may add, and bytes of them together.
const MOST_ENV: usize = 256;
const MOST_ENV_BYTES: usize = 64 * 1024;
/// Modes of a terminal; fewer have been thought of.
const MOST_MODES: usize = 128;

/// Starts the process in the instance's sandbox, at once or not at all.
pub(crate) async fn open(agent: &Agent, instance: &Instance, start: SessionStart) -> Result<Ends, AgentError> {
    let between = match &start.what {
        Some(What::Shell(_) | What::Command(_)) | None => Between::Pipes,
        Some(_) => Between::Sockets,
    };
    let asked = resolve(agent, instance, start)?;
    let _life = instance.life.read().await;
    instance.check_alive()?;
    let keeper = instance.keeper(&agent.sandbox, &agent.program).await?;
    Ends::open(keeper, asked, between, &instance.session_threads).await.map_err(|error| match error.kind() {
        io::ErrorKind::Unsupported => {
            let text = "this instance began under an older version, which has no sessions; a new one has";
            AgentError::Refused(text.to_owned())
        }
        _ => AgentError::Unavailable(format!("no session in instance {}: {error}", instance.id)),
    })
}

fn resolve(agent: &Agent, instance: &Instance, start: SessionStart) -> Result<KeeperSession, AgentError> {
    check(&start)?;
    let shell = SHELLS.into_iter().find(|shell| Path::new(shell).exists()).unwrap_or(SHELLS[1]);
    let (program, args) = command_line(agent, shell, start.what)?;
    let mut env = start.env;
    env.push(format!("SHELL={shell}"));
    if let Some(terminal) = &start.terminal {
        env.push(format!("TERM={}", terminal_name(&terminal.term)));
    }
    let spec = ExecSpec { program: program.clone(), env, system_level: true, ..Default::default() };
    let (env, work_dir) = environment::of(&agent.sandbox, instance, &spec)?;
    Ok(KeeperSession { program, args, env, work_dir, terminal: start.terminal })
}

fn check(start: &SessionStart) -> Result<(), FieldError> {
    let bytes: usize = start.env.iter().map(String::len).sum();
    if start.env.len() > MOST_ENV || bytes > MOST_ENV_BYTES {
        let problem =
            format!("{} variables of {bytes} bytes; at most {MOST_ENV} and {MOST_ENV_BYTES}", start.env.len());
        return Err(FieldError::new("start.env", problem));
    }
    match &start.terminal {
        Some(terminal) if terminal.modes.len() > MOST_MODES => Err(FieldError::new(
            "start.terminal.modes",
            format!("{} modes; at most {MOST_MODES}", terminal.modes.len()),
        )),
        _ => Ok(()),
    }
}

/// Program and argv.
fn command_line(agent: &Agent, shell: &str, what: Option<What>) -> Result<(String, Vec<bytes::Bytes>), AgentError> {
    let words = |words: &[&str]| words.iter().map(|word| bytes::Bytes::copy_from_slice(word.as_bytes())).collect();
    let name = shell.rsplit('/').next().unwrap_or(shell);
    let inside = |words: &[&str]| -> Result<(String, Vec<bytes::Bytes>), AgentError> {
        if let Some(bad) = words.iter().find(|word| word.contains('\0')) {
            return Err(FieldError::new("start.what", format!("{bad:?} holds a NUL byte")).into());
        }
        let program = match agent.sandbox.is_present() {
            true => sandbox::KEEPER.to_owned(),
            false => {
                let path = agent.program.path().map_err(AgentError::io("can not find this program"))?;
                path.to_string_lossy().into_owned()
            }
        };
        let all = std::iter::once("mote-buildlet").chain(words.iter().copied());
        Ok((program, all.map(|word| bytes::Bytes::copy_from_slice(word.as_bytes())).collect()))
    };
    match what {
        // A hyphen before its name tells a shell that it is a login shell.
        Some(What::Shell(_)) => Ok((shell.to_owned(), words(&[&format!("-{name}")]))),
        Some(What::Command(line)) => {
            if line.len() > MOST_COMMAND_BYTES || line.contains(&0) {
                let problem = format!("{} bytes; at most {MOST_COMMAND_BYTES}, and none of them NUL", line.len());
                return Err(FieldError::new("start.command", problem).into());
            }
            let mut args: Vec<bytes::Bytes> = words(&[name, "-c"]);
            args.push(line);
            Ok((shell.to_owned(), args))
        }
        Some(What::Sftp(_)) => inside(&[applet::SFTP]),
        Some(What::Connect(to)) if !to.unix_path.is_empty() => {
            inside(&[applet::FORWARD, forwarding::CONNECT_UNIX, &to.unix_path])
        }
        Some(What::Connect(to)) => inside(&[applet::FORWARD, forwarding::CONNECT, &to.host, &to.port.to_string()]),
        Some(What::Listen(on)) => inside(&[applet::FORWARD, forwarding::LISTEN, &on.host, &on.port.to_string()]),
        Some(What::Accept(accepted)) => inside(&[applet::FORWARD, forwarding::ACCEPT, &accepted.id]),
        None => Err(FieldError::new("start.what", "is not set").into()),
    }
}

/// A terminal's name as it came, unless it can be none.
fn terminal_name(name: &str) -> &str {
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_graphic()) && !name.contains('/');
    if !name.is_empty() && name.len() <= 64 && is_name(name) { name } else { "dumb" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_terminals_are_terms() {
        assert_eq!(terminal_name("xterm-256color"), "xterm-256color");
        for bad in ["", "../x", "a b", "a\nb", &"x".repeat(65)] {
            assert_eq!(terminal_name(bad), "dumb", "{bad:?}");
        }
    }
}
