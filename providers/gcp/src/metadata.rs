//! The metadata server of an instance.

use std::time::Duration;

use http::{Method, StatusCode};
use spire_core::remote::{Answer, Client, Endpoint, RemoteError, until_answered};

/// Where the metadata server is if nobody says otherwise.
const DEFAULT_HOST: &str = "metadata.google.internal";
/// The variable that moves it, as Google's own libraries read it: a host with or without a port.
const HOST_VARIABLE: &str = "GCE_METADATA_HOST";
/// Without it, the metadata server refuses: no browser or forwarding proxy sends it.
const FLAVOR: (&str, &str) = ("metadata-flavor", "Google");
/// How long one request may take, and all attempts together.
const ATTEMPT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(10);
/// Longest answer in bytes that is read.
const MAX_BYTES: usize = 64 << 10;

/// A client of the metadata server.
#[derive(Debug, Clone)]
pub(crate) struct Metadata {
    client: Client,
    endpoint: Endpoint,
}

/// Why the metadata server has not given what was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error(
        "the metadata server at {at} cannot be reached: {error}; is this an instance of Compute \
         Engine? Elsewhere, set identity_token_host, endpoints.metadata or GCE_METADATA_HOST"
    )]
    Unreachable { at: String, error: RemoteError },
    #[error(
        "the metadata server knows no service account {account:?}; attach a service account to the \
         instance, or name an attached one"
    )]
    NoAccount { account: String },
    #[error("the metadata server at {at} answers with status {status}: {body}")]
    Status { at: String, status: StatusCode, body: String },
}

/// The metadata server at a host with or without a port; it is always plain HTTP.
///
/// # Errors
/// A sentence that says what is wrong.
pub(crate) fn endpoint_of_host(host: &str) -> Result<Endpoint, String> {
    let no_host = || format!("{host:?} is no host");
    if host.contains(['/', '?', '#', '@']) {
        return Err(no_host());
    }
    Endpoint::parse(&format!("http://{host}")).map_err(|_| no_host())
}

/// Where the metadata server is: where the file says, else where the environment says, else at its
/// usual name.
///
/// # Errors
/// A sentence that names the variable.
pub(crate) fn endpoint(
    configured: Option<&Endpoint>,
    variable: Option<String>,
) -> Result<Endpoint, String> {
    if let Some(endpoint) = configured {
        return Ok(endpoint.clone());
    }
    let host = variable.filter(|host| !host.is_empty());
    endpoint_of_host(host.as_deref().unwrap_or(DEFAULT_HOST))
        .map_err(|error| format!("{HOST_VARIABLE}: {error}; write a host with or without a port"))
}

/// What the environment says about the metadata server.
pub(crate) fn host_of_environment() -> Option<String> {
    std::env::var(HOST_VARIABLE).ok()
}

impl Metadata {
    pub(crate) fn new(client: Client, endpoint: Endpoint) -> Self {
        Self { client, endpoint }
    }

    /// What is at `item` below a service account, such as `token`; it may have a query.
    pub(crate) async fn of_account(
        &self,
        account: &str,
        item: &str,
    ) -> Result<Answer, MetadataError> {
        let path = format!("/computeMetadata/v1/instance/service-accounts/{account}/{item}");
        let url = self.endpoint.url(&path);
        let attempt = || {
            let request = self.client.request(Method::GET, url.clone());
            self.client.send(request.header(FLAVOR.0, FLAVOR.1), ATTEMPT, MAX_BYTES)
        };
        let at = || self.endpoint.as_str().to_owned();
        let answer = until_answered(attempt, LIMIT)
            .await
            .map_err(|error| MetadataError::Unreachable { at: at(), error })?;
        match answer.status {
            StatusCode::OK => Ok(answer),
            StatusCode::NOT_FOUND => Err(MetadataError::NoAccount { account: account.to_owned() }),
            status => Err(MetadataError::Status { at: at(), status, body: answer.excerpt() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_wins_over_the_environment_and_that_over_the_usual_name() {
        let configured = Endpoint::parse("http://127.0.0.1:1").unwrap();
        let variable = || Some("10.0.0.1:8080".to_owned());
        let at = |configured, variable| endpoint(configured, variable).unwrap().as_str().to_owned();
        assert_eq!(at(Some(&configured), variable()), "http://127.0.0.1:1");
        assert_eq!(at(None, variable()), "http://10.0.0.1:8080");
        for absent in [None, Some(String::new())] {
            assert_eq!(at(None, absent), "http://metadata.google.internal");
        }
        let error = endpoint(None, Some("http://x".to_owned())).unwrap_err();
        assert!(error.starts_with("GCE_METADATA_HOST: "), "{error}");
    }
}
