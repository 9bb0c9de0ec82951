//! What the token of an instance says, and what it must say.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use spire_core::jws::{Claims, JwsError};

use crate::evidence::AUDIENCE;

/// Who signs.
///
/// # Source
/// Google Cloud, "Verify the identity of a VM": the issuer is this, scheme included.
const ISSUER: &str = "https://accounts.google.com";
/// How far the clocks of Google and of this server may differ.
const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// What the token of an instance says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InstanceToken {
    pub(crate) instance: Instance,
    /// The email of the service account; empty where the token has none.
    pub(crate) email: String,
    /// Whether Google vouches for the email.
    pub(crate) email_verified: bool,
    /// The number of the service account.
    pub(crate) subject: String,
}

/// An instance, as Google names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) project_id: String,
    pub(crate) project_number: i64,
    pub(crate) zone: String,
    /// A decimal number, never given to another instance.
    pub(crate) id: String,
    /// Others have it once this instance is gone.
    pub(crate) name: String,
    pub(crate) created_at: Timestamp,
}

impl fmt::Display for Instance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { project_id, zone, name, id, .. } = self;
        write!(formatter, "projects/{project_id}/zones/{zone}/instances/{name} ({id})")
    }
}

/// What is looked at, as it is written.
#[derive(Deserialize)]
struct Written {
    email: Option<String>,
    email_verified: Option<bool>,
    sub: Option<String>,
    google: Option<Google>,
}

#[derive(Deserialize)]
struct Google {
    compute_engine: Option<ComputeEngine>,
}

#[derive(Deserialize)]
struct ComputeEngine {
    project_id: Option<String>,
    project_number: Option<u64>,
    zone: Option<String>,
    instance_id: Option<String>,
    instance_name: Option<String>,
    instance_creation_timestamp: Option<u64>,
}

/// Makes sure that the token is Google's, for us, and of this time.
pub(crate) fn check_standing(claims: &Claims, now: Timestamp) -> Result<(), JwsError> {
    claims.check_audience(AUDIENCE)?;
    let issuer = claims.text("iss")?.unwrap_or_default();
    if issuer != ISSUER {
        return Err(refused(format!("token is issued by {issuer:.64?}, not by {ISSUER:?}")));
    }
    claims.check_times(now, LEEWAY)?;
    match claims.instant("iat")? {
        Some(_) => Ok(()),
        None => Err(refused("token does not say when it was issued (iat)")),
    }
}

impl InstanceToken {
    /// Reads the claims of an instance's token.
    ///
    /// # Errors
    /// `Malformed` for what has another type, `Refused` for a token that is of no instance.
    pub(crate) fn read(claims: &Claims) -> Result<Self, JwsError> {
        let Written { email, email_verified, sub, google } = claims.to()?;
        let engine = google.and_then(|google| google.compute_engine).ok_or_else(|| {
            refused(
                "token is of no Compute Engine instance (no claim google.compute_engine): it \
                 must be asked for with format=full, and not from within GKE workload identity \
                 or Cloud Run",
            )
        })?;
        Ok(Self {
            instance: Instance::read(engine)?,
            email: email.unwrap_or_default(),
            email_verified: email_verified.unwrap_or_default(),
            subject: sub.unwrap_or_default(),
        })
    }
}

impl Instance {
    fn read(engine: ComputeEngine) -> Result<Self, JwsError> {
        let there = |name: &str, value: Option<String>| {
            let missing = || refused(format!("token has no claim google.compute_engine.{name}"));
            value.filter(|value| !value.is_empty()).ok_or_else(missing)
        };
        let wrong = |name: &str| {
            JwsError::Malformed(format!("token has a wrong claim google.compute_engine.{name}"))
        };
        let id = there("instance_id", engine.instance_id)?;
        if id.len() > 20 || !id.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong("instance_id"));
        }
        let number = i64::try_from(engine.project_number.unwrap_or_default());
        let created_at = i64::try_from(engine.instance_creation_timestamp.unwrap_or_default())
            .ok()
            .and_then(|seconds| Timestamp::from_second(seconds).ok());
        Ok(Self {
            project_id: there("project_id", engine.project_id)?,
            project_number: number.map_err(|_| wrong("project_number"))?,
            zone: there("zone", engine.zone)?,
            id,
            name: there("instance_name", engine.instance_name)?,
            created_at: created_at.ok_or_else(|| wrong("instance_creation_timestamp"))?,
        })
    }
}

fn refused(reason: impl Into<String>) -> JwsError {
    JwsError::Refused(reason.into())
}
