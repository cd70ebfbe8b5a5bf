//! The admins' service of the farm in the tests.

use super::Service;
use motefarm_proto::mote::admin_server::Admin;
use motefarm_proto::mote::*;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl Admin for Service {
    async fn create_join_token(
        &self,
        _: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let token = "id.secret.hash".to_owned();
        let made = CreateJoinTokenResponse {
            token,
            id: "id".into(),
            coordinator: "farm:8119".into(),
            expires_at_ms: i64::MAX,
        };
        Ok(Response::new(made))
    }

    async fn create_token(&self, _: Request<CreateTokenRequest>) -> Result<Response<CreateTokenResponse>, Status> {
        Ok(Response::new(CreateTokenResponse { token: "mote_new".into() }))
    }

    async fn list_users(&self, _: Request<ListUsersRequest>) -> Result<Response<ListUsersResponse>, Status> {
        Err(Status::permission_denied("alice is no admin"))
    }

    async fn add_user(&self, _: Request<AddUserRequest>) -> Result<Response<AddUserResponse>, Status> {
        Ok(Response::new(AddUserResponse {}))
    }

    async fn remove_user(&self, _: Request<RemoveUserRequest>) -> Result<Response<RemoveUserResponse>, Status> {
        Ok(Response::new(RemoveUserResponse {}))
    }

    async fn list_tokens(&self, _: Request<ListTokensRequest>) -> Result<Response<ListTokensResponse>, Status> {
        let token = TokenInfo { user: "alice".into(), name: "default".into(), created_at_ms: 1, ..Default::default() };
        Ok(Response::new(ListTokensResponse { tokens: vec![token] }))
    }

    async fn revoke_token(&self, _: Request<RevokeTokenRequest>) -> Result<Response<RevokeTokenResponse>, Status> {
        Ok(Response::new(RevokeTokenResponse {}))
    }

    async fn list_join_tokens(
        &self,
        _: Request<ListJoinTokensRequest>,
    ) -> Result<Response<ListJoinTokensResponse>, Status> {
        Ok(Response::new(ListJoinTokensResponse { tokens: Vec::new() }))
    }

    async fn revoke_join_token(
        &self,
        _: Request<RevokeJoinTokenRequest>,
    ) -> Result<Response<RevokeJoinTokenResponse>, Status> {
        Ok(Response::new(RevokeJoinTokenResponse {}))
    }

    async fn list_buildlets(
        &self,
        _: Request<ListBuildletsRequest>,
    ) -> Result<Response<ListBuildletsResponse>, Status> {
        Ok(Response::new(ListBuildletsResponse { buildlets: Vec::new() }))
    }

    async fn list_audit(&self, _: Request<ListAuditRequest>) -> Result<Response<ListAuditResponse>, Status> {
        let entry = AuditEntry { at_ms: 1, user: "alice".into(), action: "create".into(), ..Default::default() };
        Ok(Response::new(ListAuditResponse { entries: vec![entry] }))
    }
}
