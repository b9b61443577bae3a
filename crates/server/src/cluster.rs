//! The service Cluster: one member, for good.

use std::sync::Arc;

use quorate_wire::etcdserverpb::{self as pb, cluster_server::Cluster};
use tonic::{Request, Response, Status};

use crate::shared::Shared;

/// The name of the member.
const NAME: &str = "quorate";

pub(crate) struct ClusterService {
    shared: Arc<Shared>,
}

impl ClusterService {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        _request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        self.shared
            .answer(|state, _| {
                let member = pb::Member {
                    id: state.store.header().member_id,
                    name: NAME.to_owned(),
                    peer_ur_ls: Vec::new(),
                    client_ur_ls: vec![self.shared.url.clone()],
                    is_learner: false,
                };
                Ok(pb::MemberListResponse {
                    header: state.header(),
                    members: vec![member],
                })
            })
            .await
    }

    async fn member_add(
        &self,
        _request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        Err(alone())
    }

    async fn member_remove(
        &self,
        _request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        Err(alone())
    }

    async fn member_update(
        &self,
        _request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        Err(alone())
    }

    async fn member_promote(
        &self,
        _request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        Err(alone())
    }
}

fn alone() -> Status {
    Status::unimplemented("a store in memory has one member, which cannot be changed")
}
