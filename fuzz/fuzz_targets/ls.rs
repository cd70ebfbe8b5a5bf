//! Any bytes as a listing to make and a path to open, in a small tree with links out of it.
#![no_main]

mod ground;

use libfuzzer_sys::fuzz_target;
use motefarm_buildlet::fuzzing::Ground;
use std::sync::LazyLock;

static GROUND: LazyLock<Ground> = LazyLock::new(|| {
    let ground = Ground::new(&ground::directory()).expect("a directory");
    ground.furnish().expect("a tree");
    ground
});

fuzz_target!(|bytes: &[u8]| GROUND.ls(bytes));
