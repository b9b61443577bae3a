//! What stands for servers on this machine in a build without them.

use super::{ConnectOptions, cluster, url::Query};
use crate::Result;

pub(super) fn unix(path: &str, query: &mut Query) -> Result<ConnectOptions> {
    cluster::parse(path, query)
}

pub(super) fn local(name: &str, query: &mut Query) -> Result<ConnectOptions> {
    cluster::parse(name, query)
}
