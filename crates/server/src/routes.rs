//! Who answers a request: a service of gRPC, or what is served beside them.

use std::{
    convert::Infallible,
    error::Error as StdError,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use tonic::{
    body::Body,
    codegen::{
        Service,
        http::{Request, Response},
    },
};

use crate::{
    Control,
    plain::Plain,
    services::{Services, calls::Calls},
    store::shared::Shared,
    transport::tls::Peer,
};

/// Answers all requests, as far as it is allowed to.
#[cfg_attr(not(feature = "fuzzing"), allow(unreachable_pub))] // with that it is a door
#[derive(Clone)]
pub struct Routes(Arc<Inner>);

struct Inner {
    control: Control,
    services: Services,
    plain: Plain,
}

impl Routes {
    pub(crate) fn new(shared: &Arc<Shared>, control: &Control) -> Self {
        let calls = Arc::new(Calls::default());
        let services = Services::new(shared, &calls);
        Self(Arc::new(Inner {
            control: control.clone(),
            plain: Plain::new(&services, shared, &calls),
            services,
        }))
    }
}

impl<B> Service<Request<B>> for Routes
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (inner, request) = (Arc::clone(&self.0), request.map(Body::new));
        Box::pin(async move { Ok(inner.answer(request).await) })
    }
}

impl Inner {
    async fn answer(&self, mut request: Request<Body>) -> Response<Body> {
        let peer: Option<&Peer> = request.extensions().get();
        if let Some(name) = peer.and_then(Peer::common_name).cloned() {
            request.extensions_mut().insert(name);
        }
        let is_stream = Control::is_stream(request.uri().path());
        let response = match self.services.answer(request).await {
            Ok(response) => response,
            // Boxed, or all calls would need the room for it.
            Err(request) => Box::pin(self.plain.answer(request)).await,
        };
        self.control.pass(is_stream, response).await
    }
}
