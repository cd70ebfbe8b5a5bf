//! Whose the other end of a loopback connection is.
//!
//! Any user of a machine can connect to its loopback ports, so "from loopback" proves nothing. The
//! kernel's socket table tells which user a socket belongs to. Nor is that enough: what runs in an
//! instance shares the machine's network, and to the kernel its user is ours. But its process ids are
//! not: so some process that we see beside us must hold the socket.

use std::ffi::OsStr;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Processes that held a socket of ours lately, as directories of /proc: who connects often is found without
/// looking into every process of the machine. Nothing is believed of them.
static LATELY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// Of them.
const MOST_LATELY: usize = 8;

/// Whether both ends are on loopback.
pub fn is_loopback(peer: SocketAddr, local: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback() && local.ip().to_canonical().is_loopback()
}

/// Whether both ends are on loopback, the peer's socket belongs to our own user, and a process of
/// our own namespace of processes holds it: not one in an instance's sandbox.
pub fn is_own_user(peer: SocketAddr, local: SocketAddr) -> bool {
    if !is_loopback(peer, local) {
        return false;
    }
    let own = rustix::process::getuid().as_raw();
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .filter_map(|table| owner(&table, peer, local))
        .any(|(uid, inode)| uid == own && is_held_beside_us(inode))
}

/// Whether a process that has the same process ids as we have a socket open. What can not be looked
/// into does not count, nor does a socket that nobody has open just now (it may be under way to
/// anybody): the answer must not depend on who hides best.
fn is_held_beside_us(inode: u64) -> bool {
    let socket = PathBuf::from(format!("socket:[{inode}]"));
    let Ok(beside) = fs::read_link("/proc/self/ns/pid") else { return false };
    let holds = |process: &Path| {
        fs::read_link(process.join("ns/pid")).is_ok_and(|namespace| namespace == beside)
            && fs::read_dir(process.join("fd"))
                .is_ok_and(|files| files.flatten().any(|file| fs::read_link(file.path()).is_ok_and(|to| to == socket)))
    };
    let lately = || LATELY.lock().unwrap_or_else(PoisonError::into_inner);
    let known = lately().clone();
    if known.iter().any(|process| holds(process)) {
        return true;
    }
    let is_process = |name: &OsStr| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut others = processes.filter(|entry| is_process(&entry.file_name())).map(|entry| entry.path());
    let Some(holder) = others.find(|process| holds(process)) else { return false };
    let mut known = lately();
    known.retain(|process| *process != holder);
    known.insert(0, holder);
    known.truncate(MOST_LATELY);
    true
}

/// Finds the peer's side of the connection in a socket table (`Documentation/networking/proc_net_tcp`):
/// columns are slot, local address, remote address, state, queues, timer, retransmits, uid, timeout, inode.
fn owner(table: &str, peer: SocketAddr, local: SocketAddr) -> Option<(u32, u64)> {
    const ESTABLISHED: &str = "01";
    let (peer, local) = ([v4_or_v6(peer), mapped(peer)], [v4_or_v6(local), mapped(local)]);
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_whitespace().take(10).collect();
        let [_, from, to, state, _, _, _, uid, _, inode] = columns[..] else { return None };
        let ours = peer.iter().any(|p| p == from) && local.iter().any(|l| l == to) && state == ESTABLISHED;
        ours.then(|| Some((uid.parse().ok()?, inode.parse().ok()?))).flatten()
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

    /// What was found out once is found out again each time.
    #[test]
    fn who_held_one_socket_is_asked_first_and_believed_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        for _ in 0..2 * MOST_LATELY {
            let stream = TcpStream::connect(local).unwrap();
            assert!(is_own_user(stream.local_addr().unwrap(), local));
        }
        let known = LATELY.lock().unwrap().clone();
        assert!(known.contains(&PathBuf::from(format!("/proc/{}", std::process::id()))), "{known:?}");
        assert!(known.len() <= MOST_LATELY);
        let gone = TcpStream::connect(local).unwrap().local_addr().unwrap();
        assert!(!is_own_user(gone, local), "a socket that nobody holds is nobody's");
    }

    #[test]
    fn the_table_tells_whose_a_socket_is() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
             0: 0100007F:C001 0100007F:1FB7 01 00000000:00000000 00:00000000 00000000  1007        0 77 1\n";
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(owner(table, at(0xC001), at(0x1FB7)), Some((1007, 77)));
        assert_eq!(owner(table, at(0xC002), at(0x1FB7)), None);
        assert_eq!(owner("", at(1), at(2)), None);
    }

    #[test]
    fn a_remote_peer_is_nobody() {
        assert!(!is_own_user(SocketAddr::from(([10, 0, 0, 1], 5)), SocketAddr::from(([127, 0, 0, 1], 6))));
    }
}
