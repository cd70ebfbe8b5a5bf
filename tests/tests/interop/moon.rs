//! moon 2.5.5, a cache client in Rust: over TLS with a token, blobs packed with zstd.

use crate::peers::peer;
use crate::{farm, seconds};
use motefarm_tests::{Mote, TestFarm};
use std::fs;
use std::path::{Path, PathBuf};

struct Moon<'a> {
    farm: &'a TestFarm,
    program: PathBuf,
    dir: PathBuf,
}

impl Moon<'_> {
    fn write(&self, path: &str, text: &str) {
        let path = self.dir.join(path);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn git(&self, args: &[&str]) {
        self.farm.program(Path::new("git")).cwd(&self.dir).args(args).ok();
    }

    fn run(&self) -> Mote {
        let call = self.farm.program(&self.program).cwd(&self.dir).args(["run", "app:gen"]);
        call.env("FARM_TOKEN", self.farm.profile_value("token")).env("CI", "").patience(seconds(60))
    }

    fn output(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.join("app/out").join(name)).unwrap_or_default()
    }
}

#[test]
fn moon_finds_its_results_over_tls_with_zstd() {
    let below = "moon/node_modules/@moonrepo/core-linux-x64-gnu/moon";
    let Some(program) = peer("moon caches on the farm", below, "moon") else { return };
    let farm = farm().config("[reapi]\nclients_may_write_action_cache = true").start();
    let moon = Moon { farm: &farm, program, dir: farm.dir().join("moon") };
    moon.write("certs/ca.pem", &farm.profile_value("ca_pem"));
    let workspace = format!(
        "projects: ['app']\ntelemetry: false\nremote:\n  api: grpc\n  host: 'grpcs://{}'\n  auth:\n    token: FARM_TOKEN\n  \
         tls:\n    cert: 'certs/ca.pem'\n    domain: 'localhost'\n  cache:\n    compression: zstd\n    instanceName: ''\n",
        farm.address()
    );
    moon.write(".moon/workspace.yml", &workspace);
    // One output over the limit of a batch, which goes by ByteStream, and a small one.
    moon.write("app/gen.sh", "mkdir -p out\nseq 1 900000 >out/large.txt\ncat in.txt >out/small.txt\n");
    moon.write("app/in.txt", "content\n");
    moon.write(
        "app/moon.yml",
        "tasks:\n  gen:\n    command: 'sh gen.sh'\n    inputs: ['in.txt', 'gen.sh']\n    outputs: ['out']\n",
    );
    moon.write(".gitignore", ".moon/cache\napp/out\n");
    moon.git(&["init", "-q", "."]);
    moon.git(&["add", "-A"]);
    moon.git(&["-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "all"]);

    let first = moon.run().ok();
    let large = moon.output("large.txt");
    assert!(large.len() > 5_000_000 && moon.output("small.txt") == b"content\n", "{first:?}");
    for gone in [".moon/cache", "app/out"] {
        fs::remove_dir_all(moon.dir.join(gone)).expect("it is there");
    }
    let second = moon.run().ok();
    let told = format!("{}{}", second.out(), second.stderr);
    assert!(told.contains("cached from remote"), "{told}");
    assert!(moon.output("large.txt") == large && moon.output("small.txt") == b"content\n");
    farm.mote(["cas", "verify"]).ok();
    farm.finish();
}
