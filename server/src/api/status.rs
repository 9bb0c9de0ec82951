//! The one place where errors of the server's parts become statuses of gRPC.

use spire_core::node::AttestError;
use tonic::Status;

use crate::attestation;
use crate::authority::IssueError;
use crate::rate_limit::RateExceeded;
use crate::store::StoreError;

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        let sentence = error.to_string();
        match error {
            StoreError::NotFound => Self::not_found(sentence),
            StoreError::AlreadyExists(_) => Self::already_exists(sentence),
            StoreError::Refused(_) => Self::failed_precondition(sentence),
            StoreError::Invalid(_) => Self::invalid_argument(sentence),
            StoreError::Conflict => Self::unavailable(sentence),
            StoreError::Unavailable(_) => {
                tracing::error!(
                    subsystem_name = "api",
                    error = sentence,
                    "Datastore is unavailable: calls that need it fail until it answers; check its \
                     free space, its permissions, and who else holds it locked"
                );
                Self::unavailable(sentence)
            }
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
            Error::Banned | Error::AlreadyUsed => Self::permission_denied(sentence),
            Error::AgentId(..) => Self::internal(sentence),
            Error::Attestor { source, .. } => match source {
                AttestError::Malformed(_) => Self::invalid_argument(sentence),
                AttestError::Refused(_) => Self::permission_denied(sentence),
                AttestError::Unavailable(_) => Self::unavailable(sentence),
            },
            Error::Sign(error) => error.into(),
            Error::Store(error) => error.into(),
        }
    }
}
