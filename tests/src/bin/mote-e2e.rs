//! `mote` as the suites start it.

fn main() -> std::process::ExitCode {
    motefarm_client::main_impl()
}
