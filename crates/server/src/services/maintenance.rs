//! The service Maintenance.

use std::sync::Arc;

use futures_util::stream;
use quorate_engine::{Error, KeyRange, Range, Revision};
use quorate_wire::etcdserverpb::{
    self as pb, alarm_request::AlarmAction, maintenance_server::Maintenance,
};
use tokio::task::spawn_blocking;
use tonic::{Code, Request, Response, Status, codegen::BoxStream};

use crate::{
    access::{Need, caller::Caller},
    store::{
        member,
        shared::{Shared, State, VERSION},
        snapshot,
    },
};

pub(crate) struct MaintenanceService {
    shared: Arc<Shared>,
}

impl MaintenanceService {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }

    /// Tells who might ask for it why something is not done.
    async fn refuse<T>(&self, caller: &Caller, reason: &str) -> Result<T, Status> {
        self.shared
            .answer(caller, Need::Root, |_, _| Ok(()))
            .await?;
        Err(Status::unimplemented(reason))
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    /// There is never an alarm: no quota is set, and a database that is corrupt is not opened.
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let action = AlarmAction::try_from(request.action)
            .map_err(|_| Status::invalid_argument("an unknown action on alarms"))?;
        let need = match action {
            AlarmAction::Get => Need::User,
            AlarmAction::Activate | AlarmAction::Deactivate => Need::Root,
        };
        if action == AlarmAction::Activate {
            let reason = "this server knows no alarms";
            return self.refuse(&caller, reason).await;
        }
        self.shared
            .answer(&caller, need, |state, _| {
                Ok(pb::AlarmResponse {
                    header: state.header(),
                    alarms: Vec::new(),
                })
            })
            .await
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        let (caller, _) = Caller::part(request);
        self.shared
            .answer(&caller, Need::Root, |state, _| {
                let header = state.store.header();
                // Every write is an entry of a log, as far as anyone can tell.
                let index = header.revision.0.unsigned_abs();
                let bytes = i64::try_from(state.store.bytes()).unwrap_or(i64::MAX);
                Ok(pb::StatusResponse {
                    header: state.header(),
                    version: VERSION.to_owned(),
                    db_size: bytes,
                    leader: header.member_id,
                    raft_index: index,
                    raft_term: header.raft_term,
                    raft_applied_index: index,
                    errors: Vec::new(),
                    db_size_in_use: bytes,
                    is_learner: false,
                    storage_version: String::new(),
                    db_size_quota: 0,
                })
            })
            .await
    }

    /// What is served is in memory, which has no gaps to be closed; the database reuses its own.
    async fn defragment(
        &self,
        request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        let (caller, _) = Caller::part(request);
        self.shared
            // etcd gives no header here.
            .answer(&caller, Need::Root, |_, _| {
                Ok(pb::DefragmentResponse::default())
            })
            .await
            .map_err(bare)
    }

    async fn hash(
        &self,
        request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        let (caller, _) = Caller::part(request);
        self.shared
            .answer(&caller, Need::Root, |state, _| {
                Ok(pb::HashResponse {
                    header: state.header(),
                    hash: hash(state, state.store.header().revision)?.0,
                })
            })
            .await
            .map_err(bare)
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let asked = Revision(request.revision);
        self.shared
            .answer(&caller, Need::Root, |state, _| {
                let revision = match asked {
                    Revision::ZERO => state.store.header().revision,
                    revision => revision,
                };
                let (hash, compacted) = hash(state, revision)?;
                Ok(pb::HashKvResponse {
                    header: state.header(),
                    hash,
                    compact_revision: compacted.0,
                    hash_revision: revision.0,
                })
            })
            .await
            .map_err(bare)
    }

    /// The file is made at once, and sent as the client reads it.
    async fn snapshot(
        &self,
        request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<BoxStream<pb::SnapshotResponse>>, Status> {
        let (caller, _) = Caller::part(request);
        let look = |state: &mut State, _| Ok((state.store.header(), state.store.records()));
        let found = self.shared.answer(&caller, Need::Root, look).await;
        let (header, records) = found.map_err(bare)?.into_inner();
        let pieces = spawn_blocking(move || snapshot::pieces(header, records))
            .await
            .map_err(|error| Status::internal(format!("the snapshot was not made: {error}")))?;
        Ok(Response::new(Box::pin(stream::iter(pieces.map(Ok)))))
    }

    async fn move_leader(
        &self,
        request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let own = self
            .shared
            .answer(&caller, Need::Root, |state, _| {
                Ok(state.store.header().member_id)
            })
            .await?;
        if request.target_id != own.into_inner() {
            let text = "etcdserver: bad leader transferee";
            return Err(Status::failed_precondition(text));
        }
        // It leads already, and etcd gives no header here.
        Ok(Response::new(pb::MoveLeaderResponse::default()))
    }

    async fn downgrade(
        &self,
        request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let (caller, _) = Caller::part(request);
        let reason = "this server has one version";
        self.refuse(&caller, reason).await
    }
}

/// Some calls tell who may not make them so in the words that etcd has inside, and no code.
fn bare(status: Status) -> Status {
    let inner = match (status.code(), status.message()) {
        (Code::InvalidArgument, "etcdserver: user name is empty") => "auth: user name is empty",
        (Code::FailedPrecondition, "etcdserver: user name not found") => "auth: user not found",
        (Code::PermissionDenied, _) => "auth: permission denied",
        (Code::Unauthenticated, _) => "auth: invalid auth token",
        _ => return status,
    };
    Status::unknown(inner)
}

/// etcd's hash of the changes up to a revision, and how far the store was compacted.
fn hash(state: &State, revision: Revision) -> Result<(u32, Revision), Error> {
    // Refuses revisions that cannot be read.
    let probe = Range::new(KeyRange::all()).revision(revision).count_only();
    state.store.range(&probe)?;
    Ok(member::hash(state.store.records(), revision))
}
