//! Requests to a supervisor: one a connection, answered without waiting, but for stdin that finds a
//! full pipe, which is answered when the pipe takes something or a while has passed.

use super::Supervisor;
use super::stdin::Fed;
use crate::wire;
use motefarm_core::exec::Ending;
use motefarm_proto::KEEPER_PROTOCOL_VERSION;
use motefarm_proto::mote::{SupervisorReply, SupervisorRequest, SupervisorStdin, supervisor_request::Request};
use nix::sys::signal::{Signal, killpg};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long stdin may wait for the pipe before the answer is "nothing taken".
const STDIN_PATIENCE: Duration = Duration::from_secs(2);
/// Longest grace that counts.
const MOST_GRACE: Duration = Duration::from_secs(60);

/// A piece of stdin that found the pipe full.
pub(super) struct WaitingStdin {
    stream: UnixStream,
    request: SupervisorStdin,
    pub(super) until: Instant,
}

impl Supervisor {
    /// Serves every connection that waits.
    pub(super) fn serve_control(&mut self) {
        while let Ok(Some(mut stream)) = wire::accept(self.control.as_fd()) {
            // An asker that died halfway: nothing was done.
            if let Ok((request, _)) = wire::receive::<SupervisorRequest>(&mut stream) {
                let _ = self.serve(stream, request);
            }
        }
    }

    fn serve(&mut self, mut stream: UnixStream, request: SupervisorRequest) -> io::Result<()> {
        let mut answer = empty_reply();
        match request.request {
            Some(Request::Stdin(stdin)) => match self.stdin.feed(&stdin) {
                Fed::Full if self.waiting_stdin.is_none() => {
                    let until = Instant::now() + STDIN_PATIENCE;
                    self.waiting_stdin = Some(WaitingStdin { stream, request: stdin, until });
                    return Ok(());
                }
                Fed::Full | Fed::Answered => self.stdin.report(&mut answer),
                Fed::Gap => {
                    self.stdin.report(&mut answer);
                    answer.error = format!(
                        "stdin offset {} is behind the {} bytes taken so far: bytes between are missing",
                        stdin.offset, answer.stdin_accepted
                    );
                }
            },
            Some(Request::Signal(signal)) => answer.error = self.signal(signal.signal).err().unwrap_or_default(),
            Some(Request::Cancel(cancel)) => {
                let grace = Duration::from_millis(cancel.grace_ms).min(MOST_GRACE);
                self.end_everything(Some(Ending::Cancelled), grace);
            }
            Some(Request::Release(release)) => self.acknowledge(release.offset),
            None => answer.unsupported = true,
        }
        wire::reply(&mut stream, &answer)
    }

    /// Tries a waiting piece again, and answers it if that helped or it waited long enough.
    pub(super) fn feed_waiting_stdin(&mut self) {
        let Some(mut waiting) = self.waiting_stdin.take() else { return };
        if matches!(self.stdin.feed(&waiting.request), Fed::Full) && Instant::now() < waiting.until {
            self.waiting_stdin = Some(waiting);
            return;
        }
        let mut answer = empty_reply();
        self.stdin.report(&mut answer);
        let _ = wire::reply(&mut waiting.stream, &answer);
    }

    fn signal(&self, number: i32) -> Result<(), String> {
        let signal = Signal::try_from(number).map_err(|_| format!("{number} is no signal"))?;
        if self.exit.is_some() {
            return Err("the command has ended".to_owned());
        }
        killpg(self.leader, signal).map_err(|e| format!("can not signal the command: {e}"))
    }
}

fn empty_reply() -> SupervisorReply {
    SupervisorReply { version: KEEPER_PROTOCOL_VERSION, ..Default::default() }
}
