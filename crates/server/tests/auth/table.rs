//! Every method, asked by every kind of caller, is answered as etcd answers it.

use futures_util::StreamExt;
use quorate_wire::{
    authpb::permission::Type::{Read, Readwrite, Write},
    etcdserverpb::{
        self as pb, auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
        lease_client::LeaseClient, maintenance_client::MaintenanceClient,
        request_op::Request as Op, watch_client::WatchClient, watch_request::RequestUnion,
    },
};

use crate::{
    PATIENCE,
    subject::{Caller, Subject, refusal, told},
    support::etcd,
};

/// A lease without keys, one with a key that the plain users have to do with, and one with another.
const EMPTY_LEASE: i64 = 100;
const OPEN_LEASE: i64 = 101;
const CLOSED_LEASE: i64 = 102;

#[tokio::test]
async fn every_caller_gets_the_answers_of_etcd_3_5() {
    let Some(program) = etcd::server_35() else {
        return;
    };
    let (ours, etcd) = (Subject::ours().await, Subject::etcd(program).await);
    let (ours, etcd) = tokio::join!(answers(&ours, false), answers(&etcd, false));
    // A watch without an end is granted there to who may read its first key.
    compare(&ours, &etcd, |what| !what.starts_with("watch b..\\x00"));
}

#[tokio::test]
async fn every_caller_gets_the_answers_of_etcd_3_4_about_keys_and_roles() {
    let (ours, etcd) = (Subject::ours().await, Subject::etcd(etcd::server()).await);
    let (ours, etcd) = tokio::join!(answers(&ours, true), answers(&etcd, true));
    // What is not here was left open to everybody, and has been closed since.
    let closed = [
        "delete",
        "grant",
        "put \"",
        "range",
        "revoke",
        "role get",
        "serializable",
        "txn compare",
        "txn else",
        "txn then",
        "user get",
    ];
    compare(&ours, &etcd, |what| {
        closed.iter().any(|begin| what.starts_with(begin))
    });
}

/// Who asked, what, and what was the answer.
type Answer = (String, String, String);

/// Compares what is comparable.
fn compare(ours: &[Answer], etcd: &[Answer], is_alike: impl Fn(&str) -> bool) {
    let alike = |answers: &[Answer]| -> Vec<Answer> {
        let alike = answers.iter().filter(|(_, what, _)| is_alike(what));
        alike.cloned().collect()
    };
    let (ours, etcd) = (alike(ours), alike(etcd));
    assert!(ours.len() > 100 && ours.len() == etcd.len());
    let pairs = ours.iter().zip(&etcd);
    let different = pairs.filter(|(ours, etcd)| ours != etcd);
    let different: Vec<String> = different
        .map(|((who, what, ours), (_, _, etcd))| format!("{who}: {what}: {ours}, not {etcd}"))
        .collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// What each caller is told.
async fn answers(subject: &Subject, is_old: bool) -> Vec<Answer> {
    let nobody = subject.nobody().await;
    nobody.add_role("reader", &[(Read, b"a", b"c")]).await;
    nobody.add_role("writer", &[(Write, b"a", b"c")]).await;
    nobody
        .add_role(
            "narrow",
            &[(Readwrite, b"b", b""), (Readwrite, b"b\0", b"b5")],
        )
        .await;
    nobody.add_role("root", &[]).await;
    nobody.add_user("root", &["root"]).await;
    nobody.add_user("admin", &["root"]).await;
    nobody.add_user("reader", &["reader"]).await;
    nobody.add_user("writer", &["writer"]).await;
    nobody.add_user("both", &["reader", "writer"]).await;
    nobody.add_user("narrow", &["narrow"]).await;
    nobody.add_user("none", &[]).await;
    nobody.add_user("gone", &["root"]).await;
    nobody.add_user("changed", &[]).await;
    nobody.add_user_without_password("bare").await.unwrap();
    nobody.enable().await;

    let root = subject.user("root").await;
    let mut callers = Vec::new();
    for name in [
        "root", "admin", "reader", "writer", "both", "narrow", "none", "gone",
    ] {
        callers.push((name, subject.user(name).await));
    }
    let request = pb::AuthUserDeleteRequest {
        name: "gone".to_owned(),
    };
    let mut auth = AuthClient::new(root.channel.clone());
    auth.user_delete(root.request(request)).await.unwrap();
    callers.push(("nobody", nobody.clone()));
    callers.push(("unknown", nobody.with_token("abcdefghijklmnop.1")));
    callers.push(("malformed", nobody.with_token("nonsense")));
    callers.push(("blank", nobody.with_token("")));
    let (_, token) = root.token.clone().unwrap();
    callers.push((
        "gateway",
        nobody.with_header("authorization", token.clone()),
    ));
    callers.push((
        "bearer",
        nobody.with_header("authorization", format!("Bearer {token}")),
    ));

    let mut all = Vec::new();
    for (who, caller) in callers {
        // It writes through to the disk, and takes its time.
        if is_old && !["root", "both", "narrow", "nobody", "unknown"].contains(&who) {
            continue;
        }
        let mut asked = Asked {
            root: root.clone(),
            caller,
            who,
            is_old,
            answers: Vec::new(),
        };
        // Whether a token is good is decided for all requests alike.
        if !["admin", "malformed", "blank", "gateway", "bearer"].contains(&who) {
            asked.keys().await;
            asked.transactions().await;
            asked.leases().await;
            asked.watches().await;
        }
        asked.maintenance().await;
        asked.members().await;
        asked.users().await;
        asked.roles().await;
        let answers = asked.answers.into_iter();
        all.extend(answers.map(|(what, answer)| (who.to_owned(), what, answer)));
    }
    all
}

/// What one caller was told.
struct Asked {
    root: Caller,
    caller: Caller,
    who: &'static str,
    /// etcd 3.4 ends on some requests.
    is_old: bool,
    answers: Vec<(String, String)>,
}

impl Asked {
    fn note(&mut self, what: impl Into<String>, answer: String) {
        self.answers.push((what.into(), answer));
    }

    async fn reset(&self) {
        let mut kv = KvClient::new(self.root.channel.clone());
        let mut leases = LeaseClient::new(self.root.channel.clone());
        for id in [EMPTY_LEASE, OPEN_LEASE, CLOSED_LEASE] {
            let request = pb::LeaseRevokeRequest { id };
            let _ = leases.lease_revoke(self.root.request(request)).await;
            let request = pb::LeaseGrantRequest { id, ttl: 600 };
            leases
                .lease_grant(self.root.request(request))
                .await
                .unwrap();
        }
        for (key, lease) in [("b", OPEN_LEASE), ("z", CLOSED_LEASE), ("a", 0)] {
            let request = put(key, lease);
            kv.put(self.root.request(request)).await.unwrap();
        }
    }

    async fn keys(&mut self) {
        self.reset().await;
        let it = self.caller.clone();
        let mut kv = KvClient::new(it.channel.clone());
        for (key, end) in RANGES {
            let what = format!("{}..{}", key.escape_ascii(), end.escape_ascii());
            let answer = kv.range(it.request(range(key, end))).await;
            let serializable = pb::RangeRequest {
                serializable: true,
                ..range(key, end)
            };
            self.note(format!("range {what}"), told(answer));
            let answer = kv.range(it.request(serializable)).await;
            self.note(format!("serializable range {what}"), told(answer));
            for prev_kv in [false, true] {
                let request = pb::DeleteRangeRequest {
                    prev_kv,
                    ..delete(key, end)
                };
                let answer = kv.delete_range(it.request(request)).await;
                self.note(format!("delete {what}, {prev_kv}"), told(answer));
            }
        }
        self.reset().await;
        for key in ["a", "b", "b\0", "z", ""] {
            for prev_kv in [false, true] {
                let request = pb::PutRequest {
                    prev_kv,
                    ..put(key, 0)
                };
                let answer = kv.put(it.request(request)).await;
                self.note(format!("put {key:?}, {prev_kv}"), told(answer));
            }
        }
        for ignore in ["value", "lease"] {
            let request = pb::PutRequest {
                ignore_value: ignore == "value",
                ignore_lease: ignore == "lease",
                value: if ignore == "value" { "" } else { "v" }.into(),
                ..put("b", 0)
            };
            let answer = kv.put(it.request(request)).await;
            self.note(format!("put that keeps the {ignore}"), told(answer));
        }
        self.reset().await;
        for lease in [EMPTY_LEASE, OPEN_LEASE, CLOSED_LEASE, 999] {
            for key in ["b", "z"] {
                let answer = kv.put(it.request(put(key, lease))).await;
                self.note(format!("put {key} with lease {lease}"), told(answer));
            }
            let txn = txn(vec![], vec![Op::RequestPut(put("b", lease))], vec![]);
            let answer = kv.txn(it.request(txn)).await;
            self.note(format!("put in a txn with lease {lease}"), told(answer));
        }
        let large = pb::PutRequest {
            value: vec![b'v'; 1536 * 1024].into(),
            ..put("b", 0)
        };
        self.note("large put", told(kv.put(it.request(large)).await));
        let future = pb::CompactionRequest {
            revision: 1 << 40,
            physical: false,
        };
        self.note("compact", told(kv.compact(it.request(future)).await));
        let future = pb::RangeRequest {
            revision: 1 << 40,
            ..range(b"b", b"")
        };
        self.note(
            "range of the future",
            told(kv.range(it.request(future)).await),
        );
    }

    async fn transactions(&mut self) {
        let it = self.caller.clone();
        let mut kv = KvClient::new(it.channel.clone());
        let read = |key: &[u8]| Op::RequestRange(range(key, b""));
        let write = |key: &str| Op::RequestPut(put(key, 0));
        let write_prev = |key: &str| {
            Op::RequestPut(pb::PutRequest {
                prev_kv: true,
                ..put(key, 0)
            })
        };
        let remove = |key: &[u8], prev_kv| {
            Op::RequestDeleteRange(pb::DeleteRangeRequest {
                prev_kv,
                ..delete(key, b"")
            })
        };
        let inner = |txn| Op::RequestTxn(txn);
        let empty = || txn(vec![], vec![], vec![]);
        let cases = [
            ("nothing", empty()),
            ("compare b", txn(vec![condition(b"b", b"")], vec![], vec![])),
            ("compare z", txn(vec![condition(b"z", b"")], vec![], vec![])),
            (
                "compare b..c",
                txn(vec![condition(b"b", b"c")], vec![], vec![]),
            ),
            (
                "compare b..c0",
                txn(vec![condition(b"b", b"c0")], vec![], vec![]),
            ),
            ("then read b", txn(vec![], vec![read(b"b")], vec![])),
            ("then read z", txn(vec![], vec![read(b"z")], vec![])),
            ("else read z", txn(vec![], vec![], vec![read(b"z")])),
            ("then write b", txn(vec![], vec![write("b")], vec![])),
            ("then write z", txn(vec![], vec![write("z")], vec![])),
            (
                "else write z",
                txn(vec![], vec![write("b")], vec![write("z")]),
            ),
            ("write b, prev", txn(vec![], vec![write_prev("b")], vec![])),
            ("delete b", txn(vec![], vec![remove(b"b", false)], vec![])),
            (
                "delete b, prev",
                txn(vec![], vec![remove(b"b", true)], vec![]),
            ),
            ("delete z", txn(vec![], vec![remove(b"z", false)], vec![])),
            ("inner nothing", txn(vec![], vec![inner(empty())], vec![])),
            (
                "inner read b",
                txn(
                    vec![],
                    vec![inner(txn(vec![], vec![read(b"b")], vec![]))],
                    vec![],
                ),
            ),
            (
                "inner read z",
                txn(
                    vec![],
                    vec![inner(txn(vec![], vec![read(b"z")], vec![]))],
                    vec![],
                ),
            ),
            (
                "inner write z",
                txn(
                    vec![],
                    vec![inner(txn(vec![], vec![write("z")], vec![]))],
                    vec![],
                ),
            ),
            (
                "inner else write z",
                txn(
                    vec![],
                    vec![],
                    vec![inner(txn(vec![], vec![], vec![write("z")]))],
                ),
            ),
            (
                "inner compare z",
                txn(
                    vec![],
                    vec![inner(txn(vec![condition(b"z", b"")], vec![], vec![]))],
                    vec![],
                ),
            ),
            ("twice", txn(vec![], vec![write("z"), write("z")], vec![])),
        ];
        for (what, txn) in cases {
            self.note(format!("txn {what}"), told(kv.txn(it.request(txn)).await));
        }
    }

    async fn leases(&mut self) {
        self.reset().await;
        let it = self.caller.clone();
        let mut leases = LeaseClient::new(it.channel.clone());
        let request = pb::LeaseGrantRequest { id: 0, ttl: 600 };
        let granted = leases.lease_grant(it.request(request)).await;
        if let Ok(granted) = &granted {
            let id = granted.get_ref().id;
            let request = self.root.request(pb::LeaseRevokeRequest { id });
            leases.lease_revoke(request).await.unwrap();
        }
        self.note("lease grant", told(granted));
        let request = pb::LeaseGrantRequest { id: 100, ttl: 600 };
        self.note(
            "lease grant, again",
            told(leases.lease_grant(it.request(request)).await),
        );
        let answer = leases
            .lease_leases(it.request(pb::LeaseLeasesRequest {}))
            .await;
        self.note("lease list", told(answer));
        for id in [EMPTY_LEASE, OPEN_LEASE, CLOSED_LEASE, 999] {
            for keys in [false, true] {
                let request = pb::LeaseTimeToLiveRequest { id, keys };
                let answer = leases.lease_time_to_live(it.request(request)).await;
                self.note(format!("lease time to live {id}, {keys}"), told(answer));
            }
            let request = pb::LeaseKeepAliveRequest { id };
            let requests = futures_util::stream::iter([request]);
            let answer = match leases.lease_keep_alive(it.request(requests)).await {
                Ok(answers) => match answers.into_inner().message().await {
                    Ok(answer) => format!("{:?}", answer.map(|answer| (answer.id, answer.ttl))),
                    Err(status) => refusal(&status),
                },
                Err(status) => refusal(&status),
            };
            self.note(format!("lease keep alive {id}"), answer);
        }
        for id in [EMPTY_LEASE, OPEN_LEASE, CLOSED_LEASE, 999] {
            let request = pb::LeaseRevokeRequest { id };
            let answer = leases.lease_revoke(it.request(request)).await;
            self.note(format!("lease revoke {id}"), told(answer));
        }
        // Only what is in the way of all leases' list is left.
        self.reset().await;
        let request = self
            .root
            .request(pb::LeaseRevokeRequest { id: CLOSED_LEASE });
        leases.lease_revoke(request).await.unwrap();
        let answer = leases
            .lease_leases(it.request(pb::LeaseLeasesRequest {}))
            .await;
        self.note("lease list of open leases", told(answer));
    }

    async fn watches(&mut self) {
        let it = self.caller.clone();
        let mut client = WatchClient::new(it.channel.clone());
        let (sender, receiver) = tokio::sync::mpsc::channel(8);
        let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
        // etcd answers with the first message.
        let mut answers = Box::pin(
            futures_util::FutureExt::into_stream(client.watch(it.request(requests))).flat_map(
                |answers| match answers {
                    Ok(answers) => answers.into_inner().left_stream(),
                    Err(status) => futures_util::stream::iter([Err(status)]).right_stream(),
                },
            ),
        );
        for (key, end) in RANGES {
            for (start_revision, prev_kv) in [(0, false), (0, true), (-1, false)] {
                let request = pb::WatchCreateRequest {
                    key: key.to_vec().into(),
                    range_end: end.to_vec().into(),
                    prev_kv,
                    start_revision,
                    ..pb::WatchCreateRequest::default()
                };
                let request_union = Some(RequestUnion::CreateRequest(request));
                let _ = sender.send(pb::WatchRequest { request_union }).await;
                let next = tokio::time::timeout(PATIENCE, answers.next()).await;
                let answer = match next.expect("a watch is answered") {
                    Some(Ok(it)) => format!(
                        "{} {} {} {}",
                        it.watch_id >= 0,
                        it.created,
                        it.canceled,
                        it.cancel_reason
                    ),
                    Some(Err(status)) => refusal(&status),
                    None => "nothing".to_owned(),
                };
                let what = format!("{}..{}", key.escape_ascii(), end.escape_ascii());
                self.note(
                    format!("watch {what} from {start_revision}, {prev_kv}"),
                    answer,
                );
            }
        }
    }

    async fn maintenance(&mut self) {
        let it = self.caller.clone();
        let mut client = MaintenanceClient::new(it.channel.clone());
        let answer = client.status(it.request(pb::StatusRequest {})).await;
        self.note("status", told(answer));
        let answer = client.alarm(it.request(pb::AlarmRequest::default())).await;
        self.note("alarms", told(answer));
        let request = pb::AlarmRequest {
            action: pb::alarm_request::AlarmAction::Deactivate.into(),
            ..pb::AlarmRequest::default()
        };
        self.note("disarm", told(client.alarm(it.request(request)).await));
        let answer = client.hash(it.request(pb::HashRequest {})).await;
        self.note("hash", told(answer));
        let answer = client
            .hash_kv(it.request(pb::HashKvRequest { revision: 0 }))
            .await;
        self.note("hash of keys", told(answer));
        let answer = client
            .defragment(it.request(pb::DefragmentRequest {}))
            .await;
        self.note("defragment", told(answer));
        let answer = match client.snapshot(it.request(pb::SnapshotRequest {})).await {
            Ok(answers) => match answers.into_inner().message().await {
                Ok(_) => "ok".to_owned(),
                Err(status) => refusal(&status),
            },
            Err(status) => refusal(&status),
        };
        self.note("snapshot", unserved(answer));
        let request = pb::MoveLeaderRequest { target_id: 7 };
        let answer = told(client.move_leader(it.request(request)).await);
        self.note("move leader", unserved(answer));
        let request = pb::DowngradeRequest {
            action: 0,
            version: "3.4.0".to_owned(),
        };
        let answer = told(client.downgrade(it.request(request)).await);
        self.note("downgrade", unserved(answer));
    }

    async fn members(&mut self) {
        let it = self.caller.clone();
        let mut client = ClusterClient::new(it.channel.clone());
        for linearizable in [false, true] {
            let request = pb::MemberListRequest { linearizable };
            let answer = client.member_list(it.request(request)).await;
            self.note(format!("members, {linearizable}"), told(answer));
        }
        let request = pb::MemberRemoveRequest { id: 7 };
        let answer = told(client.member_remove(it.request(request)).await);
        self.note("member remove", unserved(answer));
        let request = pb::MemberUpdateRequest {
            id: 7,
            peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
        };
        let answer = told(client.member_update(it.request(request)).await);
        self.note("member update", unserved(answer));
        let request = pb::MemberPromoteRequest { id: 7 };
        let answer = told(client.member_promote(it.request(request)).await);
        self.note("member promote", unserved(answer));
        // A member that came to a real etcd would be in the way.
        let request = pb::AuthUserListRequest {};
        let mut auth = AuthClient::new(it.channel.clone());
        if auth.user_list(it.request(request)).await.is_err() {
            let request = pb::MemberAddRequest {
                peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
                is_learner: true,
            };
            let answer = told(client.member_add(it.request(request)).await);
            self.note("member add", unserved(answer));
        }
    }

    async fn users(&mut self) {
        let it = self.caller.clone();
        let mut auth = AuthClient::new(it.channel.clone());
        let answer = auth.auth_status(it.request(pb::AuthStatusRequest {})).await;
        self.note(
            "auth status",
            answer.map_or_else(
                |it| refusal(&it),
                |it| {
                    let it = it.into_inner();
                    format!("{} {}", it.enabled, it.auth_revision)
                },
            ),
        );
        let answer = auth.auth_enable(it.request(pb::AuthEnableRequest {})).await;
        self.note("auth enable", told(answer));
        self.passwords().await;
        for name in ["root", "reader", "writer", "none", "absent", ""] {
            let name = name.to_owned();
            let request = pb::AuthUserGetRequest { name: name.clone() };
            let answer = auth.user_get(it.request(request)).await;
            let answer = answer.map_or_else(
                |it| refusal(&it),
                |it| format!("{:?}", it.into_inner().roles),
            );
            self.note(format!("user get {name}"), answer);
        }
        let answer = auth.user_list(it.request(pb::AuthUserListRequest {})).await;
        let answer = answer.map_or_else(
            |it| refusal(&it),
            |it| format!("{:?}", it.into_inner().users),
        );
        self.note("user list", answer);
        for name in ["new", "", "root"] {
            let request = pb::AuthUserAddRequest {
                name: name.to_owned(),
                password: "new".to_owned(),
                ..pb::AuthUserAddRequest::default()
            };
            let answer = auth.user_add(it.request(request)).await;
            self.note(format!("user add {name:?}"), told(answer));
        }
        let request = pb::AuthUserAddRequest {
            name: "long".to_owned(),
            password: "p".repeat(73),
            ..pb::AuthUserAddRequest::default()
        };
        self.note(
            "user add with a long password",
            told(auth.user_add(it.request(request)).await),
        );
        let request = pb::AuthUserAddRequest {
            name: "hashed".to_owned(),
            hashed_password: "???".to_owned(),
            ..pb::AuthUserAddRequest::default()
        };
        self.note(
            "user add with a hash",
            told(auth.user_add(it.request(request)).await),
        );
        self.note(
            "user add without password",
            told(
                it.add_user_without_password("new bare")
                    .await
                    .map(tonic::Response::new),
            ),
        );
        for (name, password, hash) in [
            ("changed", "none", ""),
            ("bare", "none", ""),
            ("absent", "none", ""),
            ("changed", "", "???"),
            ("bare", "", "???"),
            ("changed", "", ""),
        ] {
            let request = pb::AuthUserChangePasswordRequest {
                name: name.to_owned(),
                password: password.to_owned(),
                hashed_password: hash.to_owned(),
            };
            let answer = auth.user_change_password(it.request(request)).await;
            let is_changed = answer.is_ok();
            self.note(
                format!("change password of {name} to {password:?}{hash}"),
                told(answer),
            );
            if is_changed {
                let answer = it.authenticate(name, password).await;
                let answer = answer.map_or_else(|it| refusal(&it), |token| shape(&token));
                self.note(format!("authenticate {name} with it"), answer);
            }
        }
        for (user, role) in [
            ("new", "reader"),
            ("new", "absent"),
            ("absent", "reader"),
            ("new", "root"),
        ] {
            let request = pb::AuthUserGrantRoleRequest {
                user: user.to_owned(),
                role: role.to_owned(),
            };
            let answer = auth.user_grant_role(it.request(request)).await;
            self.note(format!("grant {user} {role}"), told(answer));
        }
        for (user, role) in [("new", "reader"), ("new", "reader"), ("root", "root")] {
            let request = pb::AuthUserRevokeRoleRequest {
                name: user.to_owned(),
                role: role.to_owned(),
            };
            let answer = auth.user_revoke_role(it.request(request)).await;
            self.note(format!("revoke {user} {role}"), told(answer));
        }
        for name in ["new", "new", "root", "new bare", "hashed"] {
            let request = pb::AuthUserDeleteRequest {
                name: name.to_owned(),
            };
            let answer = auth.user_delete(it.request(request)).await;
            self.note(format!("user delete {name}"), told(answer));
        }
    }

    /// Who asks makes no difference, so a few callers ask for all.
    async fn passwords(&mut self) {
        if !["admin", "reader", "nobody", "unknown"].contains(&self.who) {
            return;
        }
        let it = self.caller.clone();
        for (name, password) in [
            ("root", "root"),
            ("reader", "wrong"),
            ("absent", ""),
            ("", ""),
            ("none", "none"),
            ("changed", "none"),
            ("changed", ""),
            ("bare", ""),
        ] {
            let answer = it.authenticate(name, password).await;
            let answer = answer.map_or_else(|it| refusal(&it), |token| shape(&token));
            self.note(format!("authenticate {name:?} {password:?}"), answer);
        }
    }

    async fn roles(&mut self) {
        let it = self.caller.clone();
        let mut auth = AuthClient::new(it.channel.clone());
        for role in ["root", "reader", "writer", "absent", ""] {
            let role = role.to_owned();
            let request = pb::AuthRoleGetRequest { role: role.clone() };
            let answer = auth.role_get(it.request(request)).await;
            let answer = answer.map_or_else(
                |it| refusal(&it),
                |it| format!("{:?}", it.into_inner().perm),
            );
            self.note(format!("role get {role}"), answer);
        }
        let answer = auth.role_list(it.request(pb::AuthRoleListRequest {})).await;
        let answer = answer.map_or_else(
            |it| refusal(&it),
            |it| format!("{:?}", it.into_inner().roles),
        );
        self.note("role list", answer);
        for name in ["new", "", "root"] {
            let request = pb::AuthRoleAddRequest {
                name: name.to_owned(),
            };
            self.note(
                format!("role add {name:?}"),
                told(auth.role_add(it.request(request)).await),
            );
        }
        for (role, key, end) in [("new", b"k", b""), ("absent", b"k", b"")] {
            let answer = it
                .grant(role, Read, key, end)
                .await
                .map(tonic::Response::new);
            self.note(format!("permit {role}"), told(answer));
        }
        for (key, end) in [
            (&b"k"[..], &b"a"[..]),
            (b"", b""),
            (b"k", b"k"),
            (b"", b"\0"),
        ] {
            let answer = it
                .grant("new", Read, key, end)
                .await
                .map(tonic::Response::new);
            let what = format!("permit {}..{}", key.escape_ascii(), end.escape_ascii());
            self.note(what, told(answer));
        }
        let request = pb::AuthRoleGrantPermissionRequest {
            name: "new".to_owned(),
            perm: None,
        };
        if !self.is_old {
            let answer = auth.role_grant_permission(it.request(request)).await;
            self.note("permit nothing", told(answer));
        }
        for role in ["new", "new", "absent"] {
            let request = pb::AuthRoleRevokePermissionRequest {
                role: role.to_owned(),
                key: "k".into(),
                range_end: "".into(),
            };
            let answer = auth.role_revoke_permission(it.request(request)).await;
            self.note(format!("forbid {role}"), told(answer));
        }
        for name in ["new", "new", "root"] {
            let request = pb::AuthRoleDeleteRequest {
                role: name.to_owned(),
            };
            let answer = auth.role_delete(it.request(request)).await;
            self.note(format!("role delete {name}"), told(answer));
        }
    }
}

/// Keys and ranges, as on the wire.
const RANGES: [(&[u8], &[u8]); 13] = [
    (b"a", b""),
    (b"b", b""),
    (b"b", b"\0"),
    (b"z", b""),
    (b"a", b"c"),
    (b"a", b"b5"),
    (b"b", b"b5"),
    (b"b", b"b6"),
    (b"b5", b""),
    (b"a", b"d"),
    (b"\0", b"\0"),
    (b"", b"\0"),
    (b"", b""),
];

/// What we do not serve is compared only where it is refused for want of a right.
fn unserved(answer: String) -> String {
    if answer.starts_with("Unknown: auth: ")
        || answer.starts_with("PermissionDenied")
        || answer.starts_with("Unauthenticated")
        || answer.ends_with("user name is empty")
        || answer.ends_with("user name not found")
    {
        answer
    } else {
        "not for want of a right".to_owned()
    }
}

/// A token as it looks: letters, a dot, digits.
fn shape(token: &str) -> String {
    let shape = |c: char| match c {
        'a'..='z' | 'A'..='Z' => 'x',
        '0'..='9' => '0',
        c => c,
    };
    let shaped: String = token.chars().map(shape).collect();
    shaped.trim_end_matches('0').to_owned()
}

fn range(key: &[u8], end: &[u8]) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.to_vec().into(),
        range_end: end.to_vec().into(),
        ..pb::RangeRequest::default()
    }
}

fn put(key: &str, lease: i64) -> pb::PutRequest {
    pb::PutRequest {
        key: key.to_owned().into(),
        value: "v".into(),
        lease,
        ..pb::PutRequest::default()
    }
}

fn delete(key: &[u8], end: &[u8]) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest {
        key: key.to_vec().into(),
        range_end: end.to_vec().into(),
        prev_kv: false,
    }
}

/// A condition that holds.
fn condition(key: &[u8], end: &[u8]) -> pb::Compare {
    pb::Compare {
        result: pb::compare::CompareResult::NotEqual.into(),
        target: pb::compare::CompareTarget::Version.into(),
        key: key.to_vec().into(),
        range_end: end.to_vec().into(),
        target_union: Some(pb::compare::TargetUnion::Version(-1)),
    }
}

fn txn(compare: Vec<pb::Compare>, success: Vec<Op>, failure: Vec<Op>) -> pb::TxnRequest {
    let ops = |ops: Vec<Op>| {
        let op = |op| pb::RequestOp { request: Some(op) };
        ops.into_iter().map(op).collect()
    };
    pb::TxnRequest {
        compare,
        success: ops(success),
        failure: ops(failure),
    }
}
