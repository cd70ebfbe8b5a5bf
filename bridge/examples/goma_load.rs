//! A client of Goma's protocol that does one thing to a bridge and says what it measured, for `bench/`.
//!
//! Requests are made, packed and, after the first round, checked before the clock runs: what is timed is the
//! exchange alone. The project exists in memory only: units of 300 inputs each, most of them shared, and a
//! compiler that is a shell script, so that no real one is measured.
//!
//! ```text
//! goma_load cold BRIDGE UNITS JOBS                  every unit, as a client whose server knows nothing yet
//! goma_load warm BRIDGE UNITS COUNT JOBS            COUNT compiles whose results are cached, JOBS in flight
//! goma_load direct BRIDGE UNITS COUNT JOBS SERVER   what the bridge asks the server for those, asked directly
//! goma_load large BRIDGE COUNT BYTES                COUNT stores of BYTES at once
//! goma_load map DIR ENTRIES                         a hash map with so many entries
//! ```
//!
//! One line of JSON on stdout.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![expect(clippy::unwrap_used, reason = "whoever runs it wants to see the cause at once")]

// Of the end-to-end suite's client, written apart from the bridge.
#[path = "../../tests/src/goma_client/blob.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a library there, and here some of it is used")]
mod blob;
#[path = "../../tests/src/goma_client/wire.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a library there, and here some of it is used")]
mod wire;

use blob::Blob;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use motefarm_bridge::file_blob::key_of_file;
use motefarm_bridge::hash_map::{Entry, HashMap};
use motefarm_core::Digest;
use motefarm_proto::convert::to_reapi_digest;
use motefarm_proto::reapi::action_cache_client::ActionCacheClient;
use motefarm_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use motefarm_proto::reapi::{ActionResult, BatchReadBlobsRequest, GetActionResultRequest};
use std::collections::HashSet;
use std::future::Future;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use wire::{Fields, Message};

const PREFIX: &str = "/cxx-compiler-service";
/// Inputs of a unit in all.
const INPUTS: usize = 300;
/// Headers that there are, and how many of them every unit reads.
const HEADERS: usize = 1500;
const COMMON: usize = 200;
/// A client's bound on embedded content, before the last file, and its attempts.
const EMBED_BYTES: usize = 1 << 20;
const ATTEMPTS: i64 = 5;
/// What a compiler leaves: about so much more than its source.
const OBJECT_BYTES: usize = 100 << 10;
const CHUNK_BYTES: usize = 2 << 20;

const COMPILER: &str = "#!/bin/sh\n# -c SOURCE -o OBJECT -MF DEPENDENCIES\n\
    cat ../../tools/object.bin \"$2\" > \"$4\"\necho \"$4: $2\" > \"$6\"\n";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize| args[n].parse::<usize>().unwrap();
    let bridge = args[1].clone();
    match args[0].as_str() {
        "cold" => cold(bridge, number(2), number(3)).await,
        "warm" => warm(bridge, number(2), number(3), number(4)).await,
        "direct" => direct(bridge, number(2), number(3), number(4), &args[5]).await,
        "large" => large(bridge, number(2), number(3)).await,
        "map" => map(Path::new(&bridge), number(2)),
        other => panic!("{other}?"),
    }
}

/// A generator of the same numbers for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Text that packs about as source does.
    fn text(&mut self, size: usize) -> Vec<u8> {
        const WORDS: [&str; 16] = [
            "int",
            "const",
            "return",
            "std::string",
            "namespace",
            "(",
            ")",
            "{\n",
            "}\n",
            "#include",
            "template",
            "->",
            "static_cast<",
            "value_",
            "; // ",
            "size_t",
        ];
        let mut text = String::with_capacity(size + 40);
        while text.len() < size {
            text.push_str(WORDS[self.below(WORDS.len())]);
            text.push(' ');
            if self.below(4) == 0 {
                text.push_str(&format!("name_{:x} ", self.next() & 0xff_ffff));
            }
        }
        text.truncate(size);
        text.into_bytes()
    }

    fn noise(&mut self, size: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> =
            std::iter::repeat_with(|| self.next().to_le_bytes()).take(size / 8 + 1).flatten().collect();
        bytes.truncate(size);
        bytes
    }
}

/// A file of the project.
struct File {
    name: String,
    key: String,
    content: Vec<u8>,
    encoded: Vec<u8>,
}

impl File {
    fn new(name: String, content: Vec<u8>) -> Arc<Self> {
        let blob = Blob::of_file(&content).0;
        Arc::new(Self { name, key: blob.key(), content, encoded: blob.encode() })
    }
}

/// A translation unit.
struct Unit {
    number: usize,
    inputs: Vec<Arc<File>>,
    compiler: Digest,
}

fn project(units: usize) -> Vec<Unit> {
    let mut dice = Dice(6);
    let headers: Vec<Arc<File>> = (0..HEADERS)
        .map(|n| {
            let size = 600 + dice.below(11_000);
            let library = n % 50;
            let name =
                format!("../../third_party/library_{library}/include/library_{library}/part_{}/header_{n}.h", n % 7);
            File::new(name, dice.text(size))
        })
        .collect();
    let compiler = File::new("../../tools/cc".to_owned(), COMPILER.into());
    // Half text, half noise: objects pack to a half or less.
    let object = [dice.text(OBJECT_BYTES / 2), dice.noise(OBJECT_BYTES / 2)].concat();
    let object = File::new("../../tools/object.bin".to_owned(), object);
    (0..units)
        .map(|number| {
            let source = File::new(format!("../../src/unit_{number}.cc"), dice.text(20_000));
            let mut inputs = vec![source, compiler.clone(), object.clone()];
            inputs.extend(headers[..COMMON].iter().cloned());
            let mut chosen = HashSet::new();
            while inputs.len() < INPUTS {
                let n = COMMON + dice.below(HEADERS - COMMON);
                if chosen.insert(n) {
                    inputs.push(headers[n].clone());
                }
            }
            inputs.sort_by(|a, b| a.name.cmp(&b.name));
            Unit { number, inputs, compiler: Digest::of(&compiler.content) }
        })
        .collect()
}

impl Unit {
    fn id(&self) -> String {
        format!("load@host:8088/1/{}", self.number)
    }

    fn outputs(&self) -> [String; 2] {
        ["o", "d"].map(|end| format!("obj/src/unit_{}.{end}", self.number))
    }

    /// The whole `ExecReq`, with the content of these inputs.
    fn request(&self, attempt: i64, embedded: &HashSet<&str>) -> Vec<u8> {
        let (source, [object, dependencies]) = (format!("../../src/unit_{}.cc", self.number), self.outputs());
        let args = ["cc", "-c", &source, "-o", &object, "-MF", &dependencies];
        let hash = self.compiler.hash_hex();
        let spec = Message::default().bytes(1, "cc").bytes(2, "12").bytes(3, "x86_64-linux-gnu").bytes(4, &hash);
        let mut request = Message::default()
            .bytes(1, spec.0)
            .all(2, args)
            .all(3, ["PWD=/home/builder/project/out/Release"])
            .bytes(4, "/home/builder/project/out/Release");
        for input in &self.inputs {
            let mut group = Message::default().bytes(11, &input.name).bytes(12, &input.key);
            if embedded.contains(input.name.as_str()) {
                group = group.bytes(13, &input.encoded);
            }
            request = request.group(10, group);
        }
        let requester = Message::default().bytes(3, self.id()).number(4, 2).number(7, attempt).bytes(10, "os:linux");
        let tool = Message::default()
            .bytes(1, "../../tools/cc")
            .bytes(2, hash)
            .number(3, self.compiler.size_bytes() as i64)
            .number(4, 1);
        request.bytes(30, requester.0).number(33, 1).all(35, [object, dependencies]).number(37, 1).bytes(38, tool.0).0
    }
}

/// A connection that is kept.
struct Connection(BufReader<TcpStream>);

impl Connection {
    async fn new(bridge: &str) -> Self {
        let stream = TcpStream::connect(bridge).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::with_capacity(64 << 10, stream))
    }

    /// Sends what is packed already; the answer as it came, and whether it is packed.
    async fn exchange(&mut self, request: &[u8]) -> (Vec<u8>, bool) {
        self.0.get_mut().write_all(request).await.unwrap();
        let (mut length, mut packed, mut line) = (0, false, String::new());
        self.0.read_line(&mut line).await.unwrap();
        assert!(line.starts_with("HTTP/1.1 200 "), "{line}");
        loop {
            line.clear();
            self.0.read_line(&mut line).await.unwrap();
            let header = line.trim_end().to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            packed |= header == "content-encoding: gzip";
            if header.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        (body, packed)
    }

    async fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Vec<u8> {
        let (body, packed) = self.exchange(&message(method, path, body, Compression::new(3))).await;
        unpacked(body, packed)
    }
}

fn unpacked(body: Vec<u8>, packed: bool) -> Vec<u8> {
    if !packed {
        return body;
    }
    let mut plain = Vec::new();
    GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
    plain
}

/// A request's bytes, head and all.
fn message(method: &str, path: &str, body: &[u8], level: Compression) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), level);
    encoder.write_all(body).unwrap();
    let body = encoder.finish().unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: binary/x-protocol-buffer\r\nContent-Length: {}\r\n\
         Accept-Encoding: gzip\r\nContent-Encoding: gzip\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat()
}

/// Runs `each` for 0 to `count`, `jobs` at a time; gives the times of all, and of the whole.
async fn at_once<State, Work, Done>(count: usize, states: Vec<State>, work: Work) -> (Vec<Duration>, Duration)
where
    State: Send + 'static,
    Work: Fn(State, usize) -> Done + Send + Sync + 'static,
    Done: Future<Output = State> + Send,
{
    let (next, work) = (Arc::new(AtomicUsize::new(0)), Arc::new(work));
    let began = Instant::now();
    let tasks: Vec<_> = states
        .into_iter()
        .map(|mut state| {
            let (next, work) = (next.clone(), work.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return times;
                    }
                    let began = Instant::now();
                    state = work(state, n).await;
                    times.push(began.elapsed());
                }
            })
        })
        .collect();
    let mut times = Vec::with_capacity(count);
    for task in tasks {
        times.extend(task.await.unwrap());
    }
    (times, began.elapsed())
}

async fn connections(bridge: &str, jobs: usize) -> Vec<Connection> {
    let mut connections = Vec::with_capacity(jobs);
    for _ in 0..jobs {
        connections.push(Connection::new(bridge).await);
    }
    connections
}

fn tell(mut times: Vec<Duration>, whole: Duration) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1000.0;
    let rate = times.len() as f64 / whole.as_secs_f64();
    println!("{{\"p50_ms\": {:.4}, \"p99_ms\": {:.4}, \"rate\": {rate:.2}}}", at(0.5), at(0.99));
}

/// As a client: what is missing goes along next time, about 1 MiB of it.
async fn compile(connection: &mut Connection, unit: &Unit) {
    let mut missing: HashSet<String> = HashSet::new();
    for attempt in 0..ATTEMPTS {
        let mut room = EMBED_BYTES as i64;
        let inputs = unit.inputs.iter().filter(|input| {
            let embed = (missing.contains(&input.name) || input.content.len() < 512) && room > 0;
            room -= if embed { input.content.len() as i64 } else { 0 };
            embed
        });
        let embedded = inputs.map(|input| input.name.as_str()).collect();
        let answer = connection.call("POST", &format!("{PREFIX}/e"), &unit.request(attempt, &embedded)).await;
        let answer = Fields::read(&answer).unwrap();
        assert!(answer.texts(12).is_empty(), "{:?}", answer.texts(12));
        missing = answer.texts(11).into_iter().collect();
        if missing.is_empty() {
            check(unit, &answer);
            return;
        }
    }
    panic!("unit {} has inputs missing after {ATTEMPTS} attempts", unit.number);
}

fn check(unit: &Unit, answer: &Fields) {
    let result = Fields::read(answer.bytes(1).unwrap()).unwrap();
    let words = String::from_utf8_lossy(result.bytes(3).unwrap_or_default()).into_owned();
    assert_eq!(result.number(1), Some(0), "{words}");
    let content = |name: &str| {
        let output = result.groups(10).into_iter().find(|output| output.texts(11) == [name]).expect("the output");
        Blob::read(output.bytes(12).unwrap()).unwrap().content.expect("small enough to come along")
    };
    let file = |end: &str| &unit.inputs.iter().find(|input| input.name.ends_with(end)).unwrap().content;
    let source = format!("/unit_{}.cc", unit.number);
    let [object, dependencies] = unit.outputs();
    assert_eq!(content(&object), [&file("object.bin")[..], file(&source)].concat());
    assert!(!content(&dependencies).is_empty());
}

async fn cold(bridge: String, units: usize, jobs: usize) {
    let units = Arc::new(project(units));
    let mut seen = HashSet::new();
    let files = units.iter().flat_map(|unit| &unit.inputs).filter(|file| seen.insert(file.key.clone()));
    let bytes: usize = files.map(|file| file.content.len()).sum();
    let work = {
        let units = units.clone();
        move |mut connection: Connection, n: usize| {
            let units = units.clone();
            async move {
                compile(&mut connection, &units[n]).await;
                connection
            }
        }
    };
    let (_, took) = at_once(units.len(), connections(&bridge, jobs).await, work).await;
    println!("{{\"seconds\": {:.4}, \"contents\": {}, \"bytes\": {bytes}}}", took.as_secs_f64(), seen.len());
}

async fn warm(bridge: String, units: usize, count: usize, jobs: usize) {
    let nothing = HashSet::new();
    let mut first = Connection::new(&bridge).await;
    let mut exchanges = Vec::with_capacity(units);
    for unit in &project(units) {
        let request = message("POST", &format!("{PREFIX}/e"), &unit.request(0, &nothing), Compression::new(3));
        let (body, packed) = first.exchange(&request).await;
        let length = body.len();
        let answer = Fields::read(&unpacked(body, packed)).unwrap();
        assert!(answer.texts(11).is_empty(), "it is not cached: {:?}", answer.texts(11));
        assert_eq!(answer.number(27), Some(1), "it is not cached: {:?}", answer.texts(12));
        check(unit, &answer);
        exchanges.push((request, length));
    }
    let exchanges = Arc::new(exchanges);
    let (times, whole) = at_once(count, connections(&bridge, jobs).await, move |mut connection: Connection, n| {
        let exchanges = exchanges.clone();
        async move {
            let (request, length) = &exchanges[n % exchanges.len()];
            let answer = connection.exchange(request).await.0;
            // The same answer packs to the same length.
            assert_eq!(answer.len(), *length);
            connection
        }
    })
    .await;
    tell(times, whole);
}

async fn direct(bridge: String, units: usize, count: usize, jobs: usize, server: &str) {
    let mut connection = Connection::new(&bridge).await;
    let mut actions = Vec::with_capacity(units);
    for unit in &project(units) {
        let records = connection.call("GET", &format!("/explain/{}", unit.id()), b"").await;
        let records: serde_json::Value = serde_json::from_slice(&records).unwrap();
        let action = records[0]["action"].as_str().expect("a compile that has an action");
        let (hash, size) = action.split_once('/').unwrap();
        actions.push((Digest::parse(hash, size.parse().unwrap()).unwrap(), unit.outputs()));
    }
    let channel = Endpoint::from_shared(server.to_owned()).unwrap().connect().await.unwrap();
    let actions = Arc::new(actions);
    let (times, whole) = at_once(count, vec![channel; jobs], move |channel: Channel, n| {
        let actions = actions.clone();
        async move {
            let (action, outputs) = &actions[n % actions.len()];
            fetch(&channel, *action, outputs).await;
            channel
        }
    })
    .await;
    tell(times, whole);
}

/// The calls of a bridge for a cached compile.
async fn fetch(channel: &Channel, action: Digest, _outputs: &[String; 2]) {
    let request = GetActionResultRequest { action_digest: Some(to_reapi_digest(action)), ..Default::default() };
    let mut cache = ActionCacheClient::new(channel.clone());
    let result: ActionResult = cache.get_action_result(request).await.unwrap().into_inner();
    let digests: Vec<_> = result.output_files.iter().filter_map(|file| file.digest.clone()).collect();
    let wanted = digests.len();
    let request = BatchReadBlobsRequest { digests, ..Default::default() };
    let mut store = ContentAddressableStorageClient::new(channel.clone());
    let answer = store.batch_read_blobs(request).await.unwrap().into_inner();
    assert!(
        wanted == 2 && answer.responses.len() == wanted && answer.responses.iter().all(|blob| !blob.data.is_empty())
    );
}

async fn large(bridge: String, count: usize, bytes: usize) {
    let content = Dice(7).noise(CHUNK_BYTES);
    let mut requests = Vec::with_capacity(count);
    for n in 0..count {
        let chunks = (0..bytes / CHUNK_BYTES).map(|chunk| {
            let mut content = content.clone();
            content[..16].copy_from_slice(&[(n as u64).to_le_bytes(), (chunk as u64).to_le_bytes()].concat());
            let offset = Some((chunk * CHUNK_BYTES) as i64);
            Blob { kind: 3, offset, content: Some(content), size: CHUNK_BYTES as i64, keys: vec![] }
        });
        let chunks: Vec<Blob> = chunks.collect();
        let body = Message::default().all(1, chunks.iter().map(Blob::encode)).0;
        let keys: Vec<String> = chunks.iter().map(Blob::key).collect();
        // Packed, but stored: noise has nothing to pack.
        requests.push((message("POST", &format!("{PREFIX}/s"), &body, Compression::none()), keys));
    }
    let (connections, requests) = (connections(&bridge, count).await, Arc::new(requests));
    let (times, whole) = at_once(count, connections, move |mut connection: Connection, n| {
        let requests = requests.clone();
        async move {
            let (body, packed) = connection.exchange(&requests[n].0).await;
            assert_eq!(Fields::read(&unpacked(body, packed)).unwrap().texts(1), requests[n].1);
            connection
        }
    })
    .await;
    tell(times, whole);
}

fn map(dir: &Path, entries: usize) {
    let map = HashMap::open(dir, entries * 2).unwrap();
    for start in (0..entries).step_by(10_000) {
        let some = start..entries.min(start + 10_000);
        let some: Vec<_> = some
            .map(|n| {
                let content = (n as u64).to_le_bytes();
                (key_of_file(&content), Entry::File(Digest::of(&content)))
            })
            .collect();
        map.put(&some).unwrap();
    }
    println!("{{\"entries\": {}}}", map.len());
}
