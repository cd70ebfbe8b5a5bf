//! The bridge between a Goma client of the wire and a REAPI server of this process.

#![expect(clippy::unwrap_used, reason = "also the helpers of tests are tests")]

mod backends;
mod bytes;
mod calls;
mod compile;
mod doctor;
mod fake_reapi;
// The project and the client of the end-to-end suite, which know nothing of the bridge's code.
#[path = "../../../tests/src/compilers.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a library there, and each suite uses some of it")]
mod compilers;
#[path = "../../../tests/src/cxx_project.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a library there, and each suite uses some of it")]
mod cxx_project;
#[path = "../../../tests/src/goma_build.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a library there, and each suite uses some of it")]
mod goma_build;
#[path = "../../../tests/src/goma_client.rs"]
#[allow(dead_code, unreachable_pub, reason = "it is a library there, and each suite uses some of it")]
mod goma_client;
mod harness;
mod hostile;
mod local_auth;
mod local_inputs;
mod program;
mod real_compiler;
mod relay;
mod relay_program;
mod settings;
mod trouble;
