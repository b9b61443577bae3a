//! The service Maintenance.

use std::sync::Arc;

use futures_util::stream;
use quorate_engine::{Error, KeyRange, Range, Revision};
use quorate_wire::etcdserverpb::{
    self as pb, alarm_request::AlarmAction, maintenance_server::Maintenance,
};
use tokio::task::spawn_blocking;
use tonic::{Request, Response, Status, codegen::BoxStream};

use crate::{
    member,
    shared::{Shared, State, VERSION},
    snapshot,
};

pub(crate) struct MaintenanceService {
    shared: Arc<Shared>,
}

impl MaintenanceService {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }
}

#[tonic::async_trait]
impl Maintenance for MaintenanceService {
    /// There is never an alarm: memory has no quota, and nothing that could be corrupt.
    async fn alarm(
        &self,
        request: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        let action = AlarmAction::try_from(request.into_inner().action)
            .map_err(|_| Status::invalid_argument("an unknown action on alarms"))?;
        if action == AlarmAction::Activate {
            let reason = "a store in memory cannot be put in a state of alarm";
            return Err(Status::unimplemented(reason));
        }
        self.shared
            .answer(|state, _| {
                Ok(pb::AlarmResponse {
                    header: state.header(),
                    alarms: Vec::new(),
                })
            })
            .await
    }

    async fn status(
        &self,
        _request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.shared
            .answer(|state, _| {
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

    /// Memory has no gaps to be closed.
    async fn defragment(
        &self,
        _request: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.shared
            .answer(|state, _| {
                Ok(pb::DefragmentResponse {
                    header: state.header(),
                })
            })
            .await
    }

    async fn hash(
        &self,
        _request: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        self.shared
            .answer(|state, _| {
                Ok(pb::HashResponse {
                    header: state.header(),
                    hash: hash(state, state.store.header().revision)?.0,
                })
            })
            .await
    }

    async fn hash_kv(
        &self,
        request: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        let asked = Revision(request.into_inner().revision);
        self.shared
            .answer(|state, _| {
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
    }

    /// The file is made at once, and sent as the client reads it.
    async fn snapshot(
        &self,
        _request: Request<pb::SnapshotRequest>,
    ) -> Result<Response<BoxStream<pb::SnapshotResponse>>, Status> {
        let (header, records) = self
            .shared
            .answer(|state, _| Ok((state.store.header(), state.store.records())))
            .await?
            .into_inner();
        let make = move || snapshot::pieces(header, records);
        let pieces = spawn_blocking(make)
            .await
            .map_err(|error| Status::internal(format!("the snapshot was not made: {error}")))?;
        Ok(Response::new(Box::pin(stream::iter(pieces.map(Ok)))))
    }

    async fn move_leader(
        &self,
        _request: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        let reason = "a store in memory has one member, which leads";
        Err(Status::unimplemented(reason))
    }

    async fn downgrade(
        &self,
        _request: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        let reason = "a store in memory has one version";
        Err(Status::unimplemented(reason))
    }
}

/// etcd's hash of the changes up to a revision, and how far the store was compacted.
fn hash(state: &State, revision: Revision) -> Result<(u32, Revision), Error> {
    // Refuses revisions that cannot be read.
    let probe = Range::new(KeyRange::all()).revision(revision).count_only();
    state.store.range(&probe)?;
    Ok(member::hash(state.store.records(), revision))
}
