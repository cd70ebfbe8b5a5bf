//! Processes somebody is connected to.

use crate::harness::*;
use bytes::Bytes;
use motefarm_proto::SESSION_WINDOW_BYTES;
use motefarm_proto::mote::session_input::Input;
use motefarm_proto::mote::session_output::Output;
use motefarm_proto::mote::session_start::What;
use motefarm_proto::mote::*;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Status, Streaming};

/// More than any test reads.
const WIDE: u64 = 1 << 40;

/// One open session, as its caller has it.
struct Open {
    send: mpsc::UnboundedSender<SessionInput>,
    heard: Streaming<SessionOutput>,
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    taken: u64,
    exit: Option<SessionExit>,
    closed: bool,
}

impl Open {
    async fn start(
        buildlet: &Buildlet,
        instance: &str,
        what: What,
        change: impl FnOnce(&mut SessionStart),
    ) -> Result<Self, Status> {
        let mut start =
            SessionStart { instance_id: instance.into(), what: Some(what), window: WIDE, ..Default::default() };
        change(&mut start);
        let (send, queue) = mpsc::unbounded_channel();
        send.send(SessionInput { input: Some(Input::Start(start)) }).unwrap();
        let heard = buildlet.client().await.open_session(UnboundedReceiverStream::new(queue)).await?.into_inner();
        Ok(Self { send, heard, stdout: Vec::new(), stderr: Vec::new(), taken: 0, exit: None, closed: false })
    }

    async fn command(buildlet: &Buildlet, instance: &str, line: &str) -> Self {
        let what = What::Command(Bytes::copy_from_slice(line.as_bytes()));
        Self::start(buildlet, instance, what, |_| {}).await.unwrap()
    }

    fn say(&self, input: Input) {
        self.send.send(SessionInput { input: Some(input) }).unwrap();
    }

    fn data(&self, bytes: &[u8]) {
        self.say(Input::Data(Bytes::copy_from_slice(bytes)));
    }

    /// Takes in one answer; `false` at the end.
    async fn hear(&mut self) -> Result<bool, Status> {
        let heard = match tokio::time::timeout(PATIENCE, self.heard.message()).await {
            Ok(heard) => heard?,
            Err(_) => panic!("the session hangs after {:?}", self.text()),
        };
        let Some(output) = heard else { return Ok(false) };
        match output.output.unwrap() {
            Output::Started(started) => self.taken += started.window,
            Output::Window(more) => self.taken += more,
            Output::Stdout(bytes) => self.stdout.extend_from_slice(&bytes),
            Output::Stderr(bytes) => self.stderr.extend_from_slice(&bytes),
            Output::Exit(exit) => self.exit = Some(exit),
            Output::Eof(_) => self.closed = true,
        }
        Ok(true)
    }

    async fn until(&mut self, text: &str) {
        while !self.text().contains(text) {
            assert!(self.hear().await.unwrap(), "ended before {text:?}: {:?}", self.text());
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// To its end.
    async fn finish(&mut self) -> SessionExit {
        while self.hear().await.unwrap() {}
        self.exit.expect("an exit is told before the end")
    }
}

#[tokio::test]
async fn pipes_are_binary_clean_and_apart_and_the_end_is_told() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let all: Vec<u8> = (0..=255).collect();
    let mut open = Open::command(&buildlet, &instance, "cat; pwd >&2; echo $X >&2; exit 7").await;
    open.data(&all);
    open.say(Input::Eof(SessionEof {}));
    assert_eq!(open.finish().await.code, 7);
    assert_eq!(open.stdout, all);
    assert!(String::from_utf8_lossy(&open.stderr).lines().count() == 2, "{:?}", open.stderr);
    let mut killed = Open::command(&buildlet, &instance, "kill -SEGV $$").await;
    assert_eq!(killed.finish().await.signal, 11);
    let mut env = Open::start(&buildlet, &instance, What::Command(Bytes::from_static(b"echo $A:$SHELL")), |start| {
        start.env = vec!["A=b c".into()];
    })
    .await
    .unwrap();
    env.finish().await;
    assert!(env.text().starts_with("b c:/bin/"), "{}", env.text());
    buildlet.finish().await;
}

#[tokio::test]
async fn nobody_waits_for_a_process_that_does_not_read_or_a_caller_who_does_not() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    // It reads nothing: the window closes, and a signal still gets through.
    let mut deaf = Open::command(&buildlet, &instance, "echo up; exec sleep 1000").await;
    deaf.until("up").await;
    for _ in 0..SESSION_WINDOW_BYTES / (256 * 1024) {
        deaf.data(&vec![0; 256 * 1024]);
    }
    while tokio::time::timeout(Duration::from_millis(200), deaf.hear()).await.is_ok() {}
    // What fits the pipe was taken, and no more.
    assert!(deaf.taken <= (SESSION_WINDOW_BYTES + 512 * 1024) as u64, "{}", deaf.taken);
    deaf.say(Input::Signal(15));
    assert_eq!(deaf.finish().await.signal, 15);
    // More than the window is refused, not kept.
    let mut greedy = Open::command(&buildlet, &instance, "exec sleep 1000").await;
    for _ in 0..20 {
        greedy.data(&vec![0; 256 * 1024]);
    }
    let refused = loop {
        match greedy.hear().await {
            Ok(more) => assert!(more, "it just ended"),
            Err(status) => break status,
        }
    };
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    // Its caller takes a little: no more than that comes, and the rest when he takes more.
    let what = What::Command(Bytes::from_static(b"head -c 3000000 /dev/zero"));
    let mut slow = Open::start(&buildlet, &instance, what, |start| start.window = 1000).await.unwrap();
    while slow.stdout.len() < 1000 {
        assert!(slow.hear().await.unwrap());
    }
    let more = tokio::time::timeout(Duration::from_millis(300), slow.hear()).await;
    assert!(more.is_err(), "{} bytes came", slow.stdout.len());
    slow.say(Input::Window(WIDE));
    assert_eq!(slow.finish().await.code, 0);
    assert_eq!(slow.stdout.len(), 3_000_000);
    buildlet.finish().await;
}

#[tokio::test]
async fn a_terminal_has_a_size_and_a_name() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let size = |columns, rows| SessionResize { columns, rows, ..Default::default() };
    let mut shell = Open::start(&buildlet, &instance, What::Shell(SessionShell {}), |start| {
        let terminal = SessionTerminal { term: "xterm".into(), size: Some(size(97, 31)), modes: Vec::new() };
        start.terminal = Some(terminal);
    })
    .await
    .unwrap();
    shell.data(b"stty size; echo $TERM $(tty) $SSH_TTY\n");
    shell.until("31 97").await;
    shell.until("xterm /dev/pts/").await;
    shell.say(Input::Resize(size(120, 40)));
    shell.data(b"stty size\n");
    shell.until("40 120").await;
    shell.data(b"exit 5\n");
    assert_eq!(shell.finish().await.code, 5);
    buildlet.finish().await;
}

#[tokio::test]
async fn when_the_caller_leaves_the_group_goes_and_what_daemonized_stays() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let (doomed, kept) = (uuid::Uuid::new_v4().to_string(), uuid::Uuid::new_v4().to_string());
    let line = format!(
        "KEPT={kept} setsid sleep 1000 </dev/null >/dev/null 2>&1 & export DOOMED={doomed}; trap '' HUP; sleep 1000 & echo up; wait; sleep 1000"
    );
    let mut open = Open::command(&buildlet, &instance, &line).await;
    open.until("up").await;
    let (doomed, kept) = (format!("DOOMED={doomed}"), format!("KEPT={kept}"));
    eventually("both run", || !processes(&doomed).is_empty() && !processes(&kept).is_empty()).await;
    drop(open);
    // It ignores SIGHUP: SIGKILL comes after a while.
    eventually("the group is gone", || processes(&doomed).iter().all(|pid| !is_running(*pid))).await;
    assert!(!processes(&kept).is_empty());
    // A buildlet's death is every caller's.
    let mark = uuid::Uuid::new_v4().to_string();
    let mut open = Open::command(&buildlet, &instance, &format!("export M={mark}; sleep 1000 & echo up; wait")).await;
    open.until("up").await;
    buildlet.kill();
    buildlet.run().await;
    eventually("nothing is left", || processes(&format!("M={mark}")).is_empty()).await;
    let mut again = Open::command(&buildlet, &instance, "echo again").await;
    assert_eq!((again.finish().await.code, again.text().as_str()), (0, "again\n"));
    // The instance's end is the daemon's.
    buildlet.end(&instance).await;
    assert!(processes(&kept).is_empty());
    buildlet.finish().await;
}

fn is_running(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z') && !rest.is_empty())
}

#[tokio::test]
async fn the_instances_end_ends_its_sessions_with_the_reason() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut open = Open::command(&buildlet, &instance, "echo up; exec sleep 1000").await;
    open.until("up").await;
    buildlet.end(&instance).await;
    let ended = loop {
        match open.hear().await {
            Ok(more) => assert!(more, "it just ended"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::FailedPrecondition, "{ended}");
    let gone = Open::start(&buildlet, &instance, What::Shell(SessionShell {}), |_| {}).await;
    assert_eq!(gone.err().map(|status| status.code()), Some(Code::NotFound));
    buildlet.finish().await;
}

#[tokio::test]
async fn connections_are_made_and_accepted_in_the_sandbox() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().into();
    let connect = What::Connect(SessionConnect { host: "localhost".into(), port, unix_path: String::new() });
    let mut open = Open::start(&buildlet, &instance, connect, |_| {}).await.unwrap();
    let (mut far, _) = listener.accept().await.unwrap();
    open.data(b"ping");
    open.say(Input::Eof(SessionEof {}));
    let mut heard = Vec::new();
    far.read_to_end(&mut heard).await.unwrap();
    far.write_all(b"pong").await.unwrap();
    far.shutdown().await.unwrap();
    assert_eq!(open.finish().await.code, 0);
    assert_eq!((heard.as_slice(), open.stdout.as_slice()), (&b"ping"[..], &b"kpong"[..]));
    drop(listener);
    let connect = What::Connect(SessionConnect { host: "127.0.0.1".into(), port, unix_path: String::new() });
    let mut refused = Open::start(&buildlet, &instance, connect, |_| {}).await.unwrap();
    assert_eq!(refused.finish().await.code, 1);
    assert!(refused.stdout.is_empty() && String::from_utf8_lossy(&refused.stderr).contains("refused"));

    let listen = What::Listen(SessionListen { host: String::new(), port: 0 });
    let mut listening = Open::start(&buildlet, &instance, listen, |_| {}).await.unwrap();
    listening.until("\n").await;
    let port: u16 = listening.text().trim().strip_prefix("port ").unwrap().parse().unwrap();
    let mut near = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    listening.until("accepted ").await;
    listening.until(&format!(" {}\n", near.local_addr().unwrap().port())).await;
    let text = listening.text();
    let id = text.lines().last().unwrap().split(' ').nth(1).unwrap().to_owned();
    let accept = || What::Accept(SessionAccept { id: id.clone() });
    let mut accepted = Open::start(&buildlet, &instance, accept(), |_| {}).await.unwrap();
    accepted.data(b"hello");
    let mut five = [0; 5];
    near.read_exact(&mut five).await.unwrap();
    assert_eq!(&five, b"hello");
    drop(near);
    accepted.say(Input::Eof(SessionEof {}));
    assert_eq!(accepted.finish().await.code, 0);
    let mut twice = Open::start(&buildlet, &instance, accept(), |_| {}).await.unwrap();
    assert_eq!(twice.finish().await.code, 1);
    let elsewhere = What::Listen(SessionListen { host: "192.0.2.1".into(), port: 0 });
    let mut refused = Open::start(&buildlet, &instance, elsewhere, |_| {}).await.unwrap();
    assert_eq!(refused.finish().await.code, 1);
    listening.say(Input::Eof(SessionEof {}));
    assert_eq!(listening.finish().await.code, 0);
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err());
    buildlet.finish().await;
}

#[tokio::test]
async fn sixteen_megabytes_both_ways_at_once_are_whole() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut open = Open::command(&buildlet, &instance, "cat").await;
    let total: usize = 16 << 20;
    let byte = |n: usize| (n.wrapping_mul(31) >> 7) as u8;
    let (mut sent, mut closed) = (0, false);
    let begun = Instant::now();
    while open.hear().await.unwrap() {
        while sent < total && (open.taken as usize) >= sent + 64 * 1024 {
            open.data(&(sent..sent + 64 * 1024).map(byte).collect::<Vec<_>>());
            sent += 64 * 1024;
        }
        if sent == total && !closed {
            closed = true;
            open.say(Input::Eof(SessionEof {}));
        }
        assert!(begun.elapsed() < PATIENCE);
    }
    assert_eq!(open.stdout.len(), total);
    assert!(open.stdout.iter().enumerate().all(|(n, b)| *b == byte(n)));
    buildlet.finish().await;
}
