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
    /// Connects to a store by its address: `mem:`, `mem:NAME`, `etcd://host:2379/namespace?option=...`
    /// or a list of servers. [`ConnectOptions`] has the whole grammar, and is taken as well.
    ///
    /// A client of a cluster connects when it is first used, so this does not fail while the cluster is
    /// down.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for an address that cannot be understood,
    /// and for certificates that cannot be used.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// use quorate::Client;
    ///
    /// let client = Client::connect("mem:").await?;
    /// client.put("greeting", "hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn connect<O>(options: O) -> Result<Self>
    where
        O: TryInto<ConnectOptions>,
        O::Error: Into<Error>,
    {
        let options = options.try_into().map_err(Into::into)?;
        options.check()?;
        match options.target.clone() {
            Target::Memory(None) => Ok(Self::with_backend_and(Arc::new(Memory::new()), options)),
            Target::Memory(Some(name)) => Ok(Self::with_backend_and(
                Arc::new(Memory::named(&name)),
                options,
            )),
            #[cfg(feature = "etcd")]
            Target::Etcd(cluster) => {
                let etcd = Arc::new(crate::backend::etcd::Etcd::new(cluster)?);
                let client = Self::with_backend_and(Arc::clone(&etcd) as Arc<dyn Backend>, options);
                #[cfg(feature = "raw")]
                let _ = client.link.core.etcd.set(etcd);
                Ok(client)
            }
        }
    }

    /// The wire crate's own clients, on the connection in use: for what this library does not offer.
    /// They know of no namespace, and retry nothing. Outside semantic versioning.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a store that is no etcd cluster; otherwise
    /// if no member can be connected to.
    #[cfg(feature = "raw")]
    pub async fn etcd(&self) -> Result<crate::backend::etcd::Raw> {
        match self.link.core.etcd.get() {
            Some(etcd) => etcd.raw().await,
            None => Err(Error::new(
                crate::ErrorKind::Unsupported,
                "this store is no etcd cluster: it has no wire clients",
            )),
        }
    }

    /// A client of any [`Backend`], for tests and for backends of one's own.
    pub fn with_backend(backend: Arc<dyn Backend>) -> Self {
        Self::with_backend_and(backend, ConnectOptions::memory())
    }

    /// As [`Client::with_backend`], with everything that the options say beside the store.
    pub fn with_backend_and(backend: Arc<dyn Backend>, options: ConnectOptions) -> Self {
        let runtime = options
            .runtime
            .unwrap_or_else(|| Arc::new(TokioRuntime::new()));
        let settings = Settings {
            call_timeout: options.timeout,
            session_ttl: options.session_ttl,
            drift: options.drift,
            margin: options.margin,
            holder: options.holder,
        };
        let client = Self {
            link: Link::new(backend, runtime, settings),
        };
        if options.namespace.is_empty() {
            client
        } else {
            client.within(options.namespace)
        }
    }

    /// A client of the same store and session whose keys all lie under `name/`: it sees nothing else,
    /// and its recipes are apart from those of other namespaces. Namespaces nest.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// # let client = quorate::Client::connect("mem:").await?;
    /// client.namespace("prod").namespace("db").put("port", "5432").await?;
    /// assert_eq!(client.get("prod/db/port").await?.expect("just put").value, "5432");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn namespace(&self, name: impl Into<Key>) -> Self {
        self.within(namespace_prefix(name))
    }

    fn within(&self, prefix: Key) -> Self {
        let namespace: Vec<u8> = [&*self.link.namespace, &*prefix].concat();
        let inner = Arc::clone(&self.link.backend);
        let backend = Arc::new(Namespace::new(inner, prefix));
        Self {
            link: Link {
                core: Arc::clone(&self.link.core),
                backend,
                namespace: namespace.into(),
            },
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
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> quorate::Result<()> {
    /// # let client = quorate::Client::connect("mem:").await?;
    /// assert_eq!(client.path(["hosts", "rack-7", "web-1"]), "hosts/rack-7/web-1");
    /// # Ok(())
    /// # }
    /// ```
    pub fn path<S: AsRef<str>>(&self, names: impl IntoIterator<Item = S>) -> Key {
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
    /// lease is revoked. Ephemeral keys that live by it do not come back.
    ///
    /// # Errors
    ///
    /// As [`Session::close`](crate::Session::close).
    pub async fn close(&self) -> Result<()> {
        self.link.core.keepers.shared.close();
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
