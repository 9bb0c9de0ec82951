//! Follows what the upstream trusts: what is new there is known here before it signs, what is tainted
//! or revoked there is so here, and an authority below a tainted root makes way for another.

use std::sync::Arc;

use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::limits::REMOTE_CALL;
use spire_core::upstream::{UpstreamAuthority, UpstreamBundle, UpstreamError};
use tokio::time::{sleep, timeout};

use super::bundle::retain_some;
use super::orders::taint_root;
use super::rotation::Rotation;
use super::slots::Slotted;
use super::x509_ca::X509Ca;
use super::{Authority, Kind, RotationError};
use crate::store::StoreError;

impl Authority {
    /// Asks the upstream again and again what it trusts, and takes that over.
    pub(super) async fn follow(&self, upstream: &dyn UpstreamAuthority) {
        let mut last = UpstreamBundle::default();
        loop {
            let asked = timeout(REMOTE_CALL, upstream.bundle()).await;
            let late = || UpstreamError::Unavailable("it did not answer in time".to_owned());
            match asked.unwrap_or_else(|_| Err(late())) {
                Ok(bundle) if bundle == last => {}
                Ok(bundle) => self.take_over(&mut last, bundle).await,
                Err(UpstreamError::Unsupported) => return,
                Err(error) => not_followed(&error),
            }
            sleep(upstream.bundle_period()).await;
        }
    }

    /// Takes over what the upstream trusts `now`, which becomes the `last` that it said.
    pub(super) async fn take_over(&self, last: &mut UpstreamBundle, now: UpstreamBundle) {
        let tainted = now.roots.iter().filter(|root| root.tainted);
        let tainted: Vec<_> = tainted.filter_map(|root| root.authority_id().ok()).collect();
        self.tainted_above.send_if_modified(|known| {
            let before = known.len();
            known.extend(tainted);
            known.len() > before
        });
        let states = self.states(Kind::X509);
        let in_use = states.active.as_ref().and_then(|it| it.upstream_authority_id.clone());
        let was = self.bundle.current();
        let (before, after) = (last.clone(), now.clone());
        let change = move |bundle: &mut Bundle| {
            take_over(bundle, &before, &after, in_use.as_deref());
            Ok(())
        };
        if let Err(error) = self.bundle.edit(change).await {
            return not_followed(&error);
        }
        let kept = self.bundle.current();
        log_revoked(&was, &kept);
        // What is still in use goes another time.
        let is_held_back = |root: &&X509Authority| {
            root.tainted && !is_among(&now.roots, root) && is_among(&kept.x509_authorities, root)
        };
        let held_back: Vec<_> = last.roots.iter().filter(is_held_back).cloned().collect();
        *last = now;
        last.roots.extend(held_back);
    }

    /// Whether the root with this id is tainted, here or above.
    pub(super) fn is_tainted(&self, root_id: &str) -> bool {
        self.tainted_above.borrow().contains(root_id) || self.bundle.is_tainted(root_id)
    }
}

impl Rotation {
    /// The tainted root that the authority in use leads to. Below a local root nothing needs to be
    /// done: an authority is tainted after it was replaced.
    pub(super) fn tainted_root(&self) -> Option<String> {
        let root = self.x509.active()?.upstream_authority_id.as_deref()?;
        self.authority.is_tainted(root).then(|| root.to_owned())
    }

    /// Puts an authority below another root in the place of the one in use, as soon as whoever
    /// checks SVIDs knows that root.
    pub(super) async fn leave_tainted(&mut self, root: String) -> Result<(), RotationError> {
        let now = self.now();
        let is_free = |ca: &Arc<X509Ca>| {
            !ca.lifetime().has_ended(now) && !self.authority.is_tainted(ca.root_id())
        };
        if !self.x509.prepared().is_some_and(is_free) {
            tracing::info!(
                subsystem_name = "ca_manager",
                subject_key_id = root,
                "Current root CA is signed by a tainted upstream authority, preparing rotation"
            );
            let made = self.make_x509().await?;
            let root = made.ca.root_id();
            if self.authority.is_tainted(root) {
                return Err(RotationError::StillTainted(root.to_owned()));
            }
            self.prepare_x509(made).await?;
        }
        if self.x509.prepared().is_none_or(|prepared| now < prepared.distributed_at()) {
            return Ok(());
        }
        self.activate_x509().await?;
        // Agents ask for other SVIDs once, as soon as they see the taint: from now on these are
        // below another root.
        let edited = self.authority.bundle.edit(move |bundle| taint_root(bundle, &root)).await;
        match edited {
            Ok(()) | Err(StoreError::Refused(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Brings into `bundle` what the upstream trusts `now`: what is new is added, and what it tainted is
/// tainted unless this server still signs below it. What it no longer names stays until it ends,
/// since chains that lead there are still out; it goes at once only where it was tainted, which means
/// that it was revoked above. For the same reason nothing is added that comes tainted: it may have
/// been revoked here.
fn take_over(
    bundle: &mut Bundle,
    before: &UpstreamBundle,
    now: &UpstreamBundle,
    in_use: Option<&str>,
) {
    let is_in_use = |root: &X509Authority| in_use.is_some_and(|id| root.has_id(id));
    for root in &now.roots {
        let mut known = bundle.x509_authorities.iter_mut();
        match known.find(|known| known.certificate == root.certificate) {
            Some(known) if root.tainted && !is_in_use(known) => known.tainted = true,
            Some(_) => {}
            None if root.tainted => {}
            None => bundle.x509_authorities.push(root.clone()),
        }
    }
    retain_some(&mut bundle.x509_authorities, |root| {
        let is_revoked =
            root.tainted && is_among(&before.roots, root) && !is_among(&now.roots, root);
        !is_revoked || is_in_use(root)
    });

    let Some(keys) = &now.jwt_keys else { return };
    let known: Vec<_> = bundle.jwt_authorities.iter().map(|key| key.key_id.clone()).collect();
    let new = keys.iter().filter(|key| !key.tainted && !known.contains(&key.key_id));
    bundle.jwt_authorities.extend(new.cloned());
    let tainted: Vec<_> = keys.iter().filter(|key| key.tainted).cloned().collect();
    taint_keys(bundle, &tainted);
    let before = before.jwt_keys.as_deref().unwrap_or_default();
    let named = |keys: &[JwtAuthority], key: &JwtAuthority| {
        keys.iter().any(|named| named.key_id == key.key_id)
    };
    retain_some(&mut bundle.jwt_authorities, |key| {
        !key.tainted || !named(before, key) || named(keys, key)
    });
}

fn is_among(roots: &[X509Authority], root: &X509Authority) -> bool {
    roots.iter().any(|other| other.certificate == root.certificate)
}

/// Taints those of `keys` that the bundle holds.
pub(super) fn taint_keys(bundle: &mut Bundle, keys: &[JwtAuthority]) {
    for known in &mut bundle.jwt_authorities {
        let is_tainted =
            |key: &JwtAuthority| key.key_id == known.key_id && key.public_key == known.public_key;
        known.tainted |= keys.iter().any(is_tainted);
    }
}

fn log_revoked(before: &Bundle, after: &Bundle) {
    let gone = |root: &&X509Authority| !is_among(&after.x509_authorities, root);
    for root in before.x509_authorities.iter().filter(gone) {
        tracing::info!(
            subsystem_name = "ca_manager",
            subject_key_id = root.authority_id().unwrap_or_default(),
            "X.509 authority revoked"
        );
    }
}

fn not_followed(error: &dyn std::error::Error) {
    tracing::error!(
        subsystem_name = "ca_manager",
        %error,
        "Unable to take over the bundle of the upstream authority"
    );
}
