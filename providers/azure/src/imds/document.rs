//! The document about a machine: what the metadata service has signed, and the nonce in it.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use spire_core::node::AttestError;

use super::evidence::Document;
use crate::cloud::is_uuid;

/// Length of a nonce in letters and digits.
const NONCE_LENGTH: usize = 32;
const LETTERS: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// How far the clocks of Azure and of this server may be apart.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

/// What is signed. Other members are passed over.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attested {
    #[serde(default)]
    vm_id: String,
    #[serde(default)]
    subscription_id: String,
    #[serde(default)]
    nonce: String,
    #[serde(default)]
    time_stamp: Times,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    #[serde(default)]
    expires_on: String,
}

/// The machine that a document speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Machine {
    pub(super) subscription_id: String,
    /// A UUID in lower case.
    pub(super) vm_id: String,
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subscription_id, vm_id } = self;
        write!(formatter, "virtual machine {vm_id} in subscription {subscription_id}")
    }
}

/// The PKCS#7 message of a document.
pub(super) fn message(document: &Document) -> Result<Vec<u8>, AttestError> {
    if document.encoding != "pkcs7" {
        let encoding: String = document.encoding.chars().take(32).collect();
        return Err(malformed(format!("attested document has the encoding {encoding:?}")));
    }
    let signature: Vec<u8> =
        document.signature.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    if signature.is_empty() {
        return Err(malformed("attested document has no signature"));
    }
    STANDARD
        .decode(signature)
        .map_err(|error| malformed(format!("failed to decode attested document: {error}")))
}

impl Attested {
    /// Reads what was signed.
    pub(super) fn read(content: &[u8]) -> Result<Self, AttestError> {
        serde_json::from_slice(content)
            .map_err(|error| malformed(format!("failed to parse attested document: {error}")))
    }

    /// The machine, by IDs of the form that Azure writes.
    pub(super) fn machine(&self) -> Result<Machine, AttestError> {
        for (name, value) in [("vmId", &self.vm_id), ("subscriptionId", &self.subscription_id)] {
            if !is_uuid(value) {
                return Err(malformed(format!("attested document has no UUID as its {name}")));
            }
        }
        Ok(Machine {
            subscription_id: self.subscription_id.clone(),
            vm_id: self.vm_id.to_ascii_lowercase(),
        })
    }

    /// Makes sure that it was signed for `nonce`.
    pub(super) fn check_nonce(&self, nonce: &[u8]) -> Result<(), AttestError> {
        verify_slices_are_equal(self.nonce.as_bytes(), nonce)
            .map_err(|_| malformed("attested document was not made for this challenge"))
    }

    /// Makes sure that it has not expired.
    pub(super) fn check_expiry(&self, now: Timestamp) -> Result<(), AttestError> {
        let text = &self.time_stamp.expires_on;
        let expires_on = Timestamp::strptime("%m/%d/%y %H:%M:%S %z", text)
            .map_err(|_| malformed("attested document does not say when it expires"))?;
        if now.duration_since(expires_on) > LEEWAY {
            return Err(malformed(format!("attested document has expired at {expires_on}")));
        }
        Ok(())
    }
}

/// A fresh nonce of letters and digits, each as likely as the others.
pub(super) fn nonce() -> Result<Vec<u8>, AttestError> {
    let mut nonce = Vec::with_capacity(NONCE_LENGTH);
    while nonce.len() < NONCE_LENGTH {
        let mut random = [0; NONCE_LENGTH * 2];
        aws_lc_rs::rand::fill(&mut random)
            .map_err(|_| AttestError::Unavailable("the random source failed".to_owned()))?;
        // The largest multiple of the number of letters that a byte can be below.
        let fair = random.iter().filter(|byte| usize::from(**byte) < LETTERS.len() * 4);
        let letters = fair.map(|byte| LETTERS[usize::from(*byte) % LETTERS.len()]);
        nonce.extend(letters.take(NONCE_LENGTH - nonce.len()));
    }
    Ok(nonce)
}

fn malformed(reason: impl Into<String>) -> AttestError {
    AttestError::Malformed(reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_32_letters_and_digits() {
        let (one, other) = (nonce().unwrap(), nonce().unwrap());
        assert!(one.len() == 32 && one.iter().all(u8::is_ascii_alphanumeric));
        assert_ne!(one, other);
    }

    #[test]
    fn a_document_expires() {
        let read = |expires_on: &str| {
            let text = format!(r#"{{"timeStamp":{{"expiresOn":"{expires_on}"}}}}"#);
            Attested::read(text.as_bytes()).unwrap()
        };
        let document = read("10/12/23 18:25:14 -0000");
        let expiry: Timestamp = "2023-10-12T18:25:14Z".parse().unwrap();
        document.check_expiry(expiry + LEEWAY).unwrap();
        document.check_expiry(expiry + LEEWAY + SignedDuration::from_secs(1)).unwrap_err();
        for text in ["", "2023-10-12T18:25:14Z", "13/40/23 18:25:14 -0000"] {
            read(text).check_expiry(Timestamp::UNIX_EPOCH).unwrap_err();
        }
    }
}
