//! Any bytes as the body of a Goma client's request, packed or plain: what is taken is what it says, and every action
//! made of it can be carried out.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| motefarm_bridge::fuzzing::request(bytes));
