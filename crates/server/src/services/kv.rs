//! The service KV.

use std::sync::Arc;

use prost::Message;
use quorate_engine::{Error, LeaseId, Op, OpResult, Revision, Txn, TxnResult};
use quorate_wire::etcdserverpb::{self as pb, kv_server::Kv};
use tonic::{Request, Response, Status};

use crate::{
    access::{Need, caller::Caller},
    convert::{
        delete_from_wire, header_to_wire, kv_to_wire, may_write, put_from_wire, range_from_wire,
        range_to_wire, txn_from_wire, txn_to_wire,
    },
    status::refused,
    store::shared::{Shared, State},
};

/// The largest request that etcd takes for a write.
const MAX_REQUEST_BYTES: usize = 3 * 512 * 1024;

/// What etcd's members add to a request when they agree on it.
const ENVELOPE_BYTES: usize = 16;

pub(crate) struct KvService {
    shared: Arc<Shared>,
}

impl KvService {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }

    /// Refuses what etcd refuses by the look of a request: first what it holds, then its size.
    async fn check(&self, caller: &Caller, txn: &Txn, bytes: usize) -> Result<(), Status> {
        txn.check().map_err(refused)?;
        if let Err(refusal) = check_size(txn, bytes) {
            let refuse = |_: &mut State, _| Err::<(), _>(refusal);
            self.shared.answer(caller, Need::Nothing, refuse).await?;
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let range = range_from_wire(request)?;
        if range.keys.start.is_empty() {
            return Err(refused(Error::EmptyKey));
        }
        self.shared
            .answer(&caller, Need::Read(&range.keys), |state, _| {
                state.store.range(&range).map(range_to_wire)
            })
            .await
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let bytes = request.encoded_len();
        let lease = LeaseId::from_wire(request.lease);
        let txn = Txn::new().then(put_from_wire(request));
        self.check(&caller, &txn, bytes).await?;
        self.shared
            .answer(&caller, Need::Txn(&txn), |state, now| {
                // Outside a transaction etcd looks for the lease before it looks for the key.
                if let Some(lease) = lease
                    && state
                        .store
                        .lease_status(now, lease, false)
                        .remaining
                        .is_none()
                {
                    return Err(Error::LeaseNotFound);
                }
                let (header, result) = apply_one(state, &txn)?;
                let prev = match result {
                    Some(OpResult::Put { prev }) => prev,
                    _ => None,
                };
                Ok(pb::PutResponse {
                    header,
                    prev_kv: prev.map(kv_to_wire),
                })
            })
            .await
    }

    async fn delete_range(
        &self,
        request: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let bytes = request.encoded_len();
        let txn = Txn::new().then(delete_from_wire(request));
        self.check(&caller, &txn, bytes).await?;
        self.shared
            .answer(&caller, Need::Txn(&txn), |state, _| {
                let (header, result) = apply_one(state, &txn)?;
                let (deleted, prevs) = match result {
                    Some(OpResult::Delete { deleted, prevs }) => (deleted, prevs),
                    _ => (0, Vec::new()),
                };
                Ok(pb::DeleteRangeResponse {
                    header,
                    deleted,
                    prev_kvs: prevs.into_iter().map(kv_to_wire).collect(),
                })
            })
            .await
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let bytes = request.encoded_len();
        let txn = txn_from_wire(request)?;
        self.check(&caller, &txn, bytes).await?;
        self.shared
            .answer(&caller, Need::Txn(&txn), |state, _| {
                state.store.txn(&txn).map(txn_to_wire)
            })
            .await
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let (caller, request) = Caller::part(request);
        let revision = Revision(request.revision);
        self.shared
            .answer(&caller, Need::Root, |state, _| {
                state.watches.read_ahead(&state.store);
                let header = state.store.compact(revision)?;
                Ok(pb::CompactionResponse {
                    header: Some(header_to_wire(header)),
                })
            })
            .await
    }
}

/// Refuses to write what is too large for etcd.
pub(crate) fn check_size(txn: &Txn, bytes: usize) -> Result<(), Error> {
    if may_write(txn) && bytes + ENVELOPE_BYTES > MAX_REQUEST_BYTES {
        return Err(Error::RequestTooLarge);
    }
    Ok(())
}

/// Applies a transaction of one operation.
fn apply_one(
    state: &mut State,
    txn: &Txn,
) -> Result<(Option<pb::ResponseHeader>, Option<OpResult>), Error> {
    debug_assert!(!matches!(txn.success[..], [Op::Txn(_)]) && txn.success.len() == 1);
    let TxnResult {
        header, results, ..
    } = state.store.txn(txn)?;
    Ok((Some(header_to_wire(header)), results.into_iter().next()))
}
