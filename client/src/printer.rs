//! All that the program writes: data to stdout, messages to stderr with `# ` before each line.

mod named;
pub(crate) mod passthrough;

pub(crate) use named::{Named, Shared};
pub(crate) use passthrough::{Passthrough, stdout_file};

use crate::cli::Global;
use crate::env_vars;
use crate::error::Error;
use crate::progress;
use serde::Serialize;
use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal as _};

/// Version of every `--json` object: raised when a field changes its meaning or goes, not when one comes.
pub(crate) const JSON_VERSION: u32 = 1;

/// How to write, decided once.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Printer {
    quiet: bool,
    json: bool,
    color: bool,
    /// For [`Versioned`].
    command: &'static str,
}

#[derive(Serialize)]
struct Versioned<'a, T> {
    version: u32,
    command: &'a str,
    #[serde(flatten)]
    body: &'a T,
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    kind: &'a str,
    message: String,
    next: Option<&'a str>,
}

impl Printer {
    /// As the flags and the environment want it.
    pub(crate) fn new(global: &Global, command: &'static str, env: impl Fn(&str) -> Option<OsString>) -> Self {
        let plain = env(env_vars::NO_COLOR).is_some_and(|value| !value.is_empty());
        Self { quiet: global.quiet, json: global.json, color: !plain && io::stderr().is_terminal(), command }
    }

    /// Whether somebody sees how it goes on.
    pub(crate) fn shows_progress(self) -> bool {
        !self.quiet && io::stderr().is_terminal()
    }

    /// Whether stdout is for a program.
    pub(crate) const fn is_json(self) -> bool {
        self.json
    }

    /// One line (or several) of data.
    pub(crate) fn line(self, text: impl Display) -> Result<(), Error> {
        self.bytes(format!("{text}\n").as_bytes())
    }

    /// Data as it is.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<(), Error> {
        progress::aside(|| write_at_once(&mut io::stdout().lock(), bytes)).map_err(Error::stdout)
    }

    /// One JSON object with its version, on a line of its own.
    pub(crate) fn json(self, body: &impl Serialize) -> Result<(), Error> {
        let versioned = Versioned { version: JSON_VERSION, command: self.command, body };
        let text = serde_json::to_string(&versioned).map_err(|e| Error::local("write JSON", e.into()))?;
        self.line(text)
    }

    /// Data for whoever reads it: an object with `--json`, else text.
    pub(crate) fn data(self, body: &impl Serialize, text: impl FnOnce() -> String) -> Result<(), Error> {
        if self.json {
            return self.json(body);
        }
        let text = text();
        if text.is_empty() { Ok(()) } else { self.line(text) }
    }

    /// Says what is going on, unless silence was asked for.
    pub(crate) fn message(self, text: impl Display) {
        if !self.quiet {
            self.say(&text.to_string());
        }
    }

    /// Says what must not be missed.
    pub(crate) fn warning(self, text: impl Display) {
        self.say(&text.to_string());
    }

    /// Says what failed and what to do; with `--json` also as an object on stdout.
    pub(crate) fn error(self, error: &Error) {
        if matches!(error, Error::StdoutClosed) {
            return;
        }
        let next = error.next_step().map(|step| format!("; {step}")).unwrap_or_default();
        let text = prefixed(&format!("error: {error}{next}"));
        let text = if self.color { text.replacen("error:", "\x1b[1;31merror:\x1b[0m", 1) } else { text };
        to_stderr(&text);
        if self.json {
            let fields = ErrorFields { kind: error.kind(), message: error.to_string(), next: error.next_step() };
            let _ = self.json(&ErrorBody { error: fields });
        }
    }

    fn say(self, text: &str) {
        to_stderr(&prefixed(text));
    }
}

fn to_stderr(text: &str) {
    // Nobody is left to tell if stderr is gone.
    let _ = progress::aside(|| write_at_once(&mut io::stderr().lock(), text.as_bytes()));
}

/// Each line with `# ` before it, without the control characters that others' words may hold.
fn prefixed(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 3);
    for line in text.lines() {
        out.push_str("# ");
        out.extend(line.chars().filter(|c| !c.is_control() || *c == '\t'));
        out.push('\n');
    }
    out
}

fn write_at_once(out: &mut impl io::Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_a_message_is_marked() {
        assert_eq!(prefixed("one\ntwo\r"), "# one\n# two\n");
        assert_eq!(prefixed("a\x1b[31m\tb"), "# a[31m\tb\n");
        assert_eq!(prefixed(""), "");
    }

    #[test]
    fn json_carries_its_version_first() {
        let body = ErrorBody { error: ErrorFields { kind: "usage", message: "no".into(), next: None } };
        let text = serde_json::to_string(&Versioned { version: JSON_VERSION, command: "ls", body: &body }).unwrap();
        assert_eq!(text, r#"{"version":1,"command":"ls","error":{"kind":"usage","message":"no","next":null}}"#);
    }
}
