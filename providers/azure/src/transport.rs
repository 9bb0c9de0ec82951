//! How the SDK's credentials reach Azure: with our client, and where the block `endpoints` says.
//!
//! The SDK insists on `https` and on addresses of its own. It is given those, and what it sends is
//! led to the endpoints here.

use std::time::Duration;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::error::ErrorKind;
use azure_core::http::headers::Headers;
use azure_core::http::request::Body;
use azure_core::http::{
    AsyncRawResponse, ClientOptions, HttpClient, Request, RetryOptions, StatusCode, Transport,
};
use spire_core::remote::{Client, Endpoint, RemoteError, until_answered};
use url::Url;

use crate::cloud::Services;
use crate::metadata;

/// Where the SDK believes the metadata service to be.
const METADATA_HOST: &str = "169.254.169.254";

/// How long one answer may take, all attempts together.
const ANSWER: Duration = Duration::from_secs(10);
/// Largest answer in bytes that is read.
const MAX_ANSWER_BYTES: usize = 256 << 10;

/// The transport of the SDK's credentials.
#[derive(Debug)]
struct Routes {
    client: Client,
    login_host: &'static str,
    login: Endpoint,
    /// Of services on this machine, which no proxy reaches.
    local: Client,
    metadata: Endpoint,
}

/// Options that lead the SDK's credentials to `services`. Requests are made again here, so that the
/// SDK does not.
pub(crate) fn options(services: &Services) -> Result<ClientOptions, RemoteError> {
    let login_host = services.cloud.login_hosts()[0];
    let routes = Routes {
        client: Client::new(&services.endpoints)?,
        login_host,
        login: services.login.clone(),
        local: Client::of_metadata(&services.endpoints)?,
        metadata: metadata::endpoint(&services.endpoints),
    };
    let mut cloud = CustomConfiguration::default();
    cloud.authority_host = format!("https://{login_host}");
    Ok(ClientOptions {
        retry: RetryOptions::none(),
        transport: Some(Transport::new(std::sync::Arc::new(routes))),
        cloud: Some(std::sync::Arc::new(CloudConfiguration::Custom(cloud))),
        ..ClientOptions::default()
    })
}

impl Routes {
    /// Where a request that is meant for `url` goes, and by which client.
    fn route(&self, url: &Url) -> (&Client, Url) {
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        match url.host_str() {
            Some(host) if host == self.login_host => (&self.client, self.login.url(&path)),
            Some(METADATA_HOST) => (&self.local, self.metadata.url(&path)),
            _ => (&self.local, url.clone()),
        }
    }
}

#[async_trait]
impl HttpClient for Routes {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let failed = |message: String| azure_core::Error::with_message(ErrorKind::Io, message);
        let (client, url) = self.route(request.url());
        let method = http::Method::from_bytes(request.method().as_str().as_bytes())
            .map_err(|error| failed(error.to_string()))?;
        let Body::Bytes(body) = request.body() else {
            return Err(failed("streams are not sent to token services".to_owned()));
        };
        let attempt = || {
            let mut sent = client.request(method.clone(), url.clone()).body(body.clone());
            for (name, value) in request.headers().iter() {
                sent = sent.header(name.as_str(), value.as_str());
            }
            client.send(sent, ANSWER, MAX_ANSWER_BYTES)
        };
        let answer = until_answered(attempt, ANSWER).await;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        // The SDK would read such an answer as one of the login service, and not find its way.
        if answer.status.is_server_error() || answer.status == http::StatusCode::TOO_MANY_REQUESTS {
            return Err(failed(format!("the token service answered {}", answer.status)));
        }
        let mut headers = Headers::new();
        for (name, value) in &answer.headers {
            if let Ok(value) = value.to_str() {
                headers.insert(name.as_str().to_owned(), value.to_owned());
            }
        }
        let status = StatusCode::from(answer.status.as_u16());
        Ok(AsyncRawResponse::from_bytes(status, headers, answer.body))
    }
}
