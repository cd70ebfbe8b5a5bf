//! What the user's terminal and system ask of us while we wait.

use std::io;

/// A request by signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Ctrl-C.
    Interrupt,
    /// Hang-up or termination: go, and leave what runs running.
    Leave,
}

#[cfg(unix)]
mod platform {
    use super::Asked;
    use std::io;
    use tokio::signal::unix::{Signal, SignalKind, signal};

    /// Our listeners. A signal that was ignored when we started (`nohup`, a job in the background
    /// of a script) stays ignored.
    pub(crate) struct Signals {
        interrupt: Option<Signal>,
        hangup: Option<Signal>,
        terminate: Option<Signal>,
    }

    impl Signals {
        pub(crate) fn listen() -> io::Result<Self> {
            let ignored = ignored();
            let open = |kind: SignalKind| match ignored & (1 << (kind.as_raw_value() - 1)) {
                0 => signal(kind).map(Some),
                _ => Ok(None),
            };
            Ok(Self {
                interrupt: open(SignalKind::interrupt())?,
                hangup: open(SignalKind::hangup())?,
                terminate: open(SignalKind::terminate())?,
            })
        }

        /// The next request. Cancelling it loses nothing.
        pub(crate) async fn next(&mut self) -> Asked {
            tokio::select! {
                () = received(&mut self.interrupt) => Asked::Interrupt,
                () = received(&mut self.hangup) => Asked::Leave,
                () = received(&mut self.terminate) => Asked::Leave,
            }
        }
    }

    async fn received(signal: &mut Option<Signal>) {
        match signal {
            Some(signal) => drop(signal.recv().await),
            None => std::future::pending().await,
        }
    }

    /// The mask of ignored signals, bit N-1 for signal N; none where the system does not tell.
    fn ignored() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        parse_ignored(&status)
    }

    fn parse_ignored(status: &str) -> u64 {
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        mask.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_ignored_mask_is_found() {
            assert_eq!(parse_ignored("Name:\tmote\nSigBlk:\t0\nSigIgn:\t0000000000001001\n"), 0x1001);
            assert_eq!(parse_ignored(""), 0);
        }
    }
}

#[cfg(not(unix))]
mod platform {
    use super::Asked;
    use std::io;

    /// Our listener.
    pub(crate) struct Signals;

    impl Signals {
        pub(crate) fn listen() -> io::Result<Self> {
            Ok(Self)
        }

        /// The next request.
        pub(crate) async fn next(&mut self) -> Asked {
            match tokio::signal::ctrl_c().await {
                Ok(()) => Asked::Interrupt,
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// Listeners for the signals we act on.
pub(crate) struct Signals(platform::Signals);

impl Signals {
    /// Starts listening; from here on those signals no longer end the process.
    pub(crate) fn listen() -> Result<Self, crate::error::Error> {
        let failed = |e: io::Error| crate::error::Error::local("listen for signals", e);
        platform::Signals::listen().map(Self).map_err(failed)
    }

    /// The next request. Cancelling it loses nothing.
    pub(crate) async fn next(&mut self) -> Asked {
        self.0.next().await
    }
}
