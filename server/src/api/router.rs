//! From the path of a request to the service that answers it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

use crate::endpoints::GrpcService;

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// Some services under their names. There are few, so that they are looked through in turn.
#[derive(Clone, Default)]
pub struct Router {
    services: Arc<Vec<(&'static str, Box<dyn Route>)>>,
}

trait Route: Send + Sync {
    fn answer(&self, request: http::Request<Body>) -> Answer;
}

impl<S: GrpcService> Route for S {
    fn answer(&self, request: http::Request<Body>) -> Answer {
        Box::pin(self.clone().call(request)) // generated services are always ready
    }
}

impl Router {
    /// Adds a generated service. Its name must not be there yet.
    pub fn with<S: GrpcService + NamedService>(mut self, service: S) -> Self {
        let services = Arc::get_mut(&mut self.services).expect("the router is not shared yet");
        services.push((S::NAME, Box::new(service)));
        self
    }
}

impl Service<http::Request<Body>> for Router {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let name = request.uri().path().split('/').nth(1).unwrap_or_default();
        match self.services.iter().find(|(known, _)| *known == name) {
            Some((_, service)) => service.answer(request),
            None => {
                let status = Status::unimplemented(format!("unknown service {name}"));
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}
