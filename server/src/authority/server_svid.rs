//! The server's own X.509-SVID: in memory alone, renewed at half its life, or at once where what
//! signed it is tainted.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use spire_core::keys::{LocalKey, SigningKey};
use spire_core::svid::x509::{LeafTemplate, leads_to};
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
        let mut bundle = self.bundle.subscribe();
        loop {
            tokio::select! {
                _ = look.tick() => {}
                Ok(()) = bundle.changed() => {}
            }
            if let Err(error) = self.renew_server_svid().await {
                tracing::error!(
                    subsystem_name = "svid_rotator",
                    %error,
                    "Could not rotate server SVID"
                );
            }
        }
    }

    /// Issues the server's SVID with a fresh key if half of the present one's life is over, or if
    /// what signed it is tainted.
    pub(super) async fn renew_server_svid(&self) -> Result<(), IssueError> {
        let now = self.clock.now();
        let present = self.server_svid.borrow().clone();
        if let Some(identity) = present.filter(|identity| now < identity.svid().half_life()) {
            if !self.is_replaceable(&identity, now) {
                return Ok(());
            }
            tracing::info!(
                subsystem_name = "svid_rotator",
                "Server SVID signed using a tainted authority, forcing rotation of the Server SVID"
            );
        }
        let id = self.settings.trust_domain.server_id();
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

    /// Whether an SVID leads to a tainted root, and what signs now does not.
    fn is_replaceable(&self, identity: &Identity, now: Timestamp) -> bool {
        let signer = self.x509.load_full();
        let is_free = signer.is_some_and(|ca| !self.bundle.is_tainted(ca.root_id()));
        let tainted = self.bundle.current().tainted();
        is_free && tainted.is_some_and(|roots| leads_to(&identity.svid().chain, &roots, now))
    }
}
