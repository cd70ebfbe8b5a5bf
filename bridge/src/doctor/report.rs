//! What was found, and how it is told. Pure.

use super::catalogue::{Kind, Severity};
use crate::client_env::Shell;
use serde::Serialize;
use std::collections::HashMap;

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

impl Finding {
    /// Of this kind.
    pub fn new(kind: Kind, problem: impl Into<String>, fix: impl Into<String>) -> Self {
        let (id, severity, why) = (kind.id(), kind.severity(), kind.why());
        Self { id, severity, problem: problem.into(), why, fix: fix.into() }
    }

    /// As bad as this.
    pub fn but(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub struct Report {
    /// What is in order, a line each.
    pub fine: Vec<String>,
    /// What is not.
    pub findings: Vec<Finding>,
    /// Whether it came to a compile.
    pub is_tried: bool,
}

impl Report {
    /// Something is in order.
    pub fn fine(&mut self, what: impl Into<String>) {
        self.fine.push(what.into());
    }

    /// Something is not.
    pub fn found(&mut self, kind: Kind, problem: impl Into<String>, fix: impl Into<String>) {
        self.findings.push(Finding::new(kind, problem, fix));
    }

    /// What another look saw.
    pub fn add(&mut self, other: Self) {
        self.fine.extend(other.fine);
        self.findings.extend(other.findings);
    }

    /// Whether something is wrong.
    pub fn is_bad(&self) -> bool {
        self.count(Severity::Wrong) > 0
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }

    /// Most severe first, in this shell's words. What was seen to be so goes before what the same made likely.
    pub fn arrange(&mut self, shell: Shell) {
        self.findings.sort_by_key(|finding| finding.severity);
        let worst: HashMap<&str, Severity> =
            self.findings.iter().rev().map(|found| (found.id, found.severity)).collect();
        self.findings.retain(|finding| worst.get(finding.id) == Some(&finding.severity));
        for finding in &mut self.findings {
            finding.fix = in_words_of(shell, &finding.fix);
        }
    }

    /// For people.
    pub fn describe(&self) -> String {
        let mut text: String = self.fine.iter().map(|line| format!("ok  {line}\n")).collect();
        for finding in &self.findings {
            let (severity, id) = (finding.severity.word(), finding.id);
            text += &format!(
                "\n{severity} [{id}]: {}\n  why: {}\n  fix: {}\n",
                finding.problem,
                finding.why,
                finding.fix.replace('\n', "\n       ")
            );
        }
        let counts =
            [Severity::Wrong, Severity::Doubtful, Severity::Harmless].map(|severity| match self.count(severity) {
                0 => String::new(),
                count => format!("{count} {}", severity.word()),
            });
        let counts: Vec<String> = counts.into_iter().filter(|count| !count.is_empty()).collect();
        let untried = if self.is_tried { "" } else { "; it did not come to a compile" };
        let summary = match (self.is_bad(), counts.is_empty()) {
            (_, true) => "nothing is wrong".to_owned(),
            (false, false) => format!("nothing is wrong; {}", counts.join(", ")),
            (true, _) => format!("{}: mend the first, then look again", counts.join(", ")),
        };
        format!("{}\n{summary}{untried}\n", text.trim_start())
    }
}

/// Fixes are written for Bourne shells; what another spells otherwise is changed.
fn in_words_of(shell: Shell, fix: &str) -> String {
    let fish = |part: &str| match part.split_once(' ') {
        Some(("unset", name)) => format!("set --erase {name}"),
        _ if part == EVAL_ENV => "mote-bridge env --shell fish | source".to_owned(),
        _ => part.to_owned(),
    };
    let powershell = |part: &str| {
        if let Some(name) = part.strip_prefix("unset ") {
            return format!("Remove-Item Env:{name}");
        }
        match part.strip_prefix("export ").and_then(|pair| pair.split_once('=')) {
            Some((name, value)) if !value.contains(['=', '"']) => format!("$env:{name} = '{value}'"),
            _ if part == EVAL_ENV => "mote-bridge env --shell powershell | Out-String | Invoke-Expression".to_owned(),
            _ => part.to_owned(),
        }
    };
    let (line, comment) = fix.split_once("   #").map_or((fix, None), |(line, comment)| (line, Some(comment)));
    let parts = line.split("; ").map(|part| match shell {
        Shell::Bash => part.to_owned(),
        Shell::Fish => fish(part),
        Shell::Powershell => powershell(part),
    });
    let line = parts.collect::<Vec<_>>().join("; ");
    comment.map_or(line.clone(), |comment| format!("{line}   #{comment}"))
}

/// What sets everything.
pub const EVAL_ENV: &str = "eval \"$(mote-bridge env)\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fine_comes_first_then_the_worst() {
        let mut report = Report::default();
        report.found(Kind::SlowStart, "no token", "unset X");
        report.found(Kind::NoServer, "no server", EVAL_ENV);
        report.fine("something is");
        report.found(Kind::HttpProxy, "may be", "x");
        report.findings.push(Finding::new(Kind::HttpProxy, "is", "x").but(Severity::Wrong));
        report.arrange(Shell::Bash);
        let problems: Vec<&str> = report.findings.iter().map(|finding| finding.problem.as_str()).collect();
        assert_eq!(problems, ["no server", "is", "no token"]);
        report.findings.remove(1);
        let text = report.describe();
        assert!(text.starts_with("ok  something is\n\nwrong [no-server]: no server\n  why: "), "{text}");
        let end = "\n\n1 wrong, 1 harmless: mend the first, then look again; it did not come to a compile\n";
        assert!(text.ends_with(end), "{text}");
        assert!(report.is_bad());
        report.findings.remove(0);
        report.is_tried = true;
        assert!(report.describe().ends_with("\nnothing is wrong; 1 harmless\n"));
    }

    #[test]
    fn lines_are_told_in_the_readers_shell() {
        for (fix, fish, powershell) in [
            ("unset A_B", "set --erase A_B", "Remove-Item Env:A_B"),
            (
                "export A=b; goma_ctl.py ensure_stop",
                "export A=b; goma_ctl.py ensure_stop",
                "$env:A = 'b'; goma_ctl.py ensure_stop",
            ),
            ("unset A   # why; so", "set --erase A   # why; so", "Remove-Item Env:A   # why; so"),
            (
                EVAL_ENV,
                "mote-bridge env --shell fish | source",
                "mote-bridge env --shell powershell | Out-String | Invoke-Expression",
            ),
        ] {
            assert_eq!(in_words_of(Shell::Bash, fix), fix);
            assert_eq!(in_words_of(Shell::Fish, fix), fish);
            assert_eq!(in_words_of(Shell::Powershell, fix), powershell);
        }
    }
}
