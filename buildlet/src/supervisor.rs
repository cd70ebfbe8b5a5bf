//! The supervisor: one process an execution, forked from the instance's keeper.
//!
//! It starts the command in a session of its own, is the subreaper of whatever that starts, spools
//! the output, passes on stdin, enforces time limit and cancel, and writes the outcome. It needs
//! nobody: buildlet, coordinator and client may all be gone. One thread, one poll loop; nothing in
//! it waits for a peer or a disk longer than a moment.
//!
//! **Absent on purpose:** leases, readers, the network, other executions.

mod buffer;
mod control;
mod leader;
mod limits;
pub(crate) mod outcome;
mod outputs;
pub(crate) mod place;
mod spawn;
mod stdin;

pub(crate) use limits::Limits;

use crate::claim::Claim;
use crate::keeper::note;
use crate::layout::exec::SPEC;
use crate::proc_tree;
use crate::spool::writer::SpoolWriter;
use buffer::Buffer;
use control::WaitingStdin;
use leader::Exit;
use motefarm_core::exec::{Ending, ExecOutcome, OutputStream};
use motefarm_core::{Clock as _, SystemClock, Timestamp};
use motefarm_proto::mote::{SupervisorSpec, exec_spec::Overflow};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use outputs::{Got, OutputPipe};
use prost::Message as _;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use stdin::Stdin;

/// How long a process that outlives the command may hold its pipes before the command counts as over.
const LEAK_GRACE: Duration = Duration::from_millis(500);
/// Between SIGTERM and SIGKILL at a time limit.
const TIMEOUT_GRACE: Duration = Duration::from_secs(5);
/// Between passes over processes that are being killed.
const KILL_PASS: Duration = Duration::from_millis(3);
/// A process not gone this long after SIGKILL is stuck in the kernel; the outcome does not wait for it.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// Between attempts to write to a full disk.
const DISK_RETRY: Duration = Duration::from_millis(200);
/// Silence after which the buffer's pages go back.
const QUIET: Duration = Duration::from_secs(1);
/// Largest spec; the request that carried it was smaller.
const MOST_SPEC_BYTES: u64 = 16 * 1024 * 1024;

/// Leaves at once, without running anything that was inherited from the keeper.
fn exit_now(code: i32) -> ! {
    #[expect(unsafe_code, reason = "a forked child must not run its parent's exit handlers")]
    // SAFETY: _exit has no preconditions.
    unsafe {
        libc::_exit(code)
    }
}

/// Runs the role in a child of the keeper. `control` is listening already.
pub(crate) fn main(dir: OwnedFd, control: OwnedFd, claim: Claim, limits: &Limits) -> ! {
    // Unwinding into the keeper's code would make a second keeper.
    let ran = catch_unwind(AssertUnwindSafe(|| {
        if let Err(reason) = Supervisor::start(&dir, control, limits).map(|s| s.map(Supervisor::run)) {
            note(&format!("an execution could not be supervised: {reason}"));
            let reason = format!("its supervisor could not start: {reason}");
            while write_not_started(dir.as_fd(), &reason).is_err() {
                std::thread::sleep(DISK_RETRY);
            }
        }
    }));
    // The claim's lock is to end with the process, not before.
    std::mem::forget(claim);
    exit_now(i32::from(ran.is_err()))
}

/// Writes the outcome of a command that never began.
pub(crate) fn write_not_started(dir: BorrowedFd<'_>, reason: &str) -> io::Result<()> {
    let now = SystemClock.now();
    outcome::save(dir, &not_started(reason, now, 0))
}

fn not_started(reason: &str, now: Timestamp, output_end: u64) -> ExecOutcome {
    ExecOutcome {
        ending: Ending::NotStarted,
        reason: reason.to_owned(),
        started_at: now,
        ended_at: now,
        user_cpu: Duration::ZERO,
        system_cpu: Duration::ZERO,
        max_rss_bytes: 0,
        output_end,
        left_running: false,
    }
}

/// A running (or just ended) command and all that belongs to it.
struct Supervisor {
    control: OwnedFd,
    signals: SignalFd,
    overflow: Overflow,
    spool: SpoolWriter,
    /// Whether the file system can let go of released output. If not, the bound is not held:
    /// blocking for ever would be worse.
    bounded: bool,
    acknowledged: u64,
    outputs: Vec<OutputPipe>,
    /// For each pipe, bytes to be taken whatever the bound says: the command left them behind.
    owed: Vec<usize>,
    buffer: Buffer,
    /// A frame the disk had no room for: its stream, time and length in the buffer.
    unwritten: Option<(OutputStream, i64, usize)>,
    /// Whether that has been noted: once, not five times a second.
    disk_noted: bool,
    stdin: Stdin,
    waiting_stdin: Option<WaitingStdin>,
    leader: Pid,
    started_at: Timestamp,
    ended_at: Timestamp,
    exit: Option<Exit>,
    any_left: bool,
    timeout_at: Option<Instant>,
    /// How it ends if not by itself.
    verdict: Option<Ending>,
    /// Set once everything is being ended: when SIGKILL follows.
    kill_at: Option<Instant>,
    leak_until: Option<Instant>,
    over: bool,
}

impl Supervisor {
    /// `Ok(None)`: the command could not be started, and its outcome says so.
    fn start(dir: &OwnedFd, control: OwnedFd, limits: &Limits) -> io::Result<Option<Self>> {
        nix::sys::prctl::set_name(c"mote-supervisor")?;
        nix::sys::prctl::set_child_subreaper(true)?;
        let mut awaited = SigSet::empty();
        awaited.add(Signal::SIGCHLD);
        // Everything is blocked since the keeper's start.
        let signals = SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let given = read_spec(dir.as_fd())?;
        let Some(spec) = &given.spec else { return Err(io::Error::other("its spec names no command")) };
        let mut spool = SpoolWriter::create(dir.try_clone()?, given.spool_limit_bytes)?;
        let run_dir = place::run_dir(spec, &given.work_dir);
        let program = place::program(spec, &given.env, &given.work_dir, &run_dir);
        if let (true, Ok(program)) = (spec.debug, &program) {
            let line = format!(":: Running {} with args {:?} in dir {run_dir}\n", program.display(), spec.args);
            for part in line.as_bytes().chunks(crate::spool::frame::MOST_PAYLOAD_BYTES) {
                spool.append(OutputStream::Stdout, SystemClock.now().as_millis(), part)?;
            }
        }
        let (stdin, stdin_end) =
            if spec.stdin { Stdin::piped()? } else { (Stdin::none(), File::open("/dev/null")?.into()) };
        let (stdout, stdout_end) = OutputPipe::new(OutputStream::Stdout)?;
        let mut outputs = vec![stdout];
        let mut stderr_end = None;
        if !spec.merge_output {
            let (stderr, end) = OutputPipe::new(OutputStream::Stderr)?;
            outputs.push(stderr);
            stderr_end = Some(end);
        }
        let spawned = program.and_then(|program| {
            spawn::spawn(spawn::Command {
                program: &program,
                args: &spec.args,
                env: &given.env,
                dir: &run_dir,
                limits,
                stdin: stdin_end,
                stdout: stdout_end,
                stderr: stderr_end,
            })
        });
        let started_at = SystemClock.now();
        let leader = match spawned {
            Ok(leader) => leader,
            Err(reason) => {
                let outcome = not_started(&reason, started_at, spool.end());
                while outcome::save(dir.as_fd(), &outcome).is_err() {
                    std::thread::sleep(DISK_RETRY);
                }
                return Ok(None);
            }
        };
        let timeout = (spec.timeout_ms > 0).then(|| Duration::from_millis(spec.timeout_ms));
        Ok(Some(Self {
            control,
            signals,
            overflow: spec.overflow(),
            spool,
            bounded: true,
            acknowledged: 0,
            owed: vec![0; outputs.len()],
            outputs,
            buffer: Buffer::new(),
            unwritten: None,
            disk_noted: false,
            stdin,
            waiting_stdin: None,
            leader,
            started_at,
            ended_at: started_at,
            exit: None,
            any_left: true,
            timeout_at: timeout.and_then(|t| Instant::now().checked_add(t)),
            verdict: None,
            kill_at: None,
            leak_until: None,
            over: false,
        }))
    }

    fn run(mut self) {
        loop {
            let ready = self.wait();
            if ready.signal {
                while let Ok(Some(_)) = self.signals.read_signal() {}
                self.reap();
            }
            if ready.control {
                self.serve_control();
            }
            self.feed_waiting_stdin();
            self.retry_unwritten();
            for (n, ready) in ready.outputs.into_iter().enumerate() {
                if ready {
                    self.pump(n);
                }
            }
            self.mind_the_time();
            if self.settle() {
                return;
            }
        }
    }

    /// Sleeps until something is to be done.
    fn wait(&mut self) -> Ready {
        let full = self.bounded && self.spool.room() == 0;
        // Where a full spool ends the execution, more output is news; elsewhere it waits in its pipe.
        let limit_may_strike = self.overflow == Overflow::End && self.exit.is_none() && self.kill_at.is_none();
        let held = self.unwritten.is_some() || (full && !limit_may_strike);
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.control.as_fd(), PollFlags::POLLIN),
        ];
        let mut output_at = vec![None; self.outputs.len()];
        for (n, output) in self.outputs.iter().enumerate().filter(|_| !held) {
            if let Some(fd) = output.fd() {
                output_at[n] = Some(fds.len());
                fds.push(PollFd::new(fd, PollFlags::POLLIN));
            }
        }
        if let (Some(_), Some(fd)) = (&self.waiting_stdin, self.stdin.fd()) {
            fds.push(PollFd::new(fd, PollFlags::POLLOUT));
        }
        let now = Instant::now();
        let nap = self.next_event().map(|at| at.saturating_duration_since(now));
        // Rounded up, or a poll of 0 ms would spin through the last millisecond.
        let timeout = nap.map_or(PollTimeout::NONE, |nap| {
            PollTimeout::try_from(nap.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        if poll(&mut fds, timeout).is_err() {
            return Ready { signal: true, control: false, outputs: vec![false; self.outputs.len()] };
        }
        let any = |at: usize| fds[at].any() == Some(true);
        let ready = Ready {
            signal: any(0),
            control: any(1),
            outputs: output_at.iter().map(|at| at.is_some_and(any)).collect(),
        };
        if self.buffer.holds_pages() && self.unwritten.is_none() && !ready.outputs.contains(&true) {
            self.buffer.give_back();
        }
        ready
    }

    fn next_event(&self) -> Option<Instant> {
        let soon = |wait| Some(Instant::now() + wait);
        let killing = self
            .kill_at
            .filter(|_| self.any_left)
            .and_then(|at| if at <= Instant::now() { soon(KILL_PASS) } else { Some(at) });
        [
            self.timeout_at,
            killing,
            self.leak_until.filter(|_| !self.over && self.kill_at.is_none() && self.unwritten.is_none()),
            self.unwritten.and_then(|_| soon(DISK_RETRY)),
            self.waiting_stdin.as_ref().map(|w| w.until),
            if self.buffer.holds_pages() { soon(QUIET) } else { None },
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn reap(&mut self) {
        let reaped = leader::reap(self.leader);
        self.any_left = reaped.any_left;
        if let Some(exit) = reaped.leader {
            self.exit = Some(exit);
            self.ended_at = SystemClock.now();
            self.timeout_at = None;
            self.stdin.close();
            self.leak_until = Some(Instant::now() + LEAK_GRACE);
            self.owe_what_waits();
        }
    }

    /// From here on what lies in the pipes is taken, bound or no bound: it is at most what pipes hold.
    fn owe_what_waits(&mut self) {
        self.owed = self.outputs.iter().map(OutputPipe::waiting).collect();
    }

    /// Reads one pipe once and spools what came.
    fn pump(&mut self, n: usize) -> bool {
        if self.unwritten.is_some() {
            return false;
        }
        let room = if self.bounded { self.spool.room() } else { usize::MAX };
        let most = room.max(self.owed[n]);
        if most == 0 {
            self.make_room(n);
            return false;
        }
        let output = &mut self.outputs[n];
        match output.read(self.buffer.room(most)) {
            Got::Bytes(length) => {
                self.owed[n] = self.owed[n].saturating_sub(length);
                self.unwritten = Some((output.stream(), SystemClock.now().as_millis(), length));
                self.retry_unwritten();
                if self.bounded && self.spool.room() == 0 {
                    self.make_room(n);
                }
                true
            }
            Got::Nothing => {
                self.owed[n] = 0;
                false
            }
            Got::End => {
                self.owed[n] = 0;
                true
            }
        }
    }

    fn retry_unwritten(&mut self) {
        let Some((stream, time_ms, length)) = self.unwritten else { return };
        match self.spool.append(stream, time_ms, self.buffer.filled(length)) {
            Ok(()) => {
                self.unwritten = None;
                self.disk_noted = false;
            }
            Err(error) if !self.disk_noted => {
                self.disk_noted = true;
                note(&format!("the output waits for the disk: {error}"));
            }
            Err(_) => {}
        }
    }

    /// The spool is full: lets go of what was acknowledged, or does what the overflow policy says.
    fn make_room(&mut self, n: usize) {
        match self.spool.release(self.acknowledged) {
            Ok(true) => {}
            Ok(false) => {
                if self.overflow == Overflow::End && self.outputs[n].waiting() > 0 && self.exit.is_none() {
                    self.end_everything(Some(Ending::OutputLimit), Duration::ZERO);
                }
            }
            Err(error) => {
                note(&format!("acknowledged output can not be let go of, its bound is not held: {error}"));
                self.bounded = false;
            }
        }
    }

    /// Output before `offset` is safe elsewhere.
    fn acknowledge(&mut self, offset: u64) {
        self.acknowledged = self.acknowledged.max(offset.min(self.spool.end()));
        if self.bounded && self.spool.room() == 0 {
            self.make_room(0);
        }
    }

    /// SIGTERM to everything now, SIGKILL after the grace. A second call can only shorten it.
    fn end_everything(&mut self, verdict: Option<Ending>, grace: Duration) {
        if self.exit.is_none() && self.verdict.is_none() {
            self.verdict = verdict;
        }
        self.timeout_at = None;
        let kill_at = Instant::now() + grace;
        if self.kill_at.is_none() && !grace.is_zero() {
            proc_tree::signal_descendants(Signal::SIGTERM);
            // A stopped process would not hear it.
            proc_tree::signal_descendants(Signal::SIGCONT);
        }
        self.kill_at = Some(self.kill_at.map_or(kill_at, |at| at.min(kill_at)));
    }

    fn mind_the_time(&mut self) {
        let now = Instant::now();
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.end_everything(Some(Ending::TimedOut), TIMEOUT_GRACE);
        }
        if self.any_left && self.kill_at.is_some_and(|at| at <= now) {
            proc_tree::kill_children();
        }
    }

    /// Whether all is done. Writes the outcome on the way.
    fn settle(&mut self) -> bool {
        if self.exit.is_none() {
            return false;
        }
        if !self.any_left {
            self.owe_what_waits();
        }
        for n in 0..self.outputs.len() {
            while self.owed[n] > 0 && self.pump(n) {}
        }
        if self.unwritten.is_some() || self.owed.iter().any(|owed| *owed > 0) {
            return false;
        }
        if !self.over {
            self.over = self.is_over() && self.save_outcome();
        }
        self.over && !self.any_left
    }

    /// Whether the command's part is over: it has exited, and nobody holds its pipes or the grace
    /// for that has passed; if everything is being ended, once it has.
    fn is_over(&self) -> bool {
        let now = Instant::now();
        if !self.any_left {
            return true;
        }
        match self.kill_at {
            Some(at) => at + STUCK_AFTER <= now,
            None => !self.outputs.iter().any(OutputPipe::is_open) || self.leak_until.is_some_and(|at| at <= now),
        }
    }

    fn save_outcome(&mut self) -> bool {
        let Some(exit) = self.exit else { return false };
        let outcome = ExecOutcome {
            ending: self.verdict.unwrap_or(exit.ending),
            reason: String::new(),
            started_at: self.started_at,
            ended_at: self.ended_at,
            user_cpu: exit.user_cpu,
            system_cpu: exit.system_cpu,
            max_rss_bytes: exit.max_rss_bytes,
            output_end: self.spool.end(),
            left_running: self.any_left,
        };
        match outcome::save(self.spool.dir(), &outcome) {
            Ok(()) => true,
            Err(error) => {
                if !std::mem::replace(&mut self.disk_noted, true) {
                    note(&format!("the outcome waits for the disk: {error}"));
                }
                std::thread::sleep(DISK_RETRY);
                false
            }
        }
    }
}

/// What poll found.
struct Ready {
    signal: bool,
    control: bool,
    outputs: Vec<bool>,
}

fn read_spec(dir: BorrowedFd<'_>) -> io::Result<SupervisorSpec> {
    let file = rustix::fs::openat(dir, SPEC, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(file).take(MOST_SPEC_BYTES).read_to_end(&mut bytes)?;
    SupervisorSpec::decode(bytes.as_slice()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
