//! Connections to members that are in this process.

use std::{fmt, io, sync::Arc};

use tokio::io::DuplexStream;

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

    pub(super) fn open(&self, url: &str) -> io::Result<DuplexStream> {
        (self.0)(url)
    }
}

impl fmt::Debug for Pipes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipes").finish_non_exhaustive()
    }
}
