//! Commands on the farm in the tests. What one does is in its name: `/lines N` prints N numbered lines,
//! `/mixed` writes to both outputs, `/sleep` waits to be ended, `/cat` ends with its stdin, `/absent`
//! can not be started, `/flaky N` succeeds until its N-th run on an instance, which prints FAIL.

use super::{Service, cut};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use motefarm_proto::mote::exec_event::Event;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::output_chunk::Stream as Which;
use motefarm_proto::mote::*;
use tokio::sync::{mpsc, watch};
use tonic::{Response, Status};

pub(crate) struct Exec {
    pub(crate) instance: String,
    pub(crate) spec: ExecSpec,
    pub(crate) signals: Vec<i32>,
    pub(crate) stdin: Vec<u8>,
    output: Vec<(Which, Bytes)>,
    pub(super) outcome: watch::Sender<Option<ExecOutcome>>,
}

pub(super) type Events = Response<BoxStream<'static, Result<ExecEvent, Status>>>;

pub(crate) fn lines(n: u64) -> Vec<u8> {
    (0..n).flat_map(|i| format!("line {i}\n").into_bytes()).collect()
}

fn outcome(ending: Ending, code: i32) -> ExecOutcome {
    ExecOutcome { ending: ending.into(), code, started_at_ms: 1_000, ended_at_ms: 3_000, ..Default::default() }
}

impl Exec {
    /// `earlier`: how often the same was run there before.
    pub(super) fn start(instance: &str, spec: ExecSpec, earlier: usize) -> Self {
        let number = |at: usize| spec.args.get(at).and_then(|arg| arg.parse().ok()).unwrap_or(0);
        let (output, end) = match spec.program.as_str() {
            "/lines" => {
                let all = Bytes::from(lines(number(0)));
                let pieces = all.chunks(997).map(|piece| (Which::Stdout, all.slice_ref(piece))).collect();
                (pieces, Some(outcome(Ending::Exited, number(1) as i32)))
            }
            "/mixed" => {
                let pieces = vec![(Which::Stdout, "out\n".into()), (Which::Stderr, "err\n".into())];
                (pieces, Some(outcome(Ending::Exited, 0)))
            }
            "/absent" => {
                let reason = "no such file".to_owned();
                (Vec::new(), Some(ExecOutcome { reason, ..outcome(Ending::NotStarted, 0) }))
            }
            "/flaky" => {
                let fails = earlier as u64 + 1 >= number(0);
                let text = format!("run {}\n{}", earlier + 1, if fails { "--- FAIL: TestFlaky\n" } else { "ok\n" });
                // The word lies across two pieces.
                let at = text.len() - 17.min(text.len());
                let pieces = [&text[..at], &text[at..]].map(|part| (Which::Stdout, Bytes::from(part.to_owned())));
                (pieces.to_vec(), Some(outcome(Ending::Exited, i32::from(fails))))
            }
            "/noisy" => {
                let whole = (Which::Stdout, Bytes::from(format!("from {instance}\nhalf")));
                (vec![whole, (Which::Stderr, "oops\n".into())], Some(outcome(Ending::Exited, number(0) as i32)))
            }
            program if program.ends_with("make.bash") || program.ends_with("make.bat") => {
                (vec![(Which::Stdout, "Building Go toolchain\n".into())], Some(outcome(Ending::Exited, 0)))
            }
            "/killed" => (Vec::new(), Some(outcome(Ending::Signaled, 9))),
            "/sleep" => (vec![(Which::Stdout, "sleeping\n".into())], None),
            "/flood" => (vec![(Which::Stdout, vec![b'x'; 256 * 1024].into()); 64], None),
            _ => (Vec::new(), None),
        };
        let outcome = watch::Sender::new(end);
        let instance = instance.to_owned();
        Self { instance, spec, signals: Vec::new(), stdin: Vec::new(), output, outcome }
    }

    pub(crate) fn end(&self, ending: Ending, code: i32) {
        self.outcome.send_replace(Some(outcome(ending, code)));
    }
}

impl Service {
    pub(super) fn events(&self, exec_id: &str, offset: u64, follow: bool) -> Result<Events, Status> {
        let state = self.state.lock().unwrap();
        let exec = state.execs.get(exec_id).ok_or_else(|| Status::not_found("no such execution"))?;
        let (output, mut outcome, cut_every) = (exec.output.clone(), exec.outcome.subscribe(), state.cut_every);
        let (events, receiver) = mpsc::channel(4);
        let (exec_id, cutter) = (exec_id.to_owned(), self.cutter.clone());
        tokio::spawn(async move {
            let started = ExecStarted { exec_id, started_at_ms: 1_000 };
            let _ = events.send(Event::Started(started)).await;
            let (mut at, mut sent) = (0, 0);
            for (which, data) in output {
                let end = at + data.len() as u64;
                if end > offset {
                    // Sometimes a little of what is known already, as a real reader of frames may give.
                    let chunk = OutputChunk { stream: which.into(), offset: at, time_ms: 1_500, data: data.clone() };
                    sent += data.len();
                    if events.send(Event::Output(chunk)).await.is_err() {
                        return;
                    }
                }
                at = end;
                if cut_every.is_some_and(|every| sent >= every) {
                    cut(&cutter);
                    return;
                }
            }
            if !follow && outcome.borrow().is_none() {
                return;
            }
            let ended = outcome.wait_for(Option::is_some).await.map(|ended| ended.clone());
            if let Ok(Some(ended)) = ended {
                let _ = events.send(Event::Outcome(ended)).await;
            }
        });
        let as_stream = stream::unfold(receiver, |mut receiver| async {
            let event = receiver.recv().await?;
            Some((Ok(ExecEvent { event: Some(event) }), receiver))
        });
        Ok(Response::new(as_stream.boxed()))
    }
}
