//! Any bytes as an action as a buildlet is given it: start, command, and the tree of its inputs, which is checked,
//! looked for and made in a directory with neighbours that must stay as they are.
#![no_main]

mod ground;
mod store;

use libfuzzer_sys::fuzz_target;
use motefarm_buildlet::fuzzing::Ground;
use std::sync::LazyLock;

static GROUND: LazyLock<Ground> = LazyLock::new(|| Ground::new(&ground::directory()).expect("a directory"));

fuzz_target!(|bytes: &[u8]| GROUND.action(&store::STORE, bytes));
