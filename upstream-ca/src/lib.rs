//! Upstream authorities: what the server's CA can hang below, one file each.
//!
//! Here is what they share: [`check`], which every chain passes before the server uses it,
//! whoever signed it.

mod arn;
pub mod aws_pca;
pub mod awssecret;
mod certificate;
pub mod disk;
mod held;
mod path;
mod pem;
mod request;
pub mod spire;
mod supplement;

use jiff::Timestamp;
use spire_core::catalog::Plugin;
use spire_core::id::TrustDomain;
use spire_core::upstream::{Minted, UpstreamAuthority, UpstreamError};

use certificate::Certificate;

/// The upstream authorities of this crate.
pub const PLUGINS: &[Plugin<dyn UpstreamAuthority>] =
    &[aws_pca::PLUGIN, awssecret::PLUGIN, disk::PLUGIN, spire::PLUGIN];

/// What a chain that was checked leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The id of its root: the subject key identifier in hexadecimal digits, if it has one.
    pub root_id: Option<String>,
    /// What its certificates and the root say of the DNS names of SVIDs (name constraints), such as
    /// `permitted inside.example`. An SVID without DNS names breaks none of it.
    pub dns_rules: Vec<String>,
}

/// Checks what an upstream returned for a request that carried `public_key`
/// (SubjectPublicKeyInfo, DER): the first certificate is a signing certificate of `trust_domain`
/// with that key, and the chain leads to one of the roots, all valid at `now` and as long as it is.
///
/// # Errors
/// [`UpstreamError::Invalid`] names the first rule that is broken.
///
/// # Source
/// X509-SVID, 3.2 and 4; RFC 5280, 6.1.
pub fn check(
    minted: &Minted,
    public_key: &[u8],
    trust_domain: &TrustDomain,
    now: Timestamp,
) -> Result<Checked, UpstreamError> {
    let invalid = |why: String| {
        UpstreamError::Invalid(format!("the chain from the upstream authority: {why}"))
    };
    let chain = certificate::read_all(&minted.chain).map_err(invalid)?;
    let roots = minted.roots.iter().map(|root| &root.certificate);
    let roots = certificate::read_all(roots).map_err(invalid)?;
    let Some((own, others)) = chain.split_first() else {
        return Err(invalid("it is empty".to_owned()));
    };
    check_own(own, public_key, trust_domain).map_err(invalid)?;
    let path = path::verify(own, 0, others, &roots, now).map_err(|why| invalid(why.to_string()))?;
    if own.not_after > path.ends_at {
        return Err(invalid(format!(
            "its first certificate is valid until {}, and what it leads to only until {}",
            own.not_after, path.ends_at
        )));
    }
    let root_id = path.root.subject_key_id.as_deref().map(hex::encode);
    Ok(Checked { root_id, dns_rules: path.dns_rules })
}

fn check_own(
    own: &Certificate,
    public_key: &[u8],
    trust_domain: &TrustDomain,
) -> Result<(), String> {
    if own.public_key != public_key {
        return Err("its first certificate carries another key than the request".to_owned());
    }
    if !own.is_ca {
        return Err(
            "its first certificate is no signing certificate: CA:TRUE and keyCertSign are \
                    needed"
                .to_owned(),
        );
    }
    let (uris, expected) = (&own.uris, trust_domain.id());
    if *uris != [expected.as_str()] {
        return Err(format!(
            "its first certificate must have the URI SAN {expected} alone, not {uris:?}"
        ));
    }
    Ok(())
}
