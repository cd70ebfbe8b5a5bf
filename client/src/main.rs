//! `mote`, the farm's command line. Everything is in the library, so that the end-to-end tests
//! can build the same program from it.

use std::process::ExitCode;

fn main() -> ExitCode {
    motefarm_client::main_impl()
}
