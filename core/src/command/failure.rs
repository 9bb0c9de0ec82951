//! Why a command failed, in one line.

use std::error::Error;
use std::fmt;

use tonic::Status;

use crate::grpc::code_name;

/// Why a command failed. Any error becomes one by `?`; the status of a call takes the form that
/// scripts match: `rpc error: code = NotFound desc = agent not found`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(String);

impl Failure {
    /// A failure that says `message`.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let any: &dyn Error = &error;
        Self(any.downcast_ref::<Status>().map_or_else(|| error.to_string(), rpc_error))
    }
}

/// Adds what was tried to a failure.
pub trait Context<T> {
    /// The failure is told as `what: failure`.
    ///
    /// # Errors
    /// Those of the result.
    fn context(self, what: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<Failure>> Context<T> for Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure(format!("{what}: {}", error.into())))
    }
}

fn rpc_error(status: &Status) -> String {
    format!("rpc error: code = {} desc = {}", code_name(status.code()), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_as_scripts_know_it() {
        let refused = || Err::<(), _>(Status::not_found("agent not found"));
        let failure = refused().context("failed to list agents").unwrap_err();
        let text = "failed to list agents: rpc error: code = NotFound desc = agent not found";
        assert_eq!(failure.to_string(), text);
        let failure = Failure::from(Status::cancelled("stopped"));
        assert_eq!(failure.to_string(), "rpc error: code = Canceled desc = stopped");
    }
}
