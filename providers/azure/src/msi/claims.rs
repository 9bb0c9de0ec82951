//! What a token says of a managed identity, and the keys by which Microsoft Entra signs it.

use std::time::Duration;

use async_trait::async_trait;
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use spire_core::clock::Clock;
use spire_core::jws::{Claims, Fetched, JwsError, KeySet, KeySource, MAX_KEY_SET_BYTES};
use spire_core::path_template::Value;
use spire_core::remote::{Answer, Client, until_answered};
use url::Url;

use super::config::Tenant;
use crate::cloud::{Cloud, Services, moved};

/// How far the clocks of Entra and of this server may be apart.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

/// How long one answer may take, all attempts together; two of them less than the cache waits.
const ANSWER: Duration = Duration::from_millis(4500);

/// Longest ID of a principal in bytes; genuine ones are UUIDs.
const MAX_PRINCIPAL_BYTES: usize = 128;

/// A managed identity that a token speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ManagedIdentity {
    pub(super) tenant_id: String,
    pub(super) principal_id: String,
}

impl ManagedIdentity {
    /// Reads it out of `claims`.
    ///
    /// # Errors
    /// `Refused` where one of its parts is missing, or no ID.
    pub(super) fn of(claims: &Claims) -> Result<Self, JwsError> {
        let part = |name: &str| -> Result<String, JwsError> {
            let value = claims.text(name)?.unwrap_or_default();
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            let is_id = (1..=MAX_PRINCIPAL_BYTES).contains(&value.len());
            match is_id && value.bytes().all(allowed) {
                true => Ok(value.to_owned()),
                false => Err(JwsError::Refused(format!("token has no ID in its claim {name}"))),
            }
        };
        Ok(Self { tenant_id: part("tid")?, principal_id: part("sub")? })
    }
}

/// Makes sure that Entra of that cloud issued the token in `tenant`.
pub(super) fn check_issuer(claims: &Claims, tenant: &Tenant, cloud: Cloud) -> Result<(), JwsError> {
    let issuer = claims.text("iss")?.unwrap_or_default();
    if cloud.issuers(&tenant.tenant_id).iter().any(|known| known == issuer) {
        return Ok(());
    }
    let issuer: String = issuer.chars().take(256).collect();
    Err(JwsError::Refused(format!("token was issued by {issuer:?}, not in its own tenant")))
}

/// Makes sure that the token is for whom it must be for, and that it is its time.
pub(super) fn check_use(claims: &Claims, tenant: &Tenant, now: Timestamp) -> Result<(), JwsError> {
    claims.check_audience(&tenant.resource_id)?;
    claims.check_times(now, LEEWAY)
}

/// The claims that every token may have, as fields of a path template.
pub(super) fn fields(claims: &Claims) -> Result<Vec<(&'static str, Value)>, JwsError> {
    #[derive(Deserialize)]
    struct Audience {
        aud: OneOrMany,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    let text = |name: &str| claims.text(name).map(|text| text.unwrap_or_default().into());
    let time = |name: &str| -> Result<Value, JwsError> {
        Ok(Value::Integer(claims.instant(name)?.map_or(0, Timestamp::as_second)))
    };
    let audience = match claims.to::<Audience>()?.aud {
        OneOrMany::One(audience) => vec![audience],
        OneOrMany::Many(audiences) => audiences,
    };
    Ok(vec![
        ("Issuer", text("iss")?),
        ("Subject", "".into()),
        ("Audience", Value::List(audience.iter().map(|one| one.as_str().into()).collect())),
        ("Expiry", time("exp")?),
        ("NotBefore", time("nbf")?),
        ("IssuedAt", time("iat")?),
        ("ID", text("jti")?),
    ])
}

/// Where Entra publishes its keys.
pub(super) struct EntraKeys {
    pub(super) client: Client,
    pub(super) services: Services,
    pub(super) clock: Clock,
}

impl EntraKeys {
    async fn ask(&self, url: Url) -> Result<Answer, String> {
        let place = url.to_string();
        let attempt = || {
            let request = self.client.request(Method::GET, url.clone());
            self.client.send(request, ANSWER, MAX_KEY_SET_BYTES)
        };
        let answer = until_answered(attempt, ANSWER).await;
        let answer = answer.map_err(|error| format!("{place}: {error}"))?;
        match answer.status {
            StatusCode::OK => Ok(answer),
            status => Err(format!("{place} answered {status}")),
        }
    }
}

#[async_trait]
impl KeySource for EntraKeys {
    async fn fetch(&self) -> Result<Fetched, String> {
        #[derive(Deserialize)]
        struct Discovery {
            jwks_uri: String,
        }
        let Services { login, cloud, .. } = &self.services;
        let discovery = self.ask(login.url("/common/.well-known/openid-configuration")).await?;
        let discovery: Discovery =
            serde_json::from_slice(&discovery.body).map_err(|error| error.to_string())?;
        let keys = moved(&discovery.jwks_uri, cloud.login_hosts(), login);
        let keys = keys.ok_or_else(|| {
            format!("its keys are said to be at {:?}, on another host", discovery.jwks_uri)
        })?;
        let answer = self.ask(keys).await?;
        let keys = KeySet::from_jwks(&answer.body)?;
        Ok(Fetched::new(keys, &answer.headers, self.clock.now()))
    }
}
