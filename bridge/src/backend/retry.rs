//! How often a call is tried: a bounded number of times, with growing waits, and as the server asks.

use super::{Fault, Stage};
use motefarm_net::backoff::Backoff;
use prost::Message as _;
use std::future::Future;
use std::time::Duration;
use tonic::{Code, Status};

/// Tries in all.
pub const MAX_TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// The longest wait a server may ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// Calls until it succeeds, fails for good, or was tried often enough. Cancellation safe if the call is.
pub async fn retrying<T, Call>(stage: Stage, mut call: impl FnMut() -> Call) -> Result<T, Fault>
where
    Call: Future<Output = Result<T, Status>>,
{
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    let mut tries = 1;
    loop {
        let status = match call().await {
            Ok(answer) => return Ok(answer),
            Err(status) => status,
        };
        let fault = Fault::of(stage, &status);
        if tries == MAX_TRIES || !is_transient(status.code()) {
            return Err(fault);
        }
        tracing::debug!(%fault, tries, "the backend is asked again");
        tokio::time::sleep(backoff.next_wait().max(asked_wait(&status))).await;
        tries += 1;
    }
}

/// Whether the same call may succeed later.
pub const fn is_transient(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Aborted | Code::ResourceExhausted | Code::Internal | Code::Unknown)
}

/// Whether a call is too big for the server, so that it must be made in pieces: tonic says the first,
/// grpc-core the second.
pub const fn is_too_big(code: Code) -> bool {
    matches!(code, Code::OutOfRange | Code::ResourceExhausted)
}

/// `google.rpc.RetryInfo` in the details of a status.
fn asked_wait(status: &Status) -> Duration {
    let Ok(details) = motefarm_proto::reapi::rpc::Status::decode(status.details()) else { return Duration::ZERO };
    let info = details.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"));
    let delay = info.and_then(|any| RetryInfo::decode(&any.value[..]).ok()).and_then(|info| info.retry_delay);
    let Some(delay) = delay else { return Duration::ZERO };
    let seconds = Duration::from_secs(u64::try_from(delay.seconds).unwrap_or(0));
    (seconds + Duration::from_nanos(u64::try_from(delay.nanos).unwrap_or(0))).min(LONGEST_ASKED)
}

/// `google.rpc.RetryInfo`, which the crate of REAPI's messages lacks.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<bazel_remote_apis::google::protobuf::Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use bazel_remote_apis::google::protobuf::{Any, Duration as Delay};
    use std::cell::Cell;

    async fn tried(code: Code, succeed_at: u32) -> (u32, Result<u32, Code>) {
        let tries = Cell::new(0);
        let result = retrying(Stage::Upload, || async {
            tries.set(tries.get() + 1);
            if tries.get() == succeed_at { Ok(tries.get()) } else { Err(Status::new(code, "no")) }
        });
        let result = result.await.map_err(|fault| fault.code);
        (tries.get(), result)
    }

    #[tokio::test(start_paused = true)]
    async fn transient_failures_are_tried_again_a_bounded_number_of_times() {
        assert_eq!(tried(Code::Unavailable, 3).await, (3, Ok(3)));
        assert_eq!(tried(Code::Unavailable, 100).await, (MAX_TRIES, Err(Code::Unavailable)));
        for code in [Code::NotFound, Code::InvalidArgument, Code::FailedPrecondition, Code::Unauthenticated] {
            assert_eq!(tried(code, 3).await, (1, Err(code)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_may_ask_for_a_longer_wait_within_bounds() {
        for (seconds, expected) in [(7, 7), (10_000, 30), (-5, 0)] {
            let info = RetryInfo { retry_delay: Some(Delay { seconds, nanos: 0 }) };
            let any = Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
            let details = motefarm_proto::reapi::rpc::Status { details: vec![any], ..Default::default() };
            let status = Status::with_details(Code::Unavailable, "busy", details.encode_to_vec().into());
            assert_eq!(asked_wait(&status), Duration::from_secs(expected));
        }
        assert_eq!(asked_wait(&Status::unavailable("no details")), Duration::ZERO);
    }
}
