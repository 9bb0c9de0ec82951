//! The client's side: an agent, or anyone who calls the server over TCP.

use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use tokio::sync::watch;

use super::identity::Presenter;
use super::{HTTP2, IdentityState, PROVIDER, VERSIONS, handshake_signatures, owned_chain};
use crate::bundle::Bundle;
use crate::clock::Clock;
use crate::id::{SpiffeId, TrustDomain};
use crate::svid::x509::{VerifyError, X509Svid, verify_for};

/// How a client knows that it speaks with the server.
#[derive(Clone)]
pub enum ServerTrust {
    /// The chain must lead to this bundle.
    Bundle(watch::Receiver<Arc<Bundle>>),
    /// Only the name in the certificate is looked at: the first contact of a node that was given
    /// no bundle. The chain that was presented first is kept.
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
    let server = trust_domain.server_id();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(VERSIONS)
        .expect("the provider has cipher suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ServerVerifier { server, trust, clock }));
    let mut config = match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(Presenter(identity))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

#[derive(Debug)]
struct ServerVerifier {
    server: SpiffeId,
    trust: ServerTrust,
    clock: Clock,
}

impl ServerVerifier {
    /// Whom it names is looked at first: that it is another's server says more than that its
    /// authority is not known.
    fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), VerifyError> {
        let svid = X509Svid::from_chain(owned_chain(chain))?;
        if svid.id != self.server {
            let (found, expected) = (&svid.id, &self.server);
            return Err(VerifyError::Invalid(format!("unexpected ID {found}, not {expected}")));
        }
        match &self.trust {
            ServerTrust::Bundle(bundle) => {
                let bundle = Arc::clone(&bundle.borrow());
                verify_for(chain, self.clock.now(), |_| Some(bundle))?;
            }
            ServerTrust::Insecure(captured) => {
                captured.get_or_init(|| svid.chain);
            }
        }
        Ok(())
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut chain = vec![end_entity.clone()];
        chain.extend_from_slice(intermediates);
        match self.verify(&chain) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(VerifyError::UnknownAuthority) => Err(CertificateError::UnknownIssuer.into()),
            Err(VerifyError::Expired) => Err(CertificateError::Expired.into()),
            Err(error) => Err(CertificateError::Other(OtherError(Arc::new(error))).into()),
        }
    }

    handshake_signatures!();
}
