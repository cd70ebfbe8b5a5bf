//! The farm's service in the tests. What takes more than a few lines is in its neighbours.

use super::exec::{Events, Exec};
use super::{Service, cut};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use motefarm_proto::convert;
use motefarm_proto::mote::exec_outcome::Ending;
use motefarm_proto::mote::farm_server::Farm;
use motefarm_proto::mote::*;
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

#[tonic::async_trait]
impl Farm for Service {
    type CreateInstanceStream = BoxStream<'static, Result<CreateInstanceEvent, Status>>;
    type ExecuteStream = BoxStream<'static, Result<ExecEvent, Status>>;
    type AttachExecStream = BoxStream<'static, Result<ExecEvent, Status>>;
    type GetTarStream = BoxStream<'static, Result<TarChunk, Status>>;
    type GetFileStream = BoxStream<'static, Result<FileChunk, Status>>;
    type ListDirStream = BoxStream<'static, Result<DirListing, Status>>;

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<WhoAmIResponse>, Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
        self.called("who_am_i").tokens.push(token.to_owned());
        match token {
            "Bearer mote_bad" => Err(Status::unauthenticated("the token is not valid here")),
            _ => Ok(Response::new(WhoAmIResponse {
                user: "alice".into(),
                role: "user".into(),
                version: "1".into(),
                token_name: "laptop".into(),
                token_expires_at_ms: 0,
            })),
        }
    }

    async fn list_host_types(
        &self,
        _: Request<ListHostTypesRequest>,
    ) -> Result<Response<ListHostTypesResponse>, Status> {
        let only =
            HostTypeInfo { host_type: "linux-amd64".into(), total_slots: 16, free_slots: 15, ..Default::default() };
        Ok(Response::new(ListHostTypesResponse { host_types: vec![only] }))
    }

    async fn create_instance(
        &self,
        request: Request<CreateInstanceRequest>,
    ) -> Result<Response<Self::CreateInstanceStream>, Status> {
        let mut state = self.called("create");
        let request = request.into_inner();
        if request.host_type != "linux-amd64" {
            return Err(Status::not_found("no host type \"nonsense\"; there are: linux-amd64"));
        }
        if let Some(missing) = request.groups.iter().find(|group| !state.groups.contains_key(*group)) {
            return Err(Status::not_found(format!("no group {missing:?}")));
        }
        let id = request.instance_id.clone();
        let known = state.distinct().iter().position(|earlier| *earlier == id);
        let n = known.unwrap_or_else(|| state.distinct().len());
        if state.refuses.contains(&(n + 1)) {
            state.created.push(request);
            return Err(Status::resource_exhausted("the queue of linux-amd64 is full"));
        }
        for group in &request.groups {
            let name = format!("alice-linux-amd64-{n}");
            let members = state.groups.entry(group.clone()).or_default();
            if !members.contains(&name) {
                members.push(name);
            }
        }
        state.created.push(request);
        let mut events = Vec::new();
        match state.ahead {
            0 => events.push((0, "ready")),
            // Never: until its caller goes.
            u64::MAX => events.push((3, "queued")),
            ahead => {
                state.ahead = ahead - 1;
                events.push((ahead, "queued"));
            }
        }
        let waits = state.ahead == u64::MAX;
        let told: Vec<CreateInstanceEvent> = events
            .into_iter()
            .map(|(waiters_ahead, word)| CreateInstanceEvent {
                instance: Some(state.instance(n, &id, word)),
                waiters_ahead,
            })
            .collect();
        let events = stream::iter(told.into_iter().map(Ok));
        // A queued stream ends here: the client has to ask again.
        Ok(Response::new(if waits { events.chain(stream::pending()).boxed() } else { events.boxed() }))
    }

    async fn list_instances(
        &self,
        request: Request<ListInstancesRequest>,
    ) -> Result<Response<ListInstancesResponse>, Status> {
        let token = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if token != Some("Bearer mote_t") {
            return Err(Status::unauthenticated("the token is not known"));
        }
        Ok(Response::new(ListInstancesResponse { instances: self.called("list").live() }))
    }

    async fn ping_instance(
        &self,
        request: Request<PingInstanceRequest>,
    ) -> Result<Response<PingInstanceResponse>, Status> {
        let state = self.called("ping");
        match request.into_inner().instance.as_str() {
            "dead" => Err(Status::unavailable("its buildlet is out of contact for 40 s")),
            _ => {
                let instance = Some(state.instance(0, "id", "ready"));
                Ok(Response::new(PingInstanceResponse { instance, round_trip_us: 400 }))
            }
        }
    }

    async fn destroy_instance(
        &self,
        request: Request<DestroyInstanceRequest>,
    ) -> Result<Response<DestroyInstanceResponse>, Status> {
        let name = request.into_inner().instance;
        if name == "nobody" {
            return Err(Status::not_found("no instance \"nobody\""));
        }
        self.called("destroy").destroyed.push(name);
        Ok(Response::new(DestroyInstanceResponse {}))
    }

    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Events, Status> {
        let request = request.into_inner();
        if request.instance == "nobody" {
            return Err(Status::not_found("no instance \"nobody\""));
        }
        let spec = request.spec.unwrap_or_default();
        {
            let mut state = self.called("execute");
            let same = |exec: &&Exec| exec.instance == request.instance && exec.spec.program == spec.program;
            let earlier = state.execs.values().filter(same).count();
            let start = || Exec::start(&request.instance, spec.clone(), earlier);
            state.execs.entry(request.exec_id.clone()).or_insert_with(start);
        }
        self.events(&request.exec_id, request.offset, true)
    }

    async fn attach_exec(&self, request: Request<AttachExecRequest>) -> Result<Events, Status> {
        drop(self.called("attach"));
        let request = request.into_inner();
        self.events(&request.exec_id, request.offset, request.follow)
    }

    async fn list_execs(&self, request: Request<ListExecsRequest>) -> Result<Response<ListExecsResponse>, Status> {
        let instance = request.into_inner().instance;
        let state = self.called("list_execs");
        if !state.live().iter().any(|i| i.name == instance) {
            return Err(Status::not_found("no such instance"));
        }
        let mut execs: Vec<ExecInfo> = state
            .execs
            .iter()
            .filter(|(_, exec)| exec.instance == instance)
            .map(|(id, exec)| ExecInfo {
                exec_id: id.clone(),
                outcome: exec.outcome.borrow().clone(),
                ..Default::default()
            })
            .collect();
        execs.sort_by(|a, b| a.exec_id.cmp(&b.exec_id));
        Ok(Response::new(ListExecsResponse { execs }))
    }

    async fn ack_output(&self, request: Request<AckOutputRequest>) -> Result<Response<AckOutputResponse>, Status> {
        self.called("ack").acked = request.into_inner().offset;
        Ok(Response::new(AckOutputResponse {}))
    }

    async fn write_stdin(&self, request: Request<WriteStdinRequest>) -> Result<Response<WriteStdinResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.called("stdin");
        let cut_now = state.calls.len().is_multiple_of(7) && state.cut_every.is_some();
        let exec = state.execs.get_mut(&request.exec_id).ok_or_else(|| Status::not_found("no such execution"))?;
        let known = exec.stdin.len() as u64;
        if request.offset > known {
            return Err(Status::out_of_range("a gap"));
        }
        let fresh = usize::try_from(known - request.offset).unwrap().min(request.data.len());
        // A small pipe.
        let taken = request.data[fresh..].iter().take(20_000);
        exec.stdin.extend(taken);
        let accepted = exec.stdin.len() as u64;
        if request.eof && accepted == request.offset + request.data.len() as u64 {
            exec.end(Ending::Exited, 0);
        }
        if cut_now {
            cut(&self.cutter);
        }
        Ok(Response::new(WriteStdinResponse { accepted, closed: false }))
    }

    async fn signal_exec(&self, request: Request<SignalExecRequest>) -> Result<Response<SignalExecResponse>, Status> {
        let request = request.into_inner();
        let mut state = self.called("signal");
        let exec = state.execs.get_mut(&request.exec_id).ok_or_else(|| Status::not_found("no such execution"))?;
        exec.signals.push(request.signal);
        if request.signal == 13 {
            exec.end(Ending::Signaled, 13);
        }
        Ok(Response::new(SignalExecResponse {}))
    }

    async fn cancel_exec(&self, request: Request<CancelExecRequest>) -> Result<Response<CancelExecResponse>, Status> {
        let state = self.called("cancel");
        let exec = state.execs.get(&request.into_inner().exec_id);
        exec.ok_or_else(|| Status::not_found("no such execution"))?.end(Ending::Cancelled, 0);
        Ok(Response::new(CancelExecResponse {}))
    }

    async fn upload_blobs(&self, request: Request<Streaming<BlobBatch>>) -> Result<Response<UploadSummary>, Status> {
        let mut batches = request.into_inner();
        let (mut stored, mut stored_bytes) = (0, 0);
        while let Some(batch) = batches.message().await? {
            self.maybe_stall().await;
            if batch.compression() == blob_batch::Compression::Zstd {
                return Err(Status::invalid_argument("compressed for a farm on the same machine"));
            }
            let mut data = batch.data;
            let mut state = self.called("upload");
            for digest in &batch.digests {
                let digest = convert::digest(digest)?;
                let content = data.split_to(usize::try_from(digest.size_bytes()).unwrap());
                if motefarm_core::Digest::of(&content) != digest {
                    return Err(Status::invalid_argument("a wrong digest"));
                }
                stored += 1;
                stored_bytes += digest.size_bytes();
                state.blobs.insert(digest);
            }
        }
        Ok(Response::new(UploadSummary { stored, stored_bytes }))
    }

    async fn sync_tree(&self, request: Request<SyncTreeRequest>) -> Result<Response<TreeSyncResult>, Status> {
        let mut state = self.called("sync");
        let request = request.into_inner();
        let root = request.sync.as_ref().and_then(|sync| sync.root.as_ref());
        let root = convert::digest(root.ok_or_else(|| Status::invalid_argument("no root"))?)?;
        if !state.blobs.contains(&root) {
            return Ok(Response::new(TreeSyncResult { missing: vec![root.into()], ..Default::default() }));
        }
        let files_written = if state.syncs.contains(&request) { 0 } else { 2 };
        let mut result = TreeSyncResult { files_written, compared: true, ..Default::default() };
        if request.sync.as_ref().is_some_and(|sync| sync.dry_run) {
            result.would_write = vec!["new.txt".into()];
            result.would_delete = vec!["old.txt".into()];
            result.entries_deleted = 1;
        }
        state.syncs.push(request);
        Ok(Response::new(result))
    }

    async fn get_tar(&self, _: Request<GetTarRequest>) -> Result<Response<Self::GetTarStream>, Status> {
        let mut state = self.called("tar");
        let (breaks, stalls) = (state.cut_tars > 0, state.stalls);
        state.cut_tars = state.cut_tars.saturating_sub(1);
        let chunk = |byte: u8| TarChunk { data: vec![byte; 100_000].into() };
        let cutter = self.cutter.clone();
        let chunks = stream::iter((0..20).map(chunk)).then(move |chunk| {
            let cutter = cutter.clone();
            async move {
                if breaks && chunk.data[0] == 10 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    cut(&cutter);
                    std::future::pending::<()>().await;
                }
                if stalls && chunk.data[0] == 10 {
                    std::future::pending::<()>().await;
                }
                Ok(chunk)
            }
        });
        Ok(Response::new(chunks.boxed()))
    }

    async fn renew_instance(
        &self,
        request: Request<RenewInstanceRequest>,
    ) -> Result<Response<RenewInstanceResponse>, Status> {
        let name = request.into_inner().instance;
        let state = self.called("renew");
        let instance = state.live().into_iter().find(|i| i.name == name);
        let instance = instance.or_else(|| (name == "bob-linux-amd64-7").then(|| state.instance(7, "bobs", "ready")));
        match instance {
            None => Err(Status::not_found(format!("no instance {name:?}"))),
            instance => Ok(Response::new(RenewInstanceResponse { instance })),
        }
    }

    async fn put_file(&self, request: Request<Streaming<PutFileRequest>>) -> Result<Response<PutFileResponse>, Status> {
        self.take_file(request.into_inner()).await
    }

    async fn put_tar(&self, request: Request<Streaming<PutTarRequest>>) -> Result<Response<PutTarResponse>, Status> {
        self.take_tar(request.into_inner()).await
    }

    async fn put_tar_from_url(
        &self,
        request: Request<PutTarFromUrlRequest>,
    ) -> Result<Response<PutTarResponse>, Status> {
        let request = request.into_inner();
        if request.url.contains("forbidden") {
            return Err(Status::permission_denied("the operator does not allow that address"));
        }
        self.called("put_tar_from_url").urls.push(request.url);
        Ok(Response::new(PutTarResponse { files_written: 5, bytes_written: 50, ..Default::default() }))
    }

    async fn get_file(&self, request: Request<GetFileRequest>) -> Result<Response<Self::GetFileStream>, Status> {
        self.give_file(request.into_inner())
    }

    async fn list_dir(&self, request: Request<ListDirRequest>) -> Result<Response<Self::ListDirStream>, Status> {
        self.give_listing(request.into_inner())
    }

    async fn remove_paths(
        &self,
        request: Request<RemovePathsRequest>,
    ) -> Result<Response<RemovePathsResponse>, Status> {
        let request = request.into_inner();
        let removed = request.paths.len() as u64;
        self.called("remove").removed.push(request);
        Ok(Response::new(RemovePathsResponse { removed }))
    }

    async fn install_bootstrap(
        &self,
        _: Request<InstallBootstrapRequest>,
    ) -> Result<Response<InstallBootstrapResponse>, Status> {
        let configured = self.called("bootstrap").has_bootstrap;
        let result = configured.then(|| TreeSyncResult { files_written: 9, ..Default::default() });
        Ok(Response::new(InstallBootstrapResponse { configured, result }))
    }

    async fn sign_ssh_key(&self, _: Request<SignSshKeyRequest>) -> Result<Response<SignSshKeyResponse>, Status> {
        Err(Status::failed_precondition("this farm has no ssh gateway configured"))
    }

    async fn create_snapshot(&self, request: Request<CreateSnapshotRequest>) -> Result<Response<SnapshotInfo>, Status> {
        let request = request.into_inner();
        let made = SnapshotInfo {
            name: request.name,
            owner: "alice".into(),
            dir: request.dir,
            root: Some(motefarm_core::Digest::of(b"").into()),
            files: 3,
            bytes: 1_500,
            created_at_ms: 7,
            host_type: "linux-amd64".into(),
        };
        self.called("snapshot").snapshots.push(made.clone());
        Ok(Response::new(made))
    }

    async fn list_snapshots(
        &self,
        _: Request<ListSnapshotsRequest>,
    ) -> Result<Response<ListSnapshotsResponse>, Status> {
        Ok(Response::new(ListSnapshotsResponse { snapshots: self.called("snapshots").snapshots.clone() }))
    }

    async fn remove_snapshot(
        &self,
        request: Request<RemoveSnapshotRequest>,
    ) -> Result<Response<RemoveSnapshotResponse>, Status> {
        let name = request.into_inner().name;
        let mut state = self.called("remove_snapshot");
        let before = state.snapshots.len();
        state.snapshots.retain(|snapshot| snapshot.name != name);
        if state.snapshots.len() == before {
            return Err(Status::not_found(format!("no snapshot {name:?}")));
        }
        Ok(Response::new(RemoveSnapshotResponse {}))
    }

    async fn create_group(
        &self,
        request: Request<CreateGroupRequest>,
    ) -> Result<Response<CreateGroupResponse>, Status> {
        let CreateGroupRequest { group, if_absent } = request.into_inner();
        let mut state = self.called("create_group");
        if state.groups.contains_key(&group) && !if_absent {
            return Err(Status::already_exists(format!("there is a group {group:?}")));
        }
        state.groups.entry(group).or_default();
        Ok(Response::new(CreateGroupResponse {}))
    }

    async fn destroy_group(
        &self,
        request: Request<DestroyGroupRequest>,
    ) -> Result<Response<DestroyGroupResponse>, Status> {
        let group = request.into_inner().group;
        match self.called("destroy_group").groups.remove(&group) {
            Some(_) => Ok(Response::new(DestroyGroupResponse {})),
            None => Err(Status::not_found(format!("no group {group:?}"))),
        }
    }

    async fn list_groups(&self, _: Request<ListGroupsRequest>) -> Result<Response<ListGroupsResponse>, Status> {
        let groups = self.called("groups").groups.clone();
        let groups = groups.into_iter().map(|(group, instances)| GroupInfo { group, instances }).collect();
        Ok(Response::new(ListGroupsResponse { groups }))
    }

    async fn add_to_group(&self, request: Request<AddToGroupRequest>) -> Result<Response<AddToGroupResponse>, Status> {
        let AddToGroupRequest { group, instances } = request.into_inner();
        let mut state = self.called("add_to_group");
        if let Some(unknown) = instances.iter().find(|name| !state.live().iter().any(|i| i.name == **name)) {
            return Err(Status::not_found(format!("no instance {unknown:?}")));
        }
        let members = state.groups.get_mut(&group).ok_or_else(|| Status::not_found("no such group"))?;
        members.extend(instances);
        members.sort();
        members.dedup();
        Ok(Response::new(AddToGroupResponse {}))
    }

    async fn remove_from_group(
        &self,
        request: Request<RemoveFromGroupRequest>,
    ) -> Result<Response<RemoveFromGroupResponse>, Status> {
        let RemoveFromGroupRequest { group, instances } = request.into_inner();
        let mut state = self.called("remove_from_group");
        let members = state.groups.get_mut(&group).ok_or_else(|| Status::not_found("no such group"))?;
        let not_in_group = instances.iter().filter(|name| !members.contains(name)).cloned().collect();
        members.retain(|member| !instances.contains(member));
        Ok(Response::new(RemoveFromGroupResponse { not_in_group }))
    }
}
