//! The parts of an address that name a server on this machine: `unix:PATH` and `local:NAME`.

use std::time::Duration;

use super::{
    ConnectOptions, cluster, invalid,
    url::{Query, decoded, text},
};
use crate::{
    Result,
    backend::etcd::{EtcdOptions, local::Local, socket},
};

/// Reads what stands after `unix:`.
pub(super) fn unix(path: &str, query: &mut Query) -> Result<ConnectOptions> {
    if path.contains(super::url::is_separator) {
        return Err(invalid(
            "unix: takes one path; percent-encode , ; and white space in it",
        ));
    }
    let path = text(decoded(path)?, "the path after unix:")?;
    let url = format!("unix:{path}");
    let endpoint = socket::path_of(&url)
        .expect("the scheme is there")
        .and_then(socket::url_of)
        .map_err(|reason| invalid(format!("unix: {reason}")))?;
    let etcd = EtcdOptions {
        endpoints: vec![endpoint],
        ..EtcdOptions::default()
    };
    connection(etcd, query)
}

/// Reads what stands after `local:`.
pub(super) fn local(name: &str, query: &mut Query) -> Result<ConnectOptions> {
    if name.starts_with("//") {
        return Err(invalid("write local: or local:NAME, without slashes"));
    }
    if name.contains('/') {
        return Err(invalid(
            "a namespace of a local server is written local:NAME?namespace=...",
        ));
    }
    let name = text(decoded(name)?, "the name after local:")?;
    let endpoint = format!("local:{name}");
    Local::named(&name).map_err(invalid)?;
    let etcd = EtcdOptions {
        endpoints: vec![endpoint],
        connect_timeout: START_TIMEOUT,
        ..EtcdOptions::default()
    };
    connection(etcd, query)
}

fn connection(etcd: EtcdOptions, query: &mut Query) -> Result<ConnectOptions> {
    for name in ["ca", "cert", "key", "server_name", "tls"] {
        if query.bytes(name).is_some() {
            return Err(invalid(format!(
                "option {name} is for hosts: a socket is without TLS, and open to whom its file is"
            )));
        }
    }
    cluster::connection(etcd, None, query)
}

/// How long a connection may take that starts a server first. It ends before the call, to be told.
const START_TIMEOUT: Duration = Duration::from_secs(4);
