//! Checks tokens, in the order and with the sentences of SPIRE.

use std::ops::Deref;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{JwtError, Verified};
use crate::bundle::Bundle;
use crate::id::{SpiffeId, TrustDomain};
use crate::jws::Algorithm;
use crate::limits::MAX_JWT_BYTES;

/// How far the clocks of issuer and validator may differ.
const LEEWAY: SignedDuration = SignedDuration::from_mins(1);

/// What is looked at in a header; other members are tolerated.
#[derive(Deserialize)]
struct Header {
    #[serde(default)]
    alg: String,
    #[serde(default)]
    kid: String,
    typ: Option<String>,
    crit: Option<Value>,
}

/// Checks a token for one audience. `bundle_of` finds the bundle of the trust domain that the
/// token's subject names.
///
/// # Errors
/// [`JwtError`].
///
/// # Source
/// JWT-SVID, 4.
pub fn verify<B: Deref<Target = Bundle>>(
    token: &str,
    audience: &str,
    bundle_of: impl FnOnce(&TrustDomain) -> Option<B>,
    now: Timestamp,
) -> Result<Verified, JwtError> {
    let (signed, payload, signature, header) = parse(token)?;
    let algorithm = check_header(&header)?;
    if header.kid.is_empty() {
        return Err(refused("token header missing key id"));
    }
    let mut claims: Map<String, Value> = serde_json::from_slice(&payload)
        .map_err(|error| unparsable(format!("claims are no JSON object: {error}")))?;
    let id = subject(&claims)?;
    let expires_at = instant(&claims, "exp")?.ok_or_else(|| refused("token missing exp claim"))?;

    let trust_domain = id.trust_domain();
    let bundle = bundle_of(&trust_domain).filter(|bundle| bundle.trust_domain == trust_domain);
    let bundle = bundle.ok_or_else(|| {
        JwtError(format!("no keys found for trust domain {:?}", trust_domain.as_str()))
    })?;
    check_signature(algorithm, &bundle, &header.kid, signed, &signature)?;

    let audiences = audiences(&claims)?;
    if audience.is_empty() || !audiences.iter().any(|value| value == audience) {
        let quoted: Vec<_> = audiences.iter().map(|value| format!("{value:?}")).collect();
        let quoted = quoted.join(" ");
        return Err(JwtError(format!("expected audience in [{audience:?}] (audience=[{quoted}])")));
    }
    check_times(&claims, expires_at, now)?;
    claims.insert("aud".into(), audiences.into());
    Ok(Verified { id, expires_at, claims })
}

fn refused(reason: &str) -> JwtError {
    JwtError(reason.to_owned())
}

fn unparsable(reason: impl std::fmt::Display) -> JwtError {
    JwtError(format!("unable to parse JWT token: {reason}"))
}

/// The signed part, the payload, the signature and the header of a token.
type Parts<'t> = (&'t [u8], Vec<u8>, Vec<u8>, Header);

fn parse(token: &str) -> Result<Parts<'_>, JwtError> {
    if token.len() > MAX_JWT_BYTES {
        return Err(unparsable(format!("token is longer than {MAX_JWT_BYTES} bytes")));
    }
    let parts: Vec<&str> = token.splitn(4, '.').collect();
    let [header, payload, signature] = parts[..] else {
        return Err(unparsable("go-jose/go-jose: compact JWS format must have three parts"));
    };
    let signed = &token.as_bytes()[..header.len() + 1 + payload.len()];
    let decode = |name: &str, part: &str| {
        let decoded = URL_SAFE_NO_PAD.decode(part);
        decoded.map_err(|error| unparsable(format!("{name} is no base64url: {error}")))
    };
    let header = serde_json::from_slice(&decode("header", header)?)
        .map_err(|error| unparsable(format!("header is no JSON object: {error}")))?;
    Ok((signed, decode("payload", payload)?, decode("signature", signature)?, header))
}

/// A JWT-SVID may use any of our algorithms.
///
/// # Source
/// JWT-SVID, 2.1.
fn check_header(header: &Header) -> Result<Algorithm, JwtError> {
    let algorithm = Algorithm::named(&header.alg, &Algorithm::ALL);
    let algorithm = algorithm.ok_or_else(|| {
        let known = Algorithm::ALL.map(|algorithm| format!("{:?}", algorithm.name()));
        unparsable(format!(
            "unexpected signature algorithm {:?}; expected [{}]",
            header.alg,
            known.join(" ")
        ))
    })?;
    if header.crit.is_some() {
        return Err(unparsable("go-jose/go-jose: unsupported crit header"));
    }
    match header.typ.as_deref() {
        None | Some("JWT" | "JOSE") => Ok(algorithm),
        Some(_) => Err(refused("token header type not equal to either JWT or JOSE")),
    }
}

fn subject(claims: &Map<String, Value>) -> Result<SpiffeId, JwtError> {
    match claims.get("sub") {
        None => Err(refused("token missing subject claim")),
        Some(Value::String(subject)) if subject.is_empty() => {
            Err(refused("token missing subject claim"))
        }
        Some(Value::String(subject)) => SpiffeId::parse(subject)
            .map_err(|error| JwtError(format!("token has in invalid subject claim: {error}"))),
        Some(_) => Err(refused("token has in invalid subject claim: it is no text")),
    }
}

fn instant(claims: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, JwtError> {
    let second = match claims.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value
            .as_i64()
            // A cast of a fraction rounds towards zero and stays within the bounds of the type.
            .or_else(|| value.as_f64().map(|seconds| seconds as i64))
            .ok_or_else(|| JwtError(format!("token has an invalid {name} claim: no number")))?,
    };
    let bounds = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
    let clamped = second.clamp(*bounds.start(), *bounds.end());
    Ok(Timestamp::from_second(clamped).ok())
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, JwtError> {
    let invalid = || refused("token has an invalid aud claim: neither a text nor a list of texts");
    match claims.get("aud") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(audience)) => Ok(vec![audience.clone()]),
        Some(Value::Array(list)) => {
            list.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(invalid)).collect()
        }
        Some(_) => Err(invalid()),
    }
}

fn check_signature(
    algorithm: Algorithm,
    bundle: &Bundle,
    key_id: &str,
    signed: &[u8],
    signature: &[u8],
) -> Result<(), JwtError> {
    let authority = bundle.jwt_authorities.iter().find(|authority| authority.key_id == key_id);
    let authority = authority.ok_or_else(|| {
        let trust_domain = bundle.trust_domain.as_str();
        JwtError(format!("public key {key_id:?} not found in trust domain {trust_domain:?}"))
    })?;
    algorithm
        .verify(&authority.public_key, signed, signature)
        .map_err(|_| refused("go-jose/go-jose: error in cryptographic primitive"))
}

fn check_times(
    claims: &Map<String, Value>,
    expires_at: Timestamp,
    now: Timestamp,
) -> Result<(), JwtError> {
    let ahead = |time: Timestamp| time.duration_since(now) > LEEWAY;
    if instant(claims, "nbf")?.is_some_and(ahead) {
        return Err(refused("go-jose/go-jose/jwt: validation failed, token not valid yet (nbf)"));
    }
    if now.duration_since(expires_at) > LEEWAY {
        return Err(refused("token has expired"));
    }
    if instant(claims, "iat")?.is_some_and(ahead) {
        return Err(refused(
            "go-jose/go-jose/jwt: validation field, token issued in the future (iat)",
        ));
    }
    Ok(())
}
