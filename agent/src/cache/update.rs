//! What a caller gets: its identities and bundles at one moment, complete, encoded once for all
//! callers that share it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::entry::Entry;
use spire_core::id::TrustDomain;
use zeroize::Zeroizing;

/// Everything that callers with one set of identities may have. A later one replaces it whole.
#[derive(Debug)]
pub struct Update {
    /// In order of the entries' ids; non-empty hints are unique. Empty where the caller has no
    /// identity.
    pub identities: Vec<Identity>,
    /// The bundles that go with them.
    pub bundles: Bundles,
}

impl Update {
    /// An encoded `X509SVIDResponse`, made at the first call. The buffer holds private keys and
    /// wipes itself.
    pub fn x509_svid_response(&self) -> Bytes {
        todo!()
    }

    /// An encoded `X509BundlesResponse`.
    pub fn x509_bundles_response(&self) -> Bytes {
        todo!()
    }

    /// An encoded `JWTBundlesResponse`.
    pub fn jwt_bundles_response(&self) -> Bytes {
        todo!()
    }
}

/// An entry with its X.509-SVID.
#[derive(Debug, Clone)]
pub struct Identity {
    /// What it was issued for.
    pub entry: Arc<Entry>,
    /// The certificate chain and its key.
    pub svid: Arc<HeldSvid>,
}

/// The own bundle and the foreign ones that some caller may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundles {
    /// This trust domain's.
    pub own: Arc<Bundle>,
    /// Those of other trust domains.
    pub federated: BTreeMap<TrustDomain, Arc<Bundle>>,
}

/// An X.509-SVID together with its private key.
#[derive(Debug)]
pub struct HeldSvid {
    /// Certificates as DER, the leaf first, then intermediates.
    pub chain: Vec<Bytes>,
    /// The leaf's key.
    pub key: PrivateKey,
    /// `NotBefore` of the leaf.
    pub not_before: Timestamp,
    /// `NotAfter` of the leaf.
    pub expires_at: Timestamp,
}

/// A private key as PKCS#8 DER. It wipes itself and shows nothing.
pub struct PrivateKey(Zeroizing<Box<[u8]>>);

impl PrivateKey {
    /// Takes over a key.
    pub fn new(pkcs8: impl Into<Box<[u8]>>) -> Self {
        Self(Zeroizing::new(pkcs8.into()))
    }

    /// The PKCS#8 DER.
    pub fn as_pkcs8(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey")
    }
}
