use motefarm_cas::{batch::*, snapshot::*, store::*, sync::*};
use std::time::Instant;
fn main() {
    let root = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let out = std::path::PathBuf::from(std::env::args().nth(2).unwrap());
    std::fs::create_dir_all(out.join("work")).unwrap();
    let options = SnapshotOptions::default();
    let mut cache = StatCache::load(&out.join("cache"));
    let store = Store::open(&out.join("cas"), StoreLimits::default()).unwrap();
    for round in 0..6 {
        let t = Instant::now();
        let snap = snapshot(&root, &options, &mut cache).unwrap();
        let snap_ms = t.elapsed().as_secs_f64() * 1e3;
        let t = Instant::now();
        cache.save(&out.join("cache")).unwrap();
        let save_ms = t.elapsed().as_secs_f64() * 1e3;
        let t = Instant::now();
        cache = StatCache::load(&out.join("cache"));
        let load_ms = t.elapsed().as_secs_f64() * 1e3;
        let t = Instant::now();
        let digests: Vec<_> = snap.digests().collect();
        let missing = store.missing(&digests);
        let missing_ms = t.elapsed().as_secs_f64() * 1e3;
        let t = Instant::now();
        let blobs = snap.blobs(&missing.iter().copied().collect());
        let (mut pack_ms, mut recv_ms) = (0.0, 0.0);
        let mut recv = BatchReceiver::new(store.clone());
        let mut packer = BatchPacker::new(blobs);
        if std::env::var("RAW").is_ok() { packer = packer.uncompressed(); }
        loop {
            let t = Instant::now();
            let Some(b) = packer.next() else { break };
            pack_ms += t.elapsed().as_secs_f64() * 1e3;
            let t = Instant::now();
            recv.accept(b.unwrap()).unwrap();
            recv_ms += t.elapsed().as_secs_f64() * 1e3;
        }
        let up_ms = t.elapsed().as_secs_f64() * 1e3;
        let plan = SyncPlan { root: snap.root, ignore_files: snap.ignore_files.clone(), keep: vec![], dry_run: false };
        let work = std::fs::File::open(out.join("work")).unwrap();
        let reader = ReadStore::open(&out.join("cas")).unwrap();
        let t = Instant::now();
        let r = sync_tree(std::os::fd::AsFd::as_fd(&work), &motefarm_core::WorkPath::parse("go").unwrap(), &plan, &reader, &out.join("index")).unwrap();
        let sync_ms = t.elapsed().as_secs_f64() * 1e3;
        eprintln!("{round}: files {} hashed {} dirs {} | snapshot {snap_ms:.1} save {save_ms:.1} load {load_ms:.1} missing({}) {missing_ms:.1} upload {up_ms:.1} (pack {pack_ms:.1} recv {recv_ms:.1}) sync {sync_ms:.1} written {} hashed {} unchanged {} deleted {}",
            snap.total_files, snap.hashed_files, snap.directories.len(), missing.len(), r.files_written, r.files_hashed, r.files_unchanged, r.entries_deleted);
    }
}
