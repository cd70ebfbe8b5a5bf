//! `mote-bridge` as the suites start it.

fn main() -> std::process::ExitCode {
    motefarm_bridge::main_impl()
}
