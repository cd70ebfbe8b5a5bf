//! `mote-buildlet`: see the library, which the tests build under another name.

use std::process::ExitCode;

fn main() -> ExitCode {
    motefarm_buildlet::main_impl()
}
