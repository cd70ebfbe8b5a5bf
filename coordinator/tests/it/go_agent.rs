//! Go agents, faked by their protocol: what their commands, their silence and their deaths come to.

mod fake;

use crate::farm::{TYPE, TestFarm};
use fake::FakeAgent;
use futures_util::StreamExt as _;
use http::HeaderMap;
use motefarm_coordinator::farm::allocate;
use motefarm_coordinator::link::go_agent::{Agent, GoAgentLink, Pickups, Surroundings};
use motefarm_coordinator::link::{Link as _, LinkError, LinkStream};
use motefarm_coordinator::provider::go_agent::{self, GoAgents, Registration};
use motefarm_core::instance::{EndReason, InstanceState};
use motefarm_core::{ExecId, InstanceId, SystemClock};
use motefarm_net::token::JoinToken;
use motefarm_proto::mote;
use motefarm_proto::mote::exec_event::Event;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::exec_spec::Overflow;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use uuid::Uuid;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nTrailer: Process-State\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A link without a farm, with an instance.
struct Bench {
    link: Arc<GoAgentLink>,
    agent: FakeAgent,
    instance: InstanceId,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pickups = Arc::new(Pickups::default());
        let (agent, channel) = FakeAgent::register(pickups.clone());
        let limits = motefarm_cas::store::StoreLimits::default();
        let around = Surroundings {
            cas: motefarm_cas::store::Store::open(&dir.path().join("cas"), limits).unwrap(),
            sha1s: Arc::default(),
            data_dir: dir.path().to_owned(),
            clock: Arc::new(SystemClock),
            pickups,
        };
        let who = Agent {
            buildlet_id: "b".to_owned(),
            hostname: "h".to_owned(),
            host_type: TYPE.to_owned(),
            by_connect: false,
        };
        let link = GoAgentLink::begin(channel, who, around).await.unwrap();
        let instance = InstanceId::from_uuid(Uuid::from_u128(7));
        let request = mote::BuildletCreateInstanceRequest { instance_id: instance.to_string(), ..Default::default() };
        assert_eq!(link.create_instance(request).await.unwrap(), "/work");
        Self { link, agent, instance, _dir: dir }
    }

    async fn execute(&self, n: u128, spec: mote::ExecSpec) -> LinkStream<mote::ExecEvent> {
        let request = mote::BuildletExecuteRequest {
            instance_id: self.instance.to_string(),
            exec_id: exec(n).to_string(),
            spec: Some(spec),
            offset: 0,
        };
        self.link.execute(request).await.unwrap()
    }
}

fn exec(n: u128) -> ExecId {
    ExecId::from_uuid(Uuid::from_u128(n))
}

fn spec(program: &str) -> mote::ExecSpec {
    mote::ExecSpec { program: program.to_owned(), ..Default::default() }
}

/// Everything to the end: output and outcome.
async fn all(mut events: LinkStream<mote::ExecEvent>) -> (Vec<u8>, mote::ExecOutcome) {
    let mut output = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await.expect("the stream moves");
        match event.expect("an outcome comes").unwrap().event.unwrap() {
            Event::Output(chunk) => {
                assert_eq!(chunk.offset, output.len() as u64);
                output.extend_from_slice(&chunk.data);
            }
            Event::Outcome(outcome) => return (output, outcome),
            Event::Started(_) | Event::LeaseEnding(_) => {}
        }
    }
}

#[tokio::test]
async fn a_command_is_asked_for_once_and_ends_by_its_trailer() {
    let mut bench = Bench::new().await;
    let first = bench.execute(1, spec("x")).await;
    let again = bench.execute(1, spec("x")).await;
    let mut asked = bench.agent.next("/exec").await;
    assert!(asked.body.contains("cmd=x&") && asked.body.contains("env=GO_BUILDLET_TOKEN%3D"), "{}", asked.body);
    // As the Go agent sent them.
    asked.write(HEAD).await;
    asked.write(b"4\r\nout\n\r\n4\r\nerr\n\r\n0\r\nProcess-State: exit status 3\r\n\r\n").await;
    for events in [first, again] {
        let (output, outcome) = all(events).await;
        assert_eq!((output.as_slice(), outcome.ending(), outcome.code), (&b"out\nerr\n"[..], Ending::Exited, 3));
        assert_eq!(outcome.output_end, 8);
    }
    assert!(bench.agent.asked.try_recv().is_err(), "once");
    let other = mote::BuildletExecuteRequest {
        instance_id: bench.instance.to_string(),
        exec_id: exec(1).to_string(),
        spec: Some(spec("y")),
        offset: 0,
    };
    assert!(matches!(bench.link.execute(other).await, Err(LinkError::Refused(_))));
}

#[tokio::test]
async fn an_end_without_a_word_is_lost_and_a_refusal_is_not_started() {
    let mut bench = Bench::new().await;
    let ends: [(&[u8], Ending, &str); 4] = [
        (b"2\r\nhi\r\n0\r\n\r\n", Ending::Lost, "did not say"),
        (b"2\r\nhi\r\n", Ending::Lost, "broke off"),
        (b"2\r\nhi\r\nnonsense", Ending::Lost, "broke off"),
        (b"2\r\nhi\r\n0\r\nProcess-State: fork/exec /x: exec format error\r\n\r\n", Ending::NotStarted, "exec format"),
    ];
    for (n, (bytes, ending, reason)) in (10..).zip(ends) {
        let events = bench.execute(n, spec("x")).await;
        let mut asked = bench.agent.next("/exec").await;
        asked.write(HEAD).await;
        asked.write(bytes).await;
        drop(asked);
        let (output, outcome) = all(events).await;
        assert_eq!((output.as_slice(), outcome.ending()), (&b"hi"[..], ending));
        assert!(outcome.reason.contains(reason), "{}", outcome.reason);
    }
    let events = bench.execute(20, spec("x")).await;
    let mut asked = bench.agent.next("/exec").await;
    asked.write(b"HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: 21\r\n\r\ncommand \"x\" not found").await;
    let (_, outcome) = all(events).await;
    assert_eq!((outcome.ending(), outcome.reason.as_str()), (Ending::NotStarted, "command \"x\" not found"));
}

#[tokio::test]
async fn cancel_kill_and_time_limit_drop_the_connection() {
    let mut bench = Bench::new().await;
    let limited = mote::ExecSpec { timeout_ms: 50, ..spec("x") };
    for (n, spec, ending) in
        [(1, spec("x"), Ending::Cancelled), (2, spec("x"), Ending::Signaled), (3, limited, Ending::TimedOut)]
    {
        let events = bench.execute(n, spec).await;
        let mut asked = bench.agent.next("/exec").await;
        asked.write(HEAD).await;
        match ending {
            Ending::Cancelled => bench.link.cancel(bench.instance, exec(n), 0).await.unwrap(),
            Ending::Signaled => {
                let refused = bench.link.signal(bench.instance, exec(n), 15).await;
                assert!(matches!(refused, Err(LinkError::Refused(_))), "it can not pass that on");
                bench.link.signal(bench.instance, exec(n), 9).await.unwrap();
            }
            _ => {}
        }
        assert!(asked.is_dropped().await, "that is how the agent learns of it");
        assert_eq!(all(events).await.1.ending(), ending);
    }
}

#[tokio::test]
async fn a_full_spool_holds_the_command_until_output_is_acknowledged() {
    let mut bench = Bench::new().await;
    let least = 64 << 10;
    let bounded = mote::ExecSpec { spool_limit_bytes: least, ..spec("x") };
    let mut events = bench.execute(1, bounded.clone()).await;
    let mut asked = bench.agent.next("/exec").await;
    asked.write(HEAD).await;
    let writer = tokio::spawn(async move {
        for n in 0..40u8 {
            asked.write(b"2000\r\n").await;
            asked.write(&[n; 0x2000]).await;
            asked.write(b"\r\n").await;
        }
        asked.write(b"0\r\nProcess-State: ok\r\n\r\n").await;
    });
    let mut seen = 0;
    loop {
        let event =
            tokio::time::timeout(Duration::from_secs(20), events.next()).await.expect("it goes on when acknowledged");
        match event.unwrap().unwrap().event.unwrap() {
            Event::Output(chunk) => {
                assert!(chunk.data.len() as u64 <= least + 0x2000, "no more than is kept");
                seen = chunk.offset + chunk.data.len() as u64;
                bench.link.ack_output(bench.instance, exec(1), seen).await.unwrap();
            }
            Event::Outcome(outcome) => {
                assert_eq!((outcome.ending(), seen), (Ending::Exited, 40 * 0x2000));
                break;
            }
            _ => {}
        }
    }
    writer.await.unwrap();
    // What was let go is not made up.
    let request = mote::BuildletAttachExecRequest {
        instance_id: bench.instance.to_string(),
        exec_id: exec(1).to_string(),
        offset: 0,
        follow: true,
    };
    let mut late = bench.link.attach(request).await.unwrap();
    assert!(late.next().await.unwrap().is_ok(), "started");
    assert!(matches!(late.next().await, Some(Err(LinkError::Refused(_)))));

    let ended = mote::ExecSpec { overflow: Overflow::End.into(), ..bounded };
    let events = bench.execute(2, ended).await;
    let mut asked = bench.agent.next("/exec").await;
    asked.write(HEAD).await;
    asked.write(b"20000\r\n").await;
    // More than it takes.
    let _ = asked.stream.write_all(&[0; 0x20000]).await;
    assert_eq!(all(events).await.1.ending(), Ending::OutputLimit);
}

#[tokio::test]
async fn what_runs_is_lost_with_the_channel() {
    for garbage in [true, false] {
        let mut bench = Bench::new().await;
        let mut reports = bench.link.watch().await.unwrap();
        assert_eq!(reports.next().await.unwrap().unwrap().instances.len(), 1);
        let events = bench.execute(1, spec("x")).await;
        let mut asked = bench.agent.next("/exec").await;
        asked.write(HEAD).await;
        if garbage {
            bench.agent.say(b"{\"command\":\"of no consequence\"}\nnonsense\n").await;
        } else {
            bench.agent.die();
        }
        let (_, outcome) = all(events).await;
        assert_eq!(outcome.ending(), Ending::Lost);
        assert!(outcome.reason.contains(if garbage { "no frame" } else { "channel ended" }), "{}", outcome.reason);
        let last = async {
            while let Some(report) = reports.next().await {
                if let Err(LinkError::Lost(why)) = report {
                    return why;
                }
            }
            panic!("the reports end with a reason");
        };
        tokio::time::timeout(Duration::from_secs(10), last).await.unwrap();
        assert!(matches!(bench.link.describe().await, Err(LinkError::Lost(_))));
        assert_eq!(bench.link.end("over"), Some(bench.instance));
    }
}

#[tokio::test]
async fn a_listing_that_is_none_is_an_error() {
    let mut bench = Bench::new().await;
    let request = || mote::BuildletListDirRequest { instance_id: bench.instance.to_string(), list: None };
    let answer = |body: &str| {
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
            .into_bytes()
    };
    for (body, good) in
        [("-rw-r--r--\ta\t3\t2026-11-22T11:01:04Z\n", true), ("<html>\n", false), ("drwxr-xr-x\tgo/", false)]
    {
        let (listing, mut asked) = tokio::join!(bench.link.list_dir(request()), async {
            let mut asked = bench.agent.next("/ls?dir=&recursive=false&digest=false").await;
            asked.write(&answer(body)).await;
            asked
        });
        let read: Vec<_> = listing.unwrap().collect().await;
        assert_eq!(read.iter().all(Result::is_ok), good, "{body:?}: {read:?}");
        assert!(asked.is_dropped().await);
    }
}

/// What an agent says of itself.
fn registration(token: &JoinToken) -> Registration {
    let mut headers = HeaderMap::new();
    headers.insert("x-go-gomote-id", TYPE.parse().unwrap());
    headers.insert("x-go-hostname", "mac1".parse().unwrap());
    headers.insert("x-go-swarming-auth-token", token.reveal().parse().unwrap());
    Registration::from_headers(&headers).unwrap()
}

/// Registers a faked agent with a farm and waits until it is in contact.
async fn join(farm: &TestFarm, agents: &Arc<GoAgents>, token: &JoinToken) -> FakeAgent {
    let (agent, channel) = FakeAgent::register(agents.pickups.clone());
    let (app, agents, who) = (farm.app.clone(), agents.clone(), registration(token));
    let id = who.buildlet_id().to_string();
    farm.app.spawn(async move { agents.serve(&app, who, false, channel).await });
    assert!(farm.app.registry.wait_for(&id, Duration::from_secs(10)).await.is_some(), "not in contact");
    agent
}

async fn farm_with_token() -> (TestFarm, Arc<GoAgents>, JoinToken) {
    let farm = TestFarm::new("").await;
    let token = JoinToken::generate(&"0".repeat(64));
    let now = farm.app.now();
    farm.app.store.add_join_token(&token, &TYPE.parse().unwrap(), false, now + crate::farm::MINUTE, now).await.unwrap();
    (farm, Arc::default(), token)
}

#[tokio::test]
async fn an_instance_ends_with_its_agent_and_the_next_one_is_new() {
    let (farm, agents, token) = farm_with_token().await;
    let agent = join(&farm, &agents, &token).await;
    let row = farm.lease(1).await;
    assert_eq!(row.work_dir, "/work");
    farm.begin_execution(&row).await;
    agent.die();
    let row = farm.reached(row.id, InstanceState::Gone).await;
    assert_eq!(row.end_reason, Some(EndReason::BuildletForgot));
    assert!(row.end_detail.unwrap().contains("Go agent was lost"));
    assert!(farm.app.store.running_executions(&[row.id]).await.unwrap().is_empty(), "known to be lost");
    // It is back, under the same id, and what it had is not taken for what it has.
    let mut agent = join(&farm, &agents, &token).await;
    let next = farm.lease(2).await;
    assert_eq!(next.buildlet_id, row.buildlet_id);
    let mut wiped = false;
    while let Ok(line) = agent.log.try_recv() {
        wiped |= line == "POST /removeall path=.";
    }
    assert!(wiped, "whatever was there is removed before");
}

#[tokio::test]
async fn an_ended_instance_ends_its_agent() {
    let (farm, agents, token) = farm_with_token().await;
    let mut agent = join(&farm, &agents, &token).await;
    let row = farm.lease(1).await;
    farm.app.store.end_instance(row.id, EndReason::Destroyed, farm.app.now()).await.unwrap();
    farm.sweep().await;
    let row = farm.reached(row.id, InstanceState::Gone).await;
    assert_eq!(row.end_reason, Some(EndReason::Destroyed));
    let mut halted = false;
    while let Ok(line) = agent.log.try_recv() {
        halted |= line.starts_with("POST /halt");
    }
    assert!(halted);
    // Nobody is given the slot of an agent that is about to end.
    let id = farm.request(2).await.unwrap();
    allocate::pass(&farm.app).await.unwrap();
    assert_eq!(farm.app.store.instance(id).await.unwrap().unwrap().state, InstanceState::Queued);
}

#[tokio::test]
async fn a_coordinator_that_starts_again_ends_what_go_agents_had() {
    let (farm, agents, token) = farm_with_token().await;
    let _agent = join(&farm, &agents, &token).await;
    let row = farm.lease(1).await;
    farm.begin_execution(&row).await;
    let farm = farm.restart().await;
    go_agent::forget_all(&farm.app).await.unwrap();
    let row = farm.reached(row.id, InstanceState::Gone).await;
    assert!(row.end_detail.unwrap().contains("restarted"));
    assert!(farm.app.store.running_executions(&[row.id]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_name_is_one_agents_for_as_long_as_that_answers() {
    let (farm, agents, token) = farm_with_token().await;
    let agent = join(&farm, &agents, &token).await;
    let refused = agents.make_way(&registration(&token)).await.unwrap_err();
    assert!(refused.contains("mac1") && refused.contains("GOMOTEID"), "{refused}");
    // A machine that is not what it was: its channel says nothing, and nobody answers.
    agent.answers.store(false, Ordering::Relaxed);
    agents.make_way(&registration(&token)).await.unwrap();
    let _next = join(&farm, &agents, &token).await;
}
