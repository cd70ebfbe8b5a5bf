//! The gRPC edge: parses requests, calls one use case, maps errors. Decides nothing.

mod access;
mod admin;
mod content;
mod farm;
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
use motefarm_proto::reapi::bytestream::byte_stream_server::ByteStreamServer;
use motefarm_proto::reapi::capabilities_server::CapabilitiesServer;
use motefarm_proto::reapi::content_addressable_storage_server::ContentAddressableStorageServer;
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
    let sign_ins = app.config.oidc.clone().map(SignIns::new);
    Routes::new(farm)
        .add_service(SignInServer::new(sign_in::SignInService { app: app.clone(), sign_ins }))
        .add_service(AccessServer::new(access::AccessService(app.clone())))
        .add_service(AdminServer::new(admin::AdminService(app.clone())))
        .add_service(ContentServer::new(content::ContentService(app.clone())))
        .add_service(cas)
        .add_service(bytes)
        .add_service(CapabilitiesServer::new(CapabilitiesService::default()))
        .prepare()
        .into_axum_router()
        // Without this, tonic answers every unknown path with 200 and status 12.
        .reset_fallback()
}
