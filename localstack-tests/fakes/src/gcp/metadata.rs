//! The metadata server of an instance.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use super::tokens::Issued;
use super::{SigningKey, Vm};
use crate::http::{HttpServer, Request, Response, json as json_answer, text};

const ACCOUNTS: &str = "/computeMetadata/v1/instance/service-accounts/";

/// A metadata server.
#[derive(Debug, Clone)]
pub struct Metadata {
    server: HttpServer,
    vm: Arc<Mutex<Vm>>,
}

impl Metadata {
    /// Starts the metadata server of `vm`, whose tokens `key` signs; access tokens are among those
    /// that are `issued`.
    pub async fn start(vm: &Vm, key: &SigningKey, issued: Issued) -> Self {
        let vm = Arc::new(Mutex::new(vm.clone()));
        let (shown, key) = (vm.clone(), key.clone());
        let server = HttpServer::start(move |request| {
            let vm = shown.lock().unwrap_or_else(PoisonError::into_inner);
            let mut answer = answer(request, &vm, &key, &issued);
            let flavor = HeaderValue::from_static("Google");
            answer.headers_mut().insert("metadata-flavor", flavor);
            answer
        });
        Self { server: server.await, vm }
    }

    /// Its HTTP server.
    pub fn server(&self) -> &HttpServer {
        &self.server
    }

    /// Its address, as `identity_token_host` and `GCE_METADATA_HOST` take it.
    pub fn host(&self) -> String {
        self.server.address().to_string()
    }

    /// Changes what it says of the instance.
    pub fn change(&self, change: impl FnOnce(&mut Vm)) {
        change(&mut self.vm.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn answer(request: &Request, vm: &Vm, key: &SigningKey, issued: &Issued) -> Response {
    if request.header("metadata-flavor") != "Google" {
        return text(StatusCode::FORBIDDEN, "Missing Metadata-Flavor:Google header.");
    }
    if request.headers.contains_key("x-forwarded-for") {
        return text(StatusCode::FORBIDDEN, "Metadata requests must not be forwarded.");
    }
    if request.method != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only");
    }
    let not_found = || text(StatusCode::NOT_FOUND, "The requested URL was not found.");
    let Some((account, item)) =
        request.path.strip_prefix(ACCOUNTS).and_then(|rest| rest.split_once('/'))
    else {
        return not_found();
    };
    let Some(attached) = &vm.service_account else { return not_found() };
    if account != "default" && account != attached {
        return not_found();
    }
    let parameter = |name: &str| {
        let parameters = request.query.split('&').filter_map(|pair| pair.split_once('='));
        parameters
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .next()
            .unwrap_or_default()
    };
    match item {
        "identity" if parameter("audience").is_empty() => {
            text(StatusCode::BAD_REQUEST, "non-empty audience parameter required")
        }
        "identity" => {
            let mut claims = vm.claims(parameter("audience"), super::now());
            if parameter("format") != "full" {
                for name in ["google", "email", "email_verified"] {
                    claims.as_object_mut().map(|members| members.remove(name));
                }
            }
            text(StatusCode::OK, key.token(&claims))
        }
        "token" => {
            let token = json!({
                "access_token": issued.issue(), "expires_in": 3599, "token_type": "Bearer",
            });
            json_answer(StatusCode::OK, token.to_string())
        }
        _ => not_found(),
    }
}
