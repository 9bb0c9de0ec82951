//! The server's side.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};

use super::identity::Presenter;
use super::{HTTP2, IdentityState, PROVIDER, VERSIONS, handshake_signatures};
use crate::bundle::Bundle;
use crate::clock::Clock;
use crate::id::SpiffeId;
use crate::svid::x509::verify_for;

/// Finds the bundle that checks the SVID with a given ID; `None` refuses it. A server gives its
/// own bundle to its own domain's IDs, and a federated bundle to its foreign admins.
pub type BundleOf = Arc<dyn Fn(&SpiffeId) -> Option<Arc<Bundle>> + Send + Sync>;

/// The server's side: TLS 1.2 or later, `h2`, no session tickets. A client certificate is asked
/// for and may be left out; one that does not hold ends the handshake with `bad_certificate`.
/// While there is no identity, handshakes fail.
pub fn server_config(identity: IdentityState, bundle_of: BundleOf, clock: Clock) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(VERSIONS)
        .expect("the provider has cipher suites for both versions")
        .with_client_cert_verifier(Arc::new(ClientVerifier { bundle_of, clock }))
        .with_cert_resolver(Arc::new(Presenter(identity)));
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

struct ClientVerifier {
    bundle_of: BundleOf,
    clock: Clock,
}

impl fmt::Debug for ClientVerifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientVerifier")
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let mut chain = vec![end_entity.clone()];
        chain.extend_from_slice(intermediates);
        match verify_for(&chain, self.clock.now(), |id| (self.bundle_of)(id)) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(error) => {
                tracing::debug!(subsystem_name = "endpoints", %error, "Client certificate refused");
                // The kind of error chooses the alert: `bad_certificate`, whatever the reason.
                Err(CertificateError::BadEncoding.into())
            }
        }
    }

    handshake_signatures!();
}
