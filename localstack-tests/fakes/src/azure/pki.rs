//! The CAs of metadata services: a root, an issuing CA, and certificates of services.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, RsaKeySize,
    SanType, SerialNumber, SigningKey,
};
use rustls_pki_types::PrivatePkcs8KeyDer;

use super::asn1::{sequence, tlv};
use super::{ISSUER_ADDRESS, locked};

/// `id-pe-authorityInfoAccess`.
const AUTHORITY_INFO_ACCESS: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 1, 1];
/// `id-ad-caIssuers`, the content of the identifier.
const CA_ISSUERS: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x02];

/// The keys of the genuine CAs of this process and of what they certify: they take long to make.
static HOME: LazyLock<[Vec<u8>; 3]> =
    LazyLock::new(|| [0; 3].map(|_| fresh_key(RsaKeySize::_2048)));

/// A root, an issuing CA below it, and where the CA's certificate is published. What the CA
/// certifies has one key.
#[derive(Debug)]
pub struct Pki {
    root: Issued,
    issuing: Issued,
    service_key: Vec<u8>,
    published: Mutex<HashMap<String, Vec<u8>>>,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Issued {
    /// The certificate, DER.
    pub der: Vec<u8>,
    params: CertificateParams,
    key: KeyPair,
}

impl Issued {
    /// The certificate in PEM.
    pub fn pem(&self) -> String {
        pem(&self.der)
    }

    /// Signs with PKCS#1 v1.5 and SHA-256.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.key.sign(message).expect("an RSA key signs")
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }
}

/// A certificate to be issued.
#[derive(Debug, Clone)]
pub struct CertificateKind {
    /// The common name.
    pub common_name: String,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// An IP address.
    pub ip_address: Option<std::net::IpAddr>,
    /// Where it says that its issuer's certificate is.
    pub issuer_address: Option<String>,
    /// Whether it is for servers.
    pub server_auth: bool,
    /// Whether it is of a CA.
    pub is_ca: bool,
    /// How many hours ago it has begun, and in how many it ends.
    pub hours: (i64, i64),
    /// Its serial number; a fresh one where there is none.
    pub serial: Option<Vec<u8>>,
    /// Whether its key has 4096 bits in place of 2048.
    pub large_key: bool,
}

impl Default for CertificateKind {
    /// That of a genuine metadata service.
    fn default() -> Self {
        Self {
            common_name: "metadata.azure.com".to_owned(),
            dns_names: vec!["westeurope.metadata.azure.com".into(), "metadata.azure.com".into()],
            ip_address: None,
            issuer_address: Some(ISSUER_ADDRESS.to_owned()),
            server_auth: true,
            is_ca: false,
            hours: (24, 24 * 30),
            serial: None,
            large_key: false,
        }
    }
}

impl Default for Pki {
    fn default() -> Self {
        Self::new()
    }
}

impl Pki {
    /// CAs with fresh keys, the issuing one's certificate published where certificates say it is.
    pub fn new() -> Self {
        Self::with([0; 3].map(|_| fresh_key(RsaKeySize::_2048)))
    }

    /// The genuine CAs of this process.
    pub(crate) fn home() -> Self {
        Self::with(HOME.clone())
    }

    fn with([root_key, issuing_key, service_key]: [Vec<u8>; 3]) -> Self {
        let ca = |name: &str| CertificateKind {
            common_name: name.to_owned(),
            dns_names: Vec::new(),
            issuer_address: None,
            server_auth: false,
            is_ca: true,
            ..CertificateKind::default()
        };
        let root = issue(&ca("Fake Global Root"), &root_key, None);
        let issuing = ca("Fake Azure RSA TLS Issuing CA 01");
        let issuing = issue(&issuing, &issuing_key, Some(&root));
        let pki = Self { root, issuing, service_key, published: Mutex::default() };
        let der = pki.issuing.der.clone();
        pki.publish(ISSUER_ADDRESS, der);
        pki
    }

    /// The root's certificate in PEM.
    pub fn root_pem(&self) -> String {
        self.root.pem()
    }

    /// The issuing CA.
    pub fn issuing(&self) -> &Issued {
        &self.issuing
    }

    /// A certificate that the issuing CA has issued.
    pub fn issue(&self, kind: &CertificateKind) -> Issued {
        let large = kind.large_key.then(|| fresh_key(RsaKeySize::_4096));
        issue(kind, large.as_ref().unwrap_or(&self.service_key), Some(&self.issuing))
    }

    /// Publishes `certificate` at `address`.
    pub fn publish(&self, address: &str, certificate: impl Into<Vec<u8>>) {
        let path = url::Url::parse(address).expect("an address").path().to_owned();
        locked(&self.published).insert(path, certificate.into());
    }

    pub(crate) fn published(&self, path: &str) -> Option<Vec<u8>> {
        locked(&self.published).get(path).cloned()
    }
}

/// A certificate in PEM.
pub(crate) fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line));
    let lines = lines.collect::<Vec<_>>().join("\n");
    format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n")
}

fn fresh_key(size: RsaKeySize) -> Vec<u8> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, size).expect("a key").serialize_der()
}

fn issue(kind: &CertificateKind, key: &[u8], issuer: Option<&Issued>) -> Issued {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, kind.common_name.as_str());
    params.distinguished_name = name;
    let dns = kind.dns_names.iter();
    let dns = dns.map(|name| SanType::DnsName(name.as_str().try_into().expect("a DNS name")));
    params.subject_alt_names = dns.chain(kind.ip_address.map(SanType::IpAddress)).collect();
    let now = Timestamp::now();
    let at = |hours: i64| {
        let seconds = (now + SignedDuration::from_hours(hours)).as_second();
        let since = std::time::Duration::from_secs(seconds.try_into().expect("after 1970"));
        (std::time::UNIX_EPOCH + since).into()
    };
    params.not_before = at(-kind.hours.0);
    params.not_after = at(kind.hours.1);
    let serial = kind.serial.clone();
    let serial = serial.unwrap_or_else(|| uuid::Uuid::new_v4().as_bytes()[1..].to_vec());
    params.serial_number = Some(SerialNumber::from(serial));
    if kind.is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    } else {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
    params.extended_key_usages = match (kind.server_auth, kind.is_ca) {
        (true, _) => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
        (false, true) => Vec::new(),
        (false, false) => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    if let Some(address) = &kind.issuer_address {
        let access = sequence(&[tlv(0x06, CA_ISSUERS), tlv(0x86, address.as_bytes())]);
        let access = CustomExtension::from_oid_content(AUTHORITY_INFO_ACCESS, sequence(&[access]));
        params.custom_extensions.push(access);
    }
    let key = PrivatePkcs8KeyDer::from(key);
    let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_RSA_SHA256).expect("a key");
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, &issuer.issuer()),
        None => params.self_signed(&key),
    };
    let der = certificate.expect("a certificate").der().to_vec();
    Issued { der, params, key }
}
