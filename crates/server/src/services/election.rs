//! The service Election: who is first in the queue of a name leads, and tells a value.

use std::sync::Arc;

use futures_util::stream;
use quorate_engine::{Compare, KeyRange, LeaseId, Op, Put, Revision, Txn, Value};
use quorate_wire::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse, election_server::Election,
};
use tonic::{Request, Response, Status, codegen::BoxStream};

use crate::{
    access::{Need, caller::Caller},
    convert::{header_to_wire, kv_to_wire},
    services::{
        kv::check_size,
        observer::Observer,
        queue::{Lease, Place, oldest, queue_of, unknown, unknown_error},
    },
    store::shared::Shared,
};

const NOT_LEADER: &str = "election: not leader";

pub(crate) struct ElectionService {
    shared: Arc<Shared>,
}

impl ElectionService {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }
}

#[tonic::async_trait]
impl Election for ElectionService {
    /// Whoever goes away while waiting leaves the queue.
    async fn campaign(
        &self,
        request: Request<CampaignRequest>,
    ) -> Result<Response<CampaignResponse>, Status> {
        let (caller, CampaignRequest { name, lease, value }) = Caller::part(request);
        let turn = Place::turn(&self.shared, &caller, &name, lease, Value::from(&*value));
        let Some(turn) = turn.await? else {
            return Err(Status::unknown(NOT_LEADER));
        };
        Ok(Response::new(CampaignResponse {
            header: Some(header_to_wire(turn.entered)),
            leader: Some(LeaderKey {
                name,
                key: turn.key.into_bytes(),
                rev: turn.created.0,
                lease: LeaseId::to_wire(Some(turn.lease)),
            }),
        }))
    }

    async fn proclaim(
        &self,
        request: Request<ProclaimRequest>,
    ) -> Result<Response<ProclaimResponse>, Status> {
        let (caller, ProclaimRequest { leader, value }) = Caller::part(request);
        let leader = leader.ok_or_else(no_leader_key)?;
        let lease = Lease::new(leader.lease);
        let bytes = leader.key.len() + value.len();
        let txn = if_leading(&leader).then(Put::new(&*leader.key, &*value).lease(lease.id));
        txn.check().map_err(unknown_error)?;
        check_size(&txn, bytes).map_err(unknown_error)?;
        let proclaim = self.shared.answer(&caller, Need::Txn(&txn), |state, now| {
            lease.grant(state, now)?;
            let result = state.store.txn(&txn);
            if !result.as_ref().is_ok_and(|result| result.succeeded) {
                lease.give_back(state);
            }
            result
        });
        let result = proclaim.await.map_err(unknown)?.into_inner();
        if !result.succeeded {
            return Err(Status::unknown(NOT_LEADER));
        }
        Ok(Response::new(ProclaimResponse {
            header: Some(header_to_wire(result.header)),
        }))
    }

    async fn leader(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<LeaderResponse>, Status> {
        let (caller, LeaderRequest { name }) = Caller::part(request);
        let range = oldest(&queue_of(&name));
        let need = Need::Read(&range.keys);
        let read = self
            .shared
            .answer(&caller, need, |state, _| state.store.range(&range));
        let found = read.await.map_err(unknown)?.into_inner();
        let Some(kv) = found.kvs.into_iter().next() else {
            return Err(Status::unknown("election: no leader"));
        };
        Ok(Response::new(LeaderResponse {
            header: Some(header_to_wire(found.header)),
            kv: Some(kv_to_wire(kv)),
        }))
    }

    async fn observe(
        &self,
        request: Request<LeaderRequest>,
    ) -> Result<Response<BoxStream<LeaderResponse>>, Status> {
        let (caller, LeaderRequest { name }) = Caller::part(request);
        let observer = Observer::open(&self.shared, &caller, queue_of(&name)).await?;
        let leaders = stream::try_unfold(observer, async |mut observer| {
            let leader = observer.next().await?;
            Ok(Some((leader, observer)))
        });
        Ok(Response::new(Box::pin(leaders)))
    }

    /// That somebody else leads by now is no error: the caller does not, which is what he wants.
    async fn resign(
        &self,
        request: Request<ResignRequest>,
    ) -> Result<Response<ResignResponse>, Status> {
        let (caller, ResignRequest { leader }) = Caller::part(request);
        let leader = leader.ok_or_else(no_leader_key)?;
        let txn = if_leading(&leader).then(Op::delete(KeyRange::key(leader.key)));
        txn.check().map_err(unknown_error)?;
        let resign = self.shared.answer(&caller, Need::Txn(&txn), |state, _| {
            let header = header_to_wire(state.store.txn(&txn)?.header);
            Ok(ResignResponse {
                header: Some(header),
            })
        });
        resign.await.map_err(unknown)
    }
}

/// A transaction on condition that this key still leads.
fn if_leading(leader: &LeaderKey) -> Txn {
    let key = KeyRange::key(leader.key.clone());
    Txn::new().when(Compare::create_revision(key).eq(Revision(leader.rev)))
}

fn no_leader_key() -> Status {
    Status::unknown("\"leader\" field must be provided")
}
