//! Opening what an earlier writer left, however it ended.

use super::catalog::{Catalog, Place};
use super::pack::{self, Active, PackEnd, index_path, pack_path};
use super::record::{RECORD_BYTES, Record};
use super::{MAX_PACKED_BLOB_BYTES, StoreError};
use motefarm_core::Digest;
use motefarm_core::digest::DigestHasher;
use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

/// Version of the layout, in `<dir>/format`.
const FORMAT: &str = "motefarm-cas 1\n";

/// What lies there.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) catalog: Catalog,
    pub(super) active: Active,
}

/// The kernel's id of this boot; empty where there is none, which reads as "the same boot".
pub(super) fn this_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Brings the directory in order and lists what it holds. The caller holds the writer's lock.
pub(super) fn recover(dir: &Path, boot: &str) -> Result<Recovered, StoreError> {
    check_format(dir)?;
    empty_tmp(&dir.join("tmp"))?;
    let boot_path = dir.join("boot_id");
    let rebooted = Reboot::since(&boot_path, boot);
    let mut catalog = Catalog::default();
    let mut active = None;
    let numbers = pack_numbers(dir)?;
    let next = numbers.last().map_or(1, |last| last + 1);
    for number in &numbers {
        if let Some(end) = recover_pack(dir, *number, &rebooted, &mut catalog)? {
            if Some(number) == numbers.last() {
                active = Some(end);
            } else {
                seal_late(dir, end)?;
                catalog.pack_grew(*number, RECORD_BYTES as u64);
            }
        }
    }
    recover_large(dir, &rebooted, &mut catalog)?;
    if !matches!(rebooted, Reboot::No) {
        std::fs::write(&boot_path, boot).map_err(StoreError::io(&boot_path))?;
    }
    Ok(Recovered { catalog, active: active.map_or(Active::New(next), Active::Resume) })
}

/// Whether the machine went down since the last writer.
#[derive(Debug, PartialEq, Eq)]
enum Reboot {
    No,
    /// Yes: what was written after this time (seconds since the epoch) was never known to be on disk.
    Since(i64),
}

impl Reboot {
    fn since(boot_path: &Path, boot: &str) -> Self {
        match std::fs::read_to_string(boot_path) {
            Ok(then) if then == boot => Self::No,
            // The file was written when the first writer of that boot opened the store.
            _ => Self::Since(std::fs::metadata(boot_path).map_or(0, |meta| meta.mtime() - CLOCK_DOUBT_S)),
        }
    }
}

/// How far a clock may have been set back during a boot without large files escaping verification.
const CLOCK_DOUBT_S: i64 = 86_400;

fn check_format(dir: &Path) -> Result<(), StoreError> {
    let path = dir.join("format");
    match std::fs::read_to_string(&path) {
        Ok(text) if text == FORMAT => Ok(()),
        // Cut off when the store was first made: nothing was stored yet.
        Ok(text) if FORMAT.starts_with(&text) => std::fs::write(&path, FORMAT).map_err(StoreError::io(&path)),
        Ok(text) => Err(StoreError::Format {
            dir: dir.to_owned(),
            problem: format!("its format is {:?}, not {FORMAT:?}", text.chars().take(80).collect::<String>()),
        }),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            std::fs::write(&path, FORMAT).map_err(StoreError::io(&path))
        }
        Err(error) => Err(StoreError::io(&path)(error)),
    }
}

fn empty_tmp(tmp: &Path) -> Result<(), StoreError> {
    for entry in std::fs::read_dir(tmp).map_err(StoreError::io(tmp))? {
        let path = entry.map_err(StoreError::io(tmp))?.path();
        std::fs::remove_file(&path).map_err(StoreError::io(&path))?;
    }
    Ok(())
}

/// Numbers of complete pairs of files, in order; what lacks its other half is removed.
fn pack_numbers(dir: &Path) -> Result<BTreeSet<u32>, StoreError> {
    let packs_dir = dir.join("packs");
    let (mut packs, mut indexes) = (BTreeSet::new(), BTreeSet::new());
    for entry in std::fs::read_dir(&packs_dir).map_err(StoreError::io(&packs_dir))? {
        let name = entry.map_err(StoreError::io(&packs_dir))?.file_name();
        let Some(name) = name.to_str() else { continue };
        packs.extend(pack::number_of_pack(name));
        indexes.extend(pack::number_of_index(name));
    }
    for number in packs.difference(&indexes) {
        let path = pack_path(dir, *number);
        std::fs::remove_file(&path).map_err(StoreError::io(&path))?;
    }
    for number in indexes.difference(&packs) {
        let path = index_path(dir, *number);
        std::fs::remove_file(&path).map_err(StoreError::io(&path))?;
    }
    Ok(packs.intersection(&indexes).copied().collect())
}

/// Enters a pack into the catalog; where it ends if it is not sealed.
fn recover_pack(
    dir: &Path,
    number: u32,
    rebooted: &Reboot,
    catalog: &mut Catalog,
) -> Result<Option<PackEnd>, StoreError> {
    let (pack_path, index_path) = (pack_path(dir, number), index_path(dir, number));
    let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).map_err(StoreError::io(path));
    let (pack, mut index) = (open(&pack_path)?, open(&index_path)?);
    let pack_bytes = pack.metadata().map_err(StoreError::io(&pack_path))?.len();
    let used_ms = mtime_ms(&index.metadata().map_err(StoreError::io(&index_path))?);
    let mut log = Vec::new();
    index.read_to_end(&mut log).map_err(StoreError::io(&index_path))?;

    let mut sealed = false;
    let mut read = 0;
    let mut blobs: Vec<(Digest, u64)> = Vec::new();
    for record in Record::decode_all(&log) {
        read += 1;
        match record {
            Record::Blob { digest, offset } => blobs.push((digest, offset)),
            Record::Seal => {
                sealed = true;
                break;
            }
        }
    }
    let written = blobs.len();
    blobs.retain(|(digest, offset)| {
        digest.size_bytes() <= MAX_PACKED_BLOB_BYTES
            && offset.checked_add(digest.size_bytes()).is_some_and(|end| end <= pack_bytes)
    });
    if !sealed && *rebooted != Reboot::No {
        let mut buf = Vec::new();
        blobs.retain(|(digest, offset)| holds(&pack, digest, *offset, &mut buf));
    }
    let index_bytes = if blobs.len() == written {
        let whole = (read * RECORD_BYTES) as u64;
        if whole < log.len() as u64 {
            index.set_len(whole).map_err(StoreError::io(&index_path))?;
        }
        whole
    } else {
        tracing::warn!(pack = number, lost = written - blobs.len(), "records without their content dropped");
        rewrite_index(dir, number, &blobs, sealed)?
    };
    let data_bytes = blobs.iter().map(|(digest, offset)| offset + digest.size_bytes()).max().unwrap_or(0);
    if !sealed && data_bytes < pack_bytes {
        pack.set_len(data_bytes).map_err(StoreError::io(&pack_path))?;
    }
    for (digest, offset) in blobs {
        catalog.insert(digest, Place::Pack { number, offset }, used_ms);
    }
    catalog.pack_grew(number, index_bytes + if sealed { pack_bytes } else { data_bytes });
    catalog.pack_used(number, used_ms);
    Ok((!sealed).then_some(PackEnd { number, data_bytes, index_bytes }))
}

fn holds(pack: &File, digest: &Digest, offset: u64, buf: &mut Vec<u8>) -> bool {
    let Ok(size) = usize::try_from(digest.size_bytes()) else { return false };
    buf.resize(size, 0);
    pack.read_exact_at(buf, offset).is_ok() && Digest::of(buf) == *digest
}

fn rewrite_index(dir: &Path, number: u32, blobs: &[(Digest, u64)], sealed: bool) -> Result<u64, StoreError> {
    let mut log = Vec::with_capacity((blobs.len() + 1) * RECORD_BYTES);
    for (digest, offset) in blobs {
        Record::Blob { digest: *digest, offset: *offset }.encode(&mut log);
    }
    if sealed {
        Record::Seal.encode(&mut log);
    }
    let temp = dir.join("tmp").join(format!("{number:08x}.idx"));
    std::fs::write(&temp, &log).map_err(StoreError::io(&temp))?;
    let path = index_path(dir, number);
    std::fs::rename(&temp, &path).map_err(StoreError::io(&path))?;
    Ok(log.len() as u64)
}

/// Seals a full pack whose writer was killed before it could.
fn seal_late(dir: &Path, end: PackEnd) -> Result<(), StoreError> {
    let path = index_path(dir, end.number);
    let index = OpenOptions::new().write(true).open(&path).map_err(StoreError::io(&path))?;
    let pack_path = pack_path(dir, end.number);
    let pack = File::open(&pack_path).map_err(StoreError::io(&pack_path))?;
    pack::write_seal(&pack, &index, end.index_bytes).map_err(StoreError::io(&path))
}

fn recover_large(dir: &Path, rebooted: &Reboot, catalog: &mut Catalog) -> Result<(), StoreError> {
    let large = dir.join("large");
    for shelf in std::fs::read_dir(&large).map_err(StoreError::io(&large))? {
        let shelf = shelf.map_err(StoreError::io(&large))?.path();
        for entry in std::fs::read_dir(&shelf).map_err(StoreError::io(&shelf))? {
            let entry = entry.map_err(StoreError::io(&shelf))?;
            let path = entry.path();
            let meta = entry.metadata().map_err(StoreError::io(&path))?;
            let name = entry.file_name();
            let digest = name.to_str().and_then(|hash| Digest::parse(hash, i64::try_from(meta.len()).ok()?).ok());
            let Some(digest) = digest else { continue };
            let doubtful = matches!(rebooted, Reboot::Since(time) if meta.mtime() >= *time);
            if doubtful && !file_holds(&path, &digest) {
                tracing::warn!(%digest, "large blob did not survive the reboot");
                std::fs::remove_file(&path).map_err(StoreError::io(&path))?;
                continue;
            }
            catalog.insert(digest, Place::Large, mtime_ms(&meta));
        }
    }
    Ok(())
}

fn file_holds(path: &Path, digest: &Digest) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    let mut hasher = DigestHasher::new();
    let mut buf = vec![0; 256 << 10];
    loop {
        match file.read(&mut buf) {
            Ok(0) => return hasher.finish() == *digest,
            Ok(read) => hasher.update(&buf[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

fn mtime_ms(meta: &std::fs::Metadata) -> u64 {
    u64::try_from(meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000).unwrap_or(0)
}
