//! etcd's messages and the store's vocabulary: requests in, answers out.

use std::time::Duration;

use quorate_engine::{
    Compare, CompareOp, CompareTarget, Delete, Event, Header, KeyRange, KeyValue, LeaseId, Op,
    OpResult, Order, Put, Range, RangeResult, Revision, SortBy, Txn, TxnResult, WatchRequest,
};
use quorate_wire::{
    etcdserverpb::{
        self as pb,
        compare::{CompareResult, CompareTarget as PbTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request,
        response_op::Response,
        watch_create_request::FilterType,
    },
    mvccpb,
};
use tonic::Status;

pub(crate) fn range_from_wire(request: pb::RangeRequest) -> Result<Range, Status> {
    let mut range = Range::new(KeyRange::from_wire(request.key, request.range_end));
    range.order = order_from_wire(request.sort_order, request.sort_target)?;
    range.limit = request.limit;
    range.revision = Revision(request.revision);
    range.serializable = request.serializable;
    range.keys_only = request.keys_only;
    range.count_only = request.count_only;
    range.min_mod_revision = Revision(request.min_mod_revision);
    range.max_mod_revision = Revision(request.max_mod_revision);
    range.min_create_revision = Revision(request.min_create_revision);
    range.max_create_revision = Revision(request.max_create_revision);
    Ok(range)
}

fn order_from_wire(order: i32, target: i32) -> Result<Option<(SortBy, Order)>, Status> {
    let unknown = |_| Status::invalid_argument("etcdserver: invalid sort option");
    let order = SortOrder::try_from(order).map_err(unknown)?;
    let target = SortTarget::try_from(target).map_err(unknown)?;
    let by = match target {
        SortTarget::Create => SortBy::CreateRevision,
        SortTarget::Key => SortBy::Key,
        SortTarget::Mod => SortBy::ModRevision,
        SortTarget::Value => SortBy::Value,
        SortTarget::Version => SortBy::Version,
    };
    Ok(match order {
        SortOrder::Ascend => Some((by, Order::Ascending)),
        SortOrder::Descend => Some((by, Order::Descending)),
        SortOrder::None if by == SortBy::Key => None,
        SortOrder::None => Some((by, Order::Unstated)),
    })
}

/// What is put stays, so it must not keep the buffer that it came in.
pub(crate) fn put_from_wire(request: pb::PutRequest) -> Put {
    let mut put = Put::new(&*request.key, &*request.value);
    put.lease = LeaseId::from_wire(request.lease);
    put.prev_kv = request.prev_kv;
    put.ignore_value = request.ignore_value;
    put.ignore_lease = request.ignore_lease;
    put
}

pub(crate) fn delete_from_wire(request: pb::DeleteRangeRequest) -> Delete {
    let mut delete = Delete::new(KeyRange::from_wire(request.key, request.range_end));
    delete.prev_kv = request.prev_kv;
    delete
}

pub(crate) fn txn_from_wire(request: pb::TxnRequest) -> Result<Txn, Status> {
    let ops = |ops: Vec<pb::RequestOp>| -> Result<Vec<Op>, Status> {
        ops.into_iter().map(op_from_wire).collect()
    };
    let compares = request.compare.into_iter().map(compare_from_wire);
    let mut txn = Txn::new();
    txn.compares = compares.collect::<Result<_, _>>()?;
    txn.success = ops(request.success)?;
    txn.failure = ops(request.failure)?;
    Ok(txn)
}

fn op_from_wire(op: pb::RequestOp) -> Result<Op, Status> {
    Ok(match op.request {
        Some(Request::RequestDeleteRange(request)) => delete_from_wire(request).into(),
        Some(Request::RequestPut(request)) => put_from_wire(request).into(),
        Some(Request::RequestRange(request)) => range_from_wire(request)?.into(),
        Some(Request::RequestTxn(request)) => txn_from_wire(request)?.into(),
        // etcd's words for an operation that is none.
        None => return Err(Status::invalid_argument("etcdserver: key not found")),
    })
}

/// A target that is not there, or is one of another kind, is zero or empty, as in etcd.
fn compare_from_wire(compare: pb::Compare) -> Result<Compare, Status> {
    let unknown = |_| Status::invalid_argument("a compare of an unknown kind");
    let op = match CompareResult::try_from(compare.result).map_err(unknown)? {
        CompareResult::Equal => CompareOp::Equal,
        CompareResult::Greater => CompareOp::Greater,
        CompareResult::Less => CompareOp::Less,
        CompareResult::NotEqual => CompareOp::NotEqual,
    };
    let union = compare.target_union;
    let target = match PbTarget::try_from(compare.target).map_err(unknown)? {
        PbTarget::Create => CompareTarget::CreateRevision(match union {
            Some(TargetUnion::CreateRevision(revision)) => Revision(revision),
            _ => Revision::ZERO,
        }),
        PbTarget::Lease => CompareTarget::Lease(match union {
            Some(TargetUnion::Lease(id)) => LeaseId::from_wire(id),
            _ => None,
        }),
        PbTarget::Mod => CompareTarget::ModRevision(match union {
            Some(TargetUnion::ModRevision(revision)) => Revision(revision),
            _ => Revision::ZERO,
        }),
        PbTarget::Value => CompareTarget::Value(match union {
            Some(TargetUnion::Value(value)) => value.into(),
            _ => Default::default(),
        }),
        PbTarget::Version => CompareTarget::Version(match union {
            Some(TargetUnion::Version(version)) => version,
            _ => 0,
        }),
    };
    let keys = KeyRange::from_wire(compare.key, compare.range_end);
    Ok(Compare { keys, op, target })
}

/// None for a filter that is unknown, which must not be taken for none at all.
pub(crate) fn watch_from_wire(request: pb::WatchCreateRequest) -> Option<WatchRequest> {
    let mut key = request.key;
    if key.is_empty() {
        // What etcd takes no key for, in a watch.
        key = b"\0"[..].into();
    }
    let mut watch = WatchRequest::new(KeyRange::from_wire(key, request.range_end));
    watch.start = Revision(request.start_revision);
    watch.prev_kv = request.prev_kv;
    for filter in request.filters {
        match FilterType::try_from(filter).ok()? {
            FilterType::Nodelete => watch.no_delete = true,
            FilterType::Noput => watch.no_put = true,
        }
    }
    Some(watch)
}

/// Whether a transaction writes, whichever way it goes.
pub(crate) fn may_write(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match op {
        Op::Delete(_) | Op::Put(_) => true,
        Op::Range(_) => false,
        Op::Txn(txn) => may_write(txn),
    })
}

/// A time off the wire; nothing is left of a negative one, which etcd raises to its shortest.
pub(crate) fn ttl_from_wire(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

pub(crate) fn ttl_to_wire(ttl: Duration) -> i64 {
    i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)
}

pub(crate) const fn header_to_wire(header: Header) -> pb::ResponseHeader {
    pb::ResponseHeader {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: header.revision.0,
        raft_term: header.raft_term,
    }
}

pub(crate) fn range_to_wire(result: RangeResult) -> pb::RangeResponse {
    pb::RangeResponse {
        header: Some(header_to_wire(result.header)),
        kvs: result.kvs.into_iter().map(kv_to_wire).collect(),
        more: result.more,
        count: result.count,
    }
}

pub(crate) fn txn_to_wire(result: TxnResult) -> pb::TxnResponse {
    let revision = result.header.revision;
    let mut at = if has_written(&result) {
        revision.previous()
    } else {
        revision
    };
    ops_to_wire(result, &mut at, revision)
}

/// Inner answers bear the revision as it was at their turn: `at` becomes `revision` with the first
/// write.
fn ops_to_wire(result: TxnResult, at: &mut Revision, revision: Revision) -> pb::TxnResponse {
    let responses = result.results.into_iter().map(|result| {
        let response = match result {
            OpResult::Delete { deleted, prevs } => {
                if deleted > 0 {
                    *at = revision;
                }
                Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                    header: Some(header_at(*at)),
                    deleted,
                    prev_kvs: prevs.into_iter().map(kv_to_wire).collect(),
                })
            }
            OpResult::Put { prev } => {
                *at = revision;
                Response::ResponsePut(pb::PutResponse {
                    header: Some(header_at(*at)),
                    prev_kv: prev.map(kv_to_wire),
                })
            }
            OpResult::Range(result) => Response::ResponseRange(range_to_wire(result)),
            OpResult::Txn(inner) => Response::ResponseTxn(ops_to_wire(inner, at, revision)),
        };
        pb::ResponseOp {
            response: Some(response),
        }
    });
    pb::TxnResponse {
        header: Some(header_to_wire(result.header)),
        succeeded: result.succeeded,
        responses: responses.collect(),
    }
}

fn has_written(result: &TxnResult) -> bool {
    result.results.iter().any(|result| match result {
        OpResult::Delete { deleted, .. } => *deleted > 0,
        OpResult::Put { .. } => true,
        OpResult::Range(_) => false,
        OpResult::Txn(inner) => has_written(inner),
    })
}

fn header_at(revision: Revision) -> pb::ResponseHeader {
    header_to_wire(Header {
        revision,
        ..Header::default()
    })
}

pub(crate) fn event_to_wire(event: Event) -> mvccpb::Event {
    let (kind, kv, prev) = match event {
        Event::Put { kv, prev } => (mvccpb::event::EventType::Put, kv_to_wire(kv), prev),
        Event::Delete {
            key,
            revision,
            prev,
        } => {
            let kv = mvccpb::KeyValue {
                key: key.into_bytes(),
                mod_revision: revision.0,
                ..mvccpb::KeyValue::default()
            };
            (mvccpb::event::EventType::Delete, kv, prev)
        }
    };
    mvccpb::Event {
        r#type: kind.into(),
        kv: Some(kv),
        prev_kv: prev.map(kv_to_wire),
    }
}

pub(crate) fn kv_to_wire(kv: KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key.into_bytes(),
        create_revision: kv.create_revision.0,
        mod_revision: kv.mod_revision.0,
        version: kv.version,
        value: kv.value.into_bytes(),
        lease: LeaseId::to_wire(kv.lease),
    }
}
