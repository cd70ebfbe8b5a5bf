//! What a client sends on one channel, counted until it is taken.

use super::backlog::Backlog;
use russh::{ChannelId, ChannelMsg, ChannelReadHalf};
use std::sync::Arc;

/// See the module. When it is dropped, nothing of the channel is waited for any more.
pub(super) struct Inbound {
    id: u32,
    half: ChannelReadHalf,
    backlog: Arc<Backlog>,
}

impl Inbound {
    pub(super) fn new(id: ChannelId, half: ChannelReadHalf, backlog: Arc<Backlog>) -> Self {
        let id = id.into();
        backlog.open(id);
        Self { id, half, backlog }
    }

    /// The next message; `None` at the connection's end. Content counts until [`Self::taken`].
    pub(super) async fn next(&mut self) -> Option<ChannelMsg> {
        let message = self.half.wait().await?;
        match &message {
            ChannelMsg::Data { .. } => {}
            ChannelMsg::ExtendedData { data, .. } => self.taken(data.len()),
            // What the library sends by itself was never counted.
            ChannelMsg::WindowAdjusted { .. } | ChannelMsg::Eof | ChannelMsg::Close => {}
            _ => self.taken(0),
        }
        Some(message)
    }

    /// Content was passed on.
    pub(super) fn taken(&self, bytes: usize) {
        self.backlog.taken(self.id, bytes);
    }
}

impl Inbound {
    /// A part of a message's content was passed on, and the rest still waits.
    pub(super) fn taken_in_part(&self, bytes: usize) {
        self.backlog.taken_in_part(self.id, bytes);
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.backlog.close(self.id);
    }
}
