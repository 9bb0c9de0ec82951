//! What operators order: a step out of turn, and the end of an authority whose key may be in wrong
//! hands. Such a one is tainted, so that all that it signed is replaced, and then revoked, so that
//! nothing of it holds any more; only one that no longer signs can be.

use std::sync::Arc;

use spire_core::bundle::Bundle;
use spire_core::limits::REMOTE_CALL;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::jwt_key::JwtKey;
use super::rotation::Rotation;
use super::slots::{Slots, Slotted};
use super::{Authority, AuthorityState, Kind, RotationError};
use crate::store::StoreError;

/// What an operator asks of the task that owns the slots.
#[derive(Debug, Clone)]
pub(super) enum Command {
    Prepare(Kind),
    Activate(Kind, String),
    Taint(Kind, String),
    Revoke(Kind, String),
    TaintUpstream(String),
    RevokeUpstream(String),
}

/// What became of a command: the authority that it was about, where that lies in a slot.
pub(super) type Obeyed = Result<Option<AuthorityState>, RotationError>;

/// A command with the place for its answer.
pub(super) type Order = (Command, oneshot::Sender<Obeyed>);

impl Authority {
    /// Makes the next authority, whether one is due or not. One that was prepared is replaced.
    ///
    /// # Errors
    /// [`RotationError`].
    pub async fn prepare(&self, kind: Kind) -> Result<AuthorityState, RotationError> {
        self.order(Command::Prepare(kind)).await?.ok_or(RotationError::UnexpectedId)
    }

    /// Lets the prepared authority sign.
    ///
    /// # Errors
    /// [`RotationError`] where `id` is not that of the prepared one.
    pub async fn activate(&self, kind: Kind, id: &str) -> Result<AuthorityState, RotationError> {
        let activated = self.order(Command::Activate(kind, id.to_owned())).await?;
        activated.ok_or(RotationError::UnexpectedId)
    }

    /// Has everything replaced that the old authority signed.
    ///
    /// # Errors
    /// [`RotationError`] where `id` is not the old authority's, or there is an upstream.
    pub async fn taint(&self, kind: Kind, id: &str) -> Result<AuthorityState, RotationError> {
        let tainted = self.order(Command::Taint(kind, id.to_owned())).await?;
        tainted.ok_or(RotationError::UnexpectedId)
    }

    /// Takes a tainted authority out of the bundle. What it signed holds no more.
    ///
    /// # Errors
    /// [`RotationError`] where `id` is none that is tainted and signs no more.
    pub async fn revoke(&self, kind: Kind, id: &str) -> Result<(), RotationError> {
        self.order(Command::Revoke(kind, id.to_owned())).await.map(drop)
    }

    /// Has everything replaced that leads to the root of the old authority.
    ///
    /// # Errors
    /// [`RotationError`] where `subject_key_id` is another's, or there is no upstream.
    pub async fn taint_upstream(&self, subject_key_id: &str) -> Result<(), RotationError> {
        self.order(Command::TaintUpstream(subject_key_id.to_owned())).await.map(drop)
    }

    /// Takes the tainted root of the old authority out of the bundle.
    ///
    /// # Errors
    /// [`RotationError`] where `subject_key_id` is another's, or there is no upstream.
    pub async fn revoke_upstream(&self, subject_key_id: &str) -> Result<(), RotationError> {
        self.order(Command::RevokeUpstream(subject_key_id.to_owned())).await.map(drop)
    }

    async fn order(&self, command: Command) -> Obeyed {
        let (answer, answered) = oneshot::channel();
        let sent = self.orders.send((command, answer)).await;
        sent.map_err(|_| RotationError::Stopping)?;
        answered.await.unwrap_or(Err(RotationError::Stopping))
    }
}

impl Rotation {
    /// Obeys an order, or keeps it until the upstream has answered.
    pub(super) async fn take(&mut self, (command, answer): Order) {
        match self.obey(command).await {
            Err(RotationError::NotYet) => self.waiting.push_back(answer),
            outcome => {
                // Whoever asked may have gone: the step was done all the same.
                let _ = answer.send(outcome);
            }
        }
    }

    /// Takes up what the upstream has answered: for those who ordered it, else where it is due.
    pub(super) async fn take_up(&mut self) {
        if self.waiting.is_empty() {
            return self.look().await;
        }
        while let Some(answer) = self.waiting.pop_front() {
            match self.obey(Command::Prepare(Kind::X509)).await {
                Err(RotationError::NotYet) => return self.waiting.push_front(answer),
                outcome => {
                    let _ = answer.send(outcome);
                }
            }
            // Nothing more is bought for those who have gone.
            self.waiting.retain(|answer| !answer.is_closed());
        }
    }

    pub(super) async fn obey(&mut self, command: Command) -> Obeyed {
        match command {
            Command::Prepare(Kind::X509) => {
                let made = self.make_x509().await?;
                self.prepare_x509(made).await?;
                Ok(self.x509.prepared().map(|it| it.state()))
            }
            Command::Prepare(Kind::Jwt) => {
                self.prepare_jwt().await?;
                Ok(self.jwt.prepared().map(|it| it.state()))
            }
            Command::Activate(Kind::X509, id) => {
                check_prepared(&self.x509, &id)?;
                self.activate_x509().await?;
                Ok(self.x509.active().map(|it| it.state()))
            }
            Command::Activate(Kind::Jwt, id) => {
                check_prepared(&self.jwt, &id)?;
                self.activate_jwt().await?;
                Ok(self.jwt.active().map(|it| it.state()))
            }
            Command::Taint(Kind::X509, id) => self.taint_x509(id).await.map(Some),
            Command::Taint(Kind::Jwt, id) => self.taint_jwt(id).await.map(Some),
            Command::Revoke(Kind::X509, id) => self.revoke_x509(id).await.map(|()| None),
            Command::Revoke(Kind::Jwt, id) => self.revoke_jwt(id).await.map(|()| None),
            Command::TaintUpstream(id) => self.taint_upstream(id).await.map(|()| None),
            Command::RevokeUpstream(id) => self.revoke_upstream(id).await.map(|()| None),
        }
    }

    async fn taint_x509(&self, id: String) -> Result<AuthorityState, RotationError> {
        if self.authority.upstream.is_some() {
            let why = "local authority can't be tainted if there is an upstream authority";
            return Err(RotationError::OtherSort(why));
        }
        let state = check_old(&self.x509, &id)?;
        self.edit(move |bundle| taint_root(bundle, &id)).await?;
        tracing::info!(
            subsystem_name = "ca_manager",
            local_authority_id = state.authority_id,
            "X.509 authority tainted successfully"
        );
        Ok(state)
    }

    async fn taint_jwt(&self, id: String) -> Result<AuthorityState, RotationError> {
        let state = check_old(&self.jwt, &id)?;
        self.edit(move |bundle| taint_key(bundle, &id)).await?;
        let id = &state.authority_id;
        tracing::info!(
            subsystem_name = "ca_manager",
            local_authority_id = id,
            "JWT authority tainted successfully"
        );
        let bundle = self.authority.bundle.current();
        if let Some(key) = bundle.jwt_authorities.iter().find(|key| key.key_id == *id)
            && let Err(error) = self.authority.publish_upstream(key).await
        {
            tracing::warn!(
                subsystem_name = "ca_manager",
                local_authority_id = id,
                %error,
                "The upstream authority could not be told that the key is tainted: servers beside \
                 this one trust it until it expires; taint it there too"
            );
        }
        Ok(state)
    }

    async fn revoke_x509(&self, id: String) -> Result<(), RotationError> {
        if self.authority.upstream.is_some() {
            let why = "local authority can't be revoked if there is an upstream authority";
            return Err(RotationError::OtherSort(why));
        }
        let invalid = |why: &str| RotationError::Unfit(format!("invalid authority ID: {why}"));
        if self.x509.active().is_some_and(|active| active.state().authority_id == id) {
            return Err(invalid("unable to use current authority"));
        }
        if self.x509.old().is_none_or(|old| old.state().authority_id != id) {
            return Err(invalid("only Old local authority can be revoked"));
        }
        let revoked = id.clone();
        self.edit(move |bundle| revoke_root(bundle, &revoked)).await?;
        tracing::info!(
            subsystem_name = "ca_manager",
            local_authority_id = id,
            "X.509 authority revoked successfully"
        );
        Ok(())
    }

    async fn revoke_jwt(&self, id: String) -> Result<(), RotationError> {
        let invalid = |why: &str| RotationError::Unfit(format!("invalid authority ID: {why}"));
        let is = |held: Option<&Arc<JwtKey>>| held.is_some_and(|held| held.id == id);
        if is(self.jwt.active()) {
            return Err(invalid("unable to use current authority"));
        }
        if is(self.jwt.prepared()) {
            return Err(invalid("unable to use prepared authority"));
        }
        let bundle = self.authority.bundle.current();
        let is_known = bundle.jwt_authorities.iter().any(|key| key.key_id == id);
        if !is(self.jwt.old()) && !is_known {
            return Err(invalid("no JWT authority found with provided authority ID"));
        }
        let revoked = id.clone();
        self.edit(move |bundle| revoke_key(bundle, &revoked)).await?;
        tracing::info!(
            subsystem_name = "ca_manager",
            local_authority_id = id,
            "JWT authority revoked successfully"
        );
        Ok(())
    }

    async fn taint_upstream(&self, id: String) -> Result<(), RotationError> {
        self.check_upstream_of_old(&id, "provided subject key id is not valid")?;
        let root = id.clone();
        self.edit(move |bundle| taint_root(bundle, &root)).await?;
        tracing::info!(
            subsystem_name = "ca_manager",
            subject_key_id = id,
            "X.509 upstream authority tainted successfully"
        );
        Ok(())
    }

    async fn revoke_upstream(&self, id: String) -> Result<(), RotationError> {
        self.check_upstream_of_old(&id, "invalid subject key ID")?;
        self.check_gone_above(&id).await?;
        let root = id.clone();
        self.edit(move |bundle| revoke_root(bundle, &root)).await?;
        tracing::info!(
            subsystem_name = "ca_manager",
            subject_key_id = id,
            "X.509 upstream authority successfully revoked"
        );
        Ok(())
    }

    /// Whether `id` is that of a root above the old authority and not above the active one.
    fn check_upstream_of_old(&self, id: &str, what: &str) -> Result<(), RotationError> {
        if self.authority.upstream.is_none() {
            return Err(RotationError::OtherSort("upstream authority is not configured"));
        }
        // Scripts match this one with its typo.
        let why = if self.x509.active().is_some_and(|active| active.root_id() == id) {
            "unable to use upstream authority singing current authority"
        } else if self.x509.old().is_none_or(|old| old.root_id() != id) {
            "upstream authority didn't sign the old local authority"
        } else {
            return Ok(());
        };
        Err(RotationError::Unfit(format!("{what}: {why}")))
    }

    /// A root that the upstream still trusts would come back with its next answer. One that does not
    /// answer keeps nobody from revoking.
    async fn check_gone_above(&self, id: &str) -> Result<(), RotationError> {
        let Some(upstream) = &self.authority.upstream else { return Ok(()) };
        let Ok(Ok(above)) = timeout(REMOTE_CALL, upstream.bundle()).await else { return Ok(()) };
        if above.roots.iter().any(|root| !root.tainted && root.has_id(id)) {
            let why = "the upstream authority still trusts this root, which would come back; remove \
                       it there first: from its file, secret or supplemental bundle, or by revoking \
                       it on the server above";
            return Err(RotationError::Unfit(why.to_owned()));
        }
        Ok(())
    }

    async fn edit<F>(&self, change: F) -> Result<(), RotationError>
    where
        F: Fn(&mut Bundle) -> Result<(), StoreError> + Send + Sync + 'static,
    {
        self.authority.bundle.edit(change).await.map_err(|error| match error {
            StoreError::Invalid(why) => RotationError::Unfit(why),
            StoreError::Refused(why) => RotationError::Done(why),
            error => error.into(),
        })
    }
}

/// Whether `id` is what an operator may activate.
fn check_prepared<T: Slotted>(slots: &Slots<T>, id: &str) -> Result<(), RotationError> {
    match (slots.prepared(), slots.old()) {
        (Some(prepared), _) if prepared.state().authority_id == id => Ok(()),
        (None, Some(old)) if old.state().authority_id == id => Err(RotationError::NotPrepared),
        _ => Err(RotationError::UnexpectedId),
    }
}

/// Whether `id` is what an operator may taint.
fn check_old<T: Slotted>(slots: &Slots<T>, id: &str) -> Result<AuthorityState, RotationError> {
    let is = |held: Option<&Arc<T>>| {
        held.map(|held| held.state()).filter(|state| state.authority_id == id)
    };
    let unfit = |why: &str| Err(RotationError::Unfit(why.to_owned()));
    if is(slots.active()).is_some() {
        return unfit("unable to taint current local authority");
    }
    if is(slots.prepared()).is_some() {
        return unfit(
            "only Old local authorities can be tainted: unsupported local authority status: \
             PREPARED",
        );
    }
    is(slots.old()).ok_or(RotationError::UnexpectedId)
}

const NO_ROOT: &str = "no root CA found with provided subject key ID";
const NO_KEY: &str = "no JWT Key found with provided key ID";

/// Taints all roots with this subject key identifier: one that was renewed is there twice.
pub(super) fn taint_root(bundle: &mut Bundle, id: &str) -> Result<(), StoreError> {
    let roots = bundle.x509_authorities.iter_mut();
    let mut roots: Vec<_> = roots.filter(|root| root.has_id(id)).collect();
    if roots.is_empty() {
        return refused(NO_ROOT);
    }
    if roots.iter().all(|root| root.tainted) {
        return refused("root CA is already tainted");
    }
    roots.iter_mut().for_each(|root| root.tainted = true);
    Ok(())
}

fn revoke_root(bundle: &mut Bundle, id: &str) -> Result<(), StoreError> {
    let mut roots = bundle.x509_authorities.iter().filter(|root| root.has_id(id)).peekable();
    if roots.peek().is_none() {
        return refused(NO_ROOT);
    }
    if roots.any(|root| !root.tainted) {
        return untainted("root CA");
    }
    bundle.x509_authorities.retain(|root| !root.has_id(id));
    Ok(())
}

fn taint_key(bundle: &mut Bundle, id: &str) -> Result<(), StoreError> {
    match bundle.jwt_authorities.iter_mut().find(|key| key.key_id == id) {
        None => refused(NO_KEY),
        Some(key) if key.tainted => refused("key is already tainted"),
        Some(key) => {
            key.tainted = true;
            Ok(())
        }
    }
}

fn revoke_key(bundle: &mut Bundle, id: &str) -> Result<(), StoreError> {
    match bundle.jwt_authorities.iter().find(|key| key.key_id == id) {
        None => refused(NO_KEY),
        Some(key) if !key.tainted => untainted("key"),
        Some(_) => {
            bundle.jwt_authorities.retain(|key| key.key_id != id);
            Ok(())
        }
    }
}

/// It was done before.
fn refused(why: &str) -> Result<(), StoreError> {
    Err(StoreError::Refused(why.to_owned()))
}

fn untainted(what: &str) -> Result<(), StoreError> {
    Err(StoreError::Invalid(format!("it is not possible to revoke an untainted {what}")))
}
