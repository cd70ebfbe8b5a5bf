//! Content by digest: where it lies on disk, how directories become trees of it and trees become
//! directories again, and how it travels.
//!
//! * [`store`]: the pack store. One process writes, others read.
//! * [`tree`]: directories as canonical REAPI `Directory` messages, and checked decoding of them.
//! * [`snapshot`]: a directory on a developer's machine as a tree, hashing only what changed.
//! * [`sync`]: a directory of an instance made equal to a tree.
//! * [`batch`]: many blobs in few messages.
//! * [`beneath`]: opening, making and changing files below a directory that nobody trusts.
//! * [`service`]: the CAS services of the Remote Execution API over a store.
//!
//! **Absent on purpose:** who owns what, who may ask, instances and leases. Whoever mounts the
//! services or calls the functions has settled that. Everything but `service` and one stream adapter
//! in `batch` blocks; asynchronous callers go through `spawn_blocking`. `store`, `sync`, `beneath`
//! and `service` are for Unix; the rest is portable, because the client is.

#![forbid(unsafe_code)]

pub mod batch;
#[cfg(unix)]
pub mod beneath;
mod ignore_rules;
#[cfg(unix)]
pub mod service;
pub mod snapshot;
mod stat_cache;
#[cfg(unix)]
pub mod store;
#[cfg(unix)]
pub mod sync;
pub mod tree;
mod work_queue;
