//! Signing in to, and sharing on, the farm in the tests.

use super::Service;
use motefarm_proto::mote::access_server::Access;
use motefarm_proto::mote::sign_in_server::SignIn;
use motefarm_proto::mote::*;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Access for Service {
    async fn share_instance(
        &self,
        request: Request<ShareInstanceRequest>,
    ) -> Result<Response<ShareInstanceResponse>, Status> {
        drop(self.called("share_instance"));
        match request.get_ref().user.as_str() {
            "nobody" => Err(Status::not_found("there is no user \"nobody\"")),
            _ => Ok(Response::new(ShareInstanceResponse {})),
        }
    }

    async fn unshare_instance(
        &self,
        _: Request<UnshareInstanceRequest>,
    ) -> Result<Response<UnshareInstanceResponse>, Status> {
        Ok(Response::new(UnshareInstanceResponse { was_shared: true }))
    }

    async fn revoke_own_token(
        &self,
        _: Request<RevokeOwnTokenRequest>,
    ) -> Result<Response<RevokeOwnTokenResponse>, Status> {
        drop(self.called("revoke_own_token"));
        Ok(Response::new(RevokeOwnTokenResponse { name: "laptop".into() }))
    }
}

#[tonic::async_trait]
impl SignIn for Service {
    async fn describe_sign_in(
        &self,
        _: Request<DescribeSignInRequest>,
    ) -> Result<Response<DescribeSignInResponse>, Status> {
        Ok(Response::new(DescribeSignInResponse { issuer: self.called("describe_sign_in").issuer.clone() }))
    }

    async fn begin_sign_in(&self, _: Request<BeginSignInRequest>) -> Result<Response<BeginSignInResponse>, Status> {
        Ok(Response::new(BeginSignInResponse {
            sign_in_id: "signin_1".into(),
            user_code: "ABCD-EFGH".into(),
            verification_uri: "https://id.example/device".into(),
            verification_uri_complete: "https://id.example/device?user_code=ABCD-EFGH".into(),
            interval_ms: 200,
            expires_in_ms: 60_000,
        }))
    }

    async fn poll_sign_in(&self, _: Request<PollSignInRequest>) -> Result<Response<PollSignInResponse>, Status> {
        let polls = self.called("poll_sign_in").calls.iter().filter(|call| **call == "poll_sign_in").count();
        let token = if polls < 3 { String::new() } else { "mote_by_page".to_owned() };
        Ok(Response::new(PollSignInResponse { token, interval_ms: 200, ..Default::default() }))
    }
}
