//! Evidence that was written down, to be looked at without a node or a server at hand.

use base64::prelude::{BASE64_STANDARD, Engine};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::limits::MAX_EVIDENCE_BYTES;

/// What a node would send: JSON `{type, payload, collected_at}`, the payload in base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WrittenEvidence {
    /// The attestor by its name.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the attestor's scheme lays out.
    #[serde(serialize_with = "write_base64", deserialize_with = "read_base64")]
    pub payload: Vec<u8>,
    /// When it was collected, RFC 3339.
    #[serde(serialize_with = "write_time", deserialize_with = "read_time")]
    pub collected_at: Timestamp,
}

fn write_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
}

fn read_base64<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = BASE64_STANDARD.decode(text).map_err(de::Error::custom)?;
    if bytes.len() > MAX_EVIDENCE_BYTES {
        let limit = format!("payload has more than {MAX_EVIDENCE_BYTES} bytes");
        return Err(de::Error::custom(limit));
    }
    Ok(bytes)
}

fn write_time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn read_time<'d, D: Deserializer<'d>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_again() {
        let evidence = WrittenEvidence {
            kind: "aws_iid".to_owned(),
            payload: b"{}".to_vec(),
            collected_at: "2026-02-16T10:00:00Z".parse().unwrap(),
        };
        let text = serde_json::to_string(&evidence).unwrap();
        assert_eq!(
            text,
            r#"{"type":"aws_iid","payload":"e30=","collected_at":"2026-02-16T10:00:00Z"}"#
        );
        assert_eq!(serde_json::from_str::<WrittenEvidence>(&text).unwrap(), evidence);
        for bad in ["{}", &text.replace("e30=", "%"), &text.replace("type", "kind")] {
            serde_json::from_str::<WrittenEvidence>(bad).unwrap_err();
        }
    }
}
