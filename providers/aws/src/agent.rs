//! The agent's half: the instance's document and both of its signatures, from the metadata
//! service.

use std::sync::Arc;

use async_trait::async_trait;
use spire_core::catalog::{Plugin, PluginError};
use spire_core::config::{FromSection, Reader};
use spire_core::node::{Evidence, EvidenceError, EvidenceSource, Statement};
use spire_core::remote::{Client, Endpoint, Endpoints};

use crate::NAME;
use crate::evidence;
use crate::metadata::Metadata;

const DOCUMENT: &str = "/latest/dynamic/instance-identity/document";
const SIGNATURE: &str = "/latest/dynamic/instance-identity/signature";
const RSA2048: &str = "/latest/dynamic/instance-identity/rsa2048";

/// Where AWS's own programs let the service be moved to, and whether it is reached by IPv6.
const ENDPOINT_VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
const MODE_VARIABLE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
const IPV4_ENDPOINT: &str = "http://169.254.169.254";
const IPV6_ENDPOINT: &str = "http://[fd00:ec2::254]";

/// `aws_iid` of the agent.
pub const PLUGIN: Plugin<dyn EvidenceSource> = Plugin {
    name: NAME,
    build: |section, _host| {
        let config: Config = section.decode()?;
        let unusable = |error: &dyn std::fmt::Display| PluginError::Unusable(error.to_string());
        let client = Client::of_metadata(&config.endpoints).map_err(|error| unusable(&error))?;
        let endpoint = match config.endpoints.get("metadata") {
            Some(endpoint) => endpoint.clone(),
            None => endpoint_of_environment(variable).map_err(|error| unusable(&error))?,
        };
        Ok(Arc::new(Iid { metadata: Metadata::new(client, endpoint, config.allow_imds_v1) }))
    },
};

struct Config {
    endpoints: Endpoints,
    allow_imds_v1: bool,
}

impl FromSection for Config {
    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let remedy = "write the base URL of the service, such as http://169.254.169.254";
        let parse = |text: &str| Endpoint::parse(without_version(text));
        let endpoint = reader.parsed("ec2_metadata_endpoint", remedy, parse);
        let allow_imds_v1 = reader.flag("allow_imds_v1");
        if allow_imds_v1 {
            reader.warn(
                "allow_imds_v1 is set: where the metadata service gives no token, it is asked \
                 without one, as any request forgery on this instance could",
            );
        }
        let mut endpoints = Endpoints::read(reader, &["metadata"])?;
        if let Some(endpoint) = endpoint {
            endpoints.or_insert("metadata", ("ec2_metadata_endpoint", endpoint), reader);
        }
        Some(Self { endpoints, allow_imds_v1 })
    }
}

/// Operators write the base URL with the version that stands at the beginning of each path.
fn without_version(url: &str) -> &str {
    let url = url.trim_end_matches('/');
    url.strip_suffix("/latest").unwrap_or(url)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn endpoint_of_environment(variable: impl Fn(&str) -> Option<String>) -> Result<Endpoint, String> {
    if let Some(url) = variable(ENDPOINT_VARIABLE) {
        return Endpoint::parse(without_version(&url))
            .map_err(|error| format!("{ENDPOINT_VARIABLE}: {error}"));
    }
    let ipv6 = variable(MODE_VARIABLE).is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
    Endpoint::parse(if ipv6 { IPV6_ENDPOINT } else { IPV4_ENDPOINT })
}

struct Iid {
    metadata: Metadata,
}

#[async_trait]
impl EvidenceSource for Iid {
    async fn collect(&self) -> Result<Box<dyn Evidence>, EvidenceError> {
        let [document, signature, rsa2048] =
            self.metadata.texts([DOCUMENT, SIGNATURE, RSA2048]).await?;
        let evidence = evidence::Evidence { document, signature, rsa2048 };
        let payload = serde_json::to_vec(&evidence).map_err(|error| {
            EvidenceError(format!("failed to marshal attestation data: {error}"))
        })?;
        Ok(Box::new(Statement::new(NAME, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_moves_the_service() {
        const URL: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT";
        const MODE: &str = "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE";
        let endpoint = |environment: &[(&str, &str)]| {
            let endpoint = endpoint_of_environment(|name| {
                let found = environment.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            });
            endpoint.map(|endpoint| endpoint.as_str().to_owned())
        };
        for (environment, expected) in [
            (&[][..], "http://169.254.169.254"),
            (&[(MODE, "IPv6")], "http://[fd00:ec2::254]"),
            (&[(MODE, "IPv4")], "http://169.254.169.254"),
            (&[(URL, "http://127.0.0.1:1338/latest/"), (MODE, "IPv6")], "http://127.0.0.1:1338"),
        ] {
            assert_eq!(endpoint(environment).as_deref(), Ok(expected), "{environment:?}");
        }
        assert!(endpoint(&[(URL, "nowhere")]).unwrap_err().starts_with(URL));
    }

    #[test]
    fn the_version_may_stand_at_the_end_of_the_base_url() {
        for url in ["http://a", "http://a/", "http://a/latest", "http://a/latest/"] {
            assert_eq!(without_version(url), "http://a", "{url}");
        }
    }
}
