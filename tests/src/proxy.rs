//! A TCP proxy that can be cut, for where there is no network to cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
struct State {
    /// While set nothing passes, and nobody is told: a cable pulled out.
    cut: AtomicBool,
    over: AtomicBool,
    /// Bytes passed on, both ways.
    passed: AtomicU64,
    open: Mutex<Vec<TcpStream>>,
}

/// See the module.
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// Passes what connects to it on to `target`.
    pub fn start(target: &str) -> Self {
        let listener = TcpListener::bind(crate::farm::free_port()).expect("a port for the proxy");
        let address = listener.local_addr().expect("a bound address");
        let state = Arc::new(State::default());
        let (target, shared) = (target.to_owned(), state.clone());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                if shared.over.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(near), state, target) = (near, shared.clone(), target.clone()) else { continue };
                std::thread::spawn(move || carry(&near, &target, &state));
            }
        });
        Self { address, state }
    }

    /// Where it listens.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Bytes passed on so far.
    pub fn passed(&self) -> u64 {
        self.state.passed.load(Ordering::SeqCst)
    }

    /// Nothing passes any more; connections stay open and silent.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
    }

    /// New connections pass again; those of before the cut are dead, as after a reboot of a router.
    pub fn mend(&self) {
        self.drop_connections();
        self.state.cut.store(false, Ordering::SeqCst);
    }

    /// Closes every connection.
    pub fn drop_connections(&self) {
        let mut open = self.state.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for stream in open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::SeqCst);
        self.drop_connections();
        let _ = TcpStream::connect(self.address);
    }
}

fn carry(near: &TcpStream, target: &str, state: &Arc<State>) {
    let Ok(far) = TcpStream::connect(target) else { return };
    {
        let mut open = state.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        for stream in [near, &far] {
            let _ = stream.set_nodelay(true);
            open.extend(stream.try_clone());
        }
    }
    for (from, to) in [(near, &far), (&far, near)] {
        if let (Ok(from), Ok(to), state) = (from.try_clone(), to.try_clone(), state.clone()) {
            std::thread::spawn(move || pass(from, to, &state));
        }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        wait_while_cut(state);
        // Fails for a connection of before the cut: what was on its way is lost with it.
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
        state.passed.fetch_add(n as u64, Ordering::SeqCst);
    }
    // An end is news too.
    wait_while_cut(state);
    let _ = to.shutdown(Shutdown::Write);
}

fn wait_while_cut(state: &State) {
    while state.cut.load(Ordering::SeqCst) && !state.over.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(10));
    }
}
