//! The calls under way: a bound for each process over all its connections, and an end to streams
//! that would go on for ever when the agent stops.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};
use spire_core::grpc::{Crowd, GrpcService, Place};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

/// Calls at a time, of all processes and of each.
const CALLS: usize = 65_536;
const CALLS_EACH: usize = 2048;

/// The calls of all processes. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    crowd: std::sync::Arc<Crowd<u32>>,
    stop: CancellationToken,
}

impl Calls {
    pub(super) fn new(stop: CancellationToken) -> Self {
        Self { crowd: Crowd::new(CALLS, CALLS_EACH).into(), stop }
    }

    /// `services` for the calls of process `pid`.
    pub(super) fn of<S: GrpcService>(&self, pid: u32, services: S) -> CallsOf<S> {
        CallsOf { calls: self.clone(), pid, services }
    }
}

/// The services as one process sees them.
#[derive(Clone)]
pub(super) struct CallsOf<S> {
    calls: Calls,
    pid: u32,
    services: S,
}

impl<S: GrpcService> Service<http::Request<Body>> for CallsOf<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.services.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Some(place) = self.calls.crowd.enter(self.pid) else {
            let status = Status::unavailable("too many calls are under way; try again later");
            return Box::pin(std::future::ready(Ok(status.into_http())));
        };
        let stop = self.calls.stop.clone().cancelled_owned();
        let answer = self.services.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            if answer.body().is_end_stream() {
                return Ok(answer);
            }
            let (head, body) = answer.into_parts();
            let answer = Answer { body, stop: Box::pin(stop), over: false, _place: place };
            Ok(http::Response::from_parts(head, Body::new(answer)))
        })
    }
}

/// The body of an answer, with the place of its call.
struct Answer {
    body: Body,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    over: bool,
    _place: Place<u32>,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    /// What the handler has to say comes first; one that waits for news has nothing to say any
    /// more once the agent stops.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        if self.stop.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        self.over = true;
        let mut trailers = http::HeaderMap::new();
        let status = Status::unavailable("the agent is stopping");
        Poll::Ready(match status.add_header(&mut trailers) {
            Ok(()) => Some(Ok(Frame::trailers(trailers))),
            Err(status) => Some(Err(status)),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
