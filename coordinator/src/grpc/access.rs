//! `mote.v1.Access`.

use super::status::caller;
use crate::app::App;
use crate::farm::{admin, share};
use crate::signed_in::UsedToken;
use motefarm_core::name::UserName;
use motefarm_proto::mote;
use motefarm_proto::mote::access_server::Access;
use std::sync::Arc;
use tonic::{Request, Response, Status};

pub(super) struct AccessService(pub(super) Arc<App>);

type Answer<T> = Result<Response<T>, Status>;

fn user(text: &str) -> Result<UserName, Status> {
    text.parse().map_err(|e| Status::invalid_argument(format!("field user: {e}")))
}

#[tonic::async_trait]
impl Access for AccessService {
    async fn share_instance(
        &self,
        request: Request<mote::ShareInstanceRequest>,
    ) -> Answer<mote::ShareInstanceResponse> {
        let caller = caller(&request)?;
        let request = request.get_ref();
        share::share(&self.0, &caller, &request.instance, &user(&request.user)?).await?;
        Ok(Response::new(mote::ShareInstanceResponse {}))
    }

    async fn unshare_instance(
        &self,
        request: Request<mote::UnshareInstanceRequest>,
    ) -> Answer<mote::UnshareInstanceResponse> {
        let caller = caller(&request)?;
        let request = request.get_ref();
        let was_shared = share::unshare(&self.0, &caller, &request.instance, &user(&request.user)?).await?;
        Ok(Response::new(mote::UnshareInstanceResponse { was_shared }))
    }

    async fn revoke_own_token(
        &self,
        request: Request<mote::RevokeOwnTokenRequest>,
    ) -> Answer<mote::RevokeOwnTokenResponse> {
        let caller = caller(&request)?;
        let token = request.extensions().get::<UsedToken>().copied();
        let name = admin::revoke_own_token(&self.0, &caller, token).await?;
        Ok(Response::new(mote::RevokeOwnTokenResponse { name }))
    }
}
