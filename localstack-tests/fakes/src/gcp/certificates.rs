//! Where Google publishes the keys that sign identity tokens.

use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderValue, StatusCode};

use super::SigningKey;
use crate::http::{HttpServer, json, text};

/// Where the certificates are.
const PATH: &str = "/oauth2/v1/certs";

/// A server of certificates by the IDs of their keys.
#[derive(Debug, Clone)]
pub struct Certificates {
    server: HttpServer,
    published: Arc<Mutex<Published>>,
}

#[derive(Debug)]
struct Published {
    /// In this order, even if one appears twice.
    members: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
}

impl Certificates {
    /// Publishes `key`, to be kept for five hours.
    pub async fn start(key: &SigningKey) -> Self {
        let members = vec![(key.id().to_owned(), key.certificate().to_owned())];
        let headers = vec![("cache-control", "public, max-age=18000, must-revalidate".to_owned())];
        let published = Arc::new(Mutex::new(Published { members, headers }));
        let shown = published.clone();
        let server = HttpServer::start(move |request| {
            if request.path != PATH {
                return text(StatusCode::NOT_FOUND, "not found");
            }
            let published = shown.lock().unwrap_or_else(PoisonError::into_inner);
            let mut answer = json(StatusCode::OK, published.document());
            for (name, value) in &published.headers {
                let value = HeaderValue::from_str(value).expect("a test sets valid headers");
                answer.headers_mut().insert(*name, value);
            }
            answer
        });
        Self { server: server.await, published }
    }

    /// Its HTTP server.
    pub fn server(&self) -> &HttpServer {
        &self.server
    }

    /// Publishes these keys instead, each with its ID.
    pub fn publish(&self, keys: &[&SigningKey]) {
        let members = keys.iter().map(|key| (key.id(), key.certificate()));
        self.publish_texts(&members.collect::<Vec<_>>());
    }

    /// Publishes these texts instead, which may be no certificates.
    pub fn publish_texts(&self, members: &[(&str, &str)]) {
        let members =
            members.iter().map(|(id, text)| ((*id).to_owned(), (*text).to_owned())).collect();
        self.lock().members = members;
    }

    /// Sends these headers along instead of those that let an answer be kept for five hours.
    pub fn send_headers(&self, headers: &[(&'static str, &str)]) {
        self.lock().headers =
            headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Published> {
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Published {
    /// Written by hand, since no JSON library writes a member twice.
    fn document(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let members =
            self.members.iter().map(|(id, text)| format!("{}:{}", quoted(id), quoted(text)));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    }
}
