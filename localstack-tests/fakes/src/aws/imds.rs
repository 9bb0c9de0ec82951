//! The metadata service of an instance.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;

use super::{Evidence, Instance, RegionSigner, lock, respond, with};
use crate::http::{HttpServer, Request, Response, Trouble};

const TOKEN_PATH: &str = "/latest/api/token";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TOKEN: &str = "x-aws-ec2-metadata-token";
const IDENTITY: &str = "/latest/dynamic/instance-identity/";
const CREDENTIALS: &str = "/latest/meta-data/iam/security-credentials/";

/// What the service offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Version 2 alone.
    Version2,
    /// Version 2, whose answer to a request for a token does not say how long it is good.
    Version2WithoutTtl,
    /// Version 2 alone, whose tokens do not come as far as the container that asks: they take more
    /// hops than they may.
    Version2OutOfReach,
    /// Both versions: whoever shows no token is answered too.
    Both,
    /// Version 1 alone: nobody knows of tokens.
    Version1,
    /// Version 1 alone, since tokens are forbidden.
    Version2Forbidden,
    /// Nothing: the service is disabled.
    Disabled,
}

/// A metadata service.
pub struct Imds {
    server: HttpServer,
    state: Arc<Mutex<State>>,
}

type Lazy<T> = LazyLock<T, Box<dyn FnOnce() -> T + Send>>;

struct State {
    mode: Mode,
    /// Signed once it is asked for.
    evidence: Lazy<Evidence>,
    /// The instance, as far as it is known.
    instance: Option<Instance>,
    /// Tokens, and until when they are good.
    tokens: HashMap<String, Instant>,
    issued: usize,
}

impl std::fmt::Debug for Imds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Imds").field("url", &self.url()).finish()
    }
}

impl Imds {
    /// The service of an instance with this evidence.
    pub async fn start(mode: Mode, evidence: Evidence) -> Self {
        Self::with(mode, LazyLock::new(Box::new(move || evidence)), None).await
    }

    /// The service of `instance`, signed by its region's [`RegionSigner::shared`] once somebody
    /// asks. The credentials of its instance profile are there too.
    pub async fn of(mode: Mode, instance: &Instance) -> Self {
        let (signer, signed) = (RegionSigner::shared(&instance.region), instance.clone());
        let evidence = move || signer.evidence(&signed, true);
        Self::with(mode, LazyLock::new(Box::new(evidence)), Some(instance.clone())).await
    }

    async fn with(mode: Mode, evidence: Lazy<Evidence>, instance: Option<Instance>) -> Self {
        let state = State { mode, evidence, instance, tokens: HashMap::new(), issued: 0 };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let server = HttpServer::start(move |request| answer(request, &mut lock(&shared))).await;
        if mode == Mode::Version2OutOfReach {
            let asks_for_token = |request: &Request| request.path == TOKEN_PATH;
            server.fail_where(usize::MAX, Trouble::Hang, asks_for_token);
        }
        Self { server, state }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The block `endpoints { … }` that leads the agent's plugin here.
    pub fn endpoints(&self) -> String {
        format!("endpoints {{ metadata = {:?} }}", self.url())
    }

    /// Its HTTP server, which can be made to fail.
    pub fn server(&self) -> &HttpServer {
        &self.server
    }

    /// No token that was given out so far is good any more, as after a restart of the service.
    pub fn forget_tokens(&self) {
        lock(&self.state).tokens.clear();
    }
}

fn answer(request: &Request, state: &mut State) -> Response {
    if state.mode == Mode::Disabled || !request.header("x-forwarded-for").is_empty() {
        return respond(403, "");
    }
    if request.path == TOKEN_PATH {
        return token(request, state);
    }
    if request.method != Method::GET {
        return respond(405, "");
    }
    let until = state.tokens.get(request.header(TOKEN));
    let is_good = until.is_some_and(|until| Instant::now() < *until);
    let admitted = match state.mode {
        Mode::Version1 | Mode::Version2Forbidden => true,
        Mode::Both => is_good || !request.headers.contains_key(TOKEN),
        _ => is_good,
    };
    if !admitted {
        return respond(401, "");
    }
    let text = match request.path.strip_prefix(IDENTITY) {
        Some("document") => Some(state.evidence.document.clone()),
        Some("signature") => Some(state.evidence.signature.clone()),
        Some("rsa2048") => Some(state.evidence.rsa2048.clone()),
        _ => state.instance.as_ref().and_then(|instance| metadata(&request.path, instance)),
    };
    match text {
        Some(text) => with(respond(200, text), "content-type", "text/plain"),
        None => respond(404, ""),
    }
}

/// What else an instance finds out about itself.
fn metadata(path: &str, instance: &Instance) -> Option<String> {
    match path {
        "/latest/meta-data/instance-id" => return Some(instance.id.clone()),
        "/latest/meta-data/placement/region" => return Some(instance.region.clone()),
        "/latest/meta-data/placement/availability-zone" => return Some(instance.zone.clone()),
        _ => {}
    }
    let profile = instance.profile.as_deref()?.rsplit('/').next()?;
    match path.strip_prefix(CREDENTIALS.trim_end_matches('/'))?.trim_start_matches('/') {
        "" => Some(profile.to_owned()),
        role if role == profile => {
            let credentials = json!({
                "Code": "Success",
                "LastUpdated": "2026-01-01T00:00:00Z",
                "Type": "AWS-HMAC",
                "AccessKeyId": format!("ASIA{}", instance.account),
                "SecretAccessKey": "secret",
                "Token": "session",
                "Expiration": "2099-01-01T00:00:00Z",
            });
            Some(credentials.to_string())
        }
        _ => None,
    }
}

fn token(request: &Request, state: &mut State) -> Response {
    let seconds: Option<u32> = request.header(TTL).parse().ok();
    match (state.mode, &request.method, seconds) {
        (Mode::Version1, ..) => respond(404, ""),
        (Mode::Version2Forbidden, ..) => respond(403, ""),
        (_, &Method::PUT, Some(seconds @ 1..=21600)) => {
            let token = format!("token-{}", state.issued);
            state.issued += 1;
            let until = Instant::now() + Duration::from_secs(seconds.into());
            state.tokens.insert(token.clone(), until);
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

#[cfg(test)]
mod tests {
    use super::super::{HOME_ACCOUNT, lines};
    use super::*;

    fn state(mode: Mode) -> State {
        let profile = format!("arn:aws:iam::{HOME_ACCOUNT}:instance-profile/team/Blog");
        let instance = Instance::new(HOME_ACCOUNT, "us-west-2", "i-0b22a22eec53b9321");
        let instance = Some(Instance { profile: Some(profile), ..instance });
        let [document, signature, rsa2048] =
            ["document", "signature", "rsa2048"].map(str::to_owned);
        let evidence = move || Evidence { document, signature, rsa2048 };
        let evidence: Lazy<Evidence> = LazyLock::new(Box::new(evidence));
        State { mode, evidence, instance, tokens: HashMap::new(), issued: 0 }
    }

    fn ask(
        state: &mut State,
        method: Method,
        path: &str,
        header: (&'static str, &str),
    ) -> Response {
        let headers = [(header.0.parse().unwrap(), header.1.parse().unwrap())];
        let headers = headers.into_iter().collect();
        let (path, query, body) = (path.to_owned(), String::new(), bytes::Bytes::new());
        answer(&Request { method, path, query, headers, body }, state)
    }

    #[test]
    fn each_mode_admits_whom_it_says() {
        // Statuses of: a request for a token, one without it, one with a wrong one.
        for (mode, expected) in [
            (Mode::Version2, [200, 401, 401]),
            (Mode::Version2WithoutTtl, [200, 401, 401]),
            (Mode::Both, [200, 200, 401]),
            (Mode::Version1, [404, 200, 200]),
            (Mode::Version2Forbidden, [403, 200, 200]),
            (Mode::Disabled, [403, 403, 403]),
        ] {
            let mut state = state(mode);
            let path = "/latest/dynamic/instance-identity/document";
            let token = ask(&mut state, Method::PUT, TOKEN_PATH, (TTL, "300"));
            let without = ask(&mut state, Method::GET, path, ("accept", "*/*"));
            let wrong = ask(&mut state, Method::GET, path, (TOKEN, "wrong"));
            let statuses = [&token, &without, &wrong].map(|answer| answer.status().as_u16());
            assert_eq!(statuses, expected, "{mode:?}");
            if token.status() == 200 {
                let has_ttl = token.headers().get(TTL).is_some_and(|ttl| ttl == "300");
                assert_eq!(has_ttl, mode != Mode::Version2WithoutTtl);
                let token = std::str::from_utf8(token.body()).unwrap();
                assert_eq!(ask(&mut state, Method::GET, path, (TOKEN, token)).body(), "document");
            }
        }
    }

    #[test]
    fn an_instance_has_the_credentials_of_its_profile() {
        let mut state = state(Mode::Version1);
        let mut text = |path: &str| {
            let answer = ask(&mut state, Method::GET, path, ("accept", "*/*"));
            String::from_utf8(answer.body().to_vec()).unwrap()
        };
        assert_eq!(text(CREDENTIALS), "Blog");
        let credentials = text(&format!("{CREDENTIALS}Blog"));
        assert!(credentials.contains(&format!("\"ASIA{HOME_ACCOUNT}\"")), "{credentials}");
        assert_eq!(text(&format!("{CREDENTIALS}Other")), "");
    }

    #[tokio::test]
    async fn evidence_looks_as_ec2_makes_it() {
        let instance = Instance::new(HOME_ACCOUNT, "us-west-2", "i-0b22a22eec53b9321");
        let imds = Imds::of(Mode::Version2, &instance).await;
        let evidence = &lock(&imds.state).evidence;
        // A genuine message begins so.
        let start = "MIAGCSqGSIb3DQEHAqCAMIACAQExDTALBglghkgBZQMEAgEw";
        assert!(evidence.rsa2048.starts_with(start), "{}", evidence.rsa2048);
        assert_eq!(evidence.signature.len(), lines(&[0; 128]).len());
        assert_eq!(evidence.signature.lines().map(str::len).collect::<Vec<_>>(), [76, 76, 20]);
        assert!(evidence.document.starts_with("{\n  \"accountId\" : \"123456789012\",\n"));
    }
}
