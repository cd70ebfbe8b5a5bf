//! What carries the commands' calls: a channel to a coordinator, or a service in this process.

use super::DirectFarm;
use motefarm_net::dial::Bearer;
use motefarm_proto::MAX_MESSAGE_BYTES;
use motefarm_proto::mote::farm_server::FarmServer;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, StdError, http};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

/// See the module.
#[derive(Clone)]
pub(crate) enum Transport {
    /// To a coordinator.
    Farm(InterceptedService<Channel, Bearer>),
    /// To ourselves.
    Direct(FarmServer<DirectFarm>, Arc<DirectFarm>),
}

impl Transport {
    /// Calls are answered here, by asking buildlets.
    pub(crate) fn to_buildlets(farm: DirectFarm) -> Self {
        let farm = Arc::new(farm);
        let service = FarmServer::from_arc(farm.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Self::Direct(service, farm)
    }

    /// Those buildlets, if it is so.
    pub(crate) fn buildlets(&self) -> Option<&DirectFarm> {
        match self {
            Self::Farm(_) => None,
            Self::Direct(_, farm) => Some(farm),
        }
    }
}

impl Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<Self::Response, StdError>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        match self {
            Self::Farm(channel) => channel.poll_ready(cx).map_err(StdError::from),
            Self::Direct(..) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Self::Farm(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { Ok(answer.await?.map(Body::new)) })
            }
            Self::Direct(service, _) => {
                let answer = service.call(request);
                Box::pin(async move { answer.await.map_err(|never| match never {}) })
            }
        }
    }
}
