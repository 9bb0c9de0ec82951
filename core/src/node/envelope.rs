//! Evidence that is a JSON object, as agents and servers of SPIRE lay it out.

use serde::de::DeserializeOwned;

use super::AttestError;
use crate::limits::MAX_ENVELOPE_BYTES;

/// Reads evidence that is called `what` in the error. `T` must be a struct that refuses members
/// which it does not know: then each member stands once, and is spelled exactly so.
///
/// # Errors
/// `Malformed` where it is too large or something else.
pub fn read_envelope<T: DeserializeOwned>(evidence: &[u8], what: &str) -> Result<T, AttestError> {
    if evidence.len() > MAX_ENVELOPE_BYTES {
        let error = format!("{what} exceeds {MAX_ENVELOPE_BYTES} bytes");
        return Err(AttestError::Malformed(error));
    }
    serde_json::from_slice(evidence)
        .map_err(|error| AttestError::Malformed(format!("failed to unmarshal {what}: {error}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;
    use spire_fakes::time::shortest;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Envelope {
        token: String,
    }

    #[test]
    fn an_envelope_has_its_members_once_and_no_others() {
        let read = |text: &str| read_envelope::<Envelope>(text.as_bytes(), "attestation data");
        assert_eq!(read(r#"{"token":"a"}"#).unwrap().token, "a");
        let large = format!(r#"{{"token":"{}"}}"#, "a".repeat(MAX_ENVELOPE_BYTES));
        for (text, why) in [
            ("", "failed to unmarshal attestation data: "),
            (r#"{"token":"a"} x"#, "trailing"),
            (r#"{"token":"a","token":"a"}"#, "duplicate field"),
            (r#"{"Token":"a"}"#, "unknown field"),
            (&large, "attestation data exceeds 65536 bytes"),
        ] {
            let AttestError::Malformed(error) = read(text).unwrap_err() else { panic!("{text}") };
            assert!(error.contains(why), "{error}");
        }
    }

    #[tokio::test]
    async fn none_takes_long() {
        let size = 1 << 20;
        let limit = Duration::from_millis(100);
        let string = format!(r#"{{"token":"{}"}}"#, "a".repeat(size));
        let largest = |part: &str| part.repeat(MAX_ENVELOPE_BYTES / part.len());
        for text in [string, "[".repeat(size), largest("["), largest(r#"{"token":"#), largest(" ")]
        {
            let took = shortest(limit, async || {
                read_envelope::<Envelope>(text.as_bytes(), "data").unwrap_err();
            });
            let took = took.await;
            assert!(took < limit, "{text:.30}: {took:?}");
        }
    }
}
