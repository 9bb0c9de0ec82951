//! The server as a whole: builds every part in order, owns its tasks, and ends them.

mod catalog;
mod foreign_admins;
mod process;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use spire_core::bundle::Bundle;
use spire_core::catalog::{CatalogError, Host};
use spire_core::clock::Clock;
use spire_core::config::ConfigErrors;
use spire_core::id::TrustDomain;
use spire_core::keys::KeyType;
use spire_core::limits::{GRACEFUL_STOP, HANDSHAKE};
use spire_core::tasks::Tasks;
use spire_core::telemetry::health::{listen, watch_health};
use spire_core::telemetry::log::Logger;
use spire_core::threads::Threads;
use spire_core::tls;
use tokio::sync::watch;

use crate::api;
use crate::api::agent::AgentService;
use crate::attestation::Attestation;
use crate::authority::{self, Authority};
use crate::config::{ServerConfig, ServerPlugins};
use crate::endpoints::{AdminEndpoint, BindError, TcpEndpoint, TcpSettings};
use crate::health;
use crate::policy::Policy;
use crate::rate_limit::RateLimits;
use crate::registry::Registry;
use crate::store::{EntryFilter, NodeFilter, OpenError, Page, Store, StoreError};
use crate::upkeep::{AgentPruning, Upkeep};

use foreign_admins::ForeignAdmins;
pub use process::run;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The machine refuses what every server needs.
    #[error("{0}")]
    Process(String),
    /// The plugins do not make a server.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The datastore cannot be opened.
    #[error("datastore-sql: {0}")]
    OpenStore(#[from] OpenError),
    /// The datastore cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A plugin cannot be made.
    #[error(transparent)]
    Plugin(#[from] CatalogError),
    /// The datastore is that of another trust domain.
    #[error(
        "{what} in the datastore belongs to trust domain {found:?}, but trust_domain is \
         {configured:?}; is the right database configured?"
    )]
    OtherTrustDomain {
        /// The entry that was found.
        what: String,
        /// Its trust domain.
        found: TrustDomain,
        /// The one in the configuration.
        configured: TrustDomain,
    },
    /// There is no authority.
    #[error(transparent)]
    Authority(#[from] authority::StartError),
    /// A listener cannot listen.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// A server that runs.
pub struct Server {
    address: SocketAddr,
    attestation: Arc<Attestation>,
    /// Locked while attestors are made anew, so that of several files read the last one counts.
    plugins: Arc<Mutex<ServerPlugins>>,
    host: Host,
    logger: Logger,
    store: Store,
    tasks: Tasks,
}

impl Server {
    /// Starts a server: when this returns, it answers. What was begun is ended where it fails.
    ///
    /// # Errors
    /// [`StartError`]
    pub async fn start(
        config: ServerConfig,
        logger: Logger,
        clock: Clock,
    ) -> Result<Self, StartError> {
        let tasks = Tasks::new();
        let started = Self::assemble(config, logger, clock, &tasks).await;
        if started.is_err() {
            tasks.drain(GRACEFUL_STOP).await;
        }
        started
    }

    async fn assemble(
        config: ServerConfig,
        logger: Logger,
        clock: Clock,
        tasks: &Tasks,
    ) -> Result<Self, StartError> {
        let started = Instant::now();
        process::prepare(&config)?;
        let trust_domain = config.trust_domain.clone();
        let plugins = ServerPlugins::assign(&config.plugins)?;

        let store = Store::open(&plugins.data_store).await?;
        let (told, bundle) = watch::channel(Arc::new(Bundle::empty(trust_domain.clone())));
        let host = Host { trust_domain: trust_domain.clone(), bundle, clock: clock.clone() };
        let loaded = catalog::load(&plugins, &host)?;
        check_trust_domain(&store, &trust_domain).await?;

        let authority = Authority::start(
            authority::Parts {
                settings: authority_settings(&config),
                store: store.clone(),
                keys: loaded.key_manager,
                upstream: loaded.upstream_authority,
                bundle: told,
                clock: clock.clone(),
            },
            tasks,
        )
        .await?;
        let registry = Registry::follow(
            store.clone(),
            trust_domain.clone(),
            clock.clone(),
            config.experimental.cache_reload_interval,
            tasks,
        )
        .await?;

        let attestation = Arc::new(Attestation {
            trust_domain: trust_domain.clone(),
            attestors: ArcSwap::from_pointee(loaded.node_attestors),
            authority: Arc::clone(&authority),
            store: store.clone(),
            registry: Arc::clone(&registry),
            id_as_selector: config.experimental.agent_spiffe_id_as_selector,
            clock: clock.clone(),
        });
        let policy = Policy::new(
            config.admin_ids.iter().cloned(),
            Arc::clone(&registry),
            store.clone(),
            clock.clone(),
            tasks.clone(),
        );
        let limits = Arc::new(RateLimits::new(config.ratelimit));
        let services = api::services(api::Parts {
            trust_domain: trust_domain.clone(),
            store: store.clone(),
            registry,
            authority: Arc::clone(&authority),
            limits: Arc::clone(&limits),
            policy: Arc::new(policy),
            agents: AgentService { attestation: Arc::clone(&attestation), limits },
            log: logger.clone(),
            audited: config.audit_log_enabled,
            clock: clock.clone(),
            started,
            stop: tasks.stop_token(),
        });

        let own_bundle = authority.bundle();
        let foreign_admins =
            ForeignAdmins::follow(&config.admin_ids, &trust_domain, &store, tasks).await?;
        let bundle_of: tls::BundleOf = Arc::new(move |id| {
            let bundle = own_bundle.borrow();
            match id.is_member_of(&bundle.trust_domain) {
                true => Some(Arc::clone(&bundle)),
                false => foreign_admins.bundle_of(id),
            }
        });
        let tls = tls::server_config(authority.server_svid(), bundle_of, clock.clone());
        let tcp = TcpEndpoint::bind(TcpSettings {
            host: config.bind_address.clone(),
            port: config.bind_port,
            trusted_proxies: config.proxy_protocol_trusted_cidrs.clone(),
            tls: Arc::new(tls),
            handshake: HANDSHAKE,
            clock: clock.clone(),
        })
        .await?;
        let admin = AdminEndpoint::bind(&config.socket_path)?;
        let address = tcp.address();
        let start_threads = |name: &str| {
            Threads::start(name, tasks).map_err(|error| {
                StartError::Process(format!("unable to start threads for {name}: {error}"))
            })
        };
        let threads = start_threads("connections")?;
        // The key of the server's SVID is of the same kind.
        let is_rsa = matches!(config.ca_key_type, KeyType::Rsa2048 | KeyType::Rsa4096);
        let handshakes = is_rsa.then(|| start_threads("handshakes")).transpose()?;
        tasks.spawn(tcp.serve(services.clone(), threads, handshakes, tasks.clone()));
        tasks.spawn(admin.serve(services, tasks.clone()));

        upkeep(&config, &store, &clock).start(tasks);
        let health = watch_health(health::checks(&trust_domain, &authority, &store), tasks);
        listen(&config.health_checks, health, tasks).await;
        let (plugins, tasks) = (Arc::new(Mutex::new(plugins)), tasks.clone());
        Ok(Self { address, attestation, plugins, host, logger, store, tasks })
    }

    /// Where the TCP port is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has the files of plugins read anew that have their settings in a `plugin_data_file`. Those
    /// that attest nodes are replaced where their file has changed. Nobody waits for it.
    pub fn reconfigure_plugins(&self) {
        let (plugins, host) = (Arc::clone(&self.plugins), self.host.clone());
        let attestation = Arc::clone(&self.attestation);
        let reconfigure = move || {
            let plugins = plugins.lock().unwrap_or_else(PoisonError::into_inner);
            catalog::reconfigure(&plugins, &host, &attestation.attestors);
        };
        self.tasks.spawn(async move {
            // It may ask a cloud, and only fails where the process ends.
            let _ = tokio::task::spawn_blocking(reconfigure).await;
        });
    }

    /// Opens the log file anew.
    pub fn reopen_log(&self) {
        match self.logger.reopen() {
            Ok(()) => tracing::info!("Log file reopened"),
            Err(error) => {
                tracing::error!(%error, "Failed to reopen the log file; the old one is kept")
            }
        }
    }

    /// Stops: no connection is accepted any more, calls in progress may end. Returns whether all
    /// did in time; what did not is cut off with the runtime.
    pub async fn stop(self) -> bool {
        let ended = self.tasks.drain(GRACEFUL_STOP).await;
        self.store.close().await;
        ended
    }
}

async fn check_trust_domain(store: &Store, trust_domain: &TrustDomain) -> Result<(), StartError> {
    let first = Page { limit: Some(1), ..Page::default() };
    let entries = store.list_entries(&EntryFilter::default(), first).await?.items;
    if let Some(entry) = entries.iter().find(|entry| !entry.spiffe_id.is_member_of(trust_domain)) {
        return Err(StartError::OtherTrustDomain {
            what: format!("registration entry {:?}", entry.id.as_str()),
            found: entry.spiffe_id.trust_domain(),
            configured: trust_domain.clone(),
        });
    }
    let nodes = store.list_nodes(&NodeFilter::default(), first).await?.items;
    if let Some(node) = nodes.iter().find(|node| !node.agent_id.is_member_of(trust_domain)) {
        tracing::warn!(
            agent_id = %node.agent_id,
            trust_domain = %trust_domain,
            "An attested node in the datastore belongs to another trust domain; is the right \
             database configured?"
        );
    }
    Ok(())
}

fn authority_settings(config: &ServerConfig) -> authority::Settings {
    authority::Settings {
        trust_domain: config.trust_domain.clone(),
        ca_key_type: config.ca_key_type,
        jwt_key_type: config.jwt_key_type,
        ca_subject: config.ca_subject.clone(),
        ca_ttl: config.ca_ttl,
        default_x509_svid_ttl: config.default_x509_svid_ttl,
        default_jwt_svid_ttl: config.default_jwt_svid_ttl,
        agent_ttl: config.agent_ttl,
        jwt_issuer: config.jwt_issuer.clone(),
        disable_jwt_svids: config.disable_jwt_svids,
        rotation_check_interval: config.experimental.rotation_check_interval,
    }
}

fn upkeep(config: &ServerConfig, store: &Store, clock: &Clock) -> Upkeep {
    let agents = config.prune_attested_nodes_expired_for.map(|expired_for| AgentPruning {
        expired_for,
        batch: config.prune_attested_nodes_batch_size,
        include_non_reattestable: config.prune_tofu_nodes,
    });
    Upkeep {
        store: store.clone(),
        clock: clock.clone(),
        agents,
        changes_kept_for: config.experimental.prune_events_older_than,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use spire_core::entry::{Entry, Hint};
    use spire_core::selector::RequiredSelectors;

    use super::*;
    use crate::config::{RunFlags, load};
    use crate::store::Settings;

    #[tokio::test]
    async fn what_is_pruned_is_what_the_file_says() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("server.conf");
        let settings = Settings::new("sqlite3", ":memory:").unwrap();
        let store = Store::open(&settings).await.unwrap();
        let pruning = |settings: &str| {
            let text = format!(
                "server {{
                    trust_domain = \"example.org\"
                    data_dir = \"/data\"
                    {settings}
                }}
                plugins {{
                    DataStore \"sql\" {{ plugin_data {{
                        database_type = \"sqlite3\"
                        connection_string = \":memory:\"
                    }} }}
                    KeyManager \"memory\" {{ plugin_data {{}} }}
                    NodeAttestor \"join_token\" {{ plugin_data {{}} }}
                }}"
            );
            std::fs::write(&file, text).unwrap();
            let flags = RunFlags { config: Some(file.clone()), ..RunFlags::default() };
            let config = load(&flags).unwrap_or_else(|error| panic!("{error}")).config;
            let upkeep = upkeep(&config, &store, &Clock::standing_at(jiff::Timestamp::now()));
            (upkeep.agents, upkeep.changes_kept_for)
        };
        assert_eq!(pruning(""), (None, Duration::from_hours(12)));
        let settings = "prune_attested_nodes_expired_for = \"720h\"
                        prune_tofu_nodes = true
                        prune_attested_nodes_batch_size = 7
                        experimental { prune_events_older_than = \"3h\" }";
        let agents = AgentPruning {
            expired_for: Duration::from_hours(720),
            batch: 7,
            include_non_reattestable: true,
        };
        assert_eq!(pruning(settings), (Some(agents), Duration::from_hours(3)));
        let (agents, _) = pruning("prune_attested_nodes_expired_for = \"1h\"");
        assert!(agents.is_some_and(|agents| !agents.include_non_reattestable));
    }

    #[tokio::test]
    async fn entries_of_another_trust_domain_keep_a_server_from_starting() {
        let settings = Settings::new("sqlite3", ":memory:").unwrap();
        let store = Store::open(&settings).await.unwrap();
        let (own, other) = ("example.org".parse().unwrap(), "other.org".parse().unwrap());
        check_trust_domain(&store, &own).await.unwrap();
        let entry = Entry {
            id: "one".parse().unwrap(),
            spiffe_id: "spiffe://other.org/x".parse().unwrap(),
            parent_id: "spiffe://other.org/spire/agent/a".parse().unwrap(),
            selectors: RequiredSelectors::new(["a:1".parse().unwrap()]).unwrap(),
            x509_svid_ttl: 0,
            jwt_svid_ttl: 0,
            federates_with: BTreeSet::new(),
            dns_names: Vec::new(),
            admin: false,
            downstream: false,
            store_svid: false,
            expires_at: None,
            hint: Hint::default(),
            revision_number: 0,
            created_at: jiff::Timestamp::now(),
            attributes: None,
        };
        store.create_entries(vec![entry]).await.unwrap();
        check_trust_domain(&store, &other).await.unwrap();
        let refused = check_trust_domain(&store, &own).await.unwrap_err();
        let StartError::OtherTrustDomain { what, found, configured } = &refused else {
            panic!("{refused:?}")
        };
        assert_eq!(what, "registration entry \"one\"");
        assert_eq!((found, configured), (&other, &own));
    }
}
