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

impl Answer {
    /// The beginning of the body, for a person: one line, without what a terminal would obey.
    pub fn excerpt(&self) -> String {
        const LONGEST: usize = 200;
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(LONGEST)]);
        text.split(|character: char| character.is_control() || character == ' ')
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ")
    }
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

#[cfg(test)]
mod tests {
    use spire_fakes::http::{HttpServer, Trouble, text};
    use spire_fakes::tls::TlsFront;

    use super::*;
    use crate::config::Section;

    const LIMIT: Duration = Duration::from_secs(5);

    fn client(block: &str) -> Client {
        let section = Section::parse(block).unwrap();
        let (endpoints, findings) = section.read(|reader| Endpoints::read(reader, &["service"]));
        assert!(findings.mistakes.is_empty(), "{findings:?}");
        Client::new(&endpoints.unwrap()).unwrap()
    }

    async fn get(client: &Client, url: &str) -> Result<Answer, RemoteError> {
        client.send(client.request(http::Method::GET, url.parse().unwrap()), LIMIT, 100).await
    }

    #[tokio::test]
    async fn a_private_ca_is_trusted_where_it_is_named() {
        let server = HttpServer::start(|_| text(StatusCode::OK, "here")).await;
        let (front, other) = (TlsFront::to(&server).await, TlsFront::to(&server).await);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, front.authority()).unwrap();
        let trusting = client(&format!("endpoints {{ ca_bundle_path = {path:?} }}"));
        assert_eq!(get(&trusting, &front.url()).await.unwrap().excerpt(), "here");
        for (client, url) in [(client(""), front.url()), (trusting, other.url())] {
            let error = get(&client, &url).await.unwrap_err().to_string();
            assert!(error.starts_with("cannot connect to https://127.0.0.1"), "{error}");
        }
        assert_eq!(server.count(), 1);
    }

    #[tokio::test]
    async fn no_service_leads_elsewhere_lets_wait_or_fills_up() {
        let elsewhere = HttpServer::start(|_| text(StatusCode::OK, "")).await;
        let server = HttpServer::start(|_| text(StatusCode::OK, "a".repeat(101))).await;
        let client = client("");
        server.fail_next(1, Trouble::Redirect(elsewhere.url()));
        assert_eq!(get(&client, &server.url()).await.unwrap().status, StatusCode::FOUND);
        assert_eq!(elsewhere.count(), 0);
        let error = get(&client, &server.url()).await.unwrap_err();
        assert!(matches!(error, RemoteError::TooLong(100)), "{error}");
        server.fail_next(1, Trouble::Hang);
        let request = client.request(http::Method::GET, server.url().parse().unwrap());
        let limit = Duration::from_millis(50);
        let error = client.send(request, limit, 100).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer within 0.05 s");
    }

    #[test]
    fn of_a_body_a_person_is_shown_one_line() {
        let answer = |body: &'static [u8]| Answer {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body),
        };
        assert_eq!(answer(b" a\n\x1b[2J  b\xff ").excerpt(), "a [2J b\u{fffd}");
        assert_eq!(answer(&[b'x'; 300]).excerpt().len(), 200);
    }
}
