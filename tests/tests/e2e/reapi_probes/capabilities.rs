//! What a client asks first.

use super::Probe;
use super::ground::{Ground, told};
use motefarm_proto::reapi::capabilities_client::CapabilitiesClient;
use motefarm_proto::reapi::{CacheCapabilities, GetCapabilitiesRequest, SemVer, ServerCapabilities};
use tonic::Status;

pub(super) const PROBES: [Probe; 5] = [
    ("versions announced", versions),
    ("batch limit announced", batch_limit),
    ("zstd announced, for single blobs and for batches", zstd),
    ("SHA256 announced for the cache and, in the old and the new field, for execution", sha256),
    ("an instance name that nobody configured", unknown_instance),
];

fn capabilities(ground: &Ground, instance_name: &str) -> Result<ServerCapabilities, Status> {
    let request = GetCapabilitiesRequest { instance_name: instance_name.to_owned() };
    let answer = ground.rpc.wait(CapabilitiesClient::new(ground.rpc.authorized()).get_capabilities(request));
    answer.map(tonic::Response::into_inner)
}

fn cache(ground: &Ground) -> CacheCapabilities {
    capabilities(ground, "").expect("an answer").cache_capabilities.expect("a cache")
}

fn versions(ground: &Ground) -> String {
    let shown = |version: Option<SemVer>| version.map_or("none".to_owned(), |v| format!("{}.{}", v.major, v.minor));
    told(capabilities(ground, ""), |it| format!("{}–{}", shown(it.low_api_version), shown(it.high_api_version)))
}

fn batch_limit(ground: &Ground) -> String {
    cache(ground).max_batch_total_size_bytes.to_string()
}

fn zstd(ground: &Ground) -> String {
    let cache = cache(ground);
    match (&cache.supported_compressors[..], &cache.supported_batch_update_compressors[..]) {
        ([1], [1]) => "both".to_owned(),
        other => format!("{other:?}"),
    }
}

fn sha256(ground: &Ground) -> String {
    let it = capabilities(ground, "").expect("an answer");
    let execution = it.execution_capabilities.unwrap_or_default();
    let cache = it.cache_capabilities.unwrap_or_default().digest_functions;
    match (&cache[..], execution.digest_function, &execution.digest_functions[..]) {
        ([1], 1, [1]) => "all three".to_owned(),
        other => format!("{other:?}"),
    }
}

fn unknown_instance(ground: &Ground) -> String {
    told(capabilities(ground, "some/where else"), |_| "answered".to_owned())
}
