//! What the gRPC health service of the admin socket asks: whether the store answers with the trust
//! domain's bundle.

use async_trait::async_trait;
use spire_core::id::TrustDomain;
use spire_core::telemetry::health::{Health, HealthCheck};

use crate::store::Store;

/// The check.
pub(super) struct StoredBundle {
    pub(super) trust_domain: TrustDomain,
    pub(super) store: Store,
}

#[async_trait]
impl HealthCheck for StoredBundle {
    async fn check(&self) -> Health {
        match self.store.bundle(&self.trust_domain).await {
            Ok(Some(_)) => Health::good(),
            Ok(None) => Health::bad("get_bundle_err", "bundle is missing"),
            Err(error) => Health::bad("get_bundle_err", error),
        }
    }
}
