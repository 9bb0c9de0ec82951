//! How the server is, by the names of subsystems that operators know.

use std::sync::Arc;

use async_trait::async_trait;
use spire_core::id::TrustDomain;
use spire_core::telemetry::health::{Health, HealthCheck};

use crate::authority::{Authority, IssueError};
use crate::store::Store;

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

/// Whether agents get a bundle.
struct Bundle {
    trust_domain: TrustDomain,
    authority: Arc<Authority>,
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

/// Whether the datastore answers.
struct Datastore(Store);

#[async_trait]
impl HealthCheck for Datastore {
    async fn check(&self) -> Health {
        match self.0.count_bundles().await {
            Ok(_) => Health::good(),
            Err(error) => Health::bad("list_bundle_err", error),
        }
    }
}
