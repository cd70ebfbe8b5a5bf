//! What can go wrong, whose fault it was, and what to do next.

use crate::exit_code::ExitStatus;
use motefarm_net::profile::ProfileError;
use motefarm_net::tls::PeerProblem;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::{Code, Status};

/// Any failure of the program itself. A remote command's failure is not one: it is an outcome.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The arguments make no sense together.
    #[error("{problem}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What to write instead.
        next: String,
    },
    /// Profile, CA or token is missing or broken.
    #[error("{problem}")]
    Settings {
        /// What is wrong, naming the file.
        problem: String,
        /// What to do.
        next: String,
    },
    /// First contact failed.
    #[error("can not reach the farm at {address}: {cause}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why, in words.
        cause: String,
        /// Nobody listens there.
        refused: bool,
    },
    /// The farm's certificate was not believed: nothing was said to it.
    #[error("the farm at {address} is not believed: {}", certificate_words(.problem))]
    Certificate {
        /// Where.
        address: String,
        /// Why not.
        problem: PeerProblem,
    },
    /// First contact with a listening buildlet failed.
    #[error("can not reach the buildlet at {address}: {cause}")]
    NoBuildlet {
        /// Where.
        address: String,
        /// Why, in words.
        cause: String,
        /// Nobody listens there.
        refused: bool,
    },
    /// Contact was lost and did not come back within the budget.
    #[error("could not {doing}: no contact for {} ({cause})", crate::human::duration(*.budget))]
    Lost {
        /// What was being done.
        doing: String,
        /// The last failure.
        cause: String,
        /// How long it was tried.
        budget: Duration,
    },
    /// The farm said no.
    #[error("could not {doing}: {message}")]
    Refused {
        /// What was asked.
        doing: String,
        /// The farm's kind of no.
        code: Code,
        /// The farm's words.
        message: String,
    },
    /// The farm's answer can not be right.
    #[error("could not {doing}: the farm's answer makes no sense: {problem}")]
    Protocol {
        /// What was asked.
        doing: String,
        /// What is wrong with the answer.
        problem: String,
    },
    /// Something on this machine.
    #[error("could not {doing}: {}", io_words(.cause))]
    Local {
        /// What was being done, with the path.
        doing: String,
        /// Why not.
        #[source]
        cause: io::Error,
        /// What to do, if there is something to say.
        next: Option<String>,
    },
    /// Several things were asked, and some failed; each was told when it did.
    #[error("{failed} of {asked} failed")]
    Some {
        /// How many failed.
        failed: usize,
        /// Of how many.
        asked: usize,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// Nobody reads stdout any more.
    #[error("stdout was closed")]
    StdoutClosed,
}

impl Error {
    /// Something on this machine, not about one file.
    pub(crate) fn local(doing: &str, cause: io::Error) -> Self {
        Self::Local { doing: doing.to_owned(), cause, next: None }
    }

    /// A file or folder: `verb` is what was to be done with it.
    pub(crate) fn file(verb: &str, path: &Path, cause: io::Error) -> Self {
        Self::Local { doing: format!("{verb} {}", path.display()), cause, next: None }
    }

    /// Writing to stdout.
    pub(crate) fn stdout(cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::BrokenPipe => Self::StdoutClosed,
            _ => Self::local("write to stdout", cause),
        }
    }

    /// A bad argument.
    pub(crate) fn usage(problem: impl Into<String>, next: impl Into<String>) -> Self {
        Self::Usage { problem: problem.into(), next: next.into() }
    }

    /// The farm's refusal.
    pub(crate) fn refused(doing: &str, status: &Status) -> Self {
        let message = match status.message() {
            "" => status.code().description().to_owned(),
            words => words.to_owned(),
        };
        Self::Refused { doing: doing.to_owned(), code: status.code(), message }
    }

    /// An answer that can not be right.
    pub(crate) fn protocol(doing: &str, problem: impl ToString) -> Self {
        Self::Protocol { doing: doing.to_owned(), problem: problem.to_string() }
    }

    /// No profile where one should be.
    pub(crate) fn no_profile(path: PathBuf, farm: &str) -> Self {
        Self::Settings {
            problem: format!("there is no profile of the farm {farm:?} at {}", path.display()),
            next: "start a farm on this machine with `mote-coordinator serve`, which writes it, or sign in to one: \
                 `mote login --server HOST:PORT`"
                .to_owned(),
        }
    }

    /// Whether the farm knows no such thing (or will not say).
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { code: Code::NotFound, .. })
    }

    /// The documented exit code.
    pub(crate) const fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Usage { .. } => ExitStatus::Usage,
            Self::Settings { .. } | Self::Refused { code: Code::Unauthenticated, .. } => ExitStatus::Settings,
            Self::Unreachable { .. } | Self::Certificate { .. } | Self::NoBuildlet { .. } | Self::Lost { .. } => {
                ExitStatus::Unreachable
            }
            Self::Refused { .. } | Self::Protocol { .. } | Self::Some { .. } => ExitStatus::Failed,
            Self::Local { .. } => ExitStatus::LocalFile,
            Self::Interrupted => ExitStatus::Interrupted,
            Self::StdoutClosed => ExitStatus::StdoutClosed,
        }
    }

    /// One word for programs.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "usage",
            Self::Settings { .. } => "settings",
            Self::Certificate { .. } => "certificate",
            Self::Unreachable { .. } | Self::NoBuildlet { .. } => "unreachable",
            Self::Lost { .. } => "lost",
            Self::Refused { code, .. } => code_word(*code),
            Self::Protocol { .. } => "protocol",
            Self::Local { .. } => "local",
            Self::Some { .. } => "some_failed",
            Self::Interrupted => "interrupted",
            Self::StdoutClosed => "stdout_closed",
        }
    }

    /// What to do about it, if we know.
    pub(crate) fn next_step(&self) -> Option<&str> {
        match self {
            Self::Usage { next, .. } | Self::Settings { next, .. } => Some(next),
            Self::Certificate { problem, .. } => Some(match problem {
                PeerProblem::OtherName(_) => {
                    "reach it by a name its certificate is for, or have its operator add this one (`names`, or [tls])"
                }
                PeerProblem::Expired => {
                    "its operator renews the certificate ([tls] cert); is this machine's clock right?"
                }
                PeerProblem::NotYet => "is this machine's clock right?",
                PeerProblem::UnknownIssuer => {
                    "if it is the farm you mean, its authority has changed: ask its admin for the fingerprint, then \
                     `mote login --server HOST:PORT --ca-fingerprint SHA256`"
                }
                PeerProblem::Other(_) => "ask its admin for the fingerprint, then `mote login --ca-fingerprint SHA256`",
            }),
            Self::Unreachable { refused: true, .. } => Some("is mote-coordinator running?"),
            Self::Unreachable { .. } => {
                Some("check the address (--server, MOTE_SERVER or the profile) and the network")
            }
            Self::NoBuildlet { refused: true, .. } => Some("is `mote-buildlet listen` running there, on that port?"),
            Self::NoBuildlet { .. } => Some("check the address behind the @ and the network"),
            Self::Lost { .. } => Some("every request is safe to repeat: run the same command again"),
            Self::Refused { code, .. } => match code {
                Code::Unauthenticated => Some(
                    "the token in the profile or MOTE_TOKEN is not valid here: `mote login` again; an admin makes one with `mote admin token create --user USER`",
                ),
                Code::PermissionDenied => Some("this needs an admin's token"),
                Code::NotFound => Some("`mote list` shows your instances, `mote create` the host types"),
                Code::OutOfRange => {
                    Some("output that was collected elsewhere may be released: it is in that reader's output file")
                }
                Code::Unimplemented => Some(
                    "the farm is older than this mote, or the other way round: compare `mote --version` with `mote-coordinator --version`",
                ),
                _ => None,
            },
            Self::Local { next, .. } => next.as_deref(),
            Self::Protocol { .. } => Some("compare `mote --version` with `mote-coordinator --version`"),
            Self::Some { .. } | Self::Interrupted | Self::StdoutClosed => None,
        }
    }
}

/// What is wrong with a certificate, after "is not believed: ".
fn certificate_words(problem: &PeerProblem) -> String {
    match problem {
        PeerProblem::OtherName(names) if names.is_empty() => "its certificate is for another name".to_owned(),
        PeerProblem::OtherName(names) => format!("its certificate is for {} and not for this name", names.join(", ")),
        PeerProblem::Expired => "its certificate has expired".to_owned(),
        PeerProblem::NotYet => "its certificate is not valid yet".to_owned(),
        PeerProblem::UnknownIssuer => "its certificate is not from an authority that is trusted".to_owned(),
        PeerProblem::Other(words) => words.clone(),
    }
}

/// An IO error in lower case and without `(os error N)`.
pub(crate) fn io_words(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" (os error ").map_or(text.as_str(), |(words, _)| words);
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // Not an acronym.
        (Some(first), Some(second)) if second.is_lowercase() => format!("{}{}", first.to_lowercase(), chars.as_str()),
        _ => text.to_owned(),
    }
}

impl From<ProfileError> for Error {
    fn from(error: ProfileError) -> Self {
        let (problem, next) = match &error {
            ProfileError::Missing(_) => (error.to_string(), "check the path given with --profile".to_owned()),
            ProfileError::Unreadable { cause, .. } => (
                format!("{error}: {}", io_words(cause)),
                "it must be readable by you (mode 0600, your file)".to_owned(),
            ),
            ProfileError::Damaged { path, .. } => {
                let next = format!(
                    "sign in again (`mote login --server HOST:PORT`) or, on the farm's own machine, restore it from \
                     the coordinator's data folder: cp ~/.local/share/motefarm/profile.toml {}",
                    path.display()
                );
                (error.to_string(), next)
            }
        };
        Self::Settings { problem, next }
    }
}

const fn code_word(code: Code) -> &'static str {
    match code {
        Code::Ok => "ok",
        Code::Cancelled => "cancelled",
        Code::Unknown => "unknown",
        Code::InvalidArgument => "invalid_argument",
        Code::DeadlineExceeded => "deadline_exceeded",
        Code::NotFound => "not_found",
        Code::AlreadyExists => "already_exists",
        Code::PermissionDenied => "permission_denied",
        Code::ResourceExhausted => "resource_exhausted",
        Code::FailedPrecondition => "failed_precondition",
        Code::Aborted => "aborted",
        Code::OutOfRange => "out_of_range",
        Code::Unimplemented => "unimplemented",
        Code::Internal => "internal",
        Code::Unavailable => "unavailable",
        Code::DataLoss => "data_loss",
        Code::Unauthenticated => "unauthenticated",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_reads_as_one_sentence() {
        let refused = io::Error::from_raw_os_error(111);
        let words = io_words(&refused);
        assert!(!words.contains("os error"), "{words}");
        assert!(words.starts_with(char::is_lowercase), "{words}");
        assert_eq!(io_words(&io::Error::other("TLS went wrong")), "TLS went wrong");
    }

    #[test]
    fn whose_fault_it_was_decides_the_code() {
        let status = |code| Error::refused("x", &Status::new(code, "no"));
        assert_eq!(status(Code::NotFound).exit_status(), ExitStatus::Failed);
        assert_eq!(status(Code::Unauthenticated).exit_status(), ExitStatus::Settings);
        assert_eq!(Error::stdout(io::ErrorKind::BrokenPipe.into()).exit_status(), ExitStatus::StdoutClosed);
        assert!(status(Code::NotFound).is_not_found());
    }
}
