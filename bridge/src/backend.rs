//! The REAPI server that does the work, whichever it is: where it is, what it can, and what goes wrong there.
//!
//! Nothing here relies on what real servers differ in: metadata of operations, inlined outputs, the form of
//! names, checks of what is written.

pub mod address;
pub mod byte_stream;
pub mod capabilities;
pub mod cas;
pub mod execute;
mod fault;
pub mod in_flight;
pub mod retry;
mod sent;

pub use address::Address;
pub use capabilities::Abilities;
pub use fault::{Fault, Stage};

use crate::backend::capabilities::AbilitiesCache;
use motefarm_net::dial::Bearer;
use motefarm_proto::MAX_MESSAGE_BYTES;
use motefarm_proto::reapi::action_cache_client::ActionCacheClient;
use motefarm_proto::reapi::bytestream::byte_stream_client::ByteStreamClient;
use motefarm_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use motefarm_proto::reapi::execution_client::ExecutionClient;
use sent::Sent;
use std::sync::Arc;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

type Service = InterceptedService<Channel, Bearer>;

/// A server under one instance name. Cheap to clone; clones share the connection and what is known of it.
#[derive(Clone)]
pub struct Backend {
    service: Service,
    /// Verbatim: it may be empty, and may hold slashes.
    instance: Arc<str>,
    abilities: Arc<AbilitiesCache>,
    in_flight: in_flight::InFlight,
    sent: Sent,
}

impl Backend {
    /// Over this channel. Nothing is asked yet.
    pub fn new(channel: Channel, bearer: Bearer, instance: &str) -> Self {
        Self {
            service: InterceptedService::new(channel, bearer),
            instance: instance.into(),
            abilities: Arc::default(),
            in_flight: in_flight::InFlight::default(),
            sent: Sent::default(),
        }
    }

    /// Bytes that were sent to the CAS in this stage, whatever became of them.
    pub fn sent_bytes(&self, stage: Stage) -> u64 {
        self.sent.bytes(stage)
    }

    /// What the server can: asked once, and again after a failure, but not by every request.
    pub async fn abilities(&self) -> Result<Abilities, Fault> {
        self.abilities.get(self.service.clone(), &self.instance).await
    }

    fn instance(&self) -> String {
        self.instance.to_string()
    }

    fn cas_client(&self) -> ContentAddressableStorageClient<Service> {
        ContentAddressableStorageClient::new(self.service.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn byte_stream_client(&self) -> ByteStreamClient<Service> {
        ByteStreamClient::new(self.service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn action_cache_client(&self) -> ActionCacheClient<Service> {
        ActionCacheClient::new(self.service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    fn execution_client(&self) -> ExecutionClient<Service> {
        ExecutionClient::new(self.service.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }
}
