//! The agent's half: a token of the machine's managed identity, asked for anew at each attestation.

use std::sync::Arc;

use async_trait::async_trait;
use spire_core::catalog::{Plugin, PluginError};
use spire_core::config::{FromSection, Reader};
use spire_core::node::{Evidence, EvidenceError, EvidenceSource, Statement};
use spire_core::remote::Endpoints;

use super::evidence::Payload;
use super::{DEFAULT_RESOURCE, NAME};
use crate::metadata::{self, Metadata};

/// `azure_msi` of the agent.
pub const PLUGIN: Plugin<dyn EvidenceSource> = Plugin {
    name: NAME,
    build: |section, _host| {
        let config: Config = section.decode()?;
        let metadata = Metadata::new(&config.endpoints)
            .map_err(|error| PluginError::Unusable(error.to_string()))?;
        Ok(Arc::new(AzureMsi { metadata, resource_id: config.resource_id }))
    },
};

struct Config {
    resource_id: String,
    endpoints: Endpoints,
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let resource_id = reader.string("resource_id");
        Some(Self {
            resource_id: resource_id.unwrap_or_else(|| DEFAULT_RESOURCE.to_owned()),
            endpoints: Endpoints::read(reader, &[metadata::ENDPOINT])?,
        })
    }
}

struct AzureMsi {
    metadata: Metadata,
    resource_id: String,
}

#[async_trait]
impl EvidenceSource for AzureMsi {
    async fn collect(&self) -> Result<Box<dyn Evidence>, EvidenceError> {
        let token = self.metadata.token(&self.resource_id).await.map_err(|error| {
            EvidenceError(format!("unable to get a token of the managed identity: {error}"))
        })?;
        let payload = serde_json::to_vec(&Payload { token })
            .map_err(|error| EvidenceError(format!("failed to marshal payload: {error}")))?;
        Ok(Box::new(Statement::new(NAME, payload)))
    }
}
