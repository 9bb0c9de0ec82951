//! The agent's half: the document that the metadata service signs around the server's nonce.

use std::sync::Arc;

use async_trait::async_trait;
use spire_core::catalog::{Plugin, PluginError};
use spire_core::config::{FromSection, Reader};
use spire_core::node::{Evidence, EvidenceError, EvidenceSource};
use spire_core::remote::Endpoints;

use super::NAME;
use super::evidence::{Answer, Document, Hints, OPENING};
use crate::metadata::{self, Metadata};

/// Longest nonce in bytes that is handed on; servers send 32.
const MAX_NONCE_BYTES: usize = 128;

/// `azure_imds` of the agent.
pub const PLUGIN: Plugin<dyn EvidenceSource> = Plugin {
    name: NAME,
    build: |section, _host| {
        let config: Config = section.decode()?;
        let metadata = Metadata::new(&config.endpoints)
            .map_err(|error| PluginError::Unusable(error.to_string()))?;
        Ok(Arc::new(AzureImds {
            metadata: Arc::new(metadata),
            tenant_domain: config.tenant_domain,
        }))
    },
};

struct Config {
    tenant_domain: String,
    endpoints: Endpoints,
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let tenant_domain = reader.required("tenant_domain", "tenant_domain is required");
        let endpoints = Endpoints::read(reader, &[metadata::ENDPOINT]);
        Some(Self { tenant_domain: tenant_domain?, endpoints: endpoints? })
    }
}

struct AzureImds {
    metadata: Arc<Metadata>,
    tenant_domain: String,
}

#[async_trait]
impl EvidenceSource for AzureImds {
    async fn collect(&self) -> Result<Box<dyn Evidence>, EvidenceError> {
        let (metadata, tenant_domain) = (self.metadata.clone(), self.tenant_domain.clone());
        Ok(Box::new(Machine { metadata, tenant_domain }))
    }
}

/// The machine, whose evidence is asked for once the nonce is known.
struct Machine {
    metadata: Arc<Metadata>,
    tenant_domain: String,
}

impl Machine {
    async fn attested(&self, nonce: Option<&str>) -> Result<Vec<u8>, EvidenceError> {
        let document =
            self.metadata.attested_document(nonce).await.map_err(|error| {
                EvidenceError(format!("unable to get attested document: {error}"))
            })?;
        let compute =
            self.metadata.instance().await.map_err(|error| {
                EvidenceError(format!("unable to get instance metadata: {error}"))
            })?;
        let scale_set = compute.vm_scale_set_name;
        let answer = Answer {
            document: Document { encoding: document.encoding, signature: document.signature },
            metadata: Hints {
                agent_domain: self.tenant_domain.clone(),
                vmss_name: (!scale_set.is_empty()).then_some(scale_set),
            },
        };
        serde_json::to_vec(&answer)
            .map_err(|error| EvidenceError(format!("failed to marshal response: {error}")))
    }
}

#[async_trait]
impl Evidence for Machine {
    fn payload(&self) -> &[u8] {
        OPENING
    }

    async fn answer(&mut self, challenge: &[u8]) -> Result<Vec<u8>, EvidenceError> {
        let nonce = std::str::from_utf8(challenge)
            .ok()
            .filter(|nonce| !nonce.is_empty() && nonce.len() <= MAX_NONCE_BYTES)
            .ok_or_else(|| EvidenceError("the server's challenge is not a nonce".to_owned()))?;
        self.attested(Some(nonce)).await
    }

    /// The proof is in the answer to the nonce, so that an answer is what can be looked at.
    async fn exhibit(&mut self, nonce: Option<&str>) -> Result<Vec<u8>, EvidenceError> {
        self.attested(nonce).await
    }
}
