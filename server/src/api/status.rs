//! The one place where errors of the server's parts become statuses of gRPC. A message is `<what
//! failed>: <why>`; where something was not found it is the first part alone.

use std::fmt::Display;

use spire_core::node::AttestError;
use spire_core::upstream::UpstreamError;
use spire_core::wire::convert::denial;
use tonic::{Code, Status};

use crate::attestation;
use crate::authority::{IssueError, RotationError};
use crate::policy::Denied;
use crate::rate_limit::RateExceeded;
use crate::store::StoreError;

/// `INVALID_ARGUMENT`: which argument, and what is wrong with it.
pub fn invalid(what: &str, why: impl Display) -> Status {
    Status::invalid_argument(format!("{what}: {why}"))
}

/// The status of `error`, with the sentence that says what it kept from being done.
pub fn failed(what: &str, error: impl Into<Status>) -> Status {
    let status = error.into();
    match status.code() {
        Code::NotFound => Status::not_found(what),
        Code::Unimplemented => status,
        code => Status::new(code, format!("{what}: {}", status.message())),
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        let sentence = error.to_string();
        match error {
            StoreError::NotFound => Self::not_found(sentence),
            StoreError::AlreadyExists(_) => Self::already_exists(sentence),
            StoreError::Refused(_) => Self::failed_precondition(sentence),
            StoreError::Invalid(_) => Self::invalid_argument(sentence),
            StoreError::Conflict | StoreError::Unavailable(_) => Self::unavailable(sentence),
            StoreError::NoFederatedBundle(_) => Self::invalid_argument(sentence),
            StoreError::Corrupt(_) => Self::internal(sentence),
        }
    }
}

impl From<IssueError> for Status {
    fn from(error: IssueError) -> Self {
        let sentence = error.to_string();
        match error {
            IssueError::NotReady(_) => Self::unavailable(sentence),
            IssueError::JwtDisabled => Self::unimplemented(sentence),
            IssueError::Refused(_) => Self::invalid_argument(sentence),
            IssueError::Key(_) => Self::internal(sentence),
        }
    }
}

impl From<RateExceeded> for Status {
    fn from(error: RateExceeded) -> Self {
        Self::resource_exhausted(error.to_string())
    }
}

impl From<attestation::Error> for Status {
    fn from(error: attestation::Error) -> Self {
        use attestation::Error;
        let sentence = error.to_string();
        match error {
            Error::UnknownKind(_) => Self::failed_precondition(sentence),
            Error::NoSuchToken | Error::TokenExpired => Self::invalid_argument(sentence),
            Error::Banned(_) | Error::AlreadyUsed(_) => Self::permission_denied(sentence),
            Error::AgentId(..) => Self::internal(sentence),
            Error::Attestor { source, .. } => match source {
                AttestError::Malformed(_) => Self::invalid_argument(sentence),
                AttestError::Refused(_) => Self::permission_denied(sentence),
                AttestError::NotFound(_) => Self::not_found(sentence),
                AttestError::Unavailable(_) => Self::unavailable(sentence),
            },
            Error::Sign(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}

impl From<RotationError> for Status {
    fn from(error: RotationError) -> Self {
        let sentence = error.to_string();
        match error {
            RotationError::UnexpectedId | RotationError::Unfit(_) => {
                Self::invalid_argument(sentence)
            }
            RotationError::OtherSort(_) => Self::failed_precondition(sentence),
            RotationError::Stopping | RotationError::Upstream(UpstreamError::Unavailable(_)) => {
                Self::unavailable(sentence)
            }
            RotationError::Store(error) => error.into(),
            RotationError::NotPrepared
            | RotationError::NotYet
            | RotationError::Done(_)
            | RotationError::StillTainted(_)
            | RotationError::WouldEndBefore { .. }
            | RotationError::Key(_)
            | RotationError::Upstream(UpstreamError::Unsupported | UpstreamError::Invalid(_))
            | RotationError::Sign(_)
            | RotationError::Certificate(_) => Self::internal(sentence),
        }
    }
}

impl From<Denied> for Status {
    fn from(denied: Denied) -> Self {
        let sentence = denied.to_string();
        match denied {
            Denied::Class(_) => Self::permission_denied(sentence),
            Denied::Agent { reason, .. } => denial::status(&sentence, reason),
            Denied::Store(error) => failed(&sentence, error),
            Denied::Behind => Self::unavailable(sentence),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_in_trouble_is_unavailable() {
        let status = failed("failed to list entries", StoreError::Unavailable("locked".into()));
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "failed to list entries: datastore is unavailable: locked");
    }

    #[test]
    fn an_upstream_that_is_away_may_be_asked_again() {
        let status = |error: UpstreamError| {
            failed("failed to prepare X.509 authority", RotationError::from(error))
        };
        let away = status(UpstreamError::Unavailable("no answer".into()));
        assert_eq!(away.code(), Code::Unavailable);
        assert_eq!(status(UpstreamError::Invalid("no CA".into())).code(), Code::Internal);
    }

    #[test]
    fn what_is_not_found_is_said_alone() {
        let status = failed("failed to update entry", StoreError::NotFound);
        assert_eq!((status.code(), status.message()), (Code::NotFound, "failed to update entry"));
    }

    #[test]
    fn without_jwt_svids_the_method_does_not_exist() {
        let status = failed("failed to sign JWT-SVID", IssueError::JwtDisabled);
        assert_eq!(
            (status.code(), status.message()),
            (Code::Unimplemented, "JWT functionality is disabled")
        );
    }
}
