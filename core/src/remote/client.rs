//! An HTTP client that a service outside cannot keep waiting, lead elsewhere or fill up.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Certificate, RequestBuilder};

use super::Endpoints;

/// How long it may take to reach a service.
const CONNECT: Duration = Duration::from_secs(5);

/// Sends requests; follows no redirect. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
}

/// What a service answered, whole.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, as long as the caller allows at most.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The client cannot be made.
    #[error("no HTTP client: {0}")]
    Client(String),
    /// The service cannot be reached, or broke off.
    #[error("{0}")]
    Unreachable(String),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs_f32())]
    TooSlow(Duration),
    /// It would have said more than is read.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

impl Client {
    /// A client of services on the net; proxies of the environment are used.
    ///
    /// # Errors
    /// [`RemoteError::Client`]
    pub fn new(endpoints: &Endpoints) -> Result<Self, RemoteError> {
        Self::build(reqwest::Client::builder(), endpoints)
    }

    /// A client of the node's own metadata service, which no proxy reaches.
    ///
    /// # Errors
    /// [`RemoteError::Client`]
    pub fn of_metadata(endpoints: &Endpoints) -> Result<Self, RemoteError> {
        Self::build(reqwest::Client::builder().no_proxy(), endpoints)
    }

    fn build(builder: reqwest::ClientBuilder, endpoints: &Endpoints) -> Result<Self, RemoteError> {
        let failed = |error: reqwest::Error| RemoteError::Client(chain(&error));
        let mut authorities = Vec::new();
        for authority in endpoints.authorities() {
            authorities.push(Certificate::from_der(authority).map_err(failed)?);
        }
        let mut builder = builder.redirect(Policy::none()).connect_timeout(CONNECT);
        if !authorities.is_empty() {
            builder = builder.tls_certs_merge(authorities);
        }
        Ok(Self { http: builder.build().map_err(failed)? })
    }

    /// A request, to be completed and handed to [`send`](Self::send).
    pub fn request(&self, method: http::Method, url: url::Url) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Sends `request` and reads the whole answer, which may take `limit` and have `max_bytes`.
    ///
    /// # Errors
    /// [`RemoteError`]
    pub async fn send(
        &self,
        request: RequestBuilder,
        limit: Duration,
        max_bytes: usize,
    ) -> Result<Answer, RemoteError> {
        let answered = tokio::time::timeout(limit, receive(request, max_bytes)).await;
        answered.map_err(|_| RemoteError::TooSlow(limit))?
    }
}

async fn receive(request: RequestBuilder, max_bytes: usize) -> Result<Answer, RemoteError> {
    let unreachable = |error: reqwest::Error| RemoteError::Unreachable(chain(&error));
    let mut response = request.send().await.map_err(unreachable)?;
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > max_bytes {
            return Err(RemoteError::TooLong(max_bytes));
        }
        body.extend_from_slice(&chunk);
    }
    let headers = std::mem::take(response.headers_mut());
    Ok(Answer { status: response.status(), headers, body: body.freeze() })
}

/// An error with what it came from, and without the query of a URL, which may hold a secret.
fn chain(error: &reqwest::Error) -> String {
    let mut text = match (error.is_connect(), error.url()) {
        (true, Some(url)) => format!("cannot connect to {}", url.origin().ascii_serialization()),
        (false, Some(url)) => format!("request to {} failed", url.origin().ascii_serialization()),
        (_, None) => "request failed".to_owned(),
    };
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
