//! The farm's service, answered by buildlets that are asked directly.

use super::address::Address;
use super::contact::{Client, Contact};
use super::passing::{forward, passed, passed_on, unless_cut, upload_to_all};
use super::place::Place;
use crate::error::Error;
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use motefarm_core::instance::InstanceState;
use motefarm_core::lease::LeaseTerms;
use motefarm_core::{Clock as _, SystemClock};
use motefarm_proto::convert;
use motefarm_proto::mote::farm_server::Farm;
use motefarm_proto::mote::*;
use motefarm_proto::reapi::{FindMissingBlobsRequest, FindMissingBlobsResponse};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tonic::{Code, Request, Response, Status, Streaming};

type Answer<T> = Result<Response<T>, Status>;
type Stream<T> = BoxStream<'static, Result<T, Status>>;

/// See the module.
pub(crate) struct DirectFarm {
    /// Those out of reach stay so: every call to them is refused with the reason.
    contacts: Vec<(Address, Result<Contact, Status>)>,
    /// Where executions are, as far as we know.
    execs: Mutex<HashMap<String, usize>>,
}

impl DirectFarm {
    /// Says hello to all at once. An error if the only one, or every one, can not be reached.
    pub(crate) async fn connect(place: &Place) -> Result<Self, Error> {
        let opened = join_all(place.targets.iter().map(|target| Contact::open(target, &place.user))).await;
        let mut contacts = Vec::with_capacity(opened.len());
        let mut failure = None;
        for (target, opened) in place.targets.iter().zip(opened) {
            let contact = opened.map_err(|error| {
                // Not UNAVAILABLE: first contact is not tried twice.
                let status = Status::failed_precondition(match error.next_step() {
                    Some(next) => format!("{error} ({next})"),
                    None => error.to_string(),
                });
                failure = failure.take().or(Some(error));
                status
            });
            contacts.push((target.address.clone(), contact));
        }
        match failure {
            Some(error) if contacts.iter().all(|(_, contact)| contact.is_err()) => Err(error),
            _ => Ok(Self { contacts, execs: Mutex::new(place.execs.iter().cloned().collect()) }),
        }
    }

    /// Those of these blobs that any of the buildlets lacks.
    pub(crate) async fn missing_blobs(&self, request: FindMissingBlobsRequest) -> Answer<FindMissingBlobsResponse> {
        let digests = request.blob_digests.iter().map(|digest| Ok(convert::reapi_digest(digest)?.into()));
        let request = FindMissingRequest { digests: digests.collect::<Result<_, Status>>()? };
        let ask = async |contact: &Contact| contact.client().find_missing(request.clone()).await;
        let mut missing = HashSet::new();
        let mut outcome = Err(Status::unavailable("no buildlet is in contact"));
        for answer in join_all(self.reached().into_iter().map(ask)).await {
            match answer {
                Ok(answer) => {
                    for digest in &answer.get_ref().missing {
                        missing.insert(convert::digest(digest)?);
                    }
                    outcome = Ok(());
                }
                // Its tree's sync will fail, and says so.
                Err(_) if outcome.is_ok() => {}
                Err(status) => outcome = Err(passed(status)),
            }
        }
        outcome?;
        let missing_blob_digests = missing.into_iter().map(convert::to_reapi_digest).collect();
        Ok(Response::new(FindMissingBlobsResponse { missing_blob_digests }))
    }

    fn reached(&self) -> Vec<&Contact> {
        self.contacts.iter().filter_map(|(_, contact)| contact.as_ref().ok()).collect()
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.execs.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn contact(&self, index: usize) -> Result<&Contact, Status> {
        let (_, contact) = self.contacts.get(index).ok_or_else(|| Status::internal("no such buildlet"))?;
        contact.as_ref().map_err(|failure| passed(failure.clone()))
    }

    fn index_of(&self, word: &str) -> Result<usize, Status> {
        let address = Address::parse(word).map_err(|error| Status::not_found(error.to_string()))?;
        let known = self.contacts.iter().position(|(known, _)| *known == address);
        known.ok_or_else(|| Status::not_found(format!("{word} was not addressed when this began")))
    }

    fn of_instance(&self, word: &str) -> Result<&Contact, Status> {
        self.contact(self.index_of(word)?)
    }

    /// Where an instance is, and the instance there for use.
    async fn used(&self, word: &str) -> Result<(Client, String), Status> {
        let contact = self.of_instance(word)?;
        contact.ready(LeaseTerms::default().idle_timeout).await?;
        Ok((contact.client(), contact.instance_id.clone()))
    }

    /// Where an execution is: known, or at the only place there is.
    fn of_exec(&self, exec_id: &str) -> Result<(Client, String), Status> {
        let known = self.execs().get(exec_id).copied();
        let index = known.or((self.contacts.len() == 1).then_some(0));
        let index = index.ok_or_else(|| {
            Status::not_found(format!("no record says at which buildlet {exec_id} is: name its instance instead"))
        })?;
        let contact = self.contact(index)?;
        Ok((contact.client(), contact.instance_id.clone()))
    }

    /// What runs or ran there, oldest first; nothing where there is no instance.
    async fn execs_of(&self, index: usize) -> Result<Vec<ExecInfo>, Status> {
        let contact = self.contact(index)?;
        let request = BuildletListExecsRequest { instance_id: contact.instance_id.clone(), ..Default::default() };
        match contact.client().list_execs(request).await {
            Ok(answer) => {
                let execs = answer.into_inner().execs;
                self.execs().extend(execs.iter().map(|exec| (exec.exec_id.clone(), index)));
                Ok(execs)
            }
            Err(status) if status.code() == Code::NotFound => Ok(Vec::new()),
            Err(status) => Err(passed(status)),
        }
    }

    /// Makes the instance if need be, uses it, and tells of it.
    async fn touched(&self, word: &str, idle_timeout: Duration) -> Result<(InstanceInfo, u64), Status> {
        let index = self.index_of(word)?;
        let contact = self.contact(index)?;
        let made = contact.ready(idle_timeout).await?;
        let asked = Instant::now();
        let execs = self.execs_of(index).await?;
        let round_trip = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
        let now = SystemClock.now();
        let info = InstanceInfo {
            instance_id: contact.instance_id.clone(),
            name: contact.address.to_string(),
            owner: contact.user.clone(),
            host_type: contact.address.host_type.to_string(),
            state: InstanceState::Ready.as_str().to_owned(),
            created_at_ms: 0,
            expires_at_ms: (now + made.idle_timeout).as_millis(),
            now_ms: now.as_millis(),
            work_dir: made.work_dir.clone(),
            buildlet: contact.hostname.clone(),
            running_execs: execs.iter().filter(|exec| exec.outcome.is_none()).count() as u64,
            groups: Vec::new(),
            shared_with: Vec::new(),
        };
        Ok((info, round_trip))
    }
}

/// What only a coordinator has; `instead` says what to do without one.
fn needs_coordinator(what: &str, instead: &str) -> Status {
    Status::failed_precondition(format!(
        "{what} needs a coordinator, and this buildlet is addressed directly: {instead}"
    ))
}

fn no_groups<T>() -> Answer<T> {
    Err(needs_coordinator("a group", "name each instance"))
}

fn no_snapshots<T>() -> Answer<T> {
    Err(needs_coordinator("a snapshot", "fetch the directory with `mote gettar` and put it back with `mote puttar`"))
}

fn no_header() -> Status {
    Status::invalid_argument("field header: is missing in the first message")
}

#[tonic::async_trait]
impl Farm for DirectFarm {
    type CreateInstanceStream = Stream<CreateInstanceEvent>;
    type ExecuteStream = Stream<ExecEvent>;
    type AttachExecStream = Stream<ExecEvent>;
    type GetTarStream = Stream<TarChunk>;
    type GetFileStream = Stream<FileChunk>;
    type ListDirStream = Stream<DirListing>;

    async fn who_am_i(&self, _: Request<WhoAmIRequest>) -> Answer<WhoAmIResponse> {
        Err(needs_coordinator("asking who one is", "its token is all a buildlet knows of its callers"))
    }

    async fn list_host_types(&self, _: Request<ListHostTypesRequest>) -> Answer<ListHostTypesResponse> {
        Err(needs_coordinator("the list of host types", "a buildlet has the one in its address"))
    }

    /// There is one instance, and here it is.
    async fn create_instance(&self, request: Request<CreateInstanceRequest>) -> Answer<Self::CreateInstanceStream> {
        let request = request.into_inner();
        if !request.groups.is_empty() {
            return no_groups();
        }
        if !request.from_snapshot.is_empty() {
            return no_snapshots();
        }
        let usual = LeaseTerms::default().idle_timeout;
        let idle_timeout = match request.idle_timeout_ms {
            0 => usual,
            ms => Duration::from_millis(ms),
        };
        if idle_timeout > usual {
            let problem = format!("field idle_timeout_ms: at most {} minutes", usual.as_secs() / 60);
            return Err(Status::invalid_argument(problem));
        }
        let (instance, _) = self.touched(&request.host_type, idle_timeout).await?;
        let event = CreateInstanceEvent { instance: Some(instance), waiters_ahead: 0 };
        Ok(Response::new(stream::iter([Ok(event)]).boxed()))
    }

    async fn list_instances(&self, _: Request<ListInstancesRequest>) -> Answer<ListInstancesResponse> {
        Err(needs_coordinator("the list of instances", "at a buildlet you have the one that its address names"))
    }

    async fn ping_instance(&self, request: Request<PingInstanceRequest>) -> Answer<PingInstanceResponse> {
        let usual = LeaseTerms::default().idle_timeout;
        let (instance, round_trip_us) = self.touched(&request.get_ref().instance, usual).await?;
        Ok(Response::new(PingInstanceResponse { instance: Some(instance), round_trip_us }))
    }

    async fn renew_instance(&self, request: Request<RenewInstanceRequest>) -> Answer<RenewInstanceResponse> {
        let usual = LeaseTerms::default().idle_timeout;
        let (instance, _) = self.touched(&request.get_ref().instance, usual).await?;
        Ok(Response::new(RenewInstanceResponse { instance: Some(instance) }))
    }

    async fn destroy_instance(&self, request: Request<DestroyInstanceRequest>) -> Answer<DestroyInstanceResponse> {
        let contact = self.of_instance(&request.get_ref().instance)?;
        let request = EndInstanceRequest { instance_id: contact.instance_id.clone() };
        contact.client().end_instance(request).await.map_err(passed)?;
        Ok(Response::new(DestroyInstanceResponse {}))
    }

    async fn execute(&self, request: Request<ExecuteRequest>) -> Answer<Self::ExecuteStream> {
        let ExecuteRequest { instance, exec_id, spec, offset } = request.into_inner();
        let index = self.index_of(&instance)?;
        self.execs().insert(exec_id.clone(), index);
        let (mut client, instance_id) = self.used(&instance).await?;
        passed_on(client.execute(BuildletExecuteRequest { instance_id, exec_id, spec, offset }).await)
    }

    async fn attach_exec(&self, request: Request<AttachExecRequest>) -> Answer<Self::AttachExecStream> {
        let AttachExecRequest { instance, mut exec_id, offset, follow } = request.into_inner();
        if !instance.is_empty() {
            let execs = self.execs_of(self.index_of(&instance)?).await?;
            if exec_id.is_empty() {
                let newest = execs.last().ok_or_else(|| Status::not_found(format!("nothing was run on {instance}")))?;
                exec_id.clone_from(&newest.exec_id);
            }
        }
        let (mut client, instance_id) = self.of_exec(&exec_id)?;
        passed_on(client.attach_exec(BuildletAttachExecRequest { instance_id, exec_id, offset, follow }).await)
    }

    async fn list_execs(&self, request: Request<ListExecsRequest>) -> Answer<ListExecsResponse> {
        let execs = self.execs_of(self.index_of(&request.get_ref().instance)?).await?;
        Ok(Response::new(ListExecsResponse { execs }))
    }

    async fn ack_output(&self, request: Request<AckOutputRequest>) -> Answer<AckOutputResponse> {
        let AckOutputRequest { exec_id, offset } = request.into_inner();
        let (mut client, instance_id) = self.of_exec(&exec_id)?;
        let request = BuildletAckOutputRequest { instance_id, exec_id, offset };
        client.ack_output(request).await.map_err(passed)?;
        Ok(Response::new(AckOutputResponse {}))
    }

    async fn write_stdin(&self, request: Request<WriteStdinRequest>) -> Answer<WriteStdinResponse> {
        let WriteStdinRequest { exec_id, offset, data, eof } = request.into_inner();
        let (mut client, instance_id) = self.of_exec(&exec_id)?;
        let request = BuildletWriteStdinRequest { instance_id, exec_id, offset, data, eof };
        let BuildletWriteStdinResponse { accepted, closed } =
            client.write_stdin(request).await.map_err(passed)?.into_inner();
        Ok(Response::new(WriteStdinResponse { accepted, closed }))
    }

    async fn signal_exec(&self, request: Request<SignalExecRequest>) -> Answer<SignalExecResponse> {
        let SignalExecRequest { exec_id, signal } = request.into_inner();
        let (mut client, instance_id) = self.of_exec(&exec_id)?;
        let request = BuildletSignalExecRequest { instance_id, exec_id, signal };
        client.signal_exec(request).await.map_err(passed)?;
        Ok(Response::new(SignalExecResponse {}))
    }

    async fn cancel_exec(&self, request: Request<CancelExecRequest>) -> Answer<CancelExecResponse> {
        let CancelExecRequest { exec_id, grace_ms } = request.into_inner();
        let (mut client, instance_id) = self.of_exec(&exec_id)?;
        let request = BuildletCancelExecRequest { instance_id, exec_id, grace_ms };
        client.cancel_exec(request).await.map_err(passed)?;
        Ok(Response::new(CancelExecResponse {}))
    }

    async fn upload_blobs(&self, request: Request<Streaming<BlobBatch>>) -> Answer<UploadSummary> {
        upload_to_all(self.reached(), request.into_inner()).await.map(Response::new)
    }

    async fn sync_tree(&self, request: Request<SyncTreeRequest>) -> Answer<TreeSyncResult> {
        let SyncTreeRequest { instance, sync } = request.into_inner();
        let (mut client, instance_id) = self.used(&instance).await?;
        let result = client.sync_tree(BuildletSyncTreeRequest { instance_id, sync }).await.map_err(passed)?;
        Ok(Response::new(result.into_inner()))
    }

    async fn get_tar(&self, request: Request<GetTarRequest>) -> Answer<Self::GetTarStream> {
        let GetTarRequest { instance, dir, compression } = request.into_inner();
        let (mut client, instance_id) = self.used(&instance).await?;
        passed_on(client.get_tar(BuildletGetTarRequest { instance_id, dir, compression }).await)
    }

    async fn put_file(&self, request: Request<Streaming<PutFileRequest>>) -> Answer<PutFileResponse> {
        let mut incoming = request.into_inner();
        let PutFileRequest { header, data, end } = incoming.message().await?.ok_or_else(no_header)?;
        let PutFileTarget { instance, file } = header.ok_or_else(no_header)?;
        let (mut client, instance_id) = self.used(&instance).await?;
        let head = BuildletPutFileRequest { header: Some(BuildletPutFileTarget { instance_id, file }), data, end };
        let (outgoing, cut) = forward(head, incoming, |rest: PutFileRequest| BuildletPutFileRequest {
            header: None,
            data: rest.data,
            end: rest.end,
        });
        unless_cut(cut, client.put_file(outgoing)).await
    }

    async fn put_tar(&self, request: Request<Streaming<PutTarRequest>>) -> Answer<PutTarResponse> {
        let mut incoming = request.into_inner();
        let PutTarRequest { header, data, end } = incoming.message().await?.ok_or_else(no_header)?;
        let PutTarTarget { instance, tar } = header.ok_or_else(no_header)?;
        let (mut client, instance_id) = self.used(&instance).await?;
        let head = BuildletPutTarRequest { header: Some(BuildletPutTarTarget { instance_id, tar }), data, end };
        let (outgoing, cut) = forward(head, incoming, |rest: PutTarRequest| BuildletPutTarRequest {
            header: None,
            data: rest.data,
            end: rest.end,
        });
        unless_cut(cut, client.put_tar(outgoing)).await
    }

    async fn put_tar_from_url(&self, request: Request<PutTarFromUrlRequest>) -> Answer<PutTarResponse> {
        let PutTarFromUrlRequest { instance, url, .. } = request.into_inner();
        let instead = format!("fetch it yourself: curl -fL {url} | mote puttar {instance} -");
        Err(needs_coordinator("unpacking from a URL", &instead))
    }

    async fn get_file(&self, request: Request<GetFileRequest>) -> Answer<Self::GetFileStream> {
        let GetFileRequest { instance, path } = request.into_inner();
        let (mut client, instance_id) = self.used(&instance).await?;
        passed_on(client.get_file(BuildletGetFileRequest { instance_id, path }).await)
    }

    async fn list_dir(&self, request: Request<ListDirRequest>) -> Answer<Self::ListDirStream> {
        let ListDirRequest { instance, list } = request.into_inner();
        let (mut client, instance_id) = self.used(&instance).await?;
        passed_on(client.list_dir(BuildletListDirRequest { instance_id, list }).await)
    }

    async fn remove_paths(&self, request: Request<RemovePathsRequest>) -> Answer<RemovePathsResponse> {
        let RemovePathsRequest { instance, paths } = request.into_inner();
        let (mut client, instance_id) = self.used(&instance).await?;
        let answer = client.remove_paths(BuildletRemovePathsRequest { instance_id, paths }).await.map_err(passed)?;
        Ok(Response::new(answer.into_inner()))
    }

    /// The operator who would have configured one is a coordinator's.
    async fn install_bootstrap(&self, _: Request<InstallBootstrapRequest>) -> Answer<InstallBootstrapResponse> {
        Ok(Response::new(InstallBootstrapResponse { configured: false, result: None }))
    }

    async fn sign_ssh_key(&self, _: Request<SignSshKeyRequest>) -> Answer<SignSshKeyResponse> {
        Err(Status::failed_precondition("a buildlet that is addressed directly has no ssh gateway"))
    }

    async fn create_snapshot(&self, _: Request<CreateSnapshotRequest>) -> Answer<SnapshotInfo> {
        no_snapshots()
    }

    async fn list_snapshots(&self, _: Request<ListSnapshotsRequest>) -> Answer<ListSnapshotsResponse> {
        no_snapshots()
    }

    async fn remove_snapshot(&self, _: Request<RemoveSnapshotRequest>) -> Answer<RemoveSnapshotResponse> {
        no_snapshots()
    }

    async fn create_group(&self, _: Request<CreateGroupRequest>) -> Answer<CreateGroupResponse> {
        no_groups()
    }

    async fn destroy_group(&self, _: Request<DestroyGroupRequest>) -> Answer<DestroyGroupResponse> {
        no_groups()
    }

    async fn list_groups(&self, _: Request<ListGroupsRequest>) -> Answer<ListGroupsResponse> {
        no_groups()
    }

    async fn add_to_group(&self, _: Request<AddToGroupRequest>) -> Answer<AddToGroupResponse> {
        no_groups()
    }

    async fn remove_from_group(&self, _: Request<RemoveFromGroupRequest>) -> Answer<RemoveFromGroupResponse> {
        no_groups()
    }
}
