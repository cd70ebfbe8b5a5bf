//! The gRPC edge: parses requests, calls one use case, maps errors. Decides nothing.

mod access;
mod action_cache;
mod admin;
mod content;
pub mod execution;
mod farm;
mod operations;
mod sign_in;
pub(crate) mod status;

use crate::app::App;
use crate::oidc::SignIns;
use motefarm_cas::service::{ByteStreamService, CapabilitiesService, CasService};
use motefarm_proto::MAX_MESSAGE_BYTES;
use motefarm_proto::mote::access_server::AccessServer;
use motefarm_proto::mote::admin_server::AdminServer;
use motefarm_proto::mote::content_server::ContentServer;
use motefarm_proto::mote::farm_server::FarmServer;
use motefarm_proto::mote::sign_in_server::SignInServer;
use motefarm_proto::reapi::action_cache_server::ActionCacheServer;
use motefarm_proto::reapi::bytestream::byte_stream_server::ByteStreamServer;
use motefarm_proto::reapi::capabilities_server::CapabilitiesServer;
use motefarm_proto::reapi::content_addressable_storage_server::ContentAddressableStorageServer;
use motefarm_proto::reapi::execution_server::ExecutionServer;
use motefarm_proto::reapi::longrunning::operations_server::OperationsServer;
use std::sync::Arc;
use tonic::service::Routes;

/// Every gRPC service of the coordinator.
pub fn routes(app: &Arc<App>) -> axum::Router {
    let farm = FarmServer::new(farm::FarmService(app.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let cas = ContentAddressableStorageServer::new(CasService::new(app.cas.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let bytes =
        ByteStreamServer::new(ByteStreamService::new(app.cas.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let capabilities =
        CapabilitiesService { update_enabled: app.config.reapi.clients_may_write_action_cache, exec_enabled: true };
    let cache = ActionCacheServer::new(action_cache::ActionCacheService(app.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let execution = ExecutionServer::new(execution::ExecutionService(app.clone()))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let operations =
        OperationsServer::new(operations::OperationsService(app.clone())).max_encoding_message_size(MAX_MESSAGE_BYTES);
    let sign_ins = app.config.oidc.clone().map(SignIns::new);
    Routes::new(farm)
        .add_service(SignInServer::new(sign_in::SignInService { app: app.clone(), sign_ins }))
        .add_service(AccessServer::new(access::AccessService(app.clone())))
        .add_service(AdminServer::new(admin::AdminService(app.clone())))
        .add_service(ContentServer::new(content::ContentService(app.clone())))
        .add_service(cas)
        .add_service(bytes)
        .add_service(CapabilitiesServer::new(capabilities))
        .add_service(cache)
        .add_service(execution)
        .add_service(operations)
        .prepare()
        .into_axum_router()
        // Without this, tonic answers every unknown path with 200 and status 12.
        .reset_fallback()
}
