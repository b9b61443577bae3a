//! The service Lease.

use std::sync::Arc;

use futures_util::StreamExt;
use quorate_engine::LeaseId;
use quorate_wire::etcdserverpb::{self as pb, lease_server::Lease};
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use crate::{
    access::{Need, caller::Caller},
    convert::{header_to_wire, ttl_from_wire, ttl_to_wire},
    store::shared::Shared,
};

/// What etcd tells to be left of a lease that it does not know.
const NO_LEASE: i64 = -1;

pub(crate) struct LeaseService {
    shared: Arc<Shared>,
}

impl LeaseService {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }
}

#[tonic::async_trait]
impl Lease for LeaseService {
    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let ttl = ttl_from_wire(request.ttl);
        // A client that outlives its server must not find its id given to somebody else.
        let id = match request.id {
            0 => fastrand::i64(1..),
            id => id,
        };
        self.shared
            .answer(&caller, Need::User, |state, now| {
                let granted = state.store.grant(now, LeaseId(id), ttl)?;
                Ok(pb::LeaseGrantResponse {
                    header: Some(header_to_wire(granted.header)),
                    id: granted.id.0,
                    ttl: ttl_to_wire(granted.ttl),
                    error: String::new(),
                })
            })
            .await
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let id = LeaseId(request.id);
        self.shared
            .answer(&caller, Need::WriteLease(id), |state, _| {
                let header = state.store.revoke(id)?;
                Ok(pb::LeaseRevokeResponse {
                    header: Some(header_to_wire(header)),
                })
            })
            .await
    }

    /// Each request is read when its answer can be sent, so that nothing piles up here.
    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<BoxStream<pb::LeaseKeepAliveResponse>>, Status> {
        let shared = Arc::clone(&self.shared);
        let (caller, requests) = Caller::part(request);
        let caller = Arc::new(caller);
        let answers = requests.then(move |request| {
            let (shared, caller) = (Arc::clone(&shared), Arc::clone(&caller));
            async move {
                let id = LeaseId(request?.id);
                let answer = shared.answer(&caller, Need::WriteLease(id), |state, now| {
                    Ok(pb::LeaseKeepAliveResponse {
                        ttl: ttl_to_wire(state.store.keep_alive(now, id)),
                        header: state.header(),
                        id: id.0,
                    })
                });
                Ok(answer.await?.into_inner())
            }
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let id = LeaseId(request.id);
        let need = if request.keys {
            Need::ReadLease(id)
        } else {
            Need::User
        };
        self.shared
            .answer(&caller, need, |state, now| {
                let status = state.store.lease_status(now, id, request.keys);
                Ok(pb::LeaseTimeToLiveResponse {
                    header: Some(header_to_wire(status.header)),
                    id: request.id,
                    ttl: status.remaining.map_or(NO_LEASE, ttl_to_wire),
                    granted_ttl: ttl_to_wire(status.granted),
                    keys: status.keys.into_iter().map(Into::into).collect(),
                })
            })
            .await
    }

    async fn lease_leases(
        &self,
        request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        let (caller, _) = Caller::part(request);
        self.shared
            .answer(&caller, Need::ReadLeases, |state, _| {
                let leases = state.store.leases().into_iter();
                Ok(pb::LeaseLeasesResponse {
                    header: state.header(),
                    leases: leases.map(|LeaseId(id)| pb::LeaseStatus { id }).collect(),
                })
            })
            .await
    }
}
