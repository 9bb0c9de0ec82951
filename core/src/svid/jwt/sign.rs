//! Signs tokens: compact JSON, members in the order that SPIRE writes.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use der::asn1::UintRef;
use der::{Decode, Reader};
use serde::Serialize;

use super::{Claims, SignError};
use crate::keys::{KeyError, KeyType, SigningKey};
use crate::svid::x509::read;

#[derive(Serialize)]
struct Header<'h> {
    alg: &'static str,
    kid: &'h str,
    typ: &'static str,
}

/// The claims as they are written, sorted by name.
#[derive(Serialize)]
struct Payload<'p> {
    aud: Vec<&'p str>,
    exp: i64,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'p str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    sub: &'p str,
}

/// Signs a token with the key that bundles know as `key_id`.
///
/// # Errors
/// [`SignError`].
///
/// # Source
/// JWT-SVID, 2 and 3.
pub async fn sign(
    key: &dyn SigningKey,
    key_id: &str,
    claims: &Claims<'_>,
) -> Result<String, SignError> {
    let aud: Vec<&str> =
        claims.audience.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    if aud.is_empty() {
        return Err(SignError::NoAudience);
    }
    let kind = key.public_key().kind;
    let header = Header { alg: algorithm(kind), kid: key_id, typ: "JWT" };
    let payload = Payload {
        aud,
        exp: claims.expires_at.as_second(),
        iat: claims.issued_at.as_second(),
        iss: claims.issuer,
        jti: claims.with_id.then(|| URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes())),
        sub: claims.subject.as_str(),
    };
    let mut token = String::with_capacity(768);
    append(&mut token, &header)?;
    token.push('.');
    append(&mut token, &payload)?;
    let signature = key.sign(token.as_bytes()).await?;
    let signature = match coordinate_bytes(kind) {
        Some(width) => fixed_width(&signature, width)
            .map_err(|_| KeyError::Invalid("key returned no ECDSA signature".into()))?,
        None => signature,
    };
    token.push('.');
    URL_SAFE_NO_PAD.encode_string(signature, &mut token);
    Ok(token)
}

fn append(token: &mut String, part: &impl Serialize) -> Result<(), KeyError> {
    let json = serde_json::to_vec(part).map_err(|error| KeyError::Invalid(error.to_string()))?;
    URL_SAFE_NO_PAD.encode_string(json, token);
    Ok(())
}

fn algorithm(kind: KeyType) -> &'static str {
    match kind {
        KeyType::EcP256 => "ES256",
        KeyType::EcP384 => "ES384",
        KeyType::EcP521 => "ES512",
        KeyType::Rsa2048 | KeyType::Rsa4096 | KeyType::OtherRsa => "RS256",
    }
}

fn coordinate_bytes(kind: KeyType) -> Option<usize> {
    match kind {
        KeyType::EcP256 => Some(32),
        KeyType::EcP384 => Some(48),
        KeyType::EcP521 => Some(66),
        KeyType::Rsa2048 | KeyType::Rsa4096 | KeyType::OtherRsa => None,
    }
}

/// Turns an ECDSA signature from ASN.1 into both numbers side by side.
///
/// # Source
/// RFC 7518, 3.4.
fn fixed_width(asn1: &[u8], width: usize) -> der::Result<Vec<u8>> {
    let mut numbers = read::sequence(asn1)?;
    let mut fixed = vec![0; 2 * width];
    for half in fixed.chunks_exact_mut(width) {
        let number = UintRef::decode(&mut numbers)?.as_bytes();
        let start = width.checked_sub(number.len()).ok_or(der::ErrorKind::Overflow)?;
        half[start..].copy_from_slice(number);
    }
    numbers.finish()?;
    Ok(fixed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SpiffeId;
    use crate::keys::LocalKey;

    async fn parts(kind: KeyType, claims: &Claims<'_>) -> (String, String, usize) {
        let key = LocalKey::generate(kind).await.unwrap();
        let token = sign(&key, "key \"1\"", claims).await.unwrap();
        let parts: Vec<_> =
            token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        let text = |part: &[u8]| String::from_utf8(part.to_vec()).unwrap();
        assert_eq!(parts.len(), 3);
        (text(&parts[0]), text(&parts[1]), parts[2].len())
    }

    #[tokio::test]
    async fn jwt_01_02_04_06_13_17_the_layout_is_that_of_spire() {
        let id = SpiffeId::parse("spiffe://example.org/app").unwrap();
        let audience = ["b".to_owned(), String::new(), "a".to_owned()];
        let claims = Claims {
            subject: &id,
            audience: &audience,
            issued_at: "2026-01-01T00:00:00.9Z".parse().unwrap(),
            expires_at: "2026-01-01T00:05:00.9Z".parse().unwrap(),
            issuer: None,
            with_id: false,
        };
        for (kind, alg, bytes) in [
            (KeyType::EcP256, "ES256", 64),
            (KeyType::EcP384, "ES384", 96),
            (KeyType::Rsa2048, "RS256", 256),
        ] {
            let (header, payload, signature) = parts(kind, &claims).await;
            assert_eq!(header, format!(r#"{{"alg":"{alg}","kid":"key \"1\"","typ":"JWT"}}"#));
            assert_eq!(
                payload,
                r#"{"aud":["b","a"],"exp":1767225900,"iat":1767225600,"sub":"spiffe://example.org/app"}"#
            );
            assert_eq!(signature, bytes);
        }
        let claims = Claims { issuer: Some("https://issuer"), with_id: true, ..claims };
        let (_, payload, _) = parts(KeyType::EcP256, &claims).await;
        let (before, after) = payload.split_once(r#""jti":""#).unwrap();
        assert!(before.ends_with(r#""iss":"https://issuer","#), "{payload}");
        assert_eq!(after.find('"'), Some(22), "16 bytes, base64url: {payload}");
    }

    #[tokio::test]
    async fn jwt_10_a_token_needs_an_audience() {
        let id = SpiffeId::parse("spiffe://example.org/app").unwrap();
        let key = LocalKey::generate_blocking(KeyType::EcP256).unwrap();
        for audience in [vec![], vec![String::new()]] {
            let claims = Claims {
                subject: &id,
                audience: &audience,
                issued_at: "2026-01-01T00:00:00Z".parse().unwrap(),
                expires_at: "2026-01-01T00:05:00Z".parse().unwrap(),
                issuer: None,
                with_id: false,
            };
            let error = sign(&key, "kid", &claims).await.unwrap_err().to_string();
            assert_eq!(error, "invalid JWT-SVID audience: cannot be empty");
        }
    }

    #[test]
    fn short_numbers_are_padded_to_full_width() {
        let asn1 = [0x30, 0x07, 0x02, 0x01, 0x05, 0x02, 0x02, 0x00, 0x80];
        assert_eq!(fixed_width(&asn1, 3).unwrap(), [0, 0, 5, 0, 0, 0x80]);
        assert!(fixed_width(&asn1[..8], 3).is_err());
    }
}
