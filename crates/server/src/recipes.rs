//! The services Lock and Election, which etcd builds on the others.

use quorate_wire::{
    v3electionpb::{self as election, election_server::Election},
    v3lockpb::{self as lock, lock_server::Lock},
};
use tonic::{Request, Response, Status, codegen::BoxStream};

/// Refuses to lock and to elect. Clients that do so themselves, as etcdctl and Go's `concurrency`
/// do, need neither service.
pub(crate) struct Unserved;

#[tonic::async_trait]
impl Lock for Unserved {
    async fn lock(
        &self,
        _request: Request<lock::LockRequest>,
    ) -> Result<Response<lock::LockResponse>, Status> {
        Err(unserved())
    }

    async fn unlock(
        &self,
        _request: Request<lock::UnlockRequest>,
    ) -> Result<Response<lock::UnlockResponse>, Status> {
        Err(unserved())
    }
}

#[tonic::async_trait]
impl Election for Unserved {
    async fn campaign(
        &self,
        _request: Request<election::CampaignRequest>,
    ) -> Result<Response<election::CampaignResponse>, Status> {
        Err(unserved())
    }

    async fn proclaim(
        &self,
        _request: Request<election::ProclaimRequest>,
    ) -> Result<Response<election::ProclaimResponse>, Status> {
        Err(unserved())
    }

    async fn leader(
        &self,
        _request: Request<election::LeaderRequest>,
    ) -> Result<Response<election::LeaderResponse>, Status> {
        Err(unserved())
    }

    async fn observe(
        &self,
        _request: Request<election::LeaderRequest>,
    ) -> Result<Response<BoxStream<election::LeaderResponse>>, Status> {
        Err(unserved())
    }

    async fn resign(
        &self,
        _request: Request<election::ResignRequest>,
    ) -> Result<Response<election::ResignResponse>, Status> {
        Err(unserved())
    }
}

fn unserved() -> Status {
    let reason = "this server does not lock or elect for its clients: \
                  use the recipes of a client library";
    Status::unimplemented(reason)
}
