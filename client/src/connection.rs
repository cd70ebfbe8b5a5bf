//! The one connection to the farm, and calls over it that survive its restarts.

use crate::direct::{self, DirectFarm, Transport};
use crate::error::{Error, io_words};
use crate::printer::Printer;
use crate::resume::Retry;
use motefarm_net::dial::{self, Bearer, Target};
use motefarm_net::tls::{self, ClientConfig, PeerProblem};
use motefarm_proto::MAX_MESSAGE_BYTES;
use motefarm_proto::mote::access_client::AccessClient;
use motefarm_proto::mote::admin_client::AdminClient;
use motefarm_proto::mote::content_client::ContentClient;
use motefarm_proto::mote::farm_client::FarmClient;
use motefarm_proto::reapi::bytestream::byte_stream_client::ByteStreamClient;
use motefarm_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use motefarm_proto::reapi::execution_client::ExecutionClient;
use motefarm_proto::reapi::{FindMissingBlobsRequest, FindMissingBlobsResponse};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

/// Longest wait for the answer of a short call before it is taken for lost and repeated.
const CALL_DEADLINE: Duration = Duration::from_secs(30);

/// Whom to talk to.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A coordinator.
    Farm {
        /// `host:port`.
        address: String,
        /// The only CA trusted there; empty: what this system trusts, for the address dialled.
        ca_pem: String,
        /// Who is asking.
        token: String,
    },
    /// Listening buildlets, without a coordinator.
    Direct(direct::Place),
}

impl Place {
    /// What run records know it by.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Farm { address, .. } => address,
            Self::Direct(place) => place.name(),
        }
    }
}

/// A transport that says who is asking.
pub(crate) type Authorized = Transport;

/// The farm's service.
pub(crate) type Client = FarmClient<Authorized>;

/// A farm in contact.
#[derive(Clone)]
pub(crate) struct Farm {
    transport: Transport,
    address: String,
    printer: Printer,
}

impl Farm {
    /// First contact: fails within [`dial::CONNECT_TIMEOUT`], naming address and cause.
    pub(crate) async fn connect(place: &Place, printer: Printer) -> Result<Self, Error> {
        let (address, ca_pem, token) = match place {
            Place::Farm { address, ca_pem, token } => (address, ca_pem, token),
            Place::Direct(place) => {
                let transport = Transport::to_buildlets(DirectFarm::connect(place).await?);
                return Ok(Self { transport, address: place.name().to_owned(), printer });
            }
        };
        let bearer = Bearer::new(token).map_err(|_| broken("the token holds characters no token has".to_owned()))?;
        let channel = reach(address, trust(ca_pem)?).await?;
        let transport = Transport::Farm(InterceptedService::new(channel, bearer));
        Ok(Self { transport, address: address.clone(), printer })
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The farm's service, once, without retries.
    pub(crate) fn client(&self) -> FarmClient<Authorized> {
        FarmClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The service of one's own tokens and shares, without retries.
    pub(crate) fn access(&self) -> AccessClient<Authorized> {
        AccessClient::new(self.transport.clone())
    }

    /// The admins' service, without retries.
    pub(crate) fn admin(&self) -> AdminClient<Authorized> {
        AdminClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The content store's own service, without retries.
    pub(crate) fn content(&self) -> ContentClient<Authorized> {
        ContentClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The farm's content-addressed storage, as the Remote Execution API has it.
    pub(crate) fn storage(&self) -> ContentAddressableStorageClient<Authorized> {
        ContentAddressableStorageClient::new(self.transport.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The same storage, blob by blob.
    pub(crate) fn bytes(&self) -> ByteStreamClient<Authorized> {
        ByteStreamClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Actions of the Remote Execution API.
    pub(crate) fn execution(&self) -> ExecutionClient<Authorized> {
        ExecutionClient::new(self.transport.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Those of these blobs that its store lacks.
    pub(crate) async fn missing_blobs(
        &self,
        request: FindMissingBlobsRequest,
    ) -> Result<Response<FindMissingBlobsResponse>, Status> {
        match self.transport.buildlets() {
            Some(buildlets) => buildlets.missing_blobs(request).await,
            None => self.storage().find_missing_blobs(request).await,
        }
    }

    /// Whether it is on this machine, where compressing costs more than it saves.
    pub(crate) fn is_local(&self) -> bool {
        is_loopback(&self.address)
    }

    /// A retry loop for a call or stream, with its patience.
    pub(crate) fn retry(&self, doing: impl Into<String>, patience: Duration) -> Retry {
        Retry::new(doing, patience, self.printer)
    }

    /// A short idempotent call, repeated while the farm is away.
    pub(crate) async fn call<T>(
        &self,
        doing: &str,
        attempt: impl AsyncFnMut(FarmClient<Authorized>) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        self.call_within(doing, CALL_DEADLINE, attempt).await
    }

    /// The same with another deadline for each attempt.
    pub(crate) async fn call_within<T>(
        &self,
        doing: &str,
        deadline: Duration,
        mut attempt: impl AsyncFnMut(FarmClient<Authorized>) -> Result<Response<T>, Status>,
    ) -> Result<T, Error> {
        let mut retry = self.retry(doing, crate::resume::SHORT_PATIENCE);
        loop {
            match within(deadline, attempt(self.client())).await {
                Ok(answer) => {
                    retry.contact();
                    return Ok(answer.into_inner());
                }
                Err(status) => retry.wait(&status).await?,
            }
        }
    }

    /// A call that may not be made twice, or whose failure is itself the answer.
    pub(crate) async fn call_once<T>(
        &self,
        doing: &str,
        answer: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        match within(CALL_DEADLINE, answer).await {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(Error::refused(doing, &status)),
        }
    }
}

fn broken(problem: String) -> Error {
    Error::Settings { problem, next: "take the farm's profile anew: `mote login`, or ask its admin".to_owned() }
}

/// Whom to believe: this CA alone or, without one, what the system trusts.
pub(crate) fn trust(ca_pem: &str) -> Result<ClientConfig, Error> {
    if ca_pem.is_empty() {
        return tls::client_config_system().map_err(|e| Error::Settings {
            problem: format!("the profile names no CA certificate, and this system's are no use: {e}"),
            next: "name the farm's CA with --ca, or `mote login` with --ca-fingerprint".to_owned(),
        });
    }
    tls::client_config(ca_pem).map_err(|e| broken(format!("the farm's CA certificate is no use: {e}")))
}

/// A channel to a farm's port, connected.
pub(crate) async fn reach(address: &str, tls: ClientConfig) -> Result<Channel, Error> {
    if let Err(cause) = dial::split_address(address) {
        return Err(broken(format!("the farm's address is wrong: {cause}")));
    }
    let target = Target::Tls { address: address.to_owned(), tls: Arc::new(tls) };
    dial::channel(target).await.map_err(|error| match PeerProblem::of(&error.cause) {
        Some(problem) => Error::Certificate { address: address.to_owned(), problem },
        None => Error::Unreachable {
            address: address.to_owned(),
            cause: io_words(&error.cause),
            refused: error.cause.kind() == io::ErrorKind::ConnectionRefused,
        },
    })
}

/// Whether `host:port`, or a direct address with its port, names this machine alone.
pub(crate) fn is_loopback(address: &str) -> bool {
    let address = address.rsplit_once('@').map_or(address, |(_, address)| address);
    let host = dial::split_address(address).map_or("", |(host, _)| host);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// The beginning of a stream, within the deadline of a short call.
pub(crate) async fn opened<T>(
    answer: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
) -> Result<Streaming<T>, Status> {
    within(CALL_DEADLINE, answer).await.map(Response::into_inner)
}

/// An answer within a deadline.
pub(crate) async fn within<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<Response<T>, Status> {
    tokio::time::timeout(deadline, answer)
        .await
        .unwrap_or_else(|_| Err(Status::unavailable(format!("no answer within {} s", deadline.as_secs()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_loopback() {
        for here in ["localhost:1", "127.0.0.1:8119", "127.9.9.9:1", "[::1]:5936", "linux-amd64@127.0.0.1:5936"] {
            assert!(is_loopback(here), "{here}");
        }
        for elsewhere in ["farm:8119", "10.0.0.1:1", "[::]:1", "localhost.example:1", "nonsense"] {
            assert!(!is_loopback(elsewhere), "{elsewhere}");
        }
    }
}
