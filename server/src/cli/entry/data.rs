//! Entries from a file of the operator.

use serde::{Deserialize, Deserializer};
use spire_core::command::{Failure, parse_json, read_file};
use spire_core::wire::types::entry::AdditionalAttributes;
use spire_core::wire::types::{Entry, Selector};

use crate::cli::values::wire_id;

/// The file; unknown keys are passed over, as SPIRE does.
#[derive(Deserialize)]
struct File {
    #[serde(default, deserialize_with = "or_default")]
    entries: Vec<FileEntry>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct FileEntry {
    #[serde(deserialize_with = "or_default")]
    entry_id: String,
    #[serde(deserialize_with = "or_default")]
    selectors: Vec<FileSelector>,
    #[serde(deserialize_with = "or_default")]
    parent_id: String,
    #[serde(deserialize_with = "or_default")]
    spiffe_id: String,
    #[serde(deserialize_with = "or_default")]
    x509_svid_ttl: i32,
    #[serde(deserialize_with = "or_default")]
    jwt_svid_ttl: i32,
    /// Up to v1.4, the lifetime of both kinds of SVIDs.
    #[serde(deserialize_with = "or_default")]
    ttl: i32,
    #[serde(deserialize_with = "or_default")]
    federates_with: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    admin: bool,
    #[serde(deserialize_with = "or_default")]
    downstream: bool,
    /// The one key that is spelled otherwise.
    #[serde(rename = "entryExpiry", deserialize_with = "or_default")]
    expires_at: i64,
    #[serde(deserialize_with = "or_default")]
    dns_names: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    store_svid: bool,
    #[serde(deserialize_with = "or_default")]
    hint: String,
    #[serde(deserialize_with = "or_default")]
    revision_number: i64,
    additional_attributes: Option<FileAttributes>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct FileSelector {
    r#type: String,
    value: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct FileAttributes {
    #[serde(deserialize_with = "or_default")]
    disable_x509_svid_prefetch: bool,
    #[serde(deserialize_with = "or_default")]
    jwt_svid_include_jti: bool,
}

/// `null` is what programs in Go write for an empty list.
fn or_default<'d, D: Deserializer<'d>, T: Deserialize<'d> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The entries of the file at `path`, where `-` is the standard input.
pub(super) fn read(path: &str) -> Result<Vec<Entry>, Failure> {
    parse(&read_file(path)?)
}

fn parse(content: &[u8]) -> Result<Vec<Entry>, Failure> {
    let file: File = parse_json(content)?;
    file.entries.into_iter().enumerate().map(|(index, entry)| entry.into_wire(index)).collect()
}

impl FileEntry {
    fn into_wire(self, index: usize) -> Result<Entry, Failure> {
        let id = |what: &str, key: &str, text: &str| {
            wire_id(text).map_err(|error| {
                Failure::new(format!("invalid {what}: {error} (entries[{index}].{key} = {text:?})"))
            })
        };
        let selector = |one: FileSelector| Selector { r#type: one.r#type, value: one.value };
        let attributes = |one: FileAttributes| AdditionalAttributes {
            disable_x509_svid_prefetch: one.disable_x509_svid_prefetch,
            jwt_svid_include_jti: one.jwt_svid_include_jti,
        };
        let (x509_svid_ttl, jwt_svid_ttl) = match (self.x509_svid_ttl, self.jwt_svid_ttl) {
            (0, 0) => (self.ttl, self.ttl),
            present => present,
        };
        Ok(Entry {
            spiffe_id: Some(id("SPIFFE ID", "spiffe_id", &self.spiffe_id)?),
            parent_id: Some(id("parent ID", "parent_id", &self.parent_id)?),
            id: self.entry_id,
            selectors: self.selectors.into_iter().map(selector).collect(),
            x509_svid_ttl,
            jwt_svid_ttl,
            federates_with: self.federates_with,
            admin: self.admin,
            downstream: self.downstream,
            expires_at: self.expires_at,
            dns_names: self.dns_names,
            store_svid: self.store_svid,
            hint: self.hint,
            revision_number: self.revision_number,
            additional_attributes: self.additional_attributes.map(attributes),
            ..Entry::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn every_key_is_read_and_unknown_ones_are_passed_over() {
        let text = r#"{"entries":[{"selectors":[{"type":"unix","value":"uid:1"}],
            "parent_id":"spiffe://td/p","spiffe_id":"spiffe://td/w","x509_svid_ttl":3600,
            "jwt_svid_ttl":300,"federates_with":["partner.test"],"entry_id":"e","admin":true,
            "downstream":true,"entryExpiry":5,"dns_names":null,"store_svid":true,"hint":"h",
            "revision_number":2,"additional_attributes":{"jwt_svid_include_jti":true},
            "ttl":7,"entry_expiry":9}]}"#;
        let entry = parse(text.as_bytes()).unwrap().remove(0);
        assert_eq!((entry.id.as_str(), entry.x509_svid_ttl, entry.jwt_svid_ttl), ("e", 3600, 300));
        assert_eq!((entry.expires_at, entry.revision_number, entry.hint.as_str()), (5, 2, "h"));
        assert!(entry.admin && entry.downstream && entry.store_svid && entry.dns_names.is_empty());
        assert_eq!(entry.federates_with, ["partner.test"]);
        assert_eq!(entry.selectors[0].value, "uid:1");
        let attributes = entry.additional_attributes.unwrap();
        assert!(attributes.jwt_svid_include_jti && !attributes.disable_x509_svid_prefetch);
        assert_eq!(parse(b"{}").unwrap(), []);
    }

    #[test]
    fn the_former_lifetime_counts_where_there_is_none_of_today() {
        for (keys, lifetimes) in [
            ("\"ttl\":60", (60, 60)),
            ("\"ttl\":60,\"x509_svid_ttl\":5", (5, 0)),
            ("\"ttl\":60,\"jwt_svid_ttl\":5", (0, 5)),
            ("\"ttl\":null", (0, 0)),
        ] {
            let ids = "\"parent_id\":\"spiffe://td/p\",\"spiffe_id\":\"spiffe://td/w\"";
            let text = format!("{{\"entries\":[{{{ids},{keys}}}]}}");
            let entry = parse(text.as_bytes()).unwrap().remove(0);
            assert_eq!((entry.x509_svid_ttl, entry.jwt_svid_ttl), lifetimes, "{keys}");
        }
    }

    #[test]
    fn a_bad_id_refuses_the_file_and_is_named() {
        assert_eq!(
            refused(r#"{"entries":[{"spiffe_id":"foo"}]}"#),
            "invalid SPIFFE ID: scheme is missing or invalid (entries[0].spiffe_id = \"foo\")"
        );
        assert_eq!(
            refused(r#"{"entries":[{"spiffe_id":"spiffe://td/w"}]}"#),
            "invalid parent ID: cannot be empty (entries[0].parent_id = \"\")"
        );
    }
}
