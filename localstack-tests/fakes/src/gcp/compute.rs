//! The Compute API, as far as single instances are asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::Vm;
use super::tokens::Issued;
use crate::http::{HttpServer, Request, Response, json as json_answer};

type Instances = Arc<Mutex<HashMap<String, Value>>>;

/// The API.
#[derive(Debug, Clone)]
pub struct Compute {
    server: HttpServer,
    instances: Instances,
}

impl Compute {
    /// Starts the API, without instances, for those who have a token that was `issued`.
    pub async fn start(issued: Issued) -> Self {
        let instances = Instances::default();
        let shown = instances.clone();
        let server = HttpServer::start(move |request| {
            let mut answer = answer(request, &shown, &issued);
            let id = HeaderValue::from_static("fake-request-1");
            answer.headers_mut().insert("x-goog-request-id", id);
            answer
        });
        Self { server: server.await, instances }
    }

    /// Its HTTP server.
    pub fn server(&self) -> &HttpServer {
        &self.server
    }

    /// Adds an instance, or changes the one that has its name.
    pub fn add(&self, vm: &Vm) {
        self.lock().insert(vm.path(), vm.description());
    }

    /// Removes an instance.
    pub fn remove(&self, vm: &Vm) {
        self.lock().remove(&vm.path());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Value>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(request: &Request, instances: &Instances, issued: &Issued) -> Response {
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
    let instances = instances.lock().unwrap_or_else(PoisonError::into_inner);
    match instances.get(&request.path) {
        Some(instance) => json_answer(StatusCode::OK, instance.to_string()),
        None => failure(StatusCode::NOT_FOUND, "The resource was not found"),
    }
}

fn failure(status: StatusCode, message: &str) -> Response {
    let error = json!({ "error": { "code": status.as_u16(), "message": message } });
    json_answer(status, error.to_string())
}
