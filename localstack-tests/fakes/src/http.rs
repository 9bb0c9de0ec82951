//! A small HTTP server on a port of its own, which remembers what it was asked and can be told to
//! behave as badly as services on the net do.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// An answer.
pub type Response = http::Response<Bytes>;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// Its path, without the query.
    pub path: String,
    /// Its query as it was sent; empty where there is none.
    pub query: String,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Request {
    /// A header's value; empty where it is absent or no text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// What goes wrong with a request before the service sees it.
#[derive(Debug, Clone)]
pub enum Trouble {
    /// It is answered with this status and a short text.
    Status(StatusCode),
    /// It is answered like this.
    Answer(Response),
    /// It is answered with these bytes as they are, and status 200.
    Body(Bytes),
    /// It is sent elsewhere, to this address.
    Redirect(String),
    /// It is never answered.
    Hang,
    /// The connection is cut.
    Reset,
}

/// How requests are answered. Cheap to clone: all clones are one server.
#[derive(Clone)]
pub struct HttpServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    _task: Arc<Task>,
}

type Handler = dyn Fn(&Request) -> Response + Send + Sync;
type Filter = dyn Fn(&Request) -> bool + Send + Sync;

struct Shared {
    handler: Box<Handler>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    requests: Vec<Request>,
    next: VecDeque<Trouble>,
    particular: Vec<(Arc<Filter>, usize, Trouble)>,
    always: Option<Trouble>,
    delay: Duration,
    throttle: Option<Throttle>,
    under_way: usize,
    most_at_once: usize,
}

/// So many requests are answered within each second, and others turned away.
struct Throttle {
    per_second: usize,
    began: Instant,
    answered: usize,
}

/// Ends with the server.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl std::fmt::Debug for HttpServer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "HttpServer({})", self.url())
    }
}

impl HttpServer {
    /// Starts a server whose requests `handler` answers.
    pub async fn start(handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let shared = Arc::new(Shared { handler: Box::new(handler), state: Mutex::default() });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { address, shared, _task: Arc::new(Task(task)) }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far, those that went wrong too.
    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    /// How many requests there were so far.
    pub fn count(&self) -> usize {
        self.state().requests.len()
    }

    /// How many requests were under way at the same time, at most.
    pub fn most_at_once(&self) -> usize {
        self.state().most_at_once
    }

    /// Lets the next `times` requests go wrong.
    pub fn fail_next(&self, times: usize, trouble: Trouble) {
        self.state().next.extend(std::iter::repeat_n(trouble, times));
    }

    /// Lets the next `times` requests go wrong that fit `filter`.
    pub fn fail_where(
        &self,
        times: usize,
        trouble: Trouble,
        filter: impl Fn(&Request) -> bool + Send + Sync + 'static,
    ) {
        self.state().particular.push((Arc::new(filter), times, trouble));
    }

    /// Lets all requests go wrong from now on; `None` ends it.
    pub fn fail_always(&self, trouble: impl Into<Option<Trouble>>) {
        self.state().always = trouble.into();
    }

    /// Answers after a while only.
    pub fn delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    /// Answers so many requests a second, others with status 429; `None` ends it.
    pub fn throttle(&self, per_second: impl Into<Option<usize>>) {
        let throttle = |per_second| Throttle { per_second, began: Instant::now(), answered: 0 };
        self.state().throttle = per_second.into().map(throttle);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }
}

/// An answer with a JSON text.
pub fn json(status: StatusCode, text: impl Into<Bytes>) -> Response {
    answer(status, "application/json", text)
}

/// An answer with a plain text.
pub fn text(status: StatusCode, text: impl Into<Bytes>) -> Response {
    answer(status, "text/plain", text)
}

fn answer(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Response {
    let built = http::Response::builder().status(status).header("content-type", kind);
    built.body(body.into()).expect("status and type are valid")
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a request down and says what goes wrong with it.
    fn receive(&self, request: &Request) -> (Duration, Option<Trouble>) {
        let mut state = self.state();
        state.requests.push(request.clone());
        state.under_way += 1;
        state.most_at_once = state.most_at_once.max(state.under_way);
        let throttled = state.throttle.as_mut().is_some_and(Throttle::is_exceeded);
        let mut particular = state.particular.iter_mut();
        let particular = particular.find(|(filter, times, _)| *times > 0 && filter(request));
        let particular = particular.map(|(_, times, trouble)| {
            *times -= 1;
            trouble.clone()
        });
        let trouble =
            particular.or_else(|| state.next.pop_front()).or_else(|| state.always.clone());
        let busy = || throttled.then_some(Trouble::Status(StatusCode::TOO_MANY_REQUESTS));
        (state.delay, trouble.or_else(busy))
    }

    /// `None` where the connection is to be cut.
    async fn answer(&self, request: Request) -> Option<Response> {
        let (delay, trouble) = self.receive(&request);
        let _under_way = UnderWay(self);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        Some(match trouble {
            None => (self.handler)(&request),
            Some(Trouble::Status(status)) => text(status, status.as_str().to_owned()),
            Some(Trouble::Answer(answer)) => answer,
            Some(Trouble::Body(body)) => text(StatusCode::OK, body),
            Some(Trouble::Redirect(to)) => {
                let mut response = text(StatusCode::FOUND, "elsewhere");
                let to = to.parse().expect("an address is a header's value");
                response.headers_mut().insert("location", to);
                response
            }
            Some(Trouble::Hang) => std::future::pending().await,
            Some(Trouble::Reset) => return None,
        })
    }
}

/// A request from when it came until it is answered or its connection is gone.
struct UnderWay<'s>(&'s Shared);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.state().under_way -= 1;
    }
}

impl Throttle {
    fn is_exceeded(&mut self) -> bool {
        if self.began.elapsed() >= Duration::from_secs(1) {
            (self.began, self.answered) = (Instant::now(), 0);
        }
        self.answered += 1;
        self.answered > self.per_second
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                connections.spawn(serve(stream, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let shared = shared.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
            let request = Request {
                method: parts.method,
                path: parts.uri.path().to_owned(),
                query: parts.uri.query().unwrap_or_default().to_owned(),
                headers: parts.headers,
                body,
            };
            let answer = shared.answer(request).await.ok_or(Cut)?;
            Ok::<_, Cut>(answer.map(Full::<Bytes>::new))
        }
    });
    // Clients that go away, and connections that are cut on purpose, are no news here.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The connection is to be cut.
#[derive(Debug)]
struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the connection is cut")
    }
}

impl std::error::Error for Cut {}
