//! The ssh gateway: `ssh INSTANCE@farm`, by certificates of the farm.
//!
//! An edge like `grpc/`: it parses the ssh protocol (by `russh`), calls the farm's use cases, and says
//! what came of it. What runs, runs in the instance; forwards are made there too. Only certificates
//! sign anybody in.
//!
//! **Absent on purpose:** passwords, plain keys, agent and X11 forwarding, connections from here.

mod authority;
mod backlog;
mod certificate;
mod channel;
mod client;
mod connection;
mod forwards;
mod gateway;
mod half_open;
mod inbound;
mod relay;
mod signals;
mod transport;
mod watch;

pub use authority::{AuthorityError, SshAuthority, rotate};
pub use certificate::{Grant, HOST_ALIAS};
pub use gateway::{Gateway, listen};
