//! `kill -9` loses nothing and starts nothing twice.

use crate::harness::*;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::*;
use std::fs;
use uuid::Uuid;

#[tokio::test]
async fn a_killed_buildlet_loses_no_line_and_repeats_none() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let exec = Uuid::new_v4().to_string();
    let spec = sh("echo start >> starts; for i in $(seq 1 600); do echo line $i; sleep 0.005; done; exit 9");
    let (mut text, mut next) = (String::new(), 0);
    for round in 0.. {
        let mut client = buildlet.client().await;
        // The whole request again, as a client that does not know how far it got.
        let mut stream = client.execute(execute_request(&instance, &exec, &spec, next)).await.unwrap().into_inner();
        if round < 3 {
            let part = read_until_from(&mut stream, &format!("line {}\n", (round + 1) * 100), next).await;
            buildlet.kill();
            let rest = collect(stream, part.next).await;
            text += &part.text();
            text += &rest.text();
            next = rest.next;
            buildlet.run().await;
        } else {
            let rest = collect(stream, next).await;
            text += &rest.text();
            assert_eq!(rest.ending(), (Ending::Exited, 9));
            break;
        }
    }
    assert_eq!(text, (1..=600).map(|i| format!("line {i}\n")).collect::<String>());
    assert_eq!(fs::read_to_string(buildlet.instance_dir(&instance).join("work/starts")).unwrap(), "start\n");
    buildlet.finish().await;
}

#[tokio::test]
async fn an_end_that_nobody_saw_is_found_and_one_that_was_killed_is_lost() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let (seen, _stream) = begin(&mut client, &instance, &sh("sleep 0.3; echo done; exit 7")).await;
    let (lost, mut stream) = begin(&mut client, &instance, &sh("echo up; exec sleep 1000")).await;
    read_until(&mut stream, "up").await;
    buildlet.kill();
    let outcome = buildlet.instance_dir(&instance).join("execs").join(&seen).join("outcome");
    eventually("it ends by itself", || outcome.exists()).await;
    buildlet.run().await;
    let mut client = buildlet.client().await;
    let ran = attach(&mut client, &instance, &seen, 0, true).await;
    assert_eq!((ran.text().as_str(), ran.ending()), ("done\n", (Ending::Exited, 7)));
    // Its supervisor is the parent of the command.
    let command = processes(&format!("MOTE_INSTANCE={instance}"))[0];
    let status = fs::read_to_string(format!("/proc/{command}/status")).unwrap();
    let parent: i32 = status.lines().find_map(|l| l.strip_prefix("PPid:")).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(parent), nix::sys::signal::Signal::SIGKILL).unwrap();
    let ran = attach(&mut client, &instance, &lost, 0, true).await;
    assert_eq!((ran.text().as_str(), ran.ending().0), ("up\n", Ending::Lost));
    eventually("nothing unwatched goes on", || processes(&format!("MOTE_INSTANCE={instance}")).is_empty()).await;
    buildlet.finish().await;
}

#[tokio::test]
async fn what_was_written_down_but_not_started_is_started_once() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    // Borrow a spec, and lay it down as a buildlet that died before it could hand it on.
    let spec = sh("echo ran >> count");
    let (exec, stream) = begin(&mut client, &instance, &spec).await;
    collect(stream, 0).await;
    buildlet.kill();
    let execs = buildlet.instance_dir(&instance).join("execs");
    let waiting = Uuid::new_v4().to_string();
    fs::create_dir(execs.join(&waiting)).unwrap();
    fs::copy(execs.join(&exec).join("spec"), execs.join(&waiting).join("spec")).unwrap();
    fs::create_dir(execs.join(format!("{}.new", Uuid::new_v4()))).unwrap();
    buildlet.run().await;
    let mut client = buildlet.client().await;
    let stream = client.execute(execute_request(&instance, &waiting, &spec, 0)).await.unwrap().into_inner();
    assert_eq!(collect(stream, 0).await.ending(), (Ending::Exited, 0));
    assert_eq!(fs::read_to_string(buildlet.instance_dir(&instance).join("work/count")).unwrap(), "ran\nran\n");
    buildlet.finish().await;
}

#[tokio::test]
async fn a_dead_keeper_is_replaced() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let (exec, mut stream) = begin(&mut client, &instance, &sh("echo up; exec sleep 1000")).await;
    read_until(&mut stream, "up").await;
    let socket = motefarm_net::unix::connect(&buildlet.instance_dir(&instance).join("keeper.sock")).await.unwrap();
    let keeper = socket.peer_cred().unwrap().pid().unwrap();
    drop(socket);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(keeper), nix::sys::signal::Signal::SIGKILL).unwrap();
    let sandboxed = client.describe(DescribeRequest {}).await.unwrap().into_inner().sandbox != "none";
    if sandboxed {
        assert_eq!(collect(stream, 3).await.ending().0, Ending::Lost);
        assert_eq!(attach(&mut client, &instance, &exec, 0, true).await.ending().0, Ending::Lost);
    }
    assert_eq!(run(&mut client, &instance, &sh("echo again")).await.text(), "again\n");
    buildlet.finish().await;
}
