//! `mote-buildlet` as the suites start it.

fn main() -> std::process::ExitCode {
    motefarm_buildlet::main_impl()
}
