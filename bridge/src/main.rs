//! `mote-bridge`.

fn main() -> std::process::ExitCode {
    motefarm_bridge::main_impl()
}
