//! `mote-coordinator`.

fn main() -> std::process::ExitCode {
    motefarm_coordinator::main_impl()
}
