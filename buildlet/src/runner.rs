//! The runner: one process an action slot, which runs one action after the other.
//!
//! The buildlet starts it with the slot's first action and keeps it, so that an action costs two forks
//! and no start of a program. With a sandbox it has namespaces of its own from the start, in which
//! nothing of the machine is left but what actions may see ([`template`]); each action gets further ones
//! below ([`cell`]). Without, it is the subreaper of whatever an action starts. Either way nothing of an
//! action lives on when it has answered. Single-threaded and without a runtime, because it forks.
//!
//! It ends, and kills what it runs, when its connection ends.
//!
//! **Absent on purpose:** digests, blobs, inputs and outputs, what is done with a result.

mod cell;
mod command;
mod mounts;
mod outputs;
mod template;
mod waiting;

use crate::keeper::reaper;
use crate::wire;
use command::Ended;
use motefarm_proto::mote::runner_request::Request;
use motefarm_proto::mote::{RunnerReply, RunnerRequest, RunnerRun, RunnerSetup};
use outputs::Outputs;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use template::Template;
use waiting::Awaited;

/// The first argument that selects this role.
pub(crate) const ROLE: &str = "runner";

/// Names in an action's directory.
pub(crate) mod names {
    /// What the command sees as `/`, or as the directory it starts in where there is no sandbox.
    pub(crate) const ROOT: &str = "root";
    /// What the sandbox shows as `/tmp` if the input has none.
    pub(crate) const TMP: &str = "tmp";
    /// Standard output and error where they are long.
    pub(crate) const STDOUT: &str = "stdout";
    pub(crate) const STDERR: &str = "stderr";
}

/// How ready the kernel is to kill an action when memory runs out, instead of buildlet and coordinator.
const OOM_SCORE: &str = "500";

/// Runs the role: standard input is the connection.
pub(crate) fn main() -> ExitCode {
    let mut connection = match take_connection() {
        Ok(connection) => connection,
        Err(_) => return ExitCode::FAILURE,
    };
    let mut place = None;
    loop {
        let Ok((request, _)) = wire::receive::<RunnerRequest>(&mut connection) else {
            return ExitCode::SUCCESS;
        };
        let answer = match request.request {
            Some(Request::Setup(setup)) if place.is_none() => match Place::make(setup) {
                Ok(made) => {
                    let offered = made.template.as_ref().map(Template::offered).unwrap_or_default();
                    let merges = made.template.as_ref().is_some_and(|template| template.merges);
                    place = Some(made);
                    RunnerReply { offered, merges, ..Default::default() }
                }
                Err(error) => failed(error.to_string()),
            },
            Some(Request::Run(run)) if let Some(place) = &place => match place.run(&run, &connection) {
                Ok(Some(answer)) => answer,
                Ok(None) => return ExitCode::SUCCESS,
                Err(problem) => failed(problem),
            },
            _ => failed("this request has no place here".to_owned()),
        };
        if wire::reply(&mut connection, &answer).is_err() {
            return ExitCode::SUCCESS;
        }
    }
}

fn failed(error: String) -> RunnerReply {
    RunnerReply { error, ..Default::default() }
}

impl From<Ended> for RunnerReply {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Exited(exit_code) => Self { exit_code, ..Default::default() },
            Ended::Killed(signal) => Self { signal, ..Default::default() },
            Ended::TimedOut => Self { timed_out: true, ..Default::default() },
            Ended::OutputLimit => Self { output_limit: true, ..Default::default() },
        }
    }
}

/// Takes standard input for the connection and puts nothing in its place.
fn take_connection() -> io::Result<UnixStream> {
    nix::sys::prctl::set_name(c"mote-runner")?;
    nix::sys::prctl::set_child_subreaper(true)?;
    // A convenience: without it the kernel chooses by size.
    let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
    let connection = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&nothing)?;
    nix::unistd::dup2_stdout(&nothing)?;
    Ok(connection)
}

/// Where actions are run.
struct Place {
    actions: PathBuf,
    /// With a sandbox.
    template: Option<Template>,
}

impl Place {
    fn make(setup: RunnerSetup) -> io::Result<Self> {
        let path = |bytes: Vec<u8>| PathBuf::from(std::ffi::OsString::from_vec(bytes));
        let mut place = Self { actions: path(setup.actions_dir.to_vec()), template: None };
        if setup.sandbox {
            let show: Vec<PathBuf> = setup.show.into_iter().map(|shown| path(shown.to_vec())).collect();
            place.template = Some(Template::make(&place.actions, &show, &path(setup.hide.to_vec()))?);
            place.actions = PathBuf::from(template::ACTIONS);
        }
        // Commands run as the same user: they must not trace us or read our memory. Not before the
        // template is made, which takes writing to our own /proc.
        nix::sys::prctl::set_dumpable(false)?;
        Ok(place)
    }

    /// Runs an action to its end; `None` if the buildlet has left meanwhile. An error says why nothing
    /// was run.
    fn run(&self, run: &RunnerRun, connection: &UnixStream) -> Result<Option<RunnerReply>, String> {
        let action = self.actions.join(&run.action);
        let until = Instant::now().checked_add(Duration::from_millis(run.timeout_ms));
        let (mut outputs, ends) = Outputs::new(&action, run.most_bytes).map_err(|e| format!("no pipes: {e}"))?;
        let ended = match &self.template {
            Some(template) => {
                let cell = cell::start(template, &action, run, ends)?;
                let awaited = waiting::wait(cell.init, connection, until, &mut outputs);
                // All of the cell is gone once its first process is.
                let told = cell.end();
                match awaited {
                    Awaited::Left => return Ok(None),
                    Awaited::Stopped(ended) => ended,
                    Awaited::Ended(_) => told?,
                }
            }
            None => match command::start(run, &action.join(names::ROOT), ends)? {
                Err(ended) => ended,
                Ok(leader) => {
                    let awaited = waiting::wait(leader, connection, until, &mut outputs);
                    reaper::kill_everything();
                    match awaited {
                        Awaited::Left => return Ok(None),
                        Awaited::Stopped(ended) => ended,
                        Awaited::Ended(status) => Ended::of(status).ok_or("the command's end was not seen")?,
                    }
                }
            },
        };
        let [stdout, stderr] = outputs.finish().map_err(|e| format!("the command's output can not be kept: {e}"))?;
        Ok(Some(RunnerReply { stdout: Some(stdout), stderr: Some(stderr), ..ended.into() }))
    }
}
