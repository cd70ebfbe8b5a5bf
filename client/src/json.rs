//! What `--json` shows of the farm's messages. Field names are the `.proto` files'.

use crate::human;
use motefarm_core::exec::{Ending, ExecOutcome};
use motefarm_core::instance::InstanceState;
use motefarm_proto::mote;
use serde::Serialize;
use std::time::Duration;

/// `InstanceInfo`.
#[derive(Serialize)]
pub(crate) struct Instance {
    pub(crate) instance_id: String,
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) host_type: String,
    pub(crate) state: String,
    pub(crate) created_at_ms: i64,
    pub(crate) expires_at_ms: i64,
    pub(crate) now_ms: i64,
    pub(crate) work_dir: String,
    pub(crate) buildlet: String,
    pub(crate) running_execs: u64,
    pub(crate) groups: Vec<String>,
    pub(crate) shared_with: Vec<String>,
}

impl Instance {
    /// `expires in 29m59s` by the farm's clock; empty while there is no lease, and when it is over.
    pub(crate) fn expiry(&self) -> String {
        self.left().map(|left| format!("expires in {}", human::duration(left))).unwrap_or_default()
    }

    /// The same to the millisecond.
    pub(crate) fn exact_expiry(&self) -> String {
        self.left().map(|left| format!("expires in {}", human::exact(left))).unwrap_or_default()
    }

    fn left(&self) -> Option<Duration> {
        let live = InstanceState::from_word(&self.state).is_none_or(InstanceState::is_live);
        (self.expires_at_ms != 0 && live).then(|| human::between(self.now_ms, self.expires_at_ms))
    }
}

impl From<mote::InstanceInfo> for Instance {
    fn from(info: mote::InstanceInfo) -> Self {
        Self {
            instance_id: info.instance_id,
            name: info.name,
            owner: info.owner,
            host_type: info.host_type,
            state: info.state,
            created_at_ms: info.created_at_ms,
            expires_at_ms: info.expires_at_ms,
            now_ms: info.now_ms,
            work_dir: info.work_dir,
            buildlet: info.buildlet,
            running_execs: info.running_execs,
            groups: info.groups,
            shared_with: info.shared_with,
        }
    }
}

/// `ExecOutcome`, with the exit code `mote` ends with.
#[derive(Serialize)]
pub(crate) struct Outcome {
    pub(crate) ending: &'static str,
    pub(crate) code: i32,
    pub(crate) exit_code: u8,
    pub(crate) reason: String,
    pub(crate) started_at_ms: i64,
    pub(crate) ended_at_ms: i64,
    pub(crate) user_cpu_us: u64,
    pub(crate) system_cpu_us: u64,
    pub(crate) max_rss_bytes: u64,
    pub(crate) output_end: u64,
    pub(crate) left_running: bool,
}

impl From<&ExecOutcome> for Outcome {
    fn from(outcome: &ExecOutcome) -> Self {
        let (ending, code) = match outcome.ending {
            Ending::Exited(code) => ("exited", code),
            Ending::Signaled(signal) => ("signaled", signal),
            Ending::TimedOut => ("timed_out", 0),
            Ending::Cancelled => ("cancelled", 0),
            Ending::OutputLimit => ("output_limit", 0),
            Ending::NotStarted => ("not_started", 0),
            Ending::Lost => ("lost", 0),
        };
        Self {
            ending,
            code,
            exit_code: outcome.shell_code(),
            reason: outcome.reason.clone(),
            started_at_ms: outcome.started_at.as_millis(),
            ended_at_ms: outcome.ended_at.as_millis(),
            user_cpu_us: u64::try_from(outcome.user_cpu.as_micros()).unwrap_or(u64::MAX),
            system_cpu_us: u64::try_from(outcome.system_cpu.as_micros()).unwrap_or(u64::MAX),
            max_rss_bytes: outcome.max_rss_bytes,
            output_end: outcome.output_end,
            left_running: outcome.left_running,
        }
    }
}
