//! The client: where everything begins.

use std::{fmt, sync::Arc};

use crate::{
    ConnectOptions, Error, Key, Result, TokioRuntime,
    backend::{Backend, Memory, Namespace},
    connect::{Target, namespace_prefix},
    link::{Link, Settings},
};

/// A connection to a store, and the way to every recipe.
///
/// Cloning is cheap, and clones share everything: the connections, the [`Session`](crate::Session) and
/// its lease. Every method takes `&self`.
///
/// When the last clone is dropped, and every guard, stream and session made from it, the shared
/// session's lease is revoked, best effort; [`Client::close`] does so and waits.
#[derive(Clone)]
pub struct Client {
    link: Link,
}

impl Client {
    /// A client of any [`Backend`], for tests and for backends of one's own.
    pub fn with_backend(backend: Arc<dyn Backend>) -> Self {
        Self::assemble(backend, Arc::new(TokioRuntime::new()), Settings::default())
    }

    pub(crate) fn assemble(
        backend: Arc<dyn Backend>,
        runtime: Arc<dyn Runtime>,
        settings: Settings,
    ) -> Self {
        Self {
            link: Link::new(backend, runtime, settings),
        }
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// The backend that this client uses, for what the client does not offer.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.link.backend
    }

    /// Joins names to a key with `/` between them.
    ///
    /// # Examples
    ///
    /// ```
    /// assert_eq!(quorate::Client::path(["hosts", "rack-7", "web-1"]), "hosts/rack-7/web-1");
    /// ```
    pub fn path<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Key {
        let mut path = String::new();
        for (index, name) in names.into_iter().enumerate() {
            if index > 0 {
                path.push('/');
            }
            path.push_str(name.as_ref());
        }
        path.into()
    }

    /// Ends the shared session, and so everything that recipes hold under it, and waits until its
    /// lease is revoked.
    ///
    /// # Errors
    ///
    /// As [`Session::close`](crate::Session::close).
    pub async fn close(&self) -> Result<()> {
        self.link.core.sessions.close().await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("backend", &self.link.backend)
            .finish_non_exhaustive()
    }
}

fn open(target: &Target) -> Result<Arc<dyn Backend>> {
    Ok(match target {
        Target::Memory(None) => Arc::new(Memory::new()),
        Target::Memory(Some(name)) => Arc::new(Memory::named(name)),
        #[cfg(feature = "etcd")]
        Target::Etcd(options) => Arc::new(crate::backend::etcd::Etcd::new(options.clone())?),
    })
}
