//! Follows what the upstream trusts: what is new there is known here before it signs, and what is
//! tainted or revoked there is so here.

use spire_core::bundle::{Bundle, JwtAuthority, X509Authority};
use spire_core::limits::REMOTE_CALL;
use spire_core::upstream::{UpstreamAuthority, UpstreamBundle, UpstreamError};
use tokio::time::{sleep, timeout};

use super::Authority;
use super::bundle::retain_some;

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
        let states = self.states(super::Kind::X509);
        let in_use: Vec<_> = [&states.active, &states.prepared]
            .into_iter()
            .filter_map(|state| state.as_ref()?.upstream_authority_id.clone())
            .collect();
        let was = self.bundle.current();
        let (before, after) = (last.clone(), now.clone());
        let change = move |bundle: &mut Bundle| {
            take_over(bundle, &before, &after, &in_use);
            Ok(())
        };
        if let Err(error) = self.bundle.edit(change).await {
            return not_followed(&error);
        }
        let kept = self.bundle.current();
        log_revoked(&was, &kept);
        // What is still in use goes another time.
        let late = |root: &X509Authority| is_among(&kept.x509_authorities, root) && root.tainted;
        let held_back = last.roots.iter().filter(|root| !is_among(&now.roots, root) && late(root));
        let held_back: Vec<_> = held_back.cloned().collect();
        *last = now;
        last.roots.extend(held_back);
    }
}

/// Brings into `bundle` what the upstream trusts `now`: what is new is added, and what it tainted is
/// tainted. What it no longer names stays until it ends, since chains that lead there are still out;
/// it goes at once only where it was tainted, which means that it was revoked above, and nothing of
/// this server is below it. For the same reason nothing is added that comes tainted: it may have
/// been revoked here.
fn take_over(
    bundle: &mut Bundle,
    before: &UpstreamBundle,
    now: &UpstreamBundle,
    in_use: &[String],
) {
    for root in &now.roots {
        let mut known = bundle.x509_authorities.iter_mut();
        match known.find(|known| known.certificate == root.certificate) {
            Some(known) => known.tainted |= root.tainted,
            None if root.tainted => {}
            None => bundle.x509_authorities.push(root.clone()),
        }
    }
    retain_some(&mut bundle.x509_authorities, |root| {
        let is_revoked =
            root.tainted && is_among(&before.roots, root) && !is_among(&now.roots, root);
        !is_revoked || in_use.iter().any(|id| root.has_id(id))
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
