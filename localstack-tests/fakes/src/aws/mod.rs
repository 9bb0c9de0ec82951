//! A small AWS: what an instance finds at its metadata service, and the APIs that are asked about
//! it, all at one address, as whoever configures them by their URLs may have them.
//!
//! ```no_run
//! # use spire_fakes::aws::{Aws, HOME_ACCOUNT, Imds, Instance, Mode, RegionSigner};
//! # async fn example() -> std::io::Result<()> {
//! let aws = Aws::start().await;
//! let web = Instance::new(HOME_ACCOUNT, "us-west-2", "i-0b22a22eec53b9321");
//! aws.launch(web.fleet(10_000));
//! aws.world().rate = Some(20.0);
//! // A server is configured with this block, and the folder as its `certificates_dir`.
//! let of_server = aws.endpoints();
//! let signer = RegionSigner::shared("us-west-2");
//! signer.write("certificates".as_ref())?;
//! // An agent is configured with this block, or a load program sends this payload.
//! let of_agent = Imds::of(Mode::Version2, &web).await.endpoints();
//! let payload = signer.evidence(&web, false).payload();
//! assert_eq!(aws.count("DescribeInstances"), 0);
//! # Ok(())
//! # }
//! ```

mod acmpca;
mod autoscaling;
mod call;
mod ec2;
mod eks;
mod iam;
mod imds;
mod instance;
mod organizations;
pub mod pkcs7;
mod secrets;
mod signer;
mod sts;
#[cfg(test)]
mod tests;
mod xml;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http::StatusCode;

use crate::http::{HttpServer, Request, Response, Trouble};
use call::{Call, Caller, Refusal};

pub use acmpca::{Malice, PrivateCa};
pub use call::action_of;
pub use imds::{Imds, Mode};
pub use instance::{Instance, Interface, SCALING_GROUP_TAG, Volume};
pub use signer::{Evidence, RegionSigner, lines};
pub use sts::WEB_IDENTITY;

/// The account to which keys belong that no role gave out.
pub const HOME_ACCOUNT: &str = "123456789012";

/// The control plane: EC2, IAM, STS, Organizations, EKS, Auto Scaling, Private CA and Secrets
/// Manager.
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
    /// Roles that anyone may assume, by account and name with its path.
    pub roles: BTreeSet<(String, String)>,
    /// The accounts of the organization, with their status.
    pub accounts: Vec<(String, String)>,
    /// The account that alone may list them; `None` lets every account do so.
    pub management_account: Option<String>,
    /// Node groups by cluster: their names and the Auto Scaling groups of each.
    pub clusters: BTreeMap<String, Vec<(String, Vec<String>)>>,
    /// Auto Scaling groups: the IDs of their instances.
    pub scaling_groups: BTreeMap<String, Vec<String>>,
    /// Authorities of Private CA.
    pub authorities: Vec<PrivateCa>,
    /// Secrets by region and name.
    pub secrets: BTreeMap<(String, String), String>,
    /// How many items EKS, Auto Scaling and Organizations put on a page; 0 for as many as AWS does.
    pub page_size: usize,
    /// How many instances EC2 puts on a page; 0 for all.
    pub instances_per_page: usize,
    /// Actions that nobody has the permission for, such as `DescribeInstances`.
    pub forbidden: BTreeSet<String>,
    /// Whether DescribeInstances doubles what it finds, as a broken API would.
    pub doubled: bool,
    /// The ID that DescribeInstances gives to whatever it finds.
    pub renamed: Option<String>,
    /// Whether DescribeInstances keeps to itself which IDs it does not know.
    pub silent: bool,
    /// How many requests a second are answered before the rest is throttled.
    pub rate: Option<f64>,
    bucket: Option<(f64, Instant)>,
    answered: u64,
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
        let server = HttpServer::start(move |request| answer(request, &mut lock(&shared)));
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
    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// Adds instances, and each to the Auto Scaling group that its tag names.
    pub fn launch(&self, instances: impl IntoIterator<Item = Instance>) {
        let mut world = self.world();
        for instance in instances {
            if let Some(group) = instance.scaling_group() {
                let members = world.scaling_groups.entry(group.to_owned()).or_default();
                members.push(instance.id.clone());
            }
            world.instances.push(instance);
        }
    }

    /// Its HTTP server, which can be made to fail.
    pub fn server(&self) -> &HttpServer {
        &self.server
    }

    /// How often `action` was asked for, such as `DescribeInstances`.
    pub fn count(&self, action: &str) -> usize {
        self.counts().remove(action).unwrap_or(0)
    }

    /// How often each action was asked for, those that were refused too.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for request in self.server.requests() {
            *counts.entry(action_of(&request)).or_default() += 1;
        }
        counts
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

fn answer(request: &Request, world: &mut World) -> Response {
    world.answered += 1;
    let call = Call::new(request, format!("fake-{}", world.answered));
    let answer = perform(&call, world).unwrap_or_else(|refusal| call.refuse(&refusal));
    with(answer, "x-amzn-requestid", &call.id)
}

fn perform(call: &Call<'_>, world: &mut World) -> Result<Response, Refusal> {
    if call.action == "AssumeRoleWithWebIdentity" {
        return sts::assume_role_with_web_identity(call, world);
    }
    let caller = Caller::of(call).ok_or_else(|| call.protocol.unsigned())?;
    if !world.admits() {
        return Err(call.protocol.throttled());
    }
    let service = match call.action.as_str() {
        "DescribeInstances" => "ec2",
        "GetInstanceProfile" => "iam",
        "AssumeRole" | "GetCallerIdentity" => "sts",
        "ListAccounts" => "organizations",
        "ListNodegroups" | "DescribeNodegroup" => "eks",
        "DescribeAutoScalingGroups" => "autoscaling",
        "DescribeCertificateAuthority"
        | "GetCertificateAuthorityCertificate"
        | "IssueCertificate"
        | "GetCertificate" => "acm-pca",
        "GetSecretValue" => "secretsmanager",
        other => {
            let message = format!("The action {other} is not valid for this web service.");
            return Err(Refusal::new(400, "InvalidAction", message));
        }
    };
    if caller.service != service {
        return Err(call.protocol.unsigned());
    }
    if world.forbidden.contains(&call.action) {
        return Err(call.protocol.denied(&format!("{service}:{}", call.action)));
    }
    match call.action.as_str() {
        "DescribeInstances" => ec2::describe_instances(call, &caller, world),
        "GetInstanceProfile" => iam::get_instance_profile(call, &caller, world),
        "AssumeRole" => sts::assume_role(call, &caller, world),
        "GetCallerIdentity" => Ok(sts::get_caller_identity(call, &caller)),
        "ListAccounts" => organizations::list_accounts(call, &caller, world),
        "ListNodegroups" => eks::list_nodegroups(call, world),
        "DescribeNodegroup" => eks::describe_nodegroup(call, world),
        "DescribeCertificateAuthority" => acmpca::describe(call, world),
        "GetCertificateAuthorityCertificate" => acmpca::own_certificate(call, world),
        "IssueCertificate" => acmpca::issue(call, world),
        "GetCertificate" => acmpca::certificate(call, world),
        "GetSecretValue" => secrets::value(call, &caller, world),
        _ => Ok(autoscaling::describe_groups(call, world)),
    }
}

/// A test that has failed while it held the lock has said so.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
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
