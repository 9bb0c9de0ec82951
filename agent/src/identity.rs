//! The agent's own identity: its SVID, whose key lives in the key manager under one of two ids.

use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use spire_core::keys::{KeyError, KeyManager, KeyType, SigningKey};
use spire_core::svid::x509::X509Svid;
use spire_core::tls;
use webpki::EndEntityCert;

/// The kind of an agent's key.
const KEY_TYPE: KeyType = KeyType::EcP256;

/// An agent's SVID with its key.
#[derive(Debug, Clone)]
pub struct AgentIdentity {
    /// The SVID and the key, as TLS presents them.
    pub tls: tls::Identity,
    /// Where the key manager keeps the key.
    pub slot: KeySlot,
    /// Whether the server lets this agent attest again.
    pub reattestable: bool,
}

impl AgentIdentity {
    /// Ties an SVID to the key in a slot.
    pub fn new(
        svid: X509Svid,
        key: Arc<dyn SigningKey>,
        slot: KeySlot,
        reattestable: bool,
    ) -> Self {
        Self { tls: tls::Identity::new(svid, key), slot, reattestable }
    }

    /// The SVID.
    pub fn svid(&self) -> &X509Svid {
        self.tls.svid()
    }
}

/// One of the two ids under which the agent's keys are kept, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySlot {
    /// `agent-svid-A`
    A,
    /// `agent-svid-B`
    B,
}

impl KeySlot {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// The id of the key.
    pub fn key_id(self) -> &'static str {
        match self {
            Self::A => "agent-svid-A",
            Self::B => "agent-svid-B",
        }
    }

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Makes a key in this slot; the one that was there is gone.
    ///
    /// # Errors
    /// [`KeyError`].
    pub async fn generate(self, keys: &dyn KeyManager) -> Result<Arc<dyn SigningKey>, KeyError> {
        keys.generate(self.key_id(), KEY_TYPE).await
    }
}

/// What the key manager holds of a stored SVID.
#[derive(Debug)]
pub enum StoredKey {
    /// The key of the SVID.
    Found(KeySlot, Arc<dyn SigningKey>),
    /// Keys, but not the one of the SVID.
    OthersOnly,
    /// Nothing.
    None,
}

/// Looks for the key of a leaf certificate, or for any key where there is no leaf.
///
/// # Errors
/// [`KeyError`] where the key manager cannot be asked.
pub async fn stored_key(keys: &dyn KeyManager, leaf: &[u8]) -> Result<StoredKey, KeyError> {
    let certificate = CertificateDer::from(leaf);
    let certificate = EndEntityCert::try_from(&certificate).ok();
    let public_key = certificate.map(|certificate| certificate.subject_public_key_info());
    let mut others = false;
    for slot in KeySlot::ALL {
        let Some(key) = keys.key(slot.key_id()).await? else { continue };
        if public_key.as_ref().is_some_and(|it| it.as_ref() == &*key.public_key().spki) {
            return Ok(StoredKey::Found(slot, key));
        }
        others = true;
    }
    Ok(if others { StoredKey::OthersOnly } else { StoredKey::None })
}
