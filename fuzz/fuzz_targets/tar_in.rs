//! Any bytes as an archive to unpack: nothing outside the directory appears or changes.
#![no_main]

mod ground;

use libfuzzer_sys::fuzz_target;
use motefarm_buildlet::fuzzing::Ground;
use std::sync::LazyLock;

static GROUND: LazyLock<Ground> = LazyLock::new(|| Ground::new(&ground::directory()).expect("a directory"));

// The checksums are put right, or hardly any input would get past its first header.
fuzz_target!(|bytes: &[u8]| GROUND.tar_in(&mended(bytes)));

/// The bytes with the checksum of every block that looks like a header made right, unless they are
/// packed or end in an odd byte (so that wrong checksums are tried, too).
fn mended(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let packed = matches!(bytes.get(..2), Some([0x1f, 0x8b] | [0x28, 0xb5]));
    if packed || bytes.last().is_some_and(|last| last % 16 == 15) {
        return bytes;
    }
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] != *b"ustar" {
            continue;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}
