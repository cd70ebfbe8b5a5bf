//! `mote-bridge doctor`: what stands between a Goma client and its server, why, and the line that mends it.
//!
//! The client itself says little: it calls itself ready whatever the server answers. So this looks at what
//! the client would look at (`environment`), and then asks the server as the client would (`probe`).

pub mod environment;
pub mod probe;

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Remote compiles fail, or the client does not start.
    Wrong,
    /// They may.
    Doubtful,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stays the same from version to version.
    pub id: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is so.
    pub problem: String,
    /// Why that matters.
    pub why: &'static str,
    /// What mends it: a line for a shell, where there is one.
    pub fix: String,
}

/// For people.
pub fn describe(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return "nothing is wrong that can be seen from here".to_owned();
    }
    let words = findings.iter().map(|finding| {
        let severity = match finding.severity {
            Severity::Wrong => "wrong",
            Severity::Doubtful => "doubtful",
        };
        format!("{severity} [{}]: {}\n  why: {}\n  fix: {}\n", finding.id, finding.problem, finding.why, finding.fix)
    });
    words.collect::<Vec<_>>().join("\n")
}
