//! Going on after the farm was away: the one retry loop.
//!
//! Every call that goes through it is idempotent by an id made here, so that "did it arrive?"
//! never needs an answer.

use crate::error::Error;
use crate::printer::Printer;
use motefarm_net::backoff::Backoff;
use std::error::Error as _;
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

/// How long a short call goes on without any contact.
pub(crate) const SHORT_PATIENCE: Duration = Duration::from_secs(60);
/// How long a watched command or a wait in the queue goes on without any contact: the time a
/// coordinator's host takes to reboot, twice.
pub(crate) const LONG_PATIENCE: Duration = Duration::from_secs(600);

/// One request's patience.
pub(crate) struct Retry {
    doing: String,
    patience: Duration,
    backoff: Backoff,
    failing_since: Option<Instant>,
    printer: Printer,
}

impl Retry {
    /// `doing` reads after "could not".
    pub(crate) fn new(doing: impl Into<String>, patience: Duration, printer: Printer) -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        Self { doing: doing.into(), patience, backoff, failing_since: None, printer }
    }

    /// What is being done.
    pub(crate) fn doing(&self) -> &str {
        &self.doing
    }

    /// After a failure: returns when the next attempt is due, or why there is none. The user is
    /// told once. Cancelling it is safe.
    pub(crate) async fn wait(&mut self, failure: &Status) -> Result<(), Error> {
        let wait = self.next_wait(failure)?;
        tokio::time::sleep(wait).await;
        Ok(())
    }

    /// How long until the next attempt.
    pub(crate) fn next_wait(&mut self, failure: &Status) -> Result<Duration, Error> {
        if !is_transient(failure) {
            return Err(Error::refused(&self.doing, failure));
        }
        let now = Instant::now();
        let since = match self.failing_since {
            Some(since) => since,
            None => {
                self.tell(failure);
                self.failing_since = Some(now);
                now
            }
        };
        let left = self.patience.saturating_sub(now - since);
        if left.is_zero() {
            let (doing, cause) = (self.doing.clone(), words(failure));
            return Err(Error::Lost { doing, cause, budget: self.patience });
        }
        Ok(self.backoff.next_wait().min(left))
    }

    /// The farm answered: patience is whole again.
    pub(crate) fn contact(&mut self) {
        if self.failing_since.take().is_some() {
            self.backoff.reset();
            self.printer.message("reconnected");
        }
    }

    fn tell(&self, failure: &Status) {
        if is_from_farm(failure) {
            self.printer.message(format_args!("{}; trying again...", words(failure)));
        } else {
            self.printer.message("lost the farm, trying again...");
        }
    }
}

/// Whether the same request may well succeed a little later.
pub(crate) fn is_transient(failure: &Status) -> bool {
    match failure.code() {
        Code::Unavailable => true,
        // What the transport makes up when a connection breaks has its cause attached; what the
        // farm answers never has. Unknown: a stream that ended without a status.
        Code::Unknown | Code::Cancelled => true,
        Code::Internal | Code::ResourceExhausted | Code::PermissionDenied | Code::DeadlineExceeded => {
            failure.source().is_some()
        }
        _ => false,
    }
}

/// Whether the farm itself said so, rather than our transport.
fn is_from_farm(failure: &Status) -> bool {
    failure.code() == Code::Unavailable && failure.source().is_none() && !failure.message().is_empty()
}

/// The innermost cause, which is the one that tells something.
pub(crate) fn words(failure: &Status) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = failure.source();
    let mut words = failure.message().to_owned();
    while let Some(error) = cause {
        words = error.to_string();
        cause = error.source();
    }
    if words.is_empty() { failure.code().description().to_owned() } else { words }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn a_broken_connection_is_worth_another_try_and_a_refusal_is_not() {
        let cut = Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset)));
        assert!(is_transient(&cut));
        assert!(is_transient(&Status::unavailable("the buildlet is out of contact")));
        for code in
            [Code::NotFound, Code::InvalidArgument, Code::ResourceExhausted, Code::Internal, Code::Unauthenticated]
        {
            assert!(!is_transient(&Status::new(code, "no")), "{code:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_contact_restores_it() {
        let mut retry = Retry::new("x", Duration::from_secs(5), Printer::default());
        let away = Status::unavailable("away");
        let begin = Instant::now();
        let error = loop {
            if let Err(error) = retry.wait(&away).await {
                break error;
            }
        };
        assert!(matches!(error, Error::Lost { .. }));
        assert!(begin.elapsed() >= Duration::from_secs(5) && begin.elapsed() < Duration::from_secs(6));
        retry.contact();
        assert!(retry.wait(&away).await.is_ok());
    }
}
