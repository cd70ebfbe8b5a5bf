//! A small store with the Remote Execution API's services over it.

use motefarm_cas::service::{ByteStreamService, CasService};
use motefarm_cas::store::{Store, StoreLimits};
use std::sync::LazyLock;
use tokio::runtime::Runtime;

/// So small that a run evicts all the time.
const MAX_BYTES: u64 = 4 << 20;

/// What the targets call.
pub struct Bench {
    pub store: Store,
    pub cas: CasService,
    pub streams: ByteStreamService,
    pub runtime: Runtime,
}

pub static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let limits = StoreLimits { max_bytes: MAX_BYTES, max_blob_bytes: 1 << 20 };
    let store = Store::open(&crate::ground::directory(), limits).expect("a store");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    Bench { cas: CasService::new(store.clone()), streams: ByteStreamService::new(store.clone()), store, runtime }
});
