//! Why Google does not say what an instance is.

use http::StatusCode;
use spire_core::node::AttestError;
use spire_core::remote::RemoteError;

use crate::credentials::CredentialError;

/// Why the API has not described an instance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("{0}")]
    Credentials(#[from] CredentialError),
    #[error("the Compute API cannot be asked: {0}")]
    Remote(#[from] RemoteError),
    #[error("the Compute API knows no instance {0}")]
    Unknown(String, Option<String>),
    #[error(
        "the Compute API answers with status {status}: {said}; the server needs the permission \
         {permission} in project {project}"
    )]
    Forbidden {
        status: StatusCode,
        said: String,
        permission: &'static str,
        project: String,
        request_id: Option<String>,
    },
    #[error("the Compute API answers with status {status}: {said}")]
    Status { status: StatusCode, said: String, request_id: Option<String> },
    #[error("the Compute API's answer cannot be read: {0}")]
    Answer(String, Option<String>),
    #[error("{0} cannot be looked up: its name is none that an instance has")]
    Name(String),
}

impl LookupError {
    /// What Google calls the request.
    pub(crate) fn request_id(&self) -> Option<&str> {
        match self {
            Self::Unknown(_, id)
            | Self::Answer(_, id)
            | Self::Forbidden { request_id: id, .. }
            | Self::Status { request_id: id, .. } => id.as_deref(),
            Self::Credentials(_) | Self::Remote(_) | Self::Name(_) => None,
        }
    }

    /// Whether it is of no use to ask in another way.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Credentials(_)
            | Self::Remote(RemoteError::Unreachable(_) | RemoteError::TooSlow(_)) => true,
            Self::Status { status, .. } => {
                *status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
            }
            _ => false,
        }
    }

    /// What it means for the node that is looked up.
    pub(crate) fn verdict(&self) -> AttestError {
        match self {
            Self::Unknown(..) | Self::Name(_) => AttestError::Refused(self.to_string()),
            _ => AttestError::Unavailable(self.to_string()),
        }
    }
}
