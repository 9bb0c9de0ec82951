//! Client of the instance metadata service, which every virtual machine reaches at an address of
//! its own and no proxy does.

use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use spire_core::remote::{Client, Endpoint, Endpoints, RemoteError, until_answered};
use url::form_urlencoded;

/// Where the service is on every virtual machine.
const ADDRESS: &str = "http://169.254.169.254";
/// The key of the block `endpoints` that moves it.
pub(crate) const ENDPOINT: &str = "metadata";

/// Version of the documents about the machine.
const INSTANCE_VERSION: &str = "2025-04-07";
/// Version of the tokens of managed identities.
#[cfg(feature = "agent")]
const TOKEN_VERSION: &str = "2018-02-01";

/// How long one answer may take, and all attempts together.
const ANSWER: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(9);
/// Largest answer in bytes that is read.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// How much of an unexpected answer is told, in bytes.
const MAX_TOLD_BYTES: usize = 1024;

/// The metadata service of the machine that this process runs on.
#[derive(Debug)]
pub(crate) struct Metadata {
    client: Client,
    endpoint: Endpoint,
}

/// Why the metadata service does not say what is asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    /// There is no answer.
    #[error(
        "unable to reach the instance metadata service at {address}: {source}; this must be an \
         Azure virtual machine, and containers, network policies and host firewalls must let \
         this process through to the service"
    )]
    Unreachable {
        /// Where it was sought.
        address: String,
        /// What happened.
        source: RemoteError,
    },
    /// It refuses.
    #[error("unexpected status code {status} from the instance metadata service: {said}{hint}")]
    Status {
        /// The status of HTTP.
        status: u16,
        /// The beginning of the answer.
        said: String,
        /// What is likely the cause, where the service calls the question itself wrong.
        hint: &'static str,
    },
    /// It answers something else.
    #[error("unable to decode the answer of the instance metadata service: {0}")]
    Answer(String),
    /// A part of the answer is missing.
    #[error("the instance metadata service gave no {0}")]
    Missing(&'static str),
}

impl Metadata {
    /// The service, where `endpoints` has placed it or else where every virtual machine has it.
    pub(crate) fn new(endpoints: &Endpoints) -> Result<Self, RemoteError> {
        let client = Client::of_metadata(endpoints)?;
        Ok(Self { client, endpoint: endpoint(endpoints) })
    }

    /// What the machine is.
    pub(crate) async fn instance(&self) -> Result<Compute, MetadataError> {
        let query = format!("api-version={INSTANCE_VERSION}&format=json");
        let instance: Instance = self.ask("/metadata/instance", &query, "").await?;
        let compute = instance.compute;
        for (name, value) in [
            ("virtual machine name", &compute.name),
            ("subscription ID", &compute.subscription_id),
            ("resource group", &compute.resource_group_name),
        ] {
            if value.is_empty() {
                return Err(MetadataError::Missing(name));
            }
        }
        Ok(compute)
    }

    /// A token of the machine's managed identity for `resource`.
    #[cfg(feature = "agent")]
    pub(crate) async fn token(&self, resource: &str) -> Result<String, MetadataError> {
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            access_token: String,
        }
        let resource: String = form_urlencoded::byte_serialize(resource.as_bytes()).collect();
        let query = format!("api-version={TOKEN_VERSION}&resource={resource}");
        let hint = "; assign a managed identity to this virtual machine, one alone or a \
                    system-assigned one, and check resource_id";
        let token: Token = self.ask("/metadata/identity/oauth2/token", &query, hint).await?;
        match token.access_token.is_empty() {
            true => Err(MetadataError::Missing("access token")),
            false => Ok(token.access_token),
        }
    }

    /// The signed document about the machine, around `nonce` where one is given.
    #[cfg(feature = "agent")]
    pub(crate) async fn attested_document(
        &self,
        nonce: Option<&str>,
    ) -> Result<AttestedDocument, MetadataError> {
        let mut query = format!("api-version={INSTANCE_VERSION}");
        if let Some(nonce) = nonce {
            let nonce: String = form_urlencoded::byte_serialize(nonce.as_bytes()).collect();
            query = format!("{query}&nonce={nonce}");
        }
        let document: AttestedDocument =
            self.ask("/metadata/attested/document", &query, "").await?;
        match document {
            AttestedDocument { encoding, .. } if encoding.is_empty() => {
                Err(MetadataError::Missing("encoding of the attested document"))
            }
            AttestedDocument { signature, .. } if signature.is_empty() => {
                Err(MetadataError::Missing("signature of the attested document"))
            }
            document => Ok(document),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &str,
        hint: &'static str,
    ) -> Result<T, MetadataError> {
        let url = self.endpoint.url(&format!("{path}?{query}"));
        let attempt = || {
            let request = self.client.request(Method::GET, url.clone()).header("Metadata", "true");
            self.client.send(request, ANSWER, MAX_ANSWER_BYTES)
        };
        let answer = until_answered(attempt, LIMIT).await.map_err(|source| {
            MetadataError::Unreachable { address: self.endpoint.as_str().to_owned(), source }
        })?;
        if answer.status != http::StatusCode::OK {
            let said = &answer.body[..answer.body.len().min(MAX_TOLD_BYTES)];
            let said = String::from_utf8_lossy(said).into_owned();
            let hint = if answer.status == http::StatusCode::BAD_REQUEST { hint } else { "" };
            return Err(MetadataError::Status { status: answer.status.as_u16(), said, hint });
        }
        serde_json::from_slice(&answer.body)
            .map_err(|error| MetadataError::Answer(error.to_string()))
    }
}

/// Where the service is.
pub(crate) fn endpoint(endpoints: &Endpoints) -> Endpoint {
    endpoints
        .get(ENDPOINT)
        .cloned()
        .unwrap_or_else(|| Endpoint::parse(ADDRESS).expect("the address is a base URL"))
}

#[derive(Debug, Deserialize)]
struct Instance {
    compute: Compute,
}

/// A machine as it is told about itself. Nothing proves it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Compute {
    pub(crate) name: String,
    pub(crate) subscription_id: String,
    pub(crate) resource_group_name: String,
    /// Empty outside of a scale set.
    pub(crate) vm_scale_set_name: String,
}

/// A document that the service signs, as it gives it.
#[cfg(feature = "agent")]
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AttestedDocument {
    pub(crate) encoding: String,
    pub(crate) signature: String,
}
