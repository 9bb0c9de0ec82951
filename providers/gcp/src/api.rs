//! The Compute API: what Google knows of an instance besides what its token says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use moka::future::Cache;
use serde::Deserialize;
use spire_core::node::AttestError;
use spire_core::remote::{Answer, Client, Endpoint, RemoteError};
use tokio::sync::Semaphore;

use crate::call;
use crate::config::LookupConfig;
use crate::credentials::{CredentialError, Credentials};
use crate::token::Instance;

const HOST: &str = "https://compute.googleapis.com";
/// How long one request may take, and all attempts together.
const ATTEMPT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(10);
/// How long it may take in all, credentials and waiting for others included.
const WHOLE: Duration = Duration::from_secs(15);
/// Longest answer in bytes that is read; the metadata of an instance alone may have 512 KiB.
const MAX_BYTES: usize = 4 << 20;
/// Requests that are under way at once.
const PARALLEL: usize = 32;
/// How long an answer is kept: for attempts that follow each other closely.
const KEPT: Duration = Duration::from_secs(10);
/// How much of answers is kept, in bytes.
const MAX_KEPT_BYTES: u64 = 32 << 20;
/// Headers in which Google names a request.
const REQUEST_IDS: [&str; 2] = ["x-goog-request-id", "x-cloud-trace-context"];

/// A client of the Compute API. Questions about one instance are put once for all who ask.
pub(crate) struct Compute {
    asking: Arc<Asking>,
    known: Cache<Place, Arc<Described>>,
}

struct Asking {
    client: Client,
    endpoint: Endpoint,
    credentials: Credentials,
    config: LookupConfig,
    places: Semaphore,
}

/// Where the API has an instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    project: String,
    zone: String,
    name: String,
}

/// What the API says of an instance, as far as it is used.
#[derive(Debug)]
pub(crate) struct Described {
    /// Its number.
    pub(crate) id: String,
    /// Such as `RUNNING`.
    pub(crate) status: String,
    pub(crate) tags: Vec<String>,
    /// Those labels that are asked for.
    pub(crate) labels: Vec<(String, String)>,
    /// Those items of its metadata that are asked for.
    pub(crate) metadata: Vec<(String, String)>,
    /// What Google calls the request.
    pub(crate) request_id: Option<String>,
}

/// Why the API has not described an instance.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LookupError {
    #[error("{0}")]
    Credentials(#[from] CredentialError),
    #[error("the Compute API cannot be asked: {0}")]
    Remote(#[from] RemoteError),
    #[error("the Compute API knows no instance {0}")]
    Unknown(String, Option<String>),
    #[error(
        "the Compute API answers with status {status}: {said}; the server needs the permission \
         compute.instances.get in project {project}"
    )]
    Forbidden { status: StatusCode, said: String, project: String, request_id: Option<String> },
    #[error("the Compute API answers with status {status}: {said}")]
    Status { status: StatusCode, said: String, request_id: Option<String> },
    #[error("the Compute API's answer cannot be read: {0}")]
    Answer(String, Option<String>),
    #[error("{0} cannot be looked up: its name is none that an instance has")]
    Name(String),
}

impl LookupError {
    /// What Google calls the request.
    pub(crate) fn request_id(&self) -> Option<&str> {
        match self {
            Self::Unknown(_, id)
            | Self::Answer(_, id)
            | Self::Forbidden { request_id: id, .. }
            | Self::Status { request_id: id, .. } => id.as_deref(),
            Self::Credentials(_) | Self::Remote(_) | Self::Name(_) => None,
        }
    }

    /// What it means for the node that is looked up.
    pub(crate) fn verdict(&self) -> AttestError {
        match self {
            Self::Unknown(..) | Self::Name(_) => AttestError::Refused(self.to_string()),
            _ => AttestError::Unavailable(self.to_string()),
        }
    }
}

/// An instance as the API writes it.
#[derive(Deserialize)]
struct Written {
    id: String,
    status: String,
    #[serde(default)]
    tags: Items<String>,
    #[serde(default)]
    labels: BTreeMap<String, Option<String>>,
    #[serde(default)]
    metadata: Items<Item>,
}

#[derive(Deserialize)]
#[serde(bound = "T: Deserialize<'de>")]
struct Items<T> {
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

impl<T> Default for Items<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

#[derive(Deserialize)]
struct Item {
    key: String,
    value: Option<String>,
}

impl Compute {
    /// A client of the API at `endpoint`, else at Google.
    ///
    /// # Errors
    /// Why there is no such place.
    pub(crate) fn new(
        client: Client,
        endpoint: Option<&Endpoint>,
        credentials: Credentials,
        config: LookupConfig,
    ) -> Result<Self, String> {
        let endpoint = endpoint.cloned().map_or_else(|| Endpoint::parse(HOST), Ok)?;
        let places = Semaphore::new(PARALLEL);
        let known = Cache::builder()
            .time_to_live(KEPT)
            .max_capacity(MAX_KEPT_BYTES)
            .weigher(|_, described: &Arc<Described>| described.size())
            .build();
        let asking = Asking { client, endpoint, credentials, config, places };
        Ok(Self { asking: Arc::new(asking), known })
    }

    /// What the API says of the instance that has the name of this one, now or a moment ago.
    ///
    /// # Errors
    /// [`LookupError`]
    pub(crate) async fn describe(
        &self,
        instance: &Instance,
    ) -> Result<Arc<Described>, Arc<LookupError>> {
        let place = Place::of(instance)?;
        let asking = self.asking.clone();
        let asked = place.clone();
        let ask = async move {
            let described = tokio::time::timeout(WHOLE, asking.ask(&asked)).await;
            described.map_err(|_| RemoteError::TooSlow(WHOLE))?.map(Arc::new)
        };
        self.known.try_get_with(place, ask).await
    }
}

impl Place {
    /// The names are Google's and become parts of a path: nothing is taken that would lead
    /// elsewhere.
    fn of(instance: &Instance) -> Result<Self, LookupError> {
        let Instance { project_id: project, zone, name, .. } = instance;
        let fits = |text: &str, more: &str| {
            let fits = |byte: char| byte.is_ascii_alphanumeric() || more.contains(byte);
            text.len() <= 255 && !text.starts_with('.') && text.chars().all(fits)
        };
        if !fits(project, "-:.") || !fits(zone, "-") || !fits(name, "-") {
            return Err(LookupError::Name(instance.to_string()));
        }
        Ok(Self { project: project.clone(), zone: zone.clone(), name: name.clone() })
    }

    fn path(&self) -> String {
        let Self { project, zone, name } = self;
        format!("/compute/v1/projects/{project}/zones/{zone}/instances/{name}")
    }
}

impl Asking {
    async fn ask(&self, place: &Place) -> Result<Described, LookupError> {
        // A place is kept from one attempt to the next: where the API is busy, fewer ask it. The
        // semaphore is never closed.
        let _place = self.places.acquire().await;
        let mut token = self.credentials.token().await?;
        let mut answer = self.send(place, &token.secret).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.credentials.forget(&token);
            token = self.credentials.token().await?;
            answer = self.send(place, &token.secret).await?;
        }
        self.read(place, &answer)
    }

    async fn send(&self, place: &Place, token: &str) -> Result<Answer, RemoteError> {
        let url = self.endpoint.url(&place.path());
        let attempt = || {
            let request = self.client.request(Method::GET, url.clone()).bearer_auth(token);
            self.client.send(request, ATTEMPT, MAX_BYTES)
        };
        call::until_answered(attempt, LIMIT).await
    }

    fn read(&self, place: &Place, answer: &Answer) -> Result<Described, LookupError> {
        let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let request_id = REQUEST_IDS.into_iter().find_map(header).map(str::to_owned);
        let said = || call::excerpt(answer);
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                return Err(LookupError::Unknown(place.path(), request_id));
            }
            status @ (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED) => {
                let (said, project) = (said(), place.project.clone());
                return Err(LookupError::Forbidden { status, said, project, request_id });
            }
            status => return Err(LookupError::Status { status, said: said(), request_id }),
        }
        match serde_json::from_slice(&answer.body) {
            Ok(written) => Ok(self.keep(written, request_id)),
            Err(error) => Err(LookupError::Answer(error.to_string(), request_id)),
        }
    }

    /// Of an instance's labels and metadata, which may be large, what is asked for.
    fn keep(&self, written: Written, request_id: Option<String>) -> Described {
        let LookupConfig { labels, metadata, .. } = &self.config;
        let labels = written
            .labels
            .into_iter()
            .filter(|(key, _)| labels.contains(key))
            .map(|(key, value)| (key, value.unwrap_or_default()));
        let metadata = written
            .metadata
            .items
            .into_iter()
            .filter(|item| metadata.contains(&item.key))
            .map(|item| (item.key, item.value.unwrap_or_default()));
        Described {
            id: written.id,
            status: written.status,
            tags: written.tags.items,
            labels: labels.collect(),
            metadata: metadata.collect(),
            request_id,
        }
    }
}

impl Described {
    /// About how many bytes it holds.
    fn size(&self) -> u32 {
        let pairs = self.labels.iter().chain(&self.metadata);
        let texts = pairs.map(|(key, value)| key.len() + value.len());
        let size = texts.sum::<usize>() + self.tags.iter().map(String::len).sum::<usize>() + 512;
        u32::try_from(size).unwrap_or(u32::MAX)
    }
}
