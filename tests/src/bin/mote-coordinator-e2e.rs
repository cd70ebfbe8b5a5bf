//! `mote-coordinator` as the suites start it.

fn main() -> std::process::ExitCode {
    motefarm_coordinator::main_impl()
}
