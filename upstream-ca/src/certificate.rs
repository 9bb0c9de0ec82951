//! A certificate of an authority, with what a chain is checked by.

use bytes::Bytes;
use der::{Decode, Encode, Reader, SliceReader};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, KeyUsage, NameConstraints, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::time::Time;

/// Most certificates of a chain or a bundle file that are read.
pub(crate) const MAX_CERTIFICATES: usize = 64;

/// A certificate, taken apart once.
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) der: Bytes,
    /// SubjectPublicKeyInfo, DER.
    pub(crate) public_key: Vec<u8>,
    /// Whether it may sign certificates: CA:TRUE, and keyCertSign where it names key usages.
    pub(crate) is_ca: bool,
    /// How many authorities may stand between it and a leaf, where that is limited.
    pub(crate) path_length: Option<usize>,
    /// Whether it says which URIs or which subjects may stand below it. Every SVID has both, and
    /// Rust's verifiers take such a rule for broken, whatever it says.
    pub(crate) constrains_names: bool,
    /// What it says of DNS names below it, such as `permitted inside.example`.
    pub(crate) dns_rules: Vec<String>,
    /// Its URI SANs as written.
    pub(crate) uris: Vec<String>,
    pub(crate) subject_key_id: Option<Vec<u8>>,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    subject: Vec<u8>,
    issuer: Vec<u8>,
    signed_part: Bytes,
    parsed: x509_cert::Certificate,
}

impl Certificate {
    pub(crate) fn read(der: Bytes) -> Result<Self, String> {
        Self::parse(der).map_err(|err| format!("a certificate cannot be read: {err}"))
    }

    fn parse(der: Bytes) -> der::Result<Self> {
        let parsed = x509_cert::Certificate::from_der(&der)?;
        let inner = parsed.tbs_certificate();
        let constraints = inner.get_extension::<BasicConstraints>()?.map(|(_, value)| value);
        let usage = inner.get_extension::<KeyUsage>()?.map(|(_, value)| value);
        let names = inner.get_extension::<SubjectAltName>()?.map_or(vec![], |(_, names)| names.0);
        let key_id = inner.get_extension::<SubjectKeyIdentifier>()?;
        let rules = inner.get_extension::<NameConstraints>()?.map(|(_, rules)| rules);
        let uri = |name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.to_string()),
            _ => None,
        };
        Ok(Self {
            public_key: inner.subject_public_key_info().to_der()?,
            is_ca: constraints.as_ref().is_some_and(|constraints| constraints.ca)
                && usage.is_none_or(|usage| usage.key_cert_sign()),
            path_length: constraints.and_then(|it| it.path_len_constraint).map(usize::from),
            constrains_names: rules.as_ref().is_some_and(constrains_names),
            dns_rules: rules.as_ref().map(dns_rules).unwrap_or_default(),
            subject_key_id: key_id.map(|(_, id)| id.0.as_bytes().to_vec()),
            uris: names.into_iter().filter_map(uri).collect(),
            not_before: instant(inner.validity().not_before)?,
            not_after: instant(inner.validity().not_after)?,
            subject: inner.subject().to_der()?,
            issuer: inner.issuer().to_der()?,
            signed_part: der.slice_ref(signed_part(&der)?),
            parsed,
            der,
        })
    }

    /// Whether `issuer` has the name of its issuer and the key that signed it.
    pub(crate) fn is_signed_by(&self, issuer: &Self) -> bool {
        if self.issuer != issuer.subject {
            return false;
        }
        let issuer = CertificateDer::from(issuer.der.as_ref());
        let Ok(issuer) = webpki::EndEntityCert::try_from(&issuer) else { return false };
        let Ok(algorithm) = self.parsed.signature_algorithm().to_der() else { return false };
        let signature = self.parsed.signature().raw_bytes();
        // The key decides which of the algorithms with this identifier can apply.
        webpki::ALL_VERIFICATION_ALGS
            .iter()
            .filter(|known| is_algorithm(&algorithm, known.signature_alg_id().as_ref()))
            .any(|known| issuer.verify_signature(*known, &self.signed_part, signature).is_ok())
    }
}

fn constrains_names(rules: &NameConstraints) -> bool {
    let subtrees = [&rules.permitted_subtrees, &rules.excluded_subtrees];
    subtrees.into_iter().flatten().flatten().any(|subtree| {
        matches!(
            subtree.base,
            GeneralName::UniformResourceIdentifier(_) | GeneralName::DirectoryName(_)
        )
    })
}

fn dns_rules(rules: &NameConstraints) -> Vec<String> {
    let subtrees =
        [("permitted", &rules.permitted_subtrees), ("excluded", &rules.excluded_subtrees)];
    let rule = |(kind, base): (&str, &GeneralName)| match base {
        GeneralName::DnsName(name) => Some(format!("{kind} {name}")),
        _ => None,
    };
    let bases = subtrees.into_iter().flat_map(|(kind, subtrees)| {
        subtrees.iter().flatten().map(move |subtree| (kind, &subtree.base))
    });
    bases.filter_map(rule).collect()
}

fn instant(time: Time) -> der::Result<Timestamp> {
    let seconds = i64::try_from(time.to_unix_duration().as_secs()).ok();
    // Years after 9999 cannot be written in a certificate.
    let instant = seconds.and_then(|seconds| Timestamp::from_second(seconds).ok());
    instant.ok_or_else(|| der::ErrorKind::DateTime.into())
}

/// Reads DER certificates, at most [`MAX_CERTIFICATES`].
pub(crate) fn read_all<'d>(
    certificates: impl IntoIterator<Item = &'d Bytes>,
) -> Result<Vec<Certificate>, String> {
    let mut read = Vec::new();
    for der in certificates {
        if read.len() == MAX_CERTIFICATES {
            return Err(format!("there are more than {MAX_CERTIFICATES} certificates"));
        }
        read.push(Certificate::read(der.clone())?);
    }
    Ok(read)
}

/// The bytes of a certificate that its signature covers.
fn signed_part(certificate: &[u8]) -> der::Result<&[u8]> {
    SliceReader::new(certificate)?.sequence(|fields: &mut SliceReader<'_>| {
        let signed_part = fields.tlv_bytes()?;
        fields.tlv_bytes()?;
        fields.tlv_bytes()?;
        Ok(signed_part)
    })
}

/// Whether the content of the sequence `encoded` is `identifier`.
fn is_algorithm(encoded: &[u8], identifier: &[u8]) -> bool {
    // An algorithm identifier is shorter than 128 bytes: its header has two.
    encoded.get(2..) == Some(identifier)
}
