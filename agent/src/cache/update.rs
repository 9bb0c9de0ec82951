//! What a caller gets: its identities and bundles at one moment, complete, encoded once for all
//! callers that share it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use spire_core::bundle::Bundle;
use spire_core::entry::Entry;
use spire_core::id::TrustDomain;
use spire_core::keys::{KeyError, LocalKey, SigningKey};
use spire_core::svid::x509::X509Svid;
use webpki::EndEntityCert;
use zeroize::Zeroizing;

use super::encode;

/// Everything that callers with one set of identities may have. A later one replaces it whole.
pub struct Update {
    /// In order of the entries' ids; non-empty hints are unique. Empty where the caller has no
    /// identity.
    pub identities: Vec<Identity>,
    /// The bundles that go with them.
    pub bundles: Bundles,
    x509_svid_response: OnceLock<Bytes>,
    x509_bundles_response: OnceLock<Bytes>,
    jwt_bundles_response: OnceLock<Bytes>,
}

impl Update {
    pub(super) fn new(identities: Vec<Identity>, bundles: Bundles) -> Self {
        Self {
            identities,
            bundles,
            x509_svid_response: OnceLock::new(),
            x509_bundles_response: OnceLock::new(),
            jwt_bundles_response: OnceLock::new(),
        }
    }

    /// What a verifier without identity may have: this trust domain's bundle and nothing else.
    pub fn of_own_bundle(own: &Arc<Bundle>) -> Self {
        Self::new(Vec::new(), Bundles { own: own.clone(), federated: BTreeMap::new() })
    }

    /// An encoded `X509SVIDResponse`, made at the first call. The buffer holds private keys and
    /// wipes itself.
    pub fn x509_svid_response(&self) -> Bytes {
        self.x509_svid_response
            .get_or_init(|| encode::x509_svid_response(&self.identities, &self.bundles))
            .clone()
    }

    /// An encoded `X509BundlesResponse`.
    pub fn x509_bundles_response(&self) -> Bytes {
        self.x509_bundles_response
            .get_or_init(|| encode::x509_bundles_response(&self.bundles))
            .clone()
    }

    /// An encoded `JWTBundlesResponse`.
    pub fn jwt_bundles_response(&self) -> Bytes {
        self.jwt_bundles_response
            .get_or_init(|| encode::jwt_bundles_response(&self.bundles))
            .clone()
    }

    /// Whether an SVID in it has expired.
    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.identities.iter().any(|identity| identity.svid.svid.expires_at <= now)
    }

    /// Whether callers with the entries `entitled` may still have it: it has identities, and each
    /// is one of theirs.
    pub(super) fn is_earned_by(&self, entitled: &[Arc<Entry>]) -> bool {
        let is_theirs = |known: &Identity| {
            entitled.iter().any(|entry| {
                entry.id == known.entry.id && entry.spiffe_id == known.entry.spiffe_id //
            })
        };
        !self.identities.is_empty() && self.identities.iter().all(is_theirs)
    }

    /// Whether a caller that has this one learns nothing from `other`.
    pub(super) fn says_the_same_as(&self, other: &Self) -> bool {
        let same = |(one, other): (&Identity, &Identity)| {
            one.entry == other.entry && Arc::ptr_eq(&one.svid, &other.svid)
        };
        self.identities.len() == other.identities.len()
            && self.identities.iter().zip(&other.identities).all(same)
            && self.bundles == other.bundles
    }
}

impl fmt::Debug for Update {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.identities.iter().map(|identity| &identity.entry.spiffe_id);
        formatter.debug_tuple("Update").field(&ids.collect::<Vec<_>>()).finish()
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

impl Bundles {
    /// All of them, the own one first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Bundle>> {
        std::iter::once(&self.own).chain(self.federated.values())
    }
}

/// An X.509-SVID together with its private key.
#[derive(Debug)]
pub struct HeldSvid {
    /// The certificates.
    pub svid: X509Svid,
    /// The leaf's key.
    pub key: PrivateKey,
    /// The revision of the entry that it was signed for.
    pub revision: i64,
}

impl HeldSvid {
    /// Ties an SVID that was signed for `revision` of its entry to its key.
    ///
    /// # Errors
    /// [`KeyError`] where the certificate is for another key.
    pub fn new(svid: X509Svid, key: &LocalKey, revision: i64) -> Result<Self, KeyError> {
        let leaf = CertificateDer::from(svid.chain.first().map_or(&[][..], |leaf| leaf));
        let certified = EndEntityCert::try_from(&leaf).is_ok_and(|leaf| {
            leaf.subject_public_key_info().as_ref() == &key.public_key().spki[..]
        });
        if !certified {
            return Err(KeyError::Invalid(format!("the SVID of {} is for another key", svid.id)));
        }
        let key = PrivateKey::new(&key.to_pkcs8()?[..]);
        Ok(Self { svid, key, revision })
    }
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
