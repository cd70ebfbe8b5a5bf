//! Bytes between a caller's stream and a process, as fast as the slower of the two takes them.
//!
//! Each direction has a window, so neither waits for the other: a process that does not read still
//! gets its signals, and a caller who does not read still gets the end told when he does.

use super::ends::{self, Ends, Input, Output};
use crate::error::AgentError;
use crate::instance::Instance;
use bytes::Bytes;
use futures_util::Stream;
use motefarm_core::{Clock as _, SystemClock};
use motefarm_net::window::Window;
use motefarm_proto::convert::FieldError;
use motefarm_proto::mote::session_input::Input as Asked;
use motefarm_proto::mote::session_output::Output as Told;
use motefarm_proto::mote::{SessionEof, SessionInput, SessionOutput, SessionStarted};
use motefarm_proto::{MAX_CHUNK_BYTES, SESSION_WINDOW_BYTES};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt as _;
use tonic::Status;

/// How often a session looks whether its instance ends, and counts as a use of it.
const LOOK: Duration = Duration::from_secs(1);
/// How long after the leader's end a terminal that others still hold may be silent before it counts
/// as closed, and how long it may go on.
const TERMINAL_SILENCE: Duration = Duration::from_millis(100);
const TERMINAL_REST: Duration = Duration::from_secs(2);
/// Bytes taken are told in steps of this: less than a window, more than a keystroke.
const TELL_STEP: usize = SESSION_WINDOW_BYTES / 8;
/// Largest read. A pipe seldom has more.
const READ_BYTES: usize = 64 * 1024;
const _: () = assert!(READ_BYTES <= MAX_CHUNK_BYTES);

/// What the caller is told, or why nothing more.
pub(crate) type Answers = mpsc::Sender<Result<SessionOutput, Status>>;

/// Runs a session to its end: the process's, the caller's or the instance's, whichever is first. Dropping
/// `ends` hangs up.
pub(crate) async fn pump(
    instance: Arc<Instance>,
    ends: Ends,
    window: u64,
    asked: impl Stream<Item = Result<SessionInput, Status>> + Unpin,
    answers: Answers,
) {
    let gone = answers.closed();
    let work = run(&instance, ends, window, asked, &answers);
    tokio::select! {
        ended = work => if let Err(error) = ended {
            let _ = answers.send(Err(error)).await;
        },
        () = gone => {}
    }
}

async fn run(
    instance: &Instance,
    ends: Ends,
    window: u64,
    asked: impl Stream<Item = Result<SessionInput, Status>> + Unpin,
    answers: &Answers,
) -> Result<(), Status> {
    let Ends { input, stdout, stderr, keeper } = ends;
    let started = SessionStarted { window: u64::try_from(SESSION_WINDOW_BYTES).unwrap_or(0) };
    tell(answers, Told::Started(started)).await?;
    let terminal = match &input {
        Input::Terminal(terminal) => Some(terminal.clone()),
        Input::Pipe(_) | Input::Socket(_) => None,
    };
    let window = Window::new(window);
    let waiting = AtomicUsize::new(0);
    let (queue, queued) = mpsc::unbounded_channel();
    let hear = hear(asked, &window, Queue { queue: Some(queue), waiting: &waiting }, &keeper, terminal.as_deref());
    let (ended, end) = watch::channel(false);
    let outputs = async {
        let stderr = async {
            match stderr {
                Some(stderr) => drain(stderr, Told::Stderr, &window, end.clone(), answers).await,
                None => Ok(()),
            }
        };
        let leader = async {
            let exit = ends::leader_end(&keeper).await.map_err(|_| AgentError::Ending(instance.id))?;
            tell(answers, Told::Exit(exit)).await?;
            let _ = ended.send(true);
            Ok(())
        };
        let both = async {
            tokio::try_join!(drain(stdout, Told::Stdout, &window, end.clone(), answers), stderr)?;
            tell(answers, Told::Eof(SessionEof {})).await
        };
        tokio::try_join!(both, leader).map(drop)
    };
    tokio::select! {
        done = outputs => done,
        broken = hear => Err(broken),
        broken = feed(input, queued, &waiting, answers) => Err(broken),
        ending = look(instance) => Err(ending),
    }
}

async fn tell(answers: &Answers, output: Told) -> Result<(), Status> {
    let sent = answers.send(Ok(SessionOutput { output: Some(output) })).await;
    sent.map_err(|_| Status::cancelled("the caller has left"))
}

/// Hears the caller until he leaves; answers why he is not heard any more.
async fn hear(
    mut asked: impl Stream<Item = Result<SessionInput, Status>> + Unpin,
    window: &Window,
    mut queue: Queue<'_>,
    keeper: &UnixStream,
    terminal: Option<&tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>>,
) -> Status {
    loop {
        let input = match asked.next().await {
            Some(Ok(message)) => message.input,
            Some(Err(status)) => return status,
            None => return Status::cancelled("the caller has left"),
        };
        match input {
            Some(Asked::Data(data)) => {
                if let Err(problem) = queue.push(data) {
                    return FieldError::new("data", problem).into();
                }
            }
            Some(Asked::Eof(_)) => queue.queue = None,
            Some(Asked::Window(more)) => window.open(more),
            Some(Asked::Resize(size)) => {
                // A terminal that is gone needs none.
                terminal.map(|terminal| ends::resize(terminal, size));
            }
            Some(Asked::Signal(signal)) => {
                if let Err(error) = ends::signal(keeper, signal).await {
                    tracing::debug!(%error, signal, "a signal was not passed on");
                }
            }
            Some(Asked::Start(_)) => return FieldError::new("start", "comes a second time").into(),
            None => {}
        }
    }
}

/// What the caller sent and the process has not been given. Has no bound of its own: the window is.
struct Queue<'a> {
    /// `None` after the end.
    queue: Option<mpsc::UnboundedSender<Bytes>>,
    waiting: &'a AtomicUsize,
}

impl Queue<'_> {
    fn push(&self, data: Bytes) -> Result<(), String> {
        let Some(queue) = &self.queue else { return Err("comes after the end".to_owned()) };
        if data.len() > MAX_CHUNK_BYTES {
            return Err(format!("{} bytes; at most {MAX_CHUNK_BYTES} a message", data.len()));
        }
        let waiting = self.waiting.fetch_add(data.len(), Ordering::Relaxed) + data.len();
        if waiting > SESSION_WINDOW_BYTES {
            return Err(format!("{waiting} bytes wait; there is room for {SESSION_WINDOW_BYTES}"));
        }
        // A closed queue: the session is ending.
        let _ = queue.send(data);
        Ok(())
    }
}

/// Gives the process what the caller sent, and tells when there is room for more. Answers only if the
/// caller is gone.
async fn feed(
    input: Input,
    mut queued: mpsc::UnboundedReceiver<Bytes>,
    waiting: &AtomicUsize,
    answers: &Answers,
) -> Status {
    // A terminal has no end of input: whoever types can not hang up but by leaving.
    let keep = matches!(input, Input::Terminal(_));
    let mut input = Some(input);
    let mut taken = 0;
    while let Some(data) = queued.recv().await {
        let length = data.len();
        // Whoever has closed its input reads nothing: what comes is taken and let go.
        if let Some(open) = &mut input
            && open.write_all(data).await.is_err()
        {
            input = None;
        }
        waiting.fetch_sub(length, Ordering::Relaxed);
        taken += length;
        if taken >= TELL_STEP || queued.is_empty() {
            let told = tell(answers, Told::Window(u64::try_from(taken).unwrap_or(0))).await;
            if let Err(gone) = told {
                return gone;
            }
            taken = 0;
        }
    }
    if !keep {
        drop(input.take());
    }
    std::future::pending().await
}

/// Sends one output to its end.
async fn drain(
    mut output: Output,
    as_what: fn(Bytes) -> Told,
    window: &Window,
    mut leader_ended: watch::Receiver<bool>,
    answers: &Answers,
) -> Result<(), Status> {
    let mut rest = None;
    loop {
        let most = window.take(READ_BYTES).await;
        let read = match &rest {
            None if output.is_terminal() => tokio::select! {
                biased;
                read = output.read(most) => read,
                _ = leader_ended.wait_for(|ended| *ended) => {
                    rest = Some(SystemClock.now() + TERMINAL_REST);
                    window.open(u64::try_from(most).unwrap_or(0));
                    continue;
                }
            },
            None => output.read(most).await,
            Some(until) => match tokio::time::timeout(TERMINAL_SILENCE, output.read(most)).await {
                Ok(read) if SystemClock.now() < *until => read,
                _ => return Ok(()),
            },
        };
        let bytes = read.map_err(AgentError::io("can not read a session's output"))?;
        window.open(u64::try_from(most - bytes.len()).unwrap_or(0));
        if bytes.is_empty() {
            return Ok(());
        }
        tell(answers, as_what(bytes.freeze())).await?;
    }
}

/// Keeps the instance in use; answers when it ends.
async fn look(instance: &Instance) -> Status {
    loop {
        tokio::time::sleep(LOOK).await;
        if let Err(error) = instance.check_alive() {
            return error.into();
        }
        instance.touch();
    }
}
