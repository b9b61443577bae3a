//! What stands for clusters in a build without them.

use super::{ConnectOptions, url::Query};
use crate::{Error, ErrorKind, Result};

pub(super) fn parse(_: &str, _: &mut Query) -> Result<ConnectOptions> {
    Err(unsupported())
}

pub(super) fn hosts<H: AsRef<str>>(
    _: impl IntoIterator<Item = H>,
    _: u16,
) -> Result<ConnectOptions> {
    Err(unsupported())
}

fn unsupported() -> Error {
    let message = "this build knows no etcd clusters: enable feature etcd, or write mem:";
    Error::new(ErrorKind::Unsupported, message)
}
