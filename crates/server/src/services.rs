//! The gRPC services, one each, and what Lock and Election are made of.
//!
//! - [`Services`]: all of them, by the paths of their methods; `calls` counts the calls of each
//! - `kv`, `lease`, `watch`, `cluster`, `maintenance`, `auth`, `lock`, `election`
//! - `queue`: who waits for a lock or campaigns, in which order
//! - `observer`: what is told of an election

pub(crate) mod auth;
pub(crate) mod calls;
pub(crate) mod cluster;
pub(crate) mod election;
pub(crate) mod kv;
pub(crate) mod lease;
pub(crate) mod lock;
pub(crate) mod maintenance;
mod observer;
pub(crate) mod queue;
pub(crate) mod watch;

use std::{
    convert::Infallible,
    sync::{Arc, LazyLock},
};

use prost_reflect::DescriptorPool;
use quorate_wire::{
    etcdserverpb::{
        auth_server::{self, AuthServer},
        cluster_server::{self, ClusterServer},
        kv_server::{self, KvServer},
        lease_server::{self, LeaseServer},
        maintenance_server::{self, MaintenanceServer},
        watch_server::{self, WatchServer},
    },
    v3electionpb::election_server::{self, ElectionServer},
    v3lockpb::lock_server::{self, LockServer},
};
use tonic::{
    Code, Status,
    body::Body,
    codegen::{
        BoxFuture, Service,
        http::{HeaderValue, Request, Response},
    },
};

use self::{
    auth::AuthService, calls::Calls, cluster::ClusterService, election::ElectionService,
    kv::KvService, lease::LeaseService, lock::LockService, maintenance::MaintenanceService,
    watch::WatchService,
};
use crate::store::shared::Shared;

/// The largest message that is read: etcd's limit of a request, and its allowance for what gRPC adds.
pub(crate) const MAX_MESSAGE_BYTES: usize = 2 * 1024 * 1024;

/// All messages and services. It takes a millisecond to read, which those who start many servers need not wait for.
pub(crate) static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(quorate_wire::DESCRIPTORS).expect("the descriptors are generated")
});

/// Calls a method of one of the services.
type Call = fn(&Each, Request<Body>) -> BoxFuture<Response<Body>, Infallible>;

/// Defines a struct of services, each found by its name.
macro_rules! services {
    ($($field:ident: $server:ident($service:ident), $of:ident;)*) => {
        #[derive(Clone)]
        struct Each {$(
            $field: $server<$service>,
        )*}

        impl Each {
            fn new(shared: &Arc<Shared>) -> Self {
                Self {$(
                    $field: $server::new($service::new(shared))
                        .max_decoding_message_size(MAX_MESSAGE_BYTES),
                )*}
            }

            /// How the service of this name is called, if there is one.
            fn find(service: &str) -> Option<Call> {
                match service {
                    $($of::SERVICE_NAME => Some(|each, request| each.$field.clone().call(request)),)*
                    _ => None,
                }
            }
        }
    };
}

services! {
    auth: AuthServer(AuthService), auth_server;
    cluster: ClusterServer(ClusterService), cluster_server;
    election: ElectionServer(ElectionService), election_server;
    kv: KvServer(KvService), kv_server;
    lease: LeaseServer(LeaseService), lease_server;
    lock: LockServer(LockService), lock_server;
    maintenance: MaintenanceServer(MaintenanceService), maintenance_server;
    watch: WatchServer(WatchService), watch_server;
}

/// All services. They are found without a router, whose layers would cost a call as much as the store does.
#[derive(Clone)]
pub(crate) struct Services {
    each: Each,
    calls: Arc<Calls>,
}

impl Services {
    pub(crate) fn new(shared: &Arc<Shared>, calls: &Arc<Calls>) -> Self {
        Self {
            each: Each::new(shared),
            calls: Arc::clone(calls),
        }
    }

    /// Calls the method of a path; the request comes back if there is no such service.
    pub(crate) async fn answer(
        &self,
        request: Request<Body>,
    ) -> Result<Response<Body>, Request<Body>> {
        let path = request.uri().path();
        let names = path.strip_prefix('/').and_then(|it| it.split_once('/'));
        let names = names.filter(|(_, method)| !method.is_empty());
        let Some(call) = names.and_then(|(service, _)| Each::find(service)) else {
            return Err(request);
        };
        let counted = self.calls.begin(path);
        let Ok(mut response) = call(&self.each, request).await;
        reword(&mut response);
        Ok(match counted {
            Some(counted) => counted.answered(response),
            None => response,
        })
    }
}

/// Puts tonic's refusal of a message that is too large in etcd's words and code.
fn reword(response: &mut Response<Body>) {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return;
    };
    let Some(found) = (status.code() == Code::OutOfRange)
        .then(|| status.message())
        .and_then(|text| text.split_once("message length too large: found "))
        .and_then(|(_, rest)| rest.split(' ').next())
    else {
        return;
    };
    let text = format!("grpc: received message larger than max ({found} vs. {MAX_MESSAGE_BYTES})");
    let headers = response.headers_mut();
    let code = i32::from(Code::ResourceExhausted);
    if let Ok(text) = HeaderValue::try_from(text) {
        headers.insert(Status::GRPC_MESSAGE, text);
        headers.insert(Status::GRPC_STATUS, HeaderValue::from(code));
    }
}
