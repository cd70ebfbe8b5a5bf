//! This program in the roles it has inside an instance: what a session may need there and no system
//! has for certain. Small, blocking, without a runtime; each is one process of one session.
//!
//! **Absent on purpose:** any right a command of the instance does not have. Everything these do is
//! done as the instance's user, in its sandbox.

mod forward;
mod sftp;

use std::io::{self, Write as _};
use std::process::ExitCode;

/// First arguments that select a role.
pub(crate) const SFTP: &str = "sftp-server";
pub(crate) const FORWARD: &str = "forward";

/// Words after [`FORWARD`].
pub(crate) mod forwarding {
    /// `connect HOST PORT`.
    pub(crate) const CONNECT: &str = "connect";
    /// `connect-unix PATH`.
    pub(crate) const CONNECT_UNIX: &str = "connect-unix";
    /// `listen HOST PORT`.
    pub(crate) const LISTEN: &str = "listen";
    /// `accept ID`.
    pub(crate) const ACCEPT: &str = "accept";
}

/// Runs the role if `name` is one.
pub(crate) fn run(name: &str, arguments: impl Iterator<Item = String>) -> Option<ExitCode> {
    let ran = match name {
        SFTP => sftp::serve(),
        FORWARD => forward::run(arguments),
        _ => return None,
    };
    Some(match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    })
}
