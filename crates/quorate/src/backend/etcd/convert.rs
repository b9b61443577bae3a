//! etcd's messages and the vocabulary: requests out, answers in.
//!
//! An answer that makes no sense is a failure, whatever sent it.

use std::time::Duration;

use quorate_engine::{
    Compare, CompareOp, CompareTarget, Delete, Event, Header, KeyValue, LeaseId, Op, OpResult,
    Order, Put, Range, RangeResult, Revision, SortBy, Txn, TxnResult, WatchRequest,
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

use super::classify::Failure;
use crate::duration::LONGEST;

pub(super) fn range_to_wire(range: Range) -> pb::RangeRequest {
    let (key, range_end) = range.keys.to_wire();
    let (target, order) = match range.order {
        None => (SortTarget::Key, SortOrder::None),
        Some((by, order)) => {
            let target = match by {
                SortBy::CreateRevision => SortTarget::Create,
                SortBy::Key => SortTarget::Key,
                SortBy::ModRevision => SortTarget::Mod,
                SortBy::Value => SortTarget::Value,
                SortBy::Version => SortTarget::Version,
            };
            let order = match order {
                Order::Ascending => SortOrder::Ascend,
                Order::Descending => SortOrder::Descend,
                Order::Unstated => SortOrder::None,
            };
            (target, order)
        }
    };
    pb::RangeRequest {
        key,
        range_end,
        limit: range.limit,
        revision: range.revision.0,
        sort_order: order.into(),
        sort_target: target.into(),
        serializable: range.serializable,
        keys_only: range.keys_only,
        count_only: range.count_only,
        min_mod_revision: range.min_mod_revision.0,
        max_mod_revision: range.max_mod_revision.0,
        min_create_revision: range.min_create_revision.0,
        max_create_revision: range.max_create_revision.0,
    }
}

pub(super) fn txn_to_wire(txn: Txn) -> pb::TxnRequest {
    let ops = |ops: Vec<Op>| ops.into_iter().map(op_to_wire).collect();
    pb::TxnRequest {
        compare: txn.compares.into_iter().map(compare_to_wire).collect(),
        success: ops(txn.success),
        failure: ops(txn.failure),
    }
}

fn op_to_wire(op: Op) -> pb::RequestOp {
    let request = match op {
        Op::Delete(Delete { keys, prev_kv, .. }) => {
            let (key, range_end) = keys.to_wire();
            Request::RequestDeleteRange(pb::DeleteRangeRequest {
                key,
                range_end,
                prev_kv,
            })
        }
        Op::Put(Put {
            key,
            value,
            lease,
            prev_kv,
            ignore_value,
            ignore_lease,
            ..
        }) => Request::RequestPut(pb::PutRequest {
            key: key.into_bytes(),
            value: value.into_bytes(),
            lease: LeaseId::to_wire(lease),
            prev_kv,
            ignore_value,
            ignore_lease,
        }),
        Op::Range(range) => Request::RequestRange(range_to_wire(range)),
        Op::Txn(txn) => Request::RequestTxn(txn_to_wire(txn)),
    };
    pb::RequestOp {
        request: Some(request),
    }
}

fn compare_to_wire(compare: Compare) -> pb::Compare {
    let (key, range_end) = compare.keys.to_wire();
    let result = match compare.op {
        CompareOp::Equal => CompareResult::Equal,
        CompareOp::Greater => CompareResult::Greater,
        CompareOp::Less => CompareResult::Less,
        CompareOp::NotEqual => CompareResult::NotEqual,
    };
    let (target, union) = match compare.target {
        CompareTarget::CreateRevision(revision) => {
            (PbTarget::Create, TargetUnion::CreateRevision(revision.0))
        }
        CompareTarget::Lease(lease) => {
            (PbTarget::Lease, TargetUnion::Lease(LeaseId::to_wire(lease)))
        }
        CompareTarget::ModRevision(revision) => {
            (PbTarget::Mod, TargetUnion::ModRevision(revision.0))
        }
        CompareTarget::Value(value) => (PbTarget::Value, TargetUnion::Value(value.into_bytes())),
        CompareTarget::Version(version) => (PbTarget::Version, TargetUnion::Version(version)),
    };
    pb::Compare {
        result: result.into(),
        target: target.into(),
        key,
        range_end,
        target_union: Some(union),
    }
}

pub(super) fn watch_to_wire(request: &WatchRequest, watch_id: i64) -> pb::WatchCreateRequest {
    let mut keys = request.keys.clone();
    if keys.start.is_empty() {
        // What etcd takes no key for, in a watch.
        keys.start = b"\0".into();
    }
    let (key, range_end) = keys.to_wire();
    let filters = [
        (request.no_put, FilterType::Noput),
        (request.no_delete, FilterType::Nodelete),
    ];
    pb::WatchCreateRequest {
        key,
        range_end,
        start_revision: request.start.0,
        progress_notify: false,
        filters: filters
            .into_iter()
            .filter(|(on, _)| *on)
            .map(|(_, filter)| filter.into())
            .collect(),
        prev_kv: request.prev_kv,
        watch_id,
        fragment: true,
    }
}

/// Whether a transaction changes nothing, whichever way it goes.
pub(super) fn is_read_only(txn: &Txn) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match op {
        Op::Delete(_) | Op::Put(_) => false,
        Op::Range(_) => true,
        Op::Txn(txn) => is_read_only(txn),
    })
}

/// The put that is all that a transaction does. One that needs the key to be there is refused for other
/// reasons first, so that is none.
pub(super) fn lone_put(txn: &pb::TxnRequest) -> Option<&pb::PutRequest> {
    let ([], [op], []) = (&*txn.compare, &*txn.success, &*txn.failure) else {
        return None;
    };
    match &op.request {
        Some(Request::RequestPut(put)) if !put.ignore_value && !put.ignore_lease => Some(put),
        _ => None,
    }
}

/// A lease's time in etcd's whole seconds, rounded up.
pub(super) fn ttl_to_wire(ttl: Duration) -> i64 {
    let seconds = ttl
        .as_secs()
        .saturating_add(u64::from(ttl.subsec_nanos() > 0));
    i64::try_from(seconds).unwrap_or(i64::MAX)
}

/// A time off the wire; nothing is left of a negative one, and none is longer than etcd grants.
pub(super) fn ttl_from_wire(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default()).min(LONGEST)
}

pub(super) fn header_from_wire(header: Option<pb::ResponseHeader>) -> Result<Header, Failure> {
    header
        .map(plain_header)
        .ok_or_else(|| Failure::garbled("no header"))
}

/// The header of an answer of the store, whose revision may become a token: the first is 1.
fn revised_from_wire(header: Option<pb::ResponseHeader>) -> Result<Header, Failure> {
    let header = header_from_wire(header)?;
    match header.revision > Revision::ZERO {
        true => Ok(header),
        false => Err(Failure::garbled("no revision")),
    }
}

/// The header of an answer within an answer, which may lack one.
fn inner_header(header: Option<pb::ResponseHeader>) -> Header {
    header.map(plain_header).unwrap_or_default()
}

fn plain_header(header: pb::ResponseHeader) -> Header {
    Header {
        cluster_id: header.cluster_id,
        member_id: header.member_id,
        revision: Revision(header.revision),
        raft_term: header.raft_term,
    }
}

pub(super) fn range_from_wire(answer: pb::RangeResponse) -> Result<RangeResult, Failure> {
    let header = revised_from_wire(answer.header)?;
    Ok(range_with(header, answer))
}

fn range_with(header: Header, answer: pb::RangeResponse) -> RangeResult {
    RangeResult {
        header,
        kvs: answer.kvs.into_iter().map(kv_from_wire).collect(),
        more: answer.more,
        count: answer.count,
    }
}

pub(super) fn txn_from_wire(answer: pb::TxnResponse) -> Result<TxnResult, Failure> {
    let header = revised_from_wire(answer.header)?;
    txn_with(header, answer)
}

fn txn_with(header: Header, answer: pb::TxnResponse) -> Result<TxnResult, Failure> {
    Ok(TxnResult {
        header,
        succeeded: answer.succeeded,
        results: answer
            .responses
            .into_iter()
            .map(op_from_wire)
            .collect::<Result<_, _>>()?,
    })
}

fn op_from_wire(answer: pb::ResponseOp) -> Result<OpResult, Failure> {
    Ok(match answer.response {
        Some(Response::ResponseDeleteRange(answer)) => OpResult::Delete {
            deleted: answer.deleted,
            prevs: answer.prev_kvs.into_iter().map(kv_from_wire).collect(),
        },
        Some(Response::ResponsePut(answer)) => OpResult::Put {
            prev: answer.prev_kv.map(kv_from_wire),
        },
        Some(Response::ResponseRange(answer)) => {
            OpResult::Range(range_with(inner_header(answer.header), answer))
        }
        Some(Response::ResponseTxn(answer)) => {
            OpResult::Txn(txn_with(inner_header(answer.header), answer)?)
        }
        None => return Err(Failure::garbled("an operation without an answer")),
    })
}

pub(super) fn event_from_wire(event: mvccpb::Event) -> Result<Event, Failure> {
    let kind = mvccpb::event::EventType::try_from(event.r#type)
        .map_err(|_| Failure::garbled("an event of unknown type"))?;
    let kv = event
        .kv
        .map(kv_from_wire)
        .ok_or_else(|| Failure::garbled("an event without a key"))?;
    let prev = event.prev_kv.map(kv_from_wire);
    Ok(match kind {
        mvccpb::event::EventType::Put => Event::Put { kv, prev },
        mvccpb::event::EventType::Delete => Event::Delete {
            key: kv.key,
            revision: kv.mod_revision,
            prev,
        },
    })
}

fn kv_from_wire(kv: mvccpb::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key.into(),
        value: kv.value.into(),
        create_revision: Revision(kv.create_revision),
        mod_revision: Revision(kv.mod_revision),
        version: kv.version,
        lease: LeaseId::from_wire(kv.lease),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_live_is_rounded_up_to_whole_seconds() {
        assert_eq!(ttl_to_wire(Duration::from_millis(1)), 1);
        assert_eq!(ttl_to_wire(Duration::from_secs(2)), 2);
        assert_eq!(ttl_to_wire(Duration::from_millis(2001)), 3);
        assert_eq!(ttl_to_wire(Duration::MAX), i64::MAX);
        assert_eq!(ttl_from_wire(-1), Duration::ZERO);
        assert_eq!(ttl_from_wire(i64::MAX), LONGEST);
    }

    #[test]
    fn only_a_transaction_without_any_write_is_a_read() {
        let reads = Txn::new().when(Compare::absent("k")).then(Op::range("k"));
        assert!(is_read_only(&reads));
        assert!(is_read_only(&Txn::new().then(Op::Txn(reads.clone()))));
        assert!(!is_read_only(&reads.clone().or_else(Op::put("k", "v"))));
        assert!(!is_read_only(
            &Txn::new().or_else(Op::Txn(reads.then(Op::delete("k"))))
        ));
    }

    #[test]
    fn only_a_transaction_that_is_a_put_and_no_more_is_sent_as_one() {
        let is_put = |txn: Txn| lone_put(&txn_to_wire(txn)).is_some();
        let put = || Txn::new().then(Op::put("k", "v"));
        assert!(is_put(put()));
        assert!(!is_put(put().when(Compare::absent("k"))));
        assert!(!is_put(put().then(Op::put("l", "v"))));
        assert!(!is_put(put().or_else(Op::range("k"))));
        assert!(!is_put(Txn::new().then(Op::delete("k"))));
        assert!(!is_put(Txn::new().or_else(Op::put("k", "v"))));
        let keeps = |put: Put| is_put(Txn::new().then(put));
        assert!(keeps(Put::new("k", "v")));
        assert!(!keeps(Put::new("k", "").ignore_value()));
        assert!(!keeps(Put::new("k", "v").ignore_lease()));
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_a_failure() {
        assert!(range_from_wire(pb::RangeResponse::default()).is_err());
        let header = Some(pb::ResponseHeader {
            revision: 1,
            ..pb::ResponseHeader::default()
        });
        let unrevised = pb::TxnResponse {
            header: Some(pb::ResponseHeader::default()),
            ..pb::TxnResponse::default()
        };
        assert!(txn_from_wire(unrevised).is_err());
        let responses = vec![pb::ResponseOp { response: None }];
        let answer = pb::TxnResponse {
            header,
            succeeded: true,
            responses,
        };
        assert!(txn_from_wire(answer).is_err());
        let unknown = mvccpb::Event {
            r#type: 7,
            kv: Some(mvccpb::KeyValue::default()),
            prev_kv: None,
        };
        assert!(event_from_wire(unknown).is_err());
        assert!(event_from_wire(mvccpb::Event::default()).is_err());
    }
}
