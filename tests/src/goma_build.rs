//! A project compiled through a bridge, and first by this machine itself: what comes must be the same, byte for
//! byte. The bridge's own tests take this file in by path.

use super::compilers::Compilers;
use super::cxx_project::{CxxProject, Kind, Unit};
use super::goma_client::inputs::{self, ToolSpec};
use super::goma_client::{Client, Compiled, Failure, Task};
use std::collections::HashMap;
use std::fs;
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a build tool would do with a compile that failed for want of attempts or of a server: ask again later.
const REPEATS: usize = 8;

/// A compile, and what this machine made of it.
pub struct Job {
    /// As it is asked for.
    pub task: Task,
    local: Output,
    contents: Vec<Vec<u8>>,
}

impl Job {
    /// How it ended here.
    pub fn exit_code(&self) -> Option<i32> {
        self.local.status.code()
    }

    /// Panics unless a compiler that ran in its place said and left the same.
    pub fn is_what_was_left(&self, ran: &Output) {
        let words = &self.task.args;
        assert_eq!(plain(&ran.stderr), plain(&self.local.stderr), "{words:?}");
        if self.local.status.success() {
            for (name, content) in self.task.outputs.iter().zip(&self.contents) {
                let left = fs::read(self.task.cwd.join(name));
                assert!(left.is_ok_and(|left| left == *content), "{words:?}: {name} differs");
            }
        }
    }
}

/// A compile of a unit below `project/out`.
pub fn task(project: &CxxProject, compilers: &Compilers, unit: &Unit) -> Task {
    let cwd = project.dir.join("out");
    let stem = &unit.stem;
    let mut args = compilers.call(unit.kind == Kind::Cxx);
    args.extend(["-c", "-g", "-O1", "-gsplit-dwarf", "-I.."].map(str::to_owned));
    args.extend([format!("../{}", unit.source()), "-MMD".into(), "-MF".into(), format!("{stem}.d")]);
    args.extend(["-o".into(), format!("{stem}.o")]);
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let toolchain = compilers.toolchain(&cwd, &args[0]);
    // The client sends the compiler's own file as one of the inputs.
    let own = |tool: &ToolSpec| tool.kind.is_err().then(|| tool.path.clone());
    let mut inputs = inputs::read_by(&words, &cwd);
    inputs.extend(toolchain.iter().filter_map(own));
    let outputs = ["o", "dwo", "d"].map(|end| format!("{stem}.{end}")).to_vec();
    let env = vec![format!("PWD={}", cwd.display())];
    Task { cwd, args, env, inputs, outputs, toolchain, ..Task::default() }
}

/// Every unit with one of these compilers, in turn (those without the system's headers with the one in the tree),
/// compiled by this machine.
pub fn jobs(project: &CxxProject, compilers: &[Compilers], in_tree: Option<&Compilers>) -> Vec<Job> {
    fs::create_dir_all(project.dir.join("out")).expect("a folder for objects");
    let units = project.units();
    each(&units, 2, |n, unit| {
        let turn = &compilers[n % compilers.len()];
        job(task(project, if unit.kind == Kind::Freestanding { in_tree.unwrap_or(turn) } else { turn }, unit))
    })
}

/// Compiles it here; its outputs are taken away.
pub fn job(task: Task) -> Job {
    let local = Command::new(&task.args[0]).args(&task.args[1..]).current_dir(&task.cwd).env("PWD", &task.cwd).output();
    let local = local.expect("the compiler starts");
    let take = |name: &String| {
        let path = task.cwd.join(name);
        let content = fs::read(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        content
    };
    let contents = task.outputs.iter().map(take).collect();
    Job { task, local, contents }
}

/// What became of a build.
#[derive(Debug, Default)]
pub struct Built {
    /// Compiles answered from a cache.
    pub hits: usize,
    /// Requests in all.
    pub requests: i64,
    /// Compiles that had to be asked for again, as a build that is started once more does.
    pub repeated: usize,
}

/// Builds all of it, `width` at once, and compares. `progress` hears how many are done.
pub fn build(client: &Client, jobs: &[Job], width: usize, progress: impl Fn(usize) + Sync) -> Built {
    let (done, built) = (AtomicUsize::new(0), Mutex::new(Built::default()));
    each(jobs, width, |_, job| {
        let mut client = client.clone();
        let compiled = patiently(&mut client, &job.task, &built);
        compare(job, &compiled);
        let mut built = built.lock().expect("nobody panics with it");
        built.hits += usize::from(compiled.cache_hit != 0);
        built.requests += compiled.attempts;
        drop(built);
        progress(done.fetch_add(1, Ordering::Relaxed) + 1);
    });
    built.into_inner().expect("nobody panics with it")
}

fn patiently(client: &mut Client, task: &Task, built: &Mutex<Built>) -> Compiled {
    let mut last = None;
    for _ in 0..REPEATS {
        match client.build(task) {
            Ok(compiled) => return compiled,
            Err(again @ (Failure::Exhausted(_) | Failure::Ill(_) | Failure::Http(_))) => last = Some(again),
            Err(failure) => panic!("{:?}: {failure:?}", task.args),
        }
        built.lock().expect("nobody panics with it").repeated += 1;
    }
    panic!("{:?}: {last:?}", task.args)
}

/// Panics where what came is not what this machine makes.
pub fn compare(job: &Job, compiled: &Compiled) {
    let what = &job.task.args;
    assert_eq!(
        Some(compiled.exit_status),
        job.local.status.code().map(i64::from),
        "{what:?}: {}",
        compiled.complaints()
    );
    assert_eq!(plain(&compiled.stderr), plain(&job.local.stderr), "{what:?}");
    assert_eq!(plain(&compiled.stdout), plain(&job.local.stdout), "{what:?}");
    if compiled.exit_status == 0 {
        for (name, content) in job.task.outputs.iter().zip(&job.contents) {
            assert!(compiled.output(name) == content, "{what:?}: {name} differs");
        }
    }
}

/// Quotes of a message depend on the language, which the client does not send.
fn plain(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace(['\u{2018}', '\u{2019}'], "'")
}

/// Links a program of what came, and lets it check the libraries.
pub fn links_and_runs(project: &CxxProject, n: usize) -> bool {
    let out = project.dir.join("out");
    let objects = (0..=n).flat_map(|m| [format!("c_{m}.o"), format!("cc_{m}.o")]);
    let objects: Vec<String> = objects.chain([format!("app_{n}.o")]).collect();
    let linked = Command::new("/usr/bin/g++").current_dir(&out).args(&objects).args(["-o", "app"]).output();
    let linked = linked.expect("g++ starts");
    assert!(linked.status.success(), "{}", String::from_utf8_lossy(&linked.stderr));
    let ran = Command::new(out.join("app")).output().expect("the program starts");
    String::from_utf8_lossy(&ran.stdout).trim_end() == CxxProject::expected(n)
}

/// Does it to each, `width` at once; results in order.
fn each<T: Sync, R: Send>(items: &[T], width: usize, work: impl Fn(usize, &T) -> R + Sync) -> Vec<R> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(HashMap::new()));
    std::thread::scope(|scope| {
        let step = || {
            while let Some((n, item)) =
                Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|n| Some((n, items.get(n)?)))
            {
                let result = work(n, item);
                results.lock().expect("nobody panics with it").insert(n, result);
            }
        };
        (0..width).for_each(|_| drop(scope.spawn(step)));
    });
    let mut results = results.into_inner().expect("nobody panics with it");
    (0..items.len()).map(|n| results.remove(&n).expect("each is done")).collect()
}
