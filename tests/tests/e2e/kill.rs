//! `kill -9` of coordinator, buildlet and client, in turn and together, at random moments: nothing
//! is lost, nothing is started twice, nothing is left over.
//!
//! `MOTE_TEST_KILLS` says how many times (100); `MOTE_TEST_SEED` plays one round again.

use crate::{farm, seconds};
use motefarm_tests::{Dice, Instance, Mote, Ran, TestFarm, files, processes, wait};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Lines of one run, over about two seconds.
const LINES: usize = 2000;
/// Longest that anything may take from its first try to its good end.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the killer and those who work share.
#[derive(Default)]
struct Arena {
    /// No more killing; work ends after its present piece.
    over: AtomicBool,
    failed: AtomicBool,
    /// `mote` processes that run now.
    clients: Mutex<Vec<i32>>,
    /// How often coordinator, buildlet and client were killed.
    killed: [AtomicU64; 3],
    /// Runs that were attached to, and attaches.
    resumed: AtomicU64,
    attaches: AtomicU64,
}

impl Arena {
    fn clients(&self) -> std::sync::MutexGuard<'_, Vec<i32>> {
        self.clients.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::SeqCst) && !self.failed.load(Ordering::SeqCst)
    }

    /// Runs `mote` where it may be killed.
    #[track_caller]
    fn run(&self, mote: Mote) -> Ran {
        let running = mote.patience(PATIENCE).spawn();
        let pid = running.pid();
        self.clients().push(pid);
        let ran = running.wait();
        self.clients().retain(|other| *other != pid);
        ran
    }
}

/// Stops everything when a thread fails, so that its panic is seen soon.
struct Alarm<'a>(&'a Arena);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

/// Killed by us, or the coordinator was away at first contact: to be tried again.
fn to_be_repeated(ran: &Ran, own: i32) -> bool {
    ran.code() == -9 || (ran.code() == own && ran.stderr.contains("can not reach"))
}

#[test]
fn kills_at_random_moments_lose_nothing() {
    survive(wait::number_from_env("MOTE_TEST_KILLS", 100).div_ceil(2));
}

#[test]
fn kills_at_other_random_moments_lose_nothing_either() {
    survive(wait::number_from_env("MOTE_TEST_KILLS", 100) / 2);
}

fn survive(kills: u64) {
    if kills == 0 {
        return;
    }
    let mut dice = Dice::thrown("kill suite");
    let seeds: Vec<u64> = (0..5).map(|_| dice.number()).collect();
    let farm = farm().start();
    let mote = farm.create();
    let arena = Arena::default();
    let begin = Instant::now();
    let runs = AtomicU64::new(0);
    let pushes = AtomicU64::new(0);
    let creates = AtomicU64::new(0);
    let never_began = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let (farm, mote, arena) = (&farm, &mote, &arena);
        let (runs, pushes, creates, never_began) = (&runs, &pushes, &creates, &never_began);
        for worker in 0..2 {
            scope.spawn(move || {
                let _alarm = Alarm(arena);
                let cache = farm.fresh("cache");
                for n in 0.. {
                    if n > 0 && !arena.goes_on() {
                        return;
                    }
                    never_began.lock().expect("no panic holds it").extend(one_run(
                        farm,
                        mote,
                        arena,
                        &cache,
                        &format!("{worker}-{n}"),
                    ));
                    runs.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        scope.spawn(|| {
            let _alarm = Alarm(arena);
            push_on(farm, mote, arena, pushes, &mut Dice::new(seeds[1]));
        });
        scope.spawn(|| {
            let _alarm = Alarm(arena);
            create_on(farm, mote, arena, creates);
        });
        {
            let _alarm = Alarm(arena);
            kill_on(farm, arena, kills, &mut Dice::new(seeds[0]));
            arena.over.store(true, Ordering::SeqCst);
        }
    });
    let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
    let [coordinators, buildlets, clients] = arena.killed.each_ref().map(count);
    let (resumed, attaches) = (count(&arena.resumed), count(&arena.attaches));
    let (runs, pushes, creates) = (count(&runs), count(&pushes), count(&creates));
    wait::say(&format!(
        "{kills} times in {:.0?}: coordinator killed {coordinators}, buildlet {buildlets}, client {clients} times; \
         {runs} runs ({resumed} of them resumed, by {attaches} attaches), {pushes} pushes, {creates} instances",
        begin.elapsed(),
    ));
    for pids in never_began.into_inner().expect("no panic holds it") {
        assert!(!pids.exists(), "{} says it began, the farm said it never did", pids.display());
    }
    // The lease is still the same one.
    farm.mote(["ping", &mote.name]).ok();
    let listed = farm.list().into_iter().find(|i| i["name"] == mote.name.as_str()).expect("it is listed");
    assert_eq!((listed["instance_id"].as_str(), listed["state"].as_str()), (Some(mote.id.as_str()), Some("ready")));
    let others: Vec<String> = farm.list().iter().filter_map(|i| i["name"].as_str().map(str::to_owned)).collect();
    farm.mote(["destroy"]).args(&others).ok();
    farm.until_nothing_left();
    farm.stop_coordinator();
    farm.coordinator(&["cas", "verify"]).ok();
    farm.start_coordinator();
    farm.finish();
}

/// The killer: coordinator, buildlet, client, each alone and all together.
fn kill_on(farm: &TestFarm, arena: &Arena, kills: u64, dice: &mut Dice) {
    for _ in 0..kills {
        std::thread::sleep(Duration::from_millis(30 + dice.below(900)));
        if !arena.goes_on() {
            return;
        }
        let (coordinator, buildlet, client) = match dice.below(10) {
            0 | 1 => (true, false, false),
            2 | 3 => (false, true, false),
            4 | 5 => (false, false, true),
            6 => (true, true, false),
            7 => (true, false, true),
            8 => (false, true, true),
            _ => (true, true, true),
        };
        if client {
            let clients = arena.clients();
            if !clients.is_empty() {
                processes::kill9(clients[usize::try_from(dice.below(clients.len() as u64)).expect("a small number")]);
                arena.killed[2].fetch_add(1, Ordering::SeqCst);
            }
        }
        if buildlet && farm.kill_buildlet().is_some() {
            arena.killed[1].fetch_add(1, Ordering::SeqCst);
        }
        if coordinator {
            arena.killed[0].fetch_add(1, Ordering::SeqCst);
            farm.kill_coordinator();
            std::thread::sleep(Duration::from_millis(dice.below(400)));
            farm.start_coordinator();
        }
    }
}

/// One run to its good end, whatever is killed. Answers the pid files of those that never began.
#[track_caller]
fn one_run(farm: &TestFarm, mote: &Instance, arena: &Arena, cache: &Path, name: &str) -> Vec<PathBuf> {
    let begin = Instant::now();
    let mut never_began = Vec::new();
    for attempt in 0.. {
        let pids = mote.work().join(format!("pids-{name}-{attempt}"));
        let output = farm.fresh("output");
        let script = format!(
            "echo $$ >> pids-{name}-{attempt}\ni=0\nwhile [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i of {name}; \
             [ $((i % 20)) = 0 ] && sleep 0.015; done\nexit 7"
        );
        let mut ran = arena.run(farm.run_into(mote, &output, &script).env("MOTE_CACHE_DIR", cache));
        let unbroken = ran.code() == 7;
        let mut attaches = 0_u64;
        while ran.code() != 7 && !says_none_was_interrupted(&ran) {
            let allowed = ran.code() == -9 || ran.code() == 255;
            assert!(allowed, "{} ended with {}: {}\n{}", ran.shown, ran.code(), ran.stderr, farm.coordinator_log(30));
            assert!(begin.elapsed() < PATIENCE, "{name} does not come to its end: {}", ran.stderr);
            if attaches > 0 {
                std::thread::sleep(Duration::from_millis(50));
            }
            attaches += 1;
            ran = arena.run(farm.mote(["attach", "--quiet"]).env("MOTE_CACHE_DIR", cache));
        }
        if ran.code() != 7 {
            never_began.push(pids);
            continue;
        }
        arena.resumed.fetch_add(u64::from(attaches > 0), Ordering::SeqCst);
        arena.attaches.fetch_add(attaches, Ordering::SeqCst);
        let wanted: String = (1..=LINES).map(|i| format!("line {i} of {name}\n")).collect();
        let kept = fs::read_to_string(&output).expect("the output file");
        assert_same_lines(&kept, &wanted, &format!("output of {name} after {attaches} attaches"));
        if unbroken {
            let shown = String::from_utf8_lossy(&ran.stdout).into_owned();
            assert_same_lines(&shown, &wanted, &format!("stdout of {name}"));
        }
        let started = fs::read_to_string(&pids).expect("the command said that it began");
        assert_eq!(started.lines().count(), 1, "{name} was started once: {started:?}");
        return never_began;
    }
    unreachable!("attempts do not run out")
}

fn says_none_was_interrupted(ran: &Ran) -> bool {
    ran.code() == 2 && ran.stderr.contains("no run from this machine was interrupted")
}

#[track_caller]
fn assert_same_lines(found: &str, wanted: &str, what: &str) {
    if found == wanted {
        return;
    }
    let at = found.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    let at = at.unwrap_or_else(|| found.lines().count().min(wanted.lines().count()));
    let near = |text: &str| text.lines().skip(at.saturating_sub(2)).take(6).collect::<Vec<_>>().join(" | ");
    panic!(
        "{what}: {} bytes instead of {}; differs from line {}: found {:?}, wanted {:?}",
        found.len(),
        wanted.len(),
        at + 1,
        near(found),
        near(wanted)
    );
}

/// Pushes a tree that changes, again and again.
fn push_on(farm: &TestFarm, mote: &Instance, arena: &Arena, pushes: &AtomicU64, dice: &mut Dice) {
    let cache = farm.fresh("cache");
    let tree = farm.fresh("tree");
    for i in 0..120 {
        files::write(&tree, format!("{}/{i}", i % 9), format!("first {i}"));
    }
    while arena.goes_on() {
        for _ in 0..10 {
            let i = dice.below(120);
            let size = usize::try_from(dice.below(20_000)).expect("a small number");
            files::write(&tree, format!("{}/{i}", i % 9), dice.bytes(size));
        }
        files::write(&tree, "large", dice.bytes(1_500_000));
        let begin = Instant::now();
        loop {
            let ran = arena.run(farm.push(&tree, "tree", mote).env("MOTE_CACHE_DIR", &cache));
            if ran.code() == 0 {
                break;
            }
            assert!(to_be_repeated(&ran, 4), "push ended with {}: {}", ran.code(), ran.stderr);
            assert!(begin.elapsed() < PATIENCE, "the push does not come to its end: {}", ran.stderr);
            std::thread::sleep(Duration::from_millis(30));
        }
        files::assert_equal(&files::read(&mote.work().join("tree"), &[]), &files::read(&tree, &[]));
        pushes.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(dice.below(300)));
    }
}

/// Leases and destroys, again and again.
fn create_on(farm: &TestFarm, kept: &Instance, arena: &Arena, creates: &AtomicU64) {
    let host_type = TestFarm::host_type();
    let once_done = |args: &[&str], own: i32| -> Option<Ran> {
        let ran = arena.run(farm.mote(args));
        match ran.code() {
            0 => Some(ran),
            _ if to_be_repeated(&ran, own) => None,
            code => panic!("{} ended with {code}: {}", ran.shown, ran.stderr),
        }
    };
    while arena.goes_on() {
        // One whose client was killed stands all the same, and is found by `list`.
        if once_done(&["create", &host_type], 4).is_some() {
            creates.fetch_add(1, Ordering::SeqCst);
        }
        let Some(listed) = once_done(&["list", "--json"], 4) else { continue };
        for instance in listed.json()["instances"].as_array().cloned().unwrap_or_default() {
            let name = instance["name"].as_str().expect("a name").to_owned();
            let ends = instance["state"] == "ending" || instance["state"] == "gone";
            if name == kept.name || ends {
                continue;
            }
            let ran = arena.run(farm.mote(["destroy", &name]));
            let gone = ran.code() == 1 && ran.stderr.contains("there is no instance");
            assert!(ran.code() == 0 || gone || to_be_repeated(&ran, 4), "{} {}", ran.shown, ran.stderr);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_buildlet_is_back_within_a_second_of_its_death() {
    let farm = farm().start();
    let mote = farm.create();
    let killed = farm.kill_buildlet().expect("it runs");
    let begin = Instant::now();
    wait::until_true("another buildlet runs", seconds(5), || farm.buildlet_pid().is_some_and(|pid| pid != killed));
    assert!(begin.elapsed() < Duration::from_millis(1500), "started again after {:?}", begin.elapsed());
    assert_eq!(farm.sh(&mote, "echo there").out(), "there");
    farm.destroy(&[&mote]);
    farm.finish();
}

#[test]
fn stdin_and_outcomes_survive_a_killed_coordinator() {
    let farm = farm().start();
    let mote = farm.create();
    let bytes = Dice::new(3).bytes(4_000_000);
    let mut reading = farm.mote(["run", "--quiet", "--stdin", "--output"]);
    let output = farm.fresh("output");
    reading = reading.arg(&output).args([&mote.name, "/bin/sh", "-c", "head -c 1000; sleep 1; cat; exit 5"]);
    let running = reading.stdin(bytes.clone()).spawn();
    wait::until_true("it reads", seconds(10), || fs::metadata(&output).is_ok_and(|meta| meta.len() >= 1000));
    farm.kill_coordinator();
    farm.start_coordinator();
    running.wait().fails(5);
    let kept = fs::read(&output).expect("the output file");
    assert!(kept == bytes, "{} of {} bytes came back", kept.len(), bytes.len());
    // A command that ends while nobody is there to be told.
    let exec = farm.detach(&mote, "echo begun; sleep 1; echo ended alone; exit 6");
    farm.kill_coordinator();
    farm.kill_buildlet();
    std::thread::sleep(seconds(2));
    farm.start_coordinator();
    assert_eq!(farm.mote(["attach", "--quiet", &exec]).run().fails(6).out(), "begun\nended alone");
    farm.destroy(&[&mote]);
    farm.finish();
}

/// The keeper of the one instance and, after it, the supervisors of its executions.
fn keepers(farm: &TestFarm) -> Vec<i32> {
    let is_keeper = |p: &processes::Process| p.args.get(1).is_some_and(|role| role == "keeper");
    let mut found: Vec<i32> = farm.others().into_iter().filter(is_keeper).map(|p| p.pid).collect();
    found.sort_unstable();
    found
}

#[test]
fn what_is_lost_with_its_supervisor_or_keeper_is_told_and_ended() {
    let farm = farm().start();
    let mote = farm.create();
    let mark = format!("6601.{}", std::process::id());
    let script = format!("(setsid sleep {mark} &); echo begun; sleep {mark}; echo never");
    let exec = farm.detach(&mote, &script);
    wait::until_true("it runs", seconds(10), || processes::with_arg(&mark).len() >= 2);
    wait::until_true("it writes", seconds(10), || farm.mote(["logs", "--quiet", &exec]).ok().out() == "begun");
    let [keeper, supervisor] = keepers(&farm)[..] else { panic!("one keeper, one supervisor: {:#?}", farm.others()) };
    processes::kill9(supervisor);
    let ran = farm.mote(["attach", "--quiet", &exec]).run().fails(255);
    assert_eq!(ran.out(), "begun", "what it wrote is kept");
    // (What it left running lives on until the instance ends, as what any command leaves does.)
    assert_eq!(farm.sh(&mote, "echo usable").out(), "usable");
    // The keeper takes everything along; the instance is made usable again.
    let exec = farm.detach(&mote, &script);
    wait::until_true("it runs", seconds(10), || farm.mote(["logs", "--quiet", &exec]).ok().out() == "begun");
    processes::kill9(keeper);
    let ran = farm.mote(["attach", "--quiet", &exec]).run().fails(255);
    assert_eq!(ran.out(), "begun");
    wait::until_true("what it started has ended", seconds(8), || processes::with_arg(&mark).is_empty());
    assert_eq!(farm.sh(&mote, "echo usable").out(), "usable");
    farm.destroy(&[&mote]);
    farm.finish();
}
