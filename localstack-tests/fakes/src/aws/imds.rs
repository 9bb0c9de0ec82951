//! The metadata service of an instance.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use http::Method;

use super::{Evidence, respond, with};
use crate::http::{HttpServer, Request, Response};

const TOKEN_PATH: &str = "/latest/api/token";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";
const IDENTITY: &str = "/latest/dynamic/instance-identity/";

/// What the service offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Version 2 alone.
    Version2,
    /// Version 2, whose answer to a request for a token does not say how long it is good.
    Version2WithoutTtl,
    /// Version 1 alone: nobody knows of tokens.
    Version1,
    /// Nothing: the service is disabled.
    Disabled,
}

/// A metadata service.
pub struct Imds {
    server: HttpServer,
    state: Arc<Mutex<State>>,
}

struct State {
    mode: Mode,
    evidence: Evidence,
    tokens: HashSet<String>,
}

impl std::fmt::Debug for Imds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Imds").field("url", &self.url()).finish()
    }
}

impl Imds {
    /// The service of an instance with this evidence.
    pub async fn start(mode: Mode, evidence: Evidence) -> Self {
        let state = State { mode, evidence, tokens: HashSet::new() };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let server = HttpServer::start(move |request| answer(request, &mut shared.lock().unwrap()));
        Self { server: server.await, state }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Its HTTP server, which can be made to fail.
    pub fn server(&self) -> &HttpServer {
        &self.server
    }

    /// No token that was given out so far is good any more.
    ///
    /// # Panics
    /// Where another thread has panicked meanwhile.
    pub fn forget_tokens(&self) {
        self.state.lock().unwrap().tokens.clear();
    }
}

fn answer(request: &Request, state: &mut State) -> Response {
    if state.mode == Mode::Disabled || !request.header("x-forwarded-for").is_empty() {
        return respond(403, "");
    }
    if request.path == TOKEN_PATH {
        return token(request, state);
    }
    let known = state.mode == Mode::Version1 || state.tokens.contains(request.header(TOKEN));
    if request.method != Method::GET || !known {
        return respond(401, "");
    }
    let Evidence { document, signature, rsa2048 } = &state.evidence;
    match request.path.strip_prefix(IDENTITY) {
        Some("document") => respond(200, document.clone()),
        Some("signature") => respond(200, signature.clone()),
        Some("rsa2048") => respond(200, rsa2048.clone()),
        _ => respond(404, ""),
    }
}

fn token(request: &Request, state: &mut State) -> Response {
    let seconds: Option<u32> = request.header(TTL).parse().ok();
    match (state.mode, &request.method, seconds) {
        (Mode::Version1, ..) => respond(404, ""),
        (_, &Method::PUT, Some(1..=21600)) => {
            let token = format!("token-{}", state.tokens.len());
            state.tokens.insert(token.clone());
            let answer = respond(200, token);
            match state.mode {
                Mode::Version2WithoutTtl => answer,
                _ => with(answer, TTL, request.header(TTL)),
            }
        }
        (_, &Method::PUT, _) => respond(400, ""),
        _ => respond(405, ""),
    }
}
