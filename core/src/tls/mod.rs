//! TLS between server and agents: rustls configurations that check SPIFFE IDs. Own SVID and
//! bundles come from shared state, so that a rotation needs no other configuration.

mod client;
mod identity;
mod server;

use std::io;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use rustls::CipherSuite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError as TlsCertificateError, SupportedProtocolVersion};

use crate::svid::x509::{CertificateError, X509Svid};

pub use client::{ServerTrust, client_config};
pub use identity::{Identity, IdentityState};
pub use server::{BundleOf, server_config};

const HTTP2: &[u8] = b"h2";

static VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Clients of this project offer AES-128 first, as those of Go do: the SHA-384 that comes with
/// AES-256 would be a twentieth of what a handshake costs the server.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
});

/// Whether an error, or one that it came from, says that the peer's certificate leads to no known
/// authority: what starts a re-bootstrap.
pub fn is_unknown_authority(error: &(dyn std::error::Error + 'static)) -> bool {
    if let Some(rustls::Error::InvalidCertificate(TlsCertificateError::UnknownIssuer)) =
        error.downcast_ref()
    {
        return true;
    }
    // `source` of an I/O error leaves out the error that it wraps.
    let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match wrapped {
        Some(wrapped) => is_unknown_authority(wrapped),
        None => error.source().is_some_and(is_unknown_authority),
    }
}

/// Whom the certificates of a peer name. The handshake has verified them.
///
/// # Errors
/// [`CertificateError`] where there is none, or one without a single SPIFFE ID.
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Result<X509Svid, CertificateError> {
    X509Svid::from_chain(owned_chain(certificates))
}

fn owned_chain(certificates: &[CertificateDer<'_>]) -> Vec<Bytes> {
    certificates.iter().map(|certificate| Bytes::copy_from_slice(certificate)).collect()
}

/// The checks of handshake signatures, which are the same on both sides.
macro_rules! handshake_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &PROVIDER.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            let algorithms = &PROVIDER.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            PROVIDER.signature_verification_algorithms.supported_schemes()
        }
    };
}
use handshake_signatures;
