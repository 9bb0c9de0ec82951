//! The gRPC services: one file for each, and the gate that every request passes.

pub mod agent;
pub mod audit;
pub mod authorities;
pub mod bundle;
pub mod call;
pub mod debug;
pub mod entry;
pub mod gate;
mod listing;
pub mod local_authority;
pub mod logger;
mod request;
pub mod status;
pub mod svid;

use std::sync::Arc;
use std::time::Instant;

use spire_core::clock::Clock;
use spire_core::grpc::{HealthService, Router};
use spire_core::id::TrustDomain;
use spire_core::limits::MAX_MESSAGE_BYTES;
use spire_core::telemetry::log::Logger;
use spire_core::wire;
use tokio_util::sync::CancellationToken;

use crate::authority::Authority;
use crate::health;
use crate::policy::Policy;
use crate::rate_limit::RateLimits;
use crate::registry::Registry;
use crate::store::Store;
use agent::AgentService;
use authorities::AuthoritiesService;
use bundle::BundleService;
use debug::DebugService;
use entry::EntryService;
use gate::Gate;
use local_authority::LocalAuthorityService;
use logger::LoggerService;
use svid::SvidService;

/// What the services work with.
#[derive(Clone)]
pub struct Parts {
    /// The trust domain that is served.
    pub trust_domain: TrustDomain,
    /// What survives.
    pub store: Store,
    /// What agents may serve.
    pub registry: Arc<Registry>,
    /// What is signed.
    pub authority: Arc<Authority>,
    /// How often an address may call.
    pub limits: Arc<RateLimits>,
    /// Who may call what.
    pub policy: Arc<Policy>,
    /// Attests nodes.
    pub agents: AgentService,
    /// The log of this process.
    pub log: Logger,
    /// `audit_log_enabled`
    pub audited: bool,
    /// The time.
    pub clock: Clock,
    /// When the server started.
    pub started: Instant,
    /// Ends what would go on for ever.
    pub stop: CancellationToken,
}

/// All services behind their gate, for both listeners: the policy keeps what is local to the admin
/// socket.
pub fn services(parts: Parts) -> Gate<Router> {
    macro_rules! server {
        ($server:ty, $service:expr) => {
            <$server>::new($service)
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(usize::MAX)
        };
    }
    let Parts { trust_domain, store, registry, authority, limits, clock, .. } = parts;
    let entries = EntryService {
        trust_domain: trust_domain.clone(),
        store: store.clone(),
        registry: registry.clone(),
        clock: clock.clone(),
    };
    let svids = SvidService {
        trust_domain: trust_domain.clone(),
        registry: registry.clone(),
        authority: authority.clone(),
        limits: limits.clone(),
    };
    let bundles = BundleService {
        trust_domain: trust_domain.clone(),
        store: store.clone(),
        authority: authority.clone(),
        limits,
    };
    let published = health::Bundle { trust_domain, authority: authority.clone() };
    let health = HealthService { check: Arc::new(published), stop: parts.stop };
    let local = LocalAuthorityService { authority: authority.clone() };
    let tree = AuthoritiesService { store: store.clone(), authority: authority.clone(), clock };
    let debug = DebugService { registry, store, authority, started: parts.started };
    let logger = LoggerService { log: parts.log };
    let router = Router::default()
        .with(server!(wire::agent::agent_server::AgentServer<_>, parts.agents))
        .with(server!(wire::entry::entry_server::EntryServer<_>, entries))
        .with(server!(wire::svid::svid_server::SvidServer<_>, svids))
        .with(server!(wire::bundle::bundle_server::BundleServer<_>, bundles))
        .with(server!(
            wire::local_authority::local_authority_server::LocalAuthorityServer<_>,
            local
        ))
        .with(server!(wire::cloud_server::authorities_server::AuthoritiesServer<_>, tree))
        .with(server!(wire::debug::debug_server::DebugServer<_>, debug))
        .with(server!(wire::logger::logger_server::LoggerServer<_>, logger))
        .with(server!(wire::health::health_server::HealthServer<_>, health));
    Gate::new(router, parts.policy, parts.audited)
}
