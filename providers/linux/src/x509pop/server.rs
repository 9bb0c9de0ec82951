//! The server's half: evidence → a node whose certificate was verified and whose key was used.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P521_SHA256_ASN1,
    EcdsaVerificationAlgorithm, RSA_PSS_2048_8192_SHA256, RsaParameters, RsaPssSaltLength,
    UnparsedPublicKey,
};
use der::asn1::UintRef;
use der::{Decode, Encode};
use rustls_pki_types::CertificateDer;
use spire_core::catalog::{Host, Plugin};
use spire_core::id::SpiffeId;
use spire_core::node::{AttestError, Attested, NodeAttestor, Peer};
use spire_core::path_template::Value;
use spire_core::selector::Selector;
use x509_cert::spki::{ObjectIdentifier, SubjectPublicKeyInfoRef};

use super::NAME;
use super::certificate::NodeCertificate;
use super::chain::Roots;
use super::config::{Config, Trust};
use super::evidence::{
    Base64, Challenge, NONCE_BYTES, Nonce, Payload, Response, nonce, signed_message,
};

/// Largest first message in bytes, several times what the largest legal one takes.
const MAX_PAYLOAD_BYTES: usize = 256 << 10;
/// Largest answer to a challenge in bytes.
const MAX_RESPONSE_BYTES: usize = 16 << 10;

/// `x509pop` of the server.
pub const PLUGIN: Plugin<dyn NodeAttestor> = Plugin {
    name: NAME,
    build: |section, host| Ok(Arc::new(X509Pop { config: section.decode()?, host: host.clone() })),
};

struct X509Pop {
    config: Config,
    host: Host,
}

#[async_trait]
impl NodeAttestor for X509Pop {
    async fn verify(&self, evidence: &[u8], peer: &mut dyn Peer) -> Result<Attested, AttestError> {
        let chain = peer.examination().check("evidence", self.read_chain(evidence))?;
        let leaf = NodeCertificate::read(&chain[0])
            .map_err(|error| malformed(format!("unable to parse leaf certificate: {error}")));
        let leaf = peer.examination().check("leaf certificate", leaf)?;
        peer.examination().claim(format_args!("certificate {}", leaf.fingerprint));
        let key = ProofKey::of(&leaf, self.config.max_rsa_key_size);
        let key = peer.examination().check("leaf certificate's key", key)?;

        let authorities = self
            .roots()?
            .verify(&chain, self.host.clock.now())
            .map_err(|error| refused(format!("certificate verification failed: {error}")));
        let authorities = peer.examination().check("certificate chain", authorities)?;
        let agent_id = peer.examination().check("agent ID", self.agent_id(&leaf))?;
        if self.config.verify_client_ip {
            let same = check_address(&leaf, peer);
            peer.examination().check("client IP address", same)?;
        }
        prove_possession(&key, peer).await?;

        Ok(Attested {
            agent_id,
            can_reattest: true,
            resolver: Box::new(self.selectors(&leaf, authorities)?),
        })
    }
}

impl X509Pop {
    fn read_chain(&self, evidence: &[u8]) -> Result<Vec<CertificateDer<'static>>, AttestError> {
        if evidence.len() > MAX_PAYLOAD_BYTES {
            return Err(malformed(format!("attestation data exceeds {MAX_PAYLOAD_BYTES} bytes")));
        }
        let payload: Payload = serde_json::from_slice(evidence)
            .map_err(|error| malformed(format!("failed to unmarshal data: {error}")))?;
        if payload.certificates.is_empty() {
            return Err(malformed("no certificate to attest".to_owned()));
        }
        if payload.certificates.len() - 1 > self.config.max_intermediates {
            return Err(malformed("too many intermediate certificates".to_owned()));
        }
        Ok(payload.certificates.into_iter().map(|Base64(der)| CertificateDer::from(der)).collect())
    }

    fn roots(&self) -> Result<Roots, AttestError> {
        match &self.config.trust {
            Trust::Pki(roots) => Ok(roots.clone()),
            Trust::Bundle { .. } => {
                let bundle = self.host.bundle.borrow().clone();
                let roots = bundle.x509_authorities.iter();
                let roots = roots.map(|root| CertificateDer::from(root.certificate.to_vec()));
                Roots::new(roots.collect()).map_err(|error| {
                    AttestError::Unavailable(format!("trust bundle cannot be used: {error}"))
                })
            }
        }
    }

    fn agent_id(&self, leaf: &NodeCertificate) -> Result<SpiffeId, AttestError> {
        let trust_domain = &self.host.trust_domain;
        let uri_selectors = leaf.uri_selectors(trust_domain.as_str());
        let uri_selectors = uri_selectors.into_iter().map(|(key, value)| (key, value.into()));
        let mut fields = leaf.fields();
        fields.extend([
            ("PluginName", NAME.into()),
            ("TrustDomain", trust_domain.as_str().into()),
            ("Fingerprint", leaf.fingerprint.as_str().into()),
            ("SerialNumberHex", leaf.serial_number_hex().into()),
            ("SVIDPathTrimmed", self.svid_path(leaf)?.into()),
            ("URISanSelectors", Value::map(uri_selectors)),
        ]);
        self.config
            .agent_path_template
            .agent_id_of_paths(trust_domain, &Value::map(fields))
            .map_err(|error| refused(error.to_string()))
    }

    /// What follows the prefix in the path of the node's SVID; nothing outside SPIFFE mode.
    fn svid_path(&self, leaf: &NodeCertificate) -> Result<String, AttestError> {
        let Trust::Bundle { svid_prefix } = &self.config.trust else { return Ok(String::new()) };
        let [uri] = &leaf.uris[..] else {
            return Err(refused("leaf certificate must have exactly one URI SAN".to_owned()));
        };
        let id = SpiffeId::parse(uri)
            .map_err(|error| refused(format!("leaf certificate has no SPIFFE ID: {error}")))?;
        if !id.is_member_of(&self.host.trust_domain) {
            return Err(refused(format!("{id} is not a member of {}", self.host.trust_domain)));
        }
        let trimmed = id.path().strip_prefix(svid_prefix.as_str()).filter(|rest| !rest.is_empty());
        trimmed.map(ToOwned::to_owned).ok_or_else(|| {
            refused(format!("path of {id} does not begin with spiffe_prefix {svid_prefix:?}"))
        })
    }

    fn selectors(
        &self,
        leaf: &NodeCertificate,
        authorities: impl IntoIterator<Item = String>,
    ) -> Result<Vec<Selector>, AttestError> {
        let mut values = Vec::new();
        let common_name = leaf.common_name();
        if !common_name.is_empty() {
            values.push(format!("subject:cn:{common_name}"));
        }
        values.extend(authorities.into_iter().map(|print| format!("ca:fingerprint:{print}")));
        values.push(format!("serialnumber:{}", leaf.serial_number_hex()));
        for (key, value) in leaf.uri_selectors(self.host.trust_domain.as_str()) {
            values.push(format!("san:{key}:{value}"));
        }
        values
            .iter()
            .map(|value| Selector::new(NAME, value))
            .collect::<Result<_, _>>()
            .map_err(|error| malformed(error.to_string()))
    }
}

fn check_address(leaf: &NodeCertificate, peer: &dyn Peer) -> Result<(), AttestError> {
    let address = peer
        .address()
        .map(|address| address.to_canonical())
        .ok_or_else(|| refused("the client's IP address is not known".to_owned()))?;
    if leaf.ip_addresses.contains(&address) {
        return Ok(());
    }
    Err(refused(format!("client IP {address} is none of the certificate's IP SANs")))
}

/// Sends a fresh nonce and checks that the key of the certificate signs it.
async fn prove_possession(key: &ProofKey, peer: &mut dyn Peer) -> Result<(), AttestError> {
    let own =
        nonce().map_err(|_| AttestError::Unavailable("the random source failed".to_owned()))?;
    let asked = Some(Nonce { nonce: Base64(own.clone()) });
    let challenge = match key {
        ProofKey::Rsa(_) => Challenge { rsa_signature: asked, ecdsa_signature: None },
        ProofKey::Ecdsa(..) => Challenge { rsa_signature: None, ecdsa_signature: asked },
    };
    let challenge = serde_json::to_vec(&challenge)
        .map_err(|error| malformed(format!("unable to marshal challenge: {error}")))?;
    let Some(answer) = peer.challenge(challenge).await? else {
        peer.examination().skip("possession of the key", "only a challenged node can prove it");
        return Ok(());
    };
    let holds = check_answer(key, &own, &answer);
    peer.examination().check("possession of the key", holds)
}

fn check_answer(key: &ProofKey, own: &[u8], answer: &[u8]) -> Result<(), AttestError> {
    if answer.len() > MAX_RESPONSE_BYTES {
        return Err(malformed(format!("challenge response exceeds {MAX_RESPONSE_BYTES} bytes")));
    }
    let response: Response = serde_json::from_slice(answer)
        .map_err(|error| malformed(format!("unable to unmarshal challenge response: {error}")))?;
    key.check(own, response)
        .map_err(|error| refused(format!("challenge response verification failed: {error}")))
}

/// The key whose possession is to be proven.
enum ProofKey {
    Rsa(Vec<u8>),
    Ecdsa(&'static EcdsaVerificationAlgorithm, Vec<u8>),
}

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const CURVES: [(&str, &EcdsaVerificationAlgorithm); 3] = [
    ("1.2.840.10045.3.1.7", &ECDSA_P256_SHA256_ASN1),
    ("1.3.132.0.34", &ECDSA_P384_SHA256_ASN1),
    ("1.3.132.0.35", &ECDSA_P521_SHA256_ASN1),
];

/// Agents salt as long as they can; some libraries as long as the digest.
static RSA_PSS: [RsaParameters; 2] = [
    RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Max),
    RSA_PSS_2048_8192_SHA256.with_pss_salt_length(RsaPssSaltLength::Digest),
];

impl ProofKey {
    fn of(leaf: &NodeCertificate, max_rsa_key_size: u32) -> Result<Self, AttestError> {
        let unreadable =
            |error: der::Error| malformed(format!("unable to parse leaf certificate: {error}"));
        if !leaf.may_sign().map_err(unreadable)? {
            let error = "certificate not intended for digital signature use";
            return Err(malformed(error.to_owned()));
        }
        let spki = leaf.public_key().map_err(unreadable)?;
        let info = SubjectPublicKeyInfoRef::from_der(&spki).map_err(unreadable)?;
        let key = info.subject_public_key.raw_bytes().to_vec();
        if info.algorithm.oid == RSA {
            let bits = RsaParameters::public_modulus_len(&key)
                .map_err(|_| malformed("leaf certificate has a bad RSA key".to_owned()))?;
            if bits > max_rsa_key_size {
                return Err(malformed("leaf certificate key size too large".to_owned()));
            }
            return Ok(Self::Rsa(key));
        }
        let curve = (info.algorithm.oid == EC)
            .then(|| info.algorithm.parameters_oid().ok())
            .flatten()
            .and_then(|curve| CURVES.into_iter().find(|(oid, _)| curve.to_string() == *oid));
        curve.map(|(_, algorithm)| Self::Ecdsa(algorithm, key)).ok_or_else(|| {
            malformed("unsupported public key: RSA, P-256, P-384 and P-521 are".to_owned())
        })
    }

    fn check(&self, own: &[u8], response: Response) -> Result<(), &'static str> {
        match self {
            Self::Rsa(key) => {
                let answer = response.rsa_signature.ok_or("RSA signature is missing")?;
                check_nonce(&answer.nonce)?;
                let message = signed_message(own, &answer.nonce.0);
                let holds = |form: &'static RsaParameters| {
                    UnparsedPublicKey::new(form, key).verify(&message, &answer.signature.0).is_ok()
                };
                RSA_PSS.iter().any(holds).then_some(()).ok_or("RSA signature does not hold")
            }
            Self::Ecdsa(algorithm, key) => {
                let answer = response.ecdsa_signature.ok_or("ECDSA signature is missing")?;
                check_nonce(&answer.nonce)?;
                let signature = ecdsa_der(&answer.r.0, &answer.s.0)
                    .map_err(|_| "ECDSA signature is malformed")?;
                UnparsedPublicKey::new(*algorithm, key)
                    .verify(&signed_message(own, &answer.nonce.0), &signature)
                    .map_err(|_| "ECDSA signature does not hold")
            }
        }
    }
}

fn check_nonce(nonce: &Base64) -> Result<(), &'static str> {
    if nonce.0.len() == NONCE_BYTES { Ok(()) } else { Err("expecting 32 bytes of nonce") }
}

#[derive(der::Sequence)]
struct EcdsaSignatureDer<'s> {
    r: UintRef<'s>,
    s: UintRef<'s>,
}

fn ecdsa_der(r: &[u8], s: &[u8]) -> der::Result<Vec<u8>> {
    EcdsaSignatureDer { r: UintRef::new(r)?, s: UintRef::new(s)? }.to_der()
}

fn malformed(error: String) -> AttestError {
    AttestError::Malformed(error)
}

fn refused(error: String) -> AttestError {
    AttestError::Refused(error)
}
