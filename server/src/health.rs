//! How the server is, by the names of subsystems that operators know.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use spire_core::id::TrustDomain;
use spire_core::telemetry::health::{Health, HealthCheck};

use crate::authority::{Authority, IssueError};
use crate::store::{Store, StoreError};

/// How long the datastore may take to answer: less than a check may take, which counts as worse.
const DATASTORE: Duration = Duration::from_secs(5);

/// The checks of a server.
pub fn checks(
    trust_domain: &TrustDomain,
    authority: &Arc<Authority>,
    store: &Store,
) -> Vec<(&'static str, Arc<dyn HealthCheck>)> {
    let (authority, trust_domain) = (Arc::clone(authority), trust_domain.clone());
    vec![
        ("server", Arc::new(Bundle { trust_domain, authority: Arc::clone(&authority) })),
        ("server.ca", Arc::new(Signing(Arc::clone(&authority)))),
        ("server.ca.rotator", Arc::new(Rotation(authority))),
        ("catalog.datastore", Arc::new(Datastore(store.clone()))),
    ]
}

/// Whether agents get a bundle, also while the datastore is away.
pub(crate) struct Bundle {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) authority: Arc<Authority>,
}

#[async_trait]
impl HealthCheck for Bundle {
    async fn check(&self) -> Health {
        let bundle = self.authority.bundle().borrow().clone();
        if bundle.trust_domain == self.trust_domain && !bundle.x509_authorities.is_empty() {
            Health::good()
        } else {
            Health::bad("get_bundle_err", "there is no bundle yet")
        }
    }
}

/// Whether X.509-SVIDs can be signed. An authority that has ended waits for its upstream, and a restart
/// would not bring that back.
struct Signing(Arc<Authority>);

#[async_trait]
impl HealthCheck for Signing {
    async fn check(&self) -> Health {
        match self.0.check_signing().await {
            Ok(()) => Health::good(),
            Err(error @ IssueError::NotReady(_)) => {
                Health { ready: false, ..Health::warning("sign_x509_svid_err", error) }
            }
            Err(error) => Health::bad("sign_x509_svid_err", error),
        }
    }
}

/// Whether authorities turn over in time. While they do not, those in use go on until they end. A
/// restart would mend nothing, and could lose keys that are still of use: this never asks for one.
struct Rotation(Arc<Authority>);

#[async_trait]
impl HealthCheck for Rotation {
    async fn check(&self) -> Health {
        match self.0.rotation_failure() {
            None => Health::good(),
            Some(error) => {
                Health { ready: self.0.is_valid(), ..Health::warning("rotation_err", error) }
            }
        }
    }
}

/// Whether the datastore answers. While it is away agents are served from memory, which a restart would
/// lose, and the server recovers by itself.
struct Datastore(Store);

#[async_trait]
impl HealthCheck for Datastore {
    async fn check(&self) -> Health {
        let away = |reason: String| Health::warning("list_bundle_err", reason);
        match tokio::time::timeout(DATASTORE, self.0.count_bundles()).await {
            Ok(Ok(_)) => Health::good(),
            Ok(Err(error @ StoreError::Unavailable(_))) => away(error.to_string()),
            Ok(Err(error)) => Health::bad("list_bundle_err", error),
            Err(_) => away(format!("datastore is unavailable: no answer within {DATASTORE:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use spire_core::tasks::Tasks;
    use spire_core::telemetry::health::watch_health;
    use spire_test_databases::{Database, Engine, Proxy, Server};

    use super::*;
    use crate::store::Settings;

    #[tokio::test]
    async fn a_database_that_is_away_is_no_reason_to_restart_the_server() {
        let server = Arc::new(Server::start(Engine::Postgres).await.unwrap());
        let database = Database::on(&server).await.unwrap();
        let proxy = Proxy::to(server.address().unwrap()).await.unwrap();
        let settings = Settings::new("postgres", &database.through(&proxy).unwrap()).unwrap();
        let store = Store::open(&settings).await.unwrap();
        let check: Arc<dyn HealthCheck> = Arc::new(Datastore(store.clone()));
        assert_eq!(check.check().await, Health::good());

        // Nobody tells that it is gone: all of the time that a check has must not pass.
        proxy.hold(true);
        let begun = Instant::now();
        let tasks = Tasks::new();
        let mut reports = watch_health(vec![("catalog.datastore", check)], &tasks);
        reports.changed().await.unwrap();
        let health = reports.borrow()["catalog.datastore"].clone();
        assert!(health.live && health.ready, "{health:?} after {:?}", begun.elapsed());
        assert!(health.details["list_bundle_err"].as_str().unwrap().contains("no answer"));
        proxy.hold(false);
        assert_eq!(Datastore(store.clone()).check().await, Health::good());

        store.close().await;
        let closed = Datastore(store).check().await;
        assert!(closed.live && closed.ready && !closed.details.is_empty(), "{closed:?}");
        assert!(tasks.drain(Duration::from_secs(10)).await);
    }
}
