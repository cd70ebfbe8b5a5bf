//! Between messages and the farm's vocabulary. Parsing checks everything the vocabulary promises;
//! an error names the field and says what is wrong with it.

use crate::mote;
use motefarm_core::clock::Timestamp;
use motefarm_core::exec::{self, Ending, ExecOutcome, OutputStream};
use motefarm_core::lease::LeaseTerms;
use motefarm_core::{Digest, ExecId, InstanceId, WorkPath};
use std::time::Duration;

/// What a peer's message got wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field}: {problem}")]
pub struct FieldError {
    /// Which field, as the `.proto` names it.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

impl FieldError {
    /// Blames `field`.
    pub fn new(field: &'static str, problem: impl ToString) -> Self {
        Self { field, problem: problem.to_string() }
    }
}

impl From<FieldError> for tonic::Status {
    fn from(error: FieldError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

/// Parses an instance id.
pub fn instance_id(text: &str) -> Result<InstanceId, FieldError> {
    text.parse().map_err(|e| FieldError::new("instance_id", e))
}

/// Parses an execution id.
pub fn exec_id(text: &str) -> Result<ExecId, FieldError> {
    text.parse().map_err(|e| FieldError::new("exec_id", e))
}

/// Parses a path inside the work directory.
pub fn work_path(field: &'static str, text: &str) -> Result<WorkPath, FieldError> {
    WorkPath::parse(text).map_err(|e| FieldError::new(field, e))
}

/// Parses a digest.
pub fn digest(digest: &mote::Digest) -> Result<Digest, FieldError> {
    let hash: [u8; 32] = digest.hash.as_ref().try_into().map_err(|_| {
        FieldError::new("digest.hash", format!("{} bytes instead of the 32 of SHA-256", digest.hash.len()))
    })?;
    Ok(Digest::new(hash, digest.size_bytes))
}

impl From<Digest> for mote::Digest {
    fn from(digest: Digest) -> Self {
        Self { hash: bytes::Bytes::copy_from_slice(digest.hash()), size_bytes: digest.size_bytes() }
    }
}

/// Parses a REAPI digest (hash text and signed size).
pub fn reapi_digest(digest: &crate::reapi::Digest) -> Result<Digest, FieldError> {
    Digest::parse(&digest.hash, digest.size_bytes).map_err(|e| FieldError::new("digest", e))
}

/// The REAPI spelling of a digest.
pub fn to_reapi_digest(digest: Digest) -> crate::reapi::Digest {
    crate::reapi::Digest { hash: digest.hash_hex(), size_bytes: i64::try_from(digest.size_bytes()).unwrap_or(i64::MAX) }
}

/// Checks a command against the bounds of `motefarm-core`'s `exec`.
pub fn check_exec_spec(spec: &mote::ExecSpec) -> Result<(), FieldError> {
    if spec.program.is_empty() {
        return Err(FieldError::new("spec.program", "is empty"));
    }
    if spec.system_level && spec.program.contains('/') && !spec.program.starts_with('/') {
        return Err(FieldError::new(
            "spec.program",
            format!("{:?} is relative to the work directory, which a system-level command can not be", spec.program),
        ));
    }
    if spec.program.contains('/') && !spec.program.starts_with('/') {
        work_path("spec.program", &spec.program)?;
    }
    if spec.args.len() > exec::MAX_ARGS {
        return Err(FieldError::new("spec.args", format!("{} arguments; at most {}", spec.args.len(), exec::MAX_ARGS)));
    }
    // Each string costs its bytes, a NUL and a pointer, as the kernel counts.
    let cost = |s: &String| s.len() + 9;
    let bytes: usize = spec.args.iter().chain(&spec.env).map(cost).sum::<usize>() + cost(&spec.program);
    if bytes > exec::MAX_ARG_BYTES {
        return Err(FieldError::new(
            "spec.args",
            format!("arguments and environment take {bytes} bytes; at most {}", exec::MAX_ARG_BYTES),
        ));
    }
    if let Some(bad) = spec.args.iter().chain([&spec.program, &spec.dir]).find(|s| s.contains('\0')) {
        return Err(FieldError::new(
            "spec.args",
            format!("{:?} holds a NUL byte", bad.chars().take(80).collect::<String>()),
        ));
    }
    if let Some(bad) = spec.env.iter().find(|e| e.find('=').is_none_or(|at| at == 0) || e.contains('\0')) {
        return Err(FieldError::new(
            "spec.env",
            format!("{:?} is not NAME=value", bad.chars().take(80).collect::<String>()),
        ));
    }
    if !spec.dir.is_empty() && !spec.dir.starts_with('/') {
        work_path("spec.dir", &spec.dir)?;
    }
    Ok(())
}

impl From<&ExecOutcome> for mote::ExecOutcome {
    fn from(outcome: &ExecOutcome) -> Self {
        use mote::exec_outcome::Ending as Wire;
        let (ending, code) = match outcome.ending {
            Ending::Exited(code) => (Wire::Exited, code),
            Ending::Signaled(signal) => (Wire::Signaled, signal),
            Ending::TimedOut => (Wire::TimedOut, 0),
            Ending::Cancelled => (Wire::Cancelled, 0),
            Ending::OutputLimit => (Wire::OutputLimit, 0),
            Ending::NotStarted => (Wire::NotStarted, 0),
            Ending::Lost => (Wire::Lost, 0),
        };
        Self {
            ending: ending.into(),
            code,
            reason: outcome.reason.clone(),
            started_at_ms: outcome.started_at.as_millis(),
            ended_at_ms: outcome.ended_at.as_millis(),
            user_cpu_us: micros(outcome.user_cpu),
            system_cpu_us: micros(outcome.system_cpu),
            max_rss_bytes: outcome.max_rss_bytes,
            output_end: outcome.output_end,
            left_running: outcome.left_running,
        }
    }
}

/// Parses an outcome.
pub fn exec_outcome(outcome: &mote::ExecOutcome) -> Result<ExecOutcome, FieldError> {
    use mote::exec_outcome::Ending as Wire;
    let ending = match outcome.ending() {
        Wire::Exited => Ending::Exited(outcome.code),
        Wire::Signaled => Ending::Signaled(outcome.code),
        Wire::TimedOut => Ending::TimedOut,
        Wire::Cancelled => Ending::Cancelled,
        Wire::OutputLimit => Ending::OutputLimit,
        Wire::NotStarted => Ending::NotStarted,
        Wire::Lost => Ending::Lost,
        Wire::Unspecified => {
            return Err(FieldError::new("outcome.ending", format!("{} is not known", outcome.ending)));
        }
    };
    Ok(ExecOutcome {
        ending,
        reason: outcome.reason.clone(),
        started_at: Timestamp::from_millis(outcome.started_at_ms),
        ended_at: Timestamp::from_millis(outcome.ended_at_ms),
        user_cpu: Duration::from_micros(outcome.user_cpu_us),
        system_cpu: Duration::from_micros(outcome.system_cpu_us),
        max_rss_bytes: outcome.max_rss_bytes,
        output_end: outcome.output_end,
        left_running: outcome.left_running,
    })
}

/// Which stream a chunk came from; unset counts as stdout.
pub fn output_stream(chunk: &mote::OutputChunk) -> OutputStream {
    match chunk.stream() {
        mote::output_chunk::Stream::Stderr => OutputStream::Stderr,
        _ => OutputStream::Stdout,
    }
}

impl From<OutputStream> for mote::output_chunk::Stream {
    fn from(stream: OutputStream) -> Self {
        match stream {
            OutputStream::Stdout => Self::Stdout,
            OutputStream::Stderr => Self::Stderr,
        }
    }
}

impl From<LeaseTerms> for mote::LeaseTerms {
    fn from(terms: LeaseTerms) -> Self {
        Self {
            idle_timeout_ms: millis(terms.idle_timeout),
            max_lifetime_ms: terms.max_lifetime.map_or(0, millis),
            unwatched_limit_ms: millis(terms.unwatched_limit),
        }
    }
}

/// Parses lease terms.
pub fn lease_terms(terms: &mote::LeaseTerms) -> Result<LeaseTerms, FieldError> {
    if terms.idle_timeout_ms == 0 {
        return Err(FieldError::new("terms.idle_timeout_ms", "is zero"));
    }
    Ok(LeaseTerms {
        idle_timeout: Duration::from_millis(terms.idle_timeout_ms),
        max_lifetime: (terms.max_lifetime_ms > 0).then(|| Duration::from_millis(terms.max_lifetime_ms)),
        unwatched_limit: Duration::from_millis(terms.unwatched_limit_ms),
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(program: &str) -> mote::ExecSpec {
        mote::ExecSpec { program: program.into(), ..Default::default() }
    }

    #[test]
    fn commands_out_of_bounds_are_refused_by_field() {
        assert!(check_exec_spec(&spec("go/src/make.bash")).is_ok());
        let cases = [
            (spec(""), "spec.program"),
            (mote::ExecSpec { system_level: true, ..spec("a/b") }, "spec.program"),
            (spec("../../bin/sh"), "spec.program"),
            (mote::ExecSpec { args: vec!["x".into(); exec::MAX_ARGS + 1], ..spec("a") }, "spec.args"),
            (mote::ExecSpec { args: vec!["x".repeat(exec::MAX_ARG_BYTES)], ..spec("a") }, "spec.args"),
            (mote::ExecSpec { args: vec!["\0".into()], ..spec("a") }, "spec.args"),
            (mote::ExecSpec { env: vec!["A".into()], ..spec("a") }, "spec.env"),
            (mote::ExecSpec { dir: "../..".into(), ..spec("a") }, "spec.dir"),
        ];
        for (bad, field) in cases {
            assert_eq!(check_exec_spec(&bad).unwrap_err().field, field);
        }
    }

    #[test]
    fn outcomes_survive_the_wire() {
        for ending in [Ending::Exited(7), Ending::Signaled(9), Ending::TimedOut, Ending::Cancelled, Ending::Lost] {
            let outcome = ExecOutcome {
                ending,
                reason: "why".into(),
                started_at: Timestamp::from_millis(5),
                ended_at: Timestamp::from_millis(9),
                user_cpu: Duration::from_micros(3),
                system_cpu: Duration::from_micros(4),
                max_rss_bytes: 11,
                output_end: 12,
                left_running: true,
            };
            assert_eq!(exec_outcome(&mote::ExecOutcome::from(&outcome)), Ok(outcome));
        }
        assert!(exec_outcome(&mote::ExecOutcome::default()).is_err());
    }

    #[test]
    fn a_hash_of_another_length_is_refused() {
        let bad = mote::Digest { hash: vec![0; 20].into(), size_bytes: 1 };
        assert_eq!(digest(&bad).unwrap_err().field, "digest.hash");
    }
}
