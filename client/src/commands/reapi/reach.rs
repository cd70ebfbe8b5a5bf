//! How a program that speaks the Remote Execution API reaches the farm.

use crate::cli::Reach as Flags;
use crate::commands::Context;
use crate::connection::{Place, is_loopback};
use crate::error::Error;
use motefarm_net::private_file;
use motefarm_net::tls;
use motefarm_proto::reapi::GetCapabilitiesRequest;
use motefarm_proto::reapi::capabilities_client::CapabilitiesClient;
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::Endpoint;

/// A farm on this machine answers at once, or closes a connection that is not TLS.
const CLEARTEXT_DEADLINE: Duration = Duration::from_secs(3);

/// See the module.
pub(super) struct Reach {
    pub(super) address: String,
    /// None where the farm answers its own user in the clear.
    pub(super) tls: Option<Tls>,
}

/// What a client needs for TLS.
pub(super) struct Tls {
    /// File with the farm's certificate authority; none where this system's are good enough.
    pub(super) ca_file: Option<PathBuf>,
    pub(super) token: String,
}

impl Reach {
    /// As every client takes it.
    pub(super) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "grpcs" } else { "grpc" };
        format!("{scheme}://{}", self.address)
    }
}

/// Asks the farm whether it knows us without a token; if not, keeps its authority where clients find it.
pub(super) async fn find(context: &Context, flags: &Flags) -> Result<Reach, Error> {
    let Place::Farm { address, ca_pem, token } = &context.settings.place else {
        return Err(Error::usage(
            "a buildlet without a farm is no backend of the Remote Execution API",
            "name a farm: --farm or --server",
        ));
    };
    if !flags.tls && is_loopback(address) && answers_in_clear(address).await {
        return Ok(Reach { address: address.clone(), tls: None });
    }
    let ca_file = (!ca_pem.is_empty()).then(|| keep_authority(context, ca_pem)).transpose()?;
    Ok(Reach { address: address.clone(), tls: Some(Tls { ca_file, token: token.clone() }) })
}

async fn answers_in_clear(address: &str) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else { return false };
    let ask = async {
        let channel = endpoint.connect().await.ok()?;
        CapabilitiesClient::new(channel).get_capabilities(GetCapabilitiesRequest::default()).await.ok()
    };
    tokio::time::timeout(CLEARTEXT_DEADLINE, ask).await.is_ok_and(|answer| answer.is_some())
}

/// The authority's certificate in a file of its own, named by its fingerprint: clients take no other form.
fn keep_authority(context: &Context, ca_pem: &str) -> Result<PathBuf, Error> {
    let fingerprint = tls::ca_hash(ca_pem).map_err(|e| Error::Settings {
        problem: format!("the farm's CA certificate is no use: {e}"),
        next: "take the farm's profile anew: `mote login`, or ask its admin".to_owned(),
    })?;
    let dir = context.settings.dirs.config.join("authorities");
    let path = dir.join(format!("{}.pem", fingerprint.get(..16).unwrap_or(&fingerprint)));
    let failed = |cause| Error::file("keep the farm's CA certificate in", &path, cause);
    private_file::create_dir(&dir).map_err(failed)?;
    private_file::write(&path, ca_pem.as_bytes()).map_err(failed)?;
    Ok(path)
}
