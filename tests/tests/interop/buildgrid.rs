//! BuildGrid, a REAPI server in Python, with PostgreSQL and workers of ours (`buildgrid/worker.py`) around
//! buildbox-run.

use crate::buildbox;
use crate::peers::{Peer, peer};
use motefarm_tests::farm::free_port;
use motefarm_tests::wait;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

const SERVER: &str = include_str!("buildgrid/server.yml");
const WORKER: &str = include_str!("buildgrid/worker.py");

/// What it takes.
pub(crate) struct Programs {
    bgd: PathBuf,
    postgres: PathBuf,
    buildbox: PathBuf,
}

/// All of it, ended in this order.
pub(crate) struct BuildGrid {
    _workers: Peer,
    _server: Peer,
    _database: Peer,
}

impl Programs {
    /// If they are all here.
    pub(crate) fn found(what: &str) -> Option<Self> {
        let bgd = peer(what, "bgd/bin/bgd", "bgd")?;
        let buildbox = buildbox::programs(what, "2.5.0")?;
        let releases = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let mut folders = releases.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("initdb").is_file());
        let Some(postgres) = folders.next() else {
            wait::skipped(what, "there is no PostgreSQL; scripts/interop.sh says why");
            return None;
        };
        Some(Self { bgd, postgres, buildbox })
    }

    /// Starts it below `dir`; where it listens.
    pub(crate) fn start(&self, dir: &Path) -> (BuildGrid, String) {
        let (database, url) = self.database(dir);
        let run = |command: &mut Command| {
            let ran = command.output().expect("a program of BuildGrid's starts");
            assert!(ran.status.success(), "{command:?}: {}", String::from_utf8_lossy(&ran.stderr));
        };
        run(Command::new(&self.bgd).args(["migrate", "apply", &url]));
        let address = free_port();
        // Release 0.4.4 hears of finished work at once only by the older driver's name; later ones lack it.
        let python = self.bgd.with_file_name("python");
        let old = Command::new(&python).args(["-c", "import psycopg2"]).output().is_ok_and(|ran| ran.status.success());
        let sql = if old { url.replacen("postgresql:", "postgresql+psycopg2:", 1) } else { url };
        let storage = dir.join("buildgrid").display().to_string();
        let config = SERVER.replace("{listen}", &address).replace("{data}", &storage).replace("{sql}", &sql);
        fs::write(dir.join("server.yml"), config).expect("a configuration");
        fs::write(dir.join("worker.py"), WORKER).expect("a program");
        let mut server = Command::new(&self.bgd);
        server.args(["server", "start"]).arg(dir.join("server.yml")).current_dir(dir);
        let mut server = Peer::start(&mut server, &dir.join("buildgrid.log"));
        server.until_it_listens(&address);
        let mut workers = Command::new(python);
        workers.arg(dir.join("worker.py")).arg(&address).arg(self.buildbox.join("buildbox-run"));
        workers.arg(dir).arg("2").args(buildbox::mounts());
        let workers = Peer::start(&mut workers, &dir.join("worker.log"));
        (BuildGrid { _workers: workers, _server: server, _database: database }, address)
    }

    /// PostgreSQL refuses to be root: then it is the user of Debian's package.
    fn database(&self, dir: &Path) -> (Peer, String) {
        let data = dir.join("postgres");
        fs::create_dir(&data).expect("a directory for the database");
        let as_root = fs::metadata(&data).expect("it is there").uid() == 0;
        if as_root {
            let asked = Command::new("id").args(["-u", "postgres"]).output().expect("id starts");
            let uid = String::from_utf8_lossy(&asked.stdout).trim().parse().expect("Debian's package makes a user");
            chown(&data, Some(uid), None).expect("root may");
        }
        let call = |program: &str| {
            let program = self.postgres.join(program);
            if !as_root {
                return Command::new(program);
            }
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
            command
        };
        // Whatever language this machine speaks: BuildGrid wants text.
        let flags = ["--auth=trust", "--username=bgd", "--no-sync", "--encoding=UTF8", "--no-locale", "-D"];
        let made = call("initdb").args(flags).arg(&data).output();
        let made = made.expect("initdb starts");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let address = free_port();
        let port = address.rsplit(':').next().expect("a port");
        let mut server = call("postgres");
        server.arg("-D").arg(&data).args(["-p", port, "-c", "listen_addresses=127.0.0.1"]);
        server.args(["-c", "unix_socket_directories=", "-c", "fsync=off"]);
        let mut server = Peer::start(&mut server, &dir.join("postgres.log"));
        server.until_it_listens(&address);
        (server, format!("postgresql://bgd@{address}/postgres"))
    }
}
