//! Who stands in the queue by other programs, and what stands there that is no contender.

use std::{sync::Arc, time::Duration};

use quorate::{LeaseId, Op, Put, Txn, backend::Backend};
use tokio::time::sleep;

use super::NAME;
use crate::simulate::world::{OUTSIDE, World};

/// What is none: it stays where it is put, and nobody waits for it.
const NONE: [&str; 3] = ["name/about", "name/694d7/x", "name/694d7-"];

/// Contends as etcd's own tools do, now and then, and leaves in all ways.
pub(super) async fn come_and_go(world: Arc<World>) {
    let mut random = world.random(OUTSIDE, 0);
    let mut lease = 0;
    while world.storms() {
        sleep(Duration::from_millis(random.u64(..6000))).await;
        if !world.storms() {
            return;
        }
        if random.u8(..3) == 0 {
            let key = NONE[random.usize(..NONE.len())];
            let op = match random.bool() {
                true => Op::put(key, ""),
                false => Op::delete(key),
            };
            drop(world.store.txn(Txn::new().then(op)).await);
            continue;
        }
        lease += 1;
        let id = LeaseId(0x1234_5678_0000 + lease);
        let ttl = Duration::from_secs(random.u64(1..3));
        drop(world.store.grant(id, ttl).await);
        let key = format!("{NAME}/{id}");
        let put = Put::new(key.as_str(), "").lease(id);
        drop(world.store.txn(Txn::new().then(put)).await);
        world.count("strangers");
        sleep(ttl.mul_f64(random.f64() / 2.0)).await;
        match random.u8(..3) {
            0 => drop(world.store.revoke(id).await),
            1 => drop(world.store.txn(Txn::new().then(Op::delete(key))).await),
            // Its end is that of its lease.
            _ => {}
        }
    }
}
