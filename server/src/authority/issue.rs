//! Issuing: the rules for lifetimes, and what goes into each kind of SVID.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use spire_core::clock::whole_second;
use spire_core::entry::{DnsName, Entry};
use spire_core::id::SpiffeId;
use spire_core::keys::KeyError;
use spire_core::svid::jwt::{self, Claims};
use spire_core::svid::x509::{
    self, CaTemplate, CertificateRequest, LeafTemplate, Subject, X509Svid,
};

use super::slots::Slotted;
use super::x509_ca::X509Ca;
use super::{Authority, after};

/// Lifetime of the SVID that a health check signs and throws away.
const HEALTH_CHECK_TTL: Duration = Duration::from_secs(60);

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// No authority is active, or the active one has ended.
    #[error("{0} is not available for signing")]
    NotReady(&'static str),
    /// The operator switched JWT-SVIDs off.
    #[error("JWT functionality is disabled")]
    JwtDisabled,
    /// What was asked for may not be in an SVID.
    #[error("{0}")]
    Refused(String),
    /// The key could not sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// What a JWT-SVID shall say.
#[derive(Debug, Clone, Copy)]
pub struct JwtRequest<'r> {
    /// Whom it names.
    pub id: &'r SpiffeId,
    /// Whom it is for; empty texts are dropped, and one must be left.
    pub audience: &'r [String],
    /// How long it lives; `None` and zero mean the server's default. The life of the key caps it.
    pub ttl: Option<Duration>,
    /// Whether it gets a random `jti`.
    pub with_id: bool,
}

/// A JWT-SVID.
#[derive(Clone)]
pub struct JwtSvid {
    /// Whom it names.
    pub id: SpiffeId,
    /// The signed token, which is a secret of its holder.
    pub token: String,
    /// When it was signed, whole seconds.
    pub issued_at: Timestamp,
    /// When it ceases to be valid, whole seconds.
    pub expires_at: Timestamp,
}

impl Authority {
    /// An X.509-SVID for a workload: ID, DNS names and lifetime come from its entry, the key from
    /// the request. Nothing but memory is read.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_workload(
        &self,
        request: &CertificateRequest,
        entry: &Entry,
    ) -> Result<X509Svid, IssueError> {
        let template = LeafTemplate {
            id: &entry.spiffe_id,
            public_key: &request.public_key,
            dns_names: &entry.dns_names,
            subject: None,
            ttl: or_default(seconds(entry.x509_svid_ttl), self.settings.default_x509_svid_ttl),
        };
        self.sign_leaf(&template).await
    }

    /// An X.509-SVID for an agent.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_agent(
        &self,
        request: &CertificateRequest,
        agent_id: &SpiffeId,
    ) -> Result<X509Svid, IssueError> {
        let template = LeafTemplate {
            id: agent_id,
            public_key: &request.public_key,
            dns_names: &[],
            subject: None,
            ttl: self.settings.agent_ttl,
        };
        self.sign_leaf(&template).await
    }

    /// An X.509-SVID that an operator asks for, with the subject of the request where that has one.
    /// The caller has checked `id` and `dns_names`. `None` and zero mean the default lifetime.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn mint_x509(
        &self,
        request: &CertificateRequest,
        id: &SpiffeId,
        dns_names: &[DnsName],
        ttl: Option<Duration>,
    ) -> Result<X509Svid, IssueError> {
        let template = LeafTemplate {
            id,
            public_key: &request.public_key,
            dns_names,
            subject: Some(&request.subject).filter(|subject| **subject != Subject::default()),
            ttl: or_default(ttl, self.settings.default_x509_svid_ttl),
        };
        self.sign_leaf(&template).await
    }

    /// A CA certificate for a server below this one, followed by what leads from it to a root.
    /// Only the key of the request counts. `None` and zero mean `ca_ttl`; the life of the authority
    /// that signs caps it. Where the active one has not that long to live, the prepared one signs as
    /// soon as it is known everywhere: what is signed here is to last while this server rotates.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_downstream(
        &self,
        request: &CertificateRequest,
        ttl: Option<Duration>,
    ) -> Result<Vec<Bytes>, IssueError> {
        let now = self.clock.now();
        let ttl = or_default(ttl, self.settings.ca_ttl);
        let ca = self.downstream_x509(now, ttl)?;
        let template = CaTemplate {
            trust_domain: &self.settings.trust_domain,
            public_key: &request.public_key,
            subject: &ca.issuer.downstream_subject(),
            ttl,
        };
        Ok(ca.issuer.sign_ca(&template, now).await?)
    }

    /// A JWT-SVID. Nothing but memory is read.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn sign_jwt(&self, request: JwtRequest<'_>) -> Result<JwtSvid, IssueError> {
        if self.settings.disable_jwt_svids {
            return Err(IssueError::JwtDisabled);
        }
        let now = whole_second(self.clock.now());
        let key = self.jwt.load_full();
        let key = key.filter(|key| !key.lifetime().has_ended(now));
        let key = key.ok_or(IssueError::NotReady("JWT key"))?;
        let ttl = or_default(request.ttl, self.settings.default_jwt_svid_ttl);
        let expires_at = after(now, ttl).min(key.lifetime().not_after);
        let claims = Claims {
            subject: request.id,
            audience: request.audience,
            issued_at: now,
            expires_at: whole_second(expires_at),
            issuer: self.settings.jwt_issuer.as_deref(),
            with_id: request.with_id,
        };
        let token = jwt::sign(&*key.key, &key.id, &claims).await?;
        let Claims { issued_at, expires_at, .. } = claims;
        Ok(JwtSvid { id: request.id.clone(), token, issued_at, expires_at })
    }

    /// Whether an X.509-SVID can be signed: `sign_x509_svid_err` of `server.ca`.
    ///
    /// # Errors
    /// [`IssueError`].
    pub async fn check_signing(&self) -> Result<(), IssueError> {
        let ca = self.active_x509(self.clock.now())?;
        let id = self.settings.trust_domain.member("/for/health/check/only");
        let template = LeafTemplate {
            id: &id.map_err(|err| IssueError::Refused(err.to_string()))?,
            public_key: &ca.public_key,
            dns_names: &[],
            subject: None,
            ttl: HEALTH_CHECK_TTL,
        };
        self.sign_leaf(&template).await.map(drop)
    }

    pub(super) async fn sign_leaf(
        &self,
        template: &LeafTemplate<'_>,
    ) -> Result<X509Svid, IssueError> {
        let now = self.clock.now();
        Ok(self.active_x509(now)?.issuer.sign_leaf(template, now).await?)
    }

    /// The CA that signs servers below this one for `ttl`.
    fn downstream_x509(&self, now: Timestamp, ttl: Duration) -> Result<Arc<X509Ca>, IssueError> {
        let active = self.active_x509(now)?;
        let end = active.lifetime().not_after;
        if after(now, ttl) <= end {
            return Ok(active);
        }
        let next = self.next_x509.load_full().filter(|next| {
            next.lifetime().not_after > end
                && now >= next.distributed_below_at()
                && !self.is_tainted(next.root_id())
        });
        Ok(next.unwrap_or(active))
    }

    /// The CA that signs. One that has ended would sign nothing that holds.
    fn active_x509(&self, now: Timestamp) -> Result<Arc<X509Ca>, IssueError> {
        let ca = self.x509.load_full().filter(|ca| !ca.lifetime().has_ended(now));
        ca.ok_or(IssueError::NotReady("X509 CA"))
    }
}

impl From<x509::IssueError> for IssueError {
    fn from(err: x509::IssueError) -> Self {
        match err {
            x509::IssueError::Key(err) => Self::Key(err),
            x509::IssueError::Template(why) => Self::Refused(why),
        }
    }
}

impl From<jwt::SignError> for IssueError {
    fn from(err: jwt::SignError) -> Self {
        match err {
            jwt::SignError::Key(err) => Self::Key(err),
            jwt::SignError::NoAudience => Self::Refused(err.to_string()),
        }
    }
}

fn seconds(count: u32) -> Option<Duration> {
    Some(Duration::from_secs(count.into()))
}

/// What was asked for, unless nothing was.
fn or_default(asked: Option<Duration>, default: Duration) -> Duration {
    asked.filter(|ttl| !ttl.is_zero()).unwrap_or(default)
}
