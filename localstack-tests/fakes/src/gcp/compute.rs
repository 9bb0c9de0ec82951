//! The Compute API, as far as instances are asked for: one by its name, or some of a zone by their
//! numbers.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use url::form_urlencoded;

use super::Vm;
use super::tokens::Issued;
use crate::http::{HttpServer, Request, Response, json as json_answer};

type State = Arc<Mutex<Known>>;

#[derive(Debug, Default)]
struct Known {
    /// By their paths.
    instances: BTreeMap<String, Value>,
    /// Whether nobody may list.
    lists_are_forbidden: bool,
    /// Instances of one page of a list; 0 for all.
    page: usize,
}

/// The API.
#[derive(Debug, Clone)]
pub struct Compute {
    server: HttpServer,
    state: State,
}

impl Compute {
    /// Starts the API, without instances, for those who have a token that was `issued`.
    pub async fn start(issued: Issued) -> Self {
        let state = State::default();
        let shown = state.clone();
        let server = HttpServer::start(move |request| {
            let mut answer = answer(request, &shown, &issued);
            let id = HeaderValue::from_static("fake-request-1");
            answer.headers_mut().insert("x-goog-request-id", id);
            answer
        });
        Self { server: server.await, state }
    }

    /// Its HTTP server.
    pub fn server(&self) -> &HttpServer {
        &self.server
    }

    /// Adds an instance, or changes the one that has its name.
    pub fn add(&self, vm: &Vm) {
        self.lock().instances.insert(vm.path(), vm.description());
    }

    /// Removes an instance.
    pub fn remove(&self, vm: &Vm) {
        self.lock().instances.remove(&vm.path());
    }

    /// Whether nobody has the permission to list.
    pub fn forbid_lists(&self, forbidden: bool) {
        self.lock().lists_are_forbidden = forbidden;
    }

    /// Has lists come in pages of so many instances; 0 for all at once.
    pub fn set_page(&self, page: usize) {
        self.lock().page = page;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(request: &Request, state: &State, issued: &Issued) -> Response {
    let token = request.header("authorization").strip_prefix("Bearer ").unwrap_or_default();
    if !issued.knows(token) {
        return failure(
            StatusCode::UNAUTHORIZED,
            "Request had invalid authentication credentials.",
        );
    }
    if request.method != Method::GET {
        return failure(StatusCode::METHOD_NOT_ALLOWED, "GET only");
    }
    let known = state.lock().unwrap_or_else(PoisonError::into_inner);
    if request.path.ends_with("/instances") {
        return list(request, &known);
    }
    match known.instances.get(&request.path) {
        Some(instance) => json_answer(StatusCode::OK, instance.to_string()),
        None => failure(StatusCode::NOT_FOUND, "The resource was not found"),
    }
}

/// The instances of a zone that `filter` names: `(id = 1) OR (id = 2)`.
fn list(request: &Request, known: &Known) -> Response {
    if known.lists_are_forbidden {
        return failure(StatusCode::FORBIDDEN, "Required 'compute.instances.list' permission");
    }
    let query: HashMap<_, _> = form_urlencoded::parse(request.query.as_bytes()).collect();
    let parameter = |name: &str| query.get(name).map(AsRef::as_ref).unwrap_or_default();
    let number = |term: &str| {
        let number = term.strip_prefix("(id = ")?.strip_suffix(')')?.parse::<u64>().ok()?;
        Some(number.to_string())
    };
    let numbers = parameter("filter").split(" OR ").map(number).collect::<Option<HashSet<_>>>();
    let Some(numbers) = numbers else {
        return failure(StatusCode::BAD_REQUEST, "Invalid value for field 'filter'");
    };
    let prefix = format!("{}/", request.path);
    let found = known.instances.iter().filter(|(path, _)| path.starts_with(&prefix));
    let found = found.map(|(_, instance)| instance);
    let found: Vec<&Value> = found
        .filter(|instance| instance["id"].as_str().is_some_and(|id| numbers.contains(id)))
        .collect();
    let start = parameter("pageToken").parse().unwrap_or(0).min(found.len());
    let end = if known.page == 0 { found.len() } else { found.len().min(start + known.page) };
    let mut answer = json!({ "kind": "compute#instanceList" });
    // The API leaves out what is empty.
    if start < end {
        answer["items"] = json!(found[start..end]);
    }
    if end < found.len() {
        answer["nextPageToken"] = end.to_string().into();
    }
    json_answer(StatusCode::OK, answer.to_string())
}

fn failure(status: StatusCode, message: &str) -> Response {
    let error = json!({ "error": { "code": status.as_u16(), "message": message } });
    json_answer(status, error.to_string())
}
