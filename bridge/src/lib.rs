//! Goma on one side, the Remote Execution API on the other: unmodified Goma clients compile on any REAPI
//! server.
//!
//! * [`http`]: the calls of Goma's clients, by their quirks. [`serve`] is the port under it.
//! * [`pipeline`]: one compile, from request to answer; rules without IO.
//! * [`content`]: blobs by Goma's hash keys. [`hash_map`] remembers what each stands for, [`file_blob`] says
//!   how they are made.
//! * [`backend`]: the REAPI server.
//! * [`relay`]: what stands in for a client's own proxy. [`local_auth`]: what gives clients tokens.
//! * [`doctor`], [`seed`], [`explain`], [`client_env`]: what people need around it.
//!
//! **Absent on purpose:** content (the server's CAS has it all), compilers, the farm's own protocol.

pub mod access;
pub mod admission;
mod allocator;
pub mod authorization;
pub mod backend;
pub mod caller;
mod causes;
pub mod cli;
pub mod client_env;
pub mod config;
pub mod content;
pub mod daemon;
pub mod doctor;
pub mod explain;
pub mod file_blob;
#[doc(hidden)]
pub mod fuzzing;
pub mod hash_map;
pub mod http;
pub mod local_auth;
pub mod local_file;
pub mod local_inputs;
pub mod metrics;
pub mod pipeline;
mod reach;
pub mod records;
pub mod relay;
pub mod run;
pub mod secret_file;
pub mod seed;
pub mod serve;

pub use run::main_impl;
