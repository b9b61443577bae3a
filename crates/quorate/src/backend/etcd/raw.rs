//! The wire crate's own clients, for what this library does not offer.

use quorate_wire::{
    etcdserverpb::{
        auth_client::AuthClient, cluster_client::ClusterClient, kv_client::KvClient,
        lease_client::LeaseClient, maintenance_client::MaintenanceClient,
        watch_client::WatchClient,
    },
    v3electionpb::election_client::ElectionClient,
    v3lockpb::lock_client::LockClient,
};
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
};

use super::{Etcd, auth::Token, call::Kind, line::Line};
use crate::Result;

/// A connection that authenticates each request and drops details of errors. Name it by this alias.
pub type RawChannel = InterceptedService<Line, TokenInterceptor>;

/// Adds the user's token to each request.
#[derive(Clone, Debug)]
pub struct TokenInterceptor(Token);

impl Interceptor for TokenInterceptor {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0.value {
            request.metadata_mut().insert("token", token.clone());
        }
        Ok(request)
    }
}

/// The clients of one connection to one member, with one token: nothing is retried, renewed or timed, and
/// when the connection ends these clients end with it. What is streamed to the server is sent while its
/// answers are awaited or read, and stands still otherwise. Outside semantic versioning.
#[derive(Clone, Debug)]
pub struct Raw(RawChannel);

impl Etcd {
    /// The generated clients, on the connection in use.
    ///
    /// The [`details`](Status::details) of their errors are always empty: etcd sends none, and what a
    /// proxy puts there is dropped.
    ///
    /// Keep the backend to come by them, and give a clone to the client of the recipes:
    ///
    /// ```
    /// # fn main() -> quorate::Result<()> {
    /// use std::sync::Arc;
    /// use quorate::{Client, backend::etcd::{Etcd, EtcdOptions}};
    ///
    /// let etcd = Arc::new(Etcd::new(EtcdOptions::default())?);
    /// let client = Client::with_backend(etcd.clone());
    /// # drop(client);
    ///
    /// async fn clients(etcd: &Etcd) -> quorate::Result<()> {
    ///     let raw = etcd.raw().await?;
    ///     let (_maintenance, _watch) = (raw.maintenance(), raw.watch());
    ///     Ok(())
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// No member can be connected to, or none authenticates the user.
    pub async fn raw(&self) -> Result<Raw> {
        let connect = |attempt: super::Attempt| async move { Ok(attempt) };
        let attempt = self
            .caller
            .attempts(Kind::Read, self.caller.deadline(), connect)
            .await?;
        let interceptor = TokenInterceptor(attempt.token);
        Ok(Raw(InterceptedService::new(
            attempt.connection.line,
            interceptor,
        )))
    }
}

/// Defines one method a service.
macro_rules! clients {
    ($($name:ident: $client:ident,)*) => {
        impl Raw {$(
            #[doc = concat!("A client of the service of that name: [`", stringify!($client), "`].")]
            pub fn $name(&self) -> $client<RawChannel> {
                $client::new(self.0.clone())
            }
        )*}
    };
}

clients! {
    auth: AuthClient,
    cluster: ClusterClient,
    election: ElectionClient,
    kv: KvClient,
    lease: LeaseClient,
    lock: LockClient,
    maintenance: MaintenanceClient,
    watch: WatchClient,
}
