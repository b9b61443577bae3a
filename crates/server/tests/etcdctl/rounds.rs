//! Locks are taken in turns, and leaders elected.

use crate::support::etcdctl::{Etcdctl, Running, same};

/// Waits for what somebody holds or proposes.
async fn key(running: &mut Running) -> String {
    running.raw().await.expect("it ended")
}

/// Waits until so many have a key below a name.
async fn queued(etcdctl: &mut Etcdctl, name: &str, count: usize) {
    let line = format!("get --prefix {name}/ --keys-only");
    while etcdctl.told(&line).await.stdout.split_whitespace().count() != count {}
}

#[tokio::test]
async fn a_lock_is_passed_on_in_turn() {
    same(async |_, etcdctl| {
        let mut told = Vec::new();
        let mut holder = etcdctl.start("lock jobs");
        let held = key(&mut holder).await;
        assert!(held.starts_with("jobs/"), "{held}");
        let mut second = etcdctl.start("lock jobs --ttl=60");
        queued(etcdctl, "jobs", 2).await;
        let mut third = etcdctl.start("lock jobs");
        queued(etcdctl, "jobs", 3).await;

        // Who is interrupted lets it go.
        holder.interrupt();
        told.push(format!("{:?}", holder.end().await));
        let next = key(&mut second).await;
        assert_ne!(next, held);
        queued(etcdctl, "jobs", 2).await;

        // Whose key is deleted holds it no more, whatever it thinks.
        etcdctl.told(&format!("del {next}")).await;
        assert_ne!(key(&mut third).await, next);
        second.kill().await;
        third.interrupt();
        told.push(format!("{:?}", third.end().await));
        told.push(
            etcdctl
                .told("get --prefix jobs/ --count-only -w fields")
                .await
                .stdout,
        );
        told
    })
    .await;
}

#[tokio::test]
async fn who_stops_waiting_for_a_lock_leaves_nothing_behind() {
    same(async |_, etcdctl| {
        let mut holder = etcdctl.start("lock jobs");
        let held = key(&mut holder).await;
        let waiter = etcdctl.start("lock jobs");
        queued(etcdctl, "jobs", 2).await;
        waiter.interrupt();
        let mut told = vec![format!("{:?}", waiter.end().await)];
        queued(etcdctl, "jobs", 1).await;
        let left = etcdctl.told("get --prefix jobs/ --keys-only").await.stdout;
        told.push(left);
        holder.kill().await;
        // A holder that was killed keeps it until its lease has run out.
        let mut next = etcdctl.start("lock jobs echo mine");
        told.push(next.lines(1).await);
        assert_ne!(held, "");
        told.push(format!("{:?}", next.end().await));
        told
    })
    .await;
}

#[tokio::test]
async fn a_command_runs_under_a_lock() {
    same(async |_, etcdctl| {
        let mut told = Vec::new();
        for line in [
            "lock jobs echo done",
            "lock jobs --ttl=60 -- echo done",
            "lock jobs -- false",
            "lock jobs -- sh -c 'exit 7'",
            "lock jobs -- sh -c 'echo $ETCD_LOCK_REV; test -n $ETCD_LOCK_KEY'",
            "lock jobs --ttl=0 echo done",
            "lock jobs --ttl=-1 echo done",
            "lock jobs -- /no/such/program",
            "lock",
            "get --prefix '' -w json",
        ] {
            told.push(etcdctl.told(line).await);
        }
        told
    })
    .await;
}

#[tokio::test]
async fn leaders_follow_each_other() {
    same(async |_, etcdctl| {
        let mut told = Vec::new();
        let mut observer = etcdctl.start("elect -l chair");
        let mut first = etcdctl.start("elect chair ada");
        told.push(first.lines(2).await);
        told.push(observer.lines(2).await);
        let mut second = etcdctl.start("elect chair bob");
        queued(etcdctl, "chair", 2).await;
        let mut late = etcdctl.start("elect --listen chair");
        told.push(late.lines(2).await);

        first.interrupt();
        told.push(format!("{:?}", first.end().await));
        told.push(second.lines(2).await);
        told.push(observer.lines(2).await);
        told.push(late.lines(2).await);

        // Another value in the leader's key is another proposal.
        let held = etcdctl
            .run(&["get", "--prefix", "chair/", "--keys-only"], "")
            .await;
        let held = String::from_utf8(held.stdout).unwrap();
        let value = etcdctl
            .told(&format!("put --ignore-lease {} carol", held.trim()))
            .await;
        told.push(format!("{value:?}").replace(held.trim(), "KEY"));
        told.push(observer.lines(2).await);
        for running in [second, observer, late] {
            running.interrupt();
            told.push(format!("{:?}", running.end().await));
        }
        told.push(etcdctl.told("get --prefix chair/").await.stdout);
        told
    })
    .await;
}

#[tokio::test]
async fn elections_that_cannot_be_are_refused() {
    same(async |_, etcdctl| {
        let mut told = Vec::new();
        for line in ["elect", "elect chair", "elect -l chair ada", "elect -l"] {
            told.push(etcdctl.told(line).await);
        }
        told
    })
    .await;
}
