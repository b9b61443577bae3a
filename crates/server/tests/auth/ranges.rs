//! What random permissions on ranges allow is what they allow in etcd.

use std::env;

use quorate_wire::{
    authpb::permission::Type::{Read, Readwrite, Write},
    etcdserverpb::{self as pb, kv_client::KvClient},
};

use crate::subject::{Caller, on_both, told};

const ROLES: [&str; 3] = ["r", "s", "t"];
const PERMISSIONS: usize = 4;
const ROUNDS: usize = 6;
const QUESTIONS: usize = 120;

/// Few, and next to each other.
const KEYS: [&[u8]; 9] = [
    b"a", b"a\0", b"a\0\0", b"ab", b"b", b"b\0", b"bb", b"c", b"\xff",
];

#[tokio::test]
async fn random_permissions_allow_what_they_allow_in_etcd() {
    let seed = env::var("SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    let (ours, etcd) = on_both(async |subject| {
        let mut random = fastrand::Rng::with_seed(seed);
        let nobody = subject.nobody().await;
        nobody.add_user("root", &["root"]).await;
        for role in ROLES {
            nobody.add_role(role, &[]).await;
        }
        nobody.add_user("u", &ROLES).await;
        nobody.enable().await;
        let (root, user) = (subject.user("root").await, subject.user("u").await);
        let mut told = Vec::new();
        for _ in 0..ROUNDS {
            round(&mut random, &root, &user, &mut told).await;
        }
        told
    })
    .await;
    for (ours, etcd) in ours.iter().zip(&etcd) {
        assert_eq!(ours, etcd, "SEED={seed}");
    }
    assert_eq!(ours.len(), etcd.len());
    let count = |ok| ours.iter().filter(|it| it.ends_with(": ok") == ok).count();
    assert!(count(true) > 0 && count(false) > 0, "SEED={seed}");
}

/// Gives permissions, asks for keys, and takes the permissions again.
async fn round(random: &mut fastrand::Rng, root: &Caller, user: &Caller, all: &mut Vec<String>) {
    let mut granted = Vec::new();
    for role in ROLES {
        for _ in 0..random.usize(..=PERMISSIONS) {
            let kind = [Read, Readwrite, Write][random.usize(..3)];
            let (key, end) = range(random);
            root.grant(role, kind, &key, &end).await.unwrap();
            granted.push((role, kind, key, end));
        }
    }
    let mut kv = KvClient::new(user.channel.clone());
    for _ in 0..QUESTIONS {
        let (key, range_end) = range(random);
        let what = format!("{}..{}", key.escape_ascii(), range_end.escape_ascii());
        let answer = match random.u8(..3) {
            0 => {
                let request = pb::RangeRequest {
                    key: key.into(),
                    range_end: range_end.into(),
                    ..pb::RangeRequest::default()
                };
                let answer = told(kv.range(user.request(request)).await);
                format!("range {what} by {granted:?}: {answer}")
            }
            1 => {
                let request = pb::DeleteRangeRequest {
                    key: key.into(),
                    range_end: range_end.into(),
                    prev_kv: random.bool(),
                };
                let answer = told(kv.delete_range(user.request(request)).await);
                format!("delete {what} by {granted:?}: {answer}")
            }
            _ => {
                let request = pb::PutRequest {
                    key: key.into(),
                    prev_kv: random.bool(),
                    ..pb::PutRequest::default()
                };
                let answer = told(kv.put(user.request(request)).await);
                format!("put {what} by {granted:?}: {answer}")
            }
        };
        all.push(answer);
    }
    for (role, _, key, end) in granted {
        // It was granted twice.
        let _ = root.forbid(role, &key, &end).await;
    }
}

/// A key, or a range that has keys.
fn range(random: &mut fastrand::Rng) -> (Vec<u8>, Vec<u8>) {
    let at = random.usize(..KEYS.len());
    let key = KEYS[at].to_vec();
    let end = match random.u8(..6) {
        0 | 1 => Vec::new(),
        2 => b"\0".to_vec(),
        _ if at + 1 == KEYS.len() => Vec::new(),
        _ => KEYS[random.usize(at + 1..KEYS.len())].to_vec(),
    };
    (key, end)
}
