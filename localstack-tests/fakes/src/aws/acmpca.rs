//! AWS Private CA: certificates are issued by templates, after a while, by authorities that may be
//! disabled.
//!
//! # Source
//! AWS Private CA API Reference; User Guide, "Understanding certificate templates".

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension,
    DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, RsaKeySize,
};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use uuid::Uuid;

use super::World;
use super::call::{Call, Refusal};
use crate::http::Response;

/// How long a token stands for one certificate.
const TOKEN: SignedDuration = SignedDuration::from_mins(5);

/// An authority with its key, and what it has issued.
#[derive(Debug)]
pub struct PrivateCa {
    /// Its ARN.
    pub arn: String,
    /// Such as `ACTIVE` or `DISABLED`.
    pub status: String,
    /// What lies between it and its root, the root last. Empty for a root.
    pub chain: Vec<Vec<u8>>,
    /// How often a fresh certificate is not issued yet when it is asked for.
    pub in_progress: usize,
    /// What goes wrong with the next certificates.
    pub malice: Option<Malice>,
    der: Vec<u8>,
    ends_at: Timestamp,
    params: CertificateParams,
    key: KeyPair,
    issued: Vec<Certificate>,
}

/// What an authority that is not what it should be does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malice {
    /// The certificate is for another key.
    OtherKey,
    /// The certificate is of no CA.
    NoCa,
    /// The certificate says that only `other.example` may be below it.
    NameConstraints,
    /// The chain ends in a root that is not the authority's.
    OtherRoot,
    /// The certificate is valid for a century.
    Outlives,
}

#[derive(Debug)]
struct Certificate {
    arn: String,
    der: Vec<u8>,
    chain: Vec<Vec<u8>>,
    left: usize,
    token: Option<(String, Timestamp)>,
}

impl PrivateCa {
    /// A root of `account` in `region` that lives for `days`, with a key of P-256 or RSA.
    pub fn root(account: &str, region: &str, days: i64, rsa: bool) -> Self {
        let (params, key) = template("root", days, rsa);
        let der = params.self_signed(&key).expect("a root signs itself").der().to_vec();
        Self::new([account, region], der, days, params, key, Vec::new())
    }

    /// An authority below `parent`, which another account may keep.
    pub fn below(parent: &Self, region: &str, days: i64) -> Self {
        let (mut params, key) = template("issuing", days, false);
        params.use_authority_key_identifier_extension = true;
        let der = params.signed_by(&key, &parent.issuer()).expect("a CA signs").der().to_vec();
        let account = parent.arn.split(':').nth(4).unwrap_or_default();
        let mut chain = vec![parent.der.clone()];
        chain.extend_from_slice(&parent.chain);
        Self::new([account, region], der, days, params, key, chain)
    }

    fn new(
        [account, region]: [&str; 2],
        der: Vec<u8>,
        days: i64,
        params: CertificateParams,
        key: KeyPair,
        chain: Vec<Vec<u8>>,
    ) -> Self {
        let id = Uuid::new_v4();
        Self {
            arn: format!("arn:aws:acm-pca:{region}:{account}:certificate-authority/{id}"),
            status: "ACTIVE".to_owned(),
            chain,
            in_progress: 0,
            malice: None,
            der,
            ends_at: in_days(days),
            params,
            key,
            issued: Vec::new(),
        }
    }

    /// Its own certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.der
    }

    /// The root at the end of its chain, DER; itself where it is one.
    pub fn root_certificate(&self) -> &[u8] {
        self.chain.last().unwrap_or(&self.der)
    }

    /// How many certificates it has issued, each of which is paid for.
    pub fn bought(&self) -> usize {
        self.issued.len()
    }

    /// Has all certificates done that are in progress.
    pub fn finish(&mut self) {
        self.issued.iter_mut().for_each(|certificate| certificate.left = 0);
    }

    /// Gives it another certificate, with the same name and ARN: what an import of a renewed one
    /// does.
    pub fn renew(&mut self, other: Self) {
        (self.der, self.ends_at, self.chain) = (other.der, other.ends_at, other.chain);
        (self.params, self.key) = (other.params, other.key);
    }

    fn issuer(&self) -> Issuer<'_, &KeyPair> {
        Issuer::from_params(&self.params, &self.key)
    }

    fn algorithm(&self) -> &'static str {
        match self.key.is_compatible(&PKCS_RSA_SHA256) {
            true => "SHA256WITHRSA",
            false => "SHA256WITHECDSA",
        }
    }
}

/// A CA with a fresh key.
fn template(name: &str, days: i64, rsa: bool) -> (CertificateParams, KeyPair) {
    let key = match rsa {
        true => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        false => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
    };
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Fake Private CA");
    let name = format!("{name} {}", Uuid::new_v4());
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = ca_usages();
    params.not_before = moment(Timestamp::now() - SignedDuration::from_hours(1));
    params.not_after = moment(in_days(days));
    (params, key.expect("a key"))
}

fn in_days(days: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_hours(24 * days)
}

fn ca_usages() -> Vec<KeyUsagePurpose> {
    vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]
}

fn moment<T: From<SystemTime>>(at: Timestamp) -> T {
    let since = u64::try_from(at.as_second()).expect("after 1970");
    (SystemTime::UNIX_EPOCH + Duration::from_secs(since)).into()
}

pub(super) fn describe(call: &Call<'_>, world: &mut World) -> Result<Response, Refusal> {
    let authority = authority(call, world)?;
    let ends_at = authority.ends_at.as_second();
    Ok(call.json(&json!({
        "CertificateAuthority": {
            "Arn": authority.arn,
            "Status": authority.status,
            "Type": if authority.chain.is_empty() { "ROOT" } else { "SUBORDINATE" },
            "NotAfter": ends_at,
            "CertificateAuthorityConfiguration": {
                "KeyAlgorithm": "EC_prime256v1",
                "SigningAlgorithm": authority.algorithm(),
                "Subject": {},
            },
        },
    })))
}

pub(super) fn own_certificate(call: &Call<'_>, world: &mut World) -> Result<Response, Refusal> {
    let authority = authority(call, world)?;
    Ok(call.json(&answer(&authority.der, &authority.chain)))
}

pub(super) fn issue(call: &Call<'_>, world: &mut World) -> Result<Response, Refusal> {
    let body = call.body();
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let authority = authority(call, world)?;
    if authority.status != "ACTIVE" {
        let message = "The certificate authority is not in a valid state for issuing certificates";
        return Err(Refusal::new(400, "InvalidStateException", message));
    }
    let (token, now) = (text("IdempotencyToken"), Timestamp::now());
    let mut known = authority.issued.iter();
    let is_repeated = |one: &&Certificate| {
        one.token.as_ref().is_some_and(|(known, at)| *known == token && now < *at + TOKEN)
    };
    if let Some(known) = known.find(is_repeated).filter(|_| !token.is_empty()) {
        return Ok(call.json(&json!({ "CertificateArn": known.arn })));
    }
    let algorithm = text("SigningAlgorithm");
    let family = if authority.algorithm().ends_with("RSA") { "WITHRSA" } else { "WITHECDSA" };
    if !algorithm.ends_with(family) {
        return Err(invalid(format!(
            "SigningAlgorithm {algorithm} does not fit the key of the CA"
        )));
    }
    let ends_at = match (body["Validity"]["Type"].as_str(), body["Validity"]["Value"].as_i64()) {
        (Some("ABSOLUTE"), Some(seconds)) => Timestamp::from_second(seconds).ok(),
        _ => None,
    };
    let ends_at = ends_at.ok_or_else(|| invalid("Validity is not understood".to_owned()))?;
    if ends_at.as_second() > authority.ends_at.as_second() {
        return Err(invalid("the certificate validity outlives the CA's".to_owned()));
    }
    let request = BASE64_STANDARD.decode(text("Csr")).unwrap_or_default();
    let request = read_request(&request).ok_or_else(|| {
        Refusal::new(400, "MalformedCSRException", "The certificate signing request is invalid")
    })?;
    let path_length = path_length(&text("TemplateArn")).ok_or_else(|| {
        Refusal::new(400, "InvalidArgsException", "The template ARN is not known")
    })?;
    let certificate = authority.sign(request, path_length, ends_at);
    let arn = format!("{}/certificate/{}", authority.arn, Uuid::new_v4().simple());
    let mut chain = vec![authority.der.clone()];
    chain.extend_from_slice(&authority.chain);
    if authority.malice == Some(Malice::OtherRoot) {
        let (params, key) = template("stranger", 1000, false);
        let root = params.self_signed(&key).expect("a root signs itself");
        chain.push(root.der().to_vec());
    }
    let left = authority.in_progress;
    let token = Some((token, now));
    authority.issued.push(Certificate { arn: arn.clone(), der: certificate, chain, left, token });
    Ok(call.json(&json!({ "CertificateArn": arn })))
}

pub(super) fn certificate(call: &Call<'_>, world: &mut World) -> Result<Response, Refusal> {
    let body = call.body();
    let arn = body["CertificateArn"].as_str().unwrap_or_default();
    let authority = authority(call, world)?;
    let found = authority.issued.iter_mut().find(|one| one.arn == arn);
    let found = found.ok_or_else(|| absent(arn))?;
    if found.left > 0 {
        found.left -= 1;
        let message = "The certificate is not yet issued";
        return Err(Refusal::new(400, "RequestInProgressException", message));
    }
    Ok(call.json(&answer(&found.der, &found.chain)))
}

impl PrivateCa {
    /// What `SubordinateCACertificate_PathLenN/V1` makes of a request: subject and names are the
    /// request's, all else is the template's.
    fn sign(
        &self,
        mut request: CertificateSigningRequestParams,
        path_length: u8,
        ends_at: Timestamp,
    ) -> Vec<u8> {
        let params = &mut request.params;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
        params.key_usages = ca_usages();
        params.extended_key_usages = Vec::new();
        params.use_authority_key_identifier_extension = true;
        params.not_before = moment(Timestamp::now() - SignedDuration::from_hours(1));
        params.not_after = moment(ends_at);
        match self.malice {
            Some(Malice::NoCa) => params.is_ca = IsCa::ExplicitNoCa,
            Some(Malice::Outlives) => {
                params.not_after = moment(ends_at + SignedDuration::from_hours(24 * 36_500));
            }
            Some(Malice::NameConstraints) => {
                // permittedSubtrees with one URI, `other.example`.
                let host = b"other.example";
                let length = u8::try_from(host.len()).expect("a short name");
                let mut der = vec![0x30, length + 6, 0xa0, length + 4, 0x30, length + 2];
                der.extend([0x86, length]);
                der.extend(host);
                let oid = [2, 5, 29, 30];
                let mut extension = CustomExtension::from_oid_content(&oid, der);
                extension.set_criticality(true);
                params.custom_extensions.push(extension);
            }
            _ => {}
        }
        if self.malice == Some(Malice::OtherKey) {
            let key = KeyPair::generate().expect("a key");
            let signed = request.params.signed_by(&key, &self.issuer());
            return signed.expect("a CA signs").der().to_vec();
        }
        request.signed_by(&self.issuer()).expect("a CA signs").der().to_vec()
    }
}

fn authority<'w>(call: &Call<'_>, world: &'w mut World) -> Result<&'w mut PrivateCa, Refusal> {
    let body = call.body();
    let arn = body["CertificateAuthorityArn"].as_str().unwrap_or_default();
    let found = world.authorities.iter_mut().find(|authority| authority.arn == arn);
    found.ok_or_else(|| absent(arn))
}

fn read_request(pem: &[u8]) -> Option<CertificateSigningRequestParams> {
    let request = CertificateSigningRequestDer::from_pem_slice(pem).ok()?;
    CertificateSigningRequestParams::from_der(&request).ok()
}

/// The path length of a template for CAs; `None` where it is another one.
fn path_length(template: &str) -> Option<u8> {
    let name = template.strip_prefix("arn:aws:acm-pca:::template/")?.strip_suffix("/V1")?;
    let digit = name.strip_prefix("SubordinateCACertificate_PathLen")?;
    digit.parse().ok().filter(|length| *length < 4)
}

fn answer(certificate: &[u8], chain: &[Vec<u8>]) -> Value {
    let chain: String = chain.iter().map(|der| pem(der)).collect();
    let chain = (!chain.is_empty()).then_some(chain);
    json!({ "Certificate": pem(certificate), "CertificateChain": chain })
}

fn pem(der: &[u8]) -> String {
    let base64 = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = base64
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap_or_default())
        .collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn invalid(message: String) -> Refusal {
    Refusal::new(400, "ValidationException", message)
}

fn absent(arn: &str) -> Refusal {
    Refusal::new(400, "ResourceNotFoundException", format!("Could not find {arn}"))
}
