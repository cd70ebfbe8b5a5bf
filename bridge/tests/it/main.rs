//! The bridge between a Goma client of the wire and a REAPI server of this process.

#![expect(clippy::unwrap_used, reason = "also the helpers of tests are tests")]

mod backends;
mod calls;
mod compile;
mod fake_reapi;
// The client of the end-to-end suite, which knows nothing of the bridge's code.
#[path = "../../../tests/src/goma_client.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a library there, and each suite uses some of it")]
mod goma_client;
mod harness;
mod local_auth;
mod local_inputs;
mod program;
mod real_casd;
mod real_compiler;
mod relay;
mod relay_program;
mod settings;
mod trouble;
