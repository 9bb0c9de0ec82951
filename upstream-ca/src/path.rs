//! Does a signing certificate lead to a root? Verifiers of leaves refuse signing certificates, so
//! their path is followed here.

use jiff::Timestamp;

use crate::certificate::Certificate;

/// Most signing certificates between a leaf and a root: Rust's verifiers follow no longer path.
const MAX_DEPTH: usize = 6;

/// Why a certificate leads to no root.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("it leads to none of the roots")]
    NoRoot,
    #[error(
        "more than {} authorities would stand between an SVID and the root, and verifiers follow no \
         longer path; hang this server below one that is nearer to the root",
        MAX_DEPTH
    )]
    TooDeep,
    #[error("a certificate of it expired at {0}")]
    Expired(Timestamp),
    #[error("a certificate of it is not valid before {0}")]
    NotYetValid(Timestamp),
    #[error("the path length {0} of a certificate of it forbids a CA so far below it")]
    TooLong(usize),
    #[error("a certificate of it is no signing certificate")]
    NotCa,
    #[error(
        "a certificate of it constrains URIs or the names of subjects (name constraints), and \
         verifiers accept no SVID below such a one"
    )]
    Constrained,
}

/// The way from a certificate to a root.
#[derive(Debug)]
pub(crate) struct Path<'c> {
    pub(crate) root: &'c Certificate,
    /// When the first of the certificates above the start ends.
    pub(crate) ends_at: Timestamp,
    /// What its certificates say of DNS names below them.
    pub(crate) dns_rules: Vec<String>,
}

/// Follows issuers from `start`, which has `below` authorities under it, through `others` until one
/// is a root.
pub(crate) fn verify<'c>(
    start: &'c Certificate,
    below: usize,
    others: &'c [Certificate],
    roots: &'c [Certificate],
    now: Timestamp,
) -> Result<Path<'c>, PathError> {
    let (mut current, mut ends_at, mut dns_rules) = (start, Timestamp::MAX, Vec::new());
    for below in below..MAX_DEPTH {
        check(current, below, now)?;
        dns_rules.extend_from_slice(&current.dns_rules);
        if roots.iter().any(|root| root.der == current.der) {
            return Ok(Path { root: current, ends_at, dns_rules });
        }
        // A root that was renewed is there twice, with one name and one key.
        let signers = roots.iter().filter(|root| current.is_signed_by(root));
        let mut refused = None;
        for root in signers {
            match check_root(root, below + 1, now) {
                Ok(()) => {
                    dns_rules.extend_from_slice(&root.dns_rules);
                    return Ok(Path { root, ends_at: ends_at.min(root.not_after), dns_rules });
                }
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            return Err(error);
        }
        let issuer =
            others.iter().find(|other| other.der != current.der && current.is_signed_by(other));
        current = issuer.ok_or(PathError::NoRoot)?;
        ends_at = ends_at.min(current.not_after);
    }
    Err(PathError::TooDeep)
}

fn check(certificate: &Certificate, below: usize, now: Timestamp) -> Result<(), PathError> {
    if !certificate.is_ca {
        return Err(PathError::NotCa);
    }
    check_root(certificate, below, now)
}

/// A root is trusted as it is given: old ones do not say that they are signing certificates.
fn check_root(root: &Certificate, below: usize, now: Timestamp) -> Result<(), PathError> {
    if now > root.not_after {
        return Err(PathError::Expired(root.not_after));
    }
    if now < root.not_before {
        return Err(PathError::NotYetValid(root.not_before));
    }
    match root.path_length {
        Some(most) if most < below => Err(PathError::TooLong(most)),
        _ if root.constrains_names => Err(PathError::Constrained),
        _ => Ok(()),
    }
}
