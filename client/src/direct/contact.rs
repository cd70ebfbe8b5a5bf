//! One buildlet in contact, and one's own instance there.

use super::address::Address;
use super::passing::passed;
use super::place::{Target, about_token};
use crate::connection::within;
use crate::error::{Error, io_words};
use crate::resume;
use motefarm_core::lease::LeaseTerms;
use motefarm_net::dial::{self, Bearer};
use motefarm_net::tls;
use motefarm_proto::mote::buildlet_client::BuildletClient;
use motefarm_proto::{MAX_MESSAGE_BYTES, mote};
use sha2::{Digest as _, Sha256};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Status};
use uuid::{Builder, Uuid};

/// For the buildlet to say what it is.
const DESCRIBE_WITHIN: Duration = Duration::from_secs(10);

/// The buildlet's service, as who is asking.
pub(super) type Client = BuildletClient<InterceptedService<Channel, Bearer>>;

/// See the module.
pub(super) struct Contact {
    client: Client,
    pub(super) address: Address,
    pub(super) hostname: String,
    /// The same at every use: whoever asks again finds what was there.
    pub(super) instance_id: String,
    pub(super) user: String,
    made: OnceCell<Made>,
}

/// The instance, since it was seen to be there.
pub(super) struct Made {
    pub(super) work_dir: String,
    pub(super) idle_timeout: Duration,
}

impl Contact {
    /// Says hello: fails within seconds if nobody answers, or not the one that is meant.
    pub(super) async fn open(target: &Target, user: &str) -> Result<Self, Error> {
        let Target { address, ca_pem, token } = target;
        let place = address.place();
        let broken = |problem: String| Error::Settings {
            problem,
            next: "take the CA certificate anew from tls/ca.pem in the buildlet's data directory".to_owned(),
        };
        let tls = tls::client_config(ca_pem).map_err(|e| broken(format!("the CA certificate is no use: {e}")))?;
        let bearer = token.as_deref().map_or_else(|| Ok(Bearer::none()), Bearer::new).map_err(|_| Error::Settings {
            problem: "the token holds characters no token has".to_owned(),
            next: about_token(),
        })?;
        let channel = dial::channel(dial::Target::Tls { address: place.clone(), tls: Arc::new(tls) });
        let channel = channel.await.map_err(|error| match error.cause.kind() {
            // What rustls makes of a certificate it does not trust.
            io::ErrorKind::InvalidData => {
                broken(format!("the buildlet at {place} is not of the CA that is trusted: {}", io_words(&error.cause)))
            }
            kind => Error::NoBuildlet {
                address: place.clone(),
                cause: io_words(&error.cause),
                refused: kind == io::ErrorKind::ConnectionRefused,
            },
        })?;
        let client = BuildletClient::with_interceptor(channel, bearer)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let mut asking = client.clone();
        let described = within(DESCRIBE_WITHIN, asking.describe(mote::DescribeRequest {})).await;
        let described = described.map_err(|failure| match failure.code() {
            Code::Unauthenticated => Error::Settings {
                problem: match token {
                    Some(_) => format!("the buildlet at {place} does not take this token"),
                    None => format!("the buildlet at {place} wants a token, and there is none"),
                },
                next: about_token(),
            },
            _ if resume::is_transient(&failure) => {
                Error::NoBuildlet { address: place.clone(), cause: resume::words(&failure), refused: false }
            }
            _ => Error::refused(&format!("ask what the buildlet at {place} is"), &failure),
        })?;
        let mote::BuildletDescription { buildlet_id, hostname, host_type, .. } = described.into_inner();
        if host_type != address.host_type.as_str() {
            let right = address.to_string().replacen(address.host_type.as_str(), &host_type, 1);
            return Err(Error::usage(
                format!("the buildlet at {place} is a {host_type}, not a {}", address.host_type),
                format!("write {right}"),
            ));
        }
        let instance_id = instance_id(&buildlet_id, &host_type, user).to_string();
        let (address, user) = (address.clone(), user.to_owned());
        Ok(Self { client, address, hostname, instance_id, user, made: OnceCell::new() })
    }

    /// The service.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Sees to it that the instance is there: makes it on the first use, and when it has ended
    /// since. Once a process: a command that is asked for again must not begin anew in an empty
    /// instance. `idle_timeout` counts for a new one only.
    pub(super) async fn ready(&self, idle_timeout: Duration) -> Result<&Made, Status> {
        self.made.get_or_try_init(|| self.make(idle_timeout)).await
    }

    async fn make(&self, idle_timeout: Duration) -> Result<Made, Status> {
        let terms = LeaseTerms { idle_timeout, ..LeaseTerms::default() };
        let request = mote::BuildletCreateInstanceRequest {
            instance_id: self.instance_id.clone(),
            name: self.address.to_string(),
            terms: Some(terms.into()),
            leased_by_use: true,
            ..Default::default()
        };
        let answer = self.client().create_instance(request).await.map_err(|failure| match failure.code() {
            // The last one is on its way out, and its place free in a moment.
            Code::FailedPrecondition => Status::unavailable(failure.message()),
            _ => passed(failure),
        })?;
        Ok(Made { work_dir: answer.into_inner().work_dir, idle_timeout })
    }
}

/// One instance for each buildlet, type and user: two people who debug the same machine do not
/// meet, and one finds what he left.
fn instance_id(buildlet_id: &str, host_type: &str, user: &str) -> Uuid {
    let mut hasher = Sha256::new();
    for part in ["motefarm direct instance", buildlet_id, host_type, user] {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let hash: [u8; 32] = hasher.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_belongs_to_a_buildlet_a_type_and_a_user() {
        let id = instance_id("b", "linux-amd64", "alice");
        assert_eq!(id, instance_id("b", "linux-amd64", "alice"));
        assert!(id.to_string().parse::<motefarm_core::InstanceId>().is_ok());
        for other in [("b", "linux-amd64", "bob"), ("b", "linux-amd6", "4alice"), ("c", "linux-amd64", "alice")] {
            assert_ne!(id, instance_id(other.0, other.1, other.2));
        }
    }
}
