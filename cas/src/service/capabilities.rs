//! `Capabilities`: what a client asks first.

use super::MAX_BATCH_TOTAL_BYTES;
use motefarm_proto::reapi::capabilities_server::Capabilities;
use motefarm_proto::reapi::{
    ActionCacheUpdateCapabilities, CacheCapabilities, GetCapabilitiesRequest, SemVer, ServerCapabilities, compressor,
    digest_function, symlink_absolute_path_strategy,
};
use tonic::{Request, Response, Status};

/// Announces a CAS: SHA-256, zstd both ways, no execution. A coordinator that also executes or
/// caches actions starts from [`CapabilitiesService::announced`].
#[derive(Debug, Clone, Copy, Default)]
pub struct CapabilitiesService;

impl CapabilitiesService {
    /// The announcement. API 2.0, which old Bazels insist on, to 2.3.
    pub fn announced() -> ServerCapabilities {
        let version = |minor| SemVer { major: 2, minor, ..SemVer::default() };
        ServerCapabilities {
            cache_capabilities: Some(CacheCapabilities {
                digest_functions: vec![digest_function::Value::Sha256.into()],
                action_cache_update_capabilities: Some(ActionCacheUpdateCapabilities { update_enabled: false }),
                max_batch_total_size_bytes: i64::try_from(MAX_BATCH_TOTAL_BYTES).unwrap_or(0),
                symlink_absolute_path_strategy: symlink_absolute_path_strategy::Value::Allowed.into(),
                supported_compressors: vec![compressor::Value::Zstd.into()],
                supported_batch_update_compressors: vec![compressor::Value::Zstd.into()],
                ..CacheCapabilities::default()
            }),
            execution_capabilities: None,
            deprecated_api_version: None,
            low_api_version: Some(version(0)),
            high_api_version: Some(version(3)),
        }
    }
}

#[tonic::async_trait]
impl Capabilities for CapabilitiesService {
    async fn get_capabilities(
        &self,
        _request: Request<GetCapabilitiesRequest>,
    ) -> Result<Response<ServerCapabilities>, Status> {
        Ok(Response::new(Self::announced()))
    }
}
