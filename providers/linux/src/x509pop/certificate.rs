//! What a node's certificate says, as selectors and as the fields of a path template.

use std::net::IpAddr;

use der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
use der::{Decode, Encode, Tag, Tagged};
use rustls_pki_types::CertificateDer;
use spire_core::path_template::Value;
use spire_core::svid::x509::decimal;
use x509_cert::Certificate;
use x509_cert::attr::AttributeTypeAndValue;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{KeyUsage, SubjectAltName};
use x509_cert::name::Name;

use super::chain::fingerprint;

/// A node's certificate, read.
pub(super) struct NodeCertificate {
    parsed: Certificate,
    pub(super) fingerprint: String,
    pub(super) dns_names: Vec<String>,
    pub(super) email_addresses: Vec<String>,
    pub(super) ip_addresses: Vec<IpAddr>,
    pub(super) uris: Vec<String>,
}

impl NodeCertificate {
    pub(super) fn read(der: &CertificateDer<'_>) -> Result<Self, der::Error> {
        let parsed = Certificate::from_der(der)?;
        let mut certificate = Self {
            fingerprint: fingerprint(der),
            dns_names: Vec::new(),
            email_addresses: Vec::new(),
            ip_addresses: Vec::new(),
            uris: Vec::new(),
            parsed,
        };
        let names = certificate.parsed.tbs_certificate().get_extension::<SubjectAltName>()?;
        for name in names.map(|(_, names)| names.0).unwrap_or_default() {
            match name {
                GeneralName::DnsName(name) => certificate.dns_names.push(name.to_string()),
                GeneralName::Rfc822Name(name) => certificate.email_addresses.push(name.to_string()),
                GeneralName::UniformResourceIdentifier(uri) => {
                    certificate.uris.push(uri.to_string());
                }
                GeneralName::IpAddress(bytes) => {
                    certificate.ip_addresses.extend(ip_address(bytes.as_bytes()));
                }
                _ => {}
            }
        }
        Ok(certificate)
    }

    /// The public key as SubjectPublicKeyInfo DER.
    pub(super) fn public_key(&self) -> Result<Vec<u8>, der::Error> {
        self.parsed.tbs_certificate().subject_public_key_info().to_der()
    }

    /// Whether the key may sign, which its use here is.
    pub(super) fn may_sign(&self) -> Result<bool, der::Error> {
        let usage = self.parsed.tbs_certificate().get_extension::<KeyUsage>()?;
        Ok(usage.is_some_and(|(_, usage)| usage.digital_signature()))
    }

    /// The first common name, or nothing.
    pub(super) fn common_name(&self) -> String {
        texts(self.parsed.tbs_certificate().subject(), COMMON_NAME).pop().unwrap_or_default()
    }

    /// The serial number in hexadecimal digits, an even number of them.
    pub(super) fn serial_number_hex(&self) -> String {
        let bytes = self.parsed.tbs_certificate().serial_number().as_bytes();
        let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
        hex::encode(&bytes[first..])
    }

    /// Key and value of each URI `x509pop://<trust domain>/<key>/<value>`, in order of their keys.
    pub(super) fn uri_selectors(&self, trust_domain: &str) -> Vec<(&str, &str)> {
        let prefix = format!("x509pop://{trust_domain}/");
        let mut found: Vec<_> = self
            .uris
            .iter()
            .filter_map(|uri| uri.strip_prefix(&prefix)?.split_once('/'))
            .filter(|(key, value)| !key.is_empty() && !value.is_empty())
            .collect();
        found.sort_unstable();
        found
    }

    /// The fields that a path template may name: those of Go's `x509.Certificate` that say who
    /// the node is.
    pub(super) fn fields(&self) -> Vec<(&'static str, Value)> {
        let tbs = self.parsed.tbs_certificate();
        let list = |texts: &[String]| Value::List(texts.iter().cloned().map(Value::from).collect());
        let addresses: Vec<_> = self.ip_addresses.iter().map(ToString::to_string).collect();
        vec![
            ("SerialNumber", decimal(tbs.serial_number().as_bytes()).into()),
            ("Subject", name_fields(tbs.subject())),
            ("Issuer", name_fields(tbs.issuer())),
            ("DNSNames", list(&self.dns_names)),
            ("EmailAddresses", list(&self.email_addresses)),
            ("IPAddresses", list(&addresses)),
            ("URIs", list(&self.uris)),
        ]
    }
}

const COMMON_NAME: &str = "2.5.4.3";
const SERIAL_NUMBER: &str = "2.5.4.5";
const LISTS: [(&str, &str); 7] = [
    ("Country", "2.5.4.6"),
    ("Organization", "2.5.4.10"),
    ("OrganizationalUnit", "2.5.4.11"),
    ("Locality", "2.5.4.7"),
    ("Province", "2.5.4.8"),
    ("StreetAddress", "2.5.4.9"),
    ("PostalCode", "2.5.4.17"),
];

fn name_fields(name: &Name) -> Value {
    let last = |oid| Value::from(texts(name, oid).pop().unwrap_or_default());
    let lists = LISTS.into_iter().map(|(field, oid)| {
        (field, Value::List(texts(name, oid).into_iter().map(Value::from).collect()))
    });
    let singles = [("CommonName", last(COMMON_NAME)), ("SerialNumber", last(SERIAL_NUMBER))];
    Value::map(lists.chain(singles))
}

fn texts(name: &Name, oid: &str) -> Vec<String> {
    name.iter()
        .filter(|attribute| attribute.oid.to_string() == oid)
        .filter_map(attribute_text)
        .collect()
}

fn attribute_text(attribute: &AttributeTypeAndValue) -> Option<String> {
    let value = &attribute.value;
    match value.tag() {
        Tag::Utf8String => value.decode_as::<Utf8StringRef<'_>>().ok().map(|text| text.to_string()),
        Tag::PrintableString => {
            value.decode_as::<PrintableStringRef<'_>>().ok().map(|text| text.to_string())
        }
        Tag::Ia5String => value.decode_as::<Ia5StringRef<'_>>().ok().map(|text| text.to_string()),
        Tag::TeletexString => {
            value.decode_as::<TeletexStringRef<'_>>().ok().map(|text| text.to_string())
        }
        _ => None,
    }
}

fn ip_address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}
