//! Whose signature makes a document genuine: the keys of each region, as AWS publishes them or as
//! an operator does in their place.

use std::collections::BTreeMap;
use std::path::Path;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_cert::Certificate;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};

/// Region, kind, serial number, fingerprint, end of validity, issuer and public key of each
/// certificate; the last two in base64.
const TABLE: &str = include_str!("regions.tsv");
/// How long before its end a certificate is told of: 90 days.
const NOTICE: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Largest file of certificates in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `rsa2048`: a message of PKCS#7.
    Rsa2048,
    /// `signature`: a bare signature by a key of 1024 bits.
    Rsa1024,
}

/// A key with what its certificate says. The certificate is its container only: it is neither
/// verified nor does it expire, as AWS's own are not made for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RegionKey {
    /// The issuer, DER.
    pub(crate) issuer: Vec<u8>,
    /// The contents of the serial number's INTEGER.
    pub(crate) serial: Vec<u8>,
    /// The key as SubjectPublicKeyInfo, DER.
    pub(crate) public_key: Vec<u8>,
    /// SHA-256 of the certificate in hexadecimal digits.
    pub(crate) fingerprint: String,
    not_after: Timestamp,
}

/// The keys of all regions.
#[derive(Debug, Clone)]
pub(crate) struct RegionKeys(BTreeMap<(String, Kind), Vec<RegionKey>>);

impl RegionKeys {
    /// The keys that AWS publishes.
    pub(crate) fn published() -> Self {
        let mut keys = Self(BTreeMap::new());
        for line in TABLE.lines().skip(1) {
            let (region, kind, key) = read_line(line).expect("the table is made by a tool of ours");
            keys.0.entry((region, kind)).or_default().push(key);
        }
        keys
    }

    /// Puts the certificates of each file `<region>.pem` in `folder` in the place of those that
    /// are known for that region and kind. The size of a key tells its kind.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub(crate) fn replace_from(&mut self, folder: &Path) -> Result<(), String> {
        let unable = |path: &Path, why: &dyn std::fmt::Display| {
            format!("unable to load AWS certificates from {}: {why}", path.display())
        };
        let files = std::fs::read_dir(folder).map_err(|error| unable(folder, &error))?;
        let mut found = false;
        for file in files {
            let path = file.map_err(|error| unable(folder, &error))?.path();
            if path.extension().is_none_or(|extension| extension != "pem") {
                continue;
            }
            let region = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if !is_region(region) {
                return Err(unable(&path, &"the file is not named after a region"));
            }
            let keys = read_file(&path).map_err(|error| unable(&path, &error))?;
            for kind in [Kind::Rsa2048, Kind::Rsa1024] {
                let of_kind = keys.iter().filter(|(found, _)| *found == kind);
                let of_kind: Vec<_> = of_kind.map(|(_, key)| key.clone()).collect();
                if !of_kind.is_empty() {
                    self.0.insert((region.to_owned(), kind), of_kind);
                }
            }
            found = true;
        }
        if found { Ok(()) } else { Err(unable(folder, &"there is no file <region>.pem")) }
    }

    /// The keys of a region; none where the region is not known.
    pub(crate) fn of(&self, region: &str, kind: Kind) -> &[RegionKey] {
        self.0.get(&(region.to_owned(), kind)).map_or(&[], Vec::as_slice)
    }

    /// A sentence for each certificate that has ended by `now`, or ends soon after.
    pub(crate) fn ending(&self, now: Timestamp) -> Vec<String> {
        let mut sentences = Vec::new();
        for ((region, kind), keys) in &self.0 {
            for key in keys.iter().filter(|key| key.not_after.duration_since(now) < NOTICE) {
                let kind = match kind {
                    Kind::Rsa2048 => "RSA-2048",
                    Kind::Rsa1024 => "RSA",
                };
                sentences.push(format!(
                    "the AWS certificate of {region} ({kind}, SHA-256 {}) is valid until {}; put \
                     its successor into certificates_dir or update this program",
                    key.fingerprint, key.not_after
                ));
            }
        }
        sentences
    }
}

/// Whether `text` could be the name of a region.
pub(crate) fn is_region(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(allowed)
}

/// The partition that a region belongs to, as its name tells.
///
/// # Source
/// The partitions of AWS's published endpoints: each has a pattern of region names.
pub(crate) fn partition(region: &str) -> &'static str {
    let partitions = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("eusc-", "aws-eusc"),
        ("us-isob-", "aws-iso-b"),
        ("eu-isoe-", "aws-iso-e"),
        ("us-isof-", "aws-iso-f"),
        ("us-iso-", "aws-iso"),
    ];
    let of = partitions.into_iter().find(|(prefix, _)| region.starts_with(prefix));
    of.map_or("aws", |(_, partition)| partition)
}

fn read_line(line: &str) -> Option<(String, Kind, RegionKey)> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [region, kind, serial, fingerprint, not_after, issuer, public_key] = fields[..] else {
        return None;
    };
    let kind = if kind == "RSA-2048" { Kind::Rsa2048 } else { Kind::Rsa1024 };
    let key = RegionKey {
        issuer: STANDARD.decode(issuer).ok()?,
        serial: hex::decode(serial).ok()?,
        public_key: STANDARD.decode(public_key).ok()?,
        fingerprint: fingerprint.to_owned(),
        not_after: not_after.parse().ok()?,
    };
    Some((region.to_owned(), kind, key))
}

fn read_file(path: &Path) -> Result<Vec<(Kind, RegionKey)>, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
    }
    let text = std::fs::read(path).map_err(|error| error.to_string())?;
    let certificates = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let mut keys = Vec::new();
    for der in certificates.map_err(|error| error.to_string())? {
        let certificate = Certificate::from_der(&der).map_err(|error| error.to_string())?;
        let info = certificate.tbs_certificate().subject_public_key_info();
        if info.algorithm.oid == RSA {
            keys.push(read_certificate(&der, &certificate).map_err(|error| error.to_string())?);
        }
    }
    if keys.is_empty() { Err("no certificate of an RSA key".to_owned()) } else { Ok(keys) }
}

fn read_certificate(
    der: &[u8],
    certificate: &Certificate,
) -> Result<(Kind, RegionKey), x509_cert::der::Error> {
    let tbs = certificate.tbs_certificate();
    let info = tbs.subject_public_key_info();
    // A key of 2048 bits takes 270 bytes, one of 1024 takes 140.
    let kind = match info.subject_public_key.raw_bytes().len() {
        0..256 => Kind::Rsa1024,
        _ => Kind::Rsa2048,
    };
    let not_after = tbs.validity().not_after.to_unix_duration().as_secs();
    let key = RegionKey {
        issuer: tbs.issuer().to_der()?,
        serial: tbs.serial_number().as_bytes().to_vec(),
        public_key: info.to_der()?,
        fingerprint: hex::encode(digest(&SHA256, der)),
        not_after: i64::try_from(not_after)
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .unwrap_or(Timestamp::MAX),
    };
    Ok((kind, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_has_a_key_of_each_kind() {
        let keys = RegionKeys::published();
        assert_eq!(keys.0.len(), 78);
        for ((region, kind), of_kind) in &keys.0 {
            assert!(is_region(region) && of_kind.len() == 1, "{region} {kind:?}");
            let expected = if *kind == Kind::Rsa2048 { 294 } else { 162 };
            assert_eq!(of_kind[0].public_key.len(), expected, "{region} {kind:?}");
        }
        assert!(keys.of("xx-fake-1", Kind::Rsa1024).is_empty());
    }

    #[test]
    fn a08_the_former_key_of_all_regions_counts_where_aws_lists_it_and_nowhere_else() {
        let pem = include_bytes!(
            "../../../localstack-tests/data/aws-iid-certificates/group-rsa-legacy-default.pem"
        );
        let der = CertificateDer::from_pem_slice(pem).unwrap();
        let (_, former) = read_certificate(&der, &Certificate::from_der(&der).unwrap()).unwrap();
        let keys = RegionKeys::published();
        let counts_in = |region: &str| {
            keys.of(region, Kind::Rsa1024).iter().any(|key| key.public_key == former.public_key)
        };
        assert!(counts_in("us-east-1"));
        assert!(!counts_in("me-south-1") && !counts_in("xx-fake-1"));
        let regions = keys.0.keys().filter(|(region, _)| counts_in(region));
        assert_eq!(regions.filter(|(_, kind)| *kind == Kind::Rsa1024).count(), 17);
    }

    #[test]
    fn certificates_that_end_soon_are_named() {
        let keys = RegionKeys::published();
        let ending = |day: &str| keys.ending(format!("{day}T00:00:00Z").parse().unwrap());
        assert_eq!(ending("2026-11-27"), Vec::<String>::new());
        let ending = ending("2028-06-01");
        assert_eq!(ending.len(), 2, "{ending:?}");
        assert!(ending[0].contains("cn-north-1 (RSA, SHA-256 687424d4"), "{ending:?}");
        assert!(ending[1].contains("cn-northwest-1") && ending[1].contains("2028-07-02"));
    }

    #[test]
    fn partitions_follow_from_regions() {
        for (region, expected) in [
            ("us-west-2", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
            ("eusc-de-east-1", "aws-eusc"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
        ] {
            assert_eq!(partition(region), expected, "{region}");
        }
    }
}
