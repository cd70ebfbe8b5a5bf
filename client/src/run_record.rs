//! What this machine remembers of the runs it began, so that `attach` can go on with one.
//!
//! A record is `<cache>/runs/<exec id>.run`: one line of JSON written before the command is asked
//! for, and others for what happens to it: its output file was begun, it has ended. Execution ids
//! are UUIDv7, so names sort by age. Losing a record loses no output: the farm has it.

use crate::error::Error;
use motefarm_core::{Clock as _, ExecId, SystemClock, Timestamp};
use serde::{Deserialize, Serialize};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a finished run is remembered, with its output if that is in our folder.
const KEPT: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// Which execution.
    pub(crate) exec_id: String,
    /// On which instance, as the user named it.
    pub(crate) instance: String,
    /// On which farm (`host:port`) or listening buildlet (`TYPE@host:port`).
    pub(crate) server: String,
    /// What was run, for people.
    pub(crate) command: Vec<String>,
    /// Where its output goes.
    pub(crate) output: PathBuf,
    /// The output file held something else when this was written: until a line says otherwise.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) fresh: bool,
    /// What all runs of one command line share, if it was about several instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) batch: Option<String>,
    /// What is to be done besides watching it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plan: Option<Plan>,
}

/// What `run -until` and `run -collect` have begun, so that another process can go on with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Run again until this matches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<String>,
    /// Then fetch the work directory to this file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) collect: Option<PathBuf>,
    /// What is run: an encoded `ExecSpec`, in hex.
    pub(crate) spec: String,
    /// The attempt before this one, which is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<String>,
}

const fn is_false(value: &bool) -> bool {
    !*value
}

/// The line of a run that has ended.
#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    ended_at_ms: i64,
    exit_code: u8,
}

/// The line of a run whose output file is its own.
const BEGUN: &[u8] = b"{\"begun\":true}\n";

/// A record as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) record: RunRecord,
    pub(crate) ended: bool,
}

/// The folder of records.
#[derive(Debug, Clone)]
pub(crate) struct Runs {
    dir: PathBuf,
}

impl Runs {
    /// Nothing is made yet.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Where a run's output goes unless the user says otherwise.
    pub(crate) fn default_output(&self, exec_id: &str) -> PathBuf {
        self.dir.join(format!("{exec_id}.out"))
    }

    /// Where the outputs of several instances go.
    pub(crate) fn folder(&self, batch: &str) -> PathBuf {
        self.dir.join(batch)
    }

    /// Makes it.
    pub(crate) fn make_folder(&self, batch: &str) -> Result<PathBuf, Error> {
        let folder = self.folder(batch);
        let make = || {
            motefarm_net::private_file::create_dir(&self.dir)?;
            motefarm_net::private_file::create_dir(&folder)
        };
        make().map_err(|e| Error::file("create the folder", &folder, e))?;
        Ok(folder)
    }

    fn path(&self, exec_id: &str) -> PathBuf {
        self.dir.join(format!("{exec_id}.run"))
    }

    /// Remembers a run, before the farm is asked for it.
    pub(crate) fn remember(&self, record: &RunRecord) -> Result<(), Error> {
        let path = self.path(&record.exec_id);
        let write = || -> io::Result<()> {
            let mut line = serde_json::to_vec(record)?;
            line.push(b'\n');
            match fs::write(&path, &line) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    motefarm_net::private_file::create_dir(&self.dir)?;
                    fs::write(&path, &line)
                }
                done => done,
            }
        };
        write().map_err(|e| Error::file("write the run record", &path, e))
    }

    /// Notes that the output file holds this run's output and nothing else.
    pub(crate) fn note_begun(&self, exec_id: &str) {
        if let Ok(mut file) = OpenOptions::new().append(true).open(self.path(exec_id)) {
            let _ = file.write_all(BEGUN);
        }
    }

    /// Runs of one command line that have not ended, oldest first.
    pub(crate) fn batch(&self, batch: &str) -> Vec<RunRecord> {
        let mut ids = self.ids_newest_first();
        ids.reverse();
        let found = ids.iter().filter_map(|id| read(&self.path(id)));
        let open = found.filter(|found| !found.ended && found.record.batch.as_deref() == Some(batch));
        open.map(|found| found.record).collect()
    }

    /// Notes that it is over. A record that can not be written only makes `attach` ask once more.
    pub(crate) fn note_end(&self, exec_id: &str, exit_code: u8) {
        let ended = Ended { ended_at_ms: SystemClock.now().as_millis(), exit_code };
        if let (Ok(mut file), Ok(mut line)) =
            (OpenOptions::new().append(true).open(self.path(exec_id)), serde_json::to_vec(&ended))
        {
            line.push(b'\n');
            let _ = file.write_all(&line);
        }
    }

    /// Forgets a run that never began.
    pub(crate) fn forget(&self, exec_id: &str) {
        let _ = fs::remove_file(self.path(exec_id));
    }

    /// The record of an execution, if this machine began it.
    pub(crate) fn find(&self, exec_id: &str) -> Option<Found> {
        exec_id.parse::<ExecId>().ok()?;
        read(&self.path(exec_id))
    }

    /// The newest run on `server` that has not ended; else, if `ended` will do, the newest.
    pub(crate) fn newest(&self, server: &str, or_ended: bool) -> Option<Found> {
        self.newest_where(|record| record.server == server, or_ended)
    }

    /// The same wherever it was.
    pub(crate) fn newest_anywhere(&self, or_ended: bool) -> Option<Found> {
        self.newest_where(|_| true, or_ended)
    }

    fn newest_where(&self, fits: impl Fn(&RunRecord) -> bool, or_ended: bool) -> Option<Found> {
        let mut newest = None;
        for exec_id in self.ids_newest_first() {
            match read(&self.path(&exec_id)).filter(|found| fits(&found.record)) {
                Some(found) if !found.ended => return Some(found),
                Some(found) if or_ended && newest.is_none() => newest = Some(found),
                _ => {}
            }
        }
        newest
    }

    /// Removes what ended long ago, with its output if that lies in our folder.
    pub(crate) fn prune(&self, now: Timestamp) {
        for exec_id in self.ids_newest_first() {
            let path = self.path(&exec_id);
            let Ok(text) = fs::read_to_string(&path) else { continue };
            if ended_at(&text).is_some_and(|at| now.since(at) > KEPT) {
                let _ = fs::remove_file(self.default_output(&exec_id));
                self.remove_shared_folder(&text);
                let _ = fs::remove_file(&path);
            }
        }
    }

    /// Outputs of several instances lie in a folder of ours that goes with the last of them.
    fn remove_shared_folder(&self, text: &str) {
        let record = text.lines().next().and_then(|line| serde_json::from_str::<RunRecord>(line).ok());
        let Some(record) = record.filter(|r| r.batch.is_some()) else { return };
        if let Some(folder) = record.output.parent().filter(|folder| folder.parent() == Some(self.dir.as_path())) {
            let _ = fs::remove_file(&record.output);
            let _ = fs::remove_dir(folder);
        }
    }

    fn ids_newest_first(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut ids: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok()?.strip_suffix(".run").map(str::to_owned))
            .filter(|id| id.parse::<ExecId>().is_ok())
            .collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids
    }
}

fn read(path: &Path) -> Option<Found> {
    let text = fs::read_to_string(path).ok()?;
    let mut record: RunRecord = serde_json::from_str(text.lines().next()?).ok()?;
    record.fresh &= !text.lines().any(|line| line.as_bytes() == BEGUN.trim_ascii_end());
    Some(Found { record, ended: ended_at(&text).is_some() })
}

fn ended_at(text: &str) -> Option<Timestamp> {
    let ended: Ended = text.lines().skip(1).find_map(|line| serde_json::from_str(line).ok())?;
    Some(Timestamp::from_millis(ended.ended_at_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u8, server: &str) -> RunRecord {
        RunRecord {
            exec_id: format!("0193a1b2-c3d4-7e5f-8a9b-0000000000{n:02}"),
            instance: "alice-linux-amd64-0".into(),
            server: server.into(),
            command: vec!["/bin/true".into()],
            output: "/tmp/x".into(),
            fresh: false,
            batch: None,
            plan: None,
        }
    }

    #[test]
    fn the_newest_interrupted_run_of_the_farm_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::new(dir.path().join("runs"));
        assert_eq!(runs.newest("a:1", true), None);
        for (n, server) in [(1, "a:1"), (2, "a:1"), (3, "b:1"), (4, "a:1")] {
            runs.remember(&record(n, server)).unwrap();
        }
        runs.note_end(&record(4, "a:1").exec_id, 0);
        assert_eq!(runs.newest("a:1", true).unwrap().record, record(2, "a:1"));
        runs.forget(&record(2, "a:1").exec_id);
        assert_eq!(runs.newest("a:1", false).unwrap().record, record(1, "a:1"));
        runs.note_end(&record(1, "a:1").exec_id, 3);
        assert_eq!(runs.newest("a:1", false), None);
        assert_eq!(runs.newest("a:1", true).unwrap().record, record(4, "a:1"));
    }

    #[test]
    fn a_record_cut_short_or_damaged_is_no_record_and_a_cut_end_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::new(dir.path().to_owned());
        let whole = record(1, "a:1");
        runs.remember(&whole).unwrap();
        let path = runs.path(&whole.exec_id);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{{\"ended_at")).unwrap();
        assert!(!runs.find(&whole.exec_id).unwrap().ended);
        fs::write(&path, &text[..20]).unwrap();
        assert_eq!(runs.find(&whole.exec_id), None);
        assert_eq!(runs.find("../../etc/passwd"), None);
    }

    #[test]
    fn a_fresh_record_is_so_until_its_file_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::new(dir.path().to_owned());
        let plan = Plan { until: Some("x".into()), collect: None, spec: "00".into(), after: None };
        let whole = RunRecord { fresh: true, batch: Some("b".into()), plan: Some(plan), ..record(1, "a:1") };
        runs.remember(&whole).unwrap();
        assert_eq!(runs.find(&whole.exec_id).unwrap().record, whole);
        runs.note_begun(&whole.exec_id);
        let found = runs.find(&whole.exec_id).unwrap();
        assert!(!found.record.fresh && !found.ended);
        assert_eq!(runs.batch("b").len(), 1);
        runs.note_end(&whole.exec_id, 0);
        assert!(runs.find(&whole.exec_id).unwrap().ended && runs.batch("b").is_empty());
    }

    #[test]
    fn the_folder_of_several_outputs_goes_with_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::new(dir.path().to_owned());
        let folder = dir.path().join("batch");
        fs::create_dir(&folder).unwrap();
        for n in [1, 2] {
            let output = folder.join(format!("{n}.stdout"));
            fs::write(&output, "x").unwrap();
            runs.remember(&RunRecord { batch: Some("b".into()), output, ..record(n, "a:1") }).unwrap();
        }
        let later = SystemClock.now() + KEPT + Duration::from_secs(60);
        runs.note_end(&record(1, "").exec_id, 0);
        runs.prune(later);
        assert!(folder.join("2.stdout").exists() && !folder.join("1.stdout").exists());
        runs.note_end(&record(2, "").exec_id, 0);
        runs.prune(later);
        assert!(!folder.exists());
    }

    #[test]
    fn only_what_ended_long_ago_is_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let runs = Runs::new(dir.path().to_owned());
        for n in [1, 2] {
            runs.remember(&record(n, "a:1")).unwrap();
            fs::write(runs.default_output(&record(n, "").exec_id), "x").unwrap();
        }
        runs.note_end(&record(1, "").exec_id, 0);
        let now = SystemClock.now();
        runs.prune(now + KEPT / 2);
        assert_eq!(runs.ids_newest_first().len(), 2);
        runs.prune(now + KEPT + Duration::from_secs(60));
        assert_eq!(runs.ids_newest_first(), [record(2, "").exec_id]);
        assert!(!runs.default_output(&record(1, "").exec_id).exists());
    }
}
