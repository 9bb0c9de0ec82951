//! An SVID with its key, as TLS presents it, and the shared state that holds it.

use std::fmt;
use std::sync::Arc;

use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey as TlsSigningKey};
use rustls::{SignatureAlgorithm, SignatureScheme};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

use crate::keys::{KeyError, KeyType, SigningKey};
use crate::svid::x509::X509Svid;

/// An SVID with its key, as TLS presents it. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    svid: Arc<X509Svid>,
    certified: Arc<CertifiedKey>,
}

/// What TLS presents: `None` until there is an SVID.
pub type IdentityState = watch::Receiver<Option<Identity>>;

impl Identity {
    /// Ties an SVID to its key.
    pub fn new(svid: X509Svid, key: Arc<dyn SigningKey>) -> Self {
        let chain = svid.chain.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
        let certified = CertifiedKey::new(chain, Arc::new(TlsKey(key)));
        Self { svid: Arc::new(svid), certified: Arc::new(certified) }
    }

    /// The SVID.
    pub fn svid(&self) -> &X509Svid {
        &self.svid
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Identity({}, serial {})", self.svid.id, self.svid.serial)
    }
}

/// Presents whatever the state holds when a handshake comes.
#[derive(Debug)]
pub(super) struct Presenter(pub(super) IdentityState);

impl Presenter {
    fn present(&self) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().as_ref().map(|identity| Arc::clone(&identity.certified))
    }
}

impl ResolvesServerCert for Presenter {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.present()
    }
}

impl ResolvesClientCert for Presenter {
    fn resolve(
        &self,
        _authorities: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        self.present()
    }

    fn has_certs(&self) -> bool {
        self.0.borrow().is_some()
    }
}

#[derive(Debug)]
struct TlsKey(Arc<dyn SigningKey>);

impl TlsSigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let pss = SignatureScheme::RSA_PSS_SHA256;
        let scheme = match self.0.public_key().kind {
            KeyType::EcP256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            KeyType::EcP384 => SignatureScheme::ECDSA_NISTP384_SHA384,
            KeyType::EcP521 => SignatureScheme::ECDSA_NISTP521_SHA512,
            // TLS 1.3 takes nothing else of RSA keys, but only keys at hand can do it.
            _ if self.0.as_local().is_some() && offered.contains(&pss) => pss,
            _ => SignatureScheme::RSA_PKCS1_SHA256,
        };
        let signer = HandshakeSigner { key: Arc::clone(&self.0), scheme };
        offered.contains(&scheme).then(|| Box::new(signer) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0.public_key().kind {
            KeyType::EcP256 | KeyType::EcP384 | KeyType::EcP521 => SignatureAlgorithm::ECDSA,
            KeyType::Rsa2048 | KeyType::Rsa4096 | KeyType::OtherRsa => SignatureAlgorithm::RSA,
        }
    }
}

#[derive(Debug)]
struct HandshakeSigner {
    key: Arc<dyn SigningKey>,
    scheme: SignatureScheme,
}

impl HandshakeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        match self.key.as_local() {
            Some(key) if self.scheme == SignatureScheme::RSA_PSS_SHA256 => {
                key.sign_pss_blocking(message)
            }
            Some(key) => key.sign_blocking(message),
            None => wait_for(self.key.sign(message)),
        }
    }
}

impl Signer for HandshakeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Self::sign(self, message).map_err(|error| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// Waits on this thread for a key that is elsewhere: rustls signs synchronously. The runtime moves
/// its other tasks away meanwhile.
fn wait_for<T>(work: impl Future<Output = Result<T, KeyError>>) -> Result<T, KeyError> {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() != RuntimeFlavor::CurrentThread => {
            tokio::task::block_in_place(|| handle.block_on(work))
        }
        _ => Err(KeyError::Unavailable("a key elsewhere needs a runtime of many threads".into())),
    }
}
