//! Bundles as JWK sets: the SPIFFE bundle document, and the plain set of the Workload API.
//!
//! Reading is lenient, writing is strict: other implementations drop a whole bundle over a key
//! that they do not know.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::ser::PrettyFormatter;

use super::jwk::{self, Jwk};
use super::{Bundle, BundleError, JwtAuthority, X509Authority};
use crate::id::TrustDomain;
use crate::limits::MAX_BUNDLE_BYTES;
use crate::svid::x509::read::Certificate;

const X509_USE: &str = "x509-svid";
const JWT_USE: &str = "jwt-svid";

/// The document as it is written.
#[derive(Serialize)]
struct Written<'b> {
    keys: Vec<Jwk<'b>>,
    #[serde(skip_serializing_if = "is_zero")]
    spiffe_sequence: u64,
    #[serde(skip_serializing_if = "is_zero")]
    spiffe_refresh_hint: u64,
}

/// The document as it is read; members that are not known do no harm.
#[derive(Deserialize)]
struct Read {
    keys: Option<Vec<Value>>,
    #[serde(default)]
    spiffe_sequence: u64,
    #[serde(default)]
    spiffe_refresh_hint: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Bundle {
    /// Reads a SPIFFE bundle document. Keys of an unknown kind or use are skipped.
    ///
    /// # Errors
    /// [`BundleError`] where the text is no such document.
    ///
    /// # Source
    /// SPIFFE Trust Domain and Bundle, 4; X509-SVID, 6.2; JWT-SVID, 6.2.
    pub fn from_spiffe_json(trust_domain: TrustDomain, text: &[u8]) -> Result<Self, BundleError> {
        if text.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::too_large());
        }
        let document: Read = serde_json::from_slice(text).map_err(unparsable)?;
        let keys = document
            .keys
            .ok_or_else(|| BundleError("spiffebundle: no authorities found".into()))?;
        let mut bundle = Self::empty(trust_domain);
        bundle.sequence_number = document.spiffe_sequence;
        bundle.refresh_hint = u32::try_from(document.spiffe_refresh_hint).unwrap_or(u32::MAX);
        for key in keys {
            match key.get("use").and_then(Value::as_str) {
                Some(X509_USE) => bundle.x509_authorities.extend(read_x509(&key)?),
                Some(JWT_USE) => {
                    let known =
                        |id: &str| bundle.jwt_authorities.iter().any(|key| key.key_id == id);
                    let key = read_jwt(&key)?.filter(|key| !known(&key.key_id));
                    bundle.jwt_authorities.extend(key);
                }
                _ => {}
            }
        }
        Ok(bundle)
    }

    /// The SPIFFE bundle document, indented by four spaces, without a final newline. Authorities
    /// whose keys are neither RSA nor on a NIST curve are left out.
    ///
    /// # Source
    /// SPIFFE Trust Domain and Bundle, 4; the order of members is SPIRE's.
    pub fn to_spiffe_json(&self) -> String {
        let x509 = self.x509_authorities.iter().filter_map(|root| {
            let certificate = Certificate::read(&root.certificate).ok()?;
            let x5c = Some([STANDARD.encode(&root.certificate)]);
            let key = Jwk::from_spki(certificate.public_key)?;
            Some(Jwk { usage: Some(X509_USE), x5c, ..key })
        });
        let jwt = self.jwks().map(|jwk| Jwk { usage: Some(JWT_USE), ..jwk });
        pretty(&Written {
            keys: x509.chain(jwt).collect(),
            spiffe_sequence: self.sequence_number,
            spiffe_refresh_hint: self.refresh_hint.into(),
        })
    }

    /// The JWK set of the keys for JWT-SVIDs that the Workload API serves: with `kid`, without
    /// `use`.
    pub fn to_jwks(&self) -> String {
        let keys = self.jwks().collect();
        pretty(&Written { keys, spiffe_sequence: 0, spiffe_refresh_hint: 0 })
    }

    /// Reads the JWK set of a Workload API: every key with a `kid` whose `use` is `jwt-svid` or
    /// left out.
    ///
    /// # Errors
    /// [`BundleError`] where the text is no JWK set.
    pub fn from_jwks(trust_domain: TrustDomain, text: &[u8]) -> Result<Self, BundleError> {
        if text.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::too_large());
        }
        let document: Read = serde_json::from_slice(text).map_err(unparsable)?;
        let mut bundle = Self::empty(trust_domain);
        for key in document.keys.unwrap_or_default() {
            if matches!(key.get("use").and_then(Value::as_str), None | Some(JWT_USE)) {
                bundle.jwt_authorities.extend(read_jwt(&key)?);
            }
        }
        Ok(bundle)
    }

    fn jwks(&self) -> impl Iterator<Item = Jwk<'_>> {
        self.jwt_authorities.iter().filter_map(|authority| {
            let key = Jwk::from_spki(&authority.public_key)?;
            Some(Jwk { kid: Some(authority.key_id.as_str()), ..key })
        })
    }
}

/// An entry of use `x509-svid`: only its first certificate counts, and without one it is skipped.
fn read_x509(key: &Value) -> Result<Option<X509Authority>, BundleError> {
    let known_kind = matches!(key.get("kty").and_then(Value::as_str), Some("RSA" | "EC" | "OKP"));
    let certificate = key.get("x5c").and_then(|list| list.get(0));
    let Some(certificate) = certificate.filter(|_| known_kind) else { return Ok(None) };
    let certificate = certificate.as_str().ok_or_else(|| unparsable("x5c holds no text"))?;
    let der = STANDARD
        .decode(certificate)
        .map_err(|error| unparsable(format!("x5c holds no base64: {error}")))?;
    X509Authority::trusted(der.into()).map(Some).map_err(unparsable)
}

/// An entry for JWT-SVIDs; without `kid` no token can name it, so it is skipped.
fn read_jwt(key: &Value) -> Result<Option<JwtAuthority>, BundleError> {
    let key_id = key.get("kid").and_then(Value::as_str).filter(|kid| !kid.is_empty());
    let Some(key_id) = key_id else { return Ok(None) };
    let public_key = jwk::spki_of(key).map_err(unparsable)?;
    Ok(public_key.map(|public_key| JwtAuthority {
        key_id: key_id.to_owned(),
        public_key,
        expires_at: None,
        tainted: false,
    }))
}

fn unparsable(reason: impl std::fmt::Display) -> BundleError {
    BundleError(format!("spiffebundle: unable to parse JWKS: {reason}"))
}

fn pretty(document: &Written<'_>) -> String {
    let mut text = Vec::with_capacity(1024);
    let formatter = PrettyFormatter::with_indent(b"    ");
    document
        .serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter))
        .expect("texts and numbers written to memory");
    String::from_utf8(text).expect("JSON is UTF-8")
}
