//! What Google does with a request that was signed for AWS: here the signature is checked at once,
//! as AWS would, against the one secret key that there is.

use aws_lc_rs::{digest, hmac};
use serde_json::Value;
use url::{Url, form_urlencoded};

/// What such a subject token is called.
pub(super) const TOKEN_TYPE: &str = "urn:ietf:params:aws:token-type:aws4_request";
/// The request that is signed.
pub(super) const CALLER_IDENTITY: &str =
    "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15";

/// That of [`Imds`](crate::aws::Imds).
const SECRET: &str = "secret";
const SESSION: &str = "session";
/// The digest of nothing, which the request has for a body.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Whether `subject` is a request to ask AWS who has signed it, signed for `audience`.
///
/// # Source
/// AWS, "Create a signed AWS API request".
pub(super) fn is_signed(subject: &str, audience: &str) -> bool {
    let decoded: String = form_urlencoded::parse(format!("r={subject}").as_bytes())
        .map(|(_, value)| value.into_owned())
        .collect();
    serde_json::from_str(&decoded).is_ok_and(|request| verify(&request, audience).is_some())
}

fn verify(request: &Value, audience: &str) -> Option<()> {
    let header = |name: &str| {
        let mut headers = request["headers"].as_array()?.iter();
        let found = headers.find(|header| {
            header["key"].as_str().is_some_and(|key| key.eq_ignore_ascii_case(name))
        })?;
        found["value"].as_str()
    };
    let parts = header("authorization")?.strip_prefix("AWS4-HMAC-SHA256 ")?;
    let part = |name: &str| parts.split(", ").find_map(|part| part.strip_prefix(name));
    let (credential, signature) = (part("Credential=")?, part("Signature=")?);
    let names = part("SignedHeaders=")?;
    let (key, scope) = credential.split_once('/')?;
    let [date, region, "sts", "aws4_request"] = scope.split('/').collect::<Vec<_>>()[..] else {
        return None;
    };

    let url = request["url"].as_str()?;
    // Keys that were lent count with what they were lent with alone.
    let is_lent = key.starts_with("ASIA");
    let has_session = header("x-amz-security-token") == Some(SESSION)
        && names.split(';').any(|name| name == "x-amz-security-token");
    if is_lent && !has_session {
        return None;
    }
    let signs_what_counts = ["host", "x-amz-date", "x-goog-cloud-target-resource"]
        .iter()
        .all(|needed| names.split(';').any(|name| name == *needed));
    if url != CALLER_IDENTITY.replace("{region}", region)
        || request["method"] != "POST"
        || header("x-goog-cloud-target-resource")? != audience
        || !signs_what_counts
    {
        return None;
    }
    let parsed = Url::parse(url).ok()?;
    let mut canonical = format!("POST\n/\n{}\n", parsed.query()?);
    for name in names.split(';') {
        canonical += &format!("{name}:{}\n", header(name)?.trim());
    }
    canonical += &format!("\n{names}\n{EMPTY}");
    let hash = digest::digest(&digest::SHA256, canonical.as_bytes());
    let time = header("x-amz-date")?;
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(hash.as_ref()));
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for step in [date, region, "sts", "aws4_request"] {
        key = sign(&key, step);
    }
    (hex(&sign(&key, &text)) == signature).then_some(())
}

fn sign(key: &[u8], text: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
