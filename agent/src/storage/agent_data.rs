//! What an agent keeps of itself, and the form that SPIRE's agents write it in, so that either can
//! take over from the other.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use super::StorageError;

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentData {
    /// The agent's SVID: the leaf first, DER. Empty where it has none.
    pub svid: Vec<Bytes>,
    /// The roots of the trust domain, DER. Empty where none were ever stored.
    pub bundle: Vec<Bytes>,
    /// Whether the server said that this agent may attest again.
    pub reattestable: bool,
    /// What the bootstrap state is kept for.
    pub bootstrap: BootstrapRecord,
}

/// How far a first or a repeated bootstrap has come, over restarts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BootstrapRecord {
    /// Whether the configured source of the first bundle is to be used, whatever is stored.
    pub source: BootstrapUse,
    /// When the attempts began; `None` while none is under way.
    pub started_at: Option<Timestamp>,
    /// How many there were.
    pub attempts: u64,
}

/// Which bundle the next attestation trusts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BootstrapUse {
    /// Nothing is known yet.
    Unspecified,
    /// The configured source: the stored bundle has been given up.
    Configured,
    /// The stored bundle where there is one.
    #[default]
    Stored,
}

/// The file as it is written: one line, members in this order.
#[derive(Serialize, Deserialize)]
struct Written {
    #[serde(default)]
    svid: Option<Vec<String>>,
    #[serde(default)]
    bundle: Option<Vec<String>>,
    #[serde(default)]
    reattestable: bool,
    #[serde(default = "stored_use")]
    bootstrap_use: u8,
    #[serde(default = "no_time")]
    bootstrap_start_time: String,
    #[serde(default)]
    connection_attempts: u64,
}

/// How the absence of a time is written.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

fn no_time() -> String {
    NO_TIME.to_owned()
}

fn stored_use() -> u8 {
    2
}

pub(super) fn parse(text: &[u8]) -> Result<AgentData, StorageError> {
    let written: Written = serde_json::from_slice(text).map_err(|error| {
        // The sentence that SPIRE has for a file that was cut off.
        let text =
            if error.is_eof() { "unexpected end of JSON input".into() } else { error.to_string() };
        StorageError::Malformed(text)
    })?;
    let started_at = match written.bootstrap_start_time.as_str() {
        NO_TIME | "" => None,
        text => Some(text.parse().map_err(|_| {
            StorageError::Malformed(format!("bootstrap_start_time: {text:?} is no time"))
        })?),
    };
    Ok(AgentData {
        svid: certificates("svid", written.svid)?,
        bundle: certificates("bundle", written.bundle)?,
        reattestable: written.reattestable,
        bootstrap: BootstrapRecord {
            source: match written.bootstrap_use {
                0 => BootstrapUse::Unspecified,
                1 => BootstrapUse::Configured,
                _ => BootstrapUse::Stored,
            },
            started_at,
            attempts: written.connection_attempts,
        },
    })
}

pub(super) fn render(data: &AgentData) -> String {
    let items = |certificates: &[Bytes]| {
        let item = |certificate: &Bytes| STANDARD.encode(pem(certificate));
        (!certificates.is_empty()).then(|| certificates.iter().map(item).collect())
    };
    let written = Written {
        svid: items(&data.svid),
        bundle: items(&data.bundle),
        reattestable: data.reattestable,
        bootstrap_use: match data.bootstrap.source {
            BootstrapUse::Unspecified => 0,
            BootstrapUse::Configured => 1,
            BootstrapUse::Stored => 2,
        },
        bootstrap_start_time: data.bootstrap.started_at.map_or_else(no_time, |at| at.to_string()),
        connection_attempts: data.bootstrap.attempts,
    };
    serde_json::to_string(&written).expect("strings, numbers and booleans are JSON")
}

fn pem(certificate: &[u8]) -> String {
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    let encoded = STANDARD.encode(certificate);
    for line in encoded.as_bytes().chunks(64) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}

fn certificates(member: &str, items: Option<Vec<String>>) -> Result<Vec<Bytes>, StorageError> {
    let certificate = |item: String| {
        let pem = STANDARD.decode(item).ok()?;
        let der = CertificateDer::from_pem_slice(&pem).ok()?;
        Some(Bytes::copy_from_slice(&der))
    };
    items
        .unwrap_or_default()
        .into_iter()
        .map(|item| {
            certificate(item).ok_or_else(|| {
                StorageError::Malformed(format!("{member}: an item is no PEM certificate"))
            })
        })
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Data with nothing left out.
    pub(in super::super) fn data() -> AgentData {
        AgentData {
            svid: vec![Bytes::from_static(b"0\x03leaf"), Bytes::from_static(b"intermediate")],
            bundle: vec![Bytes::from_static(b"root")],
            reattestable: true,
            bootstrap: BootstrapRecord {
                source: BootstrapUse::Configured,
                started_at: Some("2026-01-02T03:04:05Z".parse().unwrap()),
                attempts: 3,
            },
        }
    }

    #[test]
    fn the_file_has_the_members_that_spire_writes() {
        assert_eq!(
            render(&AgentData::default()),
            r#"{"svid":null,"bundle":null,"reattestable":false,"bootstrap_use":2,"bootstrap_start_time":"0001-01-01T00:00:00Z","connection_attempts":0}"#
        );
        assert_eq!(parse(render(&data()).as_bytes()).unwrap(), data());
        assert!(render(&data()).contains(r#""bootstrap_start_time":"2026-01-02T03:04:05Z""#));
        assert!(render(&data()).contains(r#""svid":["LS0tLS1CRUdJTiBDRVJUSUZJQ0FUR"#));
    }

    #[test]
    fn unknown_members_are_ignored_and_missing_ones_tolerated() {
        assert_eq!(parse(br#"{"other":1}"#).unwrap(), AgentData::default());
    }
}
