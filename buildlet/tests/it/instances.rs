//! Instances: walls, limits, leases, ends.

use crate::harness::*;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use tonic::Code;
use uuid::Uuid;

async fn has_sandbox(buildlet: &Buildlet) -> bool {
    let described = buildlet.client().await.describe(DescribeRequest {}).await.unwrap().into_inner();
    if described.sandbox == "none" {
        eprintln!("no sandbox here: {}", described.sandbox_reason);
    }
    described.sandbox != "none"
}

#[tokio::test]
async fn the_sandbox_hides_the_farm_and_other_instances() {
    let mut buildlet = Buildlet::start().await;
    if !has_sandbox(&buildlet).await {
        return;
    }
    let (one, two) = (buildlet.instance().await, buildlet.instance().await);
    let mut client = buildlet.client().await;
    run(&mut client, &two, &sh("echo secret > /workdir/secret; echo secret > /tmp/secret")).await;
    let data = buildlet.data().display().to_string();
    let script = format!(
        "ls {data} /root /home 2>&1; ls -A /tmp /workdir; id -un; echo pid $$; \
         cat /etc/shadow 2>&1; ls -A /etc/ssh; cat /proc/1/environ 2>&1; ls /proc/1/fd 2>&1; \
         touch /usr/x /etc/x /x 2>&1; echo w > /workdir/w && echo t > /tmp/t && echo h > $HOME/h && echo writable"
    );
    let text = run(&mut client, &one, &ExecSpec { merge_output: true, ..sh(&script) }).await.text();
    assert!(!text.contains("secret"), "{text}");
    assert!(!text.contains("instances") && !text.contains("root:"), "{text}");
    assert!(text.contains("mote\n") && text.contains("writable"), "{text}");
    assert!(fs::read_to_string(buildlet.instance_dir(&one).join("tmp/t")).unwrap() == "t\n");
    for place in ["/usr/x", "/etc/x", "/x"] {
        assert!(text.contains(&format!("'{place}'")), "writable: {place}\n{text}");
    }
    // Another instance's processes are not there either, nor is anything of this machine.
    let (_, mut stream) = begin(&mut client, &two, &sh("echo up; exec sleep 987")).await;
    read_until(&mut stream, "up").await;
    let seen = run(&mut client, &one, &sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")).await.text();
    assert!(!seen.contains("987"), "{seen}");
    buildlet.finish().await;
}

#[tokio::test]
async fn limits_bind_commands() {
    let mut buildlet = Buildlet::start().await;
    let limits = InstanceLimits { memory_bytes: 512 << 20, processes: 0, file_bytes: 1 << 20 };
    let instance = buildlet.instance_with(|request| request.limits = Some(limits)).await;
    let mut client = buildlet.client().await;
    let text = run(&mut client, &instance, &sh("ulimit -v; ulimit -f")).await.text();
    assert_eq!(text, "524288\n2048\n");
    // The bound on a command's files is none on its output.
    let ran = run(&mut client, &instance, &sh("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero > f")).await;
    assert_eq!(ran.stdout.len(), 3_000_000);
    assert_eq!(fs::metadata(buildlet.instance_dir(&instance).join("work/f")).unwrap().len(), 1 << 20);
    buildlet.finish().await;
}

#[tokio::test]
async fn making_and_ending_may_be_repeated() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let again = BuildletCreateInstanceRequest {
        instance_id: instance.clone(),
        terms: Some(LeaseTerms { idle_timeout_ms: 1, max_lifetime_ms: 0, unwatched_limit_ms: 0 }),
        ..Default::default()
    };
    client.create_instance(again).await.unwrap();
    let script =
        "mkdir -p locked/in; touch locked/in/f; chmod 0 locked/in locked; ln -s / link; sleep 1000 & echo on; wait";
    let (_, mut stream) = begin(&mut client, &instance, &sh(script)).await;
    read_until(&mut stream, "on").await;
    let dir = buildlet.instance_dir(&instance);
    assert!(dir.exists());
    let mark = format!("MOTE_INSTANCE={instance}");
    assert!(!processes(&mark).is_empty());
    buildlet.end(&instance).await;
    assert!(!dir.exists());
    assert_eq!(processes(&mark), Vec::<i32>::new());
    buildlet.end(&instance).await;
    let gone =
        client.execute(execute_request(&instance, &Uuid::new_v4().to_string(), &sh("true"), 0)).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    assert_eq!(collect(stream, 3).await.code(), Some(Code::FailedPrecondition));
    buildlet.finish().await;
}

#[tokio::test]
async fn reports_tell_what_runs_and_what_ended() {
    let mut buildlet = Buildlet::start().await;
    let instance = buildlet.instance().await;
    let mut client = buildlet.client().await;
    let mut reports = client.watch(WatchRequest {}).await.unwrap().into_inner();
    let first = reports.message().await.unwrap().unwrap();
    assert!(first.instances.len() == 1 && first.free_disk_bytes > 0);
    let (exec, stream) = begin(&mut client, &instance, &sh("sleep 0.3")).await;
    let wait = async |reports: &mut tonic::Streaming<BuildletReport>, check: &dyn Fn(&InstanceReport) -> bool| {
        loop {
            let report = tokio::time::timeout(PATIENCE, reports.message()).await.expect("no report").unwrap().unwrap();
            if report.instances.iter().any(check) {
                return;
            }
        }
    };
    wait(&mut reports, &|report| report.running_execs == [exec.clone()]).await;
    let ended = collect(stream, 0).await.outcome.unwrap().ended_at_ms;
    wait(&mut reports, &|r| r.running_execs.is_empty() && r.ended_execs == 1 && r.last_use_ms >= ended).await;
    buildlet.finish().await;
}

#[tokio::test]
async fn an_instance_nobody_renews_ends_by_itself_unless_something_runs() {
    let mut buildlet = Buildlet::start().await;
    let short = |request: &mut BuildletCreateInstanceRequest| {
        let terms = LeaseTerms { idle_timeout_ms: 1500, max_lifetime_ms: 0, unwatched_limit_ms: 600_000 };
        request.terms = Some(terms);
    };
    let idle = buildlet.instance_with(short).await;
    let busy = buildlet.instance_with(short).await;
    let renewed = buildlet.instance_with(short).await;
    let mut client = buildlet.client().await;
    let (_, mut stream) = begin(&mut client, &busy, &sh("echo on; exec sleep 1000")).await;
    read_until(&mut stream, "on").await;
    let leases = vec![LeaseEnd { instance_id: renewed.clone(), expires_at_ms: i64::MAX / 2 }];
    client.set_leases(SetLeasesRequest { leases }).await.unwrap();
    let dir = buildlet.instance_dir(&idle);
    eventually("the idle one ends", || !dir.exists()).await;
    assert!(buildlet.instance_dir(&busy).exists() && buildlet.instance_dir(&renewed).exists());
    assert_eq!(run(&mut client, &renewed, &sh("true")).await.ending(), (Ending::Exited, 0));
    buildlet.finish().await;
}

#[tokio::test]
async fn strangers_can_not_reach_socket_or_data() {
    let buildlet = Buildlet::start().await;
    let mode = |path: std::path::PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(buildlet.data()), 0o700);
    assert_eq!(mode(buildlet.data().join("id")), 0o600);
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_mote-buildlet"))
        .args(["serve", "--data-dir"])
        .arg(buildlet.data())
        .output()
        .unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("another buildlet"));
    buildlet.finish().await;
}
