//! What a call to the server can come back with instead of an answer.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use spire_core::grpc::describe;
use spire_core::tls;
use spire_core::wire::convert::denial;
use spire_core::wire::types::permission_denied_details::Reason;
use tonic::{Code, Status};

/// A call that failed. It is shown in the form that runbooks match:
/// `rpc error: code = Unavailable desc = …`. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RpcError(Arc<Status>);

/// Why the server denies this agent everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// The agent must attest again: its SVID has expired, is not the one that the server knows,
    /// or its record is gone.
    MustReattest,
    /// An operator has banned it.
    Banned,
}

impl RpcError {
    /// The answer of the server made no sense.
    pub fn nonsense(what: impl Into<String>) -> Self {
        Self::from(Status::internal(what.into()))
    }

    /// The gRPC code.
    pub fn code(&self) -> Code {
        self.0.code()
    }

    /// Whether the same call may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.code(),
            Code::Unavailable
                | Code::DeadlineExceeded
                | Code::ResourceExhausted
                | Code::Aborted
                | Code::Cancelled
                | Code::Unknown
        )
    }

    /// Whether the server, or what lies before it, did not answer.
    pub fn is_unreachable(&self) -> bool {
        matches!(self.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Unknown)
    }

    /// Whether the server's certificate leads to no authority that this agent knows.
    pub fn is_unknown_authority(&self) -> bool {
        tls::is_unknown_authority(&*self.0)
    }

    /// Why the server denies this agent everything, where that is what the error says.
    pub fn denial(&self) -> Option<Denial> {
        match denial::reason(&self.0)? {
            Reason::AgentBanned => Some(Denial::Banned),
            Reason::AgentExpired
            | Reason::AgentNotActive
            | Reason::AgentNotAttested
            | Reason::AgentMustReattest => Some(Denial::MustReattest),
            Reason::Unknown => None,
        }
    }
}

impl From<Status> for RpcError {
    fn from(status: Status) -> Self {
        Self(Arc::new(status))
    }
}

impl fmt::Display for RpcError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&describe(&self.0))
    }
}

impl Error for RpcError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(reason: Reason) -> RpcError {
        denial::status("no", reason).into()
    }

    #[test]
    fn the_detail_says_why_an_agent_is_denied() {
        assert_eq!(denied(Reason::AgentBanned).denial(), Some(Denial::Banned));
        assert_eq!(denied(Reason::AgentExpired).denial(), Some(Denial::MustReattest));
        assert_eq!(denied(Reason::Unknown).denial(), None);
        assert_eq!(RpcError::from(Status::permission_denied("no")).denial(), None);
    }

    #[test]
    fn an_error_is_shown_as_runbooks_know_it() {
        let error = RpcError::from(Status::permission_denied("agent is banned"));
        assert_eq!(error.to_string(), "rpc error: code = PermissionDenied desc = agent is banned");
    }
}
