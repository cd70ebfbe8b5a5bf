//! Any bytes as the logs of the bridge's hash map, torn or made up: it opens, and keeps what it says it knows.
#![no_main]

mod ground;

use libfuzzer_sys::fuzz_target;
use std::path::PathBuf;
use std::sync::LazyLock;

static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(ground::directory);

fuzz_target!(|bytes: &[u8]| motefarm_bridge::fuzzing::hash_map(&DIRECTORY, bytes));
