//! A message that is too large is refused in the words that gRPC's clients know.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::{Code, Status};

/// A request of which no more than `limit` bytes are read, in all its messages together.
pub fn bounded(request: http::Request<Body>, limit: usize) -> http::Request<Body> {
    request.map(|body| Body::new(Bounded { body, read: 0, limit }))
}

/// A body with an end.
struct Bounded {
    body: Body,
    read: usize,
    limit: usize,
}

impl hyper::body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame {
            self.read += frame.data_ref().map_or(0, Bytes::len);
            if self.read > self.limit {
                return Poll::Ready(Some(Err(too_large(self.read, self.limit))));
            }
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Says `RESOURCE_EXHAUSTED` in SPIRE's words where a message was larger than the limit, and leaves
/// every other status alone. Handlers that read a stream pass its errors through here.
pub fn restate(status: Status) -> Status {
    match found_and_limit(&status) {
        Some((found, limit)) => too_large(found, limit),
        None => status,
    }
}

fn too_large(found: usize, limit: usize) -> Status {
    Status::resource_exhausted(format!(
        "grpc: received message larger than max ({found} vs. {limit})"
    ))
}

/// What tonic's decoder says of a message's length and the limit, which only stands in its text.
fn found_and_limit(status: &Status) -> Option<(usize, usize)> {
    if status.code() != Code::OutOfRange {
        return None;
    }
    let rest = status.message().strip_prefix("Error, decoded message length too large: found ")?;
    let (found, rest) = rest.split_once(" bytes, the limit is: ")?;
    Some((found.parse().ok()?, rest.strip_suffix(" bytes")?.parse().ok()?))
}

/// The same for a call whose only message was refused before its handler ran.
pub(super) fn restate_response(response: http::Response<Body>) -> http::Response<Body> {
    let code = response.headers().get(Status::GRPC_STATUS);
    if code.is_none_or(|code| code.as_bytes() != b"11") {
        return response;
    }
    match Status::from_header_map(response.headers()) {
        Some(status) if found_and_limit(&status).is_some() => restate(status).into_http(),
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_decoders_own_refusal_is_put_in_other_words() {
        let refusal = "Error, decoded message length too large: found 4194322 bytes, the limit is: \
                       4194304 bytes";
        let status = restate(Status::out_of_range(refusal));
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(
            status.message(),
            "grpc: received message larger than max (4194322 vs. 4194304)"
        );
        let response = restate_response(Status::out_of_range(refusal).into_http());
        assert_eq!(response.headers()[Status::GRPC_STATUS], "8");
        assert_eq!(restate(Status::out_of_range("page")).code(), Code::OutOfRange);
    }
}
