//! The service Lease.

use std::sync::Arc;

use futures_util::StreamExt;
use quorate_engine::LeaseId;
use quorate_wire::etcdserverpb::{self as pb, lease_server::Lease};
use tonic::{Request, Response, Status, Streaming, codegen::BoxStream};

use crate::{
    convert::{header_to_wire, ttl_from_wire, ttl_to_wire},
    shared::Shared,
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
        let request = request.into_inner();
        let ttl = ttl_from_wire(request.ttl);
        // A client that outlives its server must not find its id given to somebody else.
        let id = match request.id {
            0 => fastrand::i64(1..),
            id => id,
        };
        self.shared
            .answer(|state, now| {
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
        let id = LeaseId(request.into_inner().id);
        self.shared
            .answer(|state, _| {
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
        let answers = request.into_inner().then(move |request| {
            let shared = Arc::clone(&shared);
            async move {
                let id = request?.id;
                let answer = shared.answer(|state, now| {
                    Ok(pb::LeaseKeepAliveResponse {
                        ttl: ttl_to_wire(state.store.keep_alive(now, LeaseId(id))),
                        header: state.header(),
                        id,
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
        let request = request.into_inner();
        let id = LeaseId(request.id);
        self.shared
            .answer(|state, now| {
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
        _request: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        self.shared
            .answer(|state, _| {
                let leases = state.store.leases().into_iter();
                Ok(pb::LeaseLeasesResponse {
                    header: state.header(),
                    leases: leases.map(|LeaseId(id)| pb::LeaseStatus { id }).collect(),
                })
            })
            .await
    }
}
