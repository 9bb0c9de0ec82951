//! Why AWS gave no answer.

use std::sync::Arc;

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_ec2::operation::RequestId;
use spire_core::node::AttestError;

/// A call that failed. Cheap to clone, since all who waited for it get it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct CloudError {
    message: Arc<str>,
    /// What AWS called the request, as far as it got there: where a role could not be assumed, the
    /// request for that role.
    pub(crate) request_id: Option<Arc<str>>,
}

impl CloudError {
    pub(crate) fn new(message: impl Into<Arc<str>>) -> Self {
        Self { message: message.into(), request_id: None }
    }

    /// The failure of `call`, in AWS's words where it said something.
    pub(crate) fn of<E, R>(call: &str, error: &SdkError<E, R>) -> Self
    where
        SdkError<E, R>: RequestId,
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let message = spire_aws_client::failure(call, error);
        let request_id =
            error.request_id().or_else(|| spire_aws_client::request_for_role(error)).map(Arc::from);
        Self { message: message.into(), request_id }
    }
}

impl From<CloudError> for AttestError {
    fn from(error: CloudError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
