//! A buildlet that is not there, for tests: it remembers what it was asked and reports what it is told.

mod actions;

pub use actions::{FakeAction, Script};

use super::{Link, LinkError, LinkStream, Pieces};
use futures_util::stream::{BoxStream, StreamExt as _};
use motefarm_cas::batch::BatchStream;
use motefarm_core::{ExecId, InstanceId, Timestamp};
use motefarm_proto::mote;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::watch;
use tonic::Status;

/// What the fake has and was told.
#[derive(Debug, Clone, Default)]
pub struct FakeState {
    /// Its instances, with what runs in each.
    pub instances: BTreeMap<InstanceId, BTreeSet<String>>,
    /// Lease ends it was told.
    pub lease_ends: BTreeMap<InstanceId, Timestamp>,
    /// How often each call that changes something came.
    pub creates: usize,
    /// See above.
    pub ends: usize,
    /// Files that were put, by instance and path, and archives unpacked, by instance and directory.
    pub files: BTreeMap<(InstanceId, String), Vec<u8>>,
    /// See above.
    pub archives: BTreeMap<(InstanceId, String), Vec<u8>>,
    /// What it answers when asked for an archive, whatever of.
    pub archive: Vec<u8>,
    /// Trees it was asked for.
    pub synced: Vec<(InstanceId, mote::TreeSync)>,
    /// Refuses to bring any tree, with this.
    pub refuse_sync: Option<String>,
    /// Answers that these are missing when asked for a tree.
    pub lacks: Vec<motefarm_core::Digest>,
    /// Leaves calls for a tree without an answer.
    pub hold_sync: bool,
    /// Actions it was given.
    pub actions: Vec<mote::RunActionStart>,
    /// How many of them go on.
    pub actions_running: usize,
    /// Blobs it was sent.
    pub uploaded: Vec<motefarm_core::Digest>,
}

/// See the module. Clones are the same buildlet.
#[derive(Clone)]
pub struct FakeLink {
    description: Arc<mote::BuildletDescription>,
    state: Arc<Mutex<FakeState>>,
    script: Option<Script>,
    reports: watch::Sender<mote::BuildletReport>,
    connected: watch::Sender<bool>,
}

impl FakeLink {
    /// A buildlet of this type with so many slots.
    pub fn new(buildlet_id: &str, host_type: &str, slots: u64) -> Self {
        let description = mote::BuildletDescription {
            buildlet_id: buildlet_id.to_owned(),
            hostname: "fake".to_owned(),
            host_type: host_type.to_owned(),
            lease_slots: slots,
            reads_farm_store: true,
            ..Default::default()
        };
        Self {
            description: Arc::new(description),
            state: Arc::default(),
            script: None,
            reports: watch::Sender::new(mote::BuildletReport::default()),
            connected: watch::Sender::new(true),
        }
    }

    /// One that also has action slots, on which actions do what the script says.
    #[must_use]
    pub fn acting(mut self, action_slots: u64, script: Script) -> Self {
        let description = Arc::make_mut(&mut self.description);
        description.action_slots = action_slots;
        description.action_sandbox = "namespaces".to_owned();
        self.script = Some(script);
        self
    }

    /// One with a label.
    #[must_use]
    pub fn labelled(mut self, name: &str, value: &str) -> Self {
        Arc::make_mut(&mut self.description).labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// One that keeps a store of its own.
    #[must_use]
    pub fn apart(mut self) -> Self {
        Arc::make_mut(&mut self.description).reads_farm_store = false;
        self
    }

    fn lock(&self) -> MutexGuard<'_, FakeState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What it has and was told, now.
    pub fn state(&self) -> FakeState {
        self.lock().clone()
    }

    /// Changes what it has, and reports it.
    pub fn change(&self, change: impl FnOnce(&mut FakeState)) {
        change(&mut self.lock());
        self.report();
    }

    /// Cuts or restores the connection.
    pub fn connect(&self, connected: bool) {
        self.connected.send_replace(connected);
    }

    fn report(&self) {
        let instances = self
            .lock()
            .instances
            .iter()
            .map(|(id, execs)| mote::InstanceReport {
                instance_id: id.to_string(),
                running_execs: execs.iter().cloned().collect(),
                ..Default::default()
            })
            .collect();
        self.reports.send_replace(mote::BuildletReport { instances, free_disk_bytes: 0 });
    }

    fn check(&self) -> Result<(), LinkError> {
        if *self.connected.borrow() { Ok(()) } else { Err(LinkError::Lost("the fake is cut off".to_owned())) }
    }
}

async fn cut_off(connected: &mut watch::Receiver<bool>) {
    let _ = connected.wait_for(|connected| !connected).await;
}

async fn collect(mut pieces: Pieces) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(piece) = pieces.next().await {
        all.extend_from_slice(&piece);
    }
    all
}

fn instance(id: &str) -> Result<InstanceId, LinkError> {
    id.parse().map_err(|_| not_there(id))
}

fn not_there(what: &str) -> LinkError {
    LinkError::Refused(Box::new(Status::not_found(format!("the fake has no {what}"))))
}

fn not_faked<T>() -> Result<T, LinkError> {
    Err(LinkError::Refused(Box::new(Status::unimplemented("the fake runs nothing"))))
}

#[tonic::async_trait]
impl Link for FakeLink {
    async fn describe(&self) -> Result<mote::BuildletDescription, LinkError> {
        self.check()?;
        Ok((*self.description).clone())
    }

    async fn watch(&self) -> Result<LinkStream<mote::BuildletReport>, LinkError> {
        self.check()?;
        let (mut reports, mut connected) = (self.reports.subscribe(), self.connected.subscribe());
        reports.mark_changed();
        let (send, receive) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    Ok(()) = reports.changed() => {
                        let report = reports.borrow_and_update().clone();
                        if send.send(Ok(report)).await.is_err() { return }
                    }
                    () = cut_off(&mut connected) => {
                        let _ = send.send(Err(LinkError::Lost("the fake was cut off".to_owned()))).await;
                        return;
                    }
                    () = send.closed() => return,
                }
            }
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(receive).boxed())
    }

    async fn create_instance(&self, request: mote::BuildletCreateInstanceRequest) -> Result<String, LinkError> {
        self.check()?;
        let id = request.instance_id.parse().map_err(|_| LinkError::Lost("bad id".to_owned()))?;
        self.change(|state| {
            state.creates += 1;
            state.instances.entry(id).or_default();
        });
        Ok("/workdir".to_owned())
    }

    async fn end_instance(&self, id: InstanceId) -> Result<(), LinkError> {
        self.check()?;
        self.change(|state| {
            state.ends += 1;
            state.instances.remove(&id);
        });
        Ok(())
    }

    async fn set_leases(&self, ends: Vec<(InstanceId, Timestamp)>) -> Result<(), LinkError> {
        self.check()?;
        self.lock().lease_ends.extend(ends);
        Ok(())
    }

    async fn execute(&self, _: mote::BuildletExecuteRequest) -> Result<LinkStream<mote::ExecEvent>, LinkError> {
        not_faked()
    }

    async fn attach(&self, _: mote::BuildletAttachExecRequest) -> Result<LinkStream<mote::ExecEvent>, LinkError> {
        not_faked()
    }

    async fn list_execs(&self, _: InstanceId, _: &[ExecId]) -> Result<Vec<mote::ExecInfo>, LinkError> {
        self.check()?;
        Ok(Vec::new())
    }

    async fn ack_output(&self, _: InstanceId, _: ExecId, _: u64) -> Result<(), LinkError> {
        not_faked()
    }

    async fn write_stdin(
        &self,
        _: mote::BuildletWriteStdinRequest,
    ) -> Result<mote::BuildletWriteStdinResponse, LinkError> {
        not_faked()
    }

    async fn signal(&self, _: InstanceId, _: ExecId, _: i32) -> Result<(), LinkError> {
        not_faked()
    }

    async fn cancel(&self, _: InstanceId, _: ExecId, _: u64) -> Result<(), LinkError> {
        not_faked()
    }

    async fn upload(&self, batches: BatchStream) -> Result<mote::UploadSummary, LinkError> {
        self.check()?;
        let batches: Vec<mote::BlobBatch> = batches.collect().await;
        let digests: Vec<_> = batches
            .iter()
            .flat_map(|batch| &batch.digests)
            .filter_map(|digest| motefarm_proto::convert::digest(digest).ok())
            .collect();
        let stored = digests.len() as u64;
        self.lock().uploaded.extend(digests);
        Ok(mote::UploadSummary { stored, ..Default::default() })
    }

    async fn sync_tree(&self, id: InstanceId, sync: mote::TreeSync) -> Result<mote::TreeSyncResult, LinkError> {
        self.check()?;
        let state = {
            let mut state = self.lock();
            state.synced.push((id, sync));
            state.clone()
        };
        self.report();
        if state.hold_sync {
            std::future::pending::<()>().await;
        }
        match state.refuse_sync {
            Some(why) => Err(LinkError::Refused(Box::new(Status::failed_precondition(why)))),
            None => Ok(mote::TreeSyncResult {
                missing: state.lacks.into_iter().map(Into::into).collect(),
                ..Default::default()
            }),
        }
    }

    async fn get_tar(&self, _: mote::BuildletGetTarRequest) -> Result<LinkStream<mote::TarChunk>, LinkError> {
        self.check()?;
        let chunks: Vec<_> = self
            .lock()
            .archive
            .chunks(1000)
            .map(|data| Ok(mote::TarChunk { data: bytes::Bytes::copy_from_slice(data) }))
            .collect();
        Ok(futures_util::stream::iter(chunks).boxed())
    }

    async fn put_file(
        &self,
        target: mote::BuildletPutFileTarget,
        content: Pieces,
    ) -> Result<mote::PutFileResponse, LinkError> {
        let content = collect(content).await;
        self.check()?;
        let key = (instance(&target.instance_id)?, target.file.unwrap_or_default().path);
        let bytes_written = content.len() as u64;
        self.lock().files.insert(key, content);
        Ok(mote::PutFileResponse { bytes_written })
    }

    async fn put_tar(
        &self,
        target: mote::BuildletPutTarTarget,
        archive: Pieces,
    ) -> Result<mote::PutTarResponse, LinkError> {
        let archive = collect(archive).await;
        self.check()?;
        let key = (instance(&target.instance_id)?, target.tar.unwrap_or_default().dir);
        let bytes_written = archive.len() as u64;
        self.lock().archives.insert(key, archive);
        Ok(mote::PutTarResponse { bytes_written, ..Default::default() })
    }

    async fn get_file(&self, request: mote::BuildletGetFileRequest) -> Result<LinkStream<mote::FileChunk>, LinkError> {
        self.check()?;
        let key = (instance(&request.instance_id)?, request.path);
        let content = self.lock().files.get(&key).cloned().ok_or_else(|| not_there(&key.1))?;
        let chunks: Vec<_> = content
            .chunks(1000)
            .map(|data| Ok(mote::FileChunk { data: bytes::Bytes::copy_from_slice(data), ..Default::default() }))
            .collect();
        Ok(futures_util::stream::iter(chunks).boxed())
    }

    async fn list_dir(&self, request: mote::BuildletListDirRequest) -> Result<LinkStream<mote::DirListing>, LinkError> {
        self.check()?;
        let id = instance(&request.instance_id)?;
        let entries = self
            .lock()
            .files
            .keys()
            .filter(|(of, _)| *of == id)
            .map(|(_, path)| mote::DirEntry { path: path.clone().into_bytes().into(), ..Default::default() })
            .collect();
        Ok(futures_util::stream::iter([Ok(mote::DirListing { entries })]).boxed())
    }

    async fn remove_paths(&self, request: mote::BuildletRemovePathsRequest) -> Result<u64, LinkError> {
        self.check()?;
        let id = instance(&request.instance_id)?;
        let mut state = self.lock();
        let before = state.files.len();
        state.files.retain(|(of, path), _| *of != id || !request.paths.contains(path));
        Ok((before - state.files.len()) as u64)
    }

    /// A process that answers what it is sent, and ends well when nothing more comes.
    async fn open_session(
        &self,
        mut input: BoxStream<'static, mote::SessionInput>,
    ) -> Result<LinkStream<mote::SessionOutput>, LinkError> {
        use mote::session_input::Input;
        use mote::session_output::Output;
        self.check()?;
        let Some(Input::Start(start)) = input.next().await.and_then(|first| first.input) else {
            return Err(LinkError::Refused(Box::new(Status::invalid_argument("field start: must come first"))));
        };
        if !self.lock().instances.contains_key(&instance(&start.instance_id)?) {
            return Err(not_there(&start.instance_id));
        }
        let window = u64::try_from(motefarm_proto::SESSION_WINDOW_BYTES).unwrap_or(0);
        let started = Output::Started(mote::SessionStarted { window });
        let answers = futures_util::stream::unfold(Some(input), |input| async {
            let mut input = input?;
            loop {
                match input.next().await?.input {
                    Some(Input::Data(data)) => return Some((vec![Output::Stdout(data)], Some(input))),
                    Some(Input::Eof(_)) => return Some((vec![Output::Exit(mote::SessionExit::default())], None)),
                    _ => {}
                }
            }
        });
        let all = futures_util::stream::iter([vec![started]]).chain(answers).flat_map(futures_util::stream::iter);
        Ok(all.map(|output| Ok(mote::SessionOutput { output: Some(output) })).boxed())
    }

    async fn run_action(
        &self,
        input: BoxStream<'static, mote::RunActionInput>,
    ) -> Result<LinkStream<mote::RunActionOutput>, LinkError> {
        self.check()?;
        let Some(script) = &self.script else {
            return Err(LinkError::Refused(Box::new(Status::resource_exhausted("no action slot is free"))));
        };
        actions::run(script, input, self.state.clone(), self.connected.subscribe()).await
    }
}
