//! The service Lock, which holds a lock for as long as a lease lives.

use std::sync::Arc;

use quorate_engine::{Delete, KeyRange, Txn, Value};
use quorate_wire::v3lockpb::{
    LockRequest, LockResponse, UnlockRequest, UnlockResponse, lock_server::Lock,
};
use tonic::{Request, Response, Status};

use crate::{
    access::{Need, caller::Caller},
    convert::header_to_wire,
    services::queue::{Place, unknown, unknown_error},
    store::shared::Shared,
};

pub(crate) struct LockService {
    shared: Arc<Shared>,
}

impl LockService {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        let shared = Arc::clone(shared);
        Self { shared }
    }
}

#[tonic::async_trait]
impl Lock for LockService {
    /// Whoever goes away while waiting leaves the queue.
    async fn lock(&self, request: Request<LockRequest>) -> Result<Response<LockResponse>, Status> {
        let (caller, LockRequest { name, lease }) = Caller::part(request);
        let turn = Place::turn(&self.shared, &caller, &name, lease, Value::default());
        let Some(turn) = turn.await? else {
            return Err(Status::unknown("mutex: session is expired"));
        };
        Ok(Response::new(LockResponse {
            header: Some(header_to_wire(turn.come)),
            key: turn.key.into_bytes(),
        }))
    }

    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let (caller, UnlockRequest { key }) = Caller::part(request);
        let txn = Txn::new().then(Delete::new(KeyRange::key(key)));
        txn.check().map_err(unknown_error)?;
        let unlock = self.shared.answer(&caller, Need::Txn(&txn), |state, _| {
            let header = header_to_wire(state.store.txn(&txn)?.header);
            Ok(UnlockResponse {
                header: Some(header),
            })
        });
        unlock.await.map_err(unknown)
    }
}
