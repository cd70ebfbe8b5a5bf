//! Processes that somebody is connected to: started, signalled, hung up on, and their ends told.
//!
//! The bytes are none of the keeper's: pipes come with the request, a terminal's other end goes back
//! with the reply.

use super::{close_in_child, note, terminal};
use crate::supervisor::Limits;
use crate::supervisor::spawn::{self, Command};
use crate::wire;
use motefarm_proto::mote::{KeeperReply, KeeperSession, KeeperSessionAsk, KeeperSessionEnd, SessionExit};
use nix::poll::{PollFd, PollFlags};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Sessions of one instance.
const MOST: usize = 4096;
/// Between SIGHUP and SIGKILL for a leader that does not leave.
const HANG_UP_GRACE: Duration = Duration::from_secs(5);
/// Nothing here is due.
const NOTHING_DUE: Duration = Duration::MAX;

/// See the module.
#[derive(Default)]
pub(super) struct Sessions(Vec<Session>);

/// A leader that has not been reaped: its number, and its group's, are its own.
struct Session {
    leader: Pid,
    /// `None` once hung up.
    control: Option<UnixStream>,
    kill_at: Option<Instant>,
}

impl Sessions {
    /// Starts the process that is asked for, and answers on `control`, which the session keeps.
    pub(super) fn open(
        &mut self,
        asked: &KeeperSession,
        descriptors: Vec<OwnedFd>,
        limits: &Limits,
        mut control: UnixStream,
        mut answer: KeeperReply,
    ) -> io::Result<()> {
        if self.0.len() >= MOST {
            answer.error = format!("this instance has {MOST} sessions");
            return wire::reply(&mut control, &answer);
        }
        match start(asked, descriptors, limits) {
            Ok((leader, terminal)) => {
                let told = match terminal {
                    Some(terminal) => wire::reply_with(&mut control, &answer, terminal.as_fd()),
                    None => wire::reply(&mut control, &answer),
                };
                self.0.push(Session { leader, control: Some(control), kill_at: None });
                // Nobody to hear it any more: the session ends as any that loses its caller.
                if told.is_err()
                    && let Some(session) = self.0.last_mut()
                {
                    session.hang_up();
                }
                told
            }
            Err(problem) => {
                answer.error = problem;
                wire::reply(&mut control, &answer)
            }
        }
    }

    /// Tells the end of a leader, if it was one.
    pub(super) fn note_end(&mut self, status: WaitStatus) {
        let (pid, exit) = match status {
            WaitStatus::Exited(pid, code) => (pid, SessionExit { code, ..Default::default() }),
            WaitStatus::Signaled(pid, signal, core_dumped) => {
                (pid, SessionExit { signal: signal as i32, core_dumped, ..Default::default() })
            }
            _ => return,
        };
        let Some(at) = self.0.iter().position(|session| session.leader == pid) else { return };
        if let Some(mut control) = self.0.swap_remove(at).control {
            // Whoever has left needs not know.
            let _ = wire::reply(&mut control, &KeeperSessionEnd { exit: Some(exit) });
        }
    }

    /// What is to be watched for input, in order.
    pub(super) fn watched(&self) -> impl Iterator<Item = PollFd<'_>> {
        self.controls().map(|control| PollFd::new(control.as_fd(), PollFlags::POLLIN))
    }

    fn controls(&self) -> impl Iterator<Item = &UnixStream> {
        self.0.iter().filter_map(|session| session.control.as_ref())
    }

    /// Hears those of the watched that are ready, and kills who did not go when hung up.
    pub(super) fn serve(&mut self, ready: &[bool]) {
        let watched = self.0.iter_mut().filter(|session| session.control.is_some());
        for (session, _) in watched.zip(ready).filter(|(_, ready)| **ready) {
            session.hear();
        }
        let now = Instant::now();
        for session in self.0.iter_mut().filter(|session| session.kill_at.is_some_and(|at| at <= now)) {
            session.kill_at = None;
            session.signal(Signal::SIGKILL);
        }
    }

    /// How long until something is due.
    pub(super) fn nap(&self) -> Duration {
        let now = Instant::now();
        let due = self.0.iter().filter_map(|session| session.kill_at).min();
        due.map_or(NOTHING_DUE, |at| at.saturating_duration_since(now))
    }

    /// Lets go of everything in a child that is to outlive sessions.
    pub(super) fn close_in_child(&self) {
        self.controls().for_each(|control| close_in_child(control.as_fd()));
    }
}

impl Session {
    fn hear(&mut self) {
        let Some(control) = &mut self.control else { return };
        match wire::receive::<KeeperSessionAsk>(control) {
            Ok((ask, _)) => {
                if let Ok(signal) = Signal::try_from(ask.signal) {
                    self.signal(signal);
                }
            }
            Err(_) => self.hang_up(),
        }
    }

    fn hang_up(&mut self) {
        self.control = None;
        self.kill_at = Some(Instant::now() + HANG_UP_GRACE);
        self.signal(Signal::SIGHUP);
        // A stopped one would not hear it.
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        // Fails when the group is gone, the leader being a zombie that nobody has reaped yet.
        let _ = killpg(self.leader, signal);
    }
}

/// Starts a process on the pipes given or on a new terminal, whose other end is answered.
fn start(asked: &KeeperSession, descriptors: Vec<OwnedFd>, limits: &Limits) -> Result<(Pid, Option<OwnedFd>), String> {
    let mut env = asked.env.clone();
    let (ends, ours) = match &asked.terminal {
        Some(wish) => {
            let terminal = terminal::open(wish).map_err(|e| format!("no terminal can be had: {e}"))?;
            env.push(format!("SSH_TTY={}", terminal.name.display()));
            let again = || terminal.end.try_clone().map_err(|e| format!("no terminal can be had: {e}"));
            ([again()?, again()?, again()?], Some(terminal.ours))
        }
        None => {
            let ends = <[OwnedFd; 3]>::try_from(descriptors)
                .map_err(|other| format!("a session needs 3 descriptors and came with {}", other.len()))?;
            (ends, None)
        }
    };
    let [stdin, stdout, stderr] = ends;
    let leader = spawn::spawn(Command {
        program: Path::new(&asked.program),
        args: asked.args.iter().map(|arg| &arg[..]).collect(),
        env: &env,
        dir: &asked.work_dir,
        limits,
        stdin,
        stdout,
        stderr: Some(stderr),
        terminal: ours.is_some(),
    })
    .map_err(String::from);
    leader.map(|leader| (leader, ours)).inspect_err(|problem| note(&format!("a session could not start: {problem}")))
}
