//! Why Azure does not say what it is asked.

use std::fmt::Display;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use spire_core::node::{AttestError, Examination};
use spire_core::remote::RemoteError;

use super::RequestId;

/// Longest part of an answer that is told, in bytes.
const MAX_TOLD_BYTES: usize = 256;

/// A question that was not answered. It is everybody's who waited for the answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) kind: Kind,
    message: String,
    /// How long Azure asks to wait.
    pub(super) pause: Option<Duration>,
    request_id: RequestId,
}

/// What lies behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// There is no such resource, or none that the credential sees.
    NotFound,
    /// The credential may not read it.
    Forbidden,
    /// The credential is of another tenant than the resource.
    OtherTenant,
    /// Azure is busy, broken or out of reach.
    Passing,
    /// The credential gives no token, or the answer is none.
    Trouble,
}

/// What Azure says of a refusal.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: Details,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    code: String,
    message: String,
}

impl ApiError {
    /// An answer that is not what was asked for.
    pub(super) fn odd(what: impl Display, request_id: RequestId) -> Self {
        let message = format!("unexpected answer of Azure Resource Manager: {what}");
        Self { kind: Kind::Trouble, message, pause: None, request_id }
    }

    pub(super) fn no_token(error: &azure_core::Error) -> Self {
        let message: String = error.to_string().chars().take(1024).collect();
        let message = format!("unable to get a token for Azure Resource Manager: {message}");
        let passing = matches!(root_kind(error), azure_core::error::ErrorKind::Io);
        let kind = if passing { Kind::Passing } else { Kind::Trouble };
        Self { kind, message, pause: None, request_id: None }
    }

    pub(super) fn unanswered(error: &RemoteError) -> Self {
        let message = format!("no answer of Azure Resource Manager: {error}");
        let kind = match error {
            RemoteError::Unreachable(_) | RemoteError::TooSlow(_) => Kind::Passing,
            RemoteError::Client(_) | RemoteError::TooLong(_) => Kind::Trouble,
        };
        Self { kind, message, pause: None, request_id: None }
    }

    pub(super) fn refused(
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        request_id: RequestId,
    ) -> Self {
        let Refusal { error } = serde_json::from_slice(body).unwrap_or_default();
        let kind = match status {
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::FORBIDDEN => Kind::Forbidden,
            StatusCode::UNAUTHORIZED if error.code == "InvalidAuthenticationTokenTenant" => {
                Kind::OtherTenant
            }
            status if is_passing(status.as_u16()) => Kind::Passing,
            _ => Kind::Trouble,
        };
        let said: String = error.message.chars().take(MAX_TOLD_BYTES).collect();
        let code: String = error.code.chars().take(MAX_TOLD_BYTES).collect();
        let message = format!("Azure Resource Manager answered {status}: {code}: {said}");
        let pause = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        Self { kind, message, pause: pause.map(Duration::from_secs), request_id }
    }

    /// Whether the same question may be answered in a moment.
    pub(super) fn is_passing(&self) -> bool {
        self.kind == Kind::Passing
    }

    /// Why the node that Azure was asked about is not attested.
    pub(crate) fn about(&self, what: &str, examination: &mut Examination) -> AttestError {
        examination.asked(self.request_id.as_deref());
        let sentence = format!("{what}: {}", self.message);
        match self.kind {
            Kind::NotFound => AttestError::NotFound(sentence),
            Kind::OtherTenant => AttestError::Refused(sentence),
            Kind::Forbidden => AttestError::Unavailable(format!(
                "{sentence}; give the server's identity the role Reader on the subscription"
            )),
            Kind::Passing | Kind::Trouble => AttestError::Unavailable(sentence),
        }
    }
}

fn is_passing(status: u16) -> bool {
    status == 408 || status == 429 || (500..600).contains(&status)
}

/// The kind of the error that the credential wrapped.
fn root_kind(error: &azure_core::Error) -> &azure_core::error::ErrorKind {
    error.downcast_ref::<azure_core::Error>().map_or(error.kind(), root_kind)
}
