//! A small AWS: what an instance finds at its metadata service, and the APIs that are asked about
//! it, all at one address, as whoever configures them by their URLs may have them.

mod autoscaling;
mod ec2;
mod eks;
mod iam;
mod imds;
mod instance;
mod organizations;
pub mod pkcs7;
mod signer;
mod sts;
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;
use url::form_urlencoded;

use crate::http::{HttpServer, Request, Response, Trouble};

pub use imds::{Imds, Mode};
pub use instance::{Instance, Interface, Volume};
pub use signer::{Evidence, RegionSigner, lines};

/// The account to which keys belong that no role gave out.
pub const HOME_ACCOUNT: &str = "123456789012";

/// The control plane: EC2, IAM, STS, Organizations, EKS and Auto Scaling.
pub struct Aws {
    server: HttpServer,
    world: Arc<Mutex<World>>,
}

/// What there is in this AWS. Tests change it as they like.
#[derive(Debug, Default)]
pub struct World {
    /// All instances, in whatever account, region and state.
    pub instances: Vec<Instance>,
    /// Instance profiles by account and name: ARNs of their roles.
    pub profiles: BTreeMap<(String, String), Vec<String>>,
    /// Roles that anyone may assume, by account and name.
    pub roles: BTreeSet<(String, String)>,
    /// The accounts of the organization, with their status.
    pub accounts: Vec<(String, String)>,
    /// Node groups by cluster: their names and the Auto Scaling groups of each.
    pub clusters: BTreeMap<String, Vec<(String, Vec<String>)>>,
    /// Auto Scaling groups: the IDs of their instances.
    pub scaling_groups: BTreeMap<String, Vec<String>>,
    /// How many items EKS and Organizations put on a page; 0 for as many as there are.
    pub page_size: usize,
    /// Whether DescribeInstances doubles what it finds, as a broken API would.
    pub doubled: bool,
    /// The ID that DescribeInstances gives to whatever it finds.
    pub renamed: Option<String>,
    /// Whether DescribeInstances keeps to itself which IDs it does not know.
    pub silent: bool,
    /// How many requests a second are answered before the rest is throttled.
    pub rate: Option<f64>,
    bucket: Option<(f64, Instant)>,
}

impl std::fmt::Debug for Aws {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Aws").field("url", &self.url()).finish()
    }
}

impl Aws {
    /// An AWS with nothing in it.
    pub async fn start() -> Self {
        let world = Arc::new(Mutex::new(World::default()));
        let shared = world.clone();
        let server = HttpServer::start(move |request| answer(request, &mut shared.lock().unwrap()));
        Self { server: server.await, world }
    }

    /// The URL of all its services.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// The block `endpoints { … }` that leads the server's plugin here.
    pub fn endpoints(&self) -> String {
        let services = ["ec2", "iam", "sts", "organizations", "eks", "autoscaling"];
        let lines = services.map(|service| format!("    {service} = {:?}\n", self.url()));
        format!("endpoints {{\n{}}}", lines.concat())
    }

    /// What there is. It stands still while this is held.
    ///
    /// # Panics
    /// Where another thread has panicked meanwhile.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Its HTTP server, which can be made to fail.
    pub fn server(&self) -> &HttpServer {
        &self.server
    }

    /// How often `action` was asked for, such as `DescribeInstances`.
    pub fn count(&self, action: &str) -> usize {
        self.server.requests().iter().filter(|request| action_of(request) == action).count()
    }

    /// The next `times` requests for `action` go wrong.
    pub fn fail(&self, action: &'static str, times: usize, trouble: Trouble) {
        self.server.fail_where(times, trouble, move |request| action_of(request) == action);
    }
}

impl World {
    /// Whether one more request may be answered now.
    fn admits(&mut self) -> bool {
        let Some(rate) = self.rate else { return true };
        let now = Instant::now();
        let (tokens, at) = self.bucket.unwrap_or((rate, now));
        let tokens = (tokens + now.duration_since(at).as_secs_f64() * rate).min(rate);
        let admitted = tokens >= 1.0;
        self.bucket = Some((if admitted { tokens - 1.0 } else { tokens }, now));
        admitted
    }
}

/// Who asks: the account and region that a request is signed for.
struct Caller {
    account: String,
    region: String,
}

impl Caller {
    /// `None` where the request is not signed, or with a temporary key without its token.
    fn of(request: &Request) -> Option<Self> {
        let (_, scope) = request.header("authorization").split_once("Credential=")?;
        let scope = scope.split([',', ' ']).next()?;
        let mut parts = scope.split('/');
        let (key, _date, region) = (parts.next()?, parts.next()?, parts.next()?);
        let temporary = key.strip_prefix("ASIA");
        if temporary.is_some() && request.header("x-amz-security-token").is_empty() {
            return None;
        }
        let account = temporary.filter(|rest| rest.len() == 12).unwrap_or(HOME_ACCOUNT);
        Some(Self { account: account.to_owned(), region: region.to_owned() })
    }
}

/// What a request asks for, whatever its protocol.
pub fn action_of(request: &Request) -> String {
    if let Some((_, action)) = request.header("x-amz-target").split_once('.') {
        return action.to_owned();
    }
    let segments: Vec<&str> = request.path.trim_matches('/').split('/').collect();
    match segments[..] {
        ["clusters", _, "node-groups"] => return "ListNodegroups".to_owned(),
        ["clusters", _, "node-groups", _] => return "DescribeNodegroup".to_owned(),
        _ => {}
    }
    let action = fields(&request.body).into_iter().find(|(key, _)| key == "Action");
    action.map(|(_, action)| action).unwrap_or_default()
}

fn answer(request: &Request, world: &mut World) -> Response {
    let action = action_of(request);
    let fields = fields(&request.body);
    let answer = match (Caller::of(request), world.admits()) {
        (None, _) => xml::error(403, "AuthFailure", "the request is not signed as it must be"),
        (_, false) => xml::error(503, "RequestLimitExceeded", "Request limit exceeded."),
        (Some(caller), true) => match action.as_str() {
            "DescribeInstances" => ec2::describe_instances(&fields, &caller, world),
            "GetInstanceProfile" => iam::get_instance_profile(&fields, &caller, world),
            "AssumeRole" => sts::assume_role(&fields, world),
            "ListAccounts" => organizations::list_accounts(request, world),
            "ListNodegroups" => eks::list_nodegroups(request, world),
            "DescribeNodegroup" => eks::describe_nodegroup(request, world),
            "DescribeAutoScalingGroups" => autoscaling::describe_groups(&fields, world),
            other => xml::error(400, "InvalidAction", &format!("{other:?} is not valid here")),
        },
    };
    let number = request.header("amz-sdk-invocation-id").to_owned();
    with(answer, "x-amzn-requestid", &format!("fake-{number}"))
}

/// The fields of a query or of a form.
fn fields(text: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(text).into_owned().collect()
}

/// An answer without headers.
fn respond(status: u16, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

/// `response` with one header more.
fn with(mut response: Response, name: &'static str, value: &str) -> Response {
    response.headers_mut().insert(name, value.parse().expect("a header's value"));
    response
}

/// The values of `Name.1`, `Name.2` and so on.
fn numbered(fields: &[(String, String)], name: &str) -> Vec<String> {
    let prefix = format!("{name}.");
    let numbered = fields.iter().filter(|(key, _)| {
        key.strip_prefix(&prefix).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit()))
    });
    numbered.map(|(_, value)| value.clone()).collect()
}

/// A page of `items` and the token of the next one.
fn page<'i, T>(items: &'i [T], token: Option<&str>, size: usize) -> (&'i [T], Option<String>) {
    let start = token.and_then(|token| token.parse().ok()).unwrap_or(0).min(items.len());
    let size = if size == 0 { items.len() } else { size };
    let end = (start + size).min(items.len());
    (&items[start..end], (end < items.len()).then(|| end.to_string()))
}
