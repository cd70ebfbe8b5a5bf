//! Handing calls through: statuses as they are, messages one by one, cuts as cuts.

use super::contact::Contact;
use crate::resume;
use futures_util::future::{join_all, pending, try_join};
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use motefarm_proto::mote;
use std::error::Error as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{mpsc, oneshot};
use tonic::{Response, Status, Streaming};

/// Batches of an upload on their way to one buildlet.
const UPLOAD_QUEUE: usize = 2;

/// A buildlet's status as the farm's. What our own transport made of a broken connection loses
/// its cause on the way to the caller, who knows by it that asking again may help: so it is said.
pub(super) fn passed(status: Status) -> Status {
    if status.source().is_some() {
        let words = resume::words(&status);
        // Without the page of a manual that rustls adds.
        let cause = words.split(": http").next().unwrap_or_default();
        return Status::unavailable(format!("lost the buildlet: {cause}"));
    }
    let details = bytes::Bytes::copy_from_slice(status.details());
    Status::with_details(status.code(), status.message(), details)
}

/// A buildlet's stream as the farm's.
pub(super) fn passed_on<T: Send + 'static>(
    answer: Result<Response<Streaming<T>>, Status>,
) -> Result<Response<BoxStream<'static, Result<T, Status>>>, Status> {
    let stream = answer.map_err(passed)?.into_inner();
    Ok(Response::new(stream.map(|item| item.map_err(passed)).boxed()))
}

/// What goes out of a call that brings messages: `head`, then what comes in, turned. When that
/// breaks off, the other half says why, and [`unless_cut`] ends the call: half of a file must not
/// look like all of it.
pub(super) fn forward<In, Out>(
    head: Out,
    incoming: Streaming<In>,
    turn: fn(In) -> Out,
) -> (Outgoing<Out>, oneshot::Receiver<Status>)
where
    In: Send + 'static,
    Out: Send + 'static,
{
    let (broke, cut) = oneshot::channel();
    let rest = stream::unfold((incoming, broke), move |(mut incoming, broke)| async move {
        match incoming.message().await {
            Ok(message) => message.map(|message| (turn(message), (incoming, broke))),
            Err(status) => {
                let _ = broke.send(status);
                // The call is dropped.
                pending().await
            }
        }
    });
    (Outgoing(stream::iter([head]).chain(rest).boxed()), cut)
}

/// A stream with a name: rustc can not see that a future is `Send` which holds a bare boxed one.
pub(super) struct Outgoing<T>(BoxStream<'static, T>);

impl<T> Stream for Outgoing<T> {
    type Item = T;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_next_unpin(cx)
    }
}

/// The answer of a call, unless what it brings broke off first.
pub(super) async fn unless_cut<T>(
    cut: oneshot::Receiver<Status>,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    tokio::select! {
        answer = answer => answer.map_err(passed),
        Ok(status) = cut => Err(status),
    }
}

/// Uploads to every one of them what comes in once. One that fails drops out; it fails only if all
/// do, for the others' trees ask again for what they lack.
pub(super) async fn upload_to_all(
    contacts: Vec<&Contact>,
    mut incoming: Streaming<mote::BlobBatch>,
) -> Result<mote::UploadSummary, Status> {
    let mut feeds = Vec::with_capacity(contacts.len());
    let mut calls = Vec::with_capacity(contacts.len());
    for contact in contacts {
        let (sender, mut receiver) = mpsc::channel(UPLOAD_QUEUE);
        let (over, is_over) = oneshot::channel::<()>();
        feeds.push((sender, is_over));
        let mut client = contact.client();
        let batches = stream::poll_fn(move |cx| receiver.poll_recv(cx));
        calls.push(async move {
            let answer = client.upload_blobs(batches).await.map_err(passed);
            drop(over);
            answer
        });
    }
    let feed = async {
        while let Some(batch) = incoming.message().await? {
            let mut left = Vec::with_capacity(feeds.len());
            for (sender, mut is_over) in feeds {
                let taken = tokio::select! {
                    sent = sender.send(batch.clone()) => sent.is_ok(),
                    _ = &mut is_over => false,
                };
                if taken {
                    left.push((sender, is_over));
                }
            }
            feeds = left;
            if feeds.is_empty() {
                break;
            }
        }
        drop(feeds);
        Ok::<_, Status>(())
    };
    let (_, answers) = try_join(feed, async { Ok(join_all(calls).await) }).await?;
    let mut sum: Option<mote::UploadSummary> = None;
    let mut failure = None;
    for answer in answers {
        match answer {
            Ok(answer) => {
                let (answer, sum) = (answer.into_inner(), sum.get_or_insert_default());
                sum.stored += answer.stored;
                sum.stored_bytes += answer.stored_bytes;
            }
            Err(status) => failure = failure.or(Some(status)),
        }
    }
    sum.ok_or_else(|| failure.unwrap_or_else(|| Status::unavailable("no buildlet is in contact")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use tonic::Code;

    #[test]
    fn a_cut_stays_worth_another_try_and_a_refusal_stays_what_it_is() {
        let cut = passed(Status::from_error(Box::new(io::Error::from(io::ErrorKind::ConnectionReset))));
        assert_eq!(cut.code(), Code::Unavailable);
        assert!(cut.message().contains("reset") && cut.source().is_none(), "{cut}");
        let refusal = passed(Status::out_of_range("released"));
        assert_eq!((refusal.code(), refusal.message()), (Code::OutOfRange, "released"));
    }
}
