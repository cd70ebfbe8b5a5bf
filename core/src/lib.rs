//! The farm's vocabulary and rules.
//!
//! Everything here is a value or a pure function of values: ids, host types, the life cycles of
//! instances and leases, who waits for what (instances and actions), what a command is and how it ended, digests, paths inside
//! a work directory. **Absent on purpose:** IO (but for one wall-clock read in [`clock`]), an async
//! runtime, serialization. The other crates translate at their edges; see ARCHITECTURE.md.

#![forbid(unsafe_code)]

pub mod action_queue;
pub mod action_timeout;
pub mod clock;
pub mod digest;
pub mod environment;
pub mod exec;
pub mod host_type;
pub mod id;
pub mod instance;
pub mod label;
pub mod lease;
pub mod name;
pub mod platform;
pub mod wait_queue;
pub mod work_path;

pub use clock::{Clock, SettableClock, SystemClock, Timestamp};
pub use digest::Digest;
pub use host_type::HostType;
pub use id::{ExecId, InstanceId};
pub use label::Label;
pub use work_path::WorkPath;
