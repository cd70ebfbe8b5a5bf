//! One instance's part of a run: attempts until one matches, then what is to be collected.
//!
//! Each attempt is an execution of its own, and written down before it is asked for; the file holds
//! the last one's output only. So whoever finds the record can go on from any point: the output
//! file's length, the match, the next attempt, the archive.

use super::start::spec_of;
use crate::commands::gettar;
use crate::connection::Farm;
use crate::error::Error;
use crate::follow::{self, Begin, Broken, End, Show, Stdin, Watch};
use crate::output_file::OutputFile;
use crate::printer::{Passthrough, Printer, Shared};
use crate::run_record::{Plan, RunRecord, Runs};
use crate::signals::Signals;
use crate::until::Until;
use motefarm_core::exec::{Ending, ExecOutcome};
use motefarm_proto::mote::{self, TarCompression};
use std::cell::RefCell;
use std::fs::File;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Where output is shown, attempt after attempt.
pub(crate) enum Screen {
    /// Our stdout and stderr; what was opened is for the first attempt.
    Own(RefCell<Option<Passthrough>>),
    /// The same, shared with other instances' output.
    Shared(Shared),
    /// Nowhere: the file has it.
    Nowhere,
}

impl Screen {
    /// The outputs of this process.
    pub(crate) fn own(opened: Passthrough) -> Self {
        Self::Own(RefCell::new(Some(opened)))
    }

    fn show(&self, name: &str) -> Result<Show, Error> {
        Ok(match self {
            Self::Own(opened) => {
                let opened = opened.borrow_mut().take();
                Show::Raw(opened.map_or_else(Passthrough::open, Ok)?)
            }
            Self::Shared(shared) => Show::Named(shared.named(name)),
            Self::Nowhere => Show::Nowhere,
        })
    }
}

/// How the first attempt of this process is got at.
pub(crate) struct First {
    pub(super) begin: Begin,
    pub(super) file: OutputFile,
    pub(super) stdin: Option<Stdin>,
}

impl First {
    /// Bytes of output that are here already.
    pub(crate) const fn known(&self) -> u64 {
        self.file.len()
    }
}

/// One instance's part.
pub(crate) struct Member<'a> {
    pub(crate) farm: &'a Farm,
    pub(crate) printer: Printer,
    pub(crate) runs: &'a Runs,
    /// Of the attempt under way.
    pub(crate) record: RunRecord,
    pub(crate) screen: &'a Screen,
    /// Others are under way: messages name the instance.
    pub(crate) several: bool,
}

/// How it came to an end.
pub(crate) struct Finish {
    pub(crate) instance: String,
    /// Of the last attempt.
    pub(crate) exec_id: String,
    pub(crate) output: PathBuf,
    /// `None`: it still runs, and we were told to go.
    pub(crate) outcome: Option<ExecOutcome>,
    /// Something is left for `attach`: the command itself, further attempts, the archive.
    pub(crate) open: bool,
    /// Whether the output matched, if that was asked.
    pub(crate) matched: Option<bool>,
    /// The archive.
    pub(crate) collected: Option<PathBuf>,
}

impl Member<'_> {
    /// Sees it through. A farm that stays away leaves everything as `attach` wants it.
    pub(crate) async fn see_through(mut self, first: First, signals: &mut Signals) -> Result<Finish, Broken> {
        let mut next = first;
        let mut again = false;
        loop {
            let watched = self.watch(next, signals).await;
            let end =
                watched.map_err(|broken| self.tell_broken(Broken { started: again || broken.started, ..broken }))?;
            let (outcome, interrupted) = match end {
                End::Outcome { outcome, interrupted } => (outcome, interrupted),
                End::UpToDate | End::Left => return Ok(self.finish(None)),
            };
            follow::explain(self.printer, &self.what(), &outcome);
            let step = self.after(&outcome, interrupted, signals).await;
            match step.map_err(|error| self.tell_broken(Broken { error, started: true }))? {
                Step::Again(first) => next = *first,
                Step::Finish(finish) => return Ok(*finish),
            }
            again = true;
        }
    }

    async fn watch(&self, first: First, signals: &mut Signals) -> Result<End, Broken> {
        let show = self.screen.show(&self.record.instance).map_err(|error| Broken { error, started: false })?;
        let First { begin, file, stdin } = first;
        let exec_id = self.record.exec_id.clone();
        let watch = Watch { exec_id, begin, file: Some(file), show, stdin, owns: true };
        follow::watch(self.farm, self.printer, signals, watch).await
    }

    /// What follows an attempt that is over.
    async fn after(&mut self, outcome: &ExecOutcome, interrupted: bool, signals: &mut Signals) -> Result<Step, Error> {
        let mut finish = self.finish(Some(outcome.clone()));
        let Some(plan) = self.record.plan.clone() else { return Ok(self.close(finish)) };
        if let Some(pattern) = &plan.until {
            let matched = self.matches(pattern).await?;
            finish.matched = Some(matched);
            let instance = &self.record.instance;
            if matched {
                self.printer.message(format_args!("Match found on {instance:?}."));
            } else if interrupted || outcome.ending == Ending::Cancelled {
                self.printer.message(format_args!(
                    "no match on {instance:?} so far; `mote attach {}` goes on running it",
                    self.record.exec_id
                ));
                finish.open = true;
                return Ok(Step::Finish(Box::new(finish)));
            } else if can_run_again(outcome) {
                self.printer.message(format_args!("No match found on {instance:?}, running again..."));
                return self.again(plan).map(|first| Step::Again(Box::new(first)));
            }
        }
        if let Some(archive) = &plan.collect {
            let collected = tokio::select! {
                collected = self.collect(archive) => collected?,
                _ = signals.next() => false,
            };
            if !collected {
                let exec_id = &self.record.exec_id;
                self.printer.warning(format_args!("nothing was collected; `mote attach {exec_id}` does it"));
                finish.open = true;
                return Ok(Step::Finish(Box::new(finish)));
            }
            finish.collected = Some(archive.clone());
        }
        Ok(self.close(finish))
    }

    /// Whether this attempt's output, all of it, matches.
    async fn matches(&self, pattern: &str) -> Result<bool, Error> {
        let until = Until::new(pattern).map_err(|problem| super::wrong_pattern(pattern, &problem))?;
        let path = self.record.output.clone();
        let read = move || File::open(&path).and_then(|file| until.matches(file));
        let joined = tokio::task::spawn_blocking(read).await;
        let read = joined.map_err(|e| Error::local("match the output", std::io::Error::other(e)))?;
        read.map_err(|e| Error::file("match the output in", &self.record.output, e))
    }

    /// The next attempt: first written down, then the old one forgotten, then the file emptied.
    fn again(&mut self, plan: Plan) -> Result<First, Error> {
        let spec = spec_of(&plan, &self.record)?;
        let before = std::mem::replace(&mut self.record.exec_id, Uuid::now_v7().to_string());
        self.record.fresh = true;
        self.record.plan = Some(Plan { after: Some(before.clone()), ..plan });
        self.runs.remember(&self.record)?;
        self.runs.forget(&before);
        let file = OutputFile::create(&self.record.output)?;
        self.runs.note_begun(&self.record.exec_id);
        let begin = Begin::Start { instance: self.record.instance.clone(), spec: Box::new(spec) };
        Ok(First { begin, file, stdin: None })
    }

    async fn collect(&self, archive: &Path) -> Result<bool, Error> {
        let instance = &self.record.instance;
        let shown = archive.file_name().map_or(archive, Path::new).display();
        self.printer.message(format_args!("Downloading work dir tarball for {instance:?} to \"{shown}\"..."));
        let request = mote::GetTarRequest {
            instance: instance.clone(),
            dir: String::new(),
            compression: TarCompression::Gzip.into(),
        };
        gettar::to_file(self.printer, self.farm, request, archive).await.map(|_| true)
    }

    /// Nothing is left to do.
    fn close(&self, finish: Finish) -> Step {
        if let Some(outcome) = &finish.outcome {
            self.runs.note_end(&self.record.exec_id, outcome.shell_code());
        }
        Step::Finish(Box::new(finish))
    }

    fn finish(&self, outcome: Option<ExecOutcome>) -> Finish {
        Finish {
            instance: self.record.instance.clone(),
            exec_id: self.record.exec_id.clone(),
            output: self.record.output.clone(),
            open: outcome.is_none(),
            outcome,
            matched: None,
            collected: None,
        }
    }

    fn tell_broken(&self, broken: Broken) -> Broken {
        let exec_id = &self.record.exec_id;
        if broken.error.is_not_found() && broken.started {
            // It is gone with its instance: nobody need try again.
            self.runs.note_end(exec_id, crate::exit_code::ExitStatus::Farm.code());
        } else if broken.started || super::may_have_begun(&broken.error) {
            self.printer.warning(format_args!("it may still run; `mote attach {exec_id}` goes on with it"));
        }
        broken
    }

    fn what(&self) -> String {
        if self.several { format!("the command on {}", self.record.instance) } else { "the command".to_owned() }
    }
}

enum Step {
    Again(Box<First>),
    Finish(Box<Finish>),
}

/// A failed command is what `-until` waits for; one that could not be started will not be next time.
const fn can_run_again(outcome: &ExecOutcome) -> bool {
    matches!(outcome.ending, Ending::Exited(_) | Ending::Signaled(_) | Ending::TimedOut)
}
