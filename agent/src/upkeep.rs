//! Keeps an attested agent what it is: in step with its server, and holder of a valid SVID. One
//! task does both, so that neither has to wait for, or look out for, the other.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use spire_core::clock::Clock;

use crate::attestation::AttestationError;
use crate::backoff::Backoff;
use crate::cache::Cache;
use crate::client::Denial;
use crate::config::RebootstrapMode;
use crate::rotation::OwnSvid;
use crate::storage::StorageError;
use crate::sync::{SyncError, Synchronizer};

/// How often the agent's own SVID is looked at, and how soon a failed sync is tried again.
const ATTENTIVE: Duration = Duration::from_secs(5);
/// How long the first sync may be tried.
const FIRST_SYNC: Duration = Duration::from_secs(60);
/// The longest wait between two tries, as a time and in parts of the interval.
const LONGEST_WAIT: Duration = Duration::from_mins(8);
const LONGEST_WAIT_INTERVALS: u32 = 48;

/// An agent that has been attested, as its server sees it.
pub struct Upkeep {
    own_svid: OwnSvid,
    synchronizer: Synchronizer,
    cache: Arc<Cache>,
    clock: Clock,
    interval: Duration,
    sync_backoff: Backoff,
    svid_backoff: Backoff,
}

/// What ends an agent.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The server denies it everything, is another one, or cannot be reached for too long.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The server denies it another SVID.
    #[error("failed to rotate agent SVID: {0}")]
    Denied(AttestationError),
    /// Its SVID could not be replaced in time, and nothing that it holds for workloads is valid.
    #[error("current SVID has already expired and rotate agent SVID failed: {0}")]
    Expired(AttestationError),
    /// Its servers were replaced: it must begin anew.
    #[error("Agent needs to rebootstrap. shutting down")]
    Rebootstrap,
    /// Its data folder failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A sync that failed.
enum Failure {
    /// It may be tried again.
    Passing(SyncError),
    /// It may not.
    Final(Ended),
}

impl From<StorageError> for Failure {
    fn from(error: StorageError) -> Self {
        Self::Final(error.into())
    }
}

impl Upkeep {
    /// Of an agent that asks the server every `interval`.
    pub fn new(
        own_svid: OwnSvid,
        synchronizer: Synchronizer,
        cache: Arc<Cache>,
        interval: Duration,
    ) -> Self {
        let longest = LONGEST_WAIT.min(interval * LONGEST_WAIT_INTERVALS);
        Self {
            clock: own_svid.attestation().clock.clone(),
            own_svid,
            synchronizer,
            cache,
            interval,
            sync_backoff: Backoff::new(ATTENTIVE.min(longest), longest),
            svid_backoff: Backoff::new(ATTENTIVE, LONGEST_WAIT),
        }
    }

    /// Asks the server until it has answered once, for a minute at most.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn begin(&mut self) -> Result<(), Ended> {
        let mut backoff = Backoff::new(ATTENTIVE, FIRST_SYNC);
        let mut waited = Duration::ZERO;
        loop {
            let error = match self.sync().await {
                Ok(()) => return Ok(()),
                Err(Failure::Final(ended)) => return Err(ended),
                Err(Failure::Passing(error)) => error,
            };
            let wait = backoff.after_failure();
            waited += wait;
            if waited > FIRST_SYNC {
                return Err(error.into());
            }
            tracing::error!(%error, retry_interval = ?wait, "Failed to initialize manager");
            self.clock.sleep(wait).await;
        }
    }

    /// Goes on until something ends the agent. The first sync is made after `first`.
    ///
    /// # Errors
    /// [`Ended`].
    pub async fn go_on(mut self, first: Duration) -> Result<Infallible, Ended> {
        let mut sync = Box::pin(self.clock.sleep(first));
        let mut check = Box::pin(self.clock.sleep(ATTENTIVE));
        loop {
            tokio::select! {
                () = &mut sync => {
                    let wait = self.next_sync().await?;
                    sync.set(self.clock.sleep(wait));
                }
                () = &mut check => {
                    let wait = self.check_svid().await?;
                    check.set(self.clock.sleep(wait));
                }
            }
        }
    }

    /// Syncs, and says when to do so again.
    async fn next_sync(&mut self) -> Result<Duration, Ended> {
        match self.sync().await {
            Ok(()) => {
                self.sync_backoff.reset();
                Ok(self.interval)
            }
            Err(Failure::Final(ended)) => Err(ended),
            Err(Failure::Passing(error)) => {
                let wait = self.sync_backoff.after_failure();
                let nothing_to_serve = self.cache.counts().x509_svids == 0;
                let wait = if nothing_to_serve { wait.min(ATTENTIVE) } else { wait };
                tracing::error!(
                    subsystem_name = "manager",
                    %error,
                    retry_interval = ?wait,
                    "Synchronize failed"
                );
                Ok(wait)
            }
        }
    }

    /// Asks the server once; again where it wanted another attestation first.
    async fn sync(&mut self) -> Result<(), Failure> {
        let error = match self.ask().await {
            Err(Failure::Passing(error)) => error,
            outcome => return outcome,
        };
        if let Some(denial) = error.cause().denial() {
            if !self.regain(denial, &error).await? {
                return Err(Failure::Final(error.into()));
            }
            return self.ask().await;
        }
        if error.cause().is_unknown_authority() {
            let attestation = self.own_svid.attestation();
            let rebootstrap = &attestation.rebootstrap;
            if rebootstrap.mode == RebootstrapMode::Never || !self.own_svid.is_reattestable() {
                return Err(Failure::Final(error.into()));
            }
            if rebootstrap.authority_is_unknown(&attestation.storage)? {
                return Err(Failure::Final(Ended::Rebootstrap));
            }
        }
        Err(Failure::Passing(error))
    }

    async fn ask(&mut self) -> Result<(), Failure> {
        let synced = self.synchronizer.sync(self.own_svid.id()).await;
        let synced = synced.map_err(Failure::Passing)?;
        self.own_svid.attestation().storage.store_bundle(&self.synchronizer.bundle())?;
        if let Some(tainted) = &synced.tainted
            && self.own_svid.is_tainted_by(tainted)
            && let Err(error) = self.own_svid.rotate().await
        {
            // It is still due, and the next check tries again.
            tracing::error!(%error, "Failed to rotate agent SVID");
        }
        Ok(())
    }

    /// Replaces the agent's SVID where it is due, and says when to look again.
    async fn check_svid(&mut self) -> Result<Duration, Ended> {
        if !self.own_svid.is_due() {
            return Ok(ATTENTIVE);
        }
        let error = match self.own_svid.rotate().await {
            Ok(()) => {
                self.svid_backoff.reset();
                return Ok(ATTENTIVE);
            }
            Err(error) => error,
        };
        if let Some(denial) = error.denial() {
            return match self.regain(denial, &error).await? {
                true => Ok(ATTENTIVE),
                false => Err(Ended::Denied(error)),
            };
        }
        if self.own_svid.has_expired() && !self.cache.can_serve() {
            return Err(Ended::Expired(error));
        }
        let wait = self.svid_backoff.after_failure();
        tracing::error!(%error, retry_interval = ?wait, "Failed to rotate agent SVID");
        Ok(wait)
    }

    /// Answers to a denial. Returns whether the agent has a new SVID; otherwise it has none.
    async fn regain(
        &mut self,
        denial: Denial,
        error: &(dyn Display + Sync),
    ) -> Result<bool, StorageError> {
        let storage = self.own_svid.attestation().storage.clone();
        if denial == Denial::Banned {
            tracing::error!(%error, "Agent is banned: removing SVID and shutting down");
            storage.delete_svid()?;
            return Ok(false);
        }
        tracing::warn!(%error, "Agent needs to re-attest; will attempt to re-attest");
        let attested = if self.own_svid.is_reattestable() {
            self.own_svid.reattest().await
        } else {
            let text = "attestation method is not re-attestable";
            Err(AttestationError::Answer(text.to_owned()))
        };
        match attested {
            Ok(()) => {
                tracing::info!("Successfully reattested node");
                Ok(true)
            }
            Err(error) => {
                tracing::error!(
                    %error,
                    "Agent failed re-attestation; removing SVID and shutting down"
                );
                storage.delete_svid()?;
                Ok(false)
            }
        }
    }
}
