//! Why an agent is refused, as a detail of `PERMISSION_DENIED` that agents act on.

use bytes::Bytes;
use prost::Message;
use tonic::{Code, Status};

use crate::wire::types::PermissionDeniedDetails;
pub use crate::wire::types::permission_denied_details::Reason;

const TYPE_URL: &str = "type.googleapis.com/spire.api.types.PermissionDeniedDetails";

/// `google.rpc.Status`, which carries the details of a status.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `PERMISSION_DENIED` with `message` and, as a detail, `reason`.
pub fn status(message: &str, reason: Reason) -> Status {
    let detail = PermissionDeniedDetails { reason: reason.into() };
    let detail = prost_types::Any { type_url: TYPE_URL.to_owned(), value: detail.encode_to_vec() };
    let code = Code::PermissionDenied;
    let details =
        RpcStatus { code: code.into(), message: message.to_owned(), details: vec![detail] };
    Status::with_details(code, message, Bytes::from(details.encode_to_vec()))
}

/// The reason in a refusal, where there is one.
pub fn reason(status: &Status) -> Option<Reason> {
    if status.code() != Code::PermissionDenied {
        return None;
    }
    let details = RpcStatus::decode(status.details()).ok()?.details;
    let detail = details.into_iter().find(|detail| detail.type_url == TYPE_URL)?;
    let detail = PermissionDeniedDetails::decode(&*detail.value).ok()?;
    Reason::try_from(detail.reason).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_the_wire() {
        let headers = status("no", Reason::AgentBanned).into_http::<()>();
        let received = Status::from_header_map(headers.headers()).unwrap();
        assert_eq!(received.message(), "no");
        assert_eq!(reason(&received), Some(Reason::AgentBanned));
    }

    #[test]
    fn a_refusal_without_details_has_no_reason() {
        assert_eq!(reason(&Status::permission_denied("no")), None);
        let garbage = Status::with_details(Code::PermissionDenied, "no", Bytes::from_static(b"x"));
        assert_eq!(reason(&garbage), None);
    }
}
