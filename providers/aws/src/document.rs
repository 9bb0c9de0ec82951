//! The identity document: what its signature makes certain, and nothing before.

use aws_lc_rs::signature::{RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use spire_core::node::{AttestError, read_envelope};
use spire_core::pkcs7::{Attributes, SignedData};

use crate::evidence::Evidence;
use crate::regions::{Kind, RegionKeys, is_region};

/// An instance as its document describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Document {
    pub(crate) account_id: String,
    pub(crate) region: String,
    pub(crate) instance_id: String,
    #[serde(default)]
    pub(crate) availability_zone: Option<String>,
    #[serde(default)]
    pub(crate) image_id: Option<String>,
    /// When the instance was launched.
    #[serde(default, deserialize_with = "time")]
    pub(crate) pending_time: Option<Timestamp>,
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}

/// Reads the envelope; nothing in it is proven.
pub(crate) fn read_evidence(evidence: &[u8]) -> Result<Evidence, AttestError> {
    let evidence: Evidence = read_envelope(evidence, "attestation data")?;
    if evidence.rsa2048.is_empty() && evidence.signature.is_empty() {
        return Err(malformed("no signature of the identity document".to_owned()));
    }
    Ok(evidence)
}

/// Reads a document. Whether it is proven, the caller knows.
pub(crate) fn read(document: &[u8]) -> Result<Document, AttestError> {
    let document: Document = serde_json::from_slice(document)
        .map_err(|error| malformed(format!("failed to unmarshal identity document: {error}")))?;
    let named = |text: &str, known: bool| match known {
        true => Ok(()),
        false => Err(malformed(format!("identity document has an unusable {text}"))),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let Document { account_id, region, instance_id, .. } = &document;
    named("accountId", account_id.len() == 12 && digits(account_id))?;
    named("region", is_region(region))?;
    let id = instance_id.strip_prefix("i-").unwrap_or_default();
    named("instanceId", (1..=32).contains(&id.len()) && word(id))?;
    Ok(document)
}

/// The document of `evidence` once a key of the region that it names is found to have signed it.
/// Where the message holds the document, it is read from there and nowhere else.
pub(crate) fn verify(evidence: &Evidence, keys: &RegionKeys) -> Result<Document, AttestError> {
    let claimed = read(evidence.document.as_bytes())?;
    if evidence.rsa2048.is_empty() {
        let signature = decode("signature", &evidence.signature)?;
        verify_signature(evidence.document.as_bytes(), &signature, &claimed.region, keys)?;
        return Ok(claimed);
    }
    let message = decode("rsa2048", &evidence.rsa2048)?;
    let content = verify_message(&message, &claimed.region, keys)?;
    if content != evidence.document.as_bytes() {
        let error = "the signed identity document is not the one that was sent";
        return Err(malformed(error.to_owned()));
    }
    read(&content)
}

fn verify_message(message: &[u8], region: &str, keys: &RegionKeys) -> Result<Vec<u8>, AttestError> {
    let unproven = |error: &dyn std::fmt::Display| {
        malformed(format!("failed to verify the signature of the identity document: {error}"))
    };
    let of_region = keys.of(region, Kind::Rsa2048);
    if of_region.is_empty() {
        return Err(unproven(&format_args!("no key of the region {region:?} is known")));
    }
    let message = SignedData::parse(message).map_err(|error| unproven(&error))?;
    let signer = message.signer();
    let named = |key: &&crate::regions::RegionKey| {
        key.issuer == signer.issuer && key.serial == signer.serial
    };
    let key = of_region.iter().find(named).ok_or_else(|| {
        unproven(&format_args!("the signer is not the one of the region {region}"))
    })?;
    let content = message.verified_content(&key.public_key, Attributes::Required);
    content.map(<[u8]>::to_vec).map_err(|error| unproven(&error))
}

fn verify_signature(
    document: &[u8],
    signature: &[u8],
    region: &str,
    keys: &RegionKeys,
) -> Result<(), AttestError> {
    let signed = keys.of(region, Kind::Rsa1024).iter().any(|key| {
        let algorithm = &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY;
        UnparsedPublicKey::new(algorithm, &key.public_key).verify(document, signature).is_ok()
    });
    if signed {
        return Ok(());
    }
    let error = format!("failed to verify the signature of the identity document by {region:?}");
    Err(malformed(error))
}

/// Base64 that may be broken into lines.
fn decode(what: &str, text: &str) -> Result<Vec<u8>, AttestError> {
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(text).map_err(|error| malformed(format!("failed to decode {what}: {error}")))
}

fn malformed(error: String) -> AttestError {
    AttestError::Malformed(error)
}
