//! Writes the keys that are watched: one at a time, or several in a transaction.

use quorate::Op;

use super::{Desk, millis, observe::PREFIX};

/// How many keys there are.
const KEYS: usize = 20;

/// Puts and deletes keys until the process shall stop.
pub(super) async fn write(desk: &Desk) {
    let mut serial = 0_u64;
    while !desk.is_stopping() {
        let mut txn = desk.client.txn();
        // A transaction may touch a key once.
        let first = fastrand::usize(..KEYS);
        let size = if fastrand::u8(..4) == 0 { 3 } else { 1 };
        for number in (first..first + size).map(|number| number % KEYS) {
            serial += 1;
            let key = format!("{PREFIX}{}-{number}", desk.process);
            txn = txn.then(if fastrand::u8(..5) == 0 {
                Op::delete(key)
            } else {
                Op::put(key, serial.to_string())
            });
        }
        if let Some(Err(error)) = desk
            .unless_stopping(desk.timed("commit", 1, txn.commit()))
            .await
        {
            desk.failed("write", &error).await;
        }
        desk.rest(millis(5), millis(60)).await;
    }
}
