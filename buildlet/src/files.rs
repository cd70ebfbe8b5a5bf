//! Files and directories of an instance, one by one: put, read, listed, removed.
//!
//! A command may have made anything in the work directory, links above all, and may change it while
//! we look. Paths are opened part by part, and no link is followed. Everything here blocks.
//!
//! **Absent on purpose:** instances and how callers are reached.

mod get;
mod list;
mod put;
mod remove;
mod way;

pub(crate) use get::{Opened, open};
pub(crate) use list::{Listing, list};
pub(crate) use put::put;
pub(crate) use remove::remove;
pub(crate) use way::{dir, failed, make_dir};

use std::path::PathBuf;

/// The directories of an instance that file work is about.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// What peers' paths are relative to.
    pub(crate) work: PathBuf,
    /// See [`crate::staging`].
    pub(crate) staging: PathBuf,
}

#[cfg(test)]
mod tests;
