//! -L, -R and -D, 100 MB through each.

use super::Reached;
use crate::seconds;
use motefarm_tests::wait;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;

const MANY: u64 = 100_000_000;

/// A server that takes whatever comes on its connections, then answers how much that was.
fn counting() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

fn answer<S: Read + Write>(mut stream: S) {
    let count = std::io::copy(&mut stream, &mut std::io::sink()).unwrap_or(0);
    let _ = stream.write_all(format!("{count}").as_bytes());
}

/// Sends much and hears how much arrived. The end of what is sent, and that of the answer, get through.
fn send_much(mut stream: TcpStream) {
    stream.set_read_timeout(Some(seconds(60))).unwrap();
    std::io::copy(&mut std::io::repeat(7).take(MANY), &mut stream).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, MANY.to_string());
}

fn connect(port: u16) -> TcpStream {
    wait::until("the forward", seconds(20), || TcpStream::connect(("127.0.0.1", port)).ok())
}

fn free_port() -> u16 {
    motefarm_tests::farm::free_port().rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn local_forwards_open_in_the_instance() {
    let Some(reached) = Reached::new() else { return };
    let (server, local, unix, refused) = (counting(), free_port(), free_port(), free_port());
    let at = |port: u16, to: &str| format!("{port}:{to}");
    let socket = if reached.instance.work_dir.starts_with("/workdir") {
        "/workdir/s".to_owned()
    } else {
        reached.instance.work().join("s").display().to_string()
    };
    let running = reached
        .program("ssh")
        .args([
            "-N",
            "-L",
            &at(local, &format!("127.0.0.1:{server}")),
            "-L",
            &at(unix, &socket),
            "-L",
            &at(refused, "127.0.0.1:1"),
        ])
        .arg(reached.host())
        .patience(seconds(120))
        .spawn();
    send_much(connect(local));
    // A Unix socket of the instance's own.
    let listener = std::os::unix::net::UnixListener::bind(short(&reached.instance.work().join("s"))).unwrap();
    std::thread::spawn(move || answer(listener.accept().unwrap().0));
    send_much(connect(unix));
    let mut nobody = connect(refused);
    nobody.set_read_timeout(Some(seconds(20))).unwrap();
    assert_eq!(nobody.read(&mut [0]).unwrap_or(0), 0, "nobody answers there, and that is told");
    // Several at once, each whole.
    let all: Vec<_> = (0..4).map(|_| std::thread::spawn(move || send_much(connect(local)))).collect();
    all.into_iter().for_each(|one| one.join().unwrap());
    drop(running);
    reached.finish();
}

/// A path that fits a socket's address.
fn short(path: &Path) -> std::path::PathBuf {
    let link = std::env::temp_dir().join(format!("m{:08x}", rand::random::<u32>()));
    std::os::unix::fs::symlink(path.parent().unwrap(), &link).unwrap();
    link.join(path.file_name().unwrap())
}

#[test]
fn what_is_not_for_commands_is_not_for_forwards() {
    let Some(reached) = Reached::new() else { return };
    if !reached.farm.has_sandbox(&reached.instance, "what forwards reach") {
        return reached.finish();
    }
    // The farm's own port knows its own user by the socket. Through an instance nobody is that user.
    let (local, address) = (free_port(), reached.farm.address());
    let running = reached.program("ssh").args(["-N", "-L", &format!("{local}:{address}")]).arg(reached.host()).spawn();
    let mut stream = connect(local);
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    stream.write_all(b"GET /computeMetadata/v1/instance/service-accounts/default/token HTTP/1.1\r\nHost: x\r\nMetadata-Flavor: Google\r\n\r\n").unwrap();
    let mut heard = Vec::new();
    let _ = stream.take(4096).read_to_end(&mut heard);
    assert!(!String::from_utf8_lossy(&heard).contains("200 OK"), "{}", String::from_utf8_lossy(&heard));
    // Nor do the buildlet's and the farm's own sockets exist in there.
    let unix = free_port();
    let buildlet = reached.farm.buildlet_data().join("buildlet.sock");
    let other = reached
        .program("ssh")
        .args(["-N", "-L", &format!("{unix}:{}", buildlet.display())])
        .arg(reached.host())
        .spawn();
    let mut stream = connect(unix);
    stream.set_read_timeout(Some(seconds(20))).unwrap();
    let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0);
    drop((running, other));
    reached.finish();
}

#[test]
fn remote_forwards_lead_from_the_instance_to_here() {
    let Some(reached) = Reached::new() else { return };
    let server = counting();
    let mut running = reached
        .program("ssh")
        .args(["-v", "-N", "-R", &format!("0:127.0.0.1:{server}")])
        .arg(reached.host())
        .patience(seconds(120))
        .spawn();
    running.until_stderr("Allocated port ", seconds(20));
    let said = running.stderr();
    let port: u16 = said.split("Allocated port ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    // The network is the machine's: the test can connect as a command there would.
    send_much(connect(port));
    let all: Vec<_> = (0..4).map(|_| std::thread::spawn(move || send_much(connect(port)))).collect();
    let whole = all.into_iter().map(|one| one.join()).filter(Result::is_ok).count();
    assert_eq!(whole, 4, "{}", running.stderr());
    drop(running);
    wait::until_true("nobody listens any more", seconds(10), || TcpStream::connect(("127.0.0.1", port)).is_err());
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    reached
        .program("ssh")
        .args(["-o", "ExitOnForwardFailure=yes", "-N", "-R", &format!("{port}:127.0.0.1:{server}")])
        .arg(reached.host())
        .run()
        .fails(255);
    reached.finish();
}

#[test]
fn a_socks_port_leads_wherever_the_instance_reaches() {
    let Some(reached) = Reached::new() else { return };
    let (server, socks) = (counting(), free_port());
    let running = reached
        .program("ssh")
        .args(["-N", "-D", &socks.to_string()])
        .arg(reached.host())
        .patience(seconds(120))
        .spawn();
    let mut stream = connect(socks);
    // SOCKS5 without authentication, to a name (RFC 1928).
    stream.write_all(&[5, 1, 0]).unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, [5, 0]);
    let mut ask = vec![5, 1, 0, 3, 9];
    ask.extend_from_slice(b"localhost");
    ask.extend_from_slice(&server.to_be_bytes());
    stream.write_all(&ask).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[..2], [5, 0]);
    send_much(stream);
    drop(running);
    reached.finish();
}
