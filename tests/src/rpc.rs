//! Calls over the wire without `mote`, to say what it never would.

use motefarm_net::dial::{Bearer, Target, channel};
use motefarm_net::tls;
use motefarm_proto::mote::admin_client::AdminClient;
use motefarm_proto::mote::farm_client::FarmClient;
use motefarm_proto::{MAX_MESSAGE_BYTES, mote};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tokio::runtime::Runtime;
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use uuid::Uuid;

/// A channel that says who is asking.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// A value of a profile.
#[track_caller]
pub fn profile_value(path: &Path, key: &str) -> String {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => panic!("no profile {}: {error}", path.display()),
    };
    let table: toml::Table = text.parse().expect("a profile is TOML");
    table[key].as_str().expect("a profile holds texts").to_owned()
}

/// A connection to a coordinator.
pub struct Rpc {
    runtime: Runtime,
    channel: Channel,
    bearer: Bearer,
}

impl Rpc {
    /// Connects as a profile says, with another token if one is given (an empty one: with none).
    #[track_caller]
    pub fn connect(profile: &Path, token: Option<&str>) -> Self {
        let own = profile_value(profile, "token");
        let bearer = match token.unwrap_or(&own) {
            "" => Bearer::none(),
            token => Bearer::new(token).expect("a token is plain text"),
        };
        let tls = tls::client_config(&profile_value(profile, "ca_pem")).expect("a profile's CA");
        let target = Target::Tls { address: profile_value(profile, "server"), tls: Arc::new(tls) };
        let runtime = Runtime::new().expect("a runtime");
        let channel = runtime.block_on(channel(target)).expect("the coordinator answers");
        Self { runtime, channel, bearer }
    }

    /// `mote.v1.Farm`.
    pub fn farm(&self) -> FarmClient<Authorized> {
        FarmClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(usize::MAX)
    }

    /// `mote.v1.Admin`.
    pub fn admin(&self) -> AdminClient<Authorized> {
        AdminClient::with_interceptor(self.channel.clone(), self.bearer.clone())
    }

    /// For any other service.
    pub fn authorized(&self) -> Authorized {
        InterceptedService::new(self.channel.clone(), self.bearer.clone())
    }

    /// Runs a future to its end.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Runs a command to its outcome; what it wrote and how it ended.
    pub fn execute(
        &self,
        instance: &str,
        exec_id: &str,
        spec: mote::ExecSpec,
    ) -> Result<(Vec<u8>, Option<mote::ExecOutcome>), Status> {
        let request = mote::ExecuteRequest {
            instance: instance.to_owned(),
            exec_id: exec_id.to_owned(),
            spec: Some(spec),
            offset: 0,
        };
        self.wait(async {
            let mut events = self.farm().execute(request).await?.into_inner();
            let (mut output, mut outcome) = (Vec::new(), None);
            while let Some(event) = events.message().await? {
                match event.event {
                    Some(mote::exec_event::Event::Output(chunk)) => {
                        assert_eq!(chunk.offset, output.len() as u64, "output has no gap and no overlap");
                        output.extend_from_slice(&chunk.data);
                    }
                    Some(mote::exec_event::Event::Outcome(end)) => outcome = Some(end),
                    _ => {}
                }
            }
            Ok((output, outcome))
        })
    }
}

/// A shell script as a command.
pub fn shell(script: &str) -> mote::ExecSpec {
    mote::ExecSpec {
        program: "/bin/sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        system_level: true,
        merge_output: true,
        ..mote::ExecSpec::default()
    }
}

/// A fresh id.
pub fn fresh_id() -> String {
    Uuid::now_v7().to_string()
}
