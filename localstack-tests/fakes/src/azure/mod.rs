//! Azure: Microsoft Entra, Resource Manager with Resource Graph, the metadata services of virtual
//! machines, and the CAs of those services.
//!
//! ```no_run
//! # use spire_fakes::azure::{Azure, Machine};
//! # async fn example() {
//! let azure = Azure::start().await;
//! let machine = azure.add_machine(Machine::new("web"));
//! let of_server = azure.server_endpoints(); // the body of `endpoints { … }` of a server's plugin
//! let of_agent = azure.agent_endpoints(&machine); // and of the agent's on that machine
//! # }
//! ```

mod asn1;
mod document;
mod entra;
mod machine;
mod manager;
mod metadata;
mod pki;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

pub use document::{MD5, Message, RSA, RSA_WITH_SHA256, SHA1, SHA256, SignerInfo};
pub use entra::Entra;
pub use machine::{Interface, Machine, Membership, ScaleSet};
pub use pki::{CertificateKind, Issued, Pki};

use crate::http::{HttpServer, json, text};

/// The tenant that owns everything unless it is said otherwise.
pub const TENANT: &str = "8f2a7c11-9a4e-4f0b-8d6c-3b1d0f5e7a01";
/// Its domain.
pub const DOMAIN: &str = "example.onmicrosoft.com";
/// Another tenant, and its domain.
pub const OTHER_TENANT: &str = "0b9c6f4e-2d13-4e57-9c80-6a2e41d7b502";
/// The domain of [`OTHER_TENANT`].
pub const OTHER_DOMAIN: &str = "other.onmicrosoft.com";
/// The subscription that everything is in unless it is said otherwise.
pub const SUBSCRIPTION: &str = "d5b40d61-272e-48da-beb9-05f295c42bd6";
/// The application that the server is, and its secret.
pub const APP: &str = "1c7e5a90-64f3-4b2d-a1c8-92d07e3f6b11";
/// The secret of [`APP`].
pub const APP_SECRET: &str = "an application's secret";
/// Where signers say that their issuer's certificate is.
pub const ISSUER_ADDRESS: &str = "http://www.microsoft.com/pkiops/certs/Fake%20Azure%20RSA%20TLS%20Issuing%20CA%2001%20-%20xsign.crt";

/// How many queries Resource Graph answers to one identity in [`QUERY_WINDOW`].
const QUERIES: usize = 15;
/// The time in which [`QUERIES`] are counted.
const QUERY_WINDOW: Duration = Duration::from_secs(5);

/// What the services of one of Microsoft's clouds are called.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// The host of the login service.
    pub login: &'static str,
    /// The issuer of tokens, without the ID of the tenant at its end.
    pub issuer: &'static str,
    /// The host of Resource Manager.
    pub resource_manager: &'static str,
    /// The domain of the metadata services.
    pub metadata: &'static str,
}

/// Azure itself.
pub const PUBLIC: Names = Names {
    login: "login.microsoftonline.com",
    issuer: "https://sts.windows.net/",
    resource_manager: "management.azure.com",
    metadata: "metadata.azure.com",
};
/// Azure for the government of the United States.
pub const GOVERNMENT: Names = Names {
    login: "login.microsoftonline.us",
    issuer: "https://sts.windows.net/",
    resource_manager: "management.usgovcloudapi.net",
    metadata: "metadata.azure.us",
};
/// Azure in China.
pub const CHINA: Names = Names {
    login: "login.chinacloudapi.cn",
    issuer: "https://sts.chinacloudapi.cn/",
    resource_manager: "management.chinacloudapi.cn",
    metadata: "metadata.azure.cn",
};

/// A cloud of its own.
#[derive(Debug)]
pub struct Azure {
    /// The login service, which also publishes its keys.
    pub login: HttpServer,
    /// Azure Resource Manager with Resource Graph.
    pub resource_manager: HttpServer,
    /// The metadata services of all machines, each below `/vm/<vm id>`; without it that of the
    /// first machine.
    pub metadata: HttpServer,
    /// Where certificates of CAs are given away.
    pub issuer_certificates: HttpServer,
    /// What signs tokens.
    pub entra: Arc<Entra>,
    /// What signs documents.
    pub pki: Arc<Pki>,
    world: Arc<Mutex<World>>,
}

/// What there is in the cloud.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) names: Names,
    pub(crate) tenants: Vec<(String, String)>,
    /// Subscriptions with the tenants that own them.
    pub(crate) subscriptions: Vec<(String, String)>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) scale_sets: Vec<ScaleSet>,
    /// Rows of one page of Resource Graph and of lists.
    pub(crate) page: usize,
    /// Answers of Resource Graph in place of the true ones.
    pub(crate) graph_answer: Option<Value>,
    /// Whether rows of Resource Graph tell the tenant.
    pub(crate) tells_tenant: bool,
    /// When Resource Graph was asked of late, whoever asked: here there is one identity.
    queries: VecDeque<Instant>,
}

impl World {
    /// Whether Resource Graph answers one query more.
    pub(crate) fn admits_query(&mut self) -> bool {
        self.queries.retain(|at| at.elapsed() < QUERY_WINDOW);
        let admits = self.queries.len() < QUERIES;
        self.queries.extend(admits.then(Instant::now));
        admits
    }
}

impl Azure {
    /// Starts all services, with nothing in the cloud but two tenants and one subscription.
    pub async fn start() -> Self {
        Self::start_as(PUBLIC).await
    }

    /// The same as the cloud of these names.
    pub async fn start_as(names: Names) -> Self {
        let owned = |one: &str, other: &str| (one.to_owned(), other.to_owned());
        let world = Arc::new(Mutex::new(World {
            names,
            tenants: vec![owned(TENANT, DOMAIN), owned(OTHER_TENANT, OTHER_DOMAIN)],
            subscriptions: vec![owned(SUBSCRIPTION, TENANT)],
            machines: Vec::new(),
            scale_sets: Vec::new(),
            page: 1000,
            graph_answer: None,
            tells_tenant: true,
            queries: VecDeque::new(),
        }));
        let entra = Arc::new(Entra::new(names));
        let pki = Arc::new(Pki::home());
        let login = entra::serve(entra.clone(), world.clone()).await;
        let resource_manager = manager::serve(entra.clone(), world.clone()).await;
        let metadata = metadata::serve(entra.clone(), pki.clone(), world.clone()).await;
        let certificates = pki.clone();
        let issuer_certificates =
            HttpServer::start(move |request| match certificates.published(&request.path) {
                Some(certificate) => text(http::StatusCode::OK, certificate),
                None => text(http::StatusCode::NOT_FOUND, "no such certificate"),
            })
            .await;
        Self { login, resource_manager, metadata, issuer_certificates, entra, pki, world }
    }

    /// Makes a machine.
    pub fn add_machine(&self, machine: Machine) -> Machine {
        self.world().machines.push(machine.clone());
        machine
    }

    /// Takes away all machines.
    pub fn remove_machines(&self) {
        self.world().machines.clear();
    }

    /// Makes a scale set.
    pub fn add_scale_set(&self, set: ScaleSet) -> ScaleSet {
        self.world().scale_sets.push(set.clone());
        set
    }

    /// Makes a subscription that belongs to a tenant.
    pub fn add_subscription(&self, id: &str, tenant: &str) {
        self.world().subscriptions.push((id.to_owned(), tenant.to_owned()));
    }

    /// Has answers come in pages of so many rows.
    pub fn set_page(&self, rows: usize) {
        self.world().page = rows;
    }

    /// Has Resource Graph answer this, whatever it is asked; `None` ends it.
    pub fn set_graph_answer(&self, answer: Option<Value>) {
        self.world().graph_answer = answer;
    }

    /// Has rows of Resource Graph tell the tenant, or not.
    pub fn set_tells_tenant(&self, tells: bool) {
        self.world().tells_tenant = tells;
    }

    /// The queries that Resource Graph was asked so far.
    pub fn queries(&self) -> Vec<String> {
        let requests = self.resource_manager.requests().into_iter();
        let queries =
            requests.filter(|one| one.path.ends_with("Microsoft.ResourceGraph/resources"));
        queries
            .filter_map(|one| {
                let body: Value = serde_json::from_slice(&one.body).ok()?;
                Some(body["query"].as_str()?.to_owned())
            })
            .collect()
    }

    /// The block `endpoints` of a server's plugin, without `issuer_certificates`.
    pub fn server_endpoints(&self) -> String {
        format!(
            "endpoints {{\n metadata = {:?}\n login = {:?}\n resource_manager = {:?}\n}}\n",
            self.metadata.url(),
            self.login.url(),
            self.resource_manager.url()
        )
    }

    /// The same with `issuer_certificates`.
    pub fn server_endpoints_with_issuers(&self) -> String {
        let more =
            format!("endpoints {{ issuer_certificates = {:?} }}\n", self.issuer_certificates.url());
        self.server_endpoints() + &more
    }

    /// The block `endpoints` of an agent's plugin on that machine.
    pub fn agent_endpoints(&self, machine: &Machine) -> String {
        format!("endpoints {{ metadata = \"{}/vm/{}\" }}\n", self.metadata.url(), machine.vm_id)
    }

    fn world(&self) -> MutexGuard<'_, World> {
        locked(&self.world)
    }
}

/// What is locked here is whole at any time.
pub(crate) fn locked<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer of Azure in JSON, with the name of the request.
pub(crate) fn answer(status: u16, value: &Value) -> crate::http::Response {
    let status = http::StatusCode::from_u16(status).expect("a status");
    let mut response = json(status, value.to_string());
    let id = uuid::Uuid::new_v4().to_string().parse().expect("a UUID is a header's value");
    response.headers_mut().insert("x-ms-request-id", id);
    response
}
