//! An authority for X.509-SVIDs: self-signed, or signed by an upstream authority.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use spire_core::bundle::{Bundle, X509Authority};
use spire_core::keys::SigningKey;
use spire_core::svid::x509::{Issuer, self_sign_ca};
use spire_core::upstream::Minted;
use spire_upstream_ca::Checked;

use super::journal::{JournalEntry, Status, X509CaEntry};
use super::slots::{Lifetime, SlotId, Slotted};
use super::{AuthorityState, RotationError, Settings};

/// An X.509 authority in its slot.
#[derive(Debug)]
pub(super) struct X509Ca {
    slot: SlotId,
    issued_at: Timestamp,
    pub(super) issuer: Issuer,
    /// SubjectPublicKeyInfo, DER.
    pub(super) public_key: Bytes,
    /// Its own certificate and what leads to the roots; empty where it is self-signed.
    upstream_chain: Vec<Bytes>,
    pub(super) upstream_authority_id: Option<String>,
    /// Whether its root was in the bundle before it was made, so that nobody has to learn anything.
    root_was_known: bool,
}

impl X509Ca {
    /// The id of its key in the key manager.
    pub(super) fn key_id(slot: SlotId) -> String {
        format!("x509-CA-{slot}")
    }

    /// Makes a root, which is also what belongs into the bundle.
    pub(super) async fn self_signed(
        slot: SlotId,
        key: Arc<dyn SigningKey>,
        settings: &Settings,
        now: Timestamp,
    ) -> Result<(Self, Vec<X509Authority>), RotationError> {
        let Settings { trust_domain, ca_subject, ca_ttl, .. } = settings;
        let certificate = self_sign_ca(&*key, trust_domain, ca_subject, *ca_ttl, now).await?;
        let root = X509Authority { certificate: certificate.clone(), tainted: false };
        let public_key = key.public_key().spki.clone();
        let issuer = Issuer::root(certificate, key)?;
        let ca = Self {
            slot,
            issued_at: now,
            issuer,
            public_key,
            upstream_chain: Vec::new(),
            upstream_authority_id: None,
            root_was_known: false,
        };
        Ok((ca, vec![root]))
    }

    /// Makes an intermediate of what an upstream signed.
    pub(super) fn intermediate(
        slot: SlotId,
        key: Arc<dyn SigningKey>,
        minted: &Minted,
        settings: &Settings,
        known: &Bundle,
        now: Timestamp,
    ) -> Result<Self, RotationError> {
        let public_key = key.public_key().spki.clone();
        let Checked { root_id: upstream_authority_id, dns_rules } =
            spire_upstream_ca::check(minted, &public_key, &settings.trust_domain, now)?;
        if !dns_rules.is_empty() {
            tracing::warn!(
                subsystem_name = "ca_manager",
                name_constraints = ?dns_rules,
                "Certificates above this server's CA constrain DNS names: an SVID whose DNS names \
                 break these rules is signed, and refused by whoever checks it"
            );
        }
        let issuer = Issuer::intermediate(minted.chain.clone(), key)?;
        let is_root =
            |root: &X509Authority| upstream_authority_id.as_ref().is_some_and(|id| root.has_id(id));
        let root_was_known = known.x509_authorities.iter().any(is_root);
        Ok(Self {
            slot,
            issued_at: now,
            issuer,
            public_key,
            upstream_chain: minted.chain.clone(),
            upstream_authority_id,
            root_was_known,
        })
    }

    /// Takes up an authority that the journal remembers, with the key of its slot.
    ///
    /// # Errors
    /// Why it is of no use.
    pub(super) fn restore(
        entry: &X509CaEntry,
        key: Arc<dyn SigningKey>,
        bundle: &Bundle,
        now: Timestamp,
    ) -> Result<Self, String> {
        let slot = entry.slot().ok_or("its slot is unknown")?;
        let issued_at = Timestamp::from_second(entry.issued_at).map_err(|err| err.to_string())?;
        let certificate = Bytes::copy_from_slice(&entry.certificate);
        let upstream_chain: Vec<_> =
            entry.upstream_chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
        let public_key = key.public_key().spki.clone();
        let issuer = if upstream_chain.is_empty() {
            let known = |root: &X509Authority| root.certificate == certificate;
            if !bundle.x509_authorities.iter().any(known) {
                return Err("its certificate is no longer in the bundle".to_owned());
            }
            Issuer::root(certificate, key)
        } else {
            // Its root may have been revoked while this server was off.
            let (chain, roots) = (upstream_chain.clone(), bundle.x509_authorities.clone());
            let held = Minted { chain, roots };
            spire_upstream_ca::check(&held, &public_key, &bundle.trust_domain, now)
                .map_err(|error| format!("no root of the bundle vouches for it: {error}"))?;
            Issuer::intermediate(held.chain, key)
        };
        let issuer = issuer.map_err(|err| err.to_string())?;
        let upstream_authority_id =
            Some(entry.upstream_authority_id.clone()).filter(|id| !id.is_empty());
        let restored = Self {
            slot,
            issued_at,
            issuer,
            public_key,
            upstream_chain,
            upstream_authority_id,
            root_was_known: false,
        };
        if restored.lifetime().has_ended(now) {
            return Err("it has expired".to_owned());
        }
        Ok(restored)
    }

    /// Its certificate where it is a root itself.
    pub(super) fn root_certificate(&self) -> Option<&Bytes> {
        self.upstream_chain.is_empty().then(|| self.issuer.certificate())
    }

    /// The id of the root that its SVIDs lead to.
    pub(super) fn root_id(&self) -> &str {
        self.upstream_authority_id.as_deref().unwrap_or_else(|| self.issuer.authority_id())
    }

    /// When servers below this one may sign in its name.
    pub(super) fn distributed_below_at(&self) -> Timestamp {
        if self.root_was_known { self.issued_at } else { self.lifetime().distributed_below_at() }
    }

    pub(super) fn entry(&self, status: Status) -> X509CaEntry {
        X509CaEntry {
            slot_id: self.slot.to_string(),
            issued_at: self.issued_at.as_second(),
            certificate: self.issuer.certificate().to_vec(),
            upstream_chain: self.upstream_chain.iter().map(|der| der.to_vec()).collect(),
            status: status as i32,
            authority_id: self.issuer.authority_id().to_owned(),
            not_after: self.issuer.expires_at().as_second(),
            upstream_authority_id: self.upstream_authority_id.clone().unwrap_or_default(),
        }
    }
}

impl Slotted for X509Ca {
    fn slot(&self) -> SlotId {
        self.slot
    }

    fn lifetime(&self) -> Lifetime {
        Lifetime { issued_at: self.issued_at, not_after: self.issuer.expires_at() }
    }

    fn distributed_at(&self) -> Timestamp {
        if self.root_was_known { self.issued_at } else { self.lifetime().distributed_at() }
    }

    fn state(&self) -> AuthorityState {
        let chain = match self.upstream_chain.as_slice() {
            [] => vec![self.issuer.certificate().clone()],
            chain => chain.to_vec(),
        };
        let id = self.issuer.authority_id().to_owned();
        self.lifetime().state(id, chain, self.upstream_authority_id.clone())
    }
}
