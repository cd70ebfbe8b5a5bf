//! Who is at the other end of a loopback connection.
//!
//! Any user of a machine can connect to its loopback ports, so "from loopback" proves nothing. The
//! kernel's socket table tells which user a socket belongs to.

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// What is known of a connection's peer before it says anything.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// In the clear, over loopback, from a socket of the user this process runs as.
    pub own_user_in_clear: bool,
}

/// Whether both ends are on loopback and the peer's socket belongs to our own user.
pub fn is_own_user(peer: SocketAddr, local: SocketAddr) -> bool {
    if !peer.ip().to_canonical().is_loopback() || !local.ip().to_canonical().is_loopback() {
        return false;
    }
    let own = rustix::process::getuid().as_raw();
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .any(|table| owner(&table, peer, local) == Some(own))
}

/// Finds the peer's side of the connection in a socket table (`Documentation/networking/proc_net_tcp`):
/// columns are slot, local address, remote address, state, queues, timer, retransmits, uid.
fn owner(table: &str, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    const ESTABLISHED: &str = "01";
    let (peer, local) = ([v4_or_v6(peer), mapped(peer)], [v4_or_v6(local), mapped(local)]);
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().take(8).collect();
        let [_, from, to, state, _, _, _, uid] = columns[..] else { return None };
        let ours = peer.iter().any(|p| p == from) && local.iter().any(|l| l == to) && state == ESTABLISHED;
        ours.then(|| uid.parse().ok()).flatten()
    })
}

/// An address as the table writes it: each 32-bit word in the machine's byte order.
fn v4_or_v6(address: SocketAddr) -> String {
    let words: Vec<u8> = match address.ip() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    hex(&words, address.port())
}

fn mapped(address: SocketAddr) -> String {
    match address.ip() {
        IpAddr::V4(v4) => hex(&v4.to_ipv6_mapped().octets(), address.port()),
        IpAddr::V6(v6) => hex(&v6.octets(), address.port()),
    }
}

fn hex(octets: &[u8], port: u16) -> String {
    let words: String = octets
        .chunks_exact(4)
        .map(|word| format!("{:08X}", u32::from_ne_bytes([word[0], word[1], word[2], word[3]])))
        .collect();
    format!("{words}:{port:04X}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn our_own_connection_is_ours() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let local = listener.local_addr().unwrap();
            let stream = TcpStream::connect(local).unwrap();
            assert!(is_own_user(stream.local_addr().unwrap(), local), "{address}");
            let mut other = stream.local_addr().unwrap();
            other.set_port(1);
            assert!(!is_own_user(other, local));
        }
    }

    #[test]
    fn the_table_tells_whose_a_socket_is() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:C001 0100007F:1FB7 01 00000000:00000000 00:00000000 00000000  1007        0 1 1\n";
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(owner(table, at(0xC001), at(0x1FB7)), Some(1007));
        assert_eq!(owner(table, at(0xC002), at(0x1FB7)), None);
        assert_eq!(owner("", at(1), at(2)), None);
    }

    #[test]
    fn a_remote_peer_is_nobody() {
        assert!(!is_own_user(SocketAddr::from(([10, 0, 0, 1], 5)), SocketAddr::from(([127, 0, 0, 1], 6))));
    }
}
