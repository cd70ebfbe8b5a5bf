//! The output of one execution on disk.
//!
//! One supervisor appends frames, any number of readers follow, and neither waits for the other:
//! what is shared is the files. A frame that is not wholly there yet is not there. Offsets count
//! payload bytes of both streams together, positions count bytes of the file; neither ever moves,
//! also when acknowledged frames are released by punching a hole.
//!
//! **Absent on purpose:** processes, and who reads.

pub(crate) mod frame;
pub(crate) mod reader;
pub(crate) mod released;
pub(crate) mod writer;
