//! Bundles, whole or in the fields that a mask names.

use bytes::Bytes;
use der::Decode;
use spki::SubjectPublicKeyInfoRef;
use x509_cert::Certificate;

use super::{WireTimeError, seconds, time};
use crate::bundle::{Bundle, JwtAuthority, X509Authority};
use crate::id::{IdError, TrustDomain};
use crate::wire::types::{self, BundleMask};

/// Why a bundle in a request is refused. The messages are those of SPIRE where it has one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireBundleError {
    /// There is none.
    #[error("missing bundle")]
    Missing,
    /// `trust_domain`
    #[error("trust domain argument is not valid: {0}")]
    TrustDomain(#[from] IdError),
    /// `x509_authorities`
    #[error("unable to parse X.509 authority: {0}")]
    X509Authority(String),
    /// `jwt_authorities`
    #[error("unable to parse JWT authority: {0}")]
    JwtAuthority(String),
    /// `refresh_hint`
    #[error("refresh_hint must be a number of seconds from 0 to 4294967295, but is {0}")]
    RefreshHint(i64),
}

impl From<WireTimeError> for WireBundleError {
    fn from(error: WireTimeError) -> Self {
        Self::JwtAuthority(format!("expires_at: {error}"))
    }
}

/// Reads a bundle. Its order is kept; what is given twice is kept once.
///
/// # Errors
/// [`WireBundleError`] names the first field that is wrong.
pub fn bundle(wire: &types::Bundle) -> Result<Bundle, WireBundleError> {
    let refresh_hint = u32::try_from(wire.refresh_hint)
        .map_err(|_| WireBundleError::RefreshHint(wire.refresh_hint))?;
    Ok(Bundle {
        trust_domain: TrustDomain::parse(&wire.trust_domain)?,
        x509_authorities: x509_authorities(&wire.x509_authorities)?,
        jwt_authorities: jwt_authorities(&wire.jwt_authorities)?,
        refresh_hint,
        sequence_number: wire.sequence_number,
    })
}

/// Reads X.509 authorities.
///
/// # Errors
/// [`WireBundleError::X509Authority`] where one is no certificate.
pub fn x509_authorities(
    wire: &[types::X509Certificate],
) -> Result<Vec<X509Authority>, WireBundleError> {
    let mut authorities: Vec<X509Authority> = Vec::with_capacity(wire.len());
    for one in wire {
        Certificate::from_der(&one.asn1)
            .map_err(|error| WireBundleError::X509Authority(error.to_string()))?;
        if !authorities.iter().any(|known| known.certificate == one.asn1) {
            let certificate = Bytes::copy_from_slice(&one.asn1);
            authorities.push(X509Authority { certificate, tainted: one.tainted });
        }
    }
    Ok(authorities)
}

/// Reads authorities for JWT-SVIDs.
///
/// # Errors
/// [`WireBundleError::JwtAuthority`] where one has no id, no public key, or an impossible expiry.
pub fn jwt_authorities(wire: &[types::JwtKey]) -> Result<Vec<JwtAuthority>, WireBundleError> {
    let mut authorities: Vec<JwtAuthority> = Vec::with_capacity(wire.len());
    for one in wire {
        if one.key_id.is_empty() {
            return Err(WireBundleError::JwtAuthority("missing key ID".to_owned()));
        }
        SubjectPublicKeyInfoRef::from_der(&one.public_key)
            .map_err(|error| WireBundleError::JwtAuthority(error.to_string()))?;
        if authorities.iter().any(|known| known.key_id == one.key_id) {
            continue;
        }
        authorities.push(JwtAuthority {
            key_id: one.key_id.clone(),
            public_key: Bytes::copy_from_slice(&one.public_key),
            expires_at: time(one.expires_at)?,
            tainted: one.tainted,
        });
    }
    Ok(authorities)
}

impl From<&X509Authority> for types::X509Certificate {
    fn from(authority: &X509Authority) -> Self {
        Self { asn1: authority.certificate.clone(), tainted: authority.tainted }
    }
}

impl From<&JwtAuthority> for types::JwtKey {
    fn from(authority: &JwtAuthority) -> Self {
        Self {
            public_key: authority.public_key.clone(),
            key_id: authority.key_id.clone(),
            expires_at: seconds(authority.expires_at),
            tainted: authority.tainted,
        }
    }
}

/// The mask that leaves nothing out.
pub const ALL_FIELDS: BundleMask = BundleMask {
    x509_authorities: true,
    jwt_authorities: true,
    refresh_hint: true,
    sequence_number: true,
    wit_authorities: true,
};

/// Writes the fields of a bundle that `mask` names, or all without a mask; the trust domain always.
pub fn sent(bundle: &Bundle, mask: Option<&BundleMask>) -> types::Bundle {
    let mask = mask.unwrap_or(&ALL_FIELDS);
    let mut wire = types::Bundle {
        trust_domain: bundle.trust_domain.as_str().to_owned(),
        ..types::Bundle::default()
    };
    if mask.x509_authorities {
        wire.x509_authorities = bundle.x509_authorities.iter().map(Into::into).collect();
    }
    if mask.jwt_authorities {
        wire.jwt_authorities = bundle.jwt_authorities.iter().map(Into::into).collect();
    }
    if mask.refresh_hint {
        wire.refresh_hint = bundle.refresh_hint.into();
    }
    if mask.sequence_number {
        wire.sequence_number = bundle.sequence_number;
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A P-256 public key.
    const KEY: &[u8] = &[
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
        0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04, 0x18, 0x90, 0x5f,
        0x76, 0xa5, 0x37, 0x55, 0xc6, 0x79, 0xfb, 0x73, 0x2b, 0x77, 0x62, 0x25, 0x10, 0x75, 0xba,
        0x95, 0xfc, 0x5f, 0xed, 0xb6, 0x01, 0x79, 0xe7, 0x30, 0xd4, 0x18, 0xa9, 0x14, 0x3c, 0x85,
        0x71, 0xff, 0x24, 0x52, 0xe3, 0x0e, 0x8b, 0x4a, 0x5e, 0x4c, 0x34, 0x45, 0x19, 0x07, 0x9a,
        0x28, 0x67, 0x24, 0x65, 0xa5, 0x65, 0xa3, 0x4b, 0x7a, 0xd8, 0x97, 0x54, 0x5e, 0xe8, 0x80,
        0x99,
    ];

    fn wire() -> types::Bundle {
        let key = types::JwtKey {
            public_key: Bytes::from_static(KEY),
            key_id: "kid".into(),
            expires_at: 2_000_000,
            tainted: true,
        };
        types::Bundle {
            trust_domain: "td".into(),
            jwt_authorities: vec![key],
            refresh_hint: 60,
            sequence_number: 3,
            ..types::Bundle::default()
        }
    }

    #[test]
    fn a_bundle_survives_the_wire() {
        assert_eq!(sent(&bundle(&wire()).unwrap(), None), wire());
    }

    #[test]
    fn a_mask_leaves_out_what_it_does_not_name() {
        let mask = BundleMask { sequence_number: true, ..BundleMask::default() };
        let expected = types::Bundle {
            trust_domain: "td".into(),
            sequence_number: 3,
            ..types::Bundle::default()
        };
        assert_eq!(sent(&bundle(&wire()).unwrap(), Some(&mask)), expected);
    }

    #[test]
    fn each_wrong_field_is_named() {
        let refusal = |change: fn(&mut types::Bundle)| {
            let mut wire = wire();
            change(&mut wire);
            bundle(&wire).unwrap_err().to_string()
        };
        assert_eq!(
            refusal(|wire| wire.jwt_authorities[0].key_id.clear()),
            "unable to parse JWT authority: missing key ID"
        );
        assert!(
            refusal(|wire| wire.jwt_authorities[0].public_key = Bytes::new())
                .starts_with("unable to parse JWT authority: ")
        );
        assert!(
            refusal(|wire| wire.x509_authorities.push(types::X509Certificate::default()))
                .starts_with("unable to parse X.509 authority: ")
        );
        assert!(refusal(|wire| wire.refresh_hint = -1).starts_with("refresh_hint must be"));
        assert!(refusal(|wire| wire.trust_domain.clear()).contains("trust domain"));
    }
}
