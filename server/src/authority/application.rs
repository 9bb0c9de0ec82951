//! Makes the next X.509 authority. Some upstreams are paid for each certificate: what one has signed
//! is kept until the authority lies in its slot, whatever fails on the way, and is not asked for
//! again. A signature may take minutes: a task of its own waits for it, and all else goes on.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use spire_core::bundle::X509Authority;
use spire_core::keys::SigningKey;
use spire_core::limits::REMOTE_CALL;
use spire_core::svid::x509::ca_request;
use spire_core::tasks::Tasks;
use spire_core::upstream::{Minted, UpstreamAuthority, UpstreamError};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::journal::{self, Status};
use super::rotation::Rotation;
use super::slots::{Lifetime, SlotId, Slotted};
use super::x509_ca::X509Ca;
use super::{Authority, RotationError, after, late};

/// How long an upstream authority may take to sign: some are asked again and again for minutes.
const MINT: Duration = Duration::from_secs(240);

type Answer = Result<Minted, UpstreamError>;

/// What an upstream is asked to sign, and what it signed.
pub(super) struct Application {
    slot: SlotId,
    key: Arc<dyn SigningKey>,
    /// PKCS#10, DER. The same bytes ask for the same certificate.
    request: Bytes,
    /// Where its answer comes, while it is asked.
    asked: Option<oneshot::Receiver<Answer>>,
    answer: Option<Answer>,
}

/// An authority that does not lie in its slot yet.
pub(super) struct Made {
    pub(super) ca: X509Ca,
    /// By which it was made, where there is an upstream.
    application: Option<Application>,
}

impl Application {
    async fn new(slot: SlotId, authority: &Authority) -> Result<Self, RotationError> {
        let Authority { keys, settings, .. } = authority;
        let key = keys.generate(&X509Ca::key_id(slot), settings.ca_key_type).await?;
        let request = ca_request(&*key, &settings.trust_domain, &settings.ca_subject).await?;
        Ok(Self { slot, key, request, asked: None, answer: None })
    }

    /// What `upstream` has signed. A failure is told once; the next try asks again.
    ///
    /// # Errors
    /// `NotYet` where it is asked, from now on or already.
    fn minted(
        &mut self,
        upstream: &Arc<dyn UpstreamAuthority>,
        ttl: Duration,
        tasks: &Tasks,
    ) -> Result<Minted, RotationError> {
        if let Some(answer) = self.answer.take() {
            let minted = answer?;
            self.answer = Some(Ok(minted.clone()));
            return Ok(minted);
        }
        if self.asked.is_none() {
            self.asked = Some(self.ask(Arc::clone(upstream), ttl, tasks));
        }
        Err(RotationError::NotYet)
    }

    /// Whether its answer is awaited.
    pub(super) fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    fn ask(
        &self,
        upstream: Arc<dyn UpstreamAuthority>,
        ttl: Duration,
        tasks: &Tasks,
    ) -> oneshot::Receiver<Answer> {
        let (sender, answer) = oneshot::channel();
        let (request, stop) = (self.request.clone(), tasks.stop_token());
        tasks.spawn(async move {
            let mint = timeout(MINT, upstream.mint(&request, ttl));
            if let Some(answer) = stop.run_until_cancelled(mint).await {
                // Nobody waits for it any more where the server's start has failed.
                let _ = sender.send(answer.unwrap_or_else(|_| Err(late())));
            }
        });
        answer
    }
}

impl Rotation {
    /// Returns when the upstream has answered what it was asked, and never while it is not.
    pub(super) async fn answered(&mut self) {
        let Some(Application { asked, answer, .. }) = &mut self.application else {
            return pending().await;
        };
        let Some(receiver) = asked else { return pending().await };
        let stopping = || UpstreamError::Unavailable(RotationError::Stopping.to_string());
        let received = receiver.await.unwrap_or_else(|_| Err(stopping()));
        (*asked, *answer) = (None, Some(received));
    }

    /// As [`make_x509`](Self::make_x509), below a root that is not tainted.
    ///
    /// # Errors
    /// `StillTainted` where the upstream has no other root, as far as it tells before it is paid, or
    /// signed below a tainted one all the same.
    pub(super) async fn make_untainted(&mut self) -> Result<Made, RotationError> {
        self.upstream_left_tainted().await?;
        let made = self.make_x509().await?;
        let root = made.ca.root_id();
        if self.authority.is_tainted(root) {
            return Err(RotationError::StillTainted(root.to_owned()));
        }
        Ok(made)
    }

    async fn upstream_left_tainted(&self) -> Result<(), RotationError> {
        let Some(upstream) = &self.authority.upstream else { return Ok(()) };
        if self.is_under_way() {
            return Ok(());
        }
        let Ok(Ok(told)) = timeout(REMOTE_CALL, upstream.bundle()).await else { return Ok(()) };
        let ids: Vec<_> = told.roots.iter().filter_map(|root| root.authority_id().ok()).collect();
        match ids.first() {
            Some(id) if ids.iter().all(|id| self.authority.is_tainted(id)) => {
                Err(RotationError::StillTainted(id.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Makes an X.509 authority for the free slot, and publishes what its SVIDs are checked by.
    ///
    /// # Errors
    /// `NotYet` until the upstream has [answered](Self::answered).
    pub(super) async fn make_x509(&mut self) -> Result<Made, RotationError> {
        let slot = self.x509.free();
        self.x509.clear_free();
        self.show();
        let authority = Arc::clone(&self.authority);
        let (made, roots) = match &authority.upstream {
            Some(upstream) => self.apply(slot, upstream).await?,
            None => {
                let Authority { keys, settings, .. } = &*authority;
                let key = keys.generate(&X509Ca::key_id(slot), settings.ca_key_type).await?;
                let (ca, roots) = X509Ca::self_signed(slot, key, settings, self.now()).await?;
                (Made { ca, application: None }, roots)
            }
        };
        // A tainted root may have been revoked here: it counts only where there is no other.
        let root_id = made.ca.root_id();
        let roots = roots.into_iter().filter(|root| !root.tainted || root.has_id(root_id));
        if let Err(error) = authority.bundle.append(roots.collect(), Vec::new()).await {
            self.application = made.application;
            return Err(error.into());
        }
        self.warn_if_short(&made.ca);
        Ok(made)
    }

    /// Has an intermediate signed, or takes up the one of a try before. Returns it with the roots
    /// that belong into the bundle.
    async fn apply(
        &mut self,
        slot: SlotId,
        upstream: &Arc<dyn UpstreamAuthority>,
    ) -> Result<(Made, Vec<X509Authority>), RotationError> {
        let kept = self.application.take().filter(|kept| kept.slot == slot);
        let mut application = match kept {
            Some(kept) => kept,
            None => Application::new(slot, &self.authority).await?,
        };
        let Authority { settings, bundle, .. } = &*self.authority;
        let minted = match application.minted(upstream, settings.ca_ttl, &self.tasks) {
            Ok(minted) => minted,
            Err(error) => {
                self.application = Some(application);
                return Err(error);
            }
        };
        let (known, now) = (bundle.current(), self.now());
        let key = Arc::clone(&application.key);
        let ca = X509Ca::intermediate(slot, key, &minted, settings, &known, now)?;
        Ok((Made { ca, application: Some(application) }, minted.roots))
    }

    /// Lays an authority into its slot.
    pub(super) async fn prepare_x509(&mut self, made: Made) -> Result<(), RotationError> {
        let Made { ca, application } = made;
        let mut journal = self.journal.clone();
        journal::add(&mut journal.x509_cas, ca.entry(Status::Prepared));
        let active = self.active_x509_id();
        if let Err(error) = self.save(journal, active).await {
            self.application = application;
            return Err(error);
        }
        let state = ca.state();
        tracing::info!(
            subsystem_name = "ca_manager",
            slot = %ca.slot(),
            expiration = %state.expires_at,
            local_authority_id = state.authority_id,
            upstream_authority_id = state.upstream_authority_id,
            "X509 CA prepared"
        );
        self.x509.prepare(Arc::new(ca));
        self.show();
        Ok(())
    }

    /// An upstream that lives no longer than what it signs cuts its life short.
    fn warn_if_short(&self, ca: &X509Ca) {
        let Lifetime { issued_at, not_after } = ca.lifetime();
        let wanted = after(issued_at, self.authority.settings.ca_ttl);
        // A certificate knows no part of a second.
        if not_after.duration_since(wanted) < SignedDuration::from_secs(-1) {
            tracing::warn!(
                subsystem_name = "ca_manager",
                ca_ttl = ?self.authority.settings.ca_ttl,
                expiration = %not_after,
                "The upstream authority signs for less than ca_ttl, so that this server rotates \
                 more often; set ca_ttl to at most a third of the life of the CA above"
            );
        }
    }

    /// Whether the upstream can sign what [outlives](Self::outlives_active) the authority in use, as
    /// far as it tells before it is paid.
    pub(super) async fn upstream_outlives_active(&self) -> Result<(), RotationError> {
        let Some(upstream) = &self.authority.upstream else { return Ok(()) };
        if self.is_under_way() {
            return Ok(());
        }
        let end = timeout(REMOTE_CALL, upstream.ends_at()).await.map_err(|_| late())??;
        end.map_or(Ok(()), |end| self.outlives_active(end))
    }

    /// Whether the upstream is asked already, or what it signed waits to be used.
    pub(super) fn is_under_way(&self) -> bool {
        let kept = self.application.as_ref();
        kept.is_some_and(|kept| kept.is_asked() || kept.answer.is_some())
    }

    /// An upstream near its own end signs authorities that end before the one in use: taking
    /// turns ever faster would help nobody.
    pub(super) fn outlives_active(&self, not_after: Timestamp) -> Result<(), RotationError> {
        let Some(active) = self.x509.active().map(|active| active.lifetime()) else {
            return Ok(());
        };
        if not_after > active.not_after || active.has_ended(self.now()) {
            return Ok(());
        }
        Err(RotationError::WouldEndBefore { not_after, active: active.not_after })
    }
}
