//! What can go wrong at the start of the authority, and when its slots turn.

use jiff::Timestamp;
use spire_core::id::TrustDomain;
use spire_core::keys::KeyError;
use spire_core::svid::x509::{self, CertificateError};
use spire_core::upstream::UpstreamError;

use super::IssueError;
use crate::store::StoreError;

/// Why the authority does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The keys and the database are those of another trust domain.
    #[error(
        "the stored CA belongs to trust domain {stored:?}, but trust_domain is {configured:?}; \
         set trust_domain back, or give this server an empty database and other keys"
    )]
    OtherTrustDomain {
        /// Whose CA is stored.
        stored: TrustDomain,
        /// What the configuration says.
        configured: TrustDomain,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key manager failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// No authority could be prepared.
    #[error("unable to prepare an authority: {0}")]
    Rotation(#[from] RotationError),
    /// The server's own SVID could not be issued.
    #[error("unable to issue the server's SVID: {0}")]
    ServerSvid(#[from] IssueError),
}

/// Why an authority was not prepared, activated or published.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// It is not the one that can be activated.
    #[error("unexpected authority ID")]
    UnexpectedId,
    /// It signed before; what is prepared next has another id.
    #[error("only Prepared authorities can be activated: unsupported local authority status: OLD")]
    NotPrepared,
    /// It is none that this may be done to.
    #[error("{0}")]
    Unfit(String),
    /// It is of the other sort: self-signed where an upstream is meant, or the other way round.
    #[error("{0}")]
    OtherSort(&'static str),
    /// It was done before.
    #[error("{0}")]
    Done(String),
    /// What leads to a tainted root is to be replaced, and what was signed instead leads there too.
    #[error("the upstream authority still signs below the tainted root {0}; it must rotate first")]
    StillTainted(String),
    /// The upstream authority was asked to sign and has not answered.
    #[error("the upstream authority has not signed yet")]
    NotYet,
    /// The server stops.
    #[error("the server is stopping")]
    Stopping,
    /// The upstream authority is near its own end.
    #[error(
        "the upstream authority signs only until {not_after}, which is not after the end of the \
         authority in use ({active}); renew the upstream CA"
    )]
    WouldEndBefore {
        /// When the authority that was just signed ends.
        not_after: Timestamp,
        /// When the one in use ends.
        active: Timestamp,
    },
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key manager failed.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The upstream authority failed.
    #[error("upstream authority: {0}")]
    Upstream(#[from] UpstreamError),
    /// A certificate or a request for one could not be made.
    #[error(transparent)]
    Sign(#[from] x509::IssueError),
    /// A certificate that was just made cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}
