use super::*;

struct Client {
    server: Server,
}

/// Builds a request: type, then whatever `fill` adds.
fn request(kind: u8, fill: impl Fn(&mut Reply<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut packet = Reply::new(&mut bytes);
    packet.begin(kind);
    fill(&mut packet);
    packet.end();
    bytes
}

impl Client {
    fn ask(&mut self, request: &[u8]) -> (u8, Vec<u8>) {
        let packet = next_packet(request).unwrap().unwrap();
        let mut bytes = Vec::new();
        self.server.answer(Fields::new(packet), &mut Reply::new(&mut bytes));
        let answer = next_packet(&bytes).unwrap().expect("an answer is whole");
        assert_eq!(answer.len() + 4, bytes.len());
        (answer[0], answer[1..].to_vec())
    }

    fn status(&mut self, request: &[u8]) -> u32 {
        let (kind, body) = self.ask(request);
        assert_eq!(kind, 101);
        Fields::new(&body[4..]).number().unwrap()
    }

    fn open(&mut self, path: &str, flags: u32) -> Vec<u8> {
        let open = request(3, |r| {
            r.number(7).bytes(path.as_bytes()).number(flags).number(0);
        });
        let (kind, body) = self.ask(&open);
        assert_eq!(kind, 102, "{path}");
        Fields::new(&body[4..]).bytes().unwrap().to_vec()
    }
}

#[test]
fn a_file_is_written_read_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file").to_str().unwrap().to_owned();
    let mut client = Client { server: Server::default() };
    let handle = client.open(&path, 2 | 8 | 16);
    let write = |offset: u64, data: &[u8]| {
        request(6, |r| {
            r.number(1).bytes(&handle).long(offset).bytes(data);
        })
    };
    assert_eq!(client.status(&write(5, b"world")), 0);
    assert_eq!(client.status(&write(0, b"hello")), 0);
    let close = request(4, |r| {
        r.number(2).bytes(&handle);
    });
    assert_eq!(client.status(&close), 0);
    assert_eq!(client.status(&close), 4, "closed is closed");
    let handle = client.open(&path, 1);
    let read = |offset: u64| {
        request(5, |r| {
            r.number(3).bytes(&handle).long(offset).number(1 << 30);
        })
    };
    let (kind, body) = client.ask(&read(3));
    assert_eq!((kind, Fields::new(&body[4..]).bytes().unwrap()), (103, &b"loworld"[..]));
    assert_eq!(client.status(&read(10)), 1, "the end");
}

#[test]
fn names_are_bytes_and_listings_come_in_parts() {
    use std::os::unix::ffi::OsStrExt as _;
    let dir = tempfile::tempdir().unwrap();
    for n in 0..600 {
        std::fs::write(dir.path().join(format!("file-{n}")), "").unwrap();
    }
    std::fs::write(dir.path().join(std::ffi::OsStr::from_bytes(b"odd-\xff")), "x").unwrap();
    let mut client = Client { server: Server::default() };
    let open = request(11, |r| {
        r.number(1).bytes(dir.path().as_os_str().as_bytes());
    });
    let (kind, body) = client.ask(&open);
    assert_eq!(kind, 102);
    let handle = Fields::new(&body[4..]).bytes().unwrap().to_vec();
    let list = request(12, |r| {
        r.number(1).bytes(&handle);
    });
    let mut names = Vec::new();
    loop {
        let (kind, body) = client.ask(&list);
        if kind == 101 {
            assert_eq!(Fields::new(&body[4..]).number(), Ok(1));
            break;
        }
        let mut fields = Fields::new(&body[4..]);
        for _ in 0..fields.number().unwrap() {
            names.push(fields.bytes().unwrap().to_vec());
            assert!(fields.bytes().unwrap().ends_with(names.last().unwrap()), "the long name ends with the name");
            attributes::Attributes::read(&mut fields).unwrap();
        }
    }
    assert_eq!(names.len(), 601);
    assert!(names.contains(&b"odd-\xff".to_vec()));
}

#[test]
fn a_rename_replaces_nothing_unless_it_is_posix() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for name in ["a", "b"] {
        std::fs::write(at(name), name).unwrap();
    }
    let mut client = Client { server: Server::default() };
    let plain = request(18, |r| {
        r.number(1).bytes(at("a").as_bytes()).bytes(at("b").as_bytes());
    });
    assert_eq!(client.status(&plain), 4);
    assert_eq!(std::fs::read(at("b")).unwrap(), b"b");
    let posix = request(200, |r| {
        r.number(1).bytes(b"posix-rename@openssh.com").bytes(at("a").as_bytes()).bytes(at("b").as_bytes());
    });
    assert_eq!(client.status(&posix), 0);
    assert_eq!(std::fs::read(at("b")).unwrap(), b"a");
}

#[test]
fn whatever_comes_is_answered_or_ends_the_connection() {
    let mut client = Client { server: Server::default() };
    for kind in 2..=255 {
        let (answer, _) = client.ask(&request(kind, |_| {}));
        assert_eq!(answer, 101, "{kind}");
        let junk = request(kind, |r| {
            r.number(1).bytes(&[0xff; 3]).number(u32::MAX);
        });
        client.ask(&junk);
    }
    assert!(next_packet(&[0, 0, 0, 0]).is_err());
    assert!(next_packet(&[0xff; 4]).is_err());
    assert_eq!(next_packet(&[0, 0, 0, 2, 1]).unwrap(), None);
}
