//! `Capabilities`: what a client asks first.

use super::MAX_BATCH_TOTAL_BYTES;
use motefarm_proto::reapi::capabilities_server::Capabilities;
use motefarm_proto::reapi::{
    ActionCacheUpdateCapabilities, CacheCapabilities, ExecutionCapabilities, GetCapabilitiesRequest,
    PriorityCapabilities, SemVer, ServerCapabilities, compressor, digest_function, priority_capabilities,
    symlink_absolute_path_strategy,
};
use tonic::{Request, Response, Status};

/// Announces a CAS: SHA-256, zstd both ways; and what else whoever serves it does. By default nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct CapabilitiesService {
    /// Whether clients may write the action cache.
    pub update_enabled: bool,
    /// Whether actions are executed, at any priority.
    pub exec_enabled: bool,
}

impl CapabilitiesService {
    /// The announcement. API 2.0, which old Bazels insist on, to 2.3.
    pub fn announced(self) -> ServerCapabilities {
        let sha256 = digest_function::Value::Sha256.into();
        let priorities = vec![priority_capabilities::PriorityRange { min_priority: i32::MIN, max_priority: i32::MAX }];
        let execution = ExecutionCapabilities {
            digest_function: sha256,
            digest_functions: vec![sha256],
            exec_enabled: true,
            execution_priority_capabilities: Some(PriorityCapabilities { priorities }),
            ..ExecutionCapabilities::default()
        };
        let updates = ActionCacheUpdateCapabilities { update_enabled: self.update_enabled };
        let version = |minor| SemVer { major: 2, minor, ..SemVer::default() };
        ServerCapabilities {
            cache_capabilities: Some(CacheCapabilities {
                digest_functions: vec![sha256],
                action_cache_update_capabilities: Some(updates),
                max_batch_total_size_bytes: i64::try_from(MAX_BATCH_TOTAL_BYTES).unwrap_or(0),
                symlink_absolute_path_strategy: symlink_absolute_path_strategy::Value::Allowed.into(),
                supported_compressors: vec![compressor::Value::Zstd.into()],
                supported_batch_update_compressors: vec![compressor::Value::Zstd.into()],
                ..CacheCapabilities::default()
            }),
            // Absent where there is none: clients take a present one for a promise.
            execution_capabilities: self.exec_enabled.then_some(execution),
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
        Ok(Response::new(self.announced()))
    }
}
