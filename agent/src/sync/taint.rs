//! Authorities that an operator no longer trusts: what they signed is replaced at once. What is
//! signed below them even after that is told from the rest where it is taken over.

use std::collections::BTreeSet;

use jiff::Timestamp;
use spire_core::bundle::Bundle;
use spire_core::svid::x509::leads_to;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectKeyIdentifier;

use crate::cache::{Cache, JwtSvids};

/// Makes the X.509-SVIDs due that lead to a newly tainted root, and returns these roots.
pub(super) fn replace_x509_svids(
    cache: &Cache,
    before: &Bundle,
    after: &Bundle,
    now: Timestamp,
) -> Option<Bundle> {
    let known: BTreeSet<_> = tainted_roots(before).map(|root| &root.certificate).collect();
    let roots: Vec<_> =
        tainted_roots(after).filter(|root| !known.contains(&root.certificate)).cloned().collect();
    if roots.is_empty() {
        return None;
    }
    let ids: Vec<_> = roots.iter().map(|root| subject_key_id(&root.certificate)).collect();
    tracing::info!(subject_key_ids = ids.join(","), "New tainted X.509 authorities found");
    let tainted = Bundle { x509_authorities: roots, ..Bundle::empty(after.trust_domain.clone()) };
    let count = cache.taint(|held| leads_to(&held.svid.chain, &tainted, now));
    tracing::info!(count, "Scheduled rotation for SVID entries due to tainted X.509 authorities");
    Some(tainted)
}

/// Lets go of the JWT-SVIDs that a newly tainted key signed.
pub(super) fn drop_jwt_svids(svids: &JwtSvids, before: &Bundle, after: &Bundle) {
    let known: BTreeSet<_> = tainted_keys(before).collect();
    let key_ids: Vec<_> =
        tainted_keys(after).filter(|id| !known.contains(id)).map(str::to_owned).collect();
    if key_ids.is_empty() {
        return;
    }
    let count = svids.remove_signed_by(&key_ids);
    if count > 0 {
        tracing::info!(
            count_jwt_svids = count,
            jwt_authority_key_ids = key_ids.join(","),
            "JWT-SVIDs were removed from the JWT cache because they were issued by a tainted \
             authority"
        );
    }
}

fn tainted_roots(bundle: &Bundle) -> impl Iterator<Item = &spire_core::bundle::X509Authority> {
    bundle.x509_authorities.iter().filter(|root| root.tainted)
}

fn tainted_keys(bundle: &Bundle) -> impl Iterator<Item = &str> {
    bundle.jwt_authorities.iter().filter(|key| key.tainted).map(|key| key.key_id.as_str())
}

/// The subject key identifier of a root in hexadecimal digits; empty where it has none.
fn subject_key_id(certificate: &[u8]) -> String {
    let id = || {
        let certificate = Certificate::from_der(certificate).ok()?;
        let (_, id) =
            certificate.tbs_certificate().get_extension::<SubjectKeyIdentifier>().ok()??;
        Some(hex::encode(id.0.as_bytes()))
    };
    id().unwrap_or_default()
}
