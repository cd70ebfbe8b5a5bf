//! Commands: what they get, what they leave, how they end.

use crate::{farm, seconds};
use motefarm_tests::{Dice, files, processes, rpc, wait};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::Read as _;
use std::time::{Duration, Instant};

#[test]
fn exit_codes_and_signals_are_the_commands_own() {
    let farm = farm().start();
    let mote = farm.create();
    for code in [0, 1, 7, 124, 254, 255] {
        farm.run(&mote, &format!("exit {code}")).run().fails(code);
    }
    for (signal, number) in [("KILL", 9), ("TERM", 15), ("SEGV", 11)] {
        farm.run(&mote, &format!("kill -{signal} $$")).run().fails(128 + number);
    }
    let json = farm.mote(["run", "--json", &mote.name, "/bin/sh", "-c", "kill -9 $$"]).run().fails(137).json();
    assert_eq!((json["ending"].as_str(), json["code"].as_i64()), (Some("signaled"), Some(9)), "{json}");
    let missing = farm.mote(["run", &mote.name, "/no/such/program"]).run().fails(127);
    missing.says(&["/no/such/program"]);
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn stdout_and_stderr_stay_apart_and_in_order() {
    let farm = farm().start();
    let mote = farm.create();
    let output = farm.fresh("output");
    let ran = farm.run_into(&mote, &output, "echo one; echo two >&2; echo three; printf 'no newline' >&2").ok();
    assert_eq!(ran.out(), "one\nthree");
    assert!(ran.stderr.contains("two\nno newline"), "{:?}", ran.stderr);
    let kept = fs::read_to_string(&output).expect("the output file");
    for line in ["one\n", "two\n", "three\n", "no newline"] {
        assert_eq!(kept.matches(line).count(), 1, "{kept:?}");
    }
    // In one place the order is exact.
    let ran = farm.program(std::path::Path::new("/bin/sh")).args([
        "-c",
        r#"exec "$0" run --quiet "$1" /bin/sh -c 'i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo out $i; echo err $i >&2; done' 2>&1"#,
        &farm.programs().mote.display().to_string(),
        &mote.name,
    ]);
    let wanted: String = (1..=200).map(|i| format!("out {i}\nerr {i}\n")).collect();
    assert_eq!(ran.ok().out() + "\n", wanted);
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn stdin_reaches_the_command_whole() {
    let farm = farm().start();
    let mote = farm.create();
    let bytes = Dice::new(11).bytes(3_000_001);
    let ran = farm.mote(["run", "--quiet", "--stdin", &mote.name, "/bin/cat"]).stdin(bytes.clone()).ok();
    assert!(ran.stdout == bytes, "{} of {} bytes came back", ran.stdout.len(), bytes.len());
    // A reader slower than the sender.
    let script = "sleep 1; sha256sum | cut -d' ' -f1; echo end";
    let slow = farm.mote(["run", "--quiet", "--stdin", &mote.name, "/bin/sh", "-c", script]).stdin(bytes).ok();
    assert!(slow.out().ends_with("end"), "{}", slow.out());
    // Without the flag it is empty, and one that does not read it is not waited for.
    assert_eq!(farm.sh(&mote, "cat; echo empty").out(), "empty");
    farm.mote(["run", "--stdin", &mote.name, "/bin/true"]).stdin(vec![b'x'; 1_000_000]).ok();
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn a_time_limit_ends_a_command_with_everything_it_started() {
    let farm = farm().start();
    let mote = farm.create();
    let mark = format!("5001.{}", std::process::id());
    let script = format!("(setsid sleep {mark} &) ; echo begun; sleep {mark}");
    let ran = farm.mote(["run", "--quiet", "--timeout", "1s", &mote.name, "/bin/sh", "-c", &script]).run().fails(124);
    assert_eq!(ran.out(), "begun");
    assert!(ran.took > Duration::from_millis(900) && ran.took < seconds(8), "took {:?}", ran.took);
    wait::until_true("nothing of it is left", seconds(5), || processes::with_arg(&mark).is_empty());
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn cancelling_ends_a_command_with_everything_it_started() {
    let farm = farm().start();
    let mote = farm.create();
    let mark = format!("5002.{}", std::process::id());
    let script = format!(
        "(setsid sh -c '(sleep {mark}; true) & (setsid sleep {mark} &)' &)\ntrap 'echo asked to end; exit 9' TERM\n\
         echo begun\nwhile :; do sleep 0.1; done"
    );
    let exec = farm.detach(&mote, &script);
    wait::until_true("its processes run", seconds(10), || processes::with_arg(&mark).len() >= 2);
    // Another one, which is to go on.
    let kept = format!("5003.{}", std::process::id());
    farm.sh(&mote, &format!("setsid sleep {kept} >/dev/null 2>&1 </dev/null &"));
    farm.mote(["cancel", &exec]).ok();
    farm.mote(["attach", "--quiet", &exec]).run().fails(130);
    wait::until_true("nothing of it is left", seconds(8), || processes::with_arg(&mark).is_empty());
    let logs = farm.mote(["logs", "--quiet", &exec]).ok().out();
    // (Between the two the shell may tell of its own children's end.)
    assert!(logs.starts_with("begun\n") && logs.ends_with("\nasked to end"), "SIGTERM came first: {logs:?}");
    assert_eq!(processes::with_arg(&kept).len(), 1, "what another command left running is not its business");
    // One that will not be asked.
    let exec = farm.detach(&mote, "trap '' TERM; echo deaf; while :; do sleep 0.1; done");
    farm.mote(["cancel", "--grace", "1s", &exec]).ok();
    farm.mote(["attach", "--quiet", &exec]).run().fails(130);
    farm.destroy(&[&mote]);
    assert!(processes::with_arg(&kept).is_empty(), "nothing outlives its instance");
    farm.finish();
}

#[test]
fn a_detached_command_is_attached_to_and_read() {
    let farm = farm().start();
    let mote = farm.create();
    let script = "echo first; while [ ! -e go ]; do sleep 0.05; done; echo second; exit 5";
    let exec = farm.detach(&mote, script);
    wait::until_true("its first line is there", seconds(10), || {
        farm.mote(["logs", "--quiet", &exec]).ok().out() == "first"
    });
    let (one, other) = (farm.fresh("one"), farm.fresh("other"));
    let mut attached = farm.mote(["attach", "--quiet", "--output"]).arg(&one).arg(&exec).spawn();
    let mut followed = farm.mote(["logs", "-f", "--quiet", &exec]).spawn();
    attached.until_stdout("first", seconds(10));
    followed.until_stdout("first", seconds(10));
    farm.sh(&mote, "touch go");
    attached.wait().fails(5);
    assert_eq!(followed.wait().ok().out(), "first\nsecond");
    assert_eq!(fs::read_to_string(&one).expect("output"), "first\nsecond\n");
    // Ended: all of it, again, for anybody who asks.
    farm.mote(["attach", "--quiet", "--output"]).arg(&other).arg(&exec).run().fails(5);
    assert_eq!(fs::read_to_string(&other).expect("output"), "first\nsecond\n");
    // The instance's newest command is the one that made `go`.
    farm.mote(["logs", "--quiet", &mote.name]).ok();
    farm.destroy(&[&mote]);
    farm.mote(["attach", "--output"]).arg(farm.fresh("late")).arg(&exec).run().fails(255);
    farm.finish();
}

#[test]
fn ctrl_c_is_the_commands_first_and_the_end_second() {
    let farm = farm().start();
    let mote = farm.create();
    let script = "trap 'echo interrupted' INT; echo begun; while :; do sleep 0.1; done";
    let mut running = farm.run(&mote, script).spawn();
    running.until_stdout("begun", seconds(10));
    running.signal(Signal::SIGINT);
    running.until_stdout("interrupted", seconds(10));
    assert!(!running.is_over());
    running.signal(Signal::SIGINT);
    running.wait().fails(130);
    // A hang-up leaves it going.
    let script = "echo begun; while [ ! -e go ]; do sleep 0.05; done; echo went on; exit 4";
    let mut running = farm.run(&mote, script).spawn();
    running.until_stdout("begun", seconds(10));
    running.signal(Signal::SIGHUP);
    running.wait().fails(255);
    farm.sh(&mote, "touch go");
    let attached = farm.mote(["attach", "--quiet"]).run().fails(4);
    assert!(attached.out().ends_with("went on"), "{}", attached.out());
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn the_environment_is_made_and_nothing_leaks_into_it() {
    let farm = farm().start();
    let mote = farm.create();
    let env = farm.mote(["run", "--quiet", "-e", "A=1", "-e", "B=x y=z", "-e", "A=2", &mote.name, "/usr/bin/env"]);
    let env = env.ok().out();
    let value = |name: &str| env.lines().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned));
    assert_eq!(value("A").as_deref(), Some("2"), "the last of a name wins");
    assert_eq!(value("B").as_deref(), Some("x y=z"));
    assert_eq!(value("WORKDIR").as_deref(), Some(mote.work_dir.as_str()));
    assert_eq!(value("PWD").as_deref(), Some(mote.work_dir.as_str()));
    assert!(value("PATH").is_some_and(|path| path.contains("/usr/bin")) && value("HOME").is_some());
    let token = farm.profile_value("token");
    for secret in [farm.secret(), &token, motefarm_tests::farm::SECRET_VARIABLE, "NOTIFY_SOCKET", "MOTE_CONFIG_DIR"] {
        assert!(!env.contains(secret), "{secret} leaked into {env}");
    }
    let path = |list: &str| {
        farm.mote(["run", "--quiet", "--path", list, &mote.name, "/bin/sh", "-c", "echo \"[$PATH]\""]).ok().out()
    };
    let own = value("PATH").expect("a path");
    assert_eq!(path("$WORKDIR/bin,$PATH"), format!("[{}/bin:{own}]", mote.work_dir));
    assert_eq!(path("EMPTY"), "[]");
    // The private temporary directory.
    let other = farm.create();
    farm.sh(&mote, "echo mine > $TMPDIR/mine && echo mine > $HOME/mine");
    assert_eq!(farm.sh(&other, "ls -A $TMPDIR $HOME | grep -c mine || true").out(), "0");
    assert_eq!(farm.sh(&mote, "cat $TMPDIR/mine").out(), "mine", "it lasts as long as the instance");
    farm.destroy(&[&mote, &other]);
    farm.finish();
}

#[test]
fn commands_run_where_they_are_said_to() {
    let farm = farm().start();
    let mote = farm.create();
    let tree = farm.fresh("tree");
    files::write_script(&tree, "deep/tools/where.sh", "pwd; echo \"$0\"; echo $#: \"$@\"");
    files::write_script(&tree, "plain.sh", "echo plain in $(pwd)");
    farm.push(&tree, "it", &mote).ok();
    let work = &mote.work_dir;
    let run = |args: &[&str]| farm.mote(["run", "--quiet"]).args(args).ok().out();
    let first = |text: String| text.lines().next().unwrap_or_default().to_owned();
    assert_eq!(first(run(&[&mote.name, "it/deep/tools/where.sh"])), format!("{work}/it/deep/tools"), "its own folder");
    assert_eq!(run(&[&mote.name, "/bin/pwd"]), *work, "an absolute one: the work directory");
    assert_eq!(first(run(&["--dir", "it/deep", &mote.name, "it/deep/tools/where.sh"])), format!("{work}/it/deep"));
    assert_eq!(run(&["-dir=it", &mote.name, "/bin/pwd"]), format!("{work}/it"), "Go's spelling of flags");
    assert_eq!(run(&["--dir", "/usr", &mote.name, "/bin/pwd"]), "/usr");
    assert_eq!(run(&["-system", &mote.name, "pwd"]), *work, "a program of the machine by its name");
    assert!(run(&[&mote.name, "it/deep/tools/where.sh", "-x", "--json", ""]).contains("3: -x --json"));
    farm.mote(["run", "-system", &mote.name, "it/plain.sh"]).run().fails(2).says(&["it/plain.sh"]);
    let nowhere = farm.mote(["run", "--dir", "no/such", &mote.name, "/bin/pwd"]).run();
    assert_eq!(nowhere.code(), 127, "{}", nowhere.stderr);
    assert!(nowhere.stderr.contains("no/such"), "{}", nowhere.stderr);
    let debug = run(&["--debug", &mote.name, "/bin/echo", "said"]);
    assert!(debug.contains("/bin/echo") && debug.ends_with("said"), "{debug}");
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn ten_thousand_arguments_arrive() {
    let farm = farm().start();
    let mote = farm.create();
    let script = "echo $#; for last; do :; done; printf '<%s>' \"$1\" \"$last\"";
    let args: Vec<String> = (1..=10_000).map(|i| format!("argument {i} 'quoted' ü")).collect();
    let ran = farm.mote(["run", "--quiet", &mote.name, "/bin/sh", "-c", script, "sh"]).args(&args).ok();
    assert_eq!(ran.out(), "10000\n<argument 1 'quoted' ü><argument 10000 'quoted' ü>");
    farm.destroy(&[&mote]);
    farm.finish();
}

/// What [`a_long_output_without_a_newline_is_intact`] writes, over and over.
const PATTERN: &[u8] = b"0123456789abcde";

#[test]
fn a_long_output_without_a_newline_is_intact() {
    let size: u64 = if wait::is_set("MOTE_TEST_BIG") { 1 << 30 } else { 256 << 20 };
    let farm = farm().start();
    let mote = farm.create();
    let output = farm.fresh("output");
    let script = format!("yes 0123456789abcde | tr -d '\\n' | head -c {size}; exit 6");
    let begin = Instant::now();
    farm.run_into(&mote, &output, &script).stdout_to_null().patience(seconds(600)).run().fails(6);
    let took = begin.elapsed();
    wait::say(&format!("{} MiB of output in {took:.1?}", size >> 20));
    let mut file = File::open(&output).expect("the output file");
    assert_eq!(file.metadata().expect("metadata").len(), size);
    let wanted = PATTERN.repeat(1 << 16);
    let mut found = vec![0; wanted.len()];
    let mut left = usize::try_from(size).expect("a size");
    while left > 0 {
        let n = left.min(wanted.len());
        file.read_exact(&mut found[..n]).expect("the output");
        assert!(found[..n] == wanted[..n], "the output differs in the megabyte {left} bytes before its end");
        left -= n;
    }
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn what_a_command_leaves_running_lives_until_its_instance_ends() {
    let farm = farm().start();
    let mote = farm.create();
    let mark = format!("5004.{}", std::process::id());
    let silent = farm.run(&mote, &format!("setsid sleep {mark} >/dev/null 2>&1 </dev/null & echo left")).ok();
    assert!(silent.took < seconds(8), "a process that is left is not waited for: {:?}", silent.took);
    // One that keeps the pipe open is not waited for either, not for long.
    let holding = farm.run(&mote, &format!("sleep {mark} & (setsid sh -c 'sleep {mark}; true' &); echo left; exit 3"));
    let holding = holding.run().fails(3);
    assert_eq!(holding.out(), "left");
    assert!(holding.took < seconds(15), "took {:?}", holding.took);
    assert!(processes::with_arg(&mark).len() >= 3, "they live on: {:?}", processes::with_arg(&mark));
    // Killing and restarting what serves them changes nothing.
    farm.kill_coordinator();
    farm.kill_buildlet();
    farm.start_coordinator();
    assert_eq!(farm.sh(&mote, "echo there").out(), "there");
    assert!(processes::with_arg(&mark).len() >= 3, "they live on: {:?}", processes::with_arg(&mark));
    farm.destroy(&[&mote]);
    wait::until_true("they ended with it", seconds(5), || processes::with_arg(&mark).is_empty());
    farm.finish();
}

#[test]
fn an_execution_is_started_once_however_often_it_is_asked_for() {
    let farm = farm().start();
    let mote = farm.create();
    let caller = rpc::Rpc::connect(&farm.profile(), None);
    let id = rpc::fresh_id();
    let spec = rpc::shell("echo started >> starts; sleep 1; cat starts; exit 2");
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let (profile, id, spec, name) = (farm.profile(), id.clone(), spec.clone(), mote.name.clone());
                scope.spawn(move || rpc::Rpc::connect(&profile, None).execute(&name, &id, spec).expect("an outcome"))
            })
            .collect();
        for call in calls {
            let (output, outcome) = call.join().expect("a call");
            assert_eq!(String::from_utf8_lossy(&output), "started\n");
            assert_eq!(outcome.expect("an outcome").code, 2);
        }
    });
    let (output, _) = caller.execute(&mote.name, &id, spec).expect("asking again is no error");
    assert_eq!(output, b"started\n");
    let other = caller.execute(&mote.name, &id, rpc::shell("echo other")).expect_err("another command by the same id");
    assert_eq!(other.code(), tonic::Code::AlreadyExists, "{other}");
    assert_eq!(fs::read_to_string(mote.work().join("starts")).expect("starts"), "started\n");
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn a_hundred_commands_at_once_all_end_well() {
    let farm = farm().start();
    let mote = farm.create();
    let profile = farm.profile();
    std::thread::scope(|scope| {
        for caller in 0..10 {
            let (profile, name) = (&profile, &mote.name);
            scope.spawn(move || {
                let rpc = rpc::Rpc::connect(profile, None);
                for n in 0..10 {
                    let (output, outcome) = rpc
                        .execute(name, &rpc::fresh_id(), rpc::shell(&format!("echo {caller} {n}; exit {n}")))
                        .expect("an outcome");
                    assert_eq!(String::from_utf8_lossy(&output), format!("{caller} {n}\n"));
                    assert_eq!(outcome.expect("an outcome").code, n);
                }
            });
        }
    });
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn output_past_its_bound_ends_the_command_or_makes_it_wait() {
    use motefarm_proto::mote::{self, exec_outcome::Ending, exec_spec::Overflow};
    let farm = farm().start();
    let mote = farm.create();
    let caller = rpc::Rpc::connect(&farm.profile(), None);
    let bound = 2 << 20;
    let spec = |overflow: Overflow| mote::ExecSpec {
        spool_limit_bytes: bound,
        overflow: overflow.into(),
        ..rpc::shell("yes 0123456789abcde | head -c 20000000; echo >&2; exit 3")
    };
    let (output, outcome) = caller.execute(&mote.name, &rpc::fresh_id(), spec(Overflow::End)).expect("an outcome");
    assert_eq!(outcome.expect("an outcome").ending, i32::from(Ending::OutputLimit));
    assert!(output.len() as u64 <= bound + (1 << 20) && output.len() as u64 >= bound / 2, "{} bytes", output.len());
    assert!(output.chunks(16).all(|line| b"0123456789abcde\n".starts_with(line)), "what is there is its beginning");

    // Nobody says that it is safe: the command waits. Somebody does: it goes on to its end.
    let id = rpc::fresh_id();
    let begin = mote::ExecuteRequest {
        instance: mote.name.clone(),
        exec_id: id.clone(),
        spec: Some(spec(Overflow::Block)),
        offset: 0,
    };
    let (total, stalls) = caller.wait(async {
        let mut events = caller.farm().execute(begin).await.expect("a stream").into_inner();
        let (mut total, mut stalls) = (0, 0);
        loop {
            let Ok(event) = tokio::time::timeout(Duration::from_millis(700), events.message()).await else {
                stalls += 1;
                let ack = mote::AckOutputRequest { exec_id: id.clone(), offset: total };
                caller.farm().ack_output(ack).await.expect("it is acknowledged");
                continue;
            };
            match event.expect("no error").expect("an outcome comes first").event {
                Some(mote::exec_event::Event::Output(chunk)) => {
                    assert_eq!(chunk.offset, total);
                    total += chunk.data.len() as u64;
                }
                Some(mote::exec_event::Event::Outcome(outcome)) => {
                    assert_eq!((outcome.ending, outcome.code), (Ending::Exited.into(), 3));
                    return (total, stalls);
                }
                _ => {}
            }
        }
    });
    assert_eq!(total, 20_000_001);
    assert!((5..30).contains(&stalls), "it waited {stalls} times, about once each {bound} bytes");
    farm.destroy(&[&mote]);
    farm.finish();
}
