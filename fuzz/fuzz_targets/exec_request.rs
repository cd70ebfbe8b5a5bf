//! Any bytes as a request to execute: what is accepted can be carried out as it stands.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| motefarm_buildlet::fuzzing::exec_request(bytes));
