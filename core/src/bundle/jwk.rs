//! One public key as JWK, and its way to and from SubjectPublicKeyInfo.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P521_SHA512_ASN1,
    EcdsaVerificationAlgorithm, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use der::Decode;
use der::asn1::UintRef;
use rustls_pki_types::{AlgorithmIdentifier, alg_id};
use serde::Serialize;
use serde_json::Value;

use crate::svid::x509::der::{Writer, tag};
use crate::svid::x509::read;

/// A key as it is written, members in SPIRE's order: EC coordinates at full width, RSA numbers
/// without leading zeros.
///
/// # Source
/// RFC 7518, 6.2 and 6.3.
#[derive(Debug, Default, Serialize)]
pub(super) struct Jwk<'b> {
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<&'static str>,
    pub(super) kty: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kid: Option<&'b str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) crv: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) x: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) y: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) n: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) e: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) x5c: Option<[String; 1]>,
}

struct Curve {
    name: &'static str,
    kind: AlgorithmIdentifier,
    coordinate_bytes: usize,
    verification: &'static EcdsaVerificationAlgorithm,
}

static CURVES: [Curve; 3] = [
    Curve {
        name: "P-256",
        kind: alg_id::ECDSA_P256,
        coordinate_bytes: 32,
        verification: &ECDSA_P256_SHA256_ASN1,
    },
    Curve {
        name: "P-384",
        kind: alg_id::ECDSA_P384,
        coordinate_bytes: 48,
        verification: &ECDSA_P384_SHA384_ASN1,
    },
    Curve {
        name: "P-521",
        kind: alg_id::ECDSA_P521,
        coordinate_bytes: 66,
        verification: &ECDSA_P521_SHA512_ASN1,
    },
];

/// First byte of an EC point whose coordinates both follow.
const UNCOMPRESSED: u8 = 4;

impl Jwk<'_> {
    /// The key in a SubjectPublicKeyInfo; `None` where it is neither RSA nor on a NIST curve.
    pub(super) fn from_spki(spki: &[u8]) -> Option<Self> {
        let (kind, bits) = read::key_parts(spki).ok()?;
        if *kind == *alg_id::RSA_ENCRYPTION {
            let mut numbers = read::sequence(bits).ok()?;
            let mut number = || {
                let number = UintRef::decode(&mut numbers).ok()?;
                Some(URL_SAFE_NO_PAD.encode(number.as_bytes()))
            };
            return Some(Self {
                kty: "RSA",
                n: Some(number()?),
                e: Some(number()?),
                ..Self::default()
            });
        }
        let curve = CURVES.iter().find(|curve| *curve.kind == *kind)?;
        let (form, point) = bits.split_first()?;
        if *form != UNCOMPRESSED || point.len() != 2 * curve.coordinate_bytes {
            return None;
        }
        let (x, y) = point.split_at(curve.coordinate_bytes);
        Some(Self {
            kty: "EC",
            crv: Some(curve.name),
            x: Some(URL_SAFE_NO_PAD.encode(x)),
            y: Some(URL_SAFE_NO_PAD.encode(y)),
            ..Self::default()
        })
    }
}

/// The key of a JWK as SubjectPublicKeyInfo; `None` for a kind or curve that is not used.
///
/// # Errors
/// What is wrong with a key of a kind that is used.
pub(crate) fn spki_of(jwk: &Value) -> Result<Option<Bytes>, String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let number = |name: &str| {
        let text = text(name).ok_or_else(|| format!("key without {name}"))?;
        URL_SAFE_NO_PAD.decode(text).map_err(|error| format!("{name} is no base64url: {error}"))
    };
    match text("kty") {
        Some("RSA") => {
            let (n, e) = (number("n")?, number("e")?);
            let mut bits = Writer::default();
            bits.nested(tag::SEQUENCE, |numbers| {
                numbers.positive_integer(&n).positive_integer(&e);
            });
            let bits = bits.finish();
            ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &bits)
                .map_err(|_| "RSA key is malformed".to_owned())?;
            Ok(Some(spki(&alg_id::RSA_ENCRYPTION, &bits)))
        }
        Some("EC") => {
            let Some(curve) = CURVES.iter().find(|curve| text("crv") == Some(curve.name)) else {
                return Ok(None);
            };
            let (x, y) = (number("x")?, number("y")?);
            if x.len() != curve.coordinate_bytes || y.len() != curve.coordinate_bytes {
                return Err(format!("coordinates do not have the width of {}", curve.name));
            }
            let bits = [&[UNCOMPRESSED], x.as_slice(), y.as_slice()].concat();
            ParsedPublicKey::new(curve.verification, &bits)
                .map_err(|_| format!("point is not on {}", curve.name))?;
            Ok(Some(spki(&curve.kind, &bits)))
        }
        _ => Ok(None),
    }
}

fn spki(kind: &[u8], bits: &[u8]) -> Bytes {
    let mut writer = Writer::with_capacity(bits.len() + 32);
    writer.nested(tag::SEQUENCE, |parts| {
        parts.value(tag::SEQUENCE, kind).bit_string(bits);
    });
    writer.finish().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyType, LocalKey, SigningKey};

    #[test]
    fn a_key_survives_its_jwk() {
        for kind in [KeyType::EcP256, KeyType::EcP384, KeyType::Rsa2048] {
            let key = LocalKey::generate_blocking(kind).unwrap();
            let spki = &key.public_key().spki;
            let jwk = serde_json::to_value(Jwk::from_spki(spki).unwrap()).unwrap();
            assert_eq!(spki_of(&jwk).unwrap().unwrap(), spki, "{kind:?}");
        }
    }

    #[test]
    fn keys_of_other_kinds_are_skipped_and_broken_ones_named() {
        let read = |text: &str| spki_of(&serde_json::from_str(text).unwrap());
        assert_eq!(read(r#"{"kty":"XYZ"}"#), Ok(None));
        assert_eq!(read(r#"{"kty":"EC","crv":"secp256k1","x":"","y":""}"#), Ok(None));
        assert!(read(r#"{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}"#).is_err());
        let zero = "A".repeat(43);
        let off_curve = format!(r#"{{"kty":"EC","crv":"P-256","x":"{zero}","y":"{zero}"}}"#);
        assert_eq!(read(&off_curve), Err("point is not on P-256".into()));
        assert!(read(r#"{"kty":"RSA","n":"","e":""}"#).is_err());
    }
}
