//! `mote.v1.SignIn`: what is asked without a token.

use crate::app::App;
use crate::oidc::{Progress, SignIns};
use crate::peer::Peer;
use motefarm_proto::mote;
use motefarm_proto::mote::sign_in_server::SignIn;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

pub(super) struct SignInService {
    pub(super) app: Arc<App>,
    /// If an issuer is configured.
    pub(super) sign_ins: Option<Arc<SignIns>>,
}

type Answer<T> = Result<Response<T>, Status>;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl SignInService {
    fn sign_ins(&self) -> Result<&Arc<SignIns>, Status> {
        let none = || Status::unimplemented("this farm has no sign-in page; an admin makes tokens");
        self.sign_ins.as_ref().ok_or_else(none)
    }
}

#[tonic::async_trait]
impl SignIn for SignInService {
    async fn describe_sign_in(&self, _: Request<mote::DescribeSignInRequest>) -> Answer<mote::DescribeSignInResponse> {
        let issuer = self.sign_ins.as_ref().map(|sign_ins| sign_ins.issuer().to_owned()).unwrap_or_default();
        Ok(Response::new(mote::DescribeSignInResponse { issuer }))
    }

    async fn begin_sign_in(&self, request: Request<mote::BeginSignInRequest>) -> Answer<mote::BeginSignInResponse> {
        let address = request.extensions().get::<Peer>().map(|peer| peer.remote.ip());
        let begun = self.sign_ins()?.begin(&self.app, &request.get_ref().device, address).await?;
        Ok(Response::new(mote::BeginSignInResponse {
            sign_in_id: begun.sign_in_id,
            user_code: begun.user_code,
            verification_uri: begun.verification_uri,
            verification_uri_complete: begun.verification_uri_complete,
            interval_ms: millis(begun.interval),
            expires_in_ms: millis(begun.expires_in),
        }))
    }

    /// Goes on to its end when the caller leaves: the issuer answers once.
    async fn poll_sign_in(&self, request: Request<mote::PollSignInRequest>) -> Answer<mote::PollSignInResponse> {
        let (app, sign_ins) = (self.app.clone(), self.sign_ins()?.clone());
        let id = request.into_inner().sign_in_id;
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.app.spawn(async move {
            let _ = answer.send(sign_ins.poll(&app, &id).await);
        });
        let progress = answered.await.map_err(|_| Status::unavailable("the coordinator is stopping"))??;
        Ok(Response::new(match progress {
            Progress::Waiting(interval) => {
                mote::PollSignInResponse { interval_ms: millis(interval), ..Default::default() }
            }
            Progress::SignedIn { token, name, user, expires_at } => mote::PollSignInResponse {
                token: token.secret().to_owned(),
                user: user.to_string(),
                token_name: name,
                token_expires_at_ms: expires_at.as_millis(),
                interval_ms: 0,
            },
        }))
    }
}
