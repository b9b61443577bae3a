//! Whether an answer is one to what was asked: as many results, of the same kinds, no other keys, and none
//! that was never created.

use quorate_engine::KeyRange;
use quorate_wire::{
    etcdserverpb::{self as pb, request_op::Request, response_op::Response},
    mvccpb::KeyValue,
};

/// Nothing, or what there is that does not fit.
type Fit = Result<(), &'static str>;

/// Whether all keys that were read were asked for.
pub(super) fn range_fits(request: &pb::RangeRequest, answer: &pb::RangeResponse) -> Fit {
    all_within(&request.key, &request.range_end, &answer.kvs)
}

/// Whether there is one result for each operation.
pub(super) fn txn_fits(request: &pb::TxnRequest, answer: &pb::TxnResponse) -> Fit {
    let ops = match answer.succeeded {
        true => &request.success,
        false => &request.failure,
    };
    if ops.len() != answer.responses.len() {
        return Err("more or fewer results than operations");
    }
    let mut pairs = ops.iter().zip(&answer.responses);
    pairs.try_for_each(|(op, result)| op_fits(op, result))
}

fn op_fits(op: &pb::RequestOp, result: &pb::ResponseOp) -> Fit {
    match (&op.request, &result.response) {
        (
            Some(Request::RequestDeleteRange(delete)),
            Some(Response::ResponseDeleteRange(answer)),
        ) => all_within(&delete.key, &delete.range_end, &answer.prev_kvs),
        (Some(Request::RequestPut(put)), Some(Response::ResponsePut(answer))) => {
            all_within(&put.key, &[], answer.prev_kv.as_slice())
        }
        (Some(Request::RequestRange(range)), Some(Response::ResponseRange(answer))) => {
            range_fits(range, answer)
        }
        (Some(Request::RequestTxn(txn)), Some(Response::ResponseTxn(answer))) => {
            txn_fits(txn, answer)
        }
        _ => Err("results of other operations"),
    }
}

fn all_within(key: &[u8], range_end: &[u8], kvs: &[KeyValue]) -> Fit {
    let keys = KeyRange::from_wire(key, range_end);
    if kvs.iter().any(|kv| !keys.contains(&kv.key)) {
        return Err("keys that were not asked for");
    }
    // The revision of its creation may become a token.
    if kvs.iter().any(|kv| kv.create_revision <= 0) {
        return Err("keys that were never created");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(keys: &[&'static str]) -> pb::ResponseOp {
        let kv = |key: &&'static str| KeyValue {
            key: (*key).into(),
            create_revision: 2,
            ..KeyValue::default()
        };
        let answer = pb::RangeResponse {
            kvs: keys.iter().map(kv).collect(),
            ..pb::RangeResponse::default()
        };
        pb::ResponseOp {
            response: Some(Response::ResponseRange(answer)),
        }
    }

    fn written(answer: pb::PutResponse) -> pb::ResponseOp {
        pb::ResponseOp {
            response: Some(Response::ResponsePut(answer)),
        }
    }

    #[test]
    fn a_key_that_was_never_created_does_not_fit() {
        let request = pb::RangeRequest {
            key: "a".into(),
            ..pb::RangeRequest::default()
        };
        for (create_revision, fits) in [(1, true), (0, false), (-1, false)] {
            let kv = KeyValue {
                key: "a".into(),
                create_revision,
                ..KeyValue::default()
            };
            let answer = pb::RangeResponse {
                kvs: vec![kv],
                ..pb::RangeResponse::default()
            };
            assert_eq!(range_fits(&request, &answer).is_ok(), fits);
        }
    }

    #[test]
    fn an_answer_to_something_else_does_not_fit() {
        let range = pb::RangeRequest {
            key: "a/".into(),
            range_end: "a0".into(),
            ..pb::RangeRequest::default()
        };
        let put = pb::PutRequest {
            key: "k".into(),
            ..pb::PutRequest::default()
        };
        let ops = [Request::RequestRange(range), Request::RequestPut(put)];
        let ops = ops.map(|request| pb::RequestOp {
            request: Some(request),
        });
        let request = pb::TxnRequest {
            success: ops.to_vec(),
            ..pb::TxnRequest::default()
        };
        let put = || written(pb::PutResponse::default());
        let other = pb::PutResponse {
            prev_kv: Some(KeyValue::default()),
            ..pb::PutResponse::default()
        };
        for (succeeded, responses, fits) in [
            (true, vec![read(&["a/1", "a/2"]), put()], true),
            (true, vec![read(&["a/1", "a"]), put()], false),
            (true, vec![read(&[]), written(other)], false),
            (true, vec![read(&[])], false),
            (true, vec![put(), read(&[])], false),
            (
                true,
                vec![read(&[]), pb::ResponseOp { response: None }],
                false,
            ),
            (false, vec![], true),
            (false, vec![read(&[]), put()], false),
        ] {
            let answer = pb::TxnResponse {
                succeeded,
                responses,
                ..pb::TxnResponse::default()
            };
            assert_eq!(txn_fits(&request, &answer).is_ok(), fits, "{answer:?}");
        }
    }
}
