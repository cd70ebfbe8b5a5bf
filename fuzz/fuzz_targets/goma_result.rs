//! Any bytes as what a server answers of an action: a client is never told to write what it did not ask for.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| motefarm_bridge::fuzzing::result(bytes));
