//! Turns the slots: prepare, publish, activate. One task owns them and whoever wants a step asks
//! that task. Whatever fails, the authorities in use go on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prost::Message;
use spire_core::clock::whole_second;
use spire_core::tasks::Tasks;
use spire_core::upstream::UpstreamError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::application::Application;
use super::journal::{self, Journal, Status};
use super::jwt_key::JwtKey;
use super::orders::{Obeyed, Order};
use super::slots::{Due, Lifetime, SlotId, Slots, Slotted};
use super::x509_ca::X509Ca;
use super::{Authority, AuthorityState, RotationError, SlotStates, restore};
use crate::store::{CaJournal, CaJournalId};

/// Longest pause before a failed step is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// How often journals of servers that are gone are looked for.
const PRUNE: Duration = Duration::from_secs(8 * 3600);
/// How long a journal stays after its last authority ended.
const JOURNAL_GRACE: jiff::SignedDuration = jiff::SignedDuration::from_hours(14 * 24);

/// The slots of both kinds with what is written about them.
pub(super) struct Rotation {
    pub(super) authority: Arc<Authority>,
    pub(super) x509: Slots<X509Ca>,
    pub(super) jwt: Slots<JwtKey>,
    /// What the upstream is asked, or was at a try that failed.
    pub(super) application: Option<Application>,
    /// Those who ordered the X.509 authority that the upstream is asked for.
    pub(super) waiting: VecDeque<oneshot::Sender<Obeyed>>,
    pub(super) tasks: Tasks,
    pub(super) journal: Journal,
    pub(super) journal_id: Option<CaJournalId>,
    failures: u32,
    pause_until: Option<Timestamp>,
    /// The tainted root that was found last above the authority in use.
    tainted: Option<String>,
}

impl Rotation {
    /// Goes on from what was stored.
    pub(super) fn new(
        authority: Arc<Authority>,
        restored: restore::Restored,
        tasks: Tasks,
    ) -> Self {
        let restore::Restored { x509, jwt, journal, journal_id } = restored;
        let rotation = Self {
            authority,
            x509,
            jwt,
            application: None,
            waiting: VecDeque::new(),
            tasks,
            journal,
            journal_id,
            failures: 0,
            pause_until: None,
            tainted: None,
        };
        rotation.show();
        rotation
    }

    /// Takes the steps that are due at the start. A failure counts only where nothing signs, and only
    /// then the upstream is waited for.
    pub(super) async fn first_turn(&mut self) -> Result<(), RotationError> {
        let outcome = loop {
            match self.turn().await {
                Err(RotationError::NotYet) if !self.signs() => self.answered().await,
                outcome => break outcome,
            }
        };
        match outcome {
            Err(error) if !self.signs() => Err(error),
            outcome => {
                self.note(outcome);
                Ok(())
            }
        }
    }

    /// Whether there is an authority for each kind of SVID that is issued here.
    fn signs(&self) -> bool {
        let disable_jwt_svids = self.authority.settings.disable_jwt_svids;
        self.x509.active().is_some() && (disable_jwt_svids || self.jwt.active().is_some())
    }

    /// Looks for due steps and obeys orders, for ever.
    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        let mut look = interval(self.authority.settings.rotation_check_interval);
        let mut prune = interval(PRUNE);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        prune.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut bundle = self.authority.bundle.subscribe();
        let mut fell_back = self.authority.bundle.fell_back();
        let mut tainted_above = self.authority.tainted_above.subscribe();
        loop {
            tokio::select! {
                _ = look.tick() => self.look().await,
                Ok(()) = fell_back.changed() => self.recover().await,
                Ok(()) = bundle.changed() => {
                    self.recover().await;
                    self.look_if_tainted().await;
                }
                Ok(()) = tainted_above.changed() => self.look_if_tainted().await,
                _ = prune.tick() => self.prune_journals().await,
                () = self.answered() => self.take_up().await,
                Some(order) = orders.recv() => self.take(order).await,
            }
        }
    }

    /// Takes the steps that are due, unless the last failure is too fresh.
    pub(super) async fn look(&mut self) {
        self.recover().await;
        let now = self.now();
        if self.pause_until.is_some_and(|until| now < until) {
            return;
        }
        let outcome = self.turn().await;
        self.note(outcome);
    }

    pub(super) async fn look_if_tainted(&mut self) {
        let Some(root) = self.tainted_root() else { return };
        if self.tainted.as_ref() != Some(&root) {
            // A pause after something else does not hold this up.
            (self.pause_until, self.tainted) = (None, Some(root));
        }
        self.look().await;
    }

    fn note(&mut self, outcome: Result<(), RotationError>) {
        let Err(error) = outcome else {
            (self.pause_until, self.failures) = (None, 0);
            self.authority.set_rotation_failure(None);
            return;
        };
        if matches!(error, RotationError::NotYet) {
            return;
        }
        let now = self.now();
        self.pause_until = Some(super::after(now, self.pause(now, &error)));
        self.failures = self.failures.saturating_add(1);
        let Some(end) = self.alarming_end(now) else {
            tracing::warn!(
                subsystem_name = "ca_manager",
                %error,
                "Unable to rotate; the authorities in use go on"
            );
            self.authority.set_rotation_failure(None);
            return;
        };
        tracing::error!(
            subsystem_name = "ca_manager",
            %error,
            expiration = %end,
            "Unable to rotate, and an authority in use ends soon"
        );
        let failure = format!("an authority in use ends at {end}: {error}");
        self.authority.set_rotation_failure(Some(failure));
    }

    /// When the next authority ends that should have been replaced, where so much of its life is
    /// over that somebody has to see to it, or where what it signs is tainted.
    fn alarming_end(&self, now: Timestamp) -> Option<Timestamp> {
        let ca_ttl = self.authority.settings.ca_ttl;
        let x509 = self.x509.alarming_end(now, ca_ttl);
        let tainted = self.tainted_root().and(self.x509.active());
        let jwt = Some(()).filter(|()| !self.authority.settings.disable_jwt_svids);
        let jwt = jwt.and_then(|()| self.jwt.alarming_end(now, ca_ttl));
        let ends = [x509, tainted.map(|ca| ca.lifetime().not_after), jwt];
        ends.into_iter().flatten().min()
    }

    /// Takes the steps that are due, X.509 first. A failure there keeps JWT keys from turning only
    /// where no X.509 authority is active.
    ///
    /// # Errors
    /// The first failure. While the upstream has yet to answer that is `NotYet`: whatever else fails is
    /// told with its answer.
    pub(super) async fn turn(&mut self) -> Result<(), RotationError> {
        let x509 = self.turn_x509().await;
        if self.x509.active().is_none() || self.authority.settings.disable_jwt_svids {
            return x509;
        }
        let jwt = self.turn_jwt().await;
        x509.and(jwt)
    }

    async fn turn_x509(&mut self) -> Result<(), RotationError> {
        if let Some(root) = self.tainted_root() {
            return self.leave_tainted(root).await;
        }
        if self.x509.prepared().is_some_and(|ca| self.authority.is_tainted(ca.root_id())) {
            self.x509.clear_free();
            self.show();
        }
        if self.due(&self.x509) == Due::Prepare {
            self.upstream_outlives_active().await?;
            // Better below a tainted root than not at all.
            let made = match self.x509.active() {
                Some(_) => self.make_untainted().await?,
                None => self.make_x509().await?,
            };
            self.outlives_active(made.ca.lifetime().not_after)?;
            self.prepare_x509(made).await?;
        }
        if self.due(&self.x509) == Due::Activate {
            self.activate_x509().await?;
        }
        Ok(())
    }

    async fn turn_jwt(&mut self) -> Result<(), RotationError> {
        if self.due(&self.jwt) == Due::Prepare {
            self.prepare_jwt().await?;
        }
        if self.due(&self.jwt) == Due::Activate {
            self.activate_jwt().await?;
        }
        Ok(())
    }

    fn due<T: Slotted>(&self, slots: &Slots<T>) -> Due {
        slots.due(self.now(), self.authority.settings.ca_ttl)
    }

    pub(super) async fn activate_x509(&mut self) -> Result<(), RotationError> {
        let ca = self.x509.prepared().ok_or(RotationError::NotPrepared)?.clone();
        let (state, slot) = (ca.state(), ca.slot());
        let mut journal = self.journal.clone();
        journal::activate(&mut journal.x509_cas, &state.authority_id);
        self.save(journal, Some(state.authority_id.clone())).await?;
        self.x509.activate();
        self.show();
        let ttl = state.expires_at.duration_since(self.now()).as_secs();
        tracing::info!(
            subsystem_name = "ca_manager",
            %slot,
            expiration = %state.expires_at,
            local_authority_id = state.authority_id,
            upstream_authority_id = state.upstream_authority_id,
            "X509 CA activated"
        );
        tracing::info!(
            subsystem_name = "ca_manager",
            trust_domain_id = %self.authority.settings.trust_domain.id(),
            ttl,
            "Successfully rotated X.509 CA"
        );
        Ok(())
    }

    pub(super) async fn prepare_jwt(&mut self) -> Result<(), RotationError> {
        let slot = self.jwt.free();
        self.jwt.clear_free();
        self.show();
        let Authority { keys, settings, .. } = &*self.authority;
        let key = keys.generate(&JwtKey::key_id(slot), settings.jwt_key_type).await?;
        let key = JwtKey::new(slot, key, settings, self.now())?;
        self.authority.publish_jwt_key(key.authority()).await?;
        let mut journal = self.journal.clone();
        journal::add(&mut journal.jwt_keys, key.entry(Status::Prepared));
        let active = self.active_x509_id();
        self.save(journal, active).await?;
        log_jwt_key(slot, &key.state(), "prepared");
        self.jwt.prepare(Arc::new(key));
        self.show();
        Ok(())
    }

    pub(super) async fn activate_jwt(&mut self) -> Result<(), RotationError> {
        let key = self.jwt.prepared().ok_or(RotationError::NotPrepared)?.clone();
        let state = key.state();
        let mut journal = self.journal.clone();
        journal::activate(&mut journal.jwt_keys, &state.authority_id);
        let active = self.active_x509_id();
        self.save(journal, active).await?;
        self.jwt.activate();
        self.show();
        log_jwt_key(key.slot(), &state, "activated");
        Ok(())
    }

    /// Stores the journal, then remembers it. Without an active X.509 authority nobody could find
    /// it again, and it is not stored.
    pub(super) async fn save(
        &mut self,
        journal: Journal,
        active_x509_authority_id: Option<String>,
    ) -> Result<(), RotationError> {
        if let Some(active_x509_authority_id) = active_x509_authority_id {
            let stored = CaJournal {
                id: self.journal_id,
                active_x509_authority_id,
                data: journal.encode_to_vec().into(),
                expires_at: journal.ends_at().unwrap_or_else(|| self.now()),
            };
            self.journal_id = Some(self.authority.store.set_ca_journal(stored).await?);
        }
        self.journal = journal;
        Ok(())
    }

    async fn prune_journals(&self) {
        let ended_before = self.now() - JOURNAL_GRACE;
        if let Err(error) = self.authority.store.prune_ca_journals(ended_before).await {
            tracing::error!(subsystem_name = "ca_manager", %error, "Unable to prune CA journals");
        }
    }

    /// Shows the slots to those who sign and to those who look.
    pub(super) fn show(&self) {
        let Authority { x509, next_x509, jwt, x509_states, jwt_states, .. } = &*self.authority;
        x509.store(self.x509.active().cloned());
        next_x509.store(self.x509.prepared().cloned());
        jwt.store(self.jwt.active().cloned());
        x509_states.store(Arc::new(states(&self.x509)));
        jwt_states.store(Arc::new(states(&self.jwt)));
    }

    pub(super) fn active_x509_id(&self) -> Option<String> {
        self.x509.active().map(|ca| ca.issuer.authority_id().to_owned())
    }

    /// How long to wait after a failure: twice as long each time, but never so long that little of
    /// the active authority's life would be left for another try. An upstream that signed what is of
    /// no use may want to be paid all the same: it is asked as seldom as may be.
    fn pause(&self, now: Timestamp, failure: &RotationError) -> Duration {
        let shortest = self.authority.settings.rotation_check_interval;
        let left = |lifetime: Lifetime| {
            Duration::try_from(lifetime.not_after.duration_since(now)).unwrap_or_default()
        };
        let x509 = self.x509.active().map(|it| left(it.lifetime()));
        let jwt = self.jwt.active().map(|it| left(it.lifetime()));
        let doubled = shortest.saturating_mul(2u32.saturating_pow(self.failures));
        let doubled = doubled.min(LONGEST_PAUSE);
        let may_cost = matches!(
            failure,
            RotationError::WouldEndBefore { .. }
                | RotationError::StillTainted(_)
                | RotationError::Upstream(UpstreamError::Invalid(_))
        );
        if may_cost && self.tainted_root().is_none() {
            let seldom = x509.filter(|left| !left.is_zero()).map_or(doubled, |left| left / 8);
            return seldom.max(shortest);
        }
        let longest = x509.into_iter().chain(jwt).min().map_or(shortest, |left| left / 8);
        doubled.min(longest).max(shortest)
    }

    pub(super) fn now(&self) -> Timestamp {
        whole_second(self.authority.clock.now())
    }
}

fn states<T: Slotted>(slots: &Slots<T>) -> SlotStates {
    let state = |held: Option<&Arc<T>>| held.map(|it| it.state());
    SlotStates {
        active: state(slots.active()),
        prepared: state(slots.prepared()),
        old: state(slots.old()),
    }
}

fn log_jwt_key(slot: SlotId, state: &AuthorityState, step: &str) {
    tracing::info!(
        subsystem_name = "ca_manager",
        %slot,
        expiration = %state.expires_at,
        local_authority_id = state.authority_id,
        "JWT key {step}"
    );
}
