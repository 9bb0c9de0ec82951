//! Why Azure does not say what it is asked.

use std::fmt::Display;

use http::StatusCode;
use serde::Deserialize;
use spire_core::node::{AttestError, Examination};
use spire_core::remote::{Answer, RemoteError};

use super::RequestId;

/// Longest part of an answer that is told, in bytes.
const MAX_TOLD_BYTES: usize = 256;

/// A question that was not answered. It is everybody's who waited for the answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) kind: Kind,
    message: String,
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
    /// Azure is busy, broken or out of reach, the credential gives no token, or the answer is none.
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
        Self { kind: Kind::Trouble, message, request_id }
    }

    pub(super) fn no_token(error: &azure_core::Error) -> Self {
        let message: String = error.to_string().chars().take(1024).collect();
        let message = format!("unable to get a token for Azure Resource Manager: {message}");
        Self { kind: Kind::Trouble, message, request_id: None }
    }

    pub(super) fn unanswered(error: &RemoteError) -> Self {
        let message = format!("no answer of Azure Resource Manager: {error}");
        Self { kind: Kind::Trouble, message, request_id: None }
    }

    pub(super) fn refused(answer: &Answer, request_id: RequestId) -> Self {
        let Refusal { error } = serde_json::from_slice(&answer.body).unwrap_or_default();
        let status = answer.status;
        let kind = match status {
            StatusCode::NOT_FOUND => Kind::NotFound,
            StatusCode::FORBIDDEN => Kind::Forbidden,
            StatusCode::UNAUTHORIZED if error.code == "InvalidAuthenticationTokenTenant" => {
                Kind::OtherTenant
            }
            _ => Kind::Trouble,
        };
        let said: String = error.message.chars().take(MAX_TOLD_BYTES).collect();
        let code: String = error.code.chars().take(MAX_TOLD_BYTES).collect();
        let message = format!("Azure Resource Manager answered {status}: {code}: {said}");
        Self { kind, message, request_id }
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
            Kind::Trouble => AttestError::Unavailable(sentence),
        }
    }
}
