//! Client of Azure Resource Manager: one tenant's view of it, by REST. Trouble that passes is
//! waited for; what the server may not see is told apart from what is not there.

mod error;
mod graph;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use spire_core::remote::{Client, Endpoint, until_answered};
use tokio::sync::Semaphore;
use url::Url;

use crate::cloud::{self, Services};
use crate::credentials::Credential;

pub(crate) use error::{ApiError, Kind};
pub(crate) use graph::quoted;

/// How long one answer may take, and all attempts together.
const ANSWER: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(10);
/// Largest answer in bytes that is read.
const MAX_ANSWER_BYTES: usize = 16 << 20;
/// Most pages of one list that are read.
const MAX_PAGES: usize = 100;
/// Most requests to Azure under way for one tenant.
const MAX_PARALLEL: usize = 16;

/// What Azure calls a request.
pub(crate) type RequestId = Option<Arc<str>>;

/// An answer, and what Azure calls the request.
#[derive(Debug, Clone)]
pub(crate) struct Answer<T> {
    pub(crate) value: T,
    pub(crate) request_id: RequestId,
}

/// Azure Resource Manager as one tenant's credential sees it.
pub(crate) struct ResourceManager {
    client: Client,
    endpoint: Endpoint,
    host: &'static str,
    credential: Credential,
    calls: Semaphore,
}

#[derive(Deserialize)]
struct Page<T> {
    value: Vec<T>,
    #[serde(rename = "nextLink")]
    next_link: Option<String>,
}

impl ResourceManager {
    /// The manager of the cloud of `services`.
    pub(crate) fn new(services: &Services, client: Client, credential: Credential) -> Self {
        Self {
            client,
            endpoint: services.resource_manager.clone(),
            host: services.cloud.resource_manager_host(),
            credential,
            calls: Semaphore::new(MAX_PARALLEL),
        }
    }

    /// The resource at `path`, which may have a query.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Answer<T>, ApiError> {
        self.ask(Method::GET, self.endpoint.url(path), None).await
    }

    /// The list at `path`, with all of its pages.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<Answer<Vec<T>>, ApiError> {
        let (mut items, mut next) = (Vec::new(), self.endpoint.url(path));
        for _ in 0..MAX_PAGES {
            let page: Answer<Page<T>> = self.ask(Method::GET, next, None).await?;
            items.extend(page.value.value);
            let Some(link) = page.value.next_link.filter(|link| !link.is_empty()) else {
                return Ok(Answer { value: items, request_id: page.request_id });
            };
            next = cloud::moved(&link, &[self.host], &self.endpoint).ok_or_else(|| {
                ApiError::odd("its next page is on another host", page.request_id.clone())
            })?;
        }
        Err(ApiError::odd("the list has too many pages", None))
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        url: Url,
        body: Option<&serde_json::Value>,
    ) -> Result<Answer<T>, ApiError> {
        // A place is kept from one attempt to the next: where Azure is busy, fewer ask it. The
        // semaphore is never closed.
        let _call = self.calls.acquire().await;
        let token = self.credential.token().await.map_err(|error| ApiError::no_token(&error))?;
        let attempt = || {
            let mut request = self.client.request(method.clone(), url.clone());
            request = request.bearer_auth(token.as_str());
            if let Some(body) = body {
                request = request.header(http::header::CONTENT_TYPE, "application/json");
                request = request.body(body.to_string());
            }
            self.client.send(request, ANSWER, MAX_ANSWER_BYTES)
        };
        let answer = until_answered(attempt, LIMIT).await;
        let answer = answer.map_err(|error| ApiError::unanswered(&error))?;
        let request_id = request_id(&answer.headers);
        if answer.status != StatusCode::OK {
            return Err(ApiError::refused(&answer, request_id));
        }
        match serde_json::from_slice(&answer.body) {
            Ok(value) => Ok(Answer { value, request_id }),
            Err(error) => Err(ApiError::odd(error, request_id)),
        }
    }
}

fn request_id(headers: &HeaderMap) -> RequestId {
    let id = ["x-ms-request-id", "x-ms-correlation-request-id"];
    let id = id.into_iter().find_map(|name| headers.get(name)?.to_str().ok());
    id.map(|id| id.chars().take(128).collect::<String>().into())
}
