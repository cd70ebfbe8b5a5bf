//! Archives that were begun and wait to be fetched, once, by whoever has the key.
//!
//! The client asks for an address and then fetches it, not looking at the HTTP status: what goes
//! wrong must be said before it has the address. So the archive is begun at once, and its first
//! piece is here when the address is given; what holds the rest back is the link's flow control.

use super::address::Key;
use crate::farm::FarmError;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use motefarm_core::Timestamp;
use motefarm_proto::mote::TarChunk;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// How long a begun archive waits for its reader.
const LIFE: Duration = Duration::from_secs(60);
/// How many wait at once: each holds a stream of its buildlet's and a piece in memory.
const MOST: usize = 64;

/// An archive's bytes.
pub(super) type Archive = BoxStream<'static, Result<Bytes, FarmError>>;

struct Waiting {
    archive: Archive,
    until: Timestamp,
}

/// All that wait.
#[derive(Default)]
pub(super) struct Archives(Mutex<HashMap<Key, Waiting>>);

impl Archives {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Key, Waiting>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits for an archive's first piece, or says why there is none; then keeps it for its reader.
    pub(super) async fn keep(
        &self,
        mut chunks: BoxStream<'static, Result<TarChunk, FarmError>>,
        now: Timestamp,
    ) -> Result<Key, FarmError> {
        let first = match chunks.next().await {
            Some(first) => first?,
            None => return Err(FarmError::Unavailable("the archive ended before it began; ask again".to_owned())),
        };
        let rest = chunks.map(|chunk| chunk.map(|chunk| chunk.data));
        let archive = stream::once(async move { Ok(first.data) }).chain(rest).boxed();
        self.expire(now);
        let mut waiting = self.waiting();
        if waiting.len() >= MOST {
            return Err(FarmError::Exhausted(format!("{MOST} archives wait to be fetched; try again later")));
        }
        let key = Key::generate();
        waiting.insert(key.clone(), Waiting { archive, until: now + LIFE });
        Ok(key)
    }

    /// The archive with this key, for its one reader.
    pub(super) fn take(&self, key: &Key, now: Timestamp) -> Option<Archive> {
        self.waiting().remove(key).filter(|waiting| waiting.until > now).map(|waiting| waiting.archive)
    }

    /// Lets go of what nobody fetched.
    pub(super) fn expire(&self, now: Timestamp) {
        self.waiting().retain(|_, waiting| waiting.until > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt as _;

    const NOW: Timestamp = Timestamp::from_millis(5);

    fn chunks(texts: &[&'static str]) -> BoxStream<'static, Result<TarChunk, FarmError>> {
        let chunks: Vec<_> =
            texts.iter().map(|text| Ok(TarChunk { data: Bytes::from_static(text.as_bytes()) })).collect();
        stream::iter(chunks).boxed()
    }

    #[tokio::test]
    async fn an_archive_is_fetched_once_and_in_time() {
        let archives = Archives::default();
        let key = archives.keep(chunks(&["one", "two"]), NOW).await.unwrap();
        let pieces: Vec<Bytes> = archives.take(&key, NOW).unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), b"onetwo");
        assert!(archives.take(&key, NOW).is_none());
        let late = archives.keep(chunks(&["x"]), NOW).await.unwrap();
        assert!(archives.take(&late, NOW + LIFE).is_none());
    }

    #[tokio::test]
    async fn what_can_not_begin_has_no_address_and_the_waiting_are_bounded() {
        let archives = Archives::default();
        let failing = stream::once(async { Err(FarmError::Invalid("no such directory".to_owned())) }).boxed();
        assert!(matches!(archives.keep(failing, NOW).await, Err(FarmError::Invalid(_))));
        assert!(archives.keep(chunks(&[]), NOW).await.is_err());
        for _ in 0..MOST {
            archives.keep(chunks(&["x"]), NOW).await.unwrap();
        }
        assert!(matches!(archives.keep(chunks(&["x"]), NOW).await, Err(FarmError::Exhausted(_))));
        archives.keep(chunks(&["x"]), NOW + LIFE).await.unwrap();
    }
}
