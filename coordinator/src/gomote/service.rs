//! `protos.GomoteService`, method by method: parses, calls one use case, answers in the client's words.

use super::Gomote;
use super::address::{Door, OBJECT, Source, source};
use super::objects::ObjectError;
use super::streams::{Listening, StreamOf, Wait, instance, is_leased};
use super::{command, listing};
use crate::farm::{FarmError, access, bootstrap, create, destroy, exec, fetch, files, info, renew, ssh};
use crate::grpc::status::{caller, shown_token};
use crate::identity::Identity;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use motefarm_core::{ExecId, InstanceId};
use motefarm_proto::gomote::gomote_service_server::GomoteService;
use motefarm_proto::{MAX_CHUNK_BYTES, gomote, mote};
use std::sync::Arc;
use tokio::time::Instant;
use tokio_util::io::ReaderStream;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

/// Lines of a listing in one message: what the Go server sends.
const LINES_A_MESSAGE: usize = 100;
/// Bytes of lines in the one message of a listing that is not streamed: the client takes 4 MiB.
const MOST_LINE_BYTES: usize = 3 << 20;
/// Paths in one call of the use case; the client sends any number.
const PATHS_A_CALL: usize = 10_000;
/// Bits of Go's `FileMode` that say what kind of thing it is: directory, link, pipe, socket, device,
/// character device, irregular.
const GO_MODE_TYPE: u32 = 1 << 31 | 1 << 27 | 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;

pub(super) struct Service(pub(super) Arc<Gomote>);

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    /// The caller, once it is sure that the instance they name is a name at all.
    fn caller_of<T>(&self, request: &Request<T>, gomote_id: &str) -> Result<Identity, Status> {
        if gomote_id.is_empty() {
            return Err(Status::invalid_argument("field gomote_id: is empty"));
        }
        caller(request)
    }

    async fn lines(
        &self,
        caller: &Identity,
        request: gomote::ListDirectoryRequest,
    ) -> Result<BoxStream<'static, Result<Vec<String>, FarmError>>, FarmError> {
        let hash = if request.digest { mote::list_dir_spec::Hash::Sha1 } else { mote::list_dir_spec::Hash::None };
        let list = mote::ListDirSpec {
            dir: request.directory,
            recursive: request.recursive,
            skip: request.skip_files.into_iter().filter(|skip| !skip.is_empty()).collect(),
            hash: hash.into(),
        };
        let request = mote::ListDirRequest { instance: request.gomote_id, list: Some(list) };
        let listings = files::list_dir(&self.0.app, caller, request).await?;
        let lines = |listing: mote::DirListing| listing.entries.iter().map(listing::line).collect();
        Ok(listings.map(move |listing| listing.map(lines)).boxed())
    }
}

/// Where the caller came in.
fn door<T>(request: &Request<T>) -> Result<Door, Status> {
    request.extensions().get::<Door>().cloned().ok_or_else(|| Status::internal("it is not known how this call came in"))
}

fn of_object(error: ObjectError) -> Status {
    match error {
        ObjectError::NotThere | ObjectError::Taken => Status::failed_precondition(error.to_string()),
        ObjectError::Full(_) => Status::resource_exhausted(error.to_string()),
        ObjectError::Io(_) => {
            tracing::error!(%error, "an upload could not be read");
            Status::internal(
                "the farm's uploads can not be used; its operator finds the cause in the coordinator's log",
            )
        }
    }
}

/// What did not arrive, as the client expects it said; what the caller can mend otherwise keeps its code.
fn unwritten(what: &str, error: FarmError) -> Status {
    let status = Status::from(error);
    match status.code() {
        Code::NotFound | Code::PermissionDenied | Code::Unavailable | Code::ResourceExhausted | Code::Internal => {
            status
        }
        _ => Status::failed_precondition(format!("unable to write {what}: {}", status.message())),
    }
}

#[tonic::async_trait]
impl GomoteService for Service {
    type CreateInstanceStream = StreamOf<gomote::CreateInstanceResponse>;
    type ExecuteCommandStream = StreamOf<gomote::ExecuteCommandResponse>;
    type ListDirectoryStreamingStream = StreamOf<gomote::ListDirectoryResponse>;

    async fn authenticate(
        &self,
        request: Request<gomote::AuthenticateRequest>,
    ) -> Answer<gomote::AuthenticateResponse> {
        caller(&request)?;
        Ok(Response::new(gomote::AuthenticateResponse {}))
    }

    async fn add_bootstrap(
        &self,
        request: Request<gomote::AddBootstrapRequest>,
    ) -> Answer<gomote::AddBootstrapResponse> {
        let caller = self.caller_of(&request, &request.get_ref().gomote_id)?;
        bootstrap::install(&self.0.app, &caller, &request.get_ref().gomote_id).await?;
        Ok(Response::new(gomote::AddBootstrapResponse { bootstrap_go_url: String::new() }))
    }

    async fn create_instance(
        &self,
        request: Request<gomote::CreateInstanceRequest>,
    ) -> Answer<Self::CreateInstanceStream> {
        let (app, caller) = (self.0.app.clone(), caller(&request)?);
        let host_type = request.get_ref().builder_type.parse();
        let host_type = host_type.map_err(|e| Status::invalid_argument(format!("field builder_type: {e}")))?;
        let id = InstanceId::from_uuid(Uuid::now_v7());
        let events = create::create(&app, &caller, id, host_type, None).await?;
        let wait = Wait { app, caller, id, events, begun: Instant::now(), complete: false };
        Ok(Response::new(wait.stream()))
    }

    async fn destroy_instance(
        &self,
        request: Request<gomote::DestroyInstanceRequest>,
    ) -> Answer<gomote::DestroyInstanceResponse> {
        let caller = self.caller_of(&request, &request.get_ref().gomote_id)?;
        destroy::destroy(&self.0.app, &caller, &request.get_ref().gomote_id).await?;
        Ok(Response::new(gomote::DestroyInstanceResponse {}))
    }

    async fn execute_command(
        &self,
        request: Request<gomote::ExecuteCommandRequest>,
    ) -> Answer<Self::ExecuteCommandStream> {
        let caller = self.caller_of(&request, &request.get_ref().gomote_id)?;
        let request = request.into_inner();
        let exec_id = ExecId::from_uuid(Uuid::now_v7()).to_string();
        let ask = mote::ExecuteRequest {
            instance: request.gomote_id.clone(),
            exec_id: exec_id.clone(),
            spec: Some(command::spec(request)),
            offset: 0,
        };
        let events = exec::execute(&self.0.app, &caller, ask).await?;
        Ok(Response::new(Listening::new(&self.0.app, caller, exec_id, events).stream()))
    }

    async fn instance_alive(
        &self,
        request: Request<gomote::InstanceAliveRequest>,
    ) -> Answer<gomote::InstanceAliveResponse> {
        let caller = self.caller_of(&request, &request.get_ref().gomote_id)?;
        let row = access::usable_instance(&self.0.app, &caller, &request.get_ref().gomote_id).await?;
        renew::renew(&self.0.app, &row).await?;
        Ok(Response::new(gomote::InstanceAliveResponse {}))
    }

    async fn list_directory(
        &self,
        request: Request<gomote::ListDirectoryRequest>,
    ) -> Answer<gomote::ListDirectoryResponse> {
        let caller = self.caller_of(&request, &request.get_ref().gomote_id)?;
        let mut lines = self.lines(&caller, request.into_inner()).await?;
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while let Some(more) = lines.try_next().await? {
            bytes += more.iter().map(|line| line.len() + 4).sum::<usize>();
            if bytes > MOST_LINE_BYTES {
                return Err(Status::resource_exhausted(
                    "this listing is longer than one message of 3 MiB; a newer gomote streams it",
                ));
            }
            entries.extend(more);
        }
        Ok(Response::new(gomote::ListDirectoryResponse { entries }))
    }

    async fn list_directory_streaming(
        &self,
        request: Request<gomote::ListDirectoryRequest>,
    ) -> Answer<Self::ListDirectoryStreamingStream> {
        let caller = self.caller_of(&request, &request.get_ref().gomote_id)?;
        let lines = self.lines(&caller, request.into_inner()).await?;
        let messages = lines.flat_map(|lines| {
            let messages: Vec<_> = match lines {
                Ok(lines) => lines
                    .chunks(LINES_A_MESSAGE)
                    .map(|some| Ok(gomote::ListDirectoryResponse { entries: some.to_vec() }))
                    .collect(),
                Err(error) => vec![Err(Status::from(error))],
            };
            stream::iter(messages)
        });
        Ok(Response::new(messages.boxed()))
    }

    async fn list_instances(
        &self,
        request: Request<gomote::ListInstancesRequest>,
    ) -> Answer<gomote::ListInstancesResponse> {
        let own = info::list_instances(&self.0.app, &caller(&request)?, false).await?;
        let mut instances: Vec<_> = own.into_iter().filter(is_leased).map(instance).collect();
        instances.sort_by(|a, b| a.gomote_id.cmp(&b.gomote_id));
        Ok(Response::new(gomote::ListInstancesResponse { instances }))
    }

    async fn list_swarming_builders(
        &self,
        _: Request<gomote::ListSwarmingBuildersRequest>,
    ) -> Answer<gomote::ListSwarmingBuildersResponse> {
        let builders = info::host_types(&self.0.app).await?.iter().map(ToString::to_string).collect();
        Ok(Response::new(gomote::ListSwarmingBuildersResponse { builders }))
    }

    async fn read_tgz_to_url(
        &self,
        request: Request<gomote::ReadTgzToUrlRequest>,
    ) -> Answer<gomote::ReadTgzToUrlResponse> {
        let caller = self.caller_of(&request, &request.get_ref().gomote_id)?;
        let door = door(&request)?;
        let request = request.into_inner();
        let ask = mote::GetTarRequest {
            instance: request.gomote_id,
            dir: request.directory,
            compression: mote::TarCompression::Gzip.into(),
        };
        let archive = files::get_tar(&self.0.app, &caller, ask).await?;
        let key = self.0.archives.keep(archive, self.0.app.now()).await?;
        Ok(Response::new(gomote::ReadTgzToUrlResponse { url: door.archive(&key) }))
    }

    async fn remove_files(&self, request: Request<gomote::RemoveFilesRequest>) -> Answer<gomote::RemoveFilesResponse> {
        let caller = self.caller_of(&request, &request.get_ref().gomote_id)?;
        let request = request.into_inner();
        if request.paths.is_empty() {
            return Err(Status::invalid_argument("field paths: is empty"));
        }
        for paths in request.paths.chunks(PATHS_A_CALL) {
            let ask = mote::RemovePathsRequest { instance: request.gomote_id.clone(), paths: paths.to_vec() };
            files::remove_paths(&self.0.app, &caller, ask).await?;
        }
        Ok(Response::new(gomote::RemoveFilesResponse {}))
    }

    async fn sign_ssh_key(&self, request: Request<gomote::SignSshKeyRequest>) -> Answer<gomote::SignSshKeyResponse> {
        let caller = self.caller_of(&request, &request.get_ref().gomote_id)?;
        let token = shown_token(&request);
        let request = request.into_inner();
        let key = String::from_utf8_lossy(&request.public_ssh_key).into_owned();
        let signed = ssh::sign(&self.0.app, &caller, token, &request.gomote_id, &key).await?;
        let signed_public_ssh_key = format!("{}\n", signed.certificate).into_bytes().into();
        Ok(Response::new(gomote::SignSshKeyResponse { signed_public_ssh_key }))
    }

    async fn upload_file(&self, request: Request<gomote::UploadFileRequest>) -> Answer<gomote::UploadFileResponse> {
        let caller = caller(&request)?;
        let door = door(&request)?;
        let key = self.0.objects.expect(caller.user, self.0.app.now()).map_err(of_object)?;
        Ok(Response::new(gomote::UploadFileResponse {
            url: door.upload(&key),
            fields: std::collections::HashMap::new(),
            object_name: OBJECT.to_owned(),
        }))
    }

    async fn write_file_from_url(
        &self,
        request: Request<gomote::WriteFileFromUrlRequest>,
    ) -> Answer<gomote::WriteFileFromUrlResponse> {
        let caller = self.caller_of(&request, &request.get_ref().gomote_id)?;
        let request = request.into_inner();
        if request.mode & GO_MODE_TYPE != 0 {
            return Err(Status::invalid_argument(format!("field mode: {:#o} is not a regular file's", request.mode)));
        }
        let Source::Upload(key) = source(&request.url) else {
            return Err(Status::failed_precondition("this farm writes files from uploads only; put the file itself"));
        };
        let now = self.0.app.now();
        let file = self.0.objects.open(&key, &caller.user, now).map_err(of_object)?;
        let target = mote::PutFileTarget {
            instance: request.gomote_id,
            file: Some(mote::PutFileHeader { path: request.filename, mode: request.mode & 0o777 }),
        };
        let written = files::put_file(&self.0.app, &caller, target, content(file)).await;
        written.map_err(|error| unwritten("the file", error))?;
        self.0.objects.used(&key, self.0.app.now());
        Ok(Response::new(gomote::WriteFileFromUrlResponse {}))
    }

    async fn write_tgz_from_url(
        &self,
        request: Request<gomote::WriteTgzFromUrlRequest>,
    ) -> Answer<gomote::WriteTgzFromUrlResponse> {
        let caller = self.caller_of(&request, &request.get_ref().gomote_id)?;
        let request = request.into_inner();
        if request.url.is_empty() {
            return Err(Status::invalid_argument("field url: is empty"));
        }
        let tar = Some(mote::PutTarHeader { dir: request.directory });
        let unwritten = |error| unwritten("tar.gz", error);
        let Source::Upload(key) = source(&request.url) else {
            let ask = mote::PutTarFromUrlRequest { instance: request.gomote_id, tar, url: request.url };
            fetch::put_tar_from_url(&self.0.app, &caller, ask).await.map_err(unwritten)?;
            return Ok(Response::new(gomote::WriteTgzFromUrlResponse {}));
        };
        let file = self.0.objects.open(&key, &caller.user, self.0.app.now()).map_err(of_object)?;
        let target = mote::PutTarTarget { instance: request.gomote_id, tar };
        files::put_tar(&self.0.app, &caller, target, content(file)).await.map_err(unwritten)?;
        self.0.objects.used(&key, self.0.app.now());
        Ok(Response::new(gomote::WriteTgzFromUrlResponse {}))
    }
}

/// A file's content, in pieces.
fn content(file: std::fs::File) -> BoxStream<'static, Result<bytes::Bytes, FarmError>> {
    let pieces = ReaderStream::with_capacity(tokio::fs::File::from_std(file), MAX_CHUNK_BYTES);
    pieces
        .map(|piece| piece.map_err(|error| FarmError::Unavailable(format!("the upload can not be read: {error}"))))
        .boxed()
}
