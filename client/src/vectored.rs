//! Writing many pieces with few system calls.

use std::fs::File;
use std::io::{self, IoSlice, Write as _};

/// Writes all slices, whatever the single writes take. When `file` turns out to be non-blocking and
/// full, `wait` returns once it has room, or why that is hopeless.
pub(crate) fn write_all(
    file: &mut File,
    mut slices: &mut [IoSlice<'_>],
    wait: impl Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    // Drops empty slices at the front, so that a write of nothing means trouble.
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut slices, n),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => wait(file)?,
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
