//! Follows what the upstream trusts: what is new there is known here before it signs, what is tainted
//! or revoked there is so here, and an authority below a tainted root makes way for another.

use std::collections::BTreeSet;
use std::sync::Arc;

use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::limits::REMOTE_CALL;
use spire_core::upstream::{UpstreamAuthority, UpstreamBundle, UpstreamError};
use tokio::time::{sleep, timeout};

use super::bundle::retain_some;
use super::missing::Missing;
use super::orders::taint_root;
use super::origin::Origins;
use super::rotation::Rotation;
use super::slots::Slotted;
use super::x509_ca::X509Ca;
use super::{Authority, Kind, RotationError, late};
use crate::store::StoreError;

/// What the upstream was heard to trust.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// What it named last, and what is to be dropped here when it is out of use; `None` before its
    /// first answer.
    last: Option<UpstreamBundle>,
    /// Roots that it ceased to name without having tainted them.
    missing: Missing,
}

impl Authority {
    /// Asks the upstream again and again what it trusts, and takes that over.
    pub(super) async fn follow(&self, upstream: &dyn UpstreamAuthority) {
        let (mut heard, mut failure) = (Heard::default(), None);
        loop {
            let asked = timeout(REMOTE_CALL, upstream.bundle()).await;
            let outcome = match asked.unwrap_or_else(|_| Err(late())) {
                Ok(bundle) => {
                    self.take_over(&mut heard, bundle).await.map_err(|error| error.to_string())
                }
                Err(UpstreamError::Unsupported) => return,
                Err(error) => Err(error.to_string()),
            };
            tell(&mut failure, outcome.err());
            sleep(upstream.bundle_period()).await;
        }
    }

    /// Takes over what the upstream trusts `now`.
    ///
    /// # Errors
    /// [`StoreError`]; the same answer is to be taken over again then.
    pub(super) async fn take_over(
        &self,
        heard: &mut Heard,
        mut now: UpstreamBundle,
    ) -> Result<(), StoreError> {
        let Heard { last, missing } = heard;
        if missing.is_empty() && last.as_ref() == Some(&now) {
            return Ok(());
        }
        let origins = match now.jwt_keys {
            Some(_) => Origins::read(&self.store).await?,
            None => Origins::default(),
        };
        let was = self.bundle.current();
        // A server that was off may have missed that a root was tainted and revoked above.
        let before = last.get_or_insert_with(|| UpstreamBundle {
            roots: origins.named_above(&was),
            ..UpstreamBundle::default()
        });
        let found = missing.found(&now);
        let lost = missing.note(before, &now, &was, self.clock.now());
        now.roots.extend(lost);
        let tainted = now.roots.iter().filter(|root| root.tainted);
        let tainted: Vec<_> = tainted.filter_map(|root| root.authority_id().ok()).collect();
        self.tainted_above.send_if_modified(|known| {
            let before = known.clone();
            known.retain(|id| !found.contains(id));
            known.extend(tainted);
            *known != before
        });
        let states = self.states(Kind::X509);
        let in_use = states.active.as_ref().and_then(|it| it.upstream_authority_id.clone());
        let change = Arc::new(Change { before: before.clone(), now, origins, in_use, found });
        let edit = Arc::clone(&change);
        self.bundle
            .edit(move |bundle| {
                edit.apply(bundle);
                Ok(())
            })
            .await?;
        let kept = self.bundle.current();
        log_revoked(&was, &kept);
        missing.forget(&change.found);
        *before = change.now.clone();
        before.roots.extend(change.held_back(&kept));
        Ok(())
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
            if !self.is_under_way() {
                tracing::info!(
                    subsystem_name = "ca_manager",
                    subject_key_id = root,
                    "Current root CA is signed by a tainted upstream authority, preparing rotation"
                );
            }
            let made = self.make_untainted().await?;
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

/// From what the upstream trusted to what it trusts.
struct Change {
    before: UpstreamBundle,
    now: UpstreamBundle,
    origins: Origins,
    /// The id of the root that this server signs below.
    in_use: Option<String>,
    /// Ids of roots that were given up by mistake.
    found: BTreeSet<String>,
}

impl Change {
    /// Brings into `bundle` what the upstream trusts now: what is new is added, and what it tainted is
    /// tainted unless this server still signs below it. What it no longer names stays until it ends,
    /// since chains that lead there are still out; it goes at once only where it was tainted, which
    /// means that it was revoked above. For the same reason nothing is added that comes tainted: it may
    /// have been revoked here.
    fn apply(&self, bundle: &mut Bundle) {
        for root in &self.now.roots {
            let mut known = bundle.x509_authorities.iter_mut();
            match known.find(|known| known.certificate == root.certificate) {
                Some(known) if root.tainted && !self.is_in_use(known) => known.tainted = true,
                Some(known) if self.is_found(known) => known.tainted = false,
                Some(_) => {}
                None if root.tainted => {}
                None => bundle.x509_authorities.push(root.clone()),
            }
        }
        retain_some(&mut bundle.x509_authorities, |root| {
            !self.is_revoked(root) || self.is_in_use(root)
        });

        let Some(keys) = &self.now.jwt_keys else { return };
        let known: Vec<_> = bundle.jwt_authorities.iter().map(|key| key.key_id.clone()).collect();
        let new = keys.iter().filter(|key| !key.tainted && !known.contains(&key.key_id));
        bundle.jwt_authorities.extend(new.cloned());
        let tainted: Vec<_> = keys.iter().filter(|key| key.tainted).cloned().collect();
        taint_keys(bundle, &tainted);
        retain_some(&mut bundle.jwt_authorities, |key| {
            !key.tainted || keys.iter().any(|named| named.key_id == key.key_id)
        });
    }

    /// Whether a root of the bundle is tainted and the upstream trusts it no more. A SPIRE above names
    /// all that are trusted: what it does not name was revoked while nobody looked.
    fn is_revoked(&self, root: &X509Authority) -> bool {
        let was_named = is_among(&self.before.roots, root)
            || (self.now.jwt_keys.is_some() && !self.origins.is_foreign(root));
        root.tainted && was_named && !is_among(&self.now.roots, root)
    }

    fn is_found(&self, root: &X509Authority) -> bool {
        self.found.iter().any(|id| root.has_id(id))
    }

    fn is_in_use(&self, root: &X509Authority) -> bool {
        self.in_use.as_ref().is_some_and(|id| root.has_id(id))
    }

    /// What is to be dropped another time: it is still in use, and so still in the bundle, `kept`.
    fn held_back(&self, kept: &Bundle) -> Vec<X509Authority> {
        let is_held_back = |root: &&X509Authority| {
            root.tainted
                && !is_among(&self.now.roots, root)
                && is_among(&kept.x509_authorities, root)
        };
        let from_before = self.before.roots.iter().filter(is_held_back);
        let revoked = kept.x509_authorities.iter().filter(|root| self.is_revoked(root));
        let revoked = revoked.filter(|root| !is_among(&self.before.roots, root));
        from_before.chain(revoked).cloned().collect()
    }
}

pub(super) fn is_among(roots: &[X509Authority], root: &X509Authority) -> bool {
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

/// Says once for each reason that the upstream cannot be followed, and once that it can be again.
pub(super) fn tell(last: &mut Option<String>, failure: Option<String>) {
    if *last == failure {
        return;
    }
    match &failure {
        Some(error) => tracing::warn!(
            subsystem_name = "ca_manager",
            error,
            "Unable to take over the bundle of the upstream authority; what it said last stands"
        ),
        None => tracing::info!(
            subsystem_name = "ca_manager",
            "The bundle of the upstream authority is taken over again"
        ),
    }
    *last = failure;
}
