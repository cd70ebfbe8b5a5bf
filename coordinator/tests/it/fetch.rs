//! Archives the farm fetches: from where it may, and with nothing of the farm's in the request.

use crate::farm::TestFarm;
use motefarm_coordinator::farm::{FarmError, fetch};
use motefarm_proto::mote;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Answers every request with what `answer` makes of its path; remembers the requests.
async fn server(answer: fn(&str) -> String) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = seen.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut buffer = [0; 1024];
                match stream.read(&mut buffer).await.unwrap() {
                    0 => break,
                    n => request.extend_from_slice(&buffer[..n]),
                }
            }
            let request = String::from_utf8(request).unwrap();
            let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
            requests.lock().unwrap().push(request);
            stream.write_all(answer(&path).as_bytes()).await.unwrap();
        }
    });
    (address, seen)
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn answers(path: &str) -> String {
    match path {
        "/ok/x.tar.gz" => ok(&"archive".repeat(10_000)),
        "/ok/inside" => {
            "HTTP/1.1 302 Found\r\nlocation: /ok/x.tar.gz\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
        "/ok/outside" => {
            "HTTP/1.1 302 Found\r\nlocation: /secret\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
        "/ok/loop" => {
            "HTTP/1.1 302 Found\r\nlocation: /ok/loop\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned()
        }
        // Promises more than comes.
        "/ok/short" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\nconnection: close\r\n\r\nshort".to_owned(),
        "/ok/endless" => format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{}", "x".repeat(200_000)),
        "/secret" => ok("secret"),
        "/ok/broken" => "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
        _ => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_owned(),
    }
}

fn request(instance: &str, url: &str) -> mote::PutTarFromUrlRequest {
    let tar = mote::PutTarHeader { dir: "go".to_owned() };
    mote::PutTarFromUrlRequest { instance: instance.to_owned(), tar: Some(tar), url: url.to_owned() }
}

#[tokio::test]
async fn what_the_operator_allows_is_fetched_and_passed_on_whole() {
    let (address, seen) = server(answers).await;
    let config = format!("[fetch]\nallow = ['http://{address}/ok/']\nmax_bytes = 100000");
    let (farm, buildlet) = TestFarm::with_buildlet(&config).await;
    let row = farm.lease(1).await;
    let fetch = |path: &str| {
        let request = request(&row.name, &format!("http://{address}{path}"));
        let app = farm.app.clone();
        async move { fetch::put_tar_from_url(&app, &TestFarm::alice(), request).await }
    };
    for path in ["/ok/x.tar.gz", "/ok/inside"] {
        assert_eq!(fetch(path).await.unwrap().bytes_written, 70_000);
        assert_eq!(buildlet.state().archives[&(row.id, "go".to_owned())], "archive".repeat(10_000).as_bytes());
        buildlet.change(|state| state.archives.clear());
    }
    for (path, expected) in [
        ("/secret", "forbidden"),
        ("/ok/outside", "forbidden"),
        ("/ok/loop", "forbidden"),
        ("/ok/missing", "invalid"),
        ("/ok/broken", "unavailable"),
        ("/ok/short", "unavailable"),
        ("/ok/endless", "exhausted"),
    ] {
        let error = fetch(path).await.unwrap_err();
        let kind = match &error {
            FarmError::Forbidden(_) => "forbidden",
            FarmError::Invalid(_) => "invalid",
            FarmError::Unavailable(_) => "unavailable",
            FarmError::Exhausted(_) => "exhausted",
            _ => "something else",
        };
        assert_eq!(kind, expected, "{path}: {error}");
    }
    assert!(buildlet.state().archives.is_empty());
    let seen = seen.lock().unwrap();
    assert!(!seen.iter().any(|request| request.starts_with("GET /secret")), "{seen:?}");
    for request in seen.iter().map(|request| request.to_ascii_lowercase()) {
        for header in ["authorization", "cookie", "referer"] {
            assert!(!request.contains(header), "{request}");
        }
    }
}

#[tokio::test]
async fn nothing_is_allowed_unless_configured_and_the_refusal_names_the_setting() {
    let (address, seen) = server(answers).await;
    let (farm, _buildlet) = TestFarm::with_buildlet("").await;
    let row = farm.lease(1).await;
    let url = format!("http://{address}/ok/x.tar.gz?token=hush");
    let error = fetch::put_tar_from_url(&farm.app, &TestFarm::alice(), request(&row.name, &url)).await.unwrap_err();
    assert!(matches!(error, FarmError::Forbidden(_)), "{error}");
    let text = error.to_string();
    assert!(text.contains("fetch.allow") && !text.contains("hush"), "{text}");
    assert!(seen.lock().unwrap().is_empty());
    for bad in ["x", "file:///etc/passwd", "http://user:secret@127.0.0.1/"] {
        let error = fetch::put_tar_from_url(&farm.app, &TestFarm::alice(), request(&row.name, bad)).await.unwrap_err();
        assert!(matches!(error, FarmError::Invalid(_)), "{bad}: {error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn another_users_instance_is_not_there() {
    let (address, seen) = server(answers).await;
    let (farm, _buildlet) = TestFarm::with_buildlet(&format!("[fetch]\nallow = ['http://{address}/']")).await;
    let row = farm.lease(1).await;
    let asked = request(&row.name, &format!("http://{address}/ok/x.tar.gz"));
    let error = fetch::put_tar_from_url(&farm.app, &TestFarm::bob(), asked).await.unwrap_err();
    assert!(matches!(error, FarmError::NotFound { .. }), "{error}");
    assert!(seen.lock().unwrap().is_empty());
}
