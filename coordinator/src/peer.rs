//! Who is at the other end of a connection, before anything is said.

pub use motefarm_net::own_user::{is_loopback, is_own_user};

use std::net::SocketAddr;

/// What is known of a connection's peer before it says anything.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Our end of the connection.
    pub local: SocketAddr,
    /// Their end.
    pub remote: SocketAddr,
    /// In the clear, over loopback, from a socket that a process beside us holds, of the user we run as.
    pub own_user_in_clear: bool,
    /// It asked for us by `CONNECT`, as if we were a proxy.
    pub by_connect: bool,
}

impl Peer {
    /// One of whom nothing is known but the two ends.
    pub fn unknown(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { local, remote, own_user_in_clear: false, by_connect: false }
    }
}
