//! A bridge on a port of its own, and compiles to put through it.

use crate::fake_reapi::FakeReapi;
use crate::fake_reapi::worker::{Done, Job, Work};
use crate::goma_client::inputs::ToolSpec;
use crate::goma_client::{Client, Task};
use motefarm_bridge::backend::Backend;
use motefarm_bridge::config::{File, Overrides};
use motefarm_bridge::content::Content;
use motefarm_bridge::hash_map::HashMap;
use motefarm_bridge::http::Edge;
use motefarm_bridge::{daemon, serve};
use motefarm_core::Digest;
use motefarm_net::tls::Authority;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// See the module.
pub(crate) struct Bridge {
    pub(crate) address: SocketAddr,
    pub(crate) edge: Arc<Edge>,
    pub(crate) ca_pem: String,
    pub(crate) shutdown: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Bridge {
    /// With the map in `dir`, before this server, configured by `text` (TOML).
    pub(crate) async fn start(dir: &Path, fake: &FakeReapi, text: &str) -> Self {
        let platform = fake.rules.platform.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self::start_on(dir, fake.backend(), platform.collect(), text).await
    }

    /// The same before any server.
    pub(crate) async fn start_on(dir: &Path, backend: Backend, platform: Vec<(String, String)>, text: &str) -> Self {
        let mut file = File::parse(text).unwrap();
        file.backend.address = Some("127.0.0.1:1".to_owned());
        // The client is as if elsewhere, unless a test says otherwise.
        file.inputs.read_local.get_or_insert(false);
        let flags = Overrides { platform, ..Overrides::default() };
        let config = file.resolve(flags, dir.to_owned()).unwrap();
        let map = HashMap::open(&dir.join("hash-map"), 10_000).unwrap();
        let edge = Arc::new(daemon::edge(&config, Content::new(backend, map)).unwrap());
        let authority = Authority::load_or_create(&dir.join("tls")).unwrap();
        let tls = authority.server_config(&["127.0.0.1".to_owned()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), CancellationToken::new());
        let serving = tokio::spawn(serve::serve(edge.clone(), listener, tls, 100, shutdown.clone()));
        Self { address, edge, ca_pem: authority.ca_pem().to_owned(), shutdown, serving }
    }

    /// Ends it as a kill would: no draining.
    pub(crate) async fn kill(self) {
        self.serving.abort();
        let _ = self.serving.await;
        // Connections end with their tasks, which hold the edge and so the map.
        let edge = Arc::downgrade(&self.edge);
        drop(self.edge);
        while edge.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    }

    /// A client of its own.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.address.to_string())
    }
}

/// Runs what blocks beside the runtime.
pub(crate) async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Files of a project and a compiler, in a directory of their own.
pub(crate) struct Project {
    pub(crate) dir: tempfile::TempDir,
}

impl Project {
    /// With these files below `src/`.
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        let project = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(project.cwd()).unwrap();
        project.write("../tools/cc", b"#!/bin/sh\nthe compiler");
        files.iter().for_each(|(name, content)| project.write(name, content));
        project
    }

    /// Where compiles are run.
    pub(crate) fn cwd(&self) -> PathBuf {
        self.dir.path().join("src")
    }

    pub(crate) fn write(&self, name: &str, content: &[u8]) {
        let path = self.cwd().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// A compile of these inputs to these outputs.
    pub(crate) fn task(&self, inputs: &[&str], outputs: &[&str]) -> Task {
        let own = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let compiler = fs::read(self.cwd().join("../tools/cc")).unwrap();
        let digest = Digest::of(&compiler);
        let tool = ToolSpec {
            path: "../tools/cc".to_owned(),
            kind: Err((digest.hash_hex(), digest.size_bytes() as i64, true)),
        };
        Task {
            cwd: self.cwd(),
            args: own(&["cc", "-c", inputs[0], "-o", outputs[0]]),
            inputs: own(&[inputs, &["../tools/cc"]].concat()),
            outputs: own(outputs),
            toolchain: vec![tool],
            ..Task::default()
        }
    }
}

/// Content that does not compress and is different for every seed.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut content: Vec<u8> = std::iter::repeat_with(&mut next).take(len / 8 + 1).flatten().collect();
    content.truncate(len);
    content
}

/// A compiler that writes into every output which files it saw, and what was in the first.
pub(crate) fn lists_files() -> Work {
    Work::Function(Arc::new(|job: &Job| {
        let mut done = Done { stderr: b"a warning".to_vec(), ..Done::default() };
        for output in &job.outputs {
            let mut content = format!("{output} of {:?}\n", job.command.arguments).into_bytes();
            for (path, (file, executable)) in &job.files {
                content.extend(format!("{path} {executable} {}\n", Digest::of(file)).into_bytes());
            }
            done.outputs.insert(output.clone(), (content, false));
        }
        done
    }))
}

/// This machine's own compilers, in a directory that holds the input root but for what is the system's.
pub(crate) fn compiles_here() -> Work {
    compiles_by(|job, _| job.command.arguments.clone())
}

/// The same with another command; it is told the job and where it runs.
pub(crate) fn compiles_by(command: impl Fn(&Job, &Path) -> Vec<String> + Send + Sync + 'static) -> Work {
    Work::Function(Arc::new(move |job: &Job| {
        let root = tempfile::tempdir().unwrap();
        for (path, (content, _)) in job.files.iter().filter(|(path, _)| !path.starts_with("usr/")) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let cwd = root.path().join(&job.command.working_directory);
        let arguments = command(job, &cwd);
        let ran = std::process::Command::new(&arguments[0]).args(&arguments[1..]).current_dir(&cwd).output().unwrap();
        let outputs =
            job.outputs.iter().filter_map(|name| Some((name.clone(), (fs::read(cwd.join(name)).ok()?, false))));
        Done {
            exit_code: ran.status.code().unwrap_or(137),
            stdout: ran.stdout,
            stderr: ran.stderr,
            outputs: outputs.collect(),
            ..Done::default()
        }
    }))
}

/// A compiler that leaves exactly these.
pub(crate) fn leaves(outputs: &[(&str, Vec<u8>)]) -> Work {
    let outputs: Vec<(String, Vec<u8>)> =
        outputs.iter().map(|(name, content)| ((*name).to_owned(), content.clone())).collect();
    Work::Function(Arc::new(move |_: &Job| {
        let outputs = outputs.iter().map(|(name, content)| (name.clone(), (content.clone(), false)));
        Done { outputs: outputs.collect(), ..Done::default() }
    }))
}

/// A compiler that fails, differently each time.
pub(crate) fn fails() -> Work {
    let runs = AtomicUsize::new(0);
    Work::Function(Arc::new(move |_: &Job| Done {
        exit_code: 1,
        stderr: format!("a.c:1: error {}", runs.fetch_add(1, Ordering::Relaxed)).into_bytes(),
        ..Done::default()
    }))
}
