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
mod pace;
pub(crate) mod place;
mod pumping;
mod settling;
pub(crate) mod spawn;
mod stdin;
mod waiting;

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
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use outputs::OutputPipe;
use pace::Pace;
use prost::Message as _;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use stdin::Stdin;

/// How long a process that outlives the command may hold its pipes before the command counts as over.
const LEAK_GRACE: Duration = Duration::from_millis(500);
/// Between SIGTERM and SIGKILL at a time limit.
const TIMEOUT_GRACE: Duration = Duration::from_secs(5);
/// Between passes over processes that are being killed.
const KILL_PASS: Duration = Duration::from_millis(3);
/// Between attempts to write to a full disk.
const DISK_RETRY: Duration = Duration::from_millis(200);
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
    pace: Pace,
    /// To let a dribble gather.
    nap: Option<Duration>,
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
                args: std::iter::once(program.as_os_str().as_bytes())
                    .chain(spec.args.iter().map(String::as_bytes))
                    .collect(),
                env: &given.env,
                dir: &run_dir,
                limits,
                stdin: stdin_end,
                stdout: stdout_end,
                stderr: stderr_end,
                terminal: false,
            })
            .map_err(String::from)
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
            pace: Pace::default(),
            nap: None,
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
            if let Some(nap) = self.nap.take().filter(|_| self.exit.is_none()) {
                std::thread::sleep(nap);
            }
        }
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
}

fn read_spec(dir: BorrowedFd<'_>) -> io::Result<SupervisorSpec> {
    let file = rustix::fs::openat(dir, SPEC, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(file).take(MOST_SPEC_BYTES).read_to_end(&mut bytes)?;
    SupervisorSpec::decode(bytes.as_slice()).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
