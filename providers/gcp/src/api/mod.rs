//! The Compute API: what Google knows of an instance besides what its token says.
//!
//! A single instance is asked for by its name, which takes no more than the permission to get it.
//! Several of one zone that are asked for at the same moment are listed by their numbers, as far as
//! the server may list; who is not in the list is asked for alone.

mod error;
mod instance;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::future::join_all;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use spire_core::remote::{
    Answer, Client, Coalescer, Endpoint, Lookup, Pace, RemoteError, until_answered,
};
use tokio::sync::Semaphore;
use url::{Url, form_urlencoded};

use crate::NAME;
use crate::config::LookupConfig;
use crate::credentials::Credentials;
use crate::token::Instance;

pub(crate) use error::LookupError;
pub(crate) use instance::Described;
use instance::{Page, Place, Written, Zone};

const HOST: &str = "https://compute.googleapis.com";
/// How long one request may take, and all attempts together.
const ATTEMPT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(10);
/// How long it may take in all, credentials and waiting for others included.
const WHOLE: Duration = Duration::from_secs(15);
/// How long questions wait for others to go out with.
const WINDOW: Duration = Duration::from_millis(40);
/// Instances of one question, of all zones together, and questions under way.
const LARGEST: usize = 500;
const QUESTIONS: usize = 4;
/// Twenty questions go out at once, then ten a second, unless there are enough to fill one.
const PACE: Pace = Pace { burst: 20, interval: Duration::from_millis(100) };
/// Instances of one list: their numbers must fit into a URL.
const LISTED: usize = 100;
/// Longest answer in bytes that is read; the metadata of an instance alone may have 512 KiB.
const MAX_BYTES: usize = 16 << 20;
/// Most pages of one list.
const MAX_PAGES: usize = 20;
/// Requests that are under way at once.
const PARALLEL: usize = 32;
/// How long a project is not asked for lists that has given none.
const UNLISTED: Duration = Duration::from_secs(10 * 60);
/// What the server needs in a project, and what lets it ask for many at once.
const GET: &str = "compute.instances.get";
const LIST: &str = "compute.instances.list";
/// Headers in which Google names a request.
const REQUEST_IDS: [&str; 2] = ["x-goog-request-id", "x-cloud-trace-context"];

/// What the API says of an instance, or why it says nothing, for all who ask.
type Found = Result<Arc<Described>, Arc<LookupError>>;

/// A client of the Compute API.
pub(crate) struct Compute(Coalescer<Asking>);

struct Asking {
    client: Client,
    endpoint: Endpoint,
    credentials: Credentials,
    config: LookupConfig,
    places: Semaphore,
    /// Projects that gave no list, and when. There are as many at most as are allowed.
    unlisted: Mutex<HashMap<String, Instant>>,
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
        let unlisted = Mutex::default();
        let asking = Asking { client, endpoint, credentials, config, places, unlisted };
        Ok(Self(Coalescer::new(asking, WINDOW, LARGEST, QUESTIONS).paced(PACE)))
    }

    /// What the API says of the instance that has the name of this one, or its number.
    ///
    /// # Errors
    /// [`LookupError`]
    pub(crate) async fn describe(&self, instance: &Instance) -> Found {
        let place = Place::of(instance)?;
        let found = tokio::time::timeout(WHOLE, self.0.get(place)).await;
        match found.map_err(|_| LookupError::from(RemoteError::TooSlow(WHOLE)))? {
            Ok(Some(found)) => found,
            Ok(None) => Err(LookupError::Unknown(instance.to_string(), None).into()),
            Err(never) => match never {},
        }
    }
}

#[async_trait]
impl Lookup for Asking {
    type Key = Place;
    type Value = Found;
    type Error = std::convert::Infallible;

    async fn look_up(&self, places: Vec<Place>) -> Result<HashMap<Place, Found>, Self::Error> {
        let mut zones: HashMap<Zone, Vec<Place>> = HashMap::new();
        for place in places {
            zones.entry(place.zone.clone()).or_default().push(place);
        }
        let mut questions = Vec::new();
        for (zone, places) in &zones {
            for places in places.chunks(LISTED) {
                questions.push(self.describe(zone, places));
            }
        }
        Ok(join_all(questions).await.into_iter().flatten().collect())
    }
}

impl Asking {
    /// Asks for instances of one zone, together where that goes.
    async fn describe(&self, zone: &Zone, places: &[Place]) -> Vec<(Place, Found)> {
        let mut listed = HashMap::new();
        if places.len() > 1 && self.may_list(zone) {
            match self.list(zone, places).await {
                Ok(found) => listed = found,
                Err(error) if error.is_passing() => {
                    let error = Arc::new(error);
                    return places.iter().map(|one| (one.clone(), Err(error.clone()))).collect();
                }
                Err(error) => {
                    tracing::warn!(
                        plugin_name = NAME,
                        project = zone.project,
                        %error,
                        "Instances are asked for one by one, as they cannot be listed"
                    );
                    self.unlisted().insert(zone.project.clone(), Instant::now());
                }
            }
        }
        let listed = &listed;
        let found = places.iter().map(|place| async move {
            let found = match listed.get(&place.id) {
                Some(described) => Ok(Arc::clone(described)),
                None => self.get(place).await.map(Arc::new).map_err(Arc::new),
            };
            (place.clone(), found)
        });
        join_all(found).await
    }

    fn may_list(&self, zone: &Zone) -> bool {
        self.unlisted().get(&zone.project).is_none_or(|since| since.elapsed() >= UNLISTED)
    }

    /// What is locked is whole at any time.
    fn unlisted(&self) -> std::sync::MutexGuard<'_, HashMap<String, Instant>> {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn get(&self, place: &Place) -> Result<Described, LookupError> {
        let (written, request_id): (Written, _) =
            self.ask(&place.zone, GET, self.endpoint.url(&place.path())).await?;
        Ok(written.keep(&self.config, request_id))
    }

    /// Those of `places` that are still there, by their numbers.
    async fn list(
        &self,
        zone: &Zone,
        places: &[Place],
    ) -> Result<HashMap<String, Arc<Described>>, LookupError> {
        let query = self.list_query(places);
        let mut url = self.endpoint.url(&format!("{}?{query}", zone.path()));
        let mut found = HashMap::new();
        for _ in 0..MAX_PAGES {
            let (page, request_id): (Page, _) = self.ask(zone, LIST, url.clone()).await?;
            for written in page.items {
                let described = written.keep(&self.config, request_id.clone());
                found.insert(described.id.clone(), Arc::new(described));
            }
            let Some(token) = page.next_page_token.filter(|token| !token.is_empty()) else {
                return Ok(found);
            };
            url.set_query(Some(&query));
            url.query_pairs_mut().append_pair("pageToken", &token);
        }
        Err(LookupError::Answer("the list has too many pages".to_owned(), None))
    }

    fn list_query(&self, places: &[Place]) -> String {
        let numbers: Vec<_> = places.iter().map(|place| format!("(id = {})", place.id)).collect();
        // Metadata may be large: it is left out where none is wanted.
        let metadata = if self.config.metadata.is_empty() { "" } else { ",metadata/items" };
        let fields = format!("nextPageToken,items(id,status,tags/items,labels{metadata})");
        form_urlencoded::Serializer::new(String::new())
            .append_pair("filter", &numbers.join(" OR "))
            .append_pair("fields", &fields)
            .finish()
    }

    /// What is at `url`, which takes `permission`, and what Google calls the request.
    async fn ask<T: DeserializeOwned>(
        &self,
        zone: &Zone,
        permission: &'static str,
        url: Url,
    ) -> Result<(T, Option<String>), LookupError> {
        // A place is kept from one attempt to the next: where the API is busy, fewer ask it. The
        // semaphore is never closed.
        let _place = self.places.acquire().await;
        let mut token = self.credentials.token().await?;
        let mut answer = self.send(&url, &token.secret).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            self.credentials.forget(&token);
            token = self.credentials.token().await?;
            answer = self.send(&url, &token.secret).await?;
        }
        let header = |name| answer.headers.get(name).and_then(|value| value.to_str().ok());
        let request_id = REQUEST_IDS.into_iter().find_map(header).map(str::to_owned);
        match (answer.status, answer.excerpt()) {
            (StatusCode::OK, _) => {}
            (StatusCode::NOT_FOUND, _) => {
                return Err(LookupError::Unknown(url.path().to_owned(), request_id));
            }
            (status @ (StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED), said) => {
                let project = zone.project.clone();
                return Err(LookupError::Forbidden {
                    status,
                    said,
                    permission,
                    project,
                    request_id,
                });
            }
            (status, said) => return Err(LookupError::Status { status, said, request_id }),
        }
        match serde_json::from_slice(&answer.body) {
            Ok(value) => Ok((value, request_id)),
            Err(error) => Err(LookupError::Answer(error.to_string(), request_id)),
        }
    }

    async fn send(&self, url: &Url, token: &str) -> Result<Answer, RemoteError> {
        let attempt = || {
            let request = self.client.request(Method::GET, url.clone()).bearer_auth(token);
            self.client.send(request, ATTEMPT, MAX_BYTES)
        };
        until_answered(attempt, LIMIT).await
    }
}
