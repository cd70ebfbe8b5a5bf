//! A Goma client at the level of the wire, for tests: what `compiler_proxy` sends, and what it makes of answers.
//!
//! Written from a description of the protocol alone and apart from the bridge: messages are put together and
//! taken apart by hand, hashes computed here, HTTP spoken over a plain socket, so that no misreading is shared.
//! It is as strict as the real client where that is strict (an interim answer is an error, a header that is
//! missing stops compression), and counts what it sends. The paths of its parts are spelled out because the
//! bridge's own tests take it in by path.

#[path = "goma_client/answer.rs"]
pub mod answer;
#[path = "goma_client/blob.rs"]
pub mod blob;
#[path = "goma_client/compile.rs"]
pub mod compile;
#[path = "goma_client/files.rs"]
pub mod files;
#[path = "goma_client/health.rs"]
pub mod health;
#[path = "goma_client/http.rs"]
pub mod http;
#[path = "goma_client/inputs.rs"]
pub mod inputs;
#[path = "goma_client/packing.rs"]
pub mod packing;
#[path = "goma_client/task.rs"]
pub mod task;
#[path = "goma_client/transfer.rs"]
pub mod transfer;
#[path = "goma_client/wire.rs"]
pub mod wire;

pub use compile::{Client, Compiled, Failure};
pub use task::Task;
