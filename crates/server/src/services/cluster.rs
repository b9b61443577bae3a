//! The service Cluster: one member, for good.

use std::sync::Arc;

use quorate_wire::etcdserverpb::{self as pb, cluster_server::Cluster};
use tonic::{Code, Request, Response, Status};

use crate::{
    access::{Need, caller::Caller},
    convert::header_to_wire,
    store::shared::Shared,
};

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

    /// Refuses to change the member of an id, or to add one, and tells only who might that nobody can.
    async fn refuse<T>(&self, caller: &Caller, id: Option<u64>) -> Result<T, Status> {
        let own = self
            .shared
            .answer(caller, Need::Root, |state, _| {
                Ok(state.store.header().member_id)
            })
            .await?;
        if id.is_some_and(|id| id != own.into_inner()) {
            return Err(Status::not_found("etcdserver: member not found"));
        }
        let reason = "this server is the only member, and there will be no other";
        Err(Status::unimplemented(reason))
    }
}

#[tonic::async_trait]
impl Cluster for ClusterService {
    async fn member_list(
        &self,
        request: Request<pb::MemberListRequest>,
    ) -> Result<Response<pb::MemberListResponse>, Status> {
        let (caller, _) = Caller::part(request);
        self.shared
            .answer(&caller, Need::User, |state, _| {
                let member = pb::Member {
                    id: state.store.header().member_id,
                    name: NAME.to_owned(),
                    peer_ur_ls: Vec::new(),
                    client_ur_ls: vec![self.shared.url.clone()],
                    is_learner: false,
                };
                // The list is none of the store's, and has no revision.
                let header = pb::ResponseHeader {
                    revision: 0,
                    ..header_to_wire(state.store.header())
                };
                Ok(pb::MemberListResponse {
                    header: Some(header),
                    members: vec![member],
                })
            })
            .await
    }

    async fn member_add(
        &self,
        request: Request<pb::MemberAddRequest>,
    ) -> Result<Response<pb::MemberAddResponse>, Status> {
        let (caller, _) = Caller::part(request);
        self.refuse(&caller, None).await
    }

    async fn member_remove(
        &self,
        request: Request<pb::MemberRemoveRequest>,
    ) -> Result<Response<pb::MemberRemoveResponse>, Status> {
        let (caller, request) = Caller::part(request);
        self.refuse(&caller, Some(request.id)).await
    }

    async fn member_update(
        &self,
        request: Request<pb::MemberUpdateRequest>,
    ) -> Result<Response<pb::MemberUpdateResponse>, Status> {
        let (caller, request) = Caller::part(request);
        self.refuse(&caller, Some(request.id)).await
    }

    async fn member_promote(
        &self,
        request: Request<pb::MemberPromoteRequest>,
    ) -> Result<Response<pb::MemberPromoteResponse>, Status> {
        let (caller, request) = Caller::part(request);
        match self.refuse(&caller, Some(request.id)).await {
            Err(status) if status.code() == Code::Unimplemented => Err(
                Status::failed_precondition("etcdserver: can only promote a learner member"),
            ),
            refused => refused,
        }
    }
}
