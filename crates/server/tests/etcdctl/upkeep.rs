//! The member tells of itself, and is maintained.

use quorate_server::Server;

use crate::support::etcdctl::{Etcdctl, programs, same, same_by_all};

const SCRIPT: &[&str] = &[
    "put a/1 one",
    "put a/2 two",
    "put a/1 uno",
    "del a/2",
    "endpoint hashkv",
    "endpoint hashkv -w json",
    "endpoint hashkv -w table",
    "endpoint hashkv -w fields",
    "endpoint hashkv --rev=3",
    "endpoint hashkv --rev=100",
    "endpoint hashkv --cluster",
    "compaction 4",
    "endpoint hashkv -w json",
    "endpoint hashkv --rev=2",
    "~ endpoint status",
    "~ endpoint status -w json",
    "~ endpoint status -w table",
    "~ endpoint status -w fields",
    "~ endpoint status --cluster",
    "endpoint health",
    "endpoint health -w json",
    "endpoint health -w table",
    "endpoint health --cluster",
    "endpoint health -w fields",
    "alarm list",
    "alarm disarm",
    "alarm disarm -w json",
    "alarm",
    "defrag",
    "defrag --cluster",
    "move-leader 7",
    "move-leader nonsense",
    "member list -w json",
    "member remove 7",
    "member update 7 --peer-urls=http://127.0.0.1:1",
    "member promote 7",
    "member add",
    "member add other",
    "version",
    "nonsense",
    "compaction --physical 5",
    "defrag -w json",
];

/// What changes the members, of which a server has one.
const MEMBERSHIP: &[&str] = &[
    "member add other --peer-urls=http://127.0.0.1:1",
    "member add other --learner --peer-urls=http://127.0.0.1:1",
];

#[tokio::test]
async fn it_is_maintained_as_an_etcd() {
    same_by_all(SCRIPT).await;
}

#[tokio::test]
async fn an_endpoint_is_an_address_or_a_url_and_one_of_several() {
    same(async |subject, etcdctl| {
        let mut told = Vec::new();
        let (url, address) = (subject.url(), subject.address());
        etcdctl.told("put k v").await;
        for endpoints in [
            url.to_owned(),
            address.to_owned(),
            format!("{address},{url}"),
            format!("{url},{url}"),
            address.replace("127.0.0.1", "localhost"),
            url.replace("127.0.0.1", "localhost"),
        ] {
            for command in [
                "get k",
                "~ endpoint status",
                "endpoint health",
                "endpoint hashkv",
                "endpoint hashkv -w json",
                "~ endpoint status -w json",
                "defrag",
                "get --prefix '' -w fields",
            ] {
                let (rough, command) = match command.strip_prefix("~ ") {
                    Some(command) => ("~ ", command),
                    None => ("", command),
                };
                let line = format!("{rough}--endpoints={endpoints} {command}");
                let mut answer = etcdctl.told(&line).await;
                answer.line = command.to_owned();
                // Of several that are asked at once either may be the first.
                answer.stdout = sorted(&answer.stdout);
                answer.stderr = sorted(&answer.stderr);
                told.push(answer);
            }
        }
        told
    })
    .await;
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

#[tokio::test]
async fn a_snapshot_is_saved_and_looked_at() {
    same(async |_, etcdctl| {
        let mut told = Vec::new();
        for line in [
            "put k v",
            "put k w",
            "snapshot save saved",
            "~ snapshot status saved",
            "~ snapshot status saved -w json",
            "~ snapshot status saved -w table",
            "snapshot status absent",
            "snapshot save",
            "snapshot save saved/below",
        ] {
            told.push(etcdctl.told(line).await);
        }
        told
    })
    .await;
}

#[tokio::test]
async fn the_member_is_listed_in_every_form() {
    same(async |_, etcdctl| {
        let mut told = Vec::new();
        for form in ["simple", "json", "table", "fields"] {
            let line = format!("member list -w {form}");
            let mut answer = etcdctl.told(&line).await;
            // The name is the store's own, and only a member of etcd has peers.
            answer.stdout = answer.stdout.replace("m0", "quorate");
            answer.stdout = answer.stdout.replace(
                "\"PeerURL\" : \"\"
",
                "",
            );
            told.push(answer);
        }
        told
    })
    .await;
}

#[tokio::test]
async fn there_will_be_no_other_member() {
    for program in programs() {
        let server = Server::start().await.unwrap();
        let mut etcdctl = Etcdctl::new(program, server.url());
        let listed = etcdctl.run(&["member", "list"], "").await;
        let listed = String::from_utf8(listed.stdout).unwrap();
        let own = listed.split(',').next().unwrap();
        let mut lines: Vec<String> = MEMBERSHIP.iter().map(ToString::to_string).collect();
        lines.push(format!("member remove {own}"));
        lines.push(format!(
            "member update {own} --peer-urls=http://127.0.0.1:1"
        ));
        for line in lines {
            let told = etcdctl.told(&line).await;
            assert_ne!(told.code, Some(0), "{told:?}");
            assert!(told.stderr.contains("there will be no other"), "{told:?}");
        }
        // It leads already, and cannot be promoted.
        let moved = etcdctl.told(&format!("move-leader {own}")).await;
        assert!(moved.stdout.contains("Leadership transferred"), "{moved:?}");
        let promoted = etcdctl.told(&format!("member promote {own}")).await;
        assert!(
            promoted.stderr.contains("can only promote a learner"),
            "{promoted:?}"
        );
    }
}
