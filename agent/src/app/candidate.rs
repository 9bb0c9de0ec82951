//! A node that may still have to be attested, and the agent that it becomes.

use std::sync::Arc;
use std::time::Duration;

use spire_core::bundle::Bundle;
use spire_core::tls::Identity;
use tokio::sync::watch;

use crate::attestation::{AttestationError, AttestedNode, NodeAttestation};
use crate::cache::{Cache, JwtSvids};
use crate::client::Server;
use crate::rotation::OwnSvid;
use crate::sync::{EntrySource, Synchronizer};
use crate::upkeep::Upkeep;

/// What is to be kept up once the node is attested.
pub(super) struct Candidate {
    /// The identity of an earlier run, where it is still good.
    pub(super) stored: Option<AttestedNode>,
    pub(super) attestation: NodeAttestation,
    /// What connections to the server present; nothing so far.
    pub(super) presented: watch::Sender<Option<Identity>>,
    /// What the server is known by; nothing so far.
    pub(super) told: watch::Sender<Arc<Bundle>>,
    pub(super) server: Arc<Server>,
    pub(super) cache: Arc<Cache>,
    pub(super) jwt_svids: JwtSvids,
    /// How often the server is asked.
    pub(super) interval: Duration,
}

impl Candidate {
    /// Takes the stored identity, or attests the node.
    ///
    /// # Errors
    /// [`AttestationError`].
    pub(super) async fn attested(self) -> Result<Upkeep, AttestationError> {
        let Self { stored, attestation, presented, told, server, cache, jwt_svids, interval } =
            self;
        let AttestedNode { identity, bundle } = match stored {
            Some(node) => node,
            None => attestation.attest_until_given_up(|| cache.can_serve()).await?,
        };
        let trusted = told.subscribe();
        told.send_replace(Arc::new(bundle));
        presented.send_replace(Some(identity.tls.clone()));
        // Whoever asked before did so without an identity.
        server.reconnect();
        let synchronizer = Synchronizer::new(
            server.clone(),
            cache.clone(),
            jwt_svids,
            EntrySource::default(),
            told,
            attestation.clock.clone(),
        );
        let own_svid = OwnSvid::new(identity, presented, attestation, server, trusted);
        Ok(Upkeep::new(own_svid, synchronizer, cache, interval))
    }
}
