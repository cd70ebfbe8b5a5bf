//! The port as a Go agent meets it, byte by byte, on machines without Go.

use super::{HOST_TYPE, out};
use crate::{farm, seconds};
use motefarm_net::dial::{BoxStream, Target};
use motefarm_tests::TestFarm;
use std::fs;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A TLS connection that names no protocol, as Go's agent makes them.
async fn connect(farm: &TestFarm) -> BoxStream {
    let ca = fs::read_to_string(farm.data().join("tls/ca.pem")).expect("the farm's CA");
    let tls = Arc::new(motefarm_net::tls::client_config(&ca).expect("a certificate"));
    Target::Tls { address: farm.address(), tls }.connect(&[]).await.expect("the port answers")
}

/// Reads up to and with `end`, and not a byte more.
async fn read_until(stream: &mut BoxStream, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        read.push(stream.read_u8().await.expect("more comes"));
    }
    String::from_utf8(read).expect("text")
}

async fn answer(farm: &TestFarm, request: &str) -> String {
    let mut stream = connect(farm).await;
    stream.write_all(request.as_bytes()).await.expect("it is taken");
    let mut answer = String::new();
    // That the port says no good-bye matters to nobody.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

async fn wire(farm: &TestFarm, token: &str) {
    let pool = "GET /reverse HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nX-Go-Builder-Hostname: myhost\r\n\
        X-Go-Builder-Key: bcf798775e29660e5e44a4f43647f0c5\r\nX-Go-Builder-Version: 29\r\nX-Go-Host-Type: host-linux-x\r\n\
        X-Revdial-Version: 2\r\n\r\n";
    let refused = answer(farm, pool).await;
    assert!(refused.starts_with("HTTP/1.1 412 ") && refused.contains("-swarming-bot"), "{refused}");
    // What agents quote must fit a line of 4096 bytes.
    assert!(refused.len() < 1000, "{} bytes", refused.len());
    let unknown = "GET /revdial?revdial.dialer=abc HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\n\r\n";
    let refused = answer(farm, unknown).await;
    assert!(refused.starts_with("HTTP/1.1 400 ") && refused.ends_with("unknown dialer\n"), "{refused}");

    let mut channel = connect(farm).await;
    let register = format!(
        "GET /reverse HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nX-Go-Gomote-Id: {HOST_TYPE}\r\n\
         X-Go-Hostname: myhost\r\nX-Go-Swarming-Auth-Token: {token}\r\n\r\n"
    );
    channel.write_all(register.as_bytes()).await.expect("it is taken");
    assert!(read_until(&mut channel, "\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
    assert_eq!(read_until(&mut channel, "\n").await, "{\"command\":\"keep-alive\"}\n");
    let ready = read_until(&mut channel, "\n").await;
    let ready: serde_json::Value = serde_json::from_str(&ready).expect("a frame");
    assert_eq!(ready["command"], "conn-ready");
    let path = ready["connPath"].as_str().expect("a path");

    let mut picked = connect(farm).await;
    let pickup = format!("GET {path} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\n\r\n");
    picked.write_all(pickup.as_bytes()).await.expect("it is taken");
    assert!(read_until(&mut picked, "\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
    // And now the roles have turned.
    assert!(read_until(&mut picked, "\r\n\r\n").await.starts_with("GET /status HTTP/1.1\r\n"));
    // A path is good for once.
    assert!(answer(farm, &pickup).await.starts_with("HTTP/1.1 400 "));
}

#[test]
fn agents_get_the_bytes_they_expect() {
    let farm = farm().no_buildlet().start();
    let token = out(&farm, &["admin", "join-token", "create", "--host-type", HOST_TYPE]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = runtime.block_on(async { tokio::time::timeout(seconds(30), wire(&farm, &token)).await });
    done.expect("it all comes within 30 s");
    drop(runtime);
    farm.finish();
}
