//! `mote.v1.Admin`.

use super::status::caller;
use crate::app::App;
use crate::farm::{admin, audit, info};
use crate::identity::Role;
use motefarm_core::name::UserName;
use motefarm_core::{HostType, Timestamp};
use motefarm_proto::mote;
use motefarm_proto::mote::admin_server::Admin;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

pub(super) struct AdminService(pub(super) Arc<App>);

type Answer<T> = Result<Response<T>, Status>;

fn user(text: &str) -> Result<UserName, Status> {
    text.parse().map_err(|e| Status::invalid_argument(format!("field user: {e}")))
}

fn life(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn optional(at: Option<Timestamp>) -> i64 {
    at.map_or(0, Timestamp::as_millis)
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn add_user(&self, request: Request<mote::AddUserRequest>) -> Answer<mote::AddUserResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let role = Role::from_word(&request.role).ok_or_else(|| {
            Status::invalid_argument(format!("field role: {:?} is neither admin nor user", request.role))
        })?;
        admin::add_user(&self.0, &caller, &user(&request.user)?, role).await?;
        Ok(Response::new(mote::AddUserResponse {}))
    }

    async fn list_users(&self, _: Request<mote::ListUsersRequest>) -> Answer<mote::ListUsersResponse> {
        let rows = self.0.store.users().await.map_err(crate::farm::FarmError::from)?;
        let users = rows
            .into_iter()
            .map(|row| mote::UserInfo {
                user: row.name.to_string(),
                role: row.role.as_str().to_owned(),
                created_at_ms: row.created_at.as_millis(),
            })
            .collect();
        Ok(Response::new(mote::ListUsersResponse { users }))
    }

    async fn remove_user(&self, request: Request<mote::RemoveUserRequest>) -> Answer<mote::RemoveUserResponse> {
        let caller = caller(&request)?;
        admin::remove_user(&self.0, &caller, &user(&request.get_ref().user)?).await?;
        Ok(Response::new(mote::RemoveUserResponse {}))
    }

    async fn create_token(&self, request: Request<mote::CreateTokenRequest>) -> Answer<mote::CreateTokenResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let token =
            admin::create_token(&self.0, &caller, &user(&request.user)?, &request.name, life(request.lifetime_ms))
                .await?;
        Ok(Response::new(mote::CreateTokenResponse { token: token.secret().to_owned() }))
    }

    async fn list_tokens(&self, request: Request<mote::ListTokensRequest>) -> Answer<mote::ListTokensResponse> {
        let of = match request.get_ref().user.as_str() {
            "" => None,
            name => Some(user(name)?),
        };
        let rows = self.0.store.tokens(of.as_ref()).await.map_err(crate::farm::FarmError::from)?;
        let tokens = rows
            .into_iter()
            .map(|row| mote::TokenInfo {
                user: row.user.to_string(),
                name: row.name,
                created_at_ms: row.created_at.as_millis(),
                expires_at_ms: optional(row.expires_at),
                last_used_at_ms: optional(row.last_used_at),
            })
            .collect();
        Ok(Response::new(mote::ListTokensResponse { tokens }))
    }

    async fn revoke_token(&self, request: Request<mote::RevokeTokenRequest>) -> Answer<mote::RevokeTokenResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        admin::revoke_token(&self.0, &caller, &user(&request.user)?, &request.name).await?;
        Ok(Response::new(mote::RevokeTokenResponse {}))
    }

    async fn create_join_token(
        &self,
        request: Request<mote::CreateJoinTokenRequest>,
    ) -> Answer<mote::CreateJoinTokenResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let host_type: HostType =
            request.host_type.parse().map_err(|e| Status::invalid_argument(format!("field host_type: {e}")))?;
        let (token, expires_at) =
            admin::create_join_token(&self.0, &caller, &host_type, life(request.lifetime_ms), request.one_time).await?;
        Ok(Response::new(mote::CreateJoinTokenResponse {
            token: token.reveal(),
            id: token.id,
            expires_at_ms: expires_at.as_millis(),
            coordinator: self.0.config.advertised.clone(),
        }))
    }

    async fn list_join_tokens(&self, _: Request<mote::ListJoinTokensRequest>) -> Answer<mote::ListJoinTokensResponse> {
        let rows = self.0.store.join_tokens().await.map_err(crate::farm::FarmError::from)?;
        let tokens = rows
            .into_iter()
            .map(|row| mote::JoinTokenInfo {
                id: row.id,
                host_type: row.host_type.to_string(),
                created_at_ms: row.created_at.as_millis(),
                expires_at_ms: row.expires_at.as_millis(),
                one_time: row.one_time,
                uses: row.uses,
            })
            .collect();
        Ok(Response::new(mote::ListJoinTokensResponse { tokens }))
    }

    async fn revoke_join_token(
        &self,
        request: Request<mote::RevokeJoinTokenRequest>,
    ) -> Answer<mote::RevokeJoinTokenResponse> {
        let caller = caller(&request)?;
        admin::revoke_join_token(&self.0, &caller, &request.get_ref().id).await?;
        Ok(Response::new(mote::RevokeJoinTokenResponse {}))
    }

    async fn list_buildlets(&self, _: Request<mote::ListBuildletsRequest>) -> Answer<mote::ListBuildletsResponse> {
        Ok(Response::new(mote::ListBuildletsResponse { buildlets: info::list_buildlets(&self.0).await? }))
    }

    async fn list_audit(&self, request: Request<mote::ListAuditRequest>) -> Answer<mote::ListAuditResponse> {
        let request = request.get_ref();
        let rows = audit::list(&self.0, &request.user, &request.action, request.since_ms, request.limit).await?;
        let entries = rows
            .into_iter()
            .map(|row| mote::AuditEntry {
                at_ms: row.at.as_millis(),
                user: row.actor,
                action: row.action,
                subject: row.subject,
                detail: row.detail,
            })
            .collect();
        Ok(Response::new(mote::ListAuditResponse { entries }))
    }
}
