//! Connections to members that are in this process.

use std::{
    fmt, io,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::{self, Ready};
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tonic::{codegen::Service, transport::Uri};

/// Reaches members over pipes rather than the network, which works on paused time: for tests of what a
/// server may say.
#[derive(Clone)]
pub struct Pipes(Arc<Connect>);

type Connect = dyn Fn(&str) -> io::Result<DuplexStream> + Send + Sync;

impl Pipes {
    /// Connects to an endpoint, by its URL, as `connect` does.
    pub fn new(connect: impl Fn(&str) -> io::Result<DuplexStream> + Send + Sync + 'static) -> Self {
        Self(Arc::new(connect))
    }
}

impl fmt::Debug for Pipes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipes").finish_non_exhaustive()
    }
}

impl Service<Uri> for Pipes {
    type Response = TokioIo<DuplexStream>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        future::ready((self.0)(&url.to_string()).map(TokioIo::new))
    }
}
