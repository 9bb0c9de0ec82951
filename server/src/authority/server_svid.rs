//! The server's own X.509-SVID: in memory alone, renewed at half its life.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use spire_core::keys::{LocalKey, SigningKey};
use spire_core::svid::x509::LeafTemplate;
use spire_core::tls::Identity;
use tokio::time::{MissedTickBehavior, interval};

use super::{Authority, IssueError};

/// How often it is looked whether the SVID is due.
const LOOK: Duration = Duration::from_secs(5);

impl Authority {
    /// Renews the server's SVID in time, for ever.
    pub(super) async fn keep_server_svid(&self) {
        let mut look = interval(LOOK.min(self.settings.rotation_check_interval));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            if let Err(error) = self.renew_server_svid().await {
                tracing::error!(
                    subsystem_name = "svid_rotator",
                    %error,
                    "Could not rotate server SVID"
                );
            }
        }
    }

    /// Issues the server's SVID with a fresh key if half of the present one's life is over.
    pub(super) async fn renew_server_svid(&self) -> Result<(), IssueError> {
        let now = self.clock.now();
        let due = |identity: &Identity| now >= half_life(identity);
        if self.server_svid.borrow().as_ref().is_some_and(|identity| !due(identity)) {
            return Ok(());
        }
        let id = self.settings.trust_domain.member("/spire/server");
        let id = id.map_err(|err| IssueError::Refused(err.to_string()))?;
        let key = LocalKey::generate(self.settings.ca_key_type).await?;
        let public_key = key.public_key().spki.clone();
        let template = LeafTemplate {
            id: &id,
            public_key: &public_key,
            dns_names: &[],
            subject: None,
            ttl: self.settings.default_x509_svid_ttl,
        };
        let svid = self.sign_leaf(&template).await?;
        tracing::debug!(
            subsystem_name = "svid_rotator",
            spiffe_id = %svid.id,
            expiration = %svid.expires_at,
            "Rotated server SVID"
        );
        self.server_svid.send_replace(Some(Identity::new(svid, Arc::new(key))));
        Ok(())
    }
}

fn half_life(identity: &Identity) -> Timestamp {
    let svid = identity.svid();
    svid.not_before + svid.expires_at.duration_since(svid.not_before) / 2
}
