//! `mote.v1.Farm`.

mod puts;

use super::status::{caller, of_batch, shown_token};
use crate::app::App;
use crate::farm::{
    FarmError, bootstrap, create, destroy, exec, fetch, files, groups, info, renew, snapshots, ssh, transfer,
};
use crate::signed_in::UsedToken;
use crate::ssh::HOST_ALIAS;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use motefarm_cas::batch::{BatchError, BatchReceiver};
use motefarm_proto::mote::farm_server::Farm;
use motefarm_proto::{convert, mote};
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

/// An upload that stands still this long is over.
const UPLOAD_SILENCE: Duration = Duration::from_secs(60);

pub(super) struct FarmService(pub(super) Arc<App>);

type Answer<T> = Result<Response<T>, Status>;
type StreamOf<T> = BoxStream<'static, Result<T, Status>>;

fn streaming<T: Send + 'static>(stream: BoxStream<'static, Result<T, FarmError>>) -> Response<StreamOf<T>> {
    Response::new(stream.map_err(Status::from).boxed())
}

#[tonic::async_trait]
impl Farm for FarmService {
    type CreateInstanceStream = StreamOf<mote::CreateInstanceEvent>;
    type ExecuteStream = StreamOf<mote::ExecEvent>;
    type AttachExecStream = StreamOf<mote::ExecEvent>;
    type GetTarStream = StreamOf<mote::TarChunk>;
    type GetFileStream = StreamOf<mote::FileChunk>;
    type ListDirStream = StreamOf<mote::DirListing>;

    async fn who_am_i(&self, request: Request<mote::WhoAmIRequest>) -> Answer<mote::WhoAmIResponse> {
        let caller = caller(&request)?;
        let token = match request.extensions().get::<UsedToken>() {
            Some(used) => self.0.store.token(&used.0).await.map_err(FarmError::from)?,
            None => None,
        };
        Ok(Response::new(mote::WhoAmIResponse {
            user: caller.user.to_string(),
            role: caller.role.as_str().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            token_expires_at_ms: token.as_ref().and_then(|token| token.expires_at).map_or(0, |at| at.as_millis()),
            token_name: token.map(|token| token.name).unwrap_or_default(),
        }))
    }

    async fn list_host_types(&self, _: Request<mote::ListHostTypesRequest>) -> Answer<mote::ListHostTypesResponse> {
        Ok(Response::new(mote::ListHostTypesResponse { host_types: info::list_host_types(&self.0).await? }))
    }

    async fn create_instance(
        &self,
        request: Request<mote::CreateInstanceRequest>,
    ) -> Answer<Self::CreateInstanceStream> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let id = convert::instance_id(&request.instance_id)?;
        let host_type =
            request.host_type.parse().map_err(|e| Status::invalid_argument(format!("field host_type: {e}")))?;
        let wish = create::Wish {
            id,
            host_type,
            idle_timeout: (request.idle_timeout_ms > 0).then(|| Duration::from_millis(request.idle_timeout_ms)),
            from_snapshot: match request.from_snapshot.as_str() {
                "" => None,
                name => Some(groups::label("from_snapshot", name)?),
            },
            groups: request.groups.iter().map(|group| groups::label("groups", group)).collect::<Result<_, _>>()?,
        };
        Ok(streaming(create::create_from(&self.0, &caller, wish).await?))
    }

    async fn list_instances(
        &self,
        request: Request<mote::ListInstancesRequest>,
    ) -> Answer<mote::ListInstancesResponse> {
        let caller = caller(&request)?;
        let instances = match request.get_ref() {
            mote::ListInstancesRequest { all_users: false, shared: true } => {
                info::list_usable(&self.0, &caller).await?
            }
            request => info::list_instances(&self.0, &caller, request.all_users).await?,
        };
        Ok(Response::new(mote::ListInstancesResponse { instances }))
    }

    async fn ping_instance(&self, request: Request<mote::PingInstanceRequest>) -> Answer<mote::PingInstanceResponse> {
        let caller = caller(&request)?;
        let (instance, round_trip_us) = transfer::ping(&self.0, &caller, &request.get_ref().instance).await?;
        Ok(Response::new(mote::PingInstanceResponse { instance: Some(instance), round_trip_us }))
    }

    async fn destroy_instance(
        &self,
        request: Request<mote::DestroyInstanceRequest>,
    ) -> Answer<mote::DestroyInstanceResponse> {
        let caller = caller(&request)?;
        destroy::destroy(&self.0, &caller, &request.get_ref().instance).await?;
        Ok(Response::new(mote::DestroyInstanceResponse {}))
    }

    async fn execute(&self, request: Request<mote::ExecuteRequest>) -> Answer<Self::ExecuteStream> {
        let caller = caller(&request)?;
        Ok(streaming(exec::execute(&self.0, &caller, request.into_inner()).await?))
    }

    async fn attach_exec(&self, request: Request<mote::AttachExecRequest>) -> Answer<Self::AttachExecStream> {
        let caller = caller(&request)?;
        Ok(streaming(exec::attach(&self.0, &caller, request.into_inner()).await?))
    }

    async fn list_execs(&self, request: Request<mote::ListExecsRequest>) -> Answer<mote::ListExecsResponse> {
        let caller = caller(&request)?;
        let execs = exec::list(&self.0, &caller, &request.get_ref().instance).await?;
        Ok(Response::new(mote::ListExecsResponse { execs }))
    }

    async fn ack_output(&self, request: Request<mote::AckOutputRequest>) -> Answer<mote::AckOutputResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        exec::ack(&self.0, &caller, &request.exec_id, request.offset).await?;
        Ok(Response::new(mote::AckOutputResponse {}))
    }

    async fn write_stdin(&self, request: Request<mote::WriteStdinRequest>) -> Answer<mote::WriteStdinResponse> {
        let caller = caller(&request)?;
        Ok(Response::new(exec::write_stdin(&self.0, &caller, request.into_inner()).await?))
    }

    async fn signal_exec(&self, request: Request<mote::SignalExecRequest>) -> Answer<mote::SignalExecResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        exec::signal(&self.0, &caller, &request.exec_id, request.signal).await?;
        Ok(Response::new(mote::SignalExecResponse {}))
    }

    async fn cancel_exec(&self, request: Request<mote::CancelExecRequest>) -> Answer<mote::CancelExecResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        exec::cancel(&self.0, &caller, &request.exec_id, request.grace_ms).await?;
        Ok(Response::new(mote::CancelExecResponse {}))
    }

    async fn upload_blobs(&self, request: Request<Streaming<mote::BlobBatch>>) -> Answer<mote::UploadSummary> {
        let mut batches = request.into_inner();
        let mut receiver = BatchReceiver::new(self.0.cas.clone());
        loop {
            let batch = match tokio::time::timeout(UPLOAD_SILENCE, batches.next()).await {
                Ok(Some(batch)) => batch?,
                Ok(None) => break,
                Err(_) => return Err(Status::deadline_exceeded("nothing came on this upload for a minute")),
            };
            // Hashing and writing block; one batch at a time keeps memory to one batch.
            receiver = blocking(move || receiver.accept(batch).map(|()| receiver)).await?;
        }
        Ok(Response::new(blocking(move || receiver.finish()).await?))
    }

    async fn sync_tree(&self, request: Request<mote::SyncTreeRequest>) -> Answer<mote::TreeSyncResult> {
        let caller = caller(&request)?;
        Ok(Response::new(transfer::sync_tree(&self.0, &caller, request.into_inner()).await?))
    }

    async fn get_tar(&self, request: Request<mote::GetTarRequest>) -> Answer<Self::GetTarStream> {
        let caller = caller(&request)?;
        Ok(streaming(files::get_tar(&self.0, &caller, request.into_inner()).await?))
    }

    async fn renew_instance(
        &self,
        request: Request<mote::RenewInstanceRequest>,
    ) -> Answer<mote::RenewInstanceResponse> {
        let caller = caller(&request)?;
        let instance = renew::renew_by_name(&self.0, &caller, &request.get_ref().instance).await?;
        Ok(Response::new(mote::RenewInstanceResponse { instance: Some(instance) }))
    }

    async fn put_file(&self, request: Request<Streaming<mote::PutFileRequest>>) -> Answer<mote::PutFileResponse> {
        let caller = caller(&request)?;
        let (target, content) = puts::open(request.into_inner()).await?;
        Ok(Response::new(files::put_file(&self.0, &caller, target, content).await?))
    }

    async fn put_tar(&self, request: Request<Streaming<mote::PutTarRequest>>) -> Answer<mote::PutTarResponse> {
        let caller = caller(&request)?;
        let (target, archive) = puts::open(request.into_inner()).await?;
        Ok(Response::new(files::put_tar(&self.0, &caller, target, archive).await?))
    }

    async fn put_tar_from_url(&self, request: Request<mote::PutTarFromUrlRequest>) -> Answer<mote::PutTarResponse> {
        let caller = caller(&request)?;
        Ok(Response::new(fetch::put_tar_from_url(&self.0, &caller, request.into_inner()).await?))
    }

    async fn get_file(&self, request: Request<mote::GetFileRequest>) -> Answer<Self::GetFileStream> {
        let caller = caller(&request)?;
        Ok(streaming(files::get_file(&self.0, &caller, request.into_inner()).await?))
    }

    async fn list_dir(&self, request: Request<mote::ListDirRequest>) -> Answer<Self::ListDirStream> {
        let caller = caller(&request)?;
        Ok(streaming(files::list_dir(&self.0, &caller, request.into_inner()).await?))
    }

    async fn remove_paths(&self, request: Request<mote::RemovePathsRequest>) -> Answer<mote::RemovePathsResponse> {
        let caller = caller(&request)?;
        let removed = files::remove_paths(&self.0, &caller, request.into_inner()).await?;
        Ok(Response::new(mote::RemovePathsResponse { removed }))
    }

    async fn install_bootstrap(
        &self,
        request: Request<mote::InstallBootstrapRequest>,
    ) -> Answer<mote::InstallBootstrapResponse> {
        let caller = caller(&request)?;
        Ok(Response::new(bootstrap::install(&self.0, &caller, &request.get_ref().instance).await?))
    }

    async fn create_snapshot(&self, request: Request<mote::CreateSnapshotRequest>) -> Answer<mote::SnapshotInfo> {
        let caller = caller(&request)?;
        Ok(Response::new(snapshots::create(&self.0, &caller, request.into_inner()).await?))
    }

    async fn list_snapshots(
        &self,
        request: Request<mote::ListSnapshotsRequest>,
    ) -> Answer<mote::ListSnapshotsResponse> {
        let caller = caller(&request)?;
        Ok(Response::new(mote::ListSnapshotsResponse { snapshots: snapshots::list(&self.0, &caller).await? }))
    }

    async fn remove_snapshot(
        &self,
        request: Request<mote::RemoveSnapshotRequest>,
    ) -> Answer<mote::RemoveSnapshotResponse> {
        let caller = caller(&request)?;
        snapshots::remove(&self.0, &caller, &request.get_ref().name).await?;
        Ok(Response::new(mote::RemoveSnapshotResponse {}))
    }

    async fn sign_ssh_key(&self, request: Request<mote::SignSshKeyRequest>) -> Answer<mote::SignSshKeyResponse> {
        let (caller, token) = (caller(&request)?, shown_token(&request));
        let request = request.into_inner();
        let signed = ssh::sign(&self.0, &caller, token, &request.instance, &request.public_key).await?;
        let host_authority = signed.gateway.authority.host_authority().map_err(|e| Status::internal(e.to_string()))?;
        Ok(Response::new(mote::SignSshKeyResponse {
            certificate: signed.certificate,
            valid_until_ms: signed.valid_until.as_millis(),
            gateway_host: signed.gateway.host.clone().unwrap_or_default(),
            gateway_port: signed.gateway.port.into(),
            host_authority,
            host_alias: HOST_ALIAS.to_owned(),
            instance_id: signed.instance.id.to_string(),
            instance_name: signed.instance.name,
        }))
    }

    async fn create_group(&self, request: Request<mote::CreateGroupRequest>) -> Answer<mote::CreateGroupResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        groups::create(&self.0, &caller, &request.group, request.if_absent).await?;
        Ok(Response::new(mote::CreateGroupResponse {}))
    }

    async fn destroy_group(&self, request: Request<mote::DestroyGroupRequest>) -> Answer<mote::DestroyGroupResponse> {
        let caller = caller(&request)?;
        groups::destroy(&self.0, &caller, &request.get_ref().group).await?;
        Ok(Response::new(mote::DestroyGroupResponse {}))
    }

    async fn list_groups(&self, request: Request<mote::ListGroupsRequest>) -> Answer<mote::ListGroupsResponse> {
        let caller = caller(&request)?;
        Ok(Response::new(mote::ListGroupsResponse { groups: groups::list(&self.0, &caller).await? }))
    }

    async fn add_to_group(&self, request: Request<mote::AddToGroupRequest>) -> Answer<mote::AddToGroupResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        groups::add(&self.0, &caller, &request.group, &request.instances).await?;
        Ok(Response::new(mote::AddToGroupResponse {}))
    }

    async fn remove_from_group(
        &self,
        request: Request<mote::RemoveFromGroupRequest>,
    ) -> Answer<mote::RemoveFromGroupResponse> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let not_in_group = groups::remove(&self.0, &caller, &request.group, &request.instances).await?;
        Ok(Response::new(mote::RemoveFromGroupResponse { not_in_group }))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BatchError> + Send + 'static,
) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(of_batch),
        Err(_) => Err(Status::internal("storing blobs failed; the operator finds the cause in the coordinator's log")),
    }
}
