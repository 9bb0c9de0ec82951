//! The keys by which Google signs the tokens of instances.

use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use spire_core::clock::Clock;
use spire_core::jws::{Fetched, KeySet, KeySource, MAX_KEY_SET_BYTES};
use spire_core::remote::{Client, Endpoint, Endpoints, until_answered};
use url::Url;

const HOST: &str = "https://www.googleapis.com";
/// What is asked for where the configured URL names a server alone.
const PATH: &str = "/oauth2/v1/certs";
/// How long one request may take, and all attempts together; less than the cache waits.
const ATTEMPT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(9);

/// Google's certificates by the IDs of their keys.
pub(crate) struct Certificates {
    client: Client,
    url: Url,
    clock: Clock,
}

impl Certificates {
    /// Where `endpoints` says, else at Google.
    ///
    /// # Errors
    /// Why there is no such place.
    pub(crate) fn new(client: Client, endpoints: &Endpoints, clock: Clock) -> Result<Self, String> {
        let url = match endpoints.get("token_certificates") {
            Some(endpoint) if endpoint.has_path() => endpoint.url(""),
            Some(endpoint) => endpoint.url(PATH),
            None => Endpoint::parse(HOST)?.url(PATH),
        };
        Ok(Self { client, url, clock })
    }
}

#[async_trait]
impl KeySource for Certificates {
    async fn fetch(&self) -> Result<Fetched, String> {
        let attempt = || {
            let request = self.client.request(Method::GET, self.url.clone());
            self.client.send(request, ATTEMPT, MAX_KEY_SET_BYTES)
        };
        let answer = until_answered(attempt, LIMIT).await.map_err(|error| error.to_string())?;
        if answer.status != StatusCode::OK {
            return Err(format!("{} answers with status {}", self.url, answer.status));
        }
        let keys = KeySet::from_certificates(&answer.body)
            .map_err(|error| format!("{} gives no set of certificates: {error}", self.url))?;
        Ok(Fetched::new(keys, &answer.headers, self.clock.now()))
    }
}
