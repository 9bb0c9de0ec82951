//! The agent as a whole: builds every part in order, owns its tasks, and ends them.

mod candidate;
mod catalog;
mod process;

use std::convert::Infallible;
use std::future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::Either;
use jiff::SignedDuration;
use spire_core::VERSION;
use spire_core::bundle::Bundle;
use spire_core::catalog::{CatalogError, Host};
use spire_core::clock::Clock;
use spire_core::config::{ConfigErrors, HealthChecksConfig};
use spire_core::grpc::SocketError;
use spire_core::limits::GRACEFUL_STOP;
use spire_core::tasks::Tasks;
use spire_core::telemetry::health::{self as core_health, HealthReport};
use spire_core::telemetry::log::Logger;
use spire_core::tls::{self, ServerTrust};
use tokio::sync::{mpsc, watch};

use crate::attestation::{AttestationError, NodeAttestation};
use crate::backoff::Backoff;
use crate::bootstrap::Rebootstrap;
use crate::cache::{Cache, JwtSvids, SignJwt};
use crate::cache_file::CacheFile;
use crate::client::{self, Server};
use crate::config::{AgentConfig, AgentPlugins};
use crate::endpoints::workload_api::{self, WorkloadApi};
use crate::endpoints::{
    Audience, DebugService, LoggerService, UnixEndpoint, admin_services, workload_services,
};
use crate::health;
use crate::rotation::WorkloadSvids;
use crate::rotation::due::Renewal;
use crate::storage::{Storage, StorageError};
use crate::upkeep::Ended;

use candidate::Candidate;
use catalog::Replaceable;
pub use process::run;

/// How long the listener for health waits for an agent that is ready.
const HEALTH_LISTENER: Duration = Duration::from_secs(8);

/// How soon the server is told again which version runs here, and how late at last.
const STATUS_RETRY: Duration = Duration::from_secs(5);
const LAST_STATUS_RETRY: Duration = Duration::from_mins(8);

/// Why the agent does not start, or does not go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The machine refuses what every agent needs.
    #[error("{0}")]
    Process(String),
    /// The plugins do not make an agent.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The configuration asks for something that this build does not have, and that it would not
    /// be safe to leave out.
    #[error("{0} is not supported by this build; remove it from the configuration")]
    Unsupported(&'static str),
    /// A plugin cannot be made.
    #[error(transparent)]
    Plugin(#[from] CatalogError),
    /// The data folder cannot be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The node is not attested.
    #[error(transparent)]
    Attestation(#[from] AttestationError),
    /// A socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The server does not let it go on.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// An agent that runs.
#[derive(Debug)]
pub struct Agent {
    ended: mpsc::Receiver<AgentError>,
    plugins: Replaceable,
    logger: Logger,
    tasks: Tasks,
}

impl Agent {
    /// Starts an agent: when this returns, workloads are served. What was begun is ended where it
    /// fails.
    ///
    /// # Errors
    /// [`AgentError`]
    pub async fn start(
        config: AgentConfig,
        logger: Logger,
        clock: Clock,
    ) -> Result<Self, AgentError> {
        let tasks = Tasks::new();
        let started = Self::assemble(config, logger, clock, &tasks).await;
        if started.is_err() {
            tasks.drain(GRACEFUL_STOP).await;
        }
        started
    }

    async fn assemble(
        config: AgentConfig,
        logger: Logger,
        clock: Clock,
        tasks: &Tasks,
    ) -> Result<Self, AgentError> {
        let started = Instant::now();
        process::prepare(&config)?;
        let trust_domain = config.trust_domain.clone();
        let (told, bundle) = watch::channel(Arc::new(Bundle::empty(trust_domain.clone())));
        let (serving, is_serving) = watch::channel(false);
        let health = core_health::watch_health(health::checks(&config, is_serving.clone()), tasks);
        tasks.spawn(health_listener(
            config.health_checks.clone(),
            health,
            is_serving,
            tasks.clone(),
        ));

        let host = Host {
            trust_domain: trust_domain.clone(),
            bundle: bundle.clone(),
            clock: clock.clone(),
        };
        let plugins = AgentPlugins::assign(&config.plugins)?;
        let loaded = catalog::load(plugins, config.join_token.as_ref(), host)?;
        let storage = Arc::new(Storage::open(&config.data_dir)?);
        let attestation = NodeAttestation {
            trust_domain: trust_domain.clone(),
            server: config.server.clone(),
            bundle_source: config.bundle_source.clone(),
            rebootstrap: Rebootstrap {
                mode: config.rebootstrap_mode,
                delay: config.rebootstrap_delay,
                clock: clock.clone(),
            },
            attestor: loaded.attestor,
            evidence: loaded.evidence,
            keys: loaded.key_manager,
            storage: storage.clone(),
            clock: clock.clone(),
        };
        let stored = attestation.stored_identity().await?;

        let (presented, presents) = watch::channel(None);
        let tls = Arc::new(tls::client_config(
            &trust_domain,
            ServerTrust::Bundle(bundle.clone()),
            Some(presents.clone()),
            clock.clone(),
        ));
        let address = config.server.clone();
        let server = Server::new(move || client::connect(&address, tls.clone()));
        let cache = Cache::new(
            trust_domain.clone(),
            config.x509_svid_cache_max_size,
            renewal(&config),
            clock.clone(),
        );
        let jwt_svids = jwt_svids(&config, &server, &clock);
        let recovered = if config.persist_cache {
            let file = CacheFile {
                trust_domain: trust_domain.clone(),
                storage,
                cache: cache.clone(),
                jwt_svids: jwt_svids.clone(),
                clock: clock.clone(),
            };
            let recovered = file.recover();
            tasks.spawn(file.keep(tasks.stop_token()));
            recovered
        } else {
            storage.delete_cache()?;
            false
        };
        let workload_svids = WorkloadSvids {
            server: server.clone(),
            cache: cache.clone(),
            key_type: config.workload_x509_svid_key_type,
            clock: clock.clone(),
        };
        tasks.spawn(workload_svids.keep(tasks.stop_token()));

        let interval = config.experimental.sync_interval;
        let candidate = Candidate {
            stored,
            attestation,
            presented,
            told,
            server: server.clone(),
            cache: cache.clone(),
            jwt_svids: jwt_svids.clone(),
            interval,
        };
        // What was recovered is served at once, whether the server is there or not.
        let upkeep = if recovered {
            Either::Left(candidate.attested())
        } else {
            let mut upkeep = candidate.attested().await?;
            upkeep.begin().await?;
            Either::Right(future::ready(Ok(upkeep)))
        };
        let first_sync = if recovered { Duration::ZERO } else { interval };

        let api = WorkloadApi::new(workload_api::Parts {
            cache: cache.clone(),
            jwt_svids: jwt_svids.clone(),
            attestors: loaded.workload_attestors,
            trust_domain,
            allow_unauthenticated_verifiers: config.allow_unauthenticated_verifiers,
            allowed_foreign_jwt_claims: config.allowed_foreign_jwt_claims.into_iter().collect(),
            log_selectors: config.log_selectors.into_iter().collect(),
            ratelimit: config.experimental.ratelimit,
            clock: clock.clone(),
        });
        let services = workload_services(api, config.disable_workload_api, tasks.stop_token());
        let endpoint = UnixEndpoint::bind(&config.socket_path, Audience::Workloads)?;
        tasks.spawn(endpoint.serve(services, tasks.clone()));
        if let Some(path) = &config.admin_socket_path {
            let debug = DebugService {
                identity: presents,
                bundle,
                cache: cache.clone(),
                jwt_svids,
                started,
            };
            let services = admin_services(debug, LoggerService { log: logger.clone() });
            let endpoint = UnixEndpoint::bind(path, Audience::Operators)?;
            tasks.spawn(endpoint.serve(services, tasks.clone()));
        }
        serving.send_replace(true);

        let (end, ended) = mpsc::channel(1);
        let (stop, all) = (tasks.stop_token(), tasks.clone());
        tasks.spawn(async move {
            let life = async {
                let upkeep = upkeep.await?;
                let serial = cache.all_bundles().own.sequence_number;
                all.spawn(post_status(server, serial, clock, all.clone()));
                upkeep.go_on(first_sync).await.map_err(AgentError::from)
            };
            if let Some(Err::<Infallible, _>(error)) = stop.run_until_cancelled(life).await {
                // Without a receiver, the agent is being stopped already.
                let _ = end.send(error).await;
            }
        });
        Ok(Self { ended, plugins: loaded.replaceable, logger, tasks: tasks.clone() })
    }

    /// Returns once something has ended the agent from within.
    pub async fn ended(&mut self) -> AgentError {
        match self.ended.recv().await {
            Some(ended) => ended,
            // The task that tells has been stopped.
            None => std::future::pending().await,
        }
    }

    /// Reads the files of plugins anew that have their settings in a `plugin_data_file`. Those
    /// that attest this node or its workloads are replaced.
    pub fn reconfigure_plugins(&self) {
        self.plugins.reconfigure();
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

    /// Stops: workloads are no longer served. Returns whether all tasks ended in time; what did not
    /// is cut off with the runtime.
    pub async fn stop(self) -> bool {
        self.tasks.drain(GRACEFUL_STOP).await
    }
}

/// The listener for health opens when the agent is ready, or after a while.
async fn health_listener(
    config: HealthChecksConfig,
    report: watch::Receiver<HealthReport>,
    mut is_serving: watch::Receiver<bool>,
    tasks: Tasks,
) {
    let stop = tasks.stop_token();
    tokio::select! {
        _ = is_serving.wait_for(|serving| *serving) => {}
        () = tokio::time::sleep(HEALTH_LISTENER) => {}
        () = stop.cancelled() => return,
    }
    core_health::listen(&config, report, &tasks).await;
}

/// Tells the server once which version runs here, as soon as it is there. A server that does not
/// care is none the worse.
async fn post_status(server: Arc<Server>, bundle_serial: u64, clock: Clock, tasks: Tasks) {
    let mut backoff = Backoff::new(STATUS_RETRY, LAST_STATUS_RETRY);
    let posted = async {
        while let Err(error) = server.post_status(VERSION, bundle_serial).await {
            tracing::debug!(%error, "Failed to post the agent's status");
            if !error.is_unreachable() {
                return;
            }
            clock.sleep(backoff.after_failure()).await;
        }
    };
    tasks.stop_token().run_until_cancelled(posted).await;
}

fn renewal(config: &AgentConfig) -> Renewal {
    let target = config.availability_target;
    let target = target.map(|it| SignedDuration::try_from(it).unwrap_or(SignedDuration::MAX));
    Renewal { availability_target: target }
}

fn jwt_svids(config: &AgentConfig, server: &Arc<Server>, clock: &Clock) -> JwtSvids {
    let server = server.clone();
    let sign: SignJwt = Box::new(move |entry, audience| {
        let server = server.clone();
        async move { server.sign_jwt_svid(&entry, &audience).await }.boxed()
    });
    let hit_timeout = config.experimental.jwt_svid_cache_hit_timeout;
    JwtSvids::new(sign, config.jwt_svid_cache_max_size, hit_timeout, clock.clone())
}
