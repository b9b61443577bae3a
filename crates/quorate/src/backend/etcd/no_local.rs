//! What stands for `local:` on systems without Unix sockets.

use super::classify::Failure;
use crate::{Error, ErrorKind, Result};

#[derive(Clone, Debug)]
pub(crate) enum Local {}

impl Local {
    pub(crate) fn of(endpoint: &str) -> Option<Result<Self>> {
        endpoint.starts_with("local:").then(|| {
            let message = "local: needs a Unix system; start a server, and name its address";
            Err(Error::new(ErrorKind::Unsupported, message))
        })
    }

    pub(super) fn url(&self) -> String {
        match *self {}
    }

    pub(super) async fn connect<T, F>(
        &self,
        _: impl Fn() -> F,
        _: &mut Option<Failure>,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        match *self {}
    }
}
