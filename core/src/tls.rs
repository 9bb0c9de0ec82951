//! TLS between server and agents: rustls configurations that check SPIFFE IDs. Own SVID and
//! bundles come from shared state, so that a rotation needs no other configuration.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;

use crate::bundle::Bundle;
use crate::clock::Clock;
use crate::id::{SpiffeId, TrustDomain};
use crate::keys::SigningKey;
use crate::svid::x509::{CertificateError, X509Svid};

/// An SVID with its key, as TLS presents it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Identity {
    svid: Arc<X509Svid>,
}

impl Identity {
    /// Ties an SVID to its key.
    pub fn new(svid: X509Svid, key: Arc<dyn SigningKey>) -> Self {
        let _ = (svid, key);
        todo!()
    }

    /// The SVID.
    pub fn svid(&self) -> &X509Svid {
        &self.svid
    }
}

/// What TLS presents: `None` until there is an SVID, when handshakes fail.
pub type IdentityState = watch::Receiver<Option<Identity>>;

/// Finds the bundle that checks SVIDs of a trust domain, for the ID that is presented: `None`
/// refuses it. A server gives its own bundle to its own domain's IDs, and a federated bundle to
/// its foreign admins.
pub type BundleOf = Arc<dyn Fn(&SpiffeId) -> Option<Arc<Bundle>> + Send + Sync>;

/// The server's side: TLS 1.2 or later, `h2`, no session tickets. A client certificate is asked
/// for and may be left out; one that does not hold ends the handshake with `bad_certificate`.
pub fn server_config(identity: IdentityState, bundle_of: BundleOf, clock: Clock) -> ServerConfig {
    let _ = (identity, bundle_of, clock);
    todo!()
}

/// How a client knows that it speaks with the server.
#[derive(Clone)]
pub enum ServerTrust {
    /// The chain must lead to this bundle.
    Bundle(watch::Receiver<Arc<Bundle>>),
    /// Only the name in the certificate is looked at: the first contact of a node that was given
    /// no bundle. The chain that was presented is kept.
    Insecure(Arc<OnceLock<Vec<Bytes>>>),
}

impl fmt::Debug for ServerTrust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Bundle(_) => "ServerTrust::Bundle",
            Self::Insecure(_) => "ServerTrust::Insecure",
        })
    }
}

/// The client's side: the peer must be `spiffe://<trust_domain>/spire/server`. With `identity`
/// the client presents the SVID that is there at each handshake.
pub fn client_config(
    trust_domain: &TrustDomain,
    trust: ServerTrust,
    identity: Option<IdentityState>,
    clock: Clock,
) -> ClientConfig {
    let _ = (trust_domain, trust, identity, clock);
    todo!()
}

/// Whether an error, or one that it came from, says that the peer's certificate leads to no known
/// authority: what starts a re-bootstrap.
pub fn is_unknown_authority(error: &(dyn std::error::Error + 'static)) -> bool {
    let _ = error;
    todo!()
}

/// Whom the certificates of a peer name. The handshake has verified them.
///
/// # Errors
/// [`CertificateError`] where there is none, or one without a single SPIFFE ID.
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Result<X509Svid, CertificateError> {
    let _ = certificates;
    todo!()
}
