//! What every program of the farm needs to meet another: the farm's private TLS, Unix sockets, profiles,
//! dialling, accepting, serving one connection, deadlines, secrets.
//!
//! **Absent on purpose:** leases, commands, files; who may do what (the coordinator decides that).

#![forbid(unsafe_code)]

pub mod accept;
pub mod backoff;
pub mod deadline;
pub mod dial;
pub mod first_byte;
#[cfg(unix)]
pub mod own_user;
pub mod private_file;
pub mod profile;
pub mod serve;
pub mod tls;
pub mod token;
#[cfg(unix)]
pub mod unix;
pub mod window;
