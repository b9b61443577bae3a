//! x

#[path = "model/check.rs"]
mod check;
#[path = "model/properties.rs"]
mod properties;
#[path = "model/protocol.rs"]
mod protocol;
#[path = "model/server.rs"]
mod server;
#[path = "model/state.rs"]
mod state;
#[path = "model/steps.rs"]
mod steps;

use check::bound;
use protocol::{Protocol, Value};

#[test]
fn try_it() {
    let mut p = Protocol::new(bound("TICKS", 3), bound("ACQUIRES", 1), bound("TROUBLES", 0), Value::Fenced);
    if bound("VALUE", 1) == 0 { p.value = Value::Untouched }
    p.ttl = bound("TTL", 3);
    p.exhaust();
}
#[test]
fn debug_it() {
    let mut p = Protocol::new(bound("TICKS", 3), bound("ACQUIRES", 1), bound("TROUBLES", 0), Value::Fenced);
    if bound("VALUE", 1) == 0 { p.value = Value::Untouched }
    p.ttl = bound("TTL", 3);
    p.shortest(properties::EXCLUSION);
}
