//! Whether a process is live and ready: named checks, repeated, and an HTTP listener that answers
//! from what they last said.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::config::HealthChecksConfig;
use crate::tasks::Tasks;

/// How often checks run until everything was well once.
const EAGER: Duration = Duration::from_secs(1);
/// How often they run afterwards.
const CALM: Duration = Duration::from_secs(60);
/// How long one round of checks may take before whatever has not answered counts as failed.
const CHECK_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take for its request line and headers.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Connections served at a time.
const MAX_CONNECTIONS: usize = 64;

/// A part of the process that can tell how it is.
#[async_trait]
pub trait HealthCheck: Send + Sync {
    /// How it is.
    async fn check(&self) -> Health;
}

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it would be wrong to restart the process.
    pub live: bool,
    /// Whether it can do its work.
    pub ready: bool,
    /// What the listener shows, such as `{"sign_x509_svid_err": "…"}`; empty where all is well.
    pub details: Map<String, Value>,
}

impl Health {
    /// All is well.
    pub fn good() -> Self {
        Self { live: true, ready: true, details: Map::new() }
    }

    /// Something is wrong: `key` is the name that operators know, `error` says what it is.
    pub fn bad(key: &str, error: impl ToString) -> Self {
        let details = Map::from_iter([(key.to_owned(), error.to_string().into())]);
        Self { live: false, ready: false, details }
    }

    /// The work goes on, but somebody should look: details as in [`Health::bad`], and all is well
    /// otherwise.
    pub fn warning(key: &str, error: impl ToString) -> Self {
        Self { live: true, ready: true, ..Self::bad(key, error) }
    }
}

/// The state of all checks, under the names of their subsystems.
pub type HealthReport = Arc<BTreeMap<&'static str, Health>>;

/// Runs `checks` until the tasks stop, and returns what they last said.
pub fn watch_health(
    checks: Vec<(&'static str, Arc<dyn HealthCheck>)>,
    tasks: &Tasks,
) -> watch::Receiver<HealthReport> {
    let unknown = Health { live: true, ready: false, details: Map::new() };
    let first = checks.iter().map(|(name, _)| (*name, unknown.clone())).collect();
    let (sender, receiver) = watch::channel(Arc::new(first));
    let stop = tasks.stop_token();
    tasks.spawn(async move {
        let mut interval = EAGER;
        let mut failing = BTreeMap::new();
        loop {
            let report = run(&checks).await;
            if report.values().all(|health| health.ready && health.live) {
                interval = CALM;
            }
            log_transitions(&report, &mut failing);
            sender.send_replace(Arc::new(report));
            tokio::select! {
                () = tokio::time::sleep(interval) => {}
                () = stop.cancelled() => return,
            }
        }
    });
    receiver
}

async fn run(checks: &[(&'static str, Arc<dyn HealthCheck>)]) -> BTreeMap<&'static str, Health> {
    let mut report = BTreeMap::new();
    for (name, check) in checks {
        let health = tokio::time::timeout(CHECK_LIMIT, check.check())
            .await
            .unwrap_or_else(|_| Health::bad("check_err", "no answer within 10s"));
        report.insert(*name, health);
    }
    report
}

fn log_transitions(
    report: &BTreeMap<&'static str, Health>,
    failing: &mut BTreeMap<&'static str, (u64, Instant)>,
) {
    for (check, health) in report {
        let details = || Value::Object(health.details.clone()).to_string();
        if health.ready && health.live {
            if let Some((failures, since)) = failing.remove(check) {
                let duration = since.elapsed().as_secs();
                tracing::info!(
                    subsystem_name = "health",
                    check,
                    failures,
                    duration,
                    "Health check recovered"
                );
            }
        } else if let Some((failures, _)) = failing.get_mut(check) {
            *failures += 1;
            tracing::error!(
                subsystem_name = "health",
                check,
                failures = *failures,
                details = details(),
                "Health check has failed"
            );
        } else {
            failing.insert(check, (1, Instant::now()));
            tracing::warn!(
                subsystem_name = "health",
                check,
                details = details(),
                "Health check failed"
            );
        }
    }
}

/// Opens the listener that the configuration asks for, if it asks for one, and answers there as one
/// of `tasks`. One that cannot listen leaves the process as it is, with a warning.
pub async fn listen(
    config: &HealthChecksConfig,
    report: watch::Receiver<HealthReport>,
    tasks: &Tasks,
) {
    if !config.listener_enabled {
        return;
    }
    let address = format!("{}:{}", config.bind_address, config.bind_port);
    let paths = HealthPaths { ready: config.ready_path.clone(), live: config.live_path.clone() };
    match TcpListener::bind(&address).await {
        Ok(listener) => {
            tracing::info!(subsystem_name = "health", address, "Serving health checks");
            tasks.spawn(serve_health(listener, paths, report, tasks.clone()));
        }
        Err(error) => tracing::warn!(
            subsystem_name = "health",
            address,
            %error,
            "Error serving health checks"
        ),
    }
}

/// The paths that the HTTP listener answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthPaths {
    /// Asked by orchestrators before they send work.
    pub ready: String,
    /// Asked by orchestrators before they restart.
    pub live: String,
}

/// Answers health requests on `listener` until the tasks stop: 200 where every check is fine, 500
/// otherwise, with the details of each as JSON.
pub async fn serve_health(
    listener: TcpListener,
    paths: HealthPaths,
    report: watch::Receiver<HealthReport>,
    tasks: Tasks,
) {
    let stop = tasks.stop_token();
    let paths = Arc::new(paths);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            // Out of descriptors: the next try would fail at once too.
            tokio::time::sleep(EAGER).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (paths, report, stop) = (paths.clone(), report.clone(), stop.clone());
        tasks.spawn(async move {
            let _place = place;
            let service = service_fn(|request| {
                let response = answer(&request, &paths, &report.borrow());
                async { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_LIMIT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                _ = connection => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

fn answer(
    request: &Request<Incoming>,
    paths: &HealthPaths,
    report: &HealthReport,
) -> Response<Full<Bytes>> {
    let is_fine: fn(&Health) -> bool = match request.uri().path() {
        path if path == paths.ready => |health| health.ready,
        path if path == paths.live => |health| health.live,
        _ => return plain(StatusCode::NOT_FOUND, "404 page not found\n"),
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "");
    }
    let status = if report.values().all(is_fine) {
        StatusCode::OK
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let body: BTreeMap<_, _> =
        report.iter().map(|(name, health)| (*name, &health.details)).collect();
    let body = serde_json::to_vec(&body).unwrap_or_default();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    struct Fixed(Health);

    #[async_trait]
    impl HealthCheck for Fixed {
        async fn check(&self) -> Health {
            self.0.clone()
        }
    }

    async fn ask(checks: Vec<(&'static str, Health)>, path: &str) -> String {
        let tasks = Tasks::new();
        let checks = checks
            .into_iter()
            .map(|(name, health)| (name, Arc::new(Fixed(health)) as Arc<dyn HealthCheck>))
            .collect();
        let mut report = watch_health(checks, &tasks);
        report.changed().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let paths = HealthPaths { ready: "/ready".into(), live: "/live".into() };
        tasks.spawn(serve_health(listener, paths, report, tasks.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(tasks.drain(Duration::from_secs(5)).await);
        answer
    }

    #[tokio::test]
    async fn all_is_well() {
        let answer = ask(vec![("server", Health::good())], "/ready").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.ends_with(r#"{"server":{}}"#), "{answer}");
    }

    #[tokio::test]
    async fn one_bad_check_makes_the_whole_bad() {
        let bad = Health::bad("rotation_err", "no upstream");
        let checks = vec![("server", Health::good()), ("server.ca.rotator", bad)];
        let answer = ask(checks, "/live").await;
        assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
        assert!(answer.contains(r#""server.ca.rotator":{"rotation_err":"no upstream"}"#));
    }

    #[tokio::test]
    async fn a_warning_is_shown_and_fails_nothing() {
        for path in ["/live", "/ready"] {
            let warning = Health::warning("rotation_err", "no upstream");
            let answer = ask(vec![("server.ca.rotator", warning)], path).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.ends_with(r#"{"server.ca.rotator":{"rotation_err":"no upstream"}}"#));
        }
    }

    #[tokio::test]
    async fn other_paths_are_not_found() {
        assert!(ask(vec![], "/metrics").await.starts_with("HTTP/1.1 404"));
    }
}
