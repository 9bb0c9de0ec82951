//! The agent's half: certificates and their key, from files that are read anew for each
//! attestation or from another Workload API.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spire_core::catalog::Plugin;
use spire_core::config::{FromSection, Reader};
use spire_core::node::{Evidence, EvidenceError, EvidenceSource};
use zeroize::Zeroizing;

use super::evidence::{
    Base64, Challenge, EcdsaSignature, NONCE_BYTES, Payload, Response, RsaSignature, nonce,
    signed_message,
};
use super::key::{PossessedKey, Signature};
use super::workload_api;

/// `x509pop` of the agent.
pub const PLUGIN: Plugin<dyn EvidenceSource> = Plugin {
    name: super::NAME,
    build: |section, _host| Ok(Arc::new(X509Pop { source: section.decode()? })),
};

/// Where the agent finds what it shows.
#[derive(Debug, Clone)]
pub(super) enum Source {
    Files { key: PathBuf, certificate: PathBuf, intermediates: Option<PathBuf> },
    WorkloadApi { socket: String },
}

impl FromSection for Source {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let intermediates = reader.string("intermediates_path").map(PathBuf::from);
        if let Some(socket) = reader.string("spiffe_endpoint_socket") {
            let others = ["private_key_path", "certificate_path", "intermediates_path"];
            if let Some(key) = others.into_iter().find(|key| reader.has(key)) {
                let sentence =
                    format!("{key} and spiffe_endpoint_socket cannot both be configured");
                reader.reject(key, &sentence, "remove one of them");
                return None;
            }
            return Some(Self::WorkloadApi { socket });
        }
        let key = reader.required("private_key_path", "private_key_path is required");
        let certificate = reader.required("certificate_path", "certificate_path is required");
        Some(Self::Files { key: key?.into(), certificate: certificate?.into(), intermediates })
    }
}

/// Certificates with the key of the first.
pub(super) struct Identity {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) key: Zeroizing<PrivateKeyDer<'static>>,
}

#[derive(Debug)]
struct X509Pop {
    source: Source,
}

#[async_trait]
impl EvidenceSource for X509Pop {
    async fn collect(&self) -> Result<Box<dyn Evidence>, EvidenceError> {
        let identity = match &self.source {
            Source::Files { key, certificate, intermediates } => {
                read_files(key, certificate, intermediates.as_deref())?
            }
            Source::WorkloadApi { socket } => workload_api::fetch(socket).await?,
        };
        let key = PossessedKey::read(&identity.key).map_err(failed("unable to use private key"))?;
        let payload = Payload {
            certificates: identity
                .certificates
                .iter()
                .map(|certificate| Base64(certificate.to_vec()))
                .collect(),
        };
        let payload =
            serde_json::to_vec(&payload).map_err(failed("failed to marshal attestation data"))?;
        Ok(Box::new(Possession { payload, key }))
    }
}

fn read_files(
    key: &Path,
    certificate: &Path,
    intermediates: Option<&Path>,
) -> Result<Identity, EvidenceError> {
    let read = |path: &Path, what: &str| {
        std::fs::read(path).map_err(|error| {
            EvidenceError(format!("unable to load {what}: open {}: {error}", path.display()))
        })
    };
    let parse = |pem: &[u8], what: &str| {
        let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(certificates),
            Ok(_) => Err(EvidenceError(format!("unable to load {what}: no PEM blocks"))),
            Err(error) => Err(EvidenceError(format!("unable to load {what}: {error}"))),
        }
    };
    let mut certificates = parse(&read(certificate, "certificate")?, "certificate")?;
    if let Some(path) = intermediates {
        certificates
            .extend(parse(&read(path, "intermediate certificates")?, "intermediate certificates")?);
    }
    let key = Zeroizing::new(read(key, "private key")?);
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(failed("unable to load private key"))?;
    Ok(Identity { certificates, key: Zeroizing::new(key) })
}

struct Possession {
    payload: Vec<u8>,
    key: PossessedKey,
}

#[async_trait]
impl Evidence for Possession {
    fn payload(&self) -> &[u8] {
        &self.payload
    }

    async fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, EvidenceError> {
        let challenge: Challenge =
            serde_json::from_slice(challenge).map_err(failed("unable to unmarshal challenge"))?;
        let asked = match (&self.key, challenge.rsa_signature, challenge.ecdsa_signature) {
            (PossessedKey::Rsa(_), Some(asked), None) => asked,
            (PossessedKey::Ecdsa(..), None, Some(asked)) => asked,
            _ => {
                let error = "the challenge is not for the kind of key in the certificate";
                return Err(EvidenceError(error.to_owned()));
            }
        };
        if asked.nonce.0.len() != NONCE_BYTES {
            return Err(EvidenceError(format!("the nonce is not {NONCE_BYTES} bytes long")));
        }
        let own = nonce().map_err(failed("failed to make a nonce"))?;
        let signature = self
            .key
            .sign(&signed_message(&asked.nonce.0, &own))
            .map_err(failed("failed to sign the challenge"))?;
        let nonce = Base64(own);
        let response = match signature {
            Signature::Rsa(signature) => Response {
                rsa_signature: Some(RsaSignature { nonce, signature: Base64(signature) }),
                ecdsa_signature: None,
            },
            Signature::Ecdsa { r, s } => Response {
                rsa_signature: None,
                ecdsa_signature: Some(EcdsaSignature { nonce, r: Base64(r), s: Base64(s) }),
            },
        };
        serde_json::to_vec(&response).map_err(failed("failed to marshal the response"))
    }
}

/// Puts what was being done before what went wrong.
pub(super) fn failed<E: Display>(doing: &str) -> impl Fn(E) -> EvidenceError + '_ {
    move |error| EvidenceError(format!("{doing}: {error}"))
}

/// A key as the Workload API hands it out.
pub(super) fn pkcs8(der: &[u8]) -> Zeroizing<PrivateKeyDer<'static>> {
    Zeroizing::new(PrivatePkcs8KeyDer::from(der.to_vec()).into())
}
