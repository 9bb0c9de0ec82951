//! Issuing: the rules for lifetimes, and what goes into each kind of SVID.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use spire_core::entry::Entry;
use spire_core::id::SpiffeId;
use spire_core::keys::KeyError;
use spire_core::svid::x509::{CertificateRequest, X509Svid};

use super::Authority;

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// No authority is active.
    #[error("{0} is not available for signing")]
    NotReady(&'static str),
    /// The operator switched JWT-SVIDs off.
    #[error("JWT functionality is disabled")]
    JwtDisabled,
    /// What was asked for may not be in an SVID.
    #[error("{0}")]
    Refused(String),
    /// The key could not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a JWT-SVID shall say.
#[derive(Debug, Clone, Copy)]
pub struct JwtRequest<'r> {
    /// Whom it names.
    pub id: &'r SpiffeId,
    /// Whom it is for; empty texts are dropped, and one must be left.
    pub audience: &'r [String],
    /// How long it lives; `None` and zero mean the server's default. The life of the key caps it.
    pub ttl: Option<Duration>,
    /// Whether it gets a random `jti`.
    pub with_id: bool,
}

/// A JWT-SVID.
#[derive(Clone)]
pub struct JwtSvid {
    /// Whom it names.
    pub id: SpiffeId,
    /// The signed token, which is a secret of its holder.
    pub token: String,
    /// When it was signed, whole seconds.
    pub issued_at: Timestamp,
    /// When it ceases to be valid, whole seconds.
    pub expires_at: Timestamp,
}

impl Authority {
    /// An X.509-SVID for a workload: ID, DNS names and lifetime come from its entry, the key from
    /// the request. Nothing but memory is read.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_workload(
        &self,
        request: &CertificateRequest,
        entry: &Entry,
    ) -> Result<X509Svid, IssueError> {
        let _ = (request, entry);
        todo!()
    }

    /// An X.509-SVID for an agent.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_agent(
        &self,
        request: &CertificateRequest,
        agent_id: &SpiffeId,
    ) -> Result<X509Svid, IssueError> {
        let _ = (request, agent_id);
        todo!()
    }

    /// An X.509-SVID that an operator asks for: DNS names come from the request, and its subject
    /// where it has one. The caller has checked `id`. `None` and zero mean the default lifetime.
    ///
    /// # Errors
    /// [`IssueError`]; `Refused` where a DNS name of the request is none.
    pub async fn mint_x509(
        &self,
        request: &CertificateRequest,
        id: &SpiffeId,
        ttl: Option<Duration>,
    ) -> Result<X509Svid, IssueError> {
        let _ = (request, id, ttl);
        todo!()
    }

    /// A CA certificate for a server below this one, followed by what leads from it to a root.
    /// Only the key of the request counts. `None` and zero mean `ca_ttl`.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_downstream(
        &self,
        request: &CertificateRequest,
        ttl: Option<Duration>,
    ) -> Result<Vec<Bytes>, IssueError> {
        let _ = (request, ttl);
        todo!()
    }

    /// A JWT-SVID. Nothing but memory is read.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_jwt(&self, request: JwtRequest<'_>) -> Result<JwtSvid, IssueError> {
        let _ = request;
        todo!()
    }
}
