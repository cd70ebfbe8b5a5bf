//! What the allocator keeps for later.
//!
//! A bridge holds bodies of megabytes for moments, in whichever thread has them just then. glibc gives each
//! thread memory of its own and keeps what was freed in it: after a burst that was ten times what was in use.

/// Heaps that threads share. Two processors seldom want one at the same time.
#[cfg(target_env = "gnu")]
const ARENAS: i32 = 2;
/// From this size on memory is the system's again as soon as it is free. Smaller than a body or a file, larger
/// than what a message is made of.
#[cfg(target_env = "gnu")]
const APART_BYTES: i32 = 256 << 10;
/// Free memory at a heap's end that is kept.
#[cfg(target_env = "gnu")]
const SPARE_BYTES: i32 = 4 << 20;

/// Bounds it. To be called before there is a second thread.
#[cfg(target_env = "gnu")]
pub(crate) fn keep_little() {
    for (parameter, value) in
        [(libc::M_ARENA_MAX, ARENAS), (libc::M_MMAP_THRESHOLD, APART_BYTES), (libc::M_TRIM_THRESHOLD, SPARE_BYTES)]
    {
        #[expect(unsafe_code, reason = "there is no other way to tell glibc but a variable of the environment")]
        // SAFETY: mallopt takes two numbers and touches none of our memory; at worst it refuses.
        let taken = unsafe { libc::mallopt(parameter, value) };
        if taken == 0 {
            tracing::debug!(parameter, value, "the allocator does not take it");
        }
    }
}

/// Other allocators have other habits.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_little() {}
