//! From the path of a request to the service that answers it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Status};
use tower::Service;

use super::GrpcService;

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
        let uri = request.uri().clone();
        let answer = self.clone().call(request); // generated services are always ready
        Box::pin(async move {
            let answer = answer.await?;
            if is_unknown_method(&answer) {
                let (service, method) = names(uri.path());
                let sentence = format!("unknown method {method} for service {service}");
                return Ok(Status::unimplemented(sentence).into_http());
            }
            Ok(answer)
        })
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
        let (name, _) = names(request.uri().path());
        match self.services.iter().find(|(known, _)| *known == name) {
            Some((_, service)) => service.answer(request),
            None => {
                let status = Status::unimplemented(format!("unknown service {name}"));
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

/// The service and the method that a path names.
fn names(path: &str) -> (&str, &str) {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.split_once('/').unwrap_or((path, ""))
}

/// Generated services answer a method that they do not have with the code alone; our own refusals
/// always say something.
fn is_unknown_method(answer: &http::Response<Body>) -> bool {
    let code = answer.headers().get(Status::GRPC_STATUS);
    let message = answer.headers().get(Status::GRPC_MESSAGE);
    let unimplemented = i32::from(Code::Unimplemented).to_string();
    message.is_none() && code.is_some_and(|code| code.as_bytes() == unimplemented.as_bytes())
}
