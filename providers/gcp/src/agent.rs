//! The agent's half: the token of this instance, just as the metadata server gives it.

use std::sync::Arc;

use async_trait::async_trait;
use spire_core::catalog::{Plugin, PluginError};
use spire_core::config::{FromSection, Reader};
use spire_core::node::{Evidence, EvidenceError, EvidenceSource, Statement};
use spire_core::remote::{Client, Endpoints};

use crate::evidence::AUDIENCE;
use crate::metadata::{self, Metadata};

/// The service whose place may be configured.
const METADATA: &str = "metadata";

/// `gcp_iit` of the agent.
pub const PLUGIN: Plugin<dyn EvidenceSource> = Plugin {
    name: crate::NAME,
    build: |section, _host| {
        let Config { endpoints, service_account } = section.decode()?;
        let variable = metadata::host_of_environment();
        let endpoint =
            metadata::endpoint(endpoints.get(METADATA), variable).map_err(PluginError::Unusable)?;
        let client = Client::of_metadata(&endpoints)
            .map_err(|error| PluginError::Unusable(error.to_string()))?;
        Ok(Arc::new(GcpIit { metadata: Metadata::new(client, endpoint), service_account }))
    },
};

/// What the agent asks the metadata server for.
#[derive(Debug)]
struct Config {
    /// `metadata`, where it is configured.
    endpoints: Endpoints,
    /// The service account whose token is asked for: `default`, or an email address.
    service_account: String,
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let endpoints = Endpoints::read(reader, &[METADATA]);
        let remedy = "write a host with or without a port, such as metadata.google.internal:80";
        let host = reader.parsed("identity_token_host", remedy, metadata::endpoint_of_host);
        let service_account = reader
            .parsed("service_account", "write default, or an email address", service_account)
            .unwrap_or_else(|| "default".to_owned());
        let mut endpoints = endpoints?;
        if let Some(host) = host {
            endpoints.or_insert(METADATA, ("identity_token_host", host), reader);
        }
        Some(Self { endpoints, service_account })
    }
}

/// It becomes a part of a path.
fn service_account(text: &str) -> Result<String, String> {
    let fits = |character: char| character.is_ascii_alphanumeric() || "@.-_:+".contains(character);
    if text.chars().all(fits) && !text.starts_with('.') {
        return Ok(text.to_owned());
    }
    Err(format!("service_account {text:?} is no name of a service account"))
}

struct GcpIit {
    metadata: Metadata,
    service_account: String,
}

#[async_trait]
impl EvidenceSource for GcpIit {
    async fn collect(&self) -> Result<Box<dyn Evidence>, EvidenceError> {
        let item = format!("identity?audience={AUDIENCE}&format=full");
        let answer = self.metadata.of_account(&self.service_account, &item).await;
        let answer = answer.map_err(|error| {
            EvidenceError(format!("unable to retrieve identity token: {error}"))
        })?;
        if answer.body.is_empty() {
            let sentence = "unable to retrieve identity token: the metadata server gave none";
            return Err(EvidenceError(sentence.to_owned()));
        }
        Ok(Box::new(Statement::new(crate::NAME, answer.body)))
    }
}

#[cfg(test)]
mod tests {
    use spire_core::config::Section;

    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let (config, findings) = Section::parse(text).unwrap().read(Config::read);
        match findings.mistakes.is_empty() {
            true => Ok(config.unwrap()),
            false => Err(format!("{:?}", findings.mistakes)),
        }
    }

    #[test]
    fn the_block_of_endpoints_wins_over_the_older_key() {
        let config = read("").unwrap();
        assert_eq!(config.service_account, "default");
        assert!(config.endpoints.get(METADATA).is_none());
        let old = "identity_token_host = \"one:1\"";
        for (text, url) in [
            (old.to_owned(), "http://one:1"),
            (
                format!("{old}\nendpoints {{ metadata = \"http://127.0.0.1:2\" }}"),
                "http://127.0.0.1:2",
            ),
        ] {
            let config = read(&text).unwrap();
            assert_eq!(config.endpoints.get(METADATA).unwrap().as_str(), url);
        }
    }

    #[test]
    fn what_would_lead_elsewhere_is_refused() {
        for text in [
            "identity_token_host = \"http://x\"",
            "identity_token_host = \"x/y\"",
            "service_account = \"../../token\"",
            "service_account = \"a?b\"",
            "service_account = \"a/b\"",
            "endpoints { metadata = \"x\" }",
        ] {
            read(text).unwrap_err();
        }
        let email = "123-compute@developer.gserviceaccount.com";
        let config = read(&format!("service_account = {email:?}")).unwrap();
        assert_eq!(config.service_account, email);
    }
}
