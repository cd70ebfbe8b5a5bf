//! Who waits for a file is woken when it changes: one inotify descriptor for the whole process.
//!
//! A watcher looks, waits, and looks again; what happens between the look and the wait is counted,
//! so no wake-up is lost.

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

/// What tells that an execution ended: its outcome renamed into place, or its claim closed.
const ENDS: AddWatchFlags = AddWatchFlags::IN_MOVED_TO.union(AddWatchFlags::IN_CLOSE_WRITE);
/// What tells of output besides.
const OUTPUT: AddWatchFlags = ENDS.union(AddWatchFlags::IN_MODIFY);

/// The shared descriptor.
#[derive(Clone)]
pub(crate) struct Wakeups(Arc<Inner>);

struct Inner {
    inotify: AsyncFd<Watched>,
    table: Mutex<HashMap<WatchDescriptor, Entry>>,
}

/// Lets the runtime have the descriptor.
struct Watched(Inotify);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

struct Entry {
    path: PathBuf,
    changes: watch::Sender<u64>,
    users: usize,
    output_users: usize,
}

/// What a watcher wants to hear of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// The end only: costs nothing while output is written.
    End,
    /// Every write too.
    Output,
}

/// One watcher's place.
pub(crate) struct Watch {
    inner: Arc<Inner>,
    descriptor: WatchDescriptor,
    of: Of,
    changes: watch::Receiver<u64>,
}

impl Wakeups {
    /// Must be called within a runtime; the reading task lives as long as it.
    pub(crate) fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        #[expect(unsafe_code, reason = "the safe way to register a descriptor is deprecated")]
        // SAFETY: an Inotify owns its descriptor and keeps the same for as long as it lives.
        let inotify = unsafe { AsyncFd::register_with_interest(Watched(inotify), Interest::READABLE) }?;
        let inner = Arc::new(Inner { inotify, table: Mutex::default() });
        let reading = Arc::downgrade(&inner);
        tokio::spawn(async move {
            while let Some(inner) = reading.upgrade() {
                if let Err(error) = inner.pass_on().await {
                    tracing::error!(%error, "inotify failed; readers of output will hang");
                    return;
                }
            }
        });
        Ok(Self(inner))
    }

    /// Watches a directory.
    pub(crate) fn watch(&self, dir: &Path, of: Of) -> io::Result<Watch> {
        let mut table = self.0.table();
        // Adds to what others want: the kernel has one watch an inode.
        let flags = match of {
            Of::Output => OUTPUT,
            Of::End => ENDS,
        };
        let flags = flags | AddWatchFlags::from_bits_retain(libc::IN_MASK_ADD);
        let descriptor = self.0.inotify.get_ref().0.add_watch(dir, flags)?;
        let entry = table.entry(descriptor).or_insert_with(|| Entry {
            path: dir.to_owned(),
            changes: watch::Sender::new(0),
            users: 0,
            output_users: 0,
        });
        entry.users += 1;
        entry.output_users += usize::from(of == Of::Output);
        let changes = entry.changes.subscribe();
        drop(table);
        Ok(Watch { inner: self.0.clone(), descriptor, of, changes })
    }
}

impl Inner {
    fn table(&self) -> MutexGuard<'_, HashMap<WatchDescriptor, Entry>> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    async fn pass_on(&self) -> io::Result<()> {
        let mut ready = self.inotify.readable().await?;
        let events = match self.inotify.get_ref().0.read_events() {
            Ok(events) => events,
            Err(Errno::EAGAIN) => {
                ready.clear_ready();
                return Ok(());
            }
            Err(Errno::EINTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let table = self.table();
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                // Some were lost, nobody knows whose: everybody looks.
                table.values().for_each(|entry| entry.changes.send_modify(|n| *n += 1));
            } else if let Some(entry) = table.get(&event.wd) {
                entry.changes.send_modify(|n| *n += 1);
            }
        }
        Ok(())
    }
}

impl Watch {
    /// To be called before looking.
    pub(crate) fn before_looking(&mut self) {
        self.changes.borrow_and_update();
    }

    /// Waits for a change since [`Self::before_looking`]. Cancellation safe.
    pub(crate) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // The sender is in the table as long as we are.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut table = self.inner.table();
        let Some(entry) = table.get_mut(&self.descriptor) else { return };
        entry.users -= 1;
        let was_output = self.of == Of::Output;
        entry.output_users -= usize::from(was_output);
        let inotify = &self.inner.inotify.get_ref().0;
        if entry.users == 0 {
            table.remove(&self.descriptor);
            // Fails if the directory is gone and the watch with it: as good.
            let _ = inotify.rm_watch(self.descriptor);
        } else if was_output && entry.output_users == 0 {
            // Moved since: it goes on hearing more than it needs.
            let _ = inotify.add_watch(&entry.path, ENDS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn a_change_between_look_and_wait_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("spool"), "").unwrap();
        let wakeups = Wakeups::new().unwrap();
        let mut end = wakeups.watch(dir.path(), Of::End).unwrap();
        let mut output = wakeups.watch(dir.path(), Of::Output).unwrap();
        end.before_looking();
        output.before_looking();
        std::fs::File::options()
            .write(true)
            .open(dir.path().join("spool"))
            .and_then(|mut f| {
                use std::io::Write as _;
                f.write_all(b"x")?;
                // Not closed here: a close would tell the other one too.
                std::mem::forget(f);
                Ok(())
            })
            .unwrap();
        tokio::time::timeout(Duration::from_secs(5), output.changed()).await.unwrap();
        drop(output);
        let renamed = dir.path().join("tmp");
        std::fs::write(&renamed, "").unwrap();
        end.before_looking();
        std::fs::rename(&renamed, dir.path().join("outcome")).unwrap();
        tokio::time::timeout(Duration::from_secs(5), end.changed()).await.unwrap();
        drop(end);
        assert!(wakeups.0.table().is_empty());
    }
}
