//! A small store: so small that a run evicts all the time.

use motefarm_cas::store::{Store, StoreLimits};
use std::sync::LazyLock;

const LIMITS: StoreLimits = StoreLimits { max_bytes: 4 << 20, max_blob_bytes: 1 << 20 };

pub static STORE: LazyLock<Store> =
    LazyLock::new(|| Store::open(&crate::ground::directory(), LIMITS).expect("a store"));
