//! Bounds of one command, set in the command itself so that they do not bind its supervisor.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// See `InstanceLimits`; 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: u64,
    /// Counted per user namespace, so per instance in a sandbox; the kernel exempts the machine's root.
    pub(crate) processes: u64,
    pub(crate) file_bytes: u64,
}

impl Limits {
    /// Applies them to the calling process and what it becomes. Only lowers.
    pub(crate) fn apply(&self) -> nix::Result<()> {
        let pairs = [
            (Resource::RLIMIT_AS, self.memory_bytes),
            (Resource::RLIMIT_NPROC, self.processes),
            (Resource::RLIMIT_FSIZE, self.file_bytes),
        ];
        for (resource, bound) in pairs.into_iter().filter(|(_, bound)| *bound > 0) {
            let (_, most) = getrlimit(resource)?;
            let bound = bound.min(most);
            setrlimit(resource, bound, bound)?;
        }
        Ok(())
    }
}
