//! The program `mote` against a farm that lives in the test: real processes, real TLS, and a peer
//! that breaks connections when it is told to.

#![cfg_attr(unix, expect(clippy::unwrap_used, reason = "also the helpers of tests are tests"))]

#[cfg(unix)]
mod content;
#[cfg(unix)]
mod direct;
#[cfg(unix)]
mod exec;
#[cfg(unix)]
mod fake_farm;
#[cfg(unix)]
mod files;
#[cfg(unix)]
mod groups;
#[cfg(unix)]
mod lease;
#[cfg(unix)]
mod login;
#[cfg(unix)]
mod loops;
#[cfg(unix)]
mod mote;
#[cfg(unix)]
mod page;
#[cfg(unix)]
mod schema;
#[cfg(unix)]
mod terminal;
#[cfg(unix)]
mod transfer;
